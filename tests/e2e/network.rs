//! What the network does between us and Redis, by a proxy that misbehaves on request.

use std::time::{Duration, Instant};

use windlass_broker::{Enqueue as _, Inspect as _};
use windlass_jobs::{NewJob, Options, State};
use windlass_testkit::{Fault, Proxy, RedisServer, shared_redis};

use crate::faults::{Direct, sleep_job};
use crate::harness::{Home, SOON, wait};

/// A home whose Redis lies behind a proxy, and a test's own way past the proxy.
fn behind_a_proxy(redis: &RedisServer) -> (Proxy, Home, Direct) {
    let proxy = Proxy::to(redis.port());
    let home = Home::on(redis).with("REDIS_URL", &proxy.redis_url());
    let direct = Direct::over(&redis.url(), &home, "probe");
    (proxy, home, direct)
}

/// F03: the connection breaks while the ack is answered. The worker says it again, is told that it
/// comes too late, and nothing is done twice.
#[test]
fn f03_a_finish_whose_reply_is_lost_counts_once() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let mut worker = home.worker("probe", &["--slots", "4"]);
    let (mut rounds, mut lost_replies) = (0, 0);
    while lost_replies < 3 {
        rounds += 1;
        assert!(rounds <= 30, "{lost_replies} of 30 cuts met an ack");
        let ids = direct.enqueue(&(0..4).map(|_| sleep_job(60)).collect::<Vec<_>>());
        ids.iter().for_each(|id| direct.wait_running(id));
        let ended = |id| direct.get(id).state == State::Success;
        // Nothing of the reply comes, or its start.
        proxy.set(Fault::CutReplies([0, 1, 5, 40][rounds % 4]));
        let running: Vec<_> = ids.iter().filter(|id| !ended(id)).collect();
        let cut = Instant::now();
        while !ids.iter().all(ended) && cut.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Another call, as the worker's word of what it runs, may have met the cut first.
        lost_replies += usize::from(running.into_iter().any(ended));
        proxy.set(Fault::None);
        wait(SOON, "all have ended", || ids.iter().all(ended));
        for id in &ids {
            let record = direct.get(id);
            assert_eq!((record.epoch, record.failures, record.deliveries), (1, 0, 1), "{record:?}");
        }
    }
    assert_eq!(direct.counts().success_total, rounds as u64 * 4);
    wait(SOON, "nothing runs", || direct.counts().unfinished() == 0);
    assert!(worker.is_up());
}

/// F04: the connection breaks inside a batch of 1,000, while it is sent or while it is answered.
/// Each slice is taken whole or not at all; the same ids again add what was missing and no more.
#[test]
fn f04_a_cut_batch_is_repeated_without_doubles() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let through = Direct::to(&home, "probe");
    let enqueue = |jobs: &[NewJob]| through.runtime.block_on(through.broker.enqueue(&through.queue, jobs));
    let mut total = 0;
    for fault in [Fault::CutReplies(0), Fault::CutReplies(3), Fault::CutRequests(10_000), Fault::CutRequests(60_000)] {
        let jobs: Vec<NewJob> = (0..1_000).map(|_| sleep_job(1)).collect();
        // The connection stands before the cut.
        through.counts();
        proxy.set(fault);
        assert!(enqueue(&jobs).is_err(), "{fault:?}");
        let taken = direct.counts().enqueued_total - total;
        assert!(taken < 1_000 && taken % 250 == 0, "{fault:?}: {taken} of 1,000 were taken");
        proxy.set(Fault::None);
        let fresh = loop {
            if let Ok(replies) = enqueue(&jobs) {
                break replies.iter().filter(|reply| reply.fresh).count();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(fresh as u64 + taken, 1_000, "{fault:?}");
        total += 1_000;
        let counts = direct.counts();
        assert_eq!((counts.enqueued_total, counts.pending), (total, total), "{fault:?}");
    }
}

/// F23: every reply takes 200 ms more. Jobs take longer; none is started twice.
#[test]
fn f23_a_slow_redis_is_only_slow() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let home = home.with("WINDLASS_LEASE_MS", "2000");
    let mut worker = home.worker("probe", &["--slots", "4"]);
    proxy.set(Fault::Latency(Duration::from_millis(100)));
    let ids = direct.enqueue(&(0..8).map(|_| sleep_job(2_500)).collect::<Vec<_>>());
    for id in &ids {
        wait(SOON, "the job is done", || direct.get(id).state == State::Success);
        assert_eq!(direct.get(id).epoch, 1);
    }
    assert!(worker.is_up());
}

