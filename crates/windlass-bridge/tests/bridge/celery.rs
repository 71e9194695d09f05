//! Messages recorded from Celery 5.7 in their lists, and what a Celery client reads back.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use windlass_bridge::{AnySource, Bridge, CeleryOptions, CeleryQueue, Options};
use windlass_broker::{Control as _, Inspect as _, Leases as _};
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::command::{Claimed, Settle};
use windlass_jobs::{JobId, Reason, Timestamp, new_ulid};
use windlass_redis::{Link, Message};
use windlass_testkit::{RedisServer, wait_until};

use crate::{Place, SOON, kill_and_go_on};

const MESSAGES: &str = include_str!("../golden/messages.jsonl");
const REVOKE: &str = include_str!("../golden/revoke.json");

fn source(link: Link) -> AnySource {
    source_to(link, Some("q"))
}

/// Its jobs go to a queue, or to that of their kind.
fn source_to(link: Link, queue: Option<&str>) -> AnySource {
    let queue = queue.map(|queue| windlass_jobs::Queue::new(queue).unwrap());
    let options = CeleryOptions { results: Some(link.clone()), ..CeleryOptions::default() };
    AnySource::celery(link, CeleryQueue { name: "old".into(), queue }, options).unwrap()
}

/// A recorded message, under another id.
fn message(index: usize, id: &str) -> String {
    let mut message: Value = serde_json::from_str(MESSAGES.lines().nth(index).unwrap()).unwrap();
    message["headers"]["id"] = json!(id);
    message["properties"]["delivery_tag"] = json!(id);
    message.to_string()
}

/// The same to be run in an hour.
fn later(id: &str) -> String {
    let mut message: Value = serde_json::from_str(&message(0, id)).unwrap();
    message["headers"]["eta"] = json!(Timestamp(Timestamp::now().0 + 3_600_000).to_string());
    message.to_string()
}

/// Says that tasks are no longer wanted, once somebody listens.
async fn revoke(place: &Place, ids: &[&str]) {
    let mut message: Value = serde_json::from_str(REVOKE).unwrap();
    let body = json!({ "method": "revoke", "arguments": { "task_id": ids, "terminate": false } });
    message["body"] = json!(STANDARD.encode(body.to_string()));
    let message = message.to_string();
    wait_until(SOON, "somebody listens", || async {
        place.call::<i64>(&["PUBLISH", "/0.celery.pidbox", &message]).await > 0
    })
    .await;
}

