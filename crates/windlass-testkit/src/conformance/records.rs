//! What can be read back.

use std::collections::BTreeSet;
use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_jobs::command::{Ack, Counts, Filter, Found, Settle, WorkerInfo};
use windlass_jobs::{
    Backoff, DEFAULT_MAX_ATTEMPTS, Durability, JobId, MAX_ARGS_BYTES, MAX_RESULT_BYTES, NewJob, OnClash, Options,
    Priority, Progress, Reason, State, Timestamp, Ulid, Unique, Until, When, new_ulid,
};

use super::{Bench, LONG, SHORT, done, error_text, moment, some_jobs};

/// Progress can be read while the job runs, stays when it ends, and is gone after a retry.
pub async fn progress_is_readable_and_cleared(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let job = bench.enqueue_some(1).await[0].ulid;
    let claimed = bench.claim_one().await;
    for (percent, message) in [(0.0, ""), (45.5, "page 3 of 8"), (100.0, "größer, 図 und =;:\"'")] {
        let progress = Progress::new(percent, message);
        assert_eq!(bench.broker.progress(&bench.queue, claimed.lease, &progress).await.unwrap(), Ack::Taken);
        assert_eq!(bench.record(job).await.progress, Some(progress));
    }
    let retry = Settle::Retry { delay: SHORT, failures: 1, error: error_text("no") };
    bench.finish(claimed.lease, retry).await;
    assert_eq!(bench.record(job).await.progress, None);
    moment().await;
    let again = bench.claim_one().await;
    assert_eq!(bench.record(job).await.progress, None);
    let progress = Progress::new(99.9, "nearly");
    assert_eq!(bench.broker.progress(&bench.queue, claimed.lease, &progress).await.unwrap(), Ack::Stale);
    assert_eq!(bench.broker.progress(&bench.queue, again.lease, &progress).await.unwrap(), Ack::Taken);
    bench.finish(again.lease, done()).await;
    assert_eq!(bench.record(job).await.progress, Some(progress.clone()));
    assert_eq!(bench.broker.progress(&bench.queue, again.lease, &progress).await.unwrap(), Ack::Stale);
}

/// A result, a skipped run, and all the instants of a job's life.
pub async fn results_and_errors_are_readable(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let jobs = bench.enqueue_some(3).await;
    let claimed = bench.claim(3).await;
    let result = r#"{"pages":8,"name":"Käse"}"#.to_owned();
    bench.finish(claimed[0].lease, Settle::Success { result: Some(result.clone()), skipped: false }).await;
    bench.finish(claimed[1].lease, Settle::Success { result: None, skipped: true }).await;
    bench.finish(claimed[2].lease, done()).await;
    let [with, skipped, plain] =
        [bench.record(jobs[0].ulid).await, bench.record(jobs[1].ulid).await, bench.record(jobs[2].ulid).await];
    assert_eq!((with.result, with.skipped), (Some(result), false));
    assert_eq!((skipped.result, skipped.skipped), (None, true));
    assert_eq!((&plain.result, plain.skipped), (&None, false));
    for state in [with.state, skipped.state, plain.state] {
        assert_eq!(state, State::Success);
    }
    assert_eq!(plain.worker.as_deref(), Some(bench.worker.as_str()));
    assert_eq!((plain.attempt(), plain.epoch, plain.reason, plain.error), (1, 1, None, None));
    let (started, finished) = (plain.started_at.expect("it ran"), plain.finished_at.expect("it ended"));
    assert!(plain.created_at <= started && started <= finished);
}

/// Args and results up to 1 MiB come back byte by byte.
pub async fn large_values_are_byte_equal(broker: SharedBroker) {
    let bench = Bench::new(broker);
    // Around each bound at which an engine may keep a value elsewhere.
    let sizes = [2, 63, 64, 65, 255, 256, 257, 2_047, 2_048, 2_049, 100_000, MAX_ARGS_BYTES];
    let texts = sizes.map(json_text);
    let mut jobs = some_jobs(texts.len());
    for (job, text) in jobs.iter_mut().zip(&texts) {
        job.args = serde_json::from_str(text).unwrap();
    }
    bench.enqueue(&jobs).await;
    let claimed = bench.claim(jobs.len()).await;
    for ((job, text), claimed) in jobs.iter().zip(&texts).zip(&claimed) {
        assert!(claimed.args == *text, "claimed args of {} bytes", text.len());
        assert!(bench.record(job.ulid).await.args == *text, "args of {} bytes", text.len());
        let settle = Settle::Success { result: Some(text.clone()), skipped: false };
        assert_eq!(bench.finish(claimed.lease, settle).await, Ack::Taken);
        let record = bench.record(job.ulid).await;
        assert!(record.result.as_ref() == Some(text) && record.args == *text, "result of {} bytes", text.len());
    }
    assert_eq!(MAX_ARGS_BYTES, MAX_RESULT_BYTES);
}

