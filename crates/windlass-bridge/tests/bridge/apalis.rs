//! Stock apalis-redis 1.0 on one side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apalis_core::backend::{TaskSink as _, WaitForCompletion};
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::metadata::MetadataStore;
use apalis_core::task::status::Status;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_core::worker::context::WorkerContext;
use apalis_redis::{Config, ConnectionManager, RedisStorage};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use windlass_bridge::{AnySource, ApalisRoute, Forward};
use windlass_broker::Inspect as _;
use windlass_jobs::command::Settle;
use windlass_jobs::{JobId, Reason, State, Timestamp, new_ulid};
use windlass_redis::Link;
use windlass_testkit::wait_until;

use crate::{Place, SOON, kill_and_go_on};

/// A type name of an application, as it is used when nobody names the queue.
const NAMESPACE: &str = "old_app::Email";

type Storage = RedisStorage<Value, ConnectionManager>;

async fn storage(place: &Place) -> Storage {
    let connection = apalis_redis::connect(place.redis.url()).await.unwrap();
    RedisStorage::new(connection).with_config(Config::default().queue(NAMESPACE))
}

fn source(link: Link) -> AnySource {
    let queue = Some(windlass_jobs::Queue::new("q").unwrap());
    AnySource::apalis(link, ApalisRoute { namespace: NAMESPACE.into(), kind: "mail.welcome".into(), queue })
}

