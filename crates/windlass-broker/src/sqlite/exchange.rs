//! Finish, reap, promote and claim in one transaction; see
//! [`Model::exchange`](windlass_jobs::model::Model::exchange).

use std::collections::HashSet;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{
    Ack, Claim, Claimed, Exchange, Exchanged, MAX_EXCHANGE, SLICE, is_poisoned, leaves_news, poisoned_error,
};
use windlass_jobs::{Lease, Queue, Timestamp};

use super::enqueue::read_ulid;
use super::fault::failed;
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::settle::settle;
use crate::Result;

/// Most terminal jobs removed per list in one exchange: more than one exchange adds.
const TRIM_SLICE: u64 = 500;
const VERB: &str = "exchange";

/// What an exchange answers, and what it means for idle workers.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) reply: Exchanged,
    /// Fewer jobs than asked for were found: the worker is idle.
    pub(super) idle: bool,
    /// Another idle worker is to be woken.
    pub(super) news: bool,
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
    if ledger.counts.pending > 0 || is_over(ledger.first_due) || is_over(ledger.first_lease) {
        return Ok(None);
    }
    let idle = exchange.claim.as_ref().is_some_and(|claim| claim.max > 0);
    let mut reply = Exchanged { now, ..Exchanged::default() };
    if idle {
        (reply.next_due, reply.next_lease) = (ledger.first_due, ledger.first_lease);
    }
    let news = leaves_news(exchange, &reply, false, ledger.first_due.is_some());
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
    let Some(mut ledger) = Ledger::load(conn, queue, VERB).await? else {
        outcome.reply.acks = vec![Ack::Stale; finishes.len()];
        outcome.idle = exchange.claim.as_ref().is_some_and(|claim| claim.max > 0);
        return Ok(outcome);
    };
    let reap_due = exchange.claim.is_some() && ledger.first_lease.is_some_and(|at| at <= now);
    // Released jobs go before reaped ones, and both before all that wait.
    let reaped_front = if reap_due { ledger.take_front(SLICE) } else { 0 };
    outcome.reply.acks = settle(conn, &mut ledger, finishes, now).await?;
    if let Some(claim) = &exchange.claim {
        if reap_due {
            reap(conn, &mut ledger, reaped_front, now).await?;
        }
        if ledger.first_due.is_some_and(|at| at <= now) {
            promote(conn, &mut ledger, now).await?;
        }
        take(conn, &mut ledger, claim, now, &mut outcome).await?;
    }
    trim(conn, &mut ledger, keep).await?;
    ledger.store(conn, VERB).await?;
    let counts = &ledger.counts;
    outcome.news = leaves_news(exchange, &outcome.reply, counts.pending > 0, counts.scheduled + counts.retrying > 0);
    Ok(outcome)
}

/// Takes back jobs whose lease is over; those that were lost too often go to the dead set.
async fn reap(conn: &mut SqliteConnection, ledger: &mut Ledger, front: i64, now: Timestamp) -> Result<()> {
    let expired = sqlx::query(
        "SELECT id, deliveries, worker FROM job WHERE queue = ? AND place = ? AND position <= ?
         ORDER BY position, ulid LIMIT ?",
    );
    let expired = expired.bind(ledger.id).bind(place::LEASED).bind(now.0).bind(offset(SLICE));
    let expired = expired.fetch_all(&mut *conn).await.map_err(failed(VERB))?;
    let mut returned = Vec::new();
    for row in &expired {
        let (id, deliveries): (i64, i64) = (row.get_unchecked(0), row.get_unchecked(1));
        let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
        if is_poisoned(deliveries) {
            let worker = read_text(row, 2).unwrap_or_default();
            bury_poisoned(conn, ledger, id, &poisoned_error(&worker, deliveries), now).await?;
        } else {
            returned.push(id);
        }
    }
    let counts = &mut ledger.counts;
    let (all, back) = (expired.len() as u64, returned.len() as u64);
    counts.expired_leases_total += all;
    counts.running -= all.min(counts.running);
    counts.pending += back;
    counts.dead += all - back;
    counts.failure_total += all - back;
    let update = "UPDATE job SET state = 'pending', place = priority, position = ? + ids.key, progress = NULL
         FROM json_each(?) AS ids WHERE job.id = ids.value";
    move_all(conn, update, front, &returned).await
}

async fn bury_poisoned(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    id: i64,
    error: &str,
    now: Timestamp,
) -> Result<()> {
    let bury = sqlx::query(
        "UPDATE job SET state = 'failure', reason = 'poisoned', error = ?, finished_at = ?, place = ?, position = ?
         WHERE id = ?",
    );
    let bury = bury.bind(error).bind(now.0).bind(place::DEAD).bind(ledger.take_ended(1)).bind(id);
    bury.execute(conn).await.map_err(failed(VERB))?;
    Ok(())
}

