//! Rows of the fault table, with the real binary and a real redis-server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use windlass_broker::redis::RedisBroker;
use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
use windlass_broker::{Enqueue as _, Inspect as _};
use windlass_jobs::command::Counts;
use windlass_jobs::{JobId, JobRecord, NewJob, Queue, State};
use windlass_redis::{FromRedisValue as _, Link, cmd};
use windlass_testkit::{RedisServer, SqliteLock, shared_redis};

use crate::harness::{Daemon, Home, SOON, wait};

/// A test's own way to the queue the binary works on.
pub(crate) struct Direct {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) broker: Arc<RedisBroker>,
    link: Link,
    pub(crate) queue: Queue,
    pub(crate) prefix: String,
}

impl Direct {
    pub(crate) fn to(home: &Home, queue: &str) -> Self {
        Self::over(home.setting("REDIS_URL"), home, queue)
    }

    /// A way of another address than the binary's, as when there is a proxy between.
    pub(crate) fn over(url: &str, home: &Home, queue: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let link = Link::new(windlass_redis::Options::from_url(url).unwrap()).unwrap();
        let prefix = home.setting("WINDLASS_QUEUE_PREFIX").to_owned();
        let broker = Arc::new(RedisBroker::new(link.clone(), &prefix));
        Self { runtime, broker, link, queue: Queue::new(queue).unwrap(), prefix }
    }

    pub(crate) fn enqueue(&self, jobs: &[NewJob]) -> Vec<JobId> {
        self.runtime.block_on(self.broker.enqueue(&self.queue, jobs)).unwrap();
        jobs.iter().map(|job| self.id(job)).collect()
    }

    pub(crate) fn id(&self, job: &NewJob) -> JobId {
        JobId::new(job.ulid, self.queue.clone())
    }

    /// The answer to a read, asked for again while a server that was replaced says nothing.
    pub(crate) fn read<T>(&self, ask: impl AsyncFn(&RedisBroker) -> Result<T, windlass_broker::Error>) -> T {
        let begun = Instant::now();
        loop {
            match self.runtime.block_on(ask(&self.broker)) {
                Ok(answer) => return answer,
                Err(error) => assert!(begun.elapsed() < SOON, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.read(async |broker| broker.counts(&self.queue).await)
    }

    pub(crate) fn get(&self, id: &JobId) -> JobRecord {
        self.read(async |broker| broker.get(id).await).unwrap()
    }

    pub(crate) fn wait_drained(&self, within: Duration) {
        wait(within, "the queue is drained", || self.counts().unfinished() == 0);
    }

    pub(crate) fn wait_running(&self, id: &JobId) {
        wait(SOON, "the job runs", || self.get(id).state == State::Running);
    }

    pub(crate) fn call(&self, words: &[&str]) {
        let mut command = cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        self.runtime.block_on(self.link.call(&command)).unwrap();
    }

    /// What a command answers, as text; nothing is empty.
    pub(crate) fn text(&self, words: &[&str]) -> String {
        let mut command = cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        let reply = self.runtime.block_on(self.link.call(&command)).ok();
        reply.and_then(|reply| String::from_redis_value(reply).ok()).unwrap_or_default()
    }

    /// A field of `INFO`.
    pub(crate) fn info(&self, section: &str, field: &str) -> String {
        let mut command = cmd("INFO");
        command.arg(section);
        let text = String::from_redis_value(self.runtime.block_on(self.link.call(&command)).unwrap()).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    /// How often a command was called.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats", &format!("cmdstat_{command}"));
        let calls = stats.split(',').find_map(|part| part.strip_prefix("calls="));
        calls.map_or(0, |n| n.parse().unwrap())
    }

    /// Every key under this test's prefix.
    pub(crate) fn census(&self) -> Vec<String> {
        let mut command = cmd("KEYS");
        command.arg(format!("{}:*", self.prefix));
        Vec::from_redis_value(self.runtime.block_on(self.link.call(&command)).unwrap()).unwrap()
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.prefix, self.queue)
    }
}

pub(crate) fn sleep_job(ms: u64) -> NewJob {
    NewJob::new("probe.sleep", &serde_json::json!({ "ms": ms })).unwrap()
}

/// How long a worker's lease is in these tests.
const LEASE: Duration = Duration::from_millis(1_000);

pub(crate) fn on(redis: &RedisServer) -> Home {
    Home::on(redis).with("WINDLASS_LEASE_MS", &LEASE.as_millis().to_string())
}

/// F01: kill -9 in the middle of a job. It is restarted elsewhere within the lease and 2 s.
#[test]
fn f01_a_killed_workers_job_is_restarted_elsewhere() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let first = home.worker("probe", &[]);
    let id = direct.enqueue(&[sleep_job(1_500)]).remove(0);
    direct.wait_running(&id);
    let _second = home.worker("probe", &[]);
    let killed = Instant::now();
    first.kill();
    wait(SOON, "the job runs again", || direct.get(&id).epoch == 2);
    assert!(killed.elapsed() < LEASE + Duration::from_secs(2), "{:?}", killed.elapsed());
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    let record = direct.get(&id);
    assert_eq!((record.failures, record.deliveries), (0, 2), "a lost lease is a delivery, not an attempt");
}

/// F01 under load: workers are killed at random moments; every job ends once.
#[test]
fn f01_no_job_is_lost_or_done_twice_under_random_kills() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let jobs: Vec<NewJob> = (0..60).map(|i| sleep_job(20 + (i * 37) % 200)).collect();
    direct.enqueue(&jobs);
    let mut workers: Vec<Daemon> = (0..2).map(|_| home.worker("probe", &["--slots", "4"])).collect();
    for round in 0..6_u64 {
        // Moments that differ from round to round, and are the same in every run of the test.
        std::thread::sleep(Duration::from_millis(60 + round * 53 % 200));
        workers.remove(0).kill();
        workers.push(home.worker("probe", &["--slots", "4"]));
    }
    direct.wait_drained(SOON * 2);
    let counts = direct.counts();
    // A job that was running in three killed workers is poisoned by the rule; none is lost.
    assert_eq!(counts.success_total + counts.failure_total, 60, "{counts:?}");
    for job in &jobs {
        let record = direct.get(&direct.id(job));
        assert!(record.state.is_terminal() && record.failures == 0, "{record:?}");
    }
}

