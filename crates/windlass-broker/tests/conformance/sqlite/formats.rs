//! Older and newer formats of the file.

use std::sync::Arc;

use windlass_broker::sqlite::{SqliteBroker, SqliteOptions};
use windlass_broker::{Control as _, Enqueue as _, Error, Inspect as _, Leases as _};
use windlass_jobs::command::{Ack, Counts, Exchange};
use windlass_jobs::{JobId, Lease, NewJob, Queue, SetClock, State, Timestamp, Ulid};

use super::Fixture;

const FORMAT_1: &str = include_str!("format1.sql");

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    fixture.enqueue(&fixture.open().await, 1).await;
    fixture.tamper("UPDATE meta SET value = 6 WHERE key = 'format'").await;
    let Err(Error::Unexpected { detail, .. }) = SqliteBroker::open(&fixture.path(), SqliteOptions::default()).await
    else {
        panic!("a newer file was opened");
    };
    assert!(detail.contains("format 6") && detail.contains("queue.db"), "{detail}");
    fixture.tamper("UPDATE meta SET value = 5 WHERE key = 'format'").await;
    assert_eq!(fixture.open().await.counts(&fixture.queue).await.unwrap().pending, 1);
}

/// A process that runs while a newer one upgrades the file says so and writes nothing.
#[tokio::test]
async fn an_upgrade_stops_older_processes() {
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    fixture.enqueue(&broker, 1).await;
    fixture.tamper("UPDATE meta SET value = 6 WHERE key = 'format'").await;
    let jobs = [NewJob::new("noop", &1).unwrap()];
    let refusals = [
        broker.enqueue(&fixture.queue, &jobs).await.err(),
        broker.exchange(&fixture.queue, &Exchange::default()).await.err(),
        broker.counts(&fixture.queue).await.err(),
        broker.pause(&fixture.queue, true).await.err(),
    ];
    for refusal in refusals {
        let Some(Error::Unexpected { detail, .. }) = refusal else { panic!("{refusal:?}") };
        assert!(detail.contains('6') && detail.contains('5') && detail.contains("newer"), "{detail}");
    }
    fixture.tamper("UPDATE meta SET value = 5 WHERE key = 'format'").await;
    assert_eq!(
        broker.counts(&fixture.queue).await.unwrap(),
        Counts { pending: 1, enqueued_total: 1, ..Counts::default() }
    );
}

/// A file of format 1 keeps everything; what is new in it has its default.
#[tokio::test]
async fn format_1_is_upgraded() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.path().parent().unwrap()).unwrap();
    std::fs::write(fixture.path(), "").unwrap();
    fixture.tamper(FORMAT_1).await;
    let clock = Arc::new(SetClock::new(Timestamp(60_000)));
    // Several at once: one upgrades.
    let open = || async {
        let options = SqliteOptions { clock: clock.clone(), ..SqliteOptions::default() };
        SqliteBroker::open(&fixture.path(), options).await.unwrap()
    };
    let (broker, _other, _third) = tokio::join!(open(), open(), open());
    let queue = &fixture.queue;
    let expected = Counts {
        pending: 2,
        scheduled: 1,
        running: 1,
        dead: 3,
        enqueued_total: 8,
        success_total: 1,
        failure_total: 3,
        expired_leases_total: 2,
        ..Counts::default()
    };
    assert_eq!(broker.counts(queue).await.unwrap(), expected);
    let ids = async |state| broker.list(queue, state, 0, 10).await.unwrap().ids;
    assert_eq!(ids(State::Failure).await, [6, 8, 7].map(Ulid::from), "by time of failure, then by ulid");
    assert_eq!(ids(State::Pending).await, [2, 1].map(Ulid::from));
    let record = broker.get(&JobId::new(Ulid::from(4_u128), queue.clone())).await.unwrap().unwrap();
    assert_eq!((record.state, record.expires_at, record.cancel_requested), (State::Running, None, false));
    let reply = broker.exchange(queue, &Exchange::default()).await.unwrap();
    assert_eq!(reply.since, Some(Timestamp(4_000)));
    let empty = Queue::new("empty").unwrap();
    assert_eq!(broker.exchange(&empty, &Exchange::default()).await.unwrap().since, None);
    // It goes on where it was.
    let lease = Lease { ulid: Ulid::from(4_u128), epoch: 1 };
    assert_eq!(fixture.finish(&broker, lease).await, Ack::Taken);
    assert_eq!(ids(State::Success).await, [4, 5].map(Ulid::from));
    assert_eq!(broker.replay(queue, &[Ulid::from(7_u128)]).await.unwrap(), [true]);
    let claimed = fixture.claim(&broker, 5).await;
    let found: Vec<(Ulid, &str)> = claimed.iter().map(|c| (c.lease.ulid, c.args.as_str())).collect();
    assert_eq!(found, [(Ulid::from(2_u128), "\"large\""), (Ulid::from(1_u128), "1"), (Ulid::from(7_u128), "7")]);
    drop(broker);
    assert_eq!(fixture.open().await.counts(queue).await.unwrap().running, 3, "opened again, it is as it was");
}

/// An upgraded file and a fresh one have the same tables.
#[tokio::test]
async fn an_upgraded_file_is_as_a_fresh_one() {
    use sqlx::{ConnectOptions as _, Row as _};
    let columns = async |fixture: &Fixture| {
        drop(fixture.open().await);
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(fixture.path());
        let mut conn = options.connect().await.unwrap();
        let sql = "SELECT t.name, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk FROM sqlite_schema t
                   JOIN pragma_table_xinfo(t.name) c ORDER BY t.name, c.cid";
        let rows = sqlx::query(sql).fetch_all(&mut conn).await.unwrap();
        let text = |row: &sqlx::sqlite::SqliteRow| {
            let cells: Vec<String> =
                (0..6).map(|i| row.try_get_unchecked::<Option<String>, _>(i).unwrap().unwrap_or_default()).collect();
            cells.join(" ")
        };
        rows.iter().map(text).collect::<Vec<_>>()
    };
    let (fresh, old) = (Fixture::new(), Fixture::new());
    std::fs::create_dir_all(old.path().parent().unwrap()).unwrap();
    std::fs::write(old.path(), "").unwrap();
    old.tamper(FORMAT_1).await;
    assert_eq!(columns(&old).await, columns(&fresh).await);
}

/// A file whose queue was emptied says so by `since`.
#[tokio::test]
async fn lost_data_is_noticed() {
    let fixture = Fixture::new();
    let broker = fixture.open().await;
    let since = async || broker.exchange(&fixture.queue, &Exchange::default()).await.unwrap().since;
    fixture.enqueue(&broker, 1).await;
    let first = since().await.expect("a job came");
    fixture.tamper("DELETE FROM job; DELETE FROM queue").await;
    assert_eq!(since().await, None);
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    fixture.enqueue(&broker, 1).await;
    assert!(since().await.expect("another came") > first);
}
