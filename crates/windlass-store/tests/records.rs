//! Records: one suite on all engines, and a snapshot that brings back what Redis lost (F18).

#![cfg(all(feature = "sqlite", feature = "postgres"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use windlass_jobs::{Clock as _, SetClock, SystemClock, Timestamp, new_ulid};
use windlass_redis::{Link, Options, cmd};
use windlass_store::records::{
    Batch, Expect, Fence, MAX_WRITES, PostgresRecords, Records, RedisRecords, Snapshot, SqliteRecords, Write, Written,
};
use windlass_testkit::{RedisServer, shared_redis};

const SPACE: &str = "test";
const TTL: Duration = Duration::from_millis(300);

fn redis_of(server: &RedisServer) -> RedisRecords {
    let link = Link::new(Options::from_url(&server.url()).unwrap()).unwrap();
    RedisRecords::new(link, &format!("t{}", new_ulid().to_string().to_ascii_lowercase()))
}

fn redis() -> RedisRecords {
    redis_of(shared_redis())
}

fn sqlite() -> SqliteRecords {
    SqliteRecords::in_memory(Arc::new(SystemClock))
}

fn put(name: &str, json: &str, expect: Expect) -> Write {
    Write::Put { set: "docs", name: name.into(), json: json.into(), expect }
}

fn append(log: &str, json: &str, keep: u32) -> Write {
    Write::Append { log: log.into(), json: json.into(), keep }
}

fn batch(writes: Vec<Write>) -> Batch {
    Batch { notify: true, writes, ..Batch::default() }
}

async fn names(records: &dyn Records) -> Vec<String> {
    records.all(SPACE, "docs").await.unwrap().into_iter().map(|doc| doc.name).collect()
}

async fn documents_are_written_all_or_nothing(records: &dyn Records) {
    let meta = records.meta(SPACE).await.unwrap();
    assert_eq!((meta.generation, meta.version), (None, 0), "nothing was ever written");
    assert!(meta.now > Timestamp(1_600_000_000_000));

    let one = batch(vec![put("b", "1", Expect::Absent), put("a", "2", Expect::Any)]);
    assert_eq!(records.write(SPACE, &one).await.unwrap(), Written::Done(1));
    let generation = records.meta(SPACE).await.unwrap().generation;
    assert!(generation.is_some());
    assert_eq!(names(records).await, ["a", "b"]);

    // The second write does not fit: nothing of the batch is there.
    let two = batch(vec![put("c", "3", Expect::Any), put("a", "3", Expect::Absent), append("l", "x", 5)]);
    assert_eq!(records.write(SPACE, &two).await.unwrap(), Written::Conflict(1));
    assert_eq!(names(records).await, ["a", "b"]);
    assert!(records.log(SPACE, "l", 0, 5).await.unwrap().is_empty());
    assert_eq!(records.meta(SPACE).await.unwrap().version, 1);

    let a = records.get(SPACE, "docs", "a").await.unwrap().unwrap();
    assert_eq!((a.rev, a.json.as_str()), (1, "2"));
    assert_eq!(records.get(SPACE, "docs", "none").await.unwrap(), None);
    let change = |rev| batch(vec![put("a", "4", Expect::Rev(rev))]);
    assert_eq!(records.write(SPACE, &change(1)).await.unwrap(), Written::Done(2));
    assert_eq!(records.write(SPACE, &change(1)).await.unwrap(), Written::Conflict(0), "changed meanwhile");
    let quiet = Batch { notify: false, ..batch(vec![put("a", "5", Expect::Any)]) };
    assert_eq!(records.write(SPACE, &quiet).await.unwrap(), Written::Done(2));
    let remove = |expect| batch(vec![Write::Remove { set: "docs", name: "b".into(), expect }]);
    assert_eq!(records.write(SPACE, &remove(Expect::Rev(9))).await.unwrap(), Written::Conflict(0));
    assert_eq!(records.write(SPACE, &remove(Expect::Any)).await.unwrap(), Written::Done(3));
    assert_eq!(names(records).await, ["a"]);
    assert_eq!(records.meta(SPACE).await.unwrap().generation, generation);
    assert!(records.all("other", "docs").await.unwrap().is_empty());
}

