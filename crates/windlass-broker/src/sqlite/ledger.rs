//! A queue's own row: the next positions of its lists, and its counters.

use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::Counts;
use windlass_jobs::{Queue, Timestamp};

use super::fault::failed;
use super::schema::place;
use crate::Result;

/// The columns of [`Ledger`], in order, after the id.
const COLUMNS: &str = "head, tail, ended, done, pending, scheduled, retrying, running, dead, enqueued_total, \
     success_total, failure_total, cancelled_total, retried_total, expired_leases_total";

static LOAD: LazyLock<String> = LazyLock::new(|| {
    let first = |place| format!("(SELECT min(position) FROM job WHERE queue = queue.id AND place = {place})");
    let (due, lease) = (first(place::DUE), first(place::LEASED));
    // `queue.id` needs its table's name: inside the subquery `queue` is the job's column.
    format!("SELECT id, {COLUMNS}, {due}, {lease} FROM queue WHERE name = ?")
});

static STORE: LazyLock<String> = LazyLock::new(|| {
    let marks = vec!["?"; COLUMNS.split(',').count()].join(",");
    format!("UPDATE queue SET ({COLUMNS}) = ({marks}) WHERE id = ?")
});

/// A queue's row, loaded at the start of a transaction and stored at its end.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) id: i64,
    /// The position of the first job ever put to the front; the next goes before it.
    head: i64,
    /// The position of the next job at the end.
    tail: i64,
    /// The position of the next terminal job.
    ended: i64,
    /// How many lie in the list of successes and cancelled ones.
    pub(super) done: u64,
    pub(super) counts: Counts,
    /// When the first due job is due, as of loading.
    pub(super) first_due: Option<Timestamp>,
    /// When the first lease ends, as of loading.
    pub(super) first_lease: Option<Timestamp>,
}

impl Ledger {
    /// The queue's row; `None` when no job and no worker ever named the queue.
    pub(super) async fn load(
        conn: &mut SqliteConnection,
        queue: &Queue,
        operation: &'static str,
    ) -> Result<Option<Self>> {
        let row = sqlx::query(LOAD.as_str()).bind(queue.as_str()).fetch_optional(conn).await;
        Ok(row.map_err(failed(operation))?.as_ref().map(Self::read))
    }

    /// The queue's row, made if there is none.
    pub(super) async fn open(conn: &mut SqliteConnection, queue: &Queue, operation: &'static str) -> Result<Self> {
        if let Some(ledger) = Self::load(conn, queue, operation).await? {
            return Ok(ledger);
        }
        let insert = sqlx::query("INSERT INTO queue (name) VALUES (?)").bind(queue.as_str());
        let made = insert.execute(conn).await.map_err(failed(operation))?;
        Ok(Self { id: made.last_insert_rowid(), ..Self::default() })
    }

    fn read(row: &SqliteRow) -> Self {
        let number = |i: usize| row.get_unchecked::<i64, _>(i);
        let count = |i: usize| u64::try_from(number(i)).unwrap_or(0);
        let instant = |i: usize| row.get_unchecked::<Option<i64>, _>(i).map(Timestamp);
        Self {
            id: number(0),
            head: number(1),
            tail: number(2),
            ended: number(3),
            done: count(4),
            counts: Counts {
                pending: count(5),
                scheduled: count(6),
                retrying: count(7),
                running: count(8),
                dead: count(9),
                enqueued_total: count(10),
                success_total: count(11),
                failure_total: count(12),
                cancelled_total: count(13),
                retried_total: count(14),
                expired_leases_total: count(15),
            },
            first_due: instant(16),
            first_lease: instant(17),
        }
    }

    pub(super) async fn store(&self, conn: &mut SqliteConnection, operation: &'static str) -> Result<()> {
        let c = &self.counts;
        let counts = [
            self.done,
            c.pending,
            c.scheduled,
            c.retrying,
            c.running,
            c.dead,
            c.enqueued_total,
            c.success_total,
            c.failure_total,
            c.cancelled_total,
            c.retried_total,
            c.expired_leases_total,
        ];
        let mut query = sqlx::query(STORE.as_str()).bind(self.head).bind(self.tail).bind(self.ended);
        for count in counts {
            query = query.bind(i64::try_from(count).unwrap_or(i64::MAX));
        }
        query.bind(self.id).execute(conn).await.map_err(failed(operation))?;
        Ok(())
    }

    /// Takes `n` positions before all that wait; answers the first of them.
    pub(super) fn take_front(&mut self, n: usize) -> i64 {
        self.head -= offset(n);
        self.head
    }

    /// Takes `n` positions after all that wait; answers the first of them.
    pub(super) fn take_tail(&mut self, n: usize) -> i64 {
        self.tail += offset(n);
        self.tail - offset(n)
    }

    /// Takes `n` positions after all terminal jobs; answers the first of them.
    pub(super) fn take_ended(&mut self, n: usize) -> i64 {
        self.ended += offset(n);
        self.ended - offset(n)
    }
}

/// A place in a batch as a distance between positions.
pub(super) fn offset(n: usize) -> i64 {
    i64::try_from(n).expect("a batch has far fewer than 2^63 jobs")
}
