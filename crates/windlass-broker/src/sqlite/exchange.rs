//! Finish, reap, promote and claim in one transaction; see
//! [`Model::exchange`](windlass_jobs::model::Model::exchange).

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{
    Ack, CANCELLED_ERROR, Exchange, Exchanged, MAX_EXCHANGE, SLICE, is_poisoned, leaves_news, poisoned_error,
};
use windlass_jobs::lanes::Lanes;
use windlass_jobs::{Lease, Queue, Reason, State, Timestamp, Ulid};

use super::attempts::{self, ANOTHER_ERROR};
use super::claim::take;
use super::enqueue::read_ulid;
use super::fault::failed;
use super::flow;
use super::held::LOST_TAG;
use super::lanes::any_waiting;
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::settle::settle;
use super::unique::let_go_rows;
use crate::Result;

/// Most terminal jobs removed per list in one exchange: more than one exchange adds.
const TRIM_SLICE: u64 = 500;
pub(super) const VERB: &str = "exchange";

/// What an exchange answers, and what it means for idle workers.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) reply: Exchanged,
    /// Fewer jobs than asked for were found: the worker is idle.
    pub(super) idle: bool,
    /// Another idle worker is to be woken.
    pub(super) news: bool,
}

/// The exchange without a claim that comes too late to be acted on.
pub(super) fn heard(exchange: &Exchange, now: Timestamp) -> Cow<'_, Exchange> {
    match &exchange.claim {
        Some(claim) if !claim.is_heard(now) => {
            Cow::Owned(Exchange { finishes: exchange.finishes.clone(), claim: None })
        }
        _ => Cow::Borrowed(exchange),
    }
}

/// Answers a claim that finds nothing without taking the write lock, so that idle processes
/// do not stand in the way of busy ones. `None`: a transaction is needed.
pub(super) async fn peek(
    conn: &mut SqliteConnection,
    queue: &Queue,
    exchange: &Exchange,
    now: Timestamp,
) -> Result<Option<Outcome>> {
    if !exchange.finishes.is_empty() {
        return Ok(None);
    }
    let ledger = Ledger::load(conn, queue, VERB).await?.unwrap_or_default();
    let is_over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let is_graced = exchange.claim.as_ref().is_some_and(|claim| ledger.is_graced(claim, now));
    let is_busy = |lanes: &Lanes| lanes.next_timer().is_some() || (0..3).any(|priority| lanes.is_ready(priority));
    let may_take = (ledger.counts.pending > 0 || ledger.lanes.as_deref().is_some_and(is_busy)) && !ledger.counts.paused;
    if may_take || is_graced || is_over(ledger.first_due) || ledger.is_reap_due(now) {
        return Ok(None);
    }
    let idle = exchange.claim.as_ref().is_some_and(|claim| claim.max > 0);
    let mut reply = Exchanged { now, since: ledger.since, ..Exchanged::default() };
    if ledger.flows {
        reply.next_message = flow::first(conn, ledger.id).await?;
    }
    if idle {
        (reply.next_due, reply.next_lease) = (ledger.first_due, ledger.first_lease);
    }
    let news = !ledger.counts.paused && leaves_news(exchange, &reply, false, ledger.first_due.is_some());
    Ok(Some(Outcome { reply, idle, news }))
}

/// The exchange itself, inside a transaction. `keep` terminal jobs stay per list.
pub(super) async fn exchange(
    conn: &mut SqliteConnection,
    queue: &Queue,
    exchange: &Exchange,
    now: Timestamp,
    keep: u64,
) -> Result<Outcome> {
    let mut outcome = Outcome { reply: Exchanged { now, ..Exchanged::default() }, ..Outcome::default() };
    let finishes = &exchange.finishes[..exchange.finishes.len().min(MAX_EXCHANGE)];
    let is_graced = exchange.claim.as_ref().is_some_and(|claim| claim.grace);
    let ledger =
        if is_graced { Some(Ledger::open(conn, queue, VERB).await?) } else { Ledger::load(conn, queue, VERB).await? };
    let Some(mut ledger) = ledger else {
        outcome.reply.acks = vec![Ack::Stale; finishes.len()];
        outcome.idle = exchange.claim.as_ref().is_some_and(|claim| claim.max > 0);
        return Ok(outcome);
    };
    outcome.reply.since = ledger.since;
    if let Some(claim) = &exchange.claim {
        ledger.grant_grace(claim, now);
    }
    let reap_due = exchange.claim.is_some() && ledger.is_reap_due(now);
    // Released jobs go before reaped ones, and both before all that wait.
    let reaped_front = if reap_due { ledger.take_front(SLICE) } else { 0 };
    let mut front = Vec::new();
    outcome.reply.acks = settle(conn, &mut ledger, finishes, now, &mut front).await?;
    if exchange.claim.is_none() {
        give_back(&mut ledger, &mut front);
    }
    if let Some(claim) = &exchange.claim {
        if reap_due {
            reap(conn, &mut ledger, reaped_front, now, &mut front).await?;
        }
        give_back(&mut ledger, &mut front);
        if ledger.first_due.is_some_and(|at| at <= now) {
            promote(conn, &mut ledger, now).await?;
        }
        take(conn, &mut ledger, claim, now, &mut outcome).await?;
    }
    trim(conn, &mut ledger, keep).await?;
    ledger.store(conn, VERB).await?;
    if ledger.flows {
        outcome.reply.next_message = flow::first(conn, ledger.id).await?;
    }
    let counts = &ledger.counts;
    let due = counts.scheduled + counts.retrying > 0;
    let (paused, waiting) = (counts.paused, any_waiting(conn, &ledger).await?);
    outcome.news = !paused && leaves_news(exchange, &outcome.reply, waiting, due);
    Ok(outcome)
}