/// A figure of the bridge's metrics.
fn figure(bridge: &Bridge, name: &str) -> u64 {
    let text = bridge.counters().metrics();
    let line = text.lines().find(|line| line.starts_with(&format!("windlass_bridge_{name}{{"))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn push(place: &Place, list: &str, message: &str) {
    place.call::<i64>(&["LPUSH", list, message]).await;
}

async fn meta(place: &Place, id: &str) -> Value {
    let text: Option<String> = place.call(&["GET", &format!("celery-task-meta-{id}")]).await;
    text.map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default()
}

async fn wait_for(place: &Place, id: &str, status: &str) -> Value {
    wait_until(SOON, &format!("{id} is {status}"), || async { meta(place, id).await["status"] == status }).await;
    meta(place, id).await
}

fn uuid(n: u8) -> String {
    format!("2859cf22-1d80-4bfb-97a2-a526e7cd88{n:02x}")
}

fn new_uuid() -> String {
    let bits: u128 = new_ulid().into();
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_answered_from_start_to_end() {
    let place = Place::new();
    let id = uuid(1);
    let mut told = windlass_redis::subscribe(&place.link, format!("celery-task-meta-{id}"));
    assert_eq!(told.recv().await, Some(Message::Subscribed));
    push(&place, "old", &message(0, &id)).await;
    let bridge = place.bridge(&source(place.link.clone()));
    let job = place.claim_one().await;
    assert_eq!((job.kind.as_str(), job.args.as_str()), ("old.work", r#"{"x":5}"#));
    // A UUID and a ULID of the same bits.
    assert_eq!(u128::from(job.lease.ulid), u128::from_str_radix(&id.replace('-', ""), 16).unwrap());
    let started = wait_for(&place, &id, "STARTED").await;
    assert_eq!(started["result"]["hostname"], "w");
    place.say(&job, 45.5, "page 3 of 8").await;
    let progress = wait_for(&place, &id, "PROGRESS").await;
    assert_eq!(
        (&progress["result"]["progress"], &progress["result"]["message"]),
        (&json!(45.5), &json!("page 3 of 8"))
    );
    place.succeed(&[job], json!({ "pages": 8 })).await;
    let done = wait_for(&place, &id, "SUCCESS").await;
    assert_eq!(
        (&done["result"], &done["task_id"], &done["traceback"]),
        (&json!({ "pages": 8 }), &json!(id), &Value::Null)
    );
    let ttl: i64 = place.call(&["TTL", &format!("celery-task-meta-{id}")]).await;
    assert!((86_000..=86_400).contains(&ttl));
    let mut published = Vec::new();
    while published.last().is_none_or(|status| status != "SUCCESS") {
        let Some(Message::Text(text)) = told.recv().await else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        published.push(value["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(published, ["STARTED", "PROGRESS", "SUCCESS"]);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_retries_and_cancels_are_told_in_celery_s_words() {
    let place = Place::new();
    let bridge = place.bridge(&source(place.link.clone()));
    let next = async |n: u8| -> (String, Claimed) {
        push(&place, "old", &message(0, &uuid(n))).await;
        (uuid(n), place.claim_one().await)
    };
    let error = r#"{"code":"bad","message":"thing"}"#.to_owned();
    let (id, job) = next(1).await;
    place.finish(&[job], Settle::Failure { reason: Reason::Error, failures: 3, error: error.clone() }).await;
    let failed = wait_for(&place, &id, "FAILURE").await;
    let expected = json!({ "exc_type": "RuntimeError", "exc_message": ["bad: thing"], "exc_module": "builtins" });
    assert_eq!(failed["result"], expected);
    assert_eq!(failed["traceback"], "RuntimeError: bad: thing\n");
    let (id, job) = next(2).await;
    let retry = Settle::Retry { delay: std::time::Duration::from_secs(600), failures: 1, error: error.clone() };
    place.finish(&[job], retry).await;
    assert_eq!(wait_for(&place, &id, "RETRY").await["date_done"], Value::Null);
    let (id, job) = next(3).await;
    place.finish(&[job], Settle::Failure { reason: Reason::Timeout, failures: 1, error }).await;
    let failed = wait_for(&place, &id, "FAILURE").await;
    assert_eq!(failed["result"]["exc_type"], "TimeLimitExceeded");
    // What an operator cancels here is revoked there.
    push(&place, "old", &message(2, &uuid(4))).await;
    wait_until(SOON, "it is taken", || async { place.broker.counts(&place.queue).await.unwrap().enqueued_total == 4 })
        .await;
    let bits = u128::from_str_radix(&uuid(4).replace('-', ""), 16).unwrap();
    place.broker.cancel(&windlass_jobs::JobId::new(bits.into(), place.queue.clone())).await.unwrap();
    assert_eq!(wait_for(&place, &uuid(4), "REVOKED").await["result"]["exc_type"], "TaskRevokedError");
    bridge.stop().await;
}

/// What is no task, or more than one, is refused where its caller and its operator see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b34_what_cannot_be_taken_over_is_refused_aloud() {
    let place = Place::new();
    push(&place, "old", "garbage").await;
    let (linked, chained, chord, pickled) = (uuid(1), uuid(2), uuid(3), uuid(4));
    for (index, id) in [(4, &linked), (5, &chained), (7, &chord)] {
        push(&place, "old", &message(index, id)).await;
    }
    let pickle = message(0, &pickled).replace("application/json", "application/x-python-serialize");
    push(&place, "old", &pickle).await;
    push(&place, "old", &message(6, &uuid(5))).await;
    let source = source(place.link.clone());
    let bridge = place.bridge(&source);
    wait_until(SOON, "five are refused", || async { source.refused(10).await.unwrap().len() == 5 }).await;
    for (id, word) in [(&linked, "link"), (&chained, "chain"), (&chord, "chord"), (&pickled, "pickle")] {
        let failed = wait_for(&place, id, "FAILURE").await;
        let text = failed["result"]["exc_message"][0].as_str().unwrap();
        assert!(
            text.starts_with("refused: ") && (text.contains(word) || word == "pickle" && text.contains("JSON")),
            "{text}"
        );
    }
    assert!(source.refused(10).await.unwrap().iter().any(|note| note.message == "garbage"));
    // A member of a plain group is a task like others; its client gathers the results.
    let claimed = place.claim_one().await;
    place.succeed(&[claimed], json!(3)).await;
    assert_eq!(wait_for(&place, &uuid(5), "SUCCESS").await["group_id"], "a5f11610-92b4-44ed-b99c-f383ae4a2764");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lower_steps_come_later_and_ignored_results_are_not_written() {
    let place = Place::new();
    push(&place, "old\u{6}\u{16}3", &message(3, &uuid(1))).await;
    push(&place, "old", &message(1, &uuid(2))).await;
    push(&place, "old", &message(1, &uuid(2))).await;
    let bridge = place.bridge(&source(place.link.clone()));
    wait_until(SOON, "both are taken", || async { place.broker.counts(&place.queue).await.unwrap().pending == 2 })
        .await;
    let jobs = place.claim(10).await;
    let args: Vec<&str> = jobs.iter().map(|job| job.args.as_str()).collect();
    assert_eq!(args, [r#"{"args":[1],"kwargs":{}}"#; 2], "a message that is there twice is one");
    assert_eq!(jobs[1].options, "timeout=30000", "the lower step, with its time limit");
    place.succeed(&jobs, json!(3)).await;
    wait_for(&place, &uuid(2), "SUCCESS").await;
    wait_until(SOON, "all are let go", || async { place.call::<usize>(&["ZCARD", "old:windlass:open"]).await == 0 })
        .await;
    assert_eq!(meta(&place, &uuid(1)).await, Value::Null);
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_task_is_cancelled_while_it_waits() {
    let place = Place::new();
    let id = "f6f41f4b-153c-4116-bd3d-554122cb6b58";
    let bridge = place.bridge(&source(place.link.clone()));
    push(&place, "old", &later(id)).await;
    push(&place, "old", &later(&uuid(1))).await;
    // What may not run for long is looked at seldom, apart from what is under way.
    wait_until(SOON, "both are taken", || async { place.call::<usize>(&["ZCARD", "old:windlass:later"]).await == 2 })
        .await;
    assert_eq!(place.call::<usize>(&["ZCARD", "old:windlass:open"]).await, 0);
    assert_eq!(figure(&bridge, "custody_jobs"), 2);
    wait_until(SOON, "somebody listens", || async {
        place.call::<i64>(&["PUBLISH", "/0.celery.pidbox", REVOKE.trim()]).await > 0
    })
    .await;
    wait_for(&place, id, "REVOKED").await;
    assert_eq!(place.broker.counts(&place.queue).await.unwrap().cancelled_total, 1);
    wait_until(SOON, "it is let go", || async { place.call::<usize>(&["ZCARD", "old:windlass:later"]).await == 1 })
        .await;
    bridge.stop().await;
}

/// A task that is revoked while it still waits in its list never becomes a job; one that a bridge sent before it
/// was killed is cancelled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_revoked_before_it_is_taken_never_runs() {
    let place = Place::new();
    let bridge = place.bridge(&source(place.link.clone()));
    let (sign, early, sent) = (uuid(1), uuid(2), uuid(3));
    push(&place, "old", &later(&sign)).await;
    wait_until(SOON, "it is taken", || async { place.call::<usize>(&["ZCARD", "old:windlass:later"]).await == 1 })
        .await;
    let ulid = u128::from_str_radix(&sent.replace('-', ""), 16).unwrap().into();
    let mut job = windlass_jobs::NewJob::new("old.work", &json!({})).unwrap();
    job.ulid = ulid;
    windlass_broker::Enqueue::enqueue(&*place.broker, &place.queue, &[job]).await.unwrap();
    revoke(&place, &[&early, &sent, &sign]).await;
    // What was said of one of them was said of all.
    wait_for(&place, &sign, "REVOKED").await;
    push(&place, "old", &message(0, &early)).await;
    push(&place, "old", &message(0, &sent)).await;
    let revoked = wait_for(&place, &early, "REVOKED").await;
    assert_eq!(revoked["result"]["exc_type"], "TaskRevokedError");
    wait_for(&place, &sent, "REVOKED").await;
    let counts = place.broker.counts(&place.queue).await.unwrap();
    assert_eq!((counts.enqueued_total, counts.cancelled_total), (2, 2), "the sign and the one that was sent");
    let early = u128::from_str_radix(&early.replace('-', ""), 16).unwrap();
    assert!(place.broker.get(&JobId::new(early.into(), place.queue.clone())).await.unwrap().is_none());
    wait_until(SOON, "all are let go", || async { place.call::<usize>(&["ZCARD", "old:windlass:open"]).await == 0 })
        .await;
    assert_eq!(figure(&bridge, "revoked_total"), 1);
    bridge.stop().await;
}

/// While it cannot be read where a kind belongs, its jobs wait: they are sent nowhere else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_rows_a_kind_s_queue_that_cannot_be_read_is_not_guessed() {
    let place = Place::new();
    let kind = KindInfo {
        name: "old.work".into(),
        version: 1,
        aliases: Vec::new(),
        queue: "q".into(),
        schema: None,
        max_attempts: 3,
        timeout_ms: 60_000,
        isolated: false,
        about: String::new(),
        seen_at: Timestamp(0),
    };
    place.broker.publish(&[kind]).await.unwrap();
    place.call::<()>(&["RENAME", "wl:{reg}:kinds_seen", "aside"]).await;
    place.call::<()>(&["SET", "wl:{reg}:kinds_seen", "of another type"]).await;
    push(&place, "old", &message(0, &uuid(1))).await;
    let options = Options { poll: std::time::Duration::from_millis(10), ..Options::default() };
    let bridge =
        Bridge::start(&place.shared(), vec![source_to(place.link.clone(), None)], Arc::new(|_| None), &options);
    wait_until(SOON, "it is asked for", || async { figure(&bridge, "errors_total") > 0 }).await;
    assert_eq!(place.call::<usize>(&["HLEN", "old:windlass:held"]).await, 1);
    place.call::<()>(&["RENAME", "aside", "wl:{reg}:kinds_seen"]).await;
    let job = place.claim_one().await;
    place.succeed(&[job], json!(1)).await;
    wait_for(&place, &uuid(1), "SUCCESS").await;
    let default = windlass_jobs::Queue::new("default").unwrap();
    assert_eq!(place.broker.counts(&default).await.unwrap().enqueued_total, 0);
    bridge.stop().await;
}

/// A note that nobody can read is no reason to run its job again, or to call it refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_became_is_kept_when_it_cannot_be_read() {
    let place = Place::new();
    place.call::<i64>(&["HSET", "old:windlass:jobs", "member", "{\"of\":\"another version\"}"]).await;
    place.call::<i64>(&["ZADD", "old:windlass:open", "1", "member"]).await;
    let source = source(place.link.clone());
    let bridge = place.bridge(&source);
    wait_until(SOON, "it was seen twice", || async { figure(&bridge, "errors_total") >= 2 }).await;
    bridge.stop().await;
    assert!(source.refused(10).await.unwrap().is_empty());
    assert_eq!(place.call::<usize>(&["HLEN", "old:windlass:jobs"]).await, 1);
    assert_eq!(place.broker.counts(&place.queue).await.unwrap().enqueued_total, 0);
}

/// That what workers left cannot be looked for is said, and stops nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_index_of_old_workers_stops_no_task() {
    let place = Place::new();
    place.call::<()>(&["SET", "unacked_index", "of another type"]).await;
    let bridge = place.bridge(&source(place.link.clone()));
    for n in 0..2 {
        push(&place, "old", &message(0, &uuid(n))).await;
        let job = place.claim_one().await;
        place.succeed(&[job], json!(1)).await;
        wait_for(&place, &uuid(n), "SUCCESS").await;
    }
    assert_eq!(figure(&bridge, "errors_total"), 1);
    bridge.stop().await;
}

/// What a Celery worker took before it was killed is not forgotten; what one may still run is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_worker_never_acknowledged_is_taken_over() {
    let place = Place::new();
    let now = windlass_jobs::Timestamp::now().0 / 1000;
    // As kombu writes it: routing key, pattern of an exchange that goes by topics, queue.
    for (exchange, key, pattern, queue) in [
        ("media", "video.*", r"^video\..*?[^\.]$", "old"),
        ("media", "old", "^old$", "elsewhere"),
        ("direct", "work", "", "old"),
        ("direct", "old", "", "elsewhere"),
    ] {
        let entry = [key, pattern, queue].join("\u{6}\u{16}");
        place.call::<i64>(&["SADD", &format!("_kombu.binding.{exchange}"), &entry]).await;
    }
    for (tag, age_s, exchange, to) in [
        ("gone", 3_700, "", "old"),
        ("topic", 3_700, "media", "video.hd"),
        ("direct", 3_700, "direct", "work"),
        ("undeclared", 3_700, "gone", "old"),
        ("alive", 3_000, "", "old"),
        ("other", 3_700, "", "elsewhere"),
        ("other topic", 3_700, "media", "audio.hd"),
        ("other direct", 3_700, "direct", "old"),
    ] {
        let message: Value = serde_json::from_str(&message(0, &new_uuid())).unwrap();
        place.call::<i64>(&["HSET", "unacked", tag, &json!([message, exchange, to]).to_string()]).await;
        place.call::<i64>(&["ZADD", "unacked_index", &(now - age_s).to_string(), tag]).await;
    }
    let bridge = place.bridge(&source(place.link.clone()));
    for _ in 0..4 {
        place.claim_one().await;
    }
    bridge.stop().await;
    let mut left: Vec<String> = place.call(&["HKEYS", "unacked"]).await;
    left.sort();
    assert_eq!(left, ["alive", "other", "other direct", "other topic"]);
    assert_eq!(place.call::<usize>(&["ZCARD", "unacked_index"]).await, 4);
    assert_eq!(place.broker.counts(&place.queue).await.unwrap().enqueued_total, 4);
}

/// The queue's Redis goes away and comes back, then the source's: every task is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f_rows_an_outage_on_either_side_loses_nothing() {
    const JOBS: usize = 150;
    let place = Place::on(RedisServer::builder().append_only("always").start());
    let old = RedisServer::builder().append_only("always").start();
    let there = Place::on(old);
    for _ in 0..JOBS {
        push(&there, "old", &message(0, &new_uuid())).await;
    }
    let bridge = place.bridge(&source(there.link.clone()));
    place.redis.kill();
    for _ in 0..JOBS {
        push(&there, "old", &message(0, &new_uuid())).await;
    }
    place.redis.restart();
    there.redis.restart();
    assert_eq!(place.drain(&there, "old", 2 * JOBS).await.len(), 2 * JOBS);
    let counts = place.broker.counts(&place.queue).await.unwrap();
    assert_eq!(counts.enqueued_total, 300);
    let told: Vec<String> = there.call(&["KEYS", "celery-task-meta-*"]).await;
    assert_eq!(told.len(), 2 * JOBS);
    bridge.stop().await;
}

/// kill -9 at every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_is_killed_anywhere_loses_and_doubles_no_message() {
    const JOBS: usize = 600;
    let place = Place::new();
    let mut last = String::new();
    for n in 0..JOBS {
        last = new_uuid();
        let list = if n % 3 == 0 { "old\u{6}\u{16}6" } else { "old" };
        push(&place, list, &message(0, &last)).await;
    }
    kill_and_go_on(&place, source, "old", JOBS).await;
    assert_eq!(meta(&place, &last).await["status"], "SUCCESS");
}
