//! A worker that looks alive is alive: probes, list and systemd follow its canary, with the real
//! binary and a real redis-server.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use windlass_testkit::{RedisServer, shared_redis};

use crate::faults::{Direct, sleep_job};
use crate::harness::{Daemon, Home, SOON, wait};

/// The status and body of a GET.
fn get(url: &str) -> (u16, Value) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent.get(url).call().unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn status(url: &str) -> u16 {
    get(url).0
}

/// A worker and the base URL of its probes.
fn worker(home: &Home, more: &[&str]) -> (Daemon, String) {
    let mut daemon = home.start(&[&["worker", "--queues", "probe", "--json"], more].concat());
    let at = daemon.first_line()["probes"].as_str().unwrap().to_owned();
    (daemon, format!("http://{at}"))
}

/// The first number of a metric.
fn metric(base: &str, name: &str) -> f64 {
    let (_, text) = get(&format!("{base}/metrics"));
    let line = text.as_str().unwrap().lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// How long it takes until a probe answers a status.
fn until(url: &str, expected: u16, within: Duration) -> Duration {
    let begun = Instant::now();
    wait(within, &format!("{url} answers {expected}"), || status(url) == expected);
    begun.elapsed()
}

/// Rule 8 with the ages as they come: a frozen Redis makes a worker not ready within 15 s and
/// a little; it stays alive, and is ready within 2 s of Redis being back, without a restart.
#[test]
fn a_worker_cut_off_says_so_within_15_s_and_is_back_within_2_s() {
    let redis = RedisServer::start();
    let home = Home::on(&redis);
    let (mut worker, base) = worker(&home, &[]);
    let (livez, readyz) = (format!("{base}/livez"), format!("{base}/readyz"));
    until(&readyz, 200, SOON);
    redis.freeze();
    // The last round may have come back just before.
    let cut_off = until(&readyz, 503, Duration::from_secs(17));
    let (_, problem) = get(&readyz);
    assert_eq!((&problem["code"], &problem["condition"]), (&"worker_not_ready".into(), &"cut_off".into()));
    assert_eq!(status(&livez), 200, "cut off is not dead");
    assert_eq!(metric(&base, "windlass_worker_ready"), 0.0);
    assert!(metric(&base, "windlass_worker_canary_age_seconds") >= 15.0);
    redis.thaw();
    let back = until(&readyz, 200, SOON);
    eprintln!("frozen: not ready after {cut_off:?}, ready {back:?} after it was back");
    assert!(back < Duration::from_secs(2), "ready again after {back:?}");
    assert!(worker.is_up(), "{}", worker.log());
}

/// The same with short ages and a Redis that is killed; beyond the second age the worker is not
/// alive either, and even then it comes back by itself.
#[test]
fn a_worker_whose_redis_was_killed_is_ready_within_2_s_of_its_return() {
    let redis = RedisServer::builder().append_only("always").start();
    let home = Home::on(&redis).with("WINDLASS_READY_WITHIN_MS", "1500").with("WINDLASS_LIVE_WITHIN_MS", "3000");
    let (mut worker, base) = worker(&home, &[]);
    let (livez, readyz) = (format!("{base}/livez"), format!("{base}/readyz"));
    for _ in 0..2 {
        until(&readyz, 200, SOON);
        redis.kill();
        let begun = Instant::now();
        until(&readyz, 503, Duration::from_secs(3));
        assert_eq!(status(&livez), 200);
        until(&livez, 503, Duration::from_secs(5));
        assert!(begun.elapsed() >= Duration::from_millis(2_000), "dead after {:?}", begun.elapsed());
        assert_eq!(get(&livez).1["code"], "worker_dead");
        redis.restart();
        let back = until(&readyz, 200, SOON);
        eprintln!("killed: ready {back:?} after it was back");
        assert!(back < Duration::from_secs(2), "ready again after {back:?}");
        assert_eq!(status(&livez), 200);
    }
    assert!(worker.is_up(), "{}", worker.log());
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
}

/// A worker that starts before its Redis waits for it, and says so.
#[test]
fn a_worker_without_a_queue_is_starting_not_ready() {
    let redis = RedisServer::start();
    redis.kill();
    let home = Home::on(&redis);
    let (mut worker, base) = worker(&home, &[]);
    let (code, problem) = get(&format!("{base}/readyz"));
    assert_eq!((code, &problem["condition"]), (503, &"starting".into()));
    assert_eq!(status(&format!("{base}/livez")), 200);
    redis.restart();
    until(&format!("{base}/readyz"), 200, Duration::from_secs(5));
    assert!(worker.is_up());
}

/// `up` answers for its worker on the API's socket; a draining worker is alive and not ready.
#[test]
fn up_speaks_for_its_worker() {
    for home in [Home::on(shared_redis()), Home::embedded()] {
        let (up, base) = home.serve(&["up", "--queues", "probe"]);
        until(&format!("{base}/readyz"), 200, SOON);
        assert_eq!(metric(&base, "windlass_worker_live"), 1.0);
        let id = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &[]);
        wait(SOON, "it runs", || metric(&base, "windlass_worker_running") == 1.0);
        up.signal(Signal::TERM);
        until(&format!("{base}/readyz"), 503, SOON);
        assert_eq!(get(&format!("{base}/readyz")).1["condition"], "draining");
        assert_eq!(status(&format!("{base}/livez")), 200);
        up.signal(Signal::TERM);
        home.wait_for(&id, "pending");
    }
}

