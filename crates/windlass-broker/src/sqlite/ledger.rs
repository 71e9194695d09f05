//! A queue's own row: the next positions of its lists, and its counters.

use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Claim, Counts};
use windlass_jobs::lanes::Lanes;
use windlass_jobs::{Queue, State, Timestamp};

use super::fault::failed;
use super::lanes;
use super::schema::{FORMAT, place};
use crate::{Error, Result};

/// The columns of [`Ledger`], in order, after the id.
const COLUMNS: &str = "head, tail, done_tail, done, pending, scheduled, retrying, running, dead, parked, enqueued_total, \
     success_total, failure_total, cancelled_total, retried_total, expired_leases_total, paused, max_waiting, since, \
     reap_after, graced_at, special, blocked, flows";

static LOAD: LazyLock<String> = LazyLock::new(|| {
    let first = |place| format!("(SELECT min(position) FROM job WHERE queue = queue.id AND place = {place})");
    let (due, lease) = (first(place::DUE), first(place::LEASED));
    // `queue.id` needs its table's name: inside the subquery `queue` is the job's column.
    let format = "(SELECT value FROM meta WHERE key = 'format')";
    format!("SELECT id, {COLUMNS}, {due}, {lease}, {format} FROM queue WHERE name = ?")
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
    /// The position of the next job in the list of successes and cancelled ones.
    done_tail: i64,
    /// How many lie in the list of successes and cancelled ones.
    pub(super) done: u64,
    pub(super) counts: Counts,
    /// There are limits, or some job had a unique key or a lane.
    pub(super) special: bool,
    /// Some job depends on another, or is depended on.
    pub(super) flows: bool,
    /// Its lanes and limits, if it is special.
    pub(super) lanes: Option<Box<Lanes>>,
    /// The same as of loading.
    lanes_before: Option<Box<Lanes>>,
    /// When the first job came.
    pub(super) since: Option<Timestamp>,
    /// No lease is ended before this.
    reap_after: Option<Timestamp>,
    /// When grace was last given.
    graced_at: Option<Timestamp>,
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
        let row = sqlx::query(LOAD.as_str()).bind(queue.as_str()).fetch_optional(&mut *conn).await;
        let Some(row) = row.map_err(failed(operation))? else { return Ok(None) };
        match row.get_unchecked::<Option<i64>, _>(27) {
            Some(FORMAT) => {
                let mut ledger = Self::read(&row);
                if ledger.special {
                    ledger.lanes = Some(Box::new(lanes::load(conn, ledger.id, operation).await?));
                    ledger.lanes_before.clone_from(&ledger.lanes);
                }
                Ok(Some(ledger))
            }
            found => Err(upgraded(operation, found)),
        }
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
            done_tail: number(3),
            done: count(4),
            counts: Counts {
                pending: count(5),
                scheduled: count(6),
                retrying: count(7),
                running: count(8),
                dead: count(9),
                parked: count(10),
                blocked: count(23),
                enqueued_total: count(11),
                success_total: count(12),
                failure_total: count(13),
                cancelled_total: count(14),
                retried_total: count(15),
                expired_leases_total: count(16),
                paused: number(17) != 0,
                max_waiting: instant(18).and_then(|n| u64::try_from(n.0).ok()),
            },
            since: instant(19),
            reap_after: instant(20),
            graced_at: instant(21),
            special: number(22) != 0,
            lanes: None,
            lanes_before: None,
            flows: number(24) != 0,
            first_due: instant(25),
            first_lease: instant(26),
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
            c.parked,
            c.enqueued_total,
            c.success_total,
            c.failure_total,
            c.cancelled_total,
            c.retried_total,
            c.expired_leases_total,
        ];
        let mut query = sqlx::query(STORE.as_str()).bind(self.head).bind(self.tail).bind(self.done_tail);
        for count in counts {
            query = query.bind(i64::try_from(count).unwrap_or(i64::MAX));
        }
        query = query.bind(c.paused).bind(c.max_waiting.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
        for at in [self.since, self.reap_after, self.graced_at] {
            query = query.bind(at.map(|at| at.0));
        }
        let query = query.bind(self.special || self.lanes.is_some());
        let query = query.bind(i64::try_from(c.blocked).unwrap_or(i64::MAX)).bind(self.flows).bind(self.id);
        query.execute(&mut *conn).await.map_err(failed(operation))?;
        if let Some(lanes) = self.lanes.as_deref().filter(|_| self.lanes != self.lanes_before) {
            lanes::store(conn, self.id, lanes, operation).await?;
        }
        Ok(())
    }

    /// Its lanes and limits; it is special from then on.
    pub(super) fn lanes(&mut self) -> &mut Lanes {
        self.special = true;
        self.lanes.get_or_insert_default()
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

    /// Takes `n` positions after all successes and cancelled jobs; answers the first of them.
    pub(super) fn take_done(&mut self, n: usize) -> i64 {
        self.done_tail += offset(n);
        self.done_tail - offset(n)
    }

    /// How many jobs wait, for a worker or for their time.
    pub(super) const fn waiting(&self) -> u64 {
        self.counts.pending + self.counts.scheduled + self.counts.retrying + self.counts.blocked
    }

    /// True when this claim's wish for grace is heard.
    pub(super) fn is_graced(&self, claim: &Claim, now: Timestamp) -> bool {
        claim.grace && self.graced_at.is_none_or(|at| now.since(at) >= claim.lease * 3)
    }

    pub(super) fn grant_grace(&mut self, claim: &Claim, now: Timestamp) {
        if self.is_graced(claim, now) {
            (self.graced_at, self.reap_after) = (Some(now), Some(now.plus(claim.lease)));
        }
    }

    /// True when leases are over that may be ended.
    pub(super) fn is_reap_due(&self, now: Timestamp) -> bool {
        self.first_lease.is_some_and(|at| at <= now) && self.reap_after.is_none_or(|at| at <= now)
    }

    /// Counts a job that became terminal.
    pub(super) const fn count_ended(&mut self, state: State) {
        let counts = &mut self.counts;
        match state {
            State::Failure => {
                counts.failure_total += 1;
                counts.dead += 1;
            }
            State::Cancelled => {
                counts.cancelled_total += 1;
                self.done += 1;
            }
            _ => {
                counts.success_total += 1;
                self.done += 1;
            }
        }
    }
}

/// A newer process upgraded the file while this one ran.
fn upgraded(operation: &'static str, found: Option<i64>) -> Error {
    let found = found.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let detail = format!("the file's format is now {found}, this version knows {FORMAT}: restart with the newer one");
    Error::Unexpected { operation, detail }
}

/// A place in a batch as a distance between positions.
pub(super) fn offset(n: usize) -> i64 {
    i64::try_from(n).expect("a batch has far fewer than 2^63 jobs")
}
