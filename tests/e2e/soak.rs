//! Long runs: what a worker and its queue hold at the end is what they held at the beginning.
//! `tests/soak worker` is the long form.

use std::time::{Duration, Instant};

use serde_json::json;
use windlass_jobs::{NewJob, Options};
use windlass_testkit::RedisServer;

use crate::faults::Direct;
use crate::harness::{Home, SOON, wait};

/// Jobs a second.
const RATE: u64 = 200;

/// What is held at one moment, with nothing running and nothing kept.
#[derive(Debug, Clone, Copy)]
struct Held {
    worker_rss_kib: u64,
    descriptors: u64,
    threads: u64,
    keys: u64,
    redis_bytes: u64,
}

/// A job of the mix: most do their work, one in ten goes wrong in some way.
fn job(n: u64) -> NewJob {
    let crash = |how: &str| ("probe.crash", json!({ "how": how }));
    let (kind, args) = match n % 40 {
        3 => ("probe.fail", json!({ "how": "panic" })),
        13 => ("probe.fail", json!({ "how": "retry", "times": 1 })),
        23 => crash("abort"),
        33 => crash("panic"),
        5 | 15 | 25 | 35 => ("probe.isolated_noop", json!({})),
        7 | 27 => ("probe.sleep", json!({ "ms": 100 })),
        17 if n % 400 == 17 => crash("memory"),
        17 if n % 400 == 217 => crash("big_result"),
        _ => ("probe.noop", json!({ "text": "x".repeat(usize::try_from(n % 700).unwrap_or(0)) })),
    };
    let max_attempts = Some(if n % 40 == 13 { 3 } else { 1 });
    let backoff = Some(windlass_jobs::Backoff::Fixed { delay_ms: 200 });
    NewJob { options: Options { max_attempts, backoff, ..Options::default() }, ..NewJob::new(kind, &args).unwrap() }
}

struct Soak<'a> {
    direct: &'a Direct,
    pid: u64,
    sent: u64,
}

impl Soak<'_> {
    fn load(&mut self, span: Duration) {
        let (begun, first) = (Instant::now(), self.sent);
        while begun.elapsed() < span {
            let due = first + u64::try_from(begun.elapsed().as_millis()).unwrap() * RATE / 1000;
            let jobs: Vec<NewJob> = (self.sent..due).map(job).collect();
            self.sent = due;
            if !jobs.is_empty() {
                self.direct.enqueue(&jobs);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.direct.wait_drained(SOON * 2);
    }

    fn held(&self) -> Held {
        let zero = Duration::ZERO;
        let tidied = || {
            use windlass_broker::Leases as _;
            self.direct.runtime.block_on(self.direct.broker.tidy(&self.direct.queue, zero, zero)).unwrap()
        };
        while tidied() > 0 {}
        let number = |text: String| text.parse().unwrap_or(0);
        Held {
            worker_rss_kib: crate::isolation::status(self.pid, "VmRSS:").unwrap(),
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count() as u64,
            threads: crate::isolation::status(self.pid, "Threads:").unwrap(),
            keys: self.direct.census().len() as u64,
            redis_bytes: number(self.direct.info("memory", "used_memory")),
        }
    }
}

/// L9 in short, with mixed faults: memory, descriptors, threads and keys end where they began.
#[test]
fn l9_a_worker_under_mixed_faults_holds_no_more_at_the_end() {
    let seconds: u64 = std::env::var("WINDLASS_SOAK_SECONDS").map_or(12, |s| s.parse().unwrap());
    let redis = RedisServer::start();
    let home = Home::on(&redis);
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &["--slots", "16"]);
    let mut pid = None;
    wait(SOON, "the worker is on the list", || {
        pid = home.json(&["workers"])["workers"][0]["pid"].as_u64();
        pid.is_some()
    });
    let pid = pid.unwrap();
    let mut soak = Soak { direct: &direct, pid, sent: 0 };
    // Pools, buffers and caches fill up first.
    soak.load(Duration::from_secs((seconds / 3).min(30)));
    let before = soak.held();
    soak.load(Duration::from_secs(seconds));
    let mut after = soak.held();
    // Children that were ended meanwhile are waited for.
    wait(SOON, "descriptors are given back", || {
        after = soak.held();
        after.descriptors <= before.descriptors + 9
    });
    let counts = direct.counts();
    eprintln!("{} jobs at {RATE}/s, {counts:?}\nbefore {before:?}\nafter  {after:?}", soak.sent);
    assert!(worker.is_up(), "{}", worker.log());
    assert_eq!(counts.unfinished(), 0);
    assert_eq!(counts.expired_leases_total, 0, "no lease was lost");
    let within = |what: &str, before: u64, after: u64, slack: u64| {
        assert!(after <= before + before / 20 + slack, "{what}: {before} before, {after} after");
    };
    within("keys", before.keys, after.keys, 0);
    within("threads", before.threads, after.threads, 1);
    // An idle child holds three; how many of them are idle varies.
    within("descriptors", before.descriptors, after.descriptors, 9);
    // In its first minute the allocator still takes what it keeps.
    let settling = if seconds < 60 { 8 * 1024 } else { 1024 };
    within("resident KiB", before.worker_rss_kib, after.worker_rss_kib, settling);
    within("Redis bytes", before.redis_bytes, after.redis_bytes, 256 * 1024);
}
