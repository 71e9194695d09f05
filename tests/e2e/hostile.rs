//! Leases, fences and bounds under hostile conditions, with the real binary and its own Redis.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use windlass_broker::{Control as _, Enqueue as _, Error, Inspect as _};
use windlass_jobs::command::Cancel;
use windlass_jobs::{NewJob, Options, State};
use windlass_testkit::{RedisServer, shared_redis};

use crate::faults::{Direct, on, sleep_job};
use crate::harness::{Home, SOON, wait};

/// F05: a worker that sleeps longer than its lease wakes up to find its job elsewhere: its words
/// are refused, it goes on working, and the job is not held against anyone.
#[test]
fn f05_a_frozen_worker_is_fenced_and_comes_back() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let mut frozen = home.worker("probe", &["--slots", "1"]);
    let id = direct.enqueue(&[sleep_job(4_000)]).remove(0);
    direct.wait_running(&id);
    frozen.signal(Signal::STOP);
    let _other = home.worker("probe", &["--slots", "1"]);
    wait(SOON, "the other has the job", || direct.get(&id).epoch == 2);
    frozen.signal(Signal::CONT);
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    let record = direct.get(&id);
    assert_eq!(record.epoch, 2, "done once, by the other");
    assert_eq!(record.deliveries, 1, "the frozen one proved alive: its delivery was no crash");
    assert!(frozen.is_up() && frozen.log().contains("lease lost"), "{}", frozen.log());
    let more = direct.enqueue(&(0..4).map(|_| sleep_job(50)).collect::<Vec<_>>());
    wait(SOON, "both work", || more.iter().all(|id| direct.get(id).state == State::Success));
}

/// F18: a Redis that lost its data is noticed by its marker within 5 s, and said aloud.
#[test]
fn f18_lost_data_is_noticed() {
    let redis = RedisServer::start();
    let home = on(&redis);
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &[]);
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    direct.call(&["FLUSHALL"]);
    wait(Duration::from_secs(5), "the loss is noticed", || worker.log().contains("queue_data_lost"));
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    wait(SOON, "work goes on", || direct.get(&id).state == State::Success);
    assert!(worker.is_up());
}

/// F19: a server that forgets its scripts is not noticed by anyone.
#[test]
fn f19_forgotten_scripts_are_invisible() {
    let redis = RedisServer::start();
    let home = on(&redis);
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &["--slots", "8"]);
    for round in 1..=20 {
        direct.enqueue(&(0..10).map(|_| sleep_job(5)).collect::<Vec<_>>());
        direct.call(&["SCRIPT", "FLUSH"]);
        wait(SOON, "the round is done", || direct.counts().success_total == round * 10);
    }
    assert_eq!(direct.counts().success_total, 200);
    assert!(worker.is_up() && !worker.log().contains("WARN"), "{}", worker.log());
}

/// F20: when Redis is full an enqueue is shed and changes nothing; what runs is acked, renewed
/// and cancelled; room made is used.
#[test]
fn f20_a_full_redis_sheds_enqueues_and_takes_acks() {
    let redis = RedisServer::builder().max_memory("40mb", "noeviction").start();
    let home = on(&redis);
    let direct = Direct::to(&home, "probe");
    let mut worker = home.worker("probe", &["--slots", "4"]);
    let long = direct.enqueue(&[sleep_job(600_000)]).remove(0);
    direct.wait_running(&long);
    let running = direct.enqueue(&(0..3).map(|_| sleep_job(3_000)).collect::<Vec<_>>());
    running.iter().for_each(|id| direct.wait_running(id));

    let text = "x".repeat(200_000);
    let full = (0..1_000).find_map(|_| {
        let job = NewJob::new("probe.noop", &text).unwrap();
        direct
            .runtime
            .block_on(direct.broker.enqueue(&direct.queue, std::slice::from_ref(&job)))
            .err()
            .map(|e| (e, direct.id(&job)))
    });
    let (error, refused) = full.expect("40 MB hold less than 200 MB");
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(direct.runtime.block_on(direct.broker.get(&refused)).unwrap().is_none(), "nothing was changed");
    let waiting = direct.counts().pending;

    for id in &running {
        wait(SOON, "running jobs are acked", || direct.get(id).state == State::Success);
    }
    assert_eq!(direct.get(&long).epoch, 1, "renewed all the while");
    assert_eq!(direct.runtime.block_on(direct.broker.cancel(&long)).unwrap(), Cancel::Requested);
    wait(SOON, "a running job is cancelled", || direct.get(&long).state == State::Cancelled);
    wait(SOON, "the backlog drains", || direct.counts().unfinished() == 0);
    assert!(waiting > 0 && worker.is_up(), "{}", worker.log());
}

