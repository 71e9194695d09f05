//! Handing out what waits; see [`Model::exchange`](windlass_jobs::model::Model::exchange).

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Claim, Claimed, EXPIRED_ERROR, MAX_EXCHANGE, MAX_LOOKED_AT};
use windlass_jobs::{Lease, Reason, Timestamp};

use super::enqueue::read_ulid;
use super::exchange::{Outcome, VERB, bury, json_list, read_text};
use super::fault::failed;
use super::lanes::{Turns, take_turns};
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::unique;
use crate::Result;

/// Claims what the worker has room for.
pub(super) async fn take(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    now: Timestamp,
    outcome: &mut Outcome,
) -> Result<()> {
    let max = claim.max.min(MAX_EXCHANGE);
    let mut turns = Turns::default();
    if ledger.special {
        turns = take_turns(conn, ledger, claim, max, now).await?;
        outcome.reply.claimed = std::mem::take(&mut turns.claimed);
    } else if !ledger.counts.paused {
        outcome.reply.claimed = claim_up_to(conn, ledger, claim, max, now).await?;
    }
    outcome.idle = outcome.reply.claimed.len() < max;
    if outcome.idle {
        let next = sqlx::query(
            "SELECT (SELECT min(position) FROM job WHERE queue = ?1 AND place = ?2),
                    (SELECT min(position) FROM job WHERE queue = ?1 AND place = ?3)",
        );
        let next = next.bind(ledger.id).bind(place::DUE).bind(place::LEASED);
        let next = next.fetch_one(conn).await.map_err(failed(VERB))?;
        let unseen = if ledger.special { turns.unseen } else { !ledger.counts.paused && ledger.counts.pending > 0 };
        let first_due = next.get_unchecked::<Option<i64>, _>(0).map(Timestamp);
        let first_due = first_due.into_iter().chain(turns.chance).min();
        outcome.reply.next_due = if unseen { Some(now) } else { first_due };
        outcome.reply.next_lease = next.get_unchecked::<Option<i64>, _>(1).map(Timestamp);
    }
    Ok(())
}

/// Takes waiting jobs until there are enough, buries those that have expired.
async fn claim_up_to(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    max: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>> {
    let mut claimed = Vec::with_capacity(max.min(usize::try_from(ledger.counts.pending).unwrap_or(max)));
    // A damaged job that cannot be named is leased, but not handed out.
    let (mut looked_at, mut leased) = (0, 0);
    // Strictly, one question is enough for all priorities.
    let all = (0, place::FIRST_NOT_WAITING - 1, max);
    let quotas = claim.quotas.iter().flatten().zip(0..).map(|(quota, place)| (place, place, *quota));
    let mut rounds = quotas.chain([all]);
    let Some((mut first, mut last, mut quota)) = rounds.next() else { return Ok(claimed) };
    let mut until = quota.min(max);
    while ledger.counts.pending > 0 {
        let limit = until.saturating_sub(leased).min(MAX_LOOKED_AT - looked_at);
        if limit == 0 {
            let Some(next) = rounds.next().filter(|_| looked_at < MAX_LOOKED_AT) else { break };
            (first, last, quota) = next;
            until = leased.saturating_add(quota).min(max);
            continue;
        }
        let waiting = sqlx::query(
            "SELECT id, ulid, epoch, kind, args, failures, max_attempts, deliveries, options, expires_at FROM job
             WHERE queue = ? AND place BETWEEN ? AND ? ORDER BY place, position LIMIT ?",
        );
        let waiting = waiting.bind(ledger.id).bind(first).bind(last).bind(offset(limit));
        let waiting = waiting.fetch_all(&mut *conn).await.map_err(failed(VERB))?;
        let (expired, live): (Vec<_>, Vec<_>) = waiting.iter().partition(|row| is_expired(row, now));
        looked_at += waiting.len();
        leased += live.len();
        ledger.counts.pending -= (waiting.len() as u64).min(ledger.counts.pending);
        if !expired.is_empty() {
            bury(conn, ledger, &ids(&expired), Reason::Expired, EXPIRED_ERROR, now).await?;
        }
        if !live.is_empty() {
            lease(conn, ledger, claim, &live, now, &mut claimed).await?;
        }
        if waiting.len() < limit {
            // There are no more here.
            until = leased;
        }
    }
    Ok(claimed)
}

/// What [`lease`] reads of a job.
pub(super) const COLUMNS: &str = "id, ulid, epoch, kind, args, failures, max_attempts, deliveries, options, expires_at";

/// True for a job whose time is over and that was never started.
pub(super) fn is_expired(row: &SqliteRow, now: Timestamp) -> bool {
    row.get_unchecked::<Option<i64>, _>(9).is_some_and(|at| at <= now.0) && row.get_unchecked::<i64, _>(2) == 0
}

fn ids(rows: &[&SqliteRow]) -> Vec<i64> {
    rows.iter().map(|row| row.get_unchecked(0)).collect()
}

pub(super) async fn lease(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    waiting: &[&SqliteRow],
    now: Timestamp,
    claimed: &mut Vec<Claimed>,
) -> Result<()> {
    let ids = ids(waiting);
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
    unique::start(conn, ledger, &ids).await?;
    ledger.counts.running += ids.len() as u64;
    for (row, id) in waiting.iter().zip(ids) {
        let args = match read_text(row, 4) {
            None => large_args(conn, id).await?,
            some => some,
        };
        claimed.extend(read_claimed(row, args));
    }
    Ok(())
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