/// Moves due jobs behind those that wait.
async fn promote(conn: &mut SqliteConnection, ledger: &mut Ledger, now: Timestamp) -> Result<()> {
    let due = sqlx::query(
        "SELECT id, state = 'retrying' FROM job WHERE queue = ? AND place = ? AND position <= ?
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
    let update = "UPDATE job SET state = 'pending', place = priority, position = ? + ids.key
         FROM json_each(?) AS ids WHERE job.id = ids.value";
    let tail = ledger.take_tail(ids.len());
    move_all(conn, update, tail, &ids).await
}

/// Runs an update whose parameters are the first position and the ids in order.
async fn move_all(conn: &mut SqliteConnection, update: &'static str, first: i64, ids: &[i64]) -> Result<()> {
    if !ids.is_empty() {
        let update = sqlx::query(update).bind(first).bind(json_list(ids));
        update.execute(conn).await.map_err(failed(VERB))?;
    }
    Ok(())
}

/// Claims what the worker has room for.
async fn take(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    now: Timestamp,
    outcome: &mut Outcome,
) -> Result<()> {
    let max = claim.max.min(MAX_EXCHANGE);
    if max > 0 && ledger.counts.pending > 0 {
        outcome.reply.claimed = lease(conn, ledger, claim, max, now).await?;
    }
    outcome.idle = outcome.reply.claimed.len() < max;
    if outcome.idle {
        let next = sqlx::query(
            "SELECT (SELECT min(position) FROM job WHERE queue = ?1 AND place = ?2),
                    (SELECT min(position) FROM job WHERE queue = ?1 AND place = ?3)",
        );
        let next = next.bind(ledger.id).bind(place::DUE).bind(place::LEASED);
        let next = next.fetch_one(conn).await.map_err(failed(VERB))?;
        outcome.reply.next_due = next.get_unchecked::<Option<i64>, _>(0).map(Timestamp);
        outcome.reply.next_lease = next.get_unchecked::<Option<i64>, _>(1).map(Timestamp);
    }
    Ok(())
}

async fn lease(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    max: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>> {
    let waiting = sqlx::query(
        "SELECT id, ulid, epoch, kind, args, failures, max_attempts, deliveries, options FROM job
         WHERE queue = ? AND place < ? ORDER BY place, position LIMIT ?",
    );
    let waiting = waiting.bind(ledger.id).bind(place::FIRST_NOT_WAITING).bind(offset(max));
    let waiting = waiting.fetch_all(&mut *conn).await.map_err(failed(VERB))?;
    let ids: Vec<i64> = waiting.iter().map(|row| row.get_unchecked(0)).collect();
    let update = sqlx::query(
        "UPDATE job SET state = 'running', place = ?, position = ?, epoch = epoch + 1, deliveries = deliveries + 1,
             started_at = ?, worker = ? WHERE id IN (SELECT value FROM json_each(?))",
    );
    let update = update
        .bind(place::LEASED)
        .bind(now.plus(claim.lease).0)
        .bind(now.0)
        .bind(claim.worker.as_str())
        .bind(json_list(&ids));
    update.execute(&mut *conn).await.map_err(failed(VERB))?;
    ledger.counts.pending -= (ids.len() as u64).min(ledger.counts.pending);
    ledger.counts.running += ids.len() as u64;
    let mut claimed = Vec::with_capacity(ids.len());
    for (row, id) in waiting.iter().zip(ids) {
        let args = match read_text(row, 4) {
            None => large_args(conn, id).await?,
            some => some,
        };
        claimed.extend(read_claimed(row, args));
    }
    Ok(claimed)
}

async fn large_args(conn: &mut SqliteConnection, id: i64) -> Result<Option<String>> {
    let args = sqlx::query("SELECT args FROM large_args WHERE job = ?").bind(id).fetch_optional(conn);
    Ok(args.await.map_err(failed(VERB))?.and_then(|row| read_text(&row, 0)))
}

/// A row as it was before the claim. A damaged job is handed out with kind `""`, so that its
/// worker can bury it; one without an id cannot be named and is left to its lease.
fn read_claimed(row: &SqliteRow, args: Option<String>) -> Option<Claimed> {
    let number = |i: usize| u32::try_from(row.get_unchecked::<i64, _>(i)).unwrap_or(0);
    let (kind, args) = match (read_text(row, 3), args) {
        (Some(kind), Some(args)) => (kind, args),
        _ => (String::new(), String::new()),
    };
    Some(Claimed {
        lease: Lease { ulid: read_ulid(row, 1)?, epoch: number(2) + 1 },
        kind,
        args,
        failures: number(5),
        max_attempts: row.get_unchecked::<Option<i64>, _>(6).and_then(|n| u32::try_from(n).ok()),
        deliveries: number(7) + 1,
        options: read_text(row, 8).unwrap_or_default(),
    })
}

/// Removes the oldest terminal jobs over the bound.
async fn trim(conn: &mut SqliteConnection, ledger: &mut Ledger, keep: u64) -> Result<()> {
    for (place, count) in [(place::DONE, &mut ledger.done), (place::DEAD, &mut ledger.counts.dead)] {
        let over = count.saturating_sub(keep).min(TRIM_SLICE);
        if over == 0 {
            continue;
        }
        let oldest = sqlx::query(
            "DELETE FROM job WHERE id IN
                 (SELECT id FROM job WHERE queue = ? AND place = ? ORDER BY position LIMIT ?)",
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

fn json_list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("[{}]", ids.join(","))
}

/// The leases of a batch that are asked about for the first time.
pub(super) fn firsts(leases: impl Iterator<Item = Lease>) -> Vec<bool> {
    let mut seen = HashSet::new();
    leases.map(|lease| seen.insert(lease)).collect()
}
