//! The Redis engine, on a server of this process, each case under a key prefix of its own.

#![allow(clippy::print_stdout, reason = "a soak says what it measured")]

use std::sync::Arc;
use std::time::Duration;

use windlass_broker::redis::RedisBroker;
use windlass_broker::{Control as _, Enqueue as _, Inspect as _, Leases as _, SharedBroker};
use windlass_jobs::command::{Ack, Claim, Exchange, Filter, Finish, MAX_EXCHANGE, Settle};
use windlass_jobs::{JobId, Lease, NewJob, Queue, Reason, State};
use windlass_redis::{FromRedisValue as _, Link, Options, Value, cmd};

async fn make(keep: usize) -> (SharedBroker, ()) {
    let options = Options::from_url(&windlass_testkit::shared_redis().url()).unwrap();
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    (Arc::new(RedisBroker::keeping(Link::new(options).unwrap(), &prefix, keep)), ())
}

windlass_testkit::conformance!(make);

/// How many jobs wait in [`deep_queue_soak`]; 3,000 when the variable is not set.
const DEPTH_VARIABLE: &str = "WINDLASS_SOAK_DEPTH";

/// No verb takes longer because many jobs wait: with the variable set to 1,000,000 and a server
/// that has a processor to itself, no script call comes near 5 ms. The bound is checked only when
/// the variable is set: a busy machine's clock says nothing of the script.
#[tokio::test]
async fn deep_queue_soak() {
    let depth: Option<usize> = std::env::var(DEPTH_VARIABLE).ok().map(|text| text.parse().unwrap());
    let jobs_waiting = depth.unwrap_or(3_000);
    let server = windlass_testkit::RedisServer::builder()
        .arg("slowlog-log-slower-than", 1_000)
        .arg("slowlog-max-len", 10_000)
        .start();
    if depth.is_some() {
        prefer(server.pid());
    }
    let link = Link::new(Options::from_url(&server.url()).unwrap()).unwrap();
    let broker = RedisBroker::new(link.clone(), "deep");
    every_verb(&broker, jobs_waiting).await;
    let entries = slow_entries(&link).await;
    let slowest = entries.iter().max().copied().unwrap_or(0);
    println!("{jobs_waiting} waiting: {} calls over 1 ms, the slowest {slowest} us", entries.len());
    assert!(depth.is_none() || slowest < 5_000, "{entries:?} us");
}

/// Gives a process the processor before others, where that is allowed.
fn prefer(pid: u32) {
    let asked = std::process::Command::new("chrt").args(["-f", "-p", "50", &pid.to_string()]).status();
    if !asked.is_ok_and(|status| status.success()) {
        println!("chrt is not allowed here: other processes are in the figures");
    }
}

/// Fills a queue, and plays each verb at its depth with as much in one call as it takes.
async fn every_verb(broker: &RedisBroker, depth: usize) {
    let queue = Queue::new("deep").unwrap();
    let mut first = Vec::new();
    for start in (0..depth).step_by(10_000) {
        let jobs: Vec<NewJob> = (start..depth.min(start + 10_000)).map(|n| NewJob::new("noop", &n).unwrap()).collect();
        broker.enqueue(&queue, &jobs).await.unwrap();
        if start == 0 {
            first = jobs.iter().map(|job| job.ulid).collect();
        }
    }
    let hour = Duration::from_secs(3_600);
    let claim =
        |lease| Claim { worker: "w".into(), max: MAX_EXCHANGE, lease, grace: false, sent_at: None, quotas: None };
    let mut held: Vec<Finish> = Vec::new();
    let error = r#"{"code":"x","message":"y"}"#.to_owned();
    for round in 0..60_u32 {
        let lease = if round % 10 == 9 { Duration::from_millis(1) } else { hour };
        let finishes = std::mem::take(&mut held);
        let reply = broker.exchange(&queue, &Exchange { finishes, claim: Some(claim(lease)) }).await.unwrap();
        let settles = [
            Settle::Success { result: Some("1".repeat(300)), skipped: false },
            Settle::Failure { reason: Reason::Error, failures: 1, error: error.clone() },
            Settle::Retry { delay: Duration::from_millis(20), failures: 1, error: error.clone() },
            Settle::Release,
        ];
        let leases: Vec<Lease> = reply.claimed.iter().map(|claimed| claimed.lease).collect();
        broker.renew(&queue, &leases, hour).await.unwrap();
        held = leases
            .into_iter()
            .zip(settles.into_iter().cycle())
            .map(|(lease, settle)| Finish { lease, settle })
            .collect();
    }
    for ulid in first.iter().rev().take(200) {
        broker.cancel(&JobId::new(*ulid, queue.clone())).await.unwrap();
    }
    for state in State::ALL {
        for cursor in [0, 400, depth as u64 / 2] {
            broker.list(&queue, state, cursor, 500).await.unwrap();
        }
        let mut filter = Filter::of(state);
        filter.kind = Some("another".to_owned());
        broker.search(&queue, &filter, 0, 500).await.unwrap();
    }
    let dead = broker.list(&queue, State::Failure, 0, 500).await.unwrap().ids;
    broker.replay(&queue, &dead[..dead.len() / 2]).await.unwrap();
    broker.delete(&queue, &dead[dead.len() / 2..]).await.unwrap();
    broker.tidy(&queue, Duration::ZERO, Duration::ZERO).await.unwrap();
    broker.counts(&queue).await.unwrap();
}