/// A JSON text of so many bytes, in which a cut at any round number falls inside a character.
fn json_text(len: usize) -> String {
    const UNIT: &str = "aé\\n{}";
    let inner = len - 2;
    let text = format!("\"{}{}\"", UNIT.repeat(inner / UNIT.len()), "x".repeat(inner % UNIT.len()));
    assert_eq!(text.len(), len);
    text
}

/// Every option and label is read back as it was handed in.
pub async fn options_round_trip(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let labels = [("tenant", "Ärzte & Söhne = 100 %"), ("a", ""), ("empty-is-fine_1", "x")];
    let full = Options {
        priority: Priority::Low,
        max_attempts: Some(7),
        backoff: Some(Backoff::List { delays_ms: vec![1_000, 60_000] }),
        timeout: Some(Duration::from_millis(1_500)),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        expires: When::Now,
        unique: Some(Unique {
            ttl: Duration::from_millis(90_000),
            until: Until::Ttl,
            on_clash: OnClash::Replace,
            debounce: Some(Duration::from_secs(5)),
            ..Unique::new("Ärzte: 7 {}")
        }),
        tenant: Some("Ärzte & Söhne".into()),
        ordering_key: Some("o 1".into()),
        concurrency_key: Some("c:2".into()),
        rate_key: Some("r%3".into()),
        depends_on: None,
        durability: Durability::Fast,
        trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
    };
    let mut jobs = some_jobs(2);
    jobs[0].options = full.clone();
    bench.enqueue(&jobs).await;
    let (first, second) = (bench.record(jobs[0].ulid).await, bench.record(jobs[1].ulid).await);
    assert_eq!((first.max_attempts, first.options), (7, full.clone()));
    assert_eq!((second.max_attempts, second.options), (DEFAULT_MAX_ATTEMPTS, Options::default()));
    let claimed = bench.claim(2).await;
    assert_eq!((claimed[0].max_attempts, claimed[0].options.as_str()), (None, ""));
    assert_eq!((claimed[1].max_attempts, claimed[1].options.clone()), (Some(7), full.to_short()));
}

/// Args are bytes to an engine: nothing in them is read, cut or escaped.
pub async fn text_is_kept_as_it_is(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let texts = [
        r#""\u0000\u0001\u001f\u007f""#,
        "\"\u{7f}\u{80}\u{2028}\u{feff}\u{1F600}\"",
        r#"{"b":1,"a":2,  "a":3}"#,
        "1e400",
        "-0.0",
        "123456789012345678901234567890",
        "null",
        "[]",
        r#""'; DROP TABLE job; -- {} %s $1 ?""#,
        "  [1 ,\t2\n]",
    ];
    let mut jobs = some_jobs(texts.len());
    for (job, text) in jobs.iter_mut().zip(texts) {
        job.args = serde_json::value::RawValue::from_string(text.trim().to_owned()).unwrap();
    }
    bench.enqueue(&jobs).await;
    for (claimed, job) in bench.claim(jobs.len()).await.iter().zip(&jobs) {
        assert_eq!(claimed.args, job.args.get());
        assert_eq!(bench.record(job.ulid).await.args, job.args.get());
    }
}

/// What was never enqueued is not there.
pub async fn an_unknown_id_is_none(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let id = JobId::new(new_ulid(), bench.queue.clone());
    assert_eq!(bench.broker.get(&id).await.unwrap(), None);
    assert_eq!(bench.counts().await, Counts::default());
    for state in State::ALL {
        assert_eq!(bench.broker.list(&bench.queue, state, 0, 10).await.unwrap(), Default::default());
    }
    bench.enqueue_some(1).await;
    assert_eq!(bench.broker.get(&id).await.unwrap(), None);
    let lease = windlass_jobs::Lease { ulid: id.ulid, epoch: 1 };
    assert_eq!(bench.finish(lease, done()).await, Ack::Stale);
    bench.broker.ping().await.unwrap();
}