/// F02: killed between the effect and the ack. The effect is there once; the job ends done.
#[test]
fn f02_a_kill_between_effect_and_ack_leaves_one_effect() {
    let home = Home::embedded().with("WINDLASS_LEASE_MS", "1000");
    let worker = home.worker("chart", &[]);
    let file = home.path().join("windlass-data/queue.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let broker = runtime.block_on(SqliteBroker::open(&file, SqliteOptions::default())).unwrap();
    // Who holds the file's lock lets jobs be done, but not acked.
    let mut lock = runtime.block_on(SqliteLock::open(&file));
    let job = NewJob::new("chart.render", &large_chart()).unwrap();
    let id = JobId::new(job.ulid, Queue::new("chart").unwrap());
    let results = home.path().join("windlass-data/results");
    runtime.block_on(async {
        broker.enqueue(&id.queue, &[job]).await.unwrap();
        while broker.get(&id).await.unwrap().unwrap().state != State::Running {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        lock.hold().await;
    });
    wait(SOON, "the effect is committed", || walk(&results).len() == 1);
    let effect = std::fs::read(&walk(&results)[0]).unwrap();
    assert_eq!(runtime.block_on(broker.get(&id)).unwrap().unwrap().state, State::Running, "not acked");
    worker.kill();
    runtime.block_on(lock.release());
    let _second = home.worker("chart", &[]);
    let task = home.wait_for(&id.to_string(), "success");
    assert_eq!(task["result"]["cached"], true, "the effect was found, not made again");
    assert_eq!(std::fs::read(&walk(&results)[0]).unwrap(), effect);
    // One result; the picture and its thumbnail.
    assert_eq!((walk(&results).len(), walk(&home.path().join("windlass-data/artifacts")).len()), (1, 2));
}

/// A chart that takes long enough to be caught at work.
fn large_chart() -> serde_json::Value {
    let bars = 20_000_i64;
    let column = |add: f64| (0..bars).map(|i| 100.0 + add + (i as f64 / 50.0).sin()).collect::<Vec<_>>();
    serde_json::json!({
        "symbol": "X", "interval": "1d", "visible_bars": 5000, "width_px": 2000, "height_px": 1000, "scale": 2,
        "candles": {
            "t": (0..bars).map(|i| i * 86_400_000).collect::<Vec<_>>(),
            "o": column(0.0), "h": column(2.0), "l": column(-2.0), "c": column(1.0),
        },
    })
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|e| e.unwrap().path());
    paths.flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p] }).filter(|p| p.extension().is_none()).collect()
}