/// The worker list says how old the canary is, what runs and how many slots there are.
#[test]
fn the_list_shows_canary_slots_and_what_runs() {
    for home in [Home::on(shared_redis()), Home::embedded()] {
        let (daemon, base) = worker(&home, &["--slots", "3"]);
        until(&format!("{base}/readyz"), 200, SOON);
        let id = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &[]);
        let mut listed = Value::Null;
        wait(SOON, "the list names the job", || {
            listed = home.json(&["workers"])["workers"][0].clone();
            listed["jobs"][0]["id"] == id.as_str()
        });
        assert_eq!((&listed["slots"], &listed["running"], &listed["draining"]), (&3.into(), &1.into(), &false.into()));
        assert!(listed["canary_age_ms"].as_u64().unwrap() < 15_000, "{listed:#}");
        assert_eq!(listed["jobs"][0]["kind"], "probe.sleep");
        let shown = home.run(&["workers"]).stdout;
        for part in ["1 of 3", "ready", "probe.sleep", &id] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        daemon.signal(Signal::TERM);
        wait(SOON, "the list says that it drains", || home.json(&["workers"])["workers"][0]["draining"] == true);
    }
}

/// The probes' socket is a setting: off, there or nowhere, or near it.
#[test]
fn the_probes_listen_where_they_are_told() {
    let home = Home::embedded().with("WINDLASS_WORKER_LISTEN", "off");
    let mut off = home.start(&["worker", "--queues", "probe", "--json"]);
    assert_eq!(off.first_line()["probes"], Value::Null);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::embedded().with("WINDLASS_WORKER_LISTEN", &taken.local_addr().unwrap().to_string());
    let ran = home.run(&["worker", "--queues", "probe"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("WINDLASS_WORKER_LISTEN"), "{ran:?}");
}

/// What a fake systemd is told.
struct Systemd {
    socket: UnixDatagram,
}

impl Systemd {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket }
    }

    /// The next message that has a line.
    fn hears(&self, line: &str) -> Instant {
        let mut buffer = [0; 4096];
        loop {
            let n = self.socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{line} was not said: {e}"));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|said| said == line) {
                return Instant::now();
            }
        }
    }

    /// Throws away what was said up to now.
    fn forget(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }

    fn says_nothing_of(&self, line: &str, span: Duration) {
        self.forget();
        std::thread::sleep(span);
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            let said = String::from_utf8_lossy(&buffer[..n]).into_owned();
            assert!(!said.lines().any(|said| said == line), "{said}");
        }
        self.socket.set_nonblocking(false).unwrap();
    }
}

/// systemd hears READY when the canary has come back for the first time, WATCHDOG while it does,
/// nothing more of it when the worker is cut off for too long, and STOPPING at the end.
#[test]
fn systemd_is_told_what_the_canary_says() {
    let redis = RedisServer::builder().append_only("always").start();
    let at = tempfile::tempdir().unwrap();
    let socket = at.path().join("notify");
    let systemd = Systemd::at(&socket);
    let home = Home::on(&redis)
        .with("NOTIFY_SOCKET", socket.to_str().unwrap())
        .with("WATCHDOG_USEC", "400000")
        .with("WINDLASS_READY_WITHIN_MS", "1000")
        .with("WINDLASS_LIVE_WITHIN_MS", "1000");
    redis.kill();
    let mut worker = home.start(&["worker", "--queues", "probe"]);
    systemd.hears("STATUS=waiting for the queue");
    systemd.says_nothing_of("READY=1", Duration::from_millis(500));
    redis.restart();
    systemd.hears("READY=1");
    let first = systemd.hears("WATCHDOG=1");
    let second = systemd.hears("WATCHDOG=1");
    assert!(second - first < Duration::from_millis(400), "{:?}", second - first);
    redis.freeze();
    systemd.hears("STATUS=dead: cut off from the queue for too long");
    systemd.says_nothing_of("WATCHDOG=1", Duration::from_secs(1));
    redis.thaw();
    systemd.hears("STATUS=ready");
    systemd.hears("WATCHDOG=1");
    worker.signal(Signal::TERM);
    systemd.hears("STOPPING=1");
    assert_eq!(worker.ended(SOON).code(), Some(0), "{}", worker.log());
}

