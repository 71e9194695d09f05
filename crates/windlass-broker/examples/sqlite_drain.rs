//! Temporary measurement.
use std::time::{Duration, Instant};
use windlass_broker::sqlite::*;
use windlass_broker::{Enqueue, Inspect, Leases};
use windlass_jobs::command::*;
use windlass_jobs::{NewJob, Queue};

#[tokio::main]
async fn main() {
    let n: usize = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(100_000);
    let sync = if std::env::args().nth(2).as_deref() == Some("full") { Synchronous::Full } else { Synchronous::Normal };
    let dir = std::env::temp_dir().join(format!("drain-{}", std::process::id()));
    let path = dir.join("q.db");
    let broker = SqliteBroker::open(&path, SqliteOptions { synchronous: sync, ..Default::default() }).await.unwrap();
    let queue = Queue::new("q").unwrap();
    let args = serde_json::json!({ "text": "x".repeat(88) });
    let jobs: Vec<NewJob> = (0..n).map(|_| NewJob::new("noop", &args).unwrap()).collect();
    let t = Instant::now();
    for c in jobs.chunks(2500) { broker.enqueue(&queue, c).await.unwrap(); }
    let e = t.elapsed();
    println!("enqueue {:.0}/s", n as f64 / e.as_secs_f64());
    let t = Instant::now();
    let mut tasks = vec![];
    for w in 0..3 {
        let (broker, queue) = (broker.clone(), queue.clone());
        tasks.push(tokio::spawn(async move {
            let mut finishes = vec![]; let mut done = 0;
            loop {
                let claim = Some(Claim { worker: format!("w{w}"), max: 128, lease: Duration::from_secs(30) });
                let had = finishes.len();
                let r = broker.exchange(&queue, &Exchange { finishes, claim }).await.unwrap();
                assert!(r.acks.iter().all(|a| *a == Ack::Taken)); done += r.acks.len();
                if r.claimed.is_empty() && had == 0 { break done; }
                finishes = r.claimed.iter().map(|c| Finish { lease: c.lease, settle: Settle::Success { result: None, skipped: false } }).collect();
            }
        }));
    }
    let mut done = 0; for t in tasks { done += t.await.unwrap(); }
    assert_eq!(done, n);
    let e = t.elapsed();
    println!("drain {:.0}/s  {:?}", n as f64 / e.as_secs_f64(), broker.counts(&queue).await.unwrap());
    let t = Instant::now();
    for _ in 0..2000 { broker.enqueue(&queue, &[NewJob::new("noop", &args).unwrap()]).await.unwrap(); }
    println!("single enqueue {:.0}/s", 2000.0 / t.elapsed().as_secs_f64());
    std::fs::remove_dir_all(dir).ok();
}