/// Takes back jobs whose lease is over; cancelled ones and those that were lost too often end.
async fn reap(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    first: i64,
    now: Timestamp,
    front: &mut Vec<(Ulid, String)>,
) -> Result<()> {
    let expired = sqlx::query(
        "SELECT id, deliveries, worker, cancel_requested, ulid, lane FROM job WHERE queue = ? AND place = ? AND position <= ?
         ORDER BY position, ulid LIMIT ?",
    );
    let expired = expired.bind(ledger.id).bind(place::LEASED).bind(now.0).bind(offset(SLICE));
    let expired = expired.fetch_all(&mut *conn).await.map_err(failed(VERB))?;
    let mut returned = Vec::new();
    for row in &expired {
        let (id, deliveries): (i64, i64) = (row.get_unchecked(0), row.get_unchecked(1));
        let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
        if row.get_unchecked::<i64, _>(3) != 0 {
            end_cancelled(conn, ledger, id, now, CANCELLED_ERROR, VERB).await?;
        } else if is_poisoned(deliveries) {
            let worker = read_text(row, 2).unwrap_or_default();
            bury(conn, ledger, &[id], Reason::Poisoned, &poisoned_error(&worker, deliveries), now).await?;
        } else {
            returned.push(id);
        }
        if let (Some(ulid), Some(name)) = (read_ulid(row, 4), read_text(row, 5)) {
            let again = returned.last() == Some(&id);
            ledger.lanes().finished(&name, ulid, again, now);
            if again {
                front.push((ulid, name));
            }
        }
    }
    let counts = &mut ledger.counts;
    let (all, back) = (expired.len() as u64, returned.len() as u64);
    counts.expired_leases_total += all;
    counts.running -= all.min(counts.running);
    counts.pending += back;
    attempts::note(conn, &returned, Some(now), VERB).await?;
    move_all(conn, RETURN.as_str(), first, &returned, VERB).await
}

/// Jobs are before all that wait in their lanes again, the first of them first.
fn give_back(ledger: &mut Ledger, front: &mut Vec<(Ulid, String)>) {
    for (ulid, name) in front.drain(..).rev() {
        ledger.lanes().return_to(&name, ulid);
    }
}

static RETURN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE job SET state = 'pending', place = {}, position = ? + ids.key, progress = NULL,
             lost = coalesce(lost, '') || {LOST_TAG}
         FROM json_each(?) AS ids WHERE job.id = ids.value",
        place::WAITING
    )
});

static BURY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE job SET state = 'failure', reason = ?, error = {ANOTHER_ERROR}, finished_at = ?, place = ?, position = ?
         WHERE id IN (SELECT value FROM json_each(?))"
    )
});

static END_CANCELLED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE job SET state = 'cancelled', cancel_requested = 0, error = {ANOTHER_ERROR}, finished_at = ?, place = ?,
             position = ? WHERE id = ?"
    )
});

/// Ends jobs in failure and counts them there; whence they came is the caller's to count.
pub(super) async fn bury(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    ids: &[i64],
    reason: Reason,
    error: &str,
    now: Timestamp,
) -> Result<()> {
    let bury = sqlx::query(BURY.as_str());
    let bury = bury.bind(reason.as_str()).bind(error).bind(now.0).bind(place::DEAD).bind(now.0).bind(json_list(ids));
    bury.execute(&mut *conn).await.map_err(failed(VERB))?;
    ids.iter().for_each(|_| ledger.count_ended(State::Failure));
    flow::tell(conn, ledger, ids, now, VERB).await?;
    let_go_rows(conn, ledger, ids, VERB).await
}

