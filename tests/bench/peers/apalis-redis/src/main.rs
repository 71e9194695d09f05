//! Drives a stock apalis-redis: task locks on as it comes; or, with `BENCH_TUNED=1`, without
//! locks and looking for jobs every [`LOOK`].
//!
//! It moves every due job in one Lua `unpack`, which fails from 8,000 of them on; and without an
//! interval it looks for jobs after a job and at its heartbeat only.

#[path = "../../driver.rs"]
mod driver;

use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apalis::prelude::{BoxDynError, Data, ParallelizeExt, TaskSink, WorkerBuilder, WorkerError};
use apalis_core::backend::ext::BackendExt;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use driver::{Figures, Order, PATIENCE, Runs, at, padding, seconds_since, us_between};

type Result<T> = std::result::Result<T, BoxDynError>;
type Run = Pin<Box<dyn Future<Output = std::result::Result<(), WorkerError>> + Send>>;

const LOOK: Duration = Duration::from_millis(5);
/// Without an interval: when it looks again, unless a job ends before. One sample takes that long.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Where its `fetch_next.lua` breaks.
const UNPACKED: usize = 8_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Noop {
    i: usize,
    padding: String,
}

impl Noop {
    fn new(i: usize) -> Self {
        Self { i, padding: padding(i) }
    }
}

struct Bench {
    order: Order,
    tuned: bool,
    redis: ConnectionManager,
}

#[tokio::main]
async fn main() -> Result<()> {
    let order = Order::read();
    assert!(order.jobs < UNPACKED, "the worker would die at its first look");
    let runs = Runs::new(order.jobs);
    let tuned = std::env::var("BENCH_TUNED").is_ok_and(|v| v == "1");
    let redis = apalis_redis::connect(order.url()).await?;
    let bench = Bench { order, tuned, redis };
    let mut figures = Figures { one_s: bench.one_by_one().await?, ..Figures::default() };
    at("empty");
    figures.bulk_s = bench.bulk().await?;
    at("full");
    (figures.drain_s, figures.finished) = bench.drain(&runs).await?;
    figures.latency_us = bench.latency().await?;
    figures.report(&bench.order, &runs);
    Ok(())
}

impl Bench {
    fn storage(&self, queue: &str) -> RedisStorage<Noop> {
        let config = Config::default().queue(queue).batch_size(self.order.slots).lock_tasks(!self.tuned);
        RedisStorage::new(self.redis.clone()).with_config(config)
    }

    async fn count(&self, command: &str, key: String) -> Result<u64> {
        Ok(redis::cmd(command).arg(key).query_async(&mut self.redis.clone()).await?)
    }

    async fn one_by_one(&self) -> Result<f64> {
        let mut storage = self.storage("one");
        let start = Instant::now();
        for i in 0..self.order.one {
            storage.push(Noop::new(i)).await?;
        }
        let took_s = seconds_since(start);
        assert_eq!(self.count("ZCARD", storage.get_config().scheduled_jobs_set()).await?, self.order.one as u64);
        Ok(took_s)
    }

    async fn bulk(&self) -> Result<f64> {
        let mut storage = self.storage("bulk");
        let jobs = (0..self.order.jobs).map(Noop::new).collect();
        let start = Instant::now();
        storage.push_bulk(jobs).await?;
        let took_s = seconds_since(start);
        assert_eq!(self.count("ZCARD", storage.get_config().scheduled_jobs_set()).await?, self.order.jobs as u64);
        Ok(took_s)
    }

    /// Starts a worker on this runtime; aborted, it is gone.
    fn start(&self, queue: &str, note: Note) -> JoinHandle<()> {
        let (storage, name) = (self.storage(queue), format!("{queue}-worker"));
        // Boxed here: inside an async block the compiler loses sight of the future's lifetime.
        let run: Run = if self.tuned {
            let storage = storage.poll_with_interval(LOOK);
            let worker = WorkerBuilder::new(name).backend(storage).data(note).parallelize(tokio::spawn).build(noop);
            Box::pin(worker.run())
        } else {
            let worker = WorkerBuilder::new(name).backend(storage).data(note).parallelize(tokio::spawn).build(noop);
            Box::pin(worker.run())
        };
        tokio::spawn(async { run.await.expect("the worker runs") })
    }

    async fn drain(&self, runs: &Runs) -> Result<(f64, u64)> {
        let config = self.storage("bulk").get_config().clone();
        let start = Instant::now();
        let worker = self.start("bulk", Note::Count(runs.clone()));
        let took_s = loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.count("SCARD", config.done_jobs_set()).await? >= self.order.jobs as u64 {
                break seconds_since(start);
            }
            assert!(!worker.is_finished() && start.elapsed() < PATIENCE, "the drain did not end");
        };
        worker.abort();
        for left in [self.count("ZCARD", config.scheduled_jobs_set()), self.count("LLEN", config.active_jobs_list())] {
            assert_eq!(left.await?, 0);
        }
        Ok((took_s, self.count("SCARD", config.done_jobs_set()).await?))
    }

    async fn latency(&self) -> Result<Vec<u64>> {
        let (starts, mut started) = mpsc::unbounded_channel();
        let worker = self.start("idle", Note::Tell(starts));
        let mut storage = self.storage("idle");
        let mut samples = Vec::new();
        let (count, warm_up) = if self.tuned { (self.order.samples, 20) } else { (1, 0) };
        for sample in 0..count + warm_up {
            // The one job of a stock worker comes at any time between two of its looks.
            let pause = if self.tuned { Duration::from_millis(3) } else { HEARTBEAT.mul_f64(any_part()) };
            tokio::time::sleep(pause).await;
            let start = Instant::now();
            storage.push(Noop::new(sample)).await?;
            let at = tokio::time::timeout(PATIENCE, started.recv()).await?.ok_or("the worker is gone")?;
            if sample >= warm_up {
                samples.push(us_between(start, at));
            }
        }
        worker.abort();
        Ok(samples)
    }
}

/// Between 0 and 1, as the clock has it.
fn any_part() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    f64::from(now.subsec_micros()) / 1e6
}

/// What the job that does nothing leaves behind.
#[derive(Clone)]
enum Note {
    Count(Runs),
    Tell(mpsc::UnboundedSender<Instant>),
}

async fn noop(job: Noop, note: Data<Note>) -> Result<()> {
    match &*note {
        Note::Count(runs) => runs.count(job.i),
        Note::Tell(starts) => starts.send(Instant::now())?,
    }
    Ok(())
}
