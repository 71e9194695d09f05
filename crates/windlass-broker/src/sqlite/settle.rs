//! Taking back what became of claimed jobs: one statement for plain successes, one for the
//! rest of a batch.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Ack, Finish, Settle};
use windlass_jobs::{Lease, State, Timestamp};

use super::batch::Batched;
use super::enqueue::read_ulid;
use super::exchange::firsts;
use super::fault::failed;
use super::ledger::{Ledger, offset};
use super::schema::place;
use crate::Result;

const VERB: &str = "exchange";

/// Parameters: queue, now; per job ulid, epoch, position, result. A row per job that is
/// answered costs as much as its update, so that none is: see [`SUCCEEDED`].
static SUCCEED: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        &format!(
            "UPDATE job SET state = 'success', place = {}, position = held.column3, result = held.column4,
                 finished_at = head.now
             FROM (SELECT ? AS queue, ? AS now) AS head, (VALUES ",
            place::DONE
        ),
        "(?,?,?,?)",
        &format!(
            ") AS held WHERE job.queue = head.queue AND job.ulid = held.column1 AND job.epoch = held.column2
                 AND job.place = {}",
            place::LEASED
        ),
    )
});

/// Ulid and epoch of the jobs that went to the positions from one to another.
static SUCCEEDED: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT ulid, epoch FROM job WHERE queue = ? AND place = {} AND position BETWEEN ? AND ?", place::DONE)
});

/// Parameters: queue; per job ulid, epoch, state, place (null: its priority's), position,
/// finished_at, returned (1 takes the delivery and the progress back), failures, skipped,
/// reason, error, result. A null leaves the column alone.
static SETTLE: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "UPDATE job SET state = held.column3, place = coalesce(held.column4, priority), position = held.column5,
             finished_at = held.column6, deliveries = deliveries - held.column7,
             progress = CASE held.column7 WHEN 1 THEN NULL ELSE progress END,
             failures = coalesce(held.column8, failures), skipped = held.column9, reason = held.column10,
             error = coalesce(held.column11, error), result = held.column12
         FROM (SELECT ? AS queue) AS head, (VALUES ",
        "(?,?,?,?,?,?,?,?,?,?,?,?)",
        &format!(
            ") AS held WHERE job.queue = head.queue AND job.ulid = held.column1 AND job.epoch = held.column2
                 AND job.place = {} RETURNING ulid, epoch",
            place::LEASED
        ),
    )
});

/// A finish with where its job goes.
struct Move<'a> {
    finish: &'a Finish,
    state: State,
    /// `None`: back to the list of its priority.
    place: Option<i64>,
    position: i64,
}

/// Takes finishes; one ack each, in order. A lease named twice is taken once.
pub(super) async fn settle(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    finishes: &[Finish],
    now: Timestamp,
) -> Result<Vec<Ack>> {
    let first = firsts(finishes.iter().map(|finish| finish.lease));
    let moves = lay(ledger, finishes, &first, now);
    let (plain, rest): (Vec<_>, Vec<_>) =
        moves.into_iter().partition(|m| matches!(m.finish.settle, Settle::Success { skipped: false, .. }));
    let mut held = HashSet::with_capacity(finishes.len());
    for (sql, piece) in SUCCEED.pieces(&plain) {
        succeed(conn, sql, piece, ledger.id, now, &mut held).await?;
    }
    for (sql, piece) in SETTLE.pieces(&rest) {
        move_on(conn, sql, piece, ledger.id, now, &mut held).await?;
    }
    let mut acks = Vec::with_capacity(finishes.len());
    for (finish, first) in finishes.iter().zip(first) {
        let taken = first && held.contains(&finish.lease);
        if taken {
            count(ledger, &finish.settle, now);
        }
        acks.push(if taken { Ack::Taken } else { Ack::Stale });
    }
    Ok(acks)
}

/// Where each job goes if its lease is held. Positions of those that are refused stay unused.
fn lay<'a>(ledger: &mut Ledger, finishes: &'a [Finish], first: &[bool], now: Timestamp) -> Vec<Move<'a>> {
    let released = finishes.iter().filter(|finish| finish.settle == Settle::Release).count();
    let (mut front, ended) = (ledger.take_front(released), ledger.take_ended(finishes.len()));
    let mut moves = Vec::with_capacity(finishes.len());
    for (i, finish) in finishes.iter().enumerate() {
        let terminal = ended + offset(i);
        let (state, place, position) = match finish.settle {
            Settle::Success { .. } => (State::Success, Some(place::DONE), terminal),
            Settle::Failure { .. } => (State::Failure, Some(place::DEAD), terminal),
            Settle::Cancelled { .. } => (State::Cancelled, Some(place::DONE), terminal),
            Settle::Retry { delay, .. } => (State::Retrying, Some(place::DUE), now.plus(delay).0),
            Settle::Snooze { delay } => (State::Scheduled, Some(place::DUE), now.plus(delay).0),
            Settle::Release => {
                front += 1;
                (State::Pending, None, front - 1)
            }
        };
        if first[i] {
            moves.push(Move { finish, state, place, position });
        }
    }
    moves
}