/// The pages of each list cover it once, whatever the size of a page.
pub async fn pages_cover_each_list_once(broker: SharedBroker) {
    let bench = Bench::new(broker);
    // Thirteen in each list, made so that the list of pending ones is filled last.
    let done_jobs =
        fill(&bench, |i| if i % 2 == 0 { done() } else { Settle::Cancelled { error: error_text("c") } }).await;
    let dead = fill(&bench, |_| Settle::Failure { reason: Reason::Error, failures: 1, error: error_text("f") }).await;
    let due = fill(&bench, |i| match i % 2 {
        0 => Settle::Snooze { delay: LONG },
        _ => Settle::Retry { delay: LONG, failures: 1, error: error_text("r") },
    })
    .await;
    let running: BTreeSet<Ulid> = bench.enqueue_some(13).await.iter().map(|job| job.ulid).collect();
    assert_eq!(bench.claim(13).await.len(), 13);
    let mut jobs = some_jobs(13);
    for (i, job) in jobs.iter_mut().enumerate() {
        job.options.priority = Priority::ALL[i % 3];
    }
    bench.enqueue(&jobs).await;
    let pending = jobs.iter().map(|job| job.ulid).collect();
    let lists = [
        (State::Success, &done_jobs),
        (State::Cancelled, &done_jobs),
        (State::Failure, &dead),
        (State::Scheduled, &due),
        (State::Retrying, &due),
        (State::Running, &running),
        (State::Pending, &pending),
    ];
    for (state, expected) in lists {
        for limit in [1, 5, 12, 13, 14, 500, 10_000] {
            check_pages(&bench, state, limit, expected).await;
        }
        let past = bench.broker.list(&bench.queue, state, 1_000, 5).await.unwrap();
        assert!(past.ids.is_empty() && past.next.is_none(), "{state}");
    }
}

async fn check_pages(bench: &Bench, state: State, limit: usize, expected: &BTreeSet<Ulid>) {
    let (mut seen, mut cursor) = (Vec::new(), 0);
    loop {
        let page = bench.broker.list(&bench.queue, state, cursor, limit).await.unwrap();
        assert!(page.ids.len() <= limit);
        seen.extend(page.ids);
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
        assert!(seen.len() <= expected.len(), "{state}: the pages do not end");
    }
    let set: BTreeSet<Ulid> = seen.iter().copied().collect();
    assert_eq!(seen.len(), set.len(), "{state} in pages of {limit}: one id twice");
    assert_eq!(&set, expected, "{state} in pages of {limit}");
}

/// A search looks at the first 10,000 entries of a list, and says when there are more.
pub async fn a_search_ends_at_its_window(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let mut jobs = some_jobs(10_050);
    for n in [3, 700, 9_999, 10_000, 10_049] {
        jobs[n].options.labels = [("colour".to_owned(), "red".to_owned())].into();
        jobs[n].kind = "marked".to_owned();
    }
    bench.enqueue(&jobs).await;
    let red = Filter { labels: [("colour".to_owned(), "red".to_owned())].into(), ..Filter::of(State::Pending) };
    let marked = Filter { kind: Some("marked".to_owned()), ..Filter::of(State::Pending) };
    for filter in [&red, &marked] {
        let search = |cursor, limit| bench.broker.search(&bench.queue, filter, cursor, limit);
        let first = search(0, 2).await.unwrap();
        assert_eq!((&first.ids, first.beyond), (&vec![jobs[3].ulid, jobs[700].ulid], false));
        let rest = search(first.next.unwrap(), 2).await.unwrap();
        assert_eq!((rest.ids, rest.next, rest.beyond), (vec![jobs[9_999].ulid], None, true));
        let past = search(10_000, 2).await.unwrap();
        assert_eq!((past.ids, past.next, past.beyond), (vec![], None, true));
    }
    for (name, value) in [("colour", "blue"), ("shape", "red")] {
        let filter = Filter { labels: [(name.to_owned(), value.to_owned())].into(), ..red.clone() };
        let found = bench.broker.search(&bench.queue, &filter, 0, 10).await.unwrap();
        assert!(found.ids.is_empty() && found.beyond, "{name} {value}");
    }
    let elsewhere = Filter { state: State::Failure, ..red };
    assert_eq!(bench.broker.search(&bench.queue, &elsewhere, 0, 10).await.unwrap(), Found::default());
}

