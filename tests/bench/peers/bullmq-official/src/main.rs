//! Drives `bullmq-official`, the Rust port of BullMQ: defaults, so finished jobs are kept.

#[path = "../../driver.rs"]
mod driver;

use std::time::{Duration, Instant};

use bullmq::options::RedisConnectionOptions;
use bullmq::{BulkJob, Job, Queue, QueueOptions, Worker, WorkerOptions};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use driver::{Figures, Order, PATIENCE, Runs, at, padding, seconds_since, us_between};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Jobs in one `add_bulk`, which sends them down one connection without waiting in between.
const SLICE: usize = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let order = Order::read();
    let runs = Runs::new(order.jobs);
    let mut figures = Figures { one_s: one_by_one(&order).await?, ..Figures::default() };
    let queue = open(&order, "bulk").await?;
    at("empty");
    figures.bulk_s = bulk(&queue, order.jobs).await?;
    at("full");
    (figures.drain_s, figures.finished) = drain(&order, &queue, &runs).await?;
    figures.latency_us = latency(&order).await?;
    figures.report(&order, &runs);
    Ok(())
}

fn connection(order: &Order) -> RedisConnectionOptions {
    RedisConnectionOptions::new().url(order.url())
}

async fn open(order: &Order, name: &str) -> Result<Queue> {
    Ok(Queue::with_options(name, QueueOptions::new().connection(connection(order))).await?)
}

fn args(i: usize) -> Value {
    json!({ "i": i, "padding": padding(i) })
}

async fn one_by_one(order: &Order) -> Result<f64> {
    let queue = open(order, "one").await?;
    let jobs: Vec<Value> = (0..order.one).map(args).collect();
    let start = Instant::now();
    for job in jobs {
        queue.add("noop", job).await?;
    }
    let took_s = seconds_since(start);
    assert_eq!(queue.get_waiting_count().await?, order.one as u64);
    Ok(took_s)
}

async fn bulk(queue: &Queue, jobs: usize) -> Result<f64> {
    let mut all: Vec<BulkJob> = (0..jobs).map(|i| BulkJob::new("noop", args(i))).collect();
    let start = Instant::now();
    while !all.is_empty() {
        let rest = all.split_off(all.len().min(SLICE));
        queue.add_bulk(std::mem::replace(&mut all, rest)).await?;
    }
    let took_s = seconds_since(start);
    assert_eq!(queue.get_waiting_count().await?, jobs as u64);
    Ok(took_s)
}

fn options(order: &Order) -> WorkerOptions {
    WorkerOptions::new().connection(connection(order)).concurrency(order.slots).manual_start()
}

async fn drain(order: &Order, queue: &Queue, runs: &Runs) -> Result<(f64, u64)> {
    let counted = runs.clone();
    let handler = move |job: Job, _| {
        let index = job.data()["i"].as_u64().and_then(|i| usize::try_from(i).ok());
        counted.count(index.expect("the args come back"));
        async { Ok(Value::Null) }
    };
    let worker = Worker::with_options("bulk", handler, options(order)).await?;
    let start = Instant::now();
    worker.run().await?;
    let took_s = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if queue.get_completed_count().await? >= order.jobs as u64 {
            break seconds_since(start);
        }
        assert!(start.elapsed() < PATIENCE, "the drain did not end");
    };
    worker.close(10_000).await?;
    let counts = queue.get_job_counts().await?;
    assert_eq!((counts.waiting, counts.active, counts.failed), (0, 0, 0));
    Ok((took_s, counts.completed))
}

async fn latency(order: &Order) -> Result<Vec<u64>> {
    let queue = open(order, "idle").await?;
    let (starts, mut started) = mpsc::unbounded_channel();
    let handler = move |_: Job, _| {
        let _ = starts.send(Instant::now());
        async { Ok(Value::Null) }
    };
    let worker = Worker::with_options("idle", handler, options(order)).await?;
    worker.run().await?;
    let mut samples = Vec::new();
    for sample in 0..order.samples + 20 {
        let job = args(sample);
        tokio::time::sleep(Duration::from_millis(3)).await;
        let start = Instant::now();
        queue.add("noop", job).await?;
        let begun = tokio::time::timeout(PATIENCE, started.recv()).await?.ok_or("the worker is gone")?;
        if sample >= 20 {
            samples.push(us_between(start, begun));
        }
    }
    worker.close(10_000).await?;
    Ok(samples)
}