/// The API alone is ready when it serves; the watchdog is fed all the same.
#[test]
fn systemd_is_told_by_the_api_too() {
    let at = tempfile::tempdir().unwrap();
    let socket = at.path().join("notify");
    let systemd = Systemd::at(&socket);
    let home = Home::embedded().with("NOTIFY_SOCKET", socket.to_str().unwrap()).with("WATCHDOG_USEC", "200000");
    let (mut api, _) = home.serve(&["api"]);
    systemd.hears("READY=1");
    systemd.hears("WATCHDOG=1");
    api.signal(Signal::TERM);
    systemd.hears("STOPPING=1");
    assert_eq!(api.ended(SOON).code(), Some(0));
}

/// Every exit code that docs/operations.md names.
#[test]
fn the_exit_codes_are_those_of_the_manual() {
    let home = Home::embedded().with("WINDLASS_GRACE_SECONDS", "0");
    let code = |args: &[&str]| home.run(args).status.code();
    assert_eq!(code(&["enqueue", "probe.noop", "--wait"]), Some(0));
    assert_eq!(code(&["enqueue", "no.such.kind"]), Some(1), "an error");
    assert_eq!(code(&["worker", "--slots"]), Some(2), "the command line is wrong");
    let args = home.file("fail.json", r#"{"how":"fatal"}"#);
    assert_eq!(code(&["enqueue", "probe.fail", "--args", args.to_str().unwrap(), "--wait"]), Some(3));
    let bad = Home::embedded().with("WINDLASS_SLOTS", "0").run(&["worker"]);
    assert_eq!(bad.status.code(), Some(1), "a bad setting");
    for args in
        [&["worker", "--queues", "probe"][..], &["up", "--queues", "probe", "--listen", "127.0.0.1:0"], &["api"]]
    {
        let home = Home::embedded().with("WINDLASS_LISTEN", "127.0.0.1:0");
        let mut daemon = home.start(args);
        wait(SOON, "it is up", || daemon.log().contains("started") || daemon.log().contains(" up"));
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended(SOON).code(), Some(0), "{args:?} was told to stop: {}", daemon.log());
    }
}

/// F07: four workers are restarted one after the other under load. No run of a job shorter than
/// the grace is lost or charged, jobs start soon all the while, and each process ends in time.
#[test]
fn f07_rolling_restarts_of_four_workers_are_not_felt() {
    const GRACE: Duration = Duration::from_secs(5);
    let home = Home::on(shared_redis()).with("WINDLASS_GRACE_SECONDS", &GRACE.as_secs().to_string());
    let direct = Direct::to(&home, "probe");
    let start = || home.worker("probe", &["--slots", "8"]);
    let mut workers: Vec<Daemon> = (0..4).map(|_| start()).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ids = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let mut ids = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                ids.extend(direct.enqueue(&[sleep_job(20), sleep_job(150), sleep_job(400)]));
                std::thread::sleep(Duration::from_millis(25));
            }
            ids
        });
        for _ in 0..8 {
            workers.push(start());
            let mut old = workers.remove(0);
            let begun = Instant::now();
            old.signal(Signal::TERM);
            assert_eq!(old.ended(SOON).code(), Some(0), "{}", old.log());
            assert!(begun.elapsed() <= GRACE + Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        producing.join().unwrap()
    });
    direct.wait_drained(SOON);
    let mut waits = Vec::new();
    for id in &ids {
        let record = direct.get(id);
        assert_eq!((record.failures, record.deliveries), (0, 1), "{record:?}");
        waits.push(record.started_at.unwrap().since(record.created_at));
    }
    waits.sort();
    let p99 = waits[waits.len() * 99 / 100];
    eprintln!("{} jobs over 8 restarts: start p99 {p99:?}, longest {:?}", ids.len(), waits.last());
    assert!(ids.len() > 100 && p99 < Duration::from_secs(1), "{p99:?} over {} jobs", ids.len());
}
