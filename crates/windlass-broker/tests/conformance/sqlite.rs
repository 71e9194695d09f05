//! SQLite, as a file and in memory, and what is its own: other processes, crashes, damage.

mod formats;
mod others;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use windlass_broker::sqlite::{SqliteBroker, SqliteOptions, Synchronous};
use windlass_broker::{Enqueue, Error, Inspect, Leases, SharedBroker, Wake};
use windlass_jobs::command::{Ack, Claim, Claimed, Exchange, Finish, KEEP_TERMINAL, Settle};
use windlass_jobs::{JobId, Lease, NewJob, Queue, Reason, SetClock, State, Timestamp};
use windlass_testkit::wait_until;

mod file {
    use super::*;

    async fn in_a_file(keep: usize) -> (SharedBroker, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(&dir.path().join("queue.db"), keep).await;
        (Arc::new(broker), dir)
    }

    async fn with_clock(keep: usize, clock: Arc<SetClock>) -> (SharedBroker, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let broker = open_with(&dir.path().join("queue.db"), keep, clock).await;
        (Arc::new(broker), dir)
    }

    windlass_testkit::conformance!(in_a_file, random = 2_000);
    windlass_testkit::random_with_clock!(with_clock, 2_500);
}

mod memory {
    use super::*;

    async fn in_memory(keep: usize) -> (SharedBroker, ()) {
        (Arc::new(open(Path::new(":memory:"), keep).await), ())
    }

    async fn with_clock(keep: usize, clock: Arc<SetClock>) -> (SharedBroker, ()) {
        (Arc::new(open_with(Path::new(":memory:"), keep, clock).await), ())
    }

    windlass_testkit::conformance!(in_memory, random = 1_000);
    windlass_testkit::random_with_clock!(with_clock, 9_000);
}

async fn open(path: &Path, keep: usize) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions { keep, ..SqliteOptions::default() }).await.unwrap()
}

async fn open_with(path: &Path, keep: usize, clock: Arc<SetClock>) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions { keep, clock, ..SqliteOptions::default() }).await.unwrap()
}

/// A file with one queue.
struct Fixture {
    dir: TempDir,
    queue: Queue,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), queue: Queue::new("q").unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("new/dirs/queue.db")
    }

    async fn open(&self) -> SqliteBroker {
        open(&self.path(), KEEP_TERMINAL).await
    }

    async fn enqueue(&self, broker: &SqliteBroker, n: usize) -> Vec<NewJob> {
        let jobs: Vec<NewJob> = (0..n).map(|i| NewJob::new("noop", &i).unwrap()).collect();
        broker.enqueue(&self.queue, &jobs).await.unwrap();
        jobs
    }

    async fn claim(&self, broker: &SqliteBroker, max: usize) -> Vec<Claimed> {
        let claim = Some(Claim {
            worker: "w".into(),
            max,
            lease: Duration::from_secs(60),
            grace: false,
            sent_at: None,
            quotas: None,
        });
        broker.exchange(&self.queue, &Exchange { finishes: vec![], claim }).await.unwrap().claimed
    }

    async fn finish(&self, broker: &SqliteBroker, lease: Lease) -> Ack {
        let settle = Settle::Success { result: None, skipped: false };
        let exchange = Exchange { finishes: vec![Finish { lease, settle }], claim: None };
        broker.exchange(&self.queue, &exchange).await.unwrap().acks[0]
    }

    /// Changes the file behind the engine's back.
    async fn tamper(&self, sql: &'static str) {
        use sqlx::ConnectOptions as _;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        let mut conn = options.connect().await.unwrap();
        sqlx::query(sql).execute(&mut conn).await.unwrap();
    }
}

#[tokio::test]
async fn two_handles_share_one_queue() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.open().await, fixture.open().await);
    let jobs = fixture.enqueue(&a, 4).await;
    let mut taken = fixture.claim(&b, 2).await;
    taken.extend(fixture.claim(&a, 2).await);
    assert!(taken.iter().map(|c| c.lease.ulid).eq(jobs.iter().map(|j| j.ulid)));
    // Each may finish what the other claimed.
    for (broker, claimed) in [&a, &b].into_iter().cycle().zip(&taken) {
        assert_eq!(fixture.finish(broker, claimed.lease).await, Ack::Taken);
    }
    assert_eq!(a.counts(&fixture.queue).await.unwrap(), b.counts(&fixture.queue).await.unwrap());
}

#[tokio::test]
async fn an_idle_worker_is_woken_by_another_handle() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.open().await, fixture.open().await);
    let mut wakes = b.wakes("w").await;
    assert!(fixture.claim(&b, 1).await.is_empty());
    for _ in 0..2 {
        fixture.enqueue(&a, 1).await;
        let wake = tokio::time::timeout(Duration::from_secs(2), wakes.recv()).await.expect("a wake-up within 2 s");
        assert_eq!(wake, Some(Wake::All));
        assert_eq!(fixture.claim(&b, 2).await.len(), 1);
    }
}