/// What each call in the slow log took, in us.
async fn slow_entries(link: &Link) -> Vec<i64> {
    let mut ask = cmd("SLOWLOG");
    ask.arg("GET").arg(10_000);
    let Value::Array(entries) = link.call(&ask).await.unwrap() else { panic!("no slow log") };
    let took = |entry| match entry {
        Value::Array(fields) => i64::from_redis_value(fields[2].clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(took).collect()
}

/// How many jobs of each sort [`lanes_cost_soak`] drains; 1,000 when the variable is not set.
const COST_VARIABLE: &str = "WINDLASS_SOAK_LANES";

/// What a job costs the server, by the lane it is in: processor time of its main thread over an enqueue in
/// slices of 250 and a drain in batches of 128, 1,000 keys in turn. With the variable set the figures
/// mean something.
#[tokio::test]
async fn lanes_cost_soak() {
    let jobs: u32 = std::env::var(COST_VARIABLE).map_or(1_000, |text| text.parse().unwrap());
    let server = windlass_testkit::RedisServer::start();
    let link = Link::new(Options::from_url(&server.url()).unwrap()).unwrap();
    let broker = RedisBroker::new(link.clone(), "cost");
    for sort in ["none", "tenant", "concurrency", "ordering", "tenant and concurrency"] {
        let queue = Queue::new(&sort.replace(' ', "_")).unwrap();
        let limits = windlass_jobs::Limits { key_concurrency: Some(4), ..windlass_jobs::Limits::default() };
        if sort.contains("concurrency") {
            broker.set_limits(&queue, &limits).await.unwrap();
        }
        let all: Vec<NewJob> = (0..jobs).map(|n| laned(sort, n)).collect();
        let before = server_us(&link).await;
        broker.enqueue(&queue, &all).await.unwrap();
        let between = server_us(&link).await;
        assert_eq!(drain(&broker, &queue).await, jobs, "{sort}");
        let (enqueue, exchange) = (between - before, server_us(&link).await - between);
        let jobs = f64::from(jobs);
        println!("{sort:24} enqueue {:5.2} us, exchange {:5.2} us a job", enqueue / jobs, exchange / jobs);
    }
}

fn laned(sort: &str, n: u32) -> NewJob {
    let mut job = NewJob::new("noop", &"x".repeat(98)).unwrap();
    let key = Some(format!("lane-{}", n % 1_000));
    if sort.contains("tenant") {
        job.options.tenant.clone_from(&key);
    }
    if sort.contains("concurrency") {
        job.options.concurrency_key.clone_from(&key);
    }
    if sort == "ordering" {
        job.options.ordering_key = key;
    }
    job
}

/// Claims and finishes until nothing is found; how many jobs that were.
async fn drain(broker: &RedisBroker, queue: &Queue) -> u32 {
    let hour = Duration::from_secs(3_600);
    let claim = Claim { worker: "w".into(), max: MAX_EXCHANGE, lease: hour, grace: false, sent_at: None, quotas: None };
    let mut finishes = Vec::new();
    let mut drained = 0;
    loop {
        let reply = broker.exchange(queue, &Exchange { finishes, claim: Some(claim.clone()) }).await.unwrap();
        if reply.claimed.is_empty() {
            return drained;
        }
        drained += u32::try_from(reply.claimed.len()).unwrap();
        let settle = Settle::Success { result: None, skipped: false };
        finishes = reply.claimed.iter().map(|job| Finish { lease: job.lease, settle: settle.clone() }).collect();
    }
}

/// Processor time that the server's main thread has had, in us.
async fn server_us(link: &Link) -> f64 {
    let text = link.info("cpu").await.unwrap().concat();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<f64>().unwrap() * 1e6
    };
    field("used_cpu_user_main_thread:") + field("used_cpu_sys_main_thread:")
}

/// What an older version does not know of raises the format of the queues that use it, and only of
/// those: a process that reads formats up to 1 still serves the others.
#[tokio::test]
async fn lanes_limits_and_flows_raise_the_format() {
    let link = Link::new(Options::from_url(&windlass_testkit::shared_redis().url()).unwrap()).unwrap();
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    let broker = RedisBroker::new(link.clone(), &prefix);
    let job = || NewJob::new("noop", &()).unwrap();
    let format = async |name: &str| {
        let mut call = cmd("HGET");
        call.arg(format!("{prefix}:{{{name}}}:meta")).arg("format");
        Option::<String>::from_redis_value(link.call(&call).await.unwrap()).unwrap()
    };
    let queue = |name: &str| Queue::new(name).unwrap();
    let mut laned = job();
    laned.options.tenant = Some("t".into());
    let mut unique = job();
    unique.options.unique = Some(windlass_jobs::Unique::new("k"));
    let parent = JobId::new(job().ulid, queue("plain"));
    let mut child = job();
    child.options.depends_on = Some(windlass_jobs::DependsOn::on(vec![parent]));
    for (name, job, expected) in [
        ("plain", job(), Some("1")),
        ("laned", laned.clone(), Some("3")),
        ("unique", unique, Some("3")),
        ("child", child, Some("3")),
        // From then on.
        ("plain", laned, Some("3")),
    ] {
        broker.enqueue(&queue(name), &[job]).await.unwrap();
        assert_eq!(format(name).await.as_deref(), expected, "{name}");
    }
    let limits = windlass_jobs::Limits { concurrency: Some(1), ..windlass_jobs::Limits::default() };
    broker.set_limits(&queue("limited"), &limits).await.unwrap();
    broker.enqueue(&queue("limited"), &[job()]).await.unwrap();
    assert_eq!(format("limited").await.as_deref(), Some("3"));
}

/// A queue that a newer version has taken over is refused by name, and nothing in it is changed;
/// what holds a lease there may still renew it. A queue that says no format is read.
#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let link = Link::new(Options::from_url(&windlass_testkit::shared_redis().url()).unwrap()).unwrap();
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    let broker = RedisBroker::new(link.clone(), &prefix);
    let queue = Queue::new("q").unwrap();
    let jobs: Vec<NewJob> = (0..2).map(|n| NewJob::new("noop", &n).unwrap()).collect();
    broker.enqueue(&queue, &jobs).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let claim = Claim { worker: "w".into(), max: 1, lease: hour, grace: false, sent_at: None, quotas: None };
    let exchange = Exchange { finishes: vec![], claim: Some(claim) };
    let held = broker.exchange(&queue, &exchange).await.unwrap().claimed.remove(0).lease;
    let say = async |verb: &str, words: &[&str]| {
        let mut call = cmd(verb);
        call.arg(format!("{prefix}:{{q}}:meta")).arg("format").arg(words);
        link.call(&call).await.unwrap();
    };
    say("HSET", &["4"]).await;
    let before =
        (broker.counts(&queue).await.unwrap(), broker.get(&JobId::new(held.ulid, queue.clone())).await.unwrap());
    let id = JobId::new(jobs[1].ulid, queue.clone());
    let refusals = [
        broker.enqueue(&queue, &jobs).await.map(drop),
        broker.exchange(&queue, &exchange).await.map(drop),
        broker.cancel(&id).await.map(drop),
        broker.pause(&queue, true).await,
        broker.set_max_waiting(&queue, Some(1)).await,
        broker.replay(&queue, &[id.ulid]).await.map(drop),
        broker.delete(&queue, &[id.ulid]).await.map(drop),
        broker.tidy(&queue, Duration::ZERO, Duration::ZERO).await.map(drop),
        broker.unpark(&queue, &["noop".to_owned()]).await.map(drop),
    ];
    for (n, refusal) in refusals.into_iter().enumerate() {
        let text = refusal.expect_err(&format!("verb {n} went through")).to_string();
        assert!(text.contains("queue q has format 4, this version reads 3"), "verb {n}: {text}");
    }
    let after =
        (broker.counts(&queue).await.unwrap(), broker.get(&JobId::new(held.ulid, queue.clone())).await.unwrap());
    assert_eq!(before, after);
    assert_eq!(broker.renew(&queue, &[held], hour).await.unwrap(), [Ack::Taken]);

    say("HDEL", &[]).await;
    assert_eq!(broker.exchange(&queue, &exchange).await.unwrap().claimed.len(), 1);
}