async fn succeed(
    conn: &mut SqliteConnection,
    sql: &'static str,
    moves: &[Move<'_>],
    queue: i64,
    now: Timestamp,
    held: &mut HashSet<Lease>,
) -> Result<()> {
    let mut query = sqlx::query(sql).bind(queue).bind(now.0);
    for m in moves {
        let Settle::Success { result, .. } = &m.finish.settle else { continue };
        query = query
            .bind(m.finish.lease.ulid.to_bytes().to_vec())
            .bind(i64::from(m.finish.lease.epoch))
            .bind(m.position)
            .bind(result.as_deref());
    }
    let taken = query.execute(&mut *conn).await.map_err(failed(VERB))?.rows_affected();
    if taken == moves.len() as u64 {
        held.extend(moves.iter().map(|m| m.finish.lease));
    } else if let (Some(first), Some(last)) = (moves.first(), moves.last()) {
        let which = sqlx::query(SUCCEEDED.as_str()).bind(queue).bind(first.position).bind(last.position);
        let rows = which.fetch_all(conn).await.map_err(failed(VERB))?;
        held.extend(rows.iter().filter_map(read_lease));
    }
    Ok(())
}

async fn move_on(
    conn: &mut SqliteConnection,
    sql: &'static str,
    moves: &[Move<'_>],
    queue: i64,
    now: Timestamp,
    held: &mut HashSet<Lease>,
) -> Result<()> {
    let mut query = sqlx::query(sql).bind(queue);
    for m in moves {
        let (mut failures, mut skipped, mut reason, mut error, mut result) = (None, false, None, None, None);
        match &m.finish.settle {
            Settle::Success { result: r, skipped: s } => (result, skipped) = (r.as_deref(), *s),
            Settle::Failure { reason: r, failures: f, error: e } => {
                (reason, failures, error) = (Some(r.as_str()), Some(i64::from(*f)), Some(e.as_str()));
            }
            Settle::Retry { failures: f, error: e, .. } => (failures, error) = (Some(i64::from(*f)), Some(e.as_str())),
            Settle::Cancelled { error: e } => error = Some(e.as_str()),
            Settle::Snooze { .. } | Settle::Release => {}
        }
        query = query
            .bind(m.finish.lease.ulid.to_bytes().to_vec())
            .bind(i64::from(m.finish.lease.epoch))
            .bind(m.state.as_str())
            .bind(m.place)
            .bind(m.position)
            .bind(m.state.is_terminal().then_some(now.0))
            .bind(i64::from(!m.state.is_terminal()))
            .bind(failures)
            .bind(skipped)
            .bind(reason)
            .bind(error)
            .bind(result);
    }
    let rows = query.fetch_all(conn).await.map_err(failed(VERB))?;
    held.extend(rows.iter().filter_map(read_lease));
    Ok(())
}

/// The lease a row `(ulid, epoch)` answers.
pub(super) fn read_lease(row: &SqliteRow) -> Option<Lease> {
    let epoch = u32::try_from(row.get_unchecked::<i64, _>(1)).ok()?;
    Some(Lease { ulid: read_ulid(row, 0)?, epoch })
}

fn count(ledger: &mut Ledger, settle: &Settle, now: Timestamp) {
    let mut put_off = |delay| {
        let at = now.plus(delay);
        ledger.first_due = Some(ledger.first_due.map_or(at, |first| first.min(at)));
    };
    match settle {
        Settle::Retry { delay, .. } | Settle::Snooze { delay } => put_off(*delay),
        _ => {}
    }
    let counts = &mut ledger.counts;
    counts.running = counts.running.saturating_sub(1);
    match settle {
        Settle::Success { .. } => {
            counts.success_total += 1;
            ledger.done += 1;
        }
        Settle::Cancelled { .. } => {
            counts.cancelled_total += 1;
            ledger.done += 1;
        }
        Settle::Failure { .. } => {
            counts.failure_total += 1;
            counts.dead += 1;
        }
        Settle::Retry { .. } => {
            counts.retried_total += 1;
            counts.retrying += 1;
        }
        Settle::Snooze { .. } => counts.scheduled += 1,
        Settle::Release => counts.pending += 1,
    }
}