/// What the storage's own API says about a job that has ended.
async fn answered(storage: &mut Storage, id: &TaskId) -> (Status, usize, Result<Value, String>) {
    let mut results = WaitForCompletion::<Value>::wait_for(storage, [id.clone()]);
    let result = tokio::time::timeout(SOON, results.next()).await.unwrap().unwrap().unwrap();
    (result.status().clone(), result.attempt, result.take())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_stock_producer_are_taken_and_their_results_read_by_its_own_api() {
    let place = Place::new();
    let mut storage = storage(&place).await;
    let (own, later) = (new_ulid(), new_ulid());
    storage.push(json!({ "plain": "push" })).await.unwrap();
    let task = TaskBuilder::new(json!({ "to": "a", "n": 7 })).task_id(TaskId::from_ulid(own)).max_attempts(4);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let metadata = MetadataStore::from_map([("traceparent".to_owned(), trace.to_owned())].into());
    let task = task.with_metadata(metadata).build();
    storage.push_task(task).await.unwrap();
    let in_an_hour = Timestamp::now().0 / 1000 + 3600;
    let task = TaskBuilder::new(json!({ "to": "b" })).task_id(TaskId::from_ulid(later));
    storage.push_task(task.run_at_timestamp(u64::try_from(in_an_hour).unwrap()).build()).await.unwrap();
    storage.push_task(TaskBuilder::new(json!(3)).task_id(TaskId::from_string("order-17")).build()).await.unwrap();

    let bridge = place.bridge(&source(place.link.clone()));
    let get = async |ulid| place.broker.get(&JobId::new(ulid, place.queue.clone())).await;
    wait_until(SOON, "all are taken", || async {
        place.broker.counts(&place.queue).await.unwrap().enqueued_total == 4
    })
    .await;
    let scheduled = get(later).await.unwrap().unwrap();
    assert_eq!((scheduled.state, scheduled.run_at), (State::Scheduled, Some(Timestamp(in_an_hour * 1000))));
    let record = get(own).await.unwrap().unwrap();
    assert_eq!(
        (record.kind.as_str(), record.args.as_str(), record.max_attempts),
        ("mail.welcome", r#"{"n":7,"to":"a"}"#, 4)
    );
    assert_eq!(record.options.labels["apalis-id"], own.to_string());
    assert_eq!(record.options.trace.unwrap().to_string(), trace);

    for job in place.claim(10).await {
        let settle = match job.args.as_str() {
            "3" => Settle::Failure {
                reason: Reason::Error,
                failures: 2,
                error: r#"{"code":"smtp","message":"gone"}"#.into(),
            },
            _ => Settle::Success { result: Some(json!({ "value": { "sent": true } }).to_string()), skipped: false },
        };
        place.finish(&[job], settle).await;
    }
    let done = (Status::Done, 1, Ok(json!({ "sent": true })));
    assert_eq!(answered(&mut storage, &TaskId::from_ulid(own)).await, done);
    let failed = (Status::Failed, 2, Err("smtp: gone".to_owned()));
    assert_eq!(answered(&mut storage, &TaskId::from_string("order-17")).await, failed);
    let in_set =
        async |set: &str, id: &str| place.call::<bool>(&["SISMEMBER", &format!("{NAMESPACE}:{set}"), id]).await;
    assert!(in_set("done", &own.to_string()).await && in_set("dead", "order-17").await);
    assert!(in_set("inflight:windlass", &later.to_string()).await, "what has not ended is in flight");
    bridge.stop().await;
}

/// A7, and what else can be wrong with one job: it is put aside with its reason, its neighbours run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f48_what_is_no_job_is_put_aside_and_the_rest_goes_on() {
    let place = Place::new();
    let mut storage = storage(&place).await;
    let key = |name: &str| format!("{NAMESPACE}:{name}");
    for (id, data) in [("not-json", Some("\u{1}")), ("no-data", None), ("poison", Some("{}"))] {
        if let Some(data) = data {
            place.call::<i64>(&["HSET", &key("data"), id, data]).await;
        }
        place.call::<i64>(&["RPUSH", &key("active"), id]).await;
    }
    let large = format!("\"{}\"", "x".repeat(windlass_jobs::MAX_ARGS_BYTES));
    place.call::<i64>(&["HSET", &key("data"), "large", &large]).await;
    place.call::<i64>(&["RPUSH", &key("active"), "large"]).await;
    // Metadata of the wrong type stops every fetch of the stock worker.
    place.call::<i64>(&["LPUSH", &key("meta:poison"), "x"]).await;
    storage.push(json!({ "good": 1 })).await.unwrap();

    let source = source(place.link.clone());
    let bridge = place.bridge(&source);
    wait_until(SOON, "three are refused", || async { source.refused(10).await.unwrap().len() == 3 }).await;
    let mut notes = source.refused(10).await.unwrap();
    notes.sort_by(|a, b| a.id.cmp(&b.id));
    let found: Vec<(&str, &str)> = notes.iter().map(|note| (note.id.as_str(), &note.reason[..8])).collect();
    assert_eq!(found, [("large", "/args: 1"), ("no-data", "the job "), ("not-json", "its data")]);
    for id in ["not-json", "no-data", "large"] {
        let (status, _, result) = answered(&mut storage, &TaskId::from_string(id)).await;
        assert!(status == Status::Killed && result.unwrap_err().starts_with("refused: "), "{id}");
        assert!(place.call::<bool>(&["SISMEMBER", &key("dead"), id]).await);
    }
    assert_eq!(place.drain(&place, NAMESPACE, 2).await.len(), 2, "the good one, and the one with odd metadata");
    assert!(bridge.counters().metrics().contains("refused_total{source=\"apalis old_app::Email\"} 3"));
    bridge.stop().await;
}

/// A1: the stock fetch ends for good at 8,000 due jobs. Two bridges share these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_twenty_thousand_due_jobs_are_taken_in_short_slices() {
    const JOBS: usize = 20_000;
    let place = Place::new();
    let mut connection = apalis_redis::connect(place.redis.url()).await.unwrap();
    let config = Config::default().queue(NAMESPACE);
    let tasks: Vec<Task<Vec<u8>>> = (0..JOBS)
        .map(|n| TaskBuilder::new(n.to_string().into_bytes()).task_id(TaskId::from_ulid(new_ulid())).build())
        .collect();
    for tasks in tasks.chunks(500) {
        apalis_redis::queries::push_tasks(&mut connection, &config, tasks).await.unwrap();
    }
    place.call::<()>(&["CONFIG", "SET", "slowlog-log-slower-than", "30000"]).await;
    place.call::<()>(&["SLOWLOG", "RESET"]).await;
    let bridges = [place.bridge(&source(place.link.clone())), place.bridge(&source(place.link.clone()))];
    let counts = async || place.broker.counts(&place.queue).await.unwrap();
    let begun = std::time::Instant::now();
    wait_until(SOON * 3, "all are taken", || async { counts().await.enqueued_total == 20_000 }).await;
    println!("{JOBS} due jobs taken in {:?}", begun.elapsed());
    for bridge in bridges {
        bridge.stop().await;
    }
    assert_eq!(place.call::<usize>(&["SLOWLOG", "LEN"]).await, 0, "no call took 30 ms");
    assert_eq!(counts().await.pending, 20_000);
    assert_eq!(place.call::<usize>(&["HLEN", &format!("{NAMESPACE}:windlass:held")]).await, 0);
}

