//! Event streams for a long time: the API holds at the end what it held at the beginning. `tests/soak sse` is
//! the long form.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use windlass_jobs::{JobId, NewJob};
use windlass_testkit::RedisServer;

use crate::faults::{Direct, sleep_job};
use crate::harness::{Home, SOON};

/// Streams that are open at once.
const CLIENTS: usize = 200;
/// Jobs that are watched at once, each by several clients.
const JOBS: usize = 40;
/// How long each runs, in ms; it says how far it is twenty times.
const RUN_MS: u64 = 2_000;

/// What clients watch and what they saw.
#[derive(Default)]
struct Shown {
    jobs: Mutex<Vec<JobId>>,
    is_over: AtomicBool,
    open: AtomicU64,
    events: AtomicU64,
    ends: AtomicU64,
}

impl Shown {
    fn job(&self, client: usize) -> Option<JobId> {
        let jobs = self.jobs.lock().unwrap();
        jobs.get(client % JOBS).cloned()
    }

    /// Watches one job after the other, each to its end.
    fn watch(&self, client: usize, address: &str) {
        let mut seen = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(job) = self.job(client).filter(|job| Some(job) != seen.as_ref()) else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(SOON * 3)).unwrap();
            let head = format!("GET /api/tasks/{job}/events HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            self.open.fetch_add(1, Ordering::Relaxed);
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            self.open.fetch_sub(1, Ordering::Relaxed);
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            self.events.fetch_add(text.matches("event: ").count() as u64, Ordering::Relaxed);
            self.ends.fetch_add(text.matches("event: end").count() as u64, Ordering::Relaxed);
            seen = Some(job);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    rss_kib: u64,
    descriptors: u64,
    threads: u64,
}

/// The most of each while all streams were open.
fn most(pid: u32, shown: &Shown, span: Duration) -> Held {
    let begun = Instant::now();
    let mut most = Held { rss_kib: 0, descriptors: 0, threads: 0 };
    while begun.elapsed() < span || most.rss_kib == 0 {
        assert!(begun.elapsed() < span + SOON, "never were all streams open");
        if shown.open.load(Ordering::Relaxed) >= CLIENTS as u64 * 9 / 10 {
            let status = |name: &str| crate::isolation::status(u64::from(pid), name).unwrap();
            most.rss_kib = most.rss_kib.max(status("VmRSS:"));
            most.threads = most.threads.max(status("Threads:"));
            let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
            most.descriptors = most.descriptors.max(open);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    most
}

/// 200 clients watch jobs to their ends over and over: memory, descriptors and threads stay.
#[test]
fn two_hundred_event_streams_hold_no_memory() {
    let seconds: u64 = std::env::var("WINDLASS_SOAK_SECONDS").map_or(9, |s| s.parse().unwrap());
    let redis = RedisServer::start();
    let home = Home::on(&redis).with("WINDLASS_MAX_EVENT_STREAMS", "400");
    let (api, url) = home.serve(&["api"]);
    let _worker = home.worker("probe", &["--slots", "64"]);
    let direct = Direct::to(&home, "probe");
    let shown = Arc::new(Shown::default());
    let address = url.trim_start_matches("http://").to_owned();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (shown, address) = (Arc::clone(&shown), address.clone());
            let thread = std::thread::Builder::new().stack_size(128 * 1024);
            thread.spawn(move || shown.watch(client, &address)).unwrap()
        })
        .collect();
    let feeding = Arc::clone(&shown);
    let feeder = std::thread::spawn(move || {
        while !feeding.is_over.load(Ordering::Relaxed) {
            let jobs: Vec<NewJob> = (0..JOBS).map(|_| sleep_job(RUN_MS)).collect();
            *feeding.jobs.lock().unwrap() = direct.enqueue(&jobs);
            direct.wait_drained(SOON * 3);
        }
    });
    let part = Duration::from_secs(seconds) / 3;
    most(api.pid(), &shown, part);
    let before = most(api.pid(), &shown, part.min(Duration::from_secs(60)));
    std::thread::sleep(part.saturating_sub(Duration::from_secs(60)));
    let after = most(api.pid(), &shown, part);
    shown.is_over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    feeder.join().unwrap();
    let (events, ends) = (shown.events.load(Ordering::Relaxed), shown.ends.load(Ordering::Relaxed));
    eprintln!("{CLIENTS} clients, {seconds} s, {events} events, {ends} ends\nbefore {before:?}\nafter  {after:?}");
    assert!(ends >= CLIENTS as u64, "every client saw an end: {ends}");
    assert!(events >= ends * 5, "and what was before it: {events} events");
    // In its first minute the allocator still takes what it keeps.
    let slack = if seconds < 60 { 8 * 1024 } else { 1024 };
    assert!(after.rss_kib <= before.rss_kib + before.rss_kib / 20 + slack, "{before:?} {after:?}");
    assert!(after.threads <= before.threads + 2, "{before:?} {after:?}");
    let idle = std::fs::read_dir(format!("/proc/{}/fd", api.pid())).unwrap().count();
    assert!(idle < CLIENTS, "{idle} descriptors are still open");
}