/// F23: Redis stalls for longer than time-outs and leases. No process ends; nothing that runs is
/// started again, because live workers are given the time to renew.
#[test]
fn f23_a_stalled_redis_restarts_nothing() {
    let redis = RedisServer::start();
    let home = on(&redis).with("REDIS_SOCKET_TIMEOUT", "1");
    let direct = Direct::to(&home, "probe");
    let mut workers = [home.worker("probe", &["--slots", "2"]), home.worker("probe", &["--slots", "2"])];
    for stall_ms in [200, 2_000, 4_000] {
        let ids = direct.enqueue(&(0..3).map(|_| sleep_job(5_000)).collect::<Vec<_>>());
        ids.iter().for_each(|id| direct.wait_running(id));
        redis.freeze();
        std::thread::sleep(Duration::from_millis(stall_ms));
        redis.thaw();
        for id in &ids {
            wait(SOON, "the job ends", || direct.get(id).state == State::Success);
            assert_eq!(direct.get(id).epoch, 1, "a stall of {stall_ms} ms restarted a job");
        }
    }
    assert!(workers.iter_mut().all(crate::harness::Daemon::is_up));
}

/// F32: a process whose clock is an hour off neither takes over a living peer's jobs nor runs
/// scheduled ones early; time is the server's.
#[test]
fn f32_a_clock_an_hour_off_decides_nothing() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let _right = home.worker("probe", &["--slots", "1"]);
    let long = direct.enqueue(&[sleep_job(3_000)]).remove(0);
    direct.wait_running(&long);
    let ahead = Home::clone_of(&home).with("LD_PRELOAD", &faketime()).with("FAKETIME", "+1h");
    let mut wrong = ahead.worker("probe", &["--slots", "4"]);
    let later = NewJob { when: windlass_jobs::When::After(Duration::from_secs(1)), ..sleep_job(1) };
    let (begun, later) = (Instant::now(), direct.enqueue(&[later]).remove(0));
    wait(SOON, "the scheduled job is done", || direct.get(&later).state == State::Success);
    assert!(begun.elapsed() >= Duration::from_secs(1), "run early, after {:?}", begun.elapsed());
    wait(SOON, "the long job is done", || direct.get(&long).state == State::Success);
    assert_eq!(direct.get(&long).epoch, 1, "taken over from a living peer");
    // A producer with a wrong clock delays nothing.
    let id = ahead.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
    assert!(wrong.is_up());
}