/// Ends a job as cancelled and counts it there; whence it came is the caller's to count.
pub(super) async fn end_cancelled(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    id: i64,
    now: Timestamp,
    error: &str,
    operation: &'static str,
) -> Result<()> {
    let end = sqlx::query(END_CANCELLED.as_str());
    let end = end.bind(error).bind(now.0).bind(place::DONE).bind(ledger.take_done(1)).bind(id);
    end.execute(&mut *conn).await.map_err(failed(operation))?;
    ledger.count_ended(State::Cancelled);
    flow::tell(conn, ledger, &[id], now, operation).await?;
    let_go_rows(conn, ledger, &[id], operation).await
}

const PROMOTE: &str = "UPDATE job SET state = 'pending', place = iif(lane IS NULL, priority, 8), position = ? + ids.key
         FROM json_each(?) AS ids WHERE job.id = ids.value";

/// Moves due jobs behind those that wait; before them, if they hold their ordering key.
async fn promote(conn: &mut SqliteConnection, ledger: &mut Ledger, now: Timestamp) -> Result<()> {
    let due = sqlx::query(
        "SELECT id, state = 'retrying', ulid, lane FROM job WHERE queue = ? AND place = ? AND position <= ?
         ORDER BY position, ulid LIMIT ?",
    );
    let due = due.bind(ledger.id).bind(place::DUE).bind(now.0).bind(offset(SLICE));
    let due = due.fetch_all(&mut *conn).await.map_err(failed(VERB))?;
    let ids: Vec<i64> = due.iter().map(|row| row.get_unchecked(0)).collect();
    let retrying = due.iter().filter(|row| row.get_unchecked::<bool, _>(1)).count() as u64;
    let counts = &mut ledger.counts;
    counts.retrying -= retrying.min(counts.retrying);
    counts.scheduled -= (ids.len() as u64 - retrying).min(counts.scheduled);
    counts.pending += ids.len() as u64;
    let tail = ledger.take_tail(ids.len());
    move_all(conn, PROMOTE, tail, &ids, VERB).await?;
    for row in &due {
        let (Some(ulid), Some(name)) = (read_ulid(row, 2), read_text(row, 3)) else { continue };
        if ledger.lanes().owns_order(&name, ulid) {
            ledger.lanes().return_to(&name, ulid);
            let first = ledger.take_front(1);
            move_all(conn, PROMOTE, first, &[row.get_unchecked(0)], VERB).await?;
        } else {
            ledger.lanes().join(&name);
        }
    }
    Ok(())
}

/// Runs an update whose parameters are the first position and the ids in order.
pub(super) async fn move_all(
    conn: &mut SqliteConnection,
    update: &'static str,
    first: i64,
    ids: &[i64],
    operation: &'static str,
) -> Result<()> {
    if !ids.is_empty() {
        let update = sqlx::query(update).bind(first).bind(json_list(ids));
        update.execute(conn).await.map_err(failed(operation))?;
    }
    Ok(())
}

/// Removes the oldest terminal jobs over the bound.
pub(super) async fn trim(conn: &mut SqliteConnection, ledger: &mut Ledger, keep: u64) -> Result<()> {
    for (place, count) in [(place::DONE, &mut ledger.done), (place::DEAD, &mut ledger.counts.dead)] {
        let over = count.saturating_sub(keep).min(TRIM_SLICE);
        if over == 0 {
            continue;
        }
        let oldest = sqlx::query(
            "DELETE FROM job WHERE id IN
                 (SELECT id FROM job WHERE queue = ? AND place = ? ORDER BY position, ulid LIMIT ?)",
        );
        let oldest = oldest.bind(ledger.id).bind(place).bind(i64::try_from(over).unwrap_or(i64::MAX));
        oldest.execute(&mut *conn).await.map_err(failed(VERB))?;
        *count -= over;
    }
    Ok(())
}

/// A text out of a row; `None` when it is null or not UTF-8.
pub(super) fn read_text(row: &SqliteRow, column: usize) -> Option<String> {
    row.try_get_unchecked::<Option<String>, _>(column).ok().flatten()
}

pub(super) fn json_list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// The leases of a batch that are asked about for the first time.
pub(super) fn firsts(leases: impl Iterator<Item = Lease>) -> Vec<bool> {
    let mut seen = HashSet::new();
    leases.map(|lease| seen.insert(lease)).collect()
}