/// Neither an idle process's own claims nor those of another may wake anybody, or two idle
/// processes would keep each other awake.
#[tokio::test]
async fn idle_processes_let_each_other_sleep() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.open().await, fixture.open().await);
    fixture.enqueue(&a, 1).await;
    let held = fixture.claim(&a, 1).await;
    let mut wakes = b.wakes("w").await;
    assert!(fixture.claim(&b, 1).await.is_empty());
    for _ in 0..5 {
        assert!(fixture.claim(&a, 1).await.is_empty());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(wakes.try_recv().is_err());
    fixture.finish(&a, held[0].lease).await;
    assert!(tokio::time::timeout(Duration::from_secs(2), wakes.recv()).await.is_ok());
}

/// Several processes find no file and make it at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fresh_file_is_opened_by_many_at_once() {
    for _ in 0..5 {
        let fixture = Arc::new(Fixture::new());
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let fixture = Arc::clone(&fixture);
                tokio::spawn(async move {
                    let broker = fixture.open().await;
                    fixture.enqueue(&broker, 10).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let counts = fixture.open().await.counts(&fixture.queue).await.unwrap();
        assert_eq!((counts.pending, counts.enqueued_total), (80, 80));
    }
}

/// A process that ends without a word loses nothing it was told was accepted: the file as it
/// lies there while everything is still open is whole.
#[tokio::test]
async fn a_crash_keeps_everything_accepted() {
    let (before, after) = (Fixture::new(), Fixture::new());
    let broker = before.open().await;
    let jobs = before.enqueue(&broker, 300).await;
    let claimed = before.claim(&broker, 3).await;
    before.finish(&broker, claimed[0].lease).await;
    std::fs::create_dir_all(after.path().parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        let name = |fixture: &Fixture| format!("{}{suffix}", fixture.path().display());
        std::fs::copy(name(&before), name(&after)).unwrap();
    }
    let revived = after.open().await;
    assert_eq!(revived.counts(&after.queue).await.unwrap(), broker.counts(&before.queue).await.unwrap());
    assert_eq!(after.finish(&revived, claimed[1].lease).await, Ack::Taken);
    assert_eq!(after.claim(&revived, 1).await[0].lease.ulid, jobs[3].ulid);
}

/// Names the file for a child process, see [`killed_processes_lose_nothing`].
const CHILD_FILE: &str = "WINDLASS_TEST_SQLITE_FILE";

/// Three other processes drain one file and are killed on the way; this one ends their work.
#[tokio::test]
async fn killed_processes_lose_nothing() {
    const ALL: usize = 3_000;
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    fixture.enqueue(&broker, ALL).await;
    let child = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::as_a_child_process", "--nocapture"])
            .env(CHILD_FILE, fixture.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut children = [child(), child(), child()];
    for (i, child) in children.iter_mut().enumerate() {
        let enough = (i as u64 + 1) * 500;
        wait_until(Duration::from_secs(20), "the children drain", || async {
            broker.counts(&fixture.queue).await.unwrap().success_total >= enough
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    wait_until(Duration::from_secs(20), "what the children held is claimed and done", || async {
        for job in fixture.claim(&broker, 128).await {
            assert_eq!(fixture.finish(&broker, job.lease).await, Ack::Taken);
        }
        broker.counts(&fixture.queue).await.unwrap().unfinished() == 0
    })
    .await;
    let counts = broker.counts(&fixture.queue).await.unwrap();
    assert_eq!((counts.success_total, counts.dead), (ALL as u64, 0));
}

/// Does nothing unless it is started by [`killed_processes_lose_nothing`]: drains the file
/// until it is killed.
#[tokio::test]
async fn as_a_child_process() {
    let Some(path) = std::env::var_os(CHILD_FILE) else { return };
    let broker = open(Path::new(&path), KEEP_TERMINAL).await;
    let queue = Queue::new("q").unwrap();
    let mut finishes = Vec::new();
    loop {
        let claim = Some(Claim {
            worker: "child".into(),
            max: 4,
            lease: Duration::from_millis(500),
            grace: false,
            sent_at: None,
            quotas: None,
        });
        let reply = broker.exchange(&queue, &Exchange { finishes, claim }).await.unwrap();
        let settle = Settle::Success { result: None, skipped: false };
        finishes = reply.claimed.iter().map(|c| Finish { lease: c.lease, settle: settle.clone() }).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A call that is dropped half way leaves no transaction open behind it.
#[tokio::test]
async fn a_call_given_up_half_way_blocks_nobody() {
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    for patience_us in (0..3_000).step_by(100) {
        let job = NewJob::new("noop", &patience_us).unwrap();
        let jobs = [job];
        let call = broker.enqueue(&fixture.queue, &jobs);
        let _ = tokio::time::timeout(Duration::from_micros(patience_us), call).await;
    }
    // The last one may still be committing: who writes next waits for it.
    let other = fixture.open().await;
    fixture.enqueue(&other, 1).await;
    let counts = broker.counts(&fixture.queue).await.unwrap();
    assert_eq!(counts.pending, counts.enqueued_total);
    fixture.enqueue(&other, 1).await;
    fixture.enqueue(&broker, 1).await;
    assert_eq!(other.counts(&fixture.queue).await.unwrap().pending, counts.pending + 2);
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open().await);
    let refused = |path: std::path::PathBuf| async move {
        let error = SqliteBroker::open(&path, SqliteOptions::default()).await.err().expect("it is refused");
        assert!(!error.is_retryable(), "{error:?}");
    };
    let text = fixture.dir.path().join("text.db");
    std::fs::write(&text, "this is not a database, and long enough to have a header".repeat(20)).unwrap();
    refused(text).await;
    fixture.tamper("DROP TABLE meta").await;
    refused(fixture.path()).await;
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    fixture.enqueue(&broker, 1).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for entry in std::fs::read_dir(fixture.path().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(fixture.path().parent().unwrap()), 0o700);
}

/// A damaged row is handed out with kind `""` and can be buried; its neighbours go on.
#[tokio::test]
async fn a_damaged_job_stops_nobody() {
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    let jobs = fixture.enqueue(&broker, 5).await;
    fixture.tamper("UPDATE job SET kind = CAST(x'ff' AS TEXT) WHERE args = '0'").await;
    fixture.tamper("UPDATE job SET args = NULL WHERE args = '2'").await;
    fixture.tamper("UPDATE job SET state = 'odd', options = 'timeout=x', labels = '{' WHERE args = '3'").await;
    for job in &jobs {
        broker.get(&JobId::new(job.ulid, fixture.queue.clone())).await.unwrap().expect("it can be looked at");
    }
    let claimed = fixture.claim(&broker, 10).await;
    assert_eq!(claimed.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["", "noop", "", "noop", "noop"]);
    assert_eq!(claimed[3].options, "timeout=x", "the worker, not the engine, refuses it");
    let error = "{}".to_owned();
    let settle = Settle::Failure { reason: Reason::Decode, failures: 1, error };
    let finishes = vec![Finish { lease: claimed[0].lease, settle }];
    let reply = broker.exchange(&fixture.queue, &Exchange { finishes, claim: None }).await.unwrap();
    assert_eq!(reply.acks, [Ack::Taken]);
    let buried = broker.get(&JobId::new(jobs[0].ulid, fixture.queue.clone())).await.unwrap().unwrap();
    assert_eq!((buried.state, buried.kind.as_str()), (State::Failure, ""));
    assert_eq!(fixture.finish(&broker, claimed[1].lease).await, Ack::Taken);
}

/// The file's lock is another's for longer than the patience: the call says so and the next
/// one works.
#[tokio::test]
async fn a_lock_held_by_another_is_unavailable() {
    use sqlx::{ConnectOptions as _, Connection as _};
    let fixture = Fixture::new();
    let options = SqliteOptions { busy_timeout: Duration::from_millis(50), ..SqliteOptions::default() };
    let broker = SqliteBroker::open(&fixture.path(), options).await.unwrap();
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.path());
    let mut other = connect.connect().await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let jobs = [NewJob::new("noop", &1).unwrap()];
    let refused = broker.enqueue(&fixture.queue, &jobs).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert_eq!(broker.counts(&fixture.queue).await.unwrap().pending, 0, "reading goes on");
    assert!(fixture.claim(&broker, 1).await.is_empty(), "so does a claim that finds nothing");
    lock.rollback().await.unwrap();
    assert!(broker.enqueue(&fixture.queue, &jobs).await.unwrap()[0].fresh);
}

/// With the clock in hand: a lease is over at its end, not before; commits that wait for the
/// disk change nothing else.
#[tokio::test]
async fn a_lease_is_over_at_its_end() {
    let fixture = Fixture::new();
    let clock = Arc::new(SetClock::new(Timestamp(1_000_000)));
    let options = SqliteOptions { clock: clock.clone(), synchronous: Synchronous::Full, ..SqliteOptions::default() };
    let broker = SqliteBroker::open(&fixture.path(), options).await.unwrap();
    fixture.enqueue(&broker, 1).await;
    assert_eq!(fixture.claim(&broker, 1).await.len(), 1);
    clock.advance(Duration::from_millis(59_999));
    assert!(fixture.claim(&broker, 1).await.is_empty());
    clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.claim(&broker, 1).await[0].lease.epoch, 2);
}
