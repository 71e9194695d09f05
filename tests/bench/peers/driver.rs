//! What the Rust drivers share: the order they get, how they report, and the count of runs.
//!
//! `../queue` starts a driver with `BENCH_*` set, reads JSON lines from its stdout, and answers each
//! `at` line with one line on stdin once it has read the memory of the Redis server.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest a drain or one start may take.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What to do.
pub struct Order {
    /// Port of the private Redis server.
    pub port: u64,
    /// Jobs waiting before the worker starts.
    pub jobs: usize,
    /// Jobs enqueued one after the other.
    pub one: usize,
    /// Samples of the idle latency.
    pub samples: usize,
    /// Jobs run at once.
    pub slots: usize,
}

impl Order {
    pub fn read() -> Self {
        Self {
            port: number("BENCH_PORT"),
            jobs: size("BENCH_JOBS"),
            one: size("BENCH_ONE"),
            samples: size("BENCH_SAMPLES"),
            slots: size("BENCH_SLOTS"),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

fn number(name: &str) -> u64 {
    let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

fn size(name: &str) -> usize {
    usize::try_from(number(name)).expect("a size")
}

/// The padding that makes `{"i":…,"padding":"…"}` exactly 100 bytes.
pub fn padding(i: usize) -> String {
    "x".repeat(100 - r#"{"i":,"padding":""}"#.len() - i.to_string().len())
}

/// How often each job was run.
#[derive(Clone)]
pub struct Runs(Arc<Vec<AtomicU32>>);

impl Runs {
    pub fn new(jobs: usize) -> Self {
        Self(Arc::new((0..jobs).map(|_| AtomicU32::new(0)).collect()))
    }

    pub fn count(&self, i: usize) {
        self.0[i].fetch_add(1, Ordering::Relaxed);
    }

    fn once(&self) -> usize {
        self.0.iter().filter(|runs| runs.load(Ordering::Relaxed) == 1).count()
    }
}

/// Says where the driver is, and waits until the harness has looked at the server.
pub fn at(place: &str) {
    say(&json!({ "at": place }));
    std::io::stdin().read_line(&mut String::new()).expect("the harness answers");
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).expect("the harness listens");
}

/// What was measured: jobs and seconds, so that the harness divides.
#[derive(Default)]
pub struct Figures {
    pub one_s: f64,
    pub bulk_s: f64,
    pub drain_s: f64,
    pub latency_us: Vec<u64>,
    /// Jobs that Redis holds as finished after the drain.
    pub finished: u64,
}

impl Figures {
    pub fn report(&self, order: &Order, runs: &Runs) {
        say(&json!({ "figures": {
            "one": [order.one, self.one_s],
            "bulk": [order.jobs, self.bulk_s],
            "drain": [order.jobs, self.drain_s],
            "latency_us": self.latency_us,
            "ran_once": runs.once(),
            "finished": self.finished,
        }}));
    }
}

pub fn seconds_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

pub fn us_between(start: Instant, end: Instant) -> u64 {
    u64::try_from(end.duration_since(start).as_micros()).expect("a short time")
}