/// F07: rolling restarts by SIGTERM under load. No job shorter than the grace loses its run.
#[test]
fn f07_rolling_restarts_neither_retry_nor_lose_jobs() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let mut workers: Vec<Daemon> = (0..3).map(|_| home.worker("probe", &["--slots", "4"])).collect();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.extend(direct.enqueue(&(0..20).map(|i| sleep_job(40 + i * 7)).collect::<Vec<_>>()));
        let mut old = workers.remove(0);
        old.signal(Signal::TERM);
        workers.push(home.worker("probe", &["--slots", "4"]));
        assert_eq!(old.ended(SOON).code(), Some(0), "{}", old.log());
    }
    direct.wait_drained(SOON);
    for id in &ids {
        let record = direct.get(id);
        // A job claimed in the very moment of the order is given back unstarted, which is in order.
        assert_eq!((record.state, record.failures, record.deliveries), (State::Success, 0, 1), "{record:?}");
    }
}

/// F08: SIGTERM with a job longer than the grace. It goes back, no attempt charged, exit 0.
/// F09: a second signal ends the grace at once.
#[test]
fn f08_f09_a_long_job_is_given_back() {
    for home in [on(shared_redis()), Home::embedded()] {
        for (grace_s, signals) in [("1", 1), ("3600", 2)] {
            let home = Home::clone_of(&home).with("WINDLASS_GRACE_SECONDS", grace_s);
            let mut worker = home.worker("probe", &[]);
            let id = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &[]);
            home.wait_for(&id, "running");
            let begun = Instant::now();
            for _ in 0..signals {
                worker.signal(Signal::TERM);
                wait(SOON, "the signal is heard", || worker.log().contains("draining") || !worker.is_up());
            }
            assert_eq!(worker.ended(SOON).code(), Some(0), "{}", worker.log());
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            let task = home.task(&id);
            assert_eq!((&task["status"], &task["attempt"]), (&"pending".into(), &0.into()), "{task:#}");
        }
    }
}

/// F10: a handler that panics is one failed job with its message; the worker lives on.
#[test]
fn f10_a_panic_is_one_failed_job() {
    let home = on(shared_redis());
    let mut worker = home.worker("probe", &["--slots", "1"]);
    let id = home.enqueue("probe.fail", r#"{"how":"panic"}"#, &["--max-attempts", "1"]);
    let task = home.wait_for(&id, "failure");
    assert_eq!((&task["error"]["code"], &task["error"]["message"]), (&"panicked".into(), &"panics as asked".into()));
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
    assert!(worker.is_up());
}

/// F16: kill -9 of a Redis that syncs every write, under load. Nothing accepted is lost; no
/// process ends; work goes on within 5 s of Redis being back.
#[test]
fn f16_nothing_accepted_is_lost_when_redis_is_killed() {
    nothing_is_lost_when_redis_is_killed("always");
}

/// F17: the same when it syncs every second: what it was told is in the kernel's hands.
#[test]
fn f17_nothing_accepted_is_lost_when_the_disk_keeps_up() {
    nothing_is_lost_when_redis_is_killed("everysec");
}

fn nothing_is_lost_when_redis_is_killed(fsync: &str) {
    let redis = RedisServer::builder().append_only(fsync).start();
    let home = on(&redis).with("REDIS_SOCKET_TIMEOUT", "1");
    let mut worker = home.worker("probe", &["--slots", "8"]);
    let (mut api, url) = home.serve(&["api"]);
    let direct = Direct::to(&home, "probe");
    let stop = Arc::new(AtomicBool::new(false));
    let accepted = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let mut accepted = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let job = sleep_job(20);
                // Only what was answered counts; a lost answer may have been accepted or not.
                if direct.runtime.block_on(direct.broker.enqueue(&direct.queue, std::slice::from_ref(&job))).is_ok() {
                    accepted.push(direct.id(&job));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            accepted
        });
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(400));
            redis.kill();
            std::thread::sleep(Duration::from_millis(600));
            redis.restart();
            let back = Instant::now();
            wait(SOON, "the counts answer", || direct.runtime.block_on(direct.broker.counts(&direct.queue)).is_ok());
            let done = direct.counts().success_total;
            wait(SOON, "work goes on", || {
                direct.runtime.block_on(direct.broker.counts(&direct.queue)).is_ok_and(|c| c.success_total > done)
            });
            assert!(back.elapsed() < Duration::from_secs(5), "resumed after {:?}", back.elapsed());
        }
        stop.store(true, Ordering::SeqCst);
        producing.join().unwrap()
    });
    assert!(accepted.len() > 50, "{}", accepted.len());
    // Jobs that were claimed in a reply that was lost come back when their leases end.
    wait(Duration::from_secs(60), "all is done", || direct.counts().unfinished() == 0);
    for id in &accepted {
        assert_eq!(direct.get(id).state, State::Success, "{id}");
    }
    assert!(worker.is_up() && api.is_up(), "{}", worker.log());
    let health =
        ureq::get(format!("{url}/api/health")).call().unwrap().body_mut().read_json::<serde_json::Value>().unwrap();
    assert_eq!(health["redis"]["status"], "connected");
}