pub(crate) fn faketime() -> String {
    let found = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
        .map(|dir| format!("{dir}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    found.expect("libfaketime: install the Debian package libfaketime")
}

/// Cancel from another process: a waiting job at once, a running one within 1 s, inline or in a
/// child; on both engines.
#[test]
fn a_job_is_cancelled_from_another_process() {
    for home in [on(shared_redis()), Home::embedded().with("WINDLASS_LEASE_MS", "1000")] {
        let waiting = home.enqueue("probe.noop", "{}", &[]);
        assert_eq!(home.json(&["cancel", &waiting])["answer"], "cancelled");
        let _worker = home.worker("probe", &[]);
        let inline = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &[]);
        let isolated = home.enqueue("probe.crash", r#"{"how": "loop"}"#, &["--timeout", "1h"]);
        for id in [&inline, &isolated] {
            home.wait_for(id, "running");
            let begun = Instant::now();
            home.json(&["cancel", id]);
            home.wait_for(id, "cancelled");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        assert_eq!(home.task(&waiting)["status"], "cancelled");
        assert_eq!(home.run(&["cancel", &waiting]).status.code(), Some(3), "too late");
    }
}

/// A paused queue keeps its jobs; a bounded one refuses more; the dead set is replayed by filter.
#[test]
fn queues_are_paused_bounded_and_replayed() {
    for home in [on(shared_redis()), Home::embedded()] {
        home.json(&["pause", "probe"]);
        let _worker = home.worker("probe,windlass", &[]);
        let id = home.enqueue("probe.fail", r#"{"how":"fatal"}"#, &["--label", "team=a"]);
        let other = home.enqueue("probe.crash", r#"{"how":"abort"}"#, &["--max-attempts", "1"]);
        home.json(&["limit", "probe", "--max-waiting", "2"]);
        let full = home.run(&["enqueue", "probe.noop"]);
        assert!(full.stderr.contains("queue probe is full: 2 jobs may wait"), "{full:?}");
        assert_eq!(home.task(&id)["status"], "pending");
        home.json(&["resume", "probe"]);
        home.wait_for(&id, "failure");
        home.wait_for(&other, "failure");
        assert_eq!(home.json(&["dead", "list", "probe"])["dead"].as_array().map(Vec::len), Some(2));
        let found = home.json(&["tasks", "probe", "--state", "failure", "--label", "team=a"]);
        assert_eq!(found["tasks"].as_array().map(Vec::len), Some(1), "{found:#}");

        let replayed = home.json(&["dead", "replay", "--queue", "probe", "--label", "team=a"]);
        assert_eq!(replayed["result"]["value"]["done"], 1, "{replayed:#}");
        wait(SOON, "it failed again", || home.task(&id)["status"] == "failure");
        let deleted = home.json(&["dead", "delete", "--queue", "probe", "--all"]);
        assert_eq!(deleted["result"]["value"]["done"], 2, "{deleted:#}");
        assert_eq!(home.run(&["task", &id]).status.code(), Some(1));
    }
}

/// An idle worker asks little, however many queues it serves.
#[test]
fn an_idle_worker_sends_at_most_two_commands_a_second() {
    let redis = RedisServer::start();
    let home = on(&redis);
    let queues: Vec<String> = (0..50).map(|i| format!("q{i}")).collect();
    let _worker = home.worker(&queues.join(","), &[]);
    let direct = Direct::to(&home, "q0");
    let commands = || direct.info("stats", "total_commands_processed");
    wait(SOON, "every queue was asked once", || {
        direct.info("commandstats", "cmdstat_evalsha").len() > 10 && direct.calls("evalsha") >= 50
    });
    std::thread::sleep(Duration::from_secs(2));
    let before: u64 = direct.calls("evalsha") + direct.calls("publish") + direct.calls("ping");
    let all_before: u64 = commands().parse().unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let sent = direct.calls("evalsha") + direct.calls("publish") + direct.calls("ping") - before;
    let all = commands().parse::<u64>().unwrap() - all_before;
    assert!(sent <= 20, "{sent} client commands in 10 s ({all} with those inside scripts)");
}

/// An expired job is not run; the age of a job that was started does not matter.
#[test]
fn an_expired_job_is_not_run() {
    for home in [on(shared_redis()), Home::embedded()] {
        let id = home.enqueue("probe.noop", "{}", &["--expires", "100ms"]);
        let live = home.enqueue("probe.noop", "{}", &["--expires", "1h"]);
        std::thread::sleep(Duration::from_millis(150));
        let _worker = home.worker("probe", &[]);
        home.wait_for(&live, "success");
        let task = home.wait_for(&id, "failure");
        assert_eq!((&task["reason"], &task["attempt"]), (&"expired".into(), &0.into()), "{task:#}");
    }
}

/// Every key has an owner: after work, ends and retention only the fixed ones are left.
#[test]
fn only_documented_keys_are_left_after_retention() {
    let home = on(shared_redis());
    let direct = Direct::to(&home, "probe");
    let worker = home.worker("probe", &["--slots", "16"]);
    let labelled = Options { labels: [("a".to_owned(), "b".to_owned())].into(), ..Options::default() };
    let big = "x".repeat(10_000);
    direct.enqueue(
        &(0..50)
            .map(|_| NewJob { options: labelled.clone(), ..NewJob::new("probe.noop", &big).unwrap() })
            .collect::<Vec<_>>(),
    );
    direct.enqueue(&(0..20).map(|_| sleep_job(20)).collect::<Vec<_>>());
    home.enqueue("probe.fail", r#"{"how":"fatal"}"#, &[]);
    home.enqueue("probe.noop", "{}", &["--delay", "1h"]);
    wait(SOON, "all is done", || direct.counts().unfinished() == 1);
    drop(worker);
    let zero = Duration::ZERO;
    let tidied = direct.runtime.block_on(async {
        use windlass_broker::Leases as _;
        direct.broker.tidy(&direct.queue, zero, zero).await
    });
    assert_eq!(tidied.unwrap(), 71);
    let keys = direct.census();
    let unknown: Vec<&String> = keys
        .iter()
        .filter(|key| {
            let name = key.strip_prefix(&format!("{}:{{probe}}:", direct.prefix)).unwrap_or(key);
            let fixed = ["due", "idle", "stat", "meta", "lease"].contains(&name) || key.contains("{reg}");
            // The one job that is still scheduled.
            !fixed && !name.starts_with("j:")
        })
        .collect();
    assert_eq!(unknown, Vec::<&String>::new());
    assert_eq!(keys.iter().filter(|key| key.contains(":j:")).count(), 1);
}