/// Jobs that are held because no worker knows their kind are in no list, but are found.
pub async fn parked_jobs_are_found(broker: SharedBroker) {
    let bench = Bench::new(broker);
    bench.enqueue_some(3).await;
    let claimed = bench.claim(2).await;
    for claimed in &claimed {
        bench.finish(claimed.lease, super::parked()).await;
    }
    let filter = Filter { parked: true, kind: Some("noop".into()), ..Filter::of(State::Pending) };
    let found = bench.broker.search(&bench.queue, &filter, 0, 10).await.unwrap();
    let expected: BTreeSet<Ulid> = claimed.iter().map(|claimed| claimed.lease.ulid).collect();
    assert_eq!(found.ids.into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(bench.ids(State::Pending).await.len(), 1);
    let running = Filter { state: State::Running, ..filter };
    assert_eq!(bench.broker.search(&bench.queue, &running, 0, 10).await.unwrap(), Found::default());
}

/// Thirteen jobs, claimed and settled.
async fn fill(bench: &Bench, settle: impl Fn(usize) -> Settle) -> BTreeSet<Ulid> {
    bench.enqueue_some(13).await;
    let claimed = bench.claim(13).await;
    for (i, claimed) in claimed.iter().enumerate() {
        assert_eq!(bench.finish(claimed.lease, settle(i)).await, Ack::Taken);
    }
    claimed.iter().map(|claimed| claimed.lease.ulid).collect()
}

/// The counters after every step of a life.
pub async fn counts_are_exact_through_a_life(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let zero = Counts::default();
    let mut jobs = some_jobs(3);
    jobs[2].when = When::After(SHORT);
    bench.enqueue(&jobs).await;
    let accepted = Counts { enqueued_total: 3, ..zero };
    assert_eq!(bench.counts().await, Counts { pending: 2, scheduled: 1, ..accepted });
    moment().await;
    // Due, but nobody has asked: a claim promotes.
    assert_eq!(bench.counts().await, Counts { pending: 2, scheduled: 1, ..accepted });
    let claimed = bench.claim(2).await;
    assert_eq!(bench.counts().await, Counts { pending: 1, running: 2, ..accepted });
    bench.finish(claimed[0].lease, Settle::Retry { delay: SHORT, failures: 1, error: error_text("") }).await;
    let retried = Counts { retried_total: 1, ..accepted };
    assert_eq!(bench.counts().await, Counts { pending: 1, running: 1, retrying: 1, ..retried });
    bench.finish(claimed[1].lease, Settle::Release).await;
    assert_eq!(bench.counts().await, Counts { pending: 2, retrying: 1, ..retried });
    moment().await;
    assert_eq!(bench.claim_and_lose(3).await.len(), 3);
    assert_eq!(bench.counts().await, Counts { running: 3, ..retried });
    let claimed = bench.claim(3).await;
    let expired = Counts { expired_leases_total: 3, ..retried };
    assert_eq!(bench.counts().await, Counts { running: 3, ..expired });
    bench.finish(claimed[0].lease, done()).await;
    bench.finish(claimed[1].lease, Settle::Cancelled { error: error_text("") }).await;
    let failure = Settle::Failure { reason: Reason::Timeout, failures: 2, error: error_text("") };
    bench.finish(claimed[2].lease, failure).await;
    let ended = Counts { success_total: 1, cancelled_total: 1, failure_total: 1, dead: 1, ..expired };
    assert_eq!(bench.counts().await, ended);
    assert_eq!(bench.counts().await.unfinished(), 0);
}

/// A worker and its queues are listed while it announces itself, and not after it retired.
pub async fn workers_are_listed_until_they_retire(broker: SharedBroker) {
    let bench = Bench::new(broker);
    let producer_only = crate::unique_queue("produced");
    bench.broker.enqueue(&producer_only, &[NewJob::new("noop", &()).unwrap()]).await.unwrap();
    let info = WorkerInfo {
        name: bench.worker.clone(),
        host: "größe".into(),
        pid: 42,
        queues: vec![bench.queue.clone()],
        kinds: vec!["noop".into(), "pdf.card_sheet".into()],
        slots: 8,
        running: 3,
        jobs: Vec::new(),
        canary_age_ms: Some(12),
        draining: false,
        started_at: Timestamp(1_700_000_000_123),
        seen_at: Timestamp(0),
        version: "0.1.0".into(),
    };
    let mine = || async {
        let workers = bench.broker.workers().await.unwrap();
        assert!(workers.is_sorted_by(|a, b| a.name < b.name));
        workers.into_iter().find(|worker| worker.name == info.name)
    };
    assert_eq!(mine().await, None);
    bench.broker.announce(&info).await.unwrap();
    let first = mine().await.expect("it announced itself");
    assert!(first.seen_at > info.started_at, "the time is the broker's");
    assert_eq!(first, WorkerInfo { seen_at: first.seen_at, ..info.clone() });
    moment().await;
    bench.broker.announce(&WorkerInfo { running: 4, ..info.clone() }).await.unwrap();
    let second = mine().await.expect("it is still there");
    assert!(second.seen_at > first.seen_at && second.running == 4);
    let queues = bench.broker.queues().await.unwrap();
    assert!(queues.contains(&bench.queue) && queues.contains(&producer_only));
    assert!(queues.is_sorted());
    bench.broker.retire(&info.name).await.unwrap();
    assert_eq!(mine().await, None);
    bench.broker.retire(&info.name).await.unwrap();
}