/// F48: what cannot be decoded is buried alone; its neighbours run; the worker lives on.
#[test]
fn f48_an_undecodable_job_is_quarantined_alone() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let before = direct.enqueue(&[sleep_job(1)]).remove(0);
    let ulid = |_| windlass_jobs::new_ulid().to_string();
    let [no_hash, not_a_hash, no_kind, bad_args, bad_run, bad_options] = std::array::from_fn(ulid);
    direct.call(&["SET", &direct.key(&format!("j:{not_a_hash}")), "text"]);
    let hash = |ulid: &str, fields: &[&str]| {
        let key = direct.key(&format!("j:{ulid}"));
        direct.call(&[&["HSET", &key, "created_at", "1"], fields].concat());
    };
    hash(&no_kind, &["from", "the future"]);
    hash(&bad_args, &["kind", "probe.sleep", "args", "{\u{0}"]);
    hash(&bad_run, &["kind", "probe.noop", "args", "{}", "run", "not a run"]);
    hash(&bad_options, &["kind", "probe.noop", "args", "{}", "opts", "timeout=soon"]);
    for id in ["not-a-ulid", &no_hash, &not_a_hash, &no_kind, &bad_args, &bad_run, &bad_options] {
        direct.call(&["LPUSH", &direct.key("p1"), id]);
    }
    let after = direct.enqueue(&[sleep_job(1)]).remove(0);
    let mut worker = home.worker("probe", &[]);
    for id in [&before, &after] {
        wait(SOON, "the neighbour is done", || direct.get(id).state == State::Success);
    }
    for ulid in [&not_a_hash, &no_kind, &bad_args, &bad_options] {
        let id: JobId = format!("{ulid}.probe").parse().unwrap();
        wait(SOON, "the damaged job is buried", || direct.get(&id).state == State::Failure);
        assert_eq!(direct.get(&id).failures.min(1), u32::from(ulid != &not_a_hash));
        assert!(direct.get(&id).error.is_some(), "{id}");
    }
    let id: JobId = format!("{bad_run}.probe").parse().unwrap();
    wait(SOON, "an unreadable counter starts anew", || direct.get(&id).state == State::Success);
    wait(SOON, "nothing is left", || direct.counts().unfinished() == 0);
    assert!(worker.is_up());
}

/// F06: a backlog that no worker has seen drains, also when all workers are killed in its middle.
/// apalis-redis stops for good at 8,000 due jobs.
#[test]
fn f06_a_backlog_of_20_000_drains() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let noop = |_| NewJob::new("probe.noop", &()).unwrap();
    direct.enqueue(&(0..20_000).map(noop).collect::<Vec<_>>());
    assert_eq!(direct.counts().pending, 20_000);
    let workers = [(); 2].map(|()| home.worker("probe", &["--slots", "256"]));
    wait(SOON, "they are at work", || direct.counts().success_total > 1_000);
    workers.into_iter().for_each(Daemon::kill);
    let _worker = home.worker("probe", &["--slots", "256"]);
    direct.wait_drained(SOON);
    let counts = direct.counts();
    assert_eq!((counts.success_total, counts.failure_total), (20_000, 0), "{counts:?}");
}