/// A namespace with a hash tag lies in one slot of a cluster, and the bridge's keys with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tagged_namespace_of_a_cluster_is_taken() {
    let place = Place::new();
    let options = windlass_redis::Options::from_url(&windlass_testkit::shared_cluster().url()).unwrap();
    let link = Link::new(options).unwrap();
    let namespace = format!("{{{}}}", new_ulid());
    let forward = Forward::new(link.clone(), &namespace);
    for n in 0..3 {
        forward.push(new_ulid(), serde_json::value::to_raw_value(&n).unwrap()).await.unwrap();
    }
    let queue = Some(place.queue.clone());
    let route = ApalisRoute { namespace: namespace.clone(), kind: "a.b".into(), queue };
    let bridge = place.bridge(&AnySource::apalis(link.clone(), route));
    for _ in 0..3 {
        let job = place.claim_one().await;
        place.succeed(&[job], json!(1)).await;
    }
    let mut done = windlass_redis::cmd("SCARD");
    done.arg(format!("{namespace}:done"));
    wait_until(SOON, "all are told", || async { link.call(&done).await.unwrap() == windlass_redis::Value::Int(3) })
        .await;
    bridge.stop().await;
}

/// kill -9 at every step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_is_killed_anywhere_loses_and_doubles_nothing() {
    const JOBS: usize = 600;
    let place = Place::new();
    let mut storage = storage(&place).await;
    for n in 0..JOBS {
        storage.push(json!(n)).await.unwrap();
    }
    kill_and_go_on(&place, source, NAMESPACE, JOBS).await;
    assert_eq!(place.call::<usize>(&["SCARD", &format!("{NAMESPACE}:done")]).await, JOBS);
    assert_eq!(place.call::<usize>(&["SCARD", &format!("{NAMESPACE}:inflight:windlass")]).await, 0);
}

/// The other way: a stock worker takes what is forwarded, once however often it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_worker_takes_what_is_forwarded() {
    let place = Place::new();
    let forward = Forward::new(place.link.clone(), NAMESPACE);
    let ulid = new_ulid();
    let args = serde_json::value::to_raw_value(&json!({ "to": "a" })).unwrap();
    for _ in 0..3 {
        forward.push(ulid, args.clone()).await.unwrap();
    }
    let ran = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ran);
    let handler = move |args: Value, worker: WorkerContext| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            worker.stop().unwrap();
            args["to"].as_str().unwrap().to_owned()
        }
    };
    let mut storage = storage(&place).await;
    let config = Config::default().queue(NAMESPACE).heartbeat_interval(Duration::from_millis(200));
    let worker = WorkerBuilder::new("stock").backend(storage.clone().with_config(config)).build(handler);
    tokio::time::timeout(SOON, worker.run()).await.unwrap().unwrap();
    assert_eq!(answered(&mut storage, &TaskId::from_ulid(ulid)).await.2, Ok(json!("a")));
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}