/// F24: connections that nobody closed and nothing passes through. They are given up within 15 s
/// and new ones made.
#[test]
fn f24_half_open_connections_are_given_up() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let mut worker = home.worker("probe", &[]);
    proxy.set(Fault::StallOld);
    let stalled = Instant::now();
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    assert!(stalled.elapsed() < Duration::from_secs(15), "{:?}", stalled.elapsed());
    assert!(worker.is_up());
}

/// F25: every connection is reset for a while, then nobody listens. A process tries at most 20
/// times a second, and is back at work within 2 s.
#[test]
fn f25_a_storm_of_resets_is_met_with_patience() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let mut worker = home.worker("probe", &[]);
    let before = proxy.accepted();
    proxy.set(Fault::Reset);
    std::thread::sleep(Duration::from_secs(3));
    let tries = proxy.accepted() - before;
    assert!((3..=60).contains(&tries), "{tries} connections in 3 s");
    proxy.set(Fault::Refuse);
    std::thread::sleep(Duration::from_secs(2));
    let id = direct.enqueue(&[sleep_job(1)]).remove(0);
    proxy.set(Fault::None);
    let healed = Instant::now();
    wait(SOON, "the job is done", || direct.get(&id).state == State::Success);
    assert!(healed.elapsed() < Duration::from_secs(2), "{:?}", healed.elapsed());
    assert!(worker.is_up());
}

/// F26: replies come one byte at a time, or break off in their middle. Nobody gets another's
/// answer.
#[test]
fn f26_no_answer_goes_to_another_caller() {
    let (proxy, home, direct) = behind_a_proxy(shared_redis());
    let label = |n: u32| Options { labels: [("n".to_owned(), n.to_string())].into(), ..Options::default() };
    let jobs: Vec<NewJob> = (0..200).map(|n| NewJob { options: label(n), ..sleep_job(u64::from(n)) }).collect();
    let ids = direct.enqueue(&jobs);
    let through = Direct::to(&home, "probe");
    for fault in [Fault::Slice(1), Fault::Slice(7), Fault::CutReplies(700), Fault::None] {
        proxy.set(fault);
        let mut answers = 0;
        for round in 0..3 {
            let asking = ids.iter().enumerate().map(|(n, id)| {
                let (broker, id) = (std::sync::Arc::clone(&through.broker), id.clone());
                through.runtime.spawn(async move { (n, broker.get(&id).await) })
            });
            for asked in asking.collect::<Vec<_>>() {
                let (n, answer) = through.runtime.block_on(asked).unwrap();
                if let Ok(record) = answer {
                    let record = record.unwrap();
                    assert_eq!(record.options.labels["n"], n.to_string(), "{fault:?}, round {round}");
                    answers += 1;
                }
            }
        }
        let all = !matches!(fault, Fault::CutReplies(_));
        // The first call after a cut may still fail: its connection was the broken one.
        assert!(answers == 600 || !all || fault == Fault::None, "{fault:?}: {answers} of 600 answers");
        assert!(answers > 0 || !all, "{fault:?}");
    }
}

/// F21: a Redis that throws keys away when it is full is refused at the start, with what to do;
/// allowed by a setting, or where only keys with a time to live go, it is a warning.
#[test]
fn f21_a_redis_that_throws_jobs_away_is_refused() {
    let evicting = RedisServer::builder().max_memory("64mb", "allkeys-lru").start();
    let home = Home::on(&evicting);
    for command in ["worker", "up", "api"] {
        let ran = home.run(&[command]);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains("noeviction") && ran.stderr.contains("WINDLASS_ALLOW_EVICTION"), "{ran:?}");
    }
    assert_eq!(home.run(&["doctor"]).status.code(), Some(1));
    let home = home.with("WINDLASS_ALLOW_EVICTION", "true");
    let worker = home.worker("probe", &[]);
    wait(SOON, "the log says so", || worker.log().contains("allkeys-lru"));
    let managed = RedisServer::builder().max_memory("64mb", "volatile-lru").start();
    let home = Home::on(&managed);
    let worker = home.worker("probe", &[]);
    wait(SOON, "the log says so", || worker.log().contains("volatile-lru"));
}
