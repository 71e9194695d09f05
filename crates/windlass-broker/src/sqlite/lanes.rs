//! Lanes of a queue in a file: [`Lanes`] decides, as in the model; it is kept as one row and read
//! and written whole, which costs in proportion to the lanes that are in use.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Claim, Claimed, EXPIRED_ERROR, MAX_LOOKED_AT};
use windlass_jobs::lanes::{Lanes, Visit};
use windlass_jobs::{Limits, Queue, Reason, Timestamp, Ulid};

use super::claim::{COLUMNS, is_expired, lease};
use super::enqueue::read_ulid;
use super::exchange::{VERB, bury, json_list, read_text};
use super::fault::failed;
use super::ledger::{Ledger, offset};
use super::schema::place;
use crate::{Error, Result};

/// The lanes of a queue; empty ones when it has none.
pub(super) async fn load(conn: &mut SqliteConnection, queue: i64, operation: &'static str) -> Result<Lanes> {
    let row = sqlx::query("SELECT state FROM lanes WHERE queue = ?").bind(queue).fetch_optional(conn);
    let Some(row) = row.await.map_err(failed(operation))? else { return Ok(Lanes::default()) };
    let text = read_text(&row, 0).unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|e| Error::Unexpected { operation, detail: format!("the queue's lanes cannot be read: {e}") })
}

pub(super) async fn store(
    conn: &mut SqliteConnection,
    queue: i64,
    lanes: &Lanes,
    operation: &'static str,
) -> Result<()> {
    let state = serde_json::to_string(lanes).expect("keys and numbers can be written as JSON");
    let insert = sqlx::query("INSERT OR REPLACE INTO lanes (queue, state) VALUES (?, ?)").bind(queue).bind(state);
    insert.execute(conn).await.map_err(failed(operation))?;
    Ok(())
}

/// What claiming by turns found.
#[derive(Default)]
pub(super) struct Turns {
    pub(super) claimed: Vec<Claimed>,
    /// Jobs were left that were not looked at.
    pub(super) unseen: bool,
    /// When a limit of time lets something start that waits now.
    pub(super) chance: Option<Timestamp>,
}

/// Claims by turns; see [`Model::exchange`](windlass_jobs::model::Model::exchange).
pub(super) async fn take_turns(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    max: usize,
    now: Timestamp,
) -> Result<Turns> {
    let mut turns = Turns::default();
    let running = usize::try_from(ledger.counts.running).unwrap_or(usize::MAX);
    let (slots, starts) = ledger.lanes().room(running, now);
    let most = if ledger.counts.paused { 0 } else { max.min(slots).min(starts) };
    if most > 0 {
        ledger.lanes().wake(now);
    }
    let mut looked_at = 0;
    for (priority, quota) in claim.rounds(most) {
        let until = turns.claimed.len().saturating_add(quota).min(most);
        while turns.claimed.len() < until && looked_at < MAX_LOOKED_AT {
            let ring = ledger.lanes().is_ready(priority);
            let limit = if ring { 1 } else { (until - turns.claimed.len()).min(MAX_LOOKED_AT - looked_at) };
            let list = waiting(conn, ledger.id, priority, limit).await?;
            let from_ring = match (list.is_empty(), ring) {
                (true, false) => break,
                (false, true) => {
                    let lanes = ledger.lanes();
                    lanes.ring_is_next = !lanes.ring_is_next;
                    !lanes.ring_is_next
                }
                (_, ring) => ring,
            };
            if from_ring {
                looked_at += 1;
                claim_from_ring(conn, ledger, priority, claim, now, &mut turns.claimed).await?;
            } else {
                looked_at += list.len();
                for row in &list {
                    start(conn, ledger, claim, row, now, &mut turns.claimed).await?;
                }
            }
        }
    }
    let claimed = turns.claimed.len();
    ledger.lanes().started(claimed, now);
    let any_waiting = any_waiting(conn, ledger).await?;
    turns.unseen = most > 0 && looked_at >= MAX_LOOKED_AT && any_waiting;
    turns.chance = if ledger.counts.paused || claimed >= slots {
        None
    } else if claimed >= starts {
        ledger.lanes().next_start().filter(|_| any_waiting)
    } else {
        ledger.lanes().next_timer()
    };
    Ok(turns)
}