async fn logs_keep_their_newest(records: &dyn Records) {
    for n in 0..7 {
        let entry = batch(vec![append("l", &n.to_string(), 5), append("m", "x", 1)]);
        records.write(SPACE, &entry).await.unwrap();
    }
    assert_eq!(records.log(SPACE, "l", 0, 10).await.unwrap(), ["6", "5", "4", "3", "2"]);
    assert_eq!(records.log(SPACE, "l", 1, 2).await.unwrap(), ["5", "4"]);
    assert!(records.log(SPACE, "l", 0, 0).await.unwrap().is_empty());
    records.write(SPACE, &batch(vec![Write::DropLog { log: "l".into() }])).await.unwrap();
    assert!(records.log(SPACE, "l", 0, 10).await.unwrap().is_empty());
    assert_eq!(records.log(SPACE, "m", 0, 10).await.unwrap(), ["x"]);
}

/// F36: a leader whose lease went to another writes nothing.
async fn one_leads_and_an_old_one_is_fenced(records: &dyn Records) {
    let first = records.lead(SPACE, "one", TTL).await.unwrap();
    let old = first.fence.unwrap();
    assert_eq!((old.epoch, first.holder.as_str()), (1, "one"));
    let other = records.lead(SPACE, "two", TTL).await.unwrap();
    assert_eq!((other.fence, other.holder.as_str()), (None, "one"));
    let again = records.lead(SPACE, "one", TTL).await.unwrap();
    assert_eq!(again.fence.as_ref(), Some(&old), "a renewal is the same lease");

    let as_leader = |fence: &Fence| Batch { fence: Some(fence.clone()), ..batch(vec![put("x", "1", Expect::Any)]) };
    assert!(matches!(records.write(SPACE, &as_leader(&old)).await.unwrap(), Written::Done(_)));
    let begun = std::time::Instant::now();
    let new = loop {
        assert!(begun.elapsed() < Duration::from_secs(10), "the lease ends");
        if let Some(fence) = records.lead(SPACE, "two", TTL).await.unwrap().fence {
            break fence;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(new.epoch, 2);
    assert_eq!(records.write(SPACE, &as_leader(&old)).await.unwrap(), Written::Fenced);
    assert!(matches!(records.write(SPACE, &as_leader(&new)).await.unwrap(), Written::Done(_)));
    records.resign(SPACE, &old).await.unwrap();
    assert_eq!(records.lead(SPACE, "one", Duration::ZERO).await.unwrap().holder, "two", "not his to give back");
    records.resign(SPACE, &new).await.unwrap();
    assert_eq!(records.lead(SPACE, "one", TTL).await.unwrap().fence.unwrap().epoch, 3, "free at once");
}

/// A copy's entries go behind what is there, once: the generation tells.
async fn a_log_is_extended_once(records: &dyn Records) {
    records.write(SPACE, &batch(vec![append("l", "\"new\"", 9)])).await.unwrap();
    let entries = vec!["\"b\"".to_owned(), "\"a\"".to_owned()];
    let extend = vec![Write::Extend { log: "l".into(), entries }];
    let restore = Batch { generation: Some("g".into()), ..batch(extend) };
    assert!(matches!(records.write(SPACE, &restore).await.unwrap(), Written::Done(_)));
    assert_eq!(records.write(SPACE, &restore).await.unwrap(), Written::Conflict(0));
    assert_eq!(records.log(SPACE, "l", 0, 9).await.unwrap(), ["\"new\"", "\"b\"", "\"a\""]);
    records.write(SPACE, &batch(vec![append("l", "\"newer\"", 3)])).await.unwrap();
    assert_eq!(records.log(SPACE, "l", 0, 9).await.unwrap(), ["\"newer\"", "\"new\"", "\"b\""]);
    assert_eq!(records.meta(SPACE).await.unwrap().generation.as_deref(), Some("g"));
}

async fn odd_names_and_large_batches_are_refused(records: &dyn Records) {
    for name in ["", "a b", "a:b", "ä", &"x".repeat(129)] {
        assert!(records.write(SPACE, &batch(vec![put(name, "1", Expect::Any)])).await.is_err(), "{name:?}");
    }
    let many = batch(vec![put("a", "1", Expect::Any); MAX_WRITES + 1]);
    assert!(records.write(SPACE, &many).await.is_err());
    assert!(names(records).await.is_empty());
}

macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod on_redis { $(#[tokio::test] async fn $name() { super::$name(&super::redis()).await; })* }
        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                let server = windlass_testkit::shared_postgres();
                super::$name(&super::PostgresRecords::new(&server.database()).unwrap()).await;
            })*
        }
        mod on_sqlite { $(#[tokio::test] async fn $name() { super::$name(&super::sqlite()).await; })* }
    };
}

on_all!(
    documents_are_written_all_or_nothing,
    logs_keep_their_newest,
    one_leads_and_an_old_one_is_fenced,
    a_log_is_extended_once,
    odd_names_and_large_batches_are_refused,
);

/// F32: a clock put back by an hour does not lengthen the lease of a dead leader.
#[tokio::test]
async fn f32_a_lease_is_cut_when_the_clock_is_put_back() {
    let clock = Arc::new(SetClock::new(Timestamp(1_800_000_000_000)));
    let records = SqliteRecords::in_memory(Arc::clone(&clock) as Arc<_>);
    // As a lease of the right length looks after the clock was put back by an hour.
    records.lead(SPACE, "dead", TTL + Duration::from_secs(3600)).await.unwrap();
    let cut = records.lead(SPACE, "next", TTL).await.unwrap();
    assert_eq!((cut.fence, cut.until), (None, clock.now().plus(TTL)));
    clock.advance(TTL + Duration::from_millis(1));
    assert!(records.lead(SPACE, "next", TTL).await.unwrap().fence.is_some());
}

/// A file is shared by processes, and nobody else may read it.
#[tokio::test]
async fn a_file_is_shared_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("below").join("records.db");
    let (one, two) = (SqliteRecords::new(&path), SqliteRecords::new(&path));
    let (a, b) = tokio::join!(one.lead(SPACE, "one", TTL), two.lead(SPACE, "two", TTL));
    assert_eq!(usize::from(a.unwrap().fence.is_some()) + usize::from(b.unwrap().fence.is_some()), 1);
    one.write(SPACE, &batch(vec![put("a", "1", Expect::Any)])).await.unwrap();
    assert_eq!(names(&two).await, ["a"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// F18: after FLUSHALL everything is there again, with what was written meanwhile.
#[tokio::test]
async fn f18_a_snapshot_seeds_an_empty_redis() {
    let server = RedisServer::start();
    let records = redis_of(&server);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.json");
    let open = || Snapshot::open(&path, SPACE, &["docs"]);
    let meta = async || records.meta(SPACE).await.unwrap();

    let many: Vec<Write> = (0..MAX_WRITES).map(|n| put(&format!("n{n}"), "1", Expect::Any)).collect();
    records.write(SPACE, &batch(many)).await.unwrap();
    records.write(SPACE, &batch(vec![put("gone", "1", Expect::Any)])).await.unwrap();
    let snapshot = open();
    assert!(snapshot.keep(&records, &meta().await, false).await.unwrap());
    assert!(!snapshot.keep(&records, &meta().await, false).await.unwrap(), "nothing changed");
    let remove = Write::Remove { set: "docs", name: "gone".into(), expect: Expect::Any };
    records.write(SPACE, &batch(vec![remove])).await.unwrap();
    assert!(snapshot.keep(&records, &meta().await, false).await.unwrap());
    let old = meta().await.generation;

    let link = Link::new(Options::from_url(&server.url()).unwrap()).unwrap();
    link.call(&cmd("FLUSHALL")).await.unwrap();
    records.write(SPACE, &batch(vec![put("n0", "2", Expect::Any), put("new", "1", Expect::Any)])).await.unwrap();
    // A process that starts now has only the file.
    let snapshot = open();
    assert!(!snapshot.keep(&records, &meta().await, true).await.unwrap(), "what was lost is not forgotten");
    assert!(snapshot.restore(&records, &meta().await).await.unwrap());
    assert!(!snapshot.restore(&records, &meta().await).await.unwrap(), "once");
    assert_eq!(meta().await.generation, old);
    assert_eq!(names(&records).await.len(), MAX_WRITES + 1, "all but the one that was removed");
    assert_eq!(records.get(SPACE, "docs", "n0").await.unwrap().unwrap().json, "2", "newer than the snapshot");

    std::fs::write(&path, "{ broken").unwrap();
    let snapshot = open();
    assert!(!snapshot.restore(&records, &meta().await).await.unwrap());
    assert!(snapshot.keep(&records, &meta().await, false).await.unwrap(), "and made anew");
}