/// True when some job may wait for nothing but a worker.
pub(super) async fn any_waiting(conn: &mut SqliteConnection, ledger: &Ledger) -> Result<bool> {
    let Some(lanes) = &ledger.lanes else { return Ok(ledger.counts.pending > 0) };
    if (0..3).any(|priority| lanes.is_ready(priority)) {
        return Ok(true);
    }
    let any = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM job WHERE queue = ? AND place < ?)");
    any.bind(ledger.id).bind(place::FIRST_NOT_WAITING).fetch_one(conn).await.map_err(failed(VERB))
}

async fn waiting(conn: &mut SqliteConnection, queue: i64, priority: usize, limit: usize) -> Result<Vec<SqliteRow>> {
    let sql = format!("SELECT {COLUMNS} FROM job WHERE queue = ? AND place = ? ORDER BY position LIMIT ?");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(queue).bind(offset(priority)).bind(offset(limit));
    rows.fetch_all(conn).await.map_err(failed(VERB))
}

async fn claim_from_ring(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    priority: usize,
    claim: &Claim,
    now: Timestamp,
    claimed: &mut Vec<Claimed>,
) -> Result<()> {
    let Visit::Lane(name) = ledger.lanes().visit(priority) else { return Ok(()) };
    let sql = format!(
        "SELECT {COLUMNS} FROM job WHERE queue = ? AND lane = ? AND place = {} ORDER BY position LIMIT 1",
        place::LANED
    );
    let head = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(ledger.id).bind(&name).fetch_optional(&mut *conn);
    let Some(head) = head.await.map_err(failed(VERB))? else {
        ledger.lanes().leave(&name, now);
        return Ok(());
    };
    // A damaged id can hold no ordering key.
    let ulid = read_ulid(&head, 1).unwrap_or(Ulid::nil());
    if is_expired(&head, now) || ledger.lanes().start(&name, ulid, now) {
        start(conn, ledger, claim, &head, now, claimed).await?;
    }
    Ok(())
}

/// Leases a job that waits, or buries it if its time is over.
async fn start(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    claim: &Claim,
    row: &SqliteRow,
    now: Timestamp,
    claimed: &mut Vec<Claimed>,
) -> Result<()> {
    ledger.counts.pending = ledger.counts.pending.saturating_sub(1);
    if is_expired(row, now) {
        bury(conn, ledger, &[row.get_unchecked(0)], Reason::Expired, EXPIRED_ERROR, now).await
    } else {
        lease(conn, ledger, claim, &[row], now, claimed).await
    }
}

/// Which of these rows have lanes: ulid and lane, in order.
pub(super) async fn lanes_of(
    conn: &mut SqliteConnection,
    ids: &[i64],
    operation: &'static str,
) -> Result<Vec<(Ulid, String)>> {
    let rows = sqlx::query(
        "SELECT job.ulid, job.lane FROM json_each(?) AS ids JOIN job ON job.id = ids.value
         WHERE job.lane IS NOT NULL ORDER BY ids.key",
    );
    let rows = rows.bind(json_list(ids)).fetch_all(conn).await.map_err(failed(operation))?;
    Ok(rows.iter().filter_map(|row| Some((read_ulid(row, 0)?, read_text(row, 1)?))).collect())
}

/// Jobs came to the ends of their lanes.
pub(super) async fn join(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    ids: &[i64],
    operation: &'static str,
) -> Result<()> {
    if ledger.special {
        for (_, name) in lanes_of(conn, ids, operation).await? {
            ledger.lanes().join(&name);
        }
    }
    Ok(())
}

/// The lane of one job.
pub(super) async fn lane_of(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ulid: Ulid,
    operation: &'static str,
) -> Result<Option<String>> {
    if !ledger.special {
        return Ok(None);
    }
    let row = sqlx::query("SELECT lane FROM job WHERE queue = ? AND ulid = ?");
    let row = row.bind(ledger.id).bind(ulid.to_bytes().to_vec()).fetch_optional(conn).await;
    Ok(row.map_err(failed(operation))?.and_then(|row| read_text(&row, 0)))
}

/// Changes the queue's limits; answers whether an idle worker is to be woken.
pub(super) async fn set_limits(conn: &mut SqliteConnection, queue: &Queue, limits: &Limits) -> Result<bool> {
    let mut ledger = Ledger::open(conn, queue, "set limits").await?;
    ledger.lanes().set_limits(limits.clone());
    ledger.store(conn, "set limits").await?;
    Ok(ledger.counts.pending > 0)
}
