//! Taking back what became of claimed jobs: one statement for plain successes, one for the
//! rest of a batch.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::attempts::{End, Entry, with_entry, with_error};
use windlass_jobs::command::{Ack, CANCELLED_ERROR, Finish, Settle};
use windlass_jobs::{Lease, State, Timestamp, Ulid};

use super::batch::Batched;
use super::enqueue::read_ulid;
use super::exchange::{firsts, read_text};
use super::fault::failed;
use super::flow;
use super::held::prove_alive;
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::unique;
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

/// Parameters: queue; per job ulid, epoch. Answers ulid and epoch of those held, and what
/// decides where they go.
static HELD: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "SELECT job.ulid, job.epoch, job.cancel_requested, job.unknown_since, job.error, job.started_at, job.worker
         FROM (SELECT ? AS queue) AS head CROSS JOIN (VALUES ",
        "(?,?)",
        &format!(
            ") AS held CROSS JOIN job ON job.queue = head.queue AND job.ulid = held.column1
                 AND job.epoch = held.column2 AND job.place = {}",
            place::LEASED
        ),
    )
});

/// Parameters: queue; per job ulid, state, place (null: its priority's), position, finished_at,
/// returned (1 takes the delivery back), off (1 clears the progress), cancelled (1 clears the
/// request), failures, skipped, reason, error, result, unknown_since. A null in failures, error
/// or unknown_since leaves the column alone.
static SETTLE: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "UPDATE job SET state = held.column2, place = coalesce(held.column3, iif(lane IS NULL, priority, 8)), position = held.column4,
             finished_at = held.column5, deliveries = deliveries - held.column6,
             progress = CASE held.column7 WHEN 1 THEN NULL ELSE progress END,
             cancel_requested = CASE held.column8 WHEN 1 THEN 0 ELSE cancel_requested END,
             failures = coalesce(held.column9, failures), skipped = held.column10, reason = held.column11,
             error = coalesce(held.column12, error), result = held.column13,
             unknown_since = coalesce(held.column14, unknown_since)
         FROM (SELECT ? AS queue) AS head, (VALUES ",
        "(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        ") AS held WHERE job.queue = head.queue AND job.ulid = held.column1",
    )
});

/// Parameters: queue; per job ulid.
static LANES: LazyLock<Batched> = LazyLock::new(|| {
    let before = "SELECT ulid, lane, place FROM job WHERE queue = ? AND lane IS NOT NULL AND ulid IN (VALUES ";
    Batched::new(before, "(?)", ")")
});

/// A finish with where its job may go.
#[derive(Clone, Copy)]
struct Placed<'a> {
    finish: &'a Finish,
    /// Its place among those released, if it is.
    front: i64,
    /// Its place among successes and cancelled jobs, if it comes to lie there.
    done: i64,
}

/// What decides where a held job goes.
struct Held {
    cancel_requested: bool,
    unknown_since: Option<Timestamp>,
    /// Its error, and its attempts before this one.
    error: String,
    started_at: Timestamp,
    worker: String,
}

/// Where a held job goes.
struct Move<'a> {
    lease: Lease,
    state: State,
    /// `None`: back to the list of its priority.
    place: Option<i64>,
    position: i64,
    failures: Option<u32>,
    skipped: bool,
    reason: Option<&'static str>,
    error: Option<String>,
    result: Option<&'a str>,
    unknown_since: Option<Timestamp>,
    runs_again: bool,
}

/// Takes finishes; one ack each, in order. A lease named twice is taken once.
pub(super) async fn settle(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    finishes: &[Finish],
    now: Timestamp,
    front: &mut Vec<(Ulid, String)>,
) -> Result<Vec<Ack>> {
    let (plain, rest) = lay(ledger, finishes);
    // Where each held job went.
    let mut ends: HashMap<Lease, State> = HashMap::with_capacity(finishes.len());
    for (sql, piece) in SUCCEED.pieces(&plain) {
        succeed(conn, sql, piece, ledger.id, now, &mut ends).await?;
    }
    count_succeeded(ledger, ends.len() as u64);
    let mut moves = Vec::with_capacity(rest.len());
    for (sql, piece) in HELD.pieces(&rest) {
        let held = read_held(conn, sql, piece, ledger.id).await?;
        moves.extend(piece.iter().filter_map(|placed| Some(decide(*placed, held.get(&placed.finish.lease)?, now))));
    }
    for (sql, piece) in SETTLE.pieces(&moves) {
        move_on(conn, sql, piece, ledger.id, now).await?;
    }
    for m in &moves {
        count(ledger, m);
        ends.insert(m.lease, m.state);
    }
    if ledger.flows {
        let ended: Vec<Ulid> =
            ends.iter().filter(|(_, state)| state.is_terminal()).map(|(lease, _)| lease.ulid).collect();
        flow::tell_ulids(conn, ledger, &ended, now).await?;
    }
    if ledger.special {
        let ended = ends.iter().filter(|(_, state)| state.is_terminal());
        let ended: Vec<Ulid> = ended.map(|(lease, _)| lease.ulid).collect();
        unique::let_go(conn, ledger, &ended, VERB).await?;
    }
    let mut runs = if ledger.special { runs_in_lanes(conn, ledger.id, &ends).await? } else { HashMap::new() };
    let mut acks = Vec::with_capacity(finishes.len());
    let mut first = firsts(finishes.iter().map(|finish| finish.lease)).into_iter();
    for finish in finishes {
        let taken = first.next() == Some(true) && ends.contains_key(&finish.lease);
        acks.push(if taken { Ack::Taken } else { Ack::Stale });
        if let Some((name, again)) = runs.remove(&finish.lease).filter(|_| taken) {
            ledger.lanes().finished(&name, finish.lease.ulid, again, now);
            if finish.settle == Settle::Release && again {
                front.push((finish.lease.ulid, name));
            }
        }
    }
    hear_stale(conn, ledger.id, finishes, &acks, &ends).await?;
    Ok(acks)
}

/// The lanes of the runs that have ended, and whether their jobs will run again.
async fn runs_in_lanes(
    conn: &mut SqliteConnection,
    queue: i64,
    ends: &HashMap<Lease, State>,
) -> Result<HashMap<Lease, (String, bool)>> {
    let mut runs = HashMap::new();
    let leases: Vec<Lease> = ends.keys().copied().collect();
    for (sql, piece) in LANES.pieces(&leases) {
        let mut query = sqlx::query(sql).bind(queue);
        for lease in piece {
            query = query.bind(lease.ulid.to_bytes().to_vec());
        }
        for row in query.fetch_all(&mut *conn).await.map_err(failed(VERB))? {
            let (Some(ulid), Some(name)) = (read_ulid(&row, 0), read_text(&row, 1)) else { continue };
            let place = row.get_unchecked::<i64, _>(2);
            let again = !matches!(place, place::DONE | place::DEAD | place::PARKED);
            let of = piece.iter().find(|lease| lease.ulid == ulid);
            runs.extend(of.map(|lease| (*lease, (name, again))));
        }
    }
    Ok(runs)
}

/// Gives each finish its places, and tells plain successes from the rest. Positions of those
/// that are refused or go elsewhere stay unused.
fn lay<'a>(ledger: &mut Ledger, finishes: &'a [Finish]) -> (Vec<Placed<'a>>, Vec<Placed<'a>>) {
    let is_release = |finish: &&Finish| finish.settle == Settle::Release;
    let mut front = ledger.take_front(finishes.iter().filter(is_release).count());
    let done = ledger.take_done(finishes.len());
    let first = firsts(finishes.iter().map(|finish| finish.lease));
    let (mut plain, mut rest) = (Vec::with_capacity(finishes.len()), Vec::new());
    for (i, finish) in finishes.iter().enumerate().filter(|(i, _)| first[*i]) {
        let placed = Placed { finish, front, done: done + offset(i) };
        if is_release(&finish) {
            front += 1;
        }
        match finish.settle {
            Settle::Success { skipped: false, .. } => plain.push(placed),
            _ => rest.push(placed),
        }
    }
    (plain, rest)
}

/// What becomes of a held job; see [`Model::exchange`](windlass_jobs::model::Model::exchange).
fn decide<'a>(placed: Placed<'a>, held: &Held, now: Timestamp) -> Move<'a> {
    let Placed { finish, front, done } = placed;
    let runs_again = finish.settle.runs_again();
    let to = |state, place, position| Move {
        lease: finish.lease,
        state,
        place,
        position,
        failures: None,
        skipped: false,
        reason: None,
        error: None,
        result: None,
        unknown_since: None,
        runs_again,
    };
    let due = |state, delay| to(state, Some(place::DUE), now.plus(delay).0);
    let another = |error: &str| Some(with_error(&held.error, error));
    if runs_again && held.cancel_requested {
        return Move { error: another(CANCELLED_ERROR), ..to(State::Cancelled, Some(place::DONE), done) };
    }
    match &finish.settle {
        Settle::Success { result, skipped } => {
            Move { result: result.as_deref(), skipped: *skipped, ..to(State::Success, Some(place::DONE), done) }
        }
        Settle::Failure { reason, failures, error } => {
            let (reason, error) = (Some(reason.as_str()), another(error));
            Move { failures: Some(*failures), reason, error, ..to(State::Failure, Some(place::DEAD), now.0) }
        }
        Settle::Retry { delay, failures, error } => {
            let entry = Entry {
                run: finish.lease.epoch,
                attempt: *failures,
                started_at: held.started_at,
                ended_at: now,
                end: End::Retried,
                worker: held.worker.clone(),
                error: serde_json::from_str(error).ok(),
            };
            let error = Some(with_entry(&with_error(&held.error, error), entry));
            Move { failures: Some(*failures), error, ..due(State::Retrying, *delay) }
        }
        Settle::Snooze { delay } => due(State::Scheduled, *delay),
        Settle::Cancelled { error } => Move { error: another(error), ..to(State::Cancelled, Some(place::DONE), done) },
        Settle::Release => to(State::Pending, None, front),
        Settle::Unknown { delay, park_after } => {
            let since = held.unknown_since.unwrap_or(now);
            let m = if now.since(since) >= *park_after {
                to(State::Pending, Some(place::PARKED), 0)
            } else {
                due(State::Scheduled, *delay)
            };
            Move { unknown_since: Some(since), ..m }
        }
    }
}

async fn read_held(
    conn: &mut SqliteConnection,
    sql: &'static str,
    placed: &[Placed<'_>],
    queue: i64,
) -> Result<HashMap<Lease, Held>> {
    let mut query = sqlx::query(sql).bind(queue);
    for Placed { finish, .. } in placed {
        query = query.bind(finish.lease.ulid.to_bytes().to_vec()).bind(i64::from(finish.lease.epoch));
    }
    let rows = query.fetch_all(conn).await.map_err(failed(VERB))?;
    let read = |row: &SqliteRow| {
        let unknown_since = row.get_unchecked::<Option<i64>, _>(3).map(Timestamp);
        let held = Held {
            cancel_requested: row.get_unchecked::<i64, _>(2) != 0,
            unknown_since,
            error: read_text(row, 4).unwrap_or_default(),
            started_at: Timestamp(row.get_unchecked::<Option<i64>, _>(5).unwrap_or(0)),
            worker: read_text(row, 6).unwrap_or_default(),
        };
        Some((read_lease(row)?, held))
    };
    Ok(rows.iter().filter_map(read).collect())
}

async fn succeed(
    conn: &mut SqliteConnection,
    sql: &'static str,
    moves: &[Placed<'_>],
    queue: i64,
    now: Timestamp,
    ends: &mut HashMap<Lease, State>,
) -> Result<()> {
    let mut query = sqlx::query(sql).bind(queue).bind(now.0);
    for m in moves {
        let Settle::Success { result, .. } = &m.finish.settle else { continue };
        query = query
            .bind(m.finish.lease.ulid.to_bytes().to_vec())
            .bind(i64::from(m.finish.lease.epoch))
            .bind(m.done)
            .bind(result.as_deref());
    }
    let taken = query.execute(&mut *conn).await.map_err(failed(VERB))?.rows_affected();
    if taken == moves.len() as u64 {
        ends.extend(moves.iter().map(|m| (m.finish.lease, State::Success)));
    } else if let (Some(first), Some(last)) = (moves.first(), moves.last()) {
        let which = sqlx::query(SUCCEEDED.as_str()).bind(queue).bind(first.done).bind(last.done);
        let rows = which.fetch_all(conn).await.map_err(failed(VERB))?;
        ends.extend(rows.iter().filter_map(read_lease).map(|lease| (lease, State::Success)));
    }
    Ok(())
}

async fn move_on(
    conn: &mut SqliteConnection,
    sql: &'static str,
    moves: &[Move<'_>],
    queue: i64,
    now: Timestamp,
) -> Result<()> {
    let mut query = sqlx::query(sql).bind(queue);
    for m in moves {
        query = query
            .bind(m.lease.ulid.to_bytes().to_vec())
            .bind(m.state.as_str())
            .bind(m.place)
            .bind(m.position)
            .bind(m.state.is_terminal().then_some(now.0))
            .bind(i64::from(m.runs_again))
            .bind(i64::from(!m.state.is_terminal()))
            .bind(i64::from(m.state == State::Cancelled))
            .bind(m.failures.map(i64::from))
            .bind(m.skipped)
            .bind(m.reason)
            .bind(m.error.as_deref())
            .bind(m.result)
            .bind(m.unknown_since.map(|at| at.0));
    }
    query.execute(conn).await.map_err(failed(VERB))?;
    Ok(())
}

/// Workers that were refused prove alive, unless an earlier finish of the batch ended the job.
async fn hear_stale(
    conn: &mut SqliteConnection,
    queue: i64,
    finishes: &[Finish],
    acks: &[Ack],
    ends: &HashMap<Lease, State>,
) -> Result<()> {
    if acks.iter().all(|ack| *ack == Ack::Taken) {
        return Ok(());
    }
    let is_ended = |lease: &Lease| ends.get(lease).is_some_and(|state| state.is_terminal());
    let mut later: HashSet<Ulid> = ends.keys().filter(|lease| is_ended(lease)).map(|lease| lease.ulid).collect();
    for (finish, ack) in finishes.iter().zip(acks) {
        if *ack == Ack::Taken {
            later.remove(&finish.lease.ulid);
        } else {
            prove_alive(conn, queue, finish.lease, later.contains(&finish.lease.ulid), VERB).await?;
        }
    }
    Ok(())
}

/// The lease a row that begins with ulid and epoch answers.
pub(super) fn read_lease(row: &SqliteRow) -> Option<Lease> {
    let epoch = u32::try_from(row.get_unchecked::<i64, _>(1)).ok()?;
    Some(Lease { ulid: read_ulid(row, 0)?, epoch })
}

const fn count_succeeded(ledger: &mut Ledger, n: u64) {
    let counts = &mut ledger.counts;
    counts.running = counts.running.saturating_sub(n);
    counts.success_total += n;
    ledger.done += n;
}

fn count(ledger: &mut Ledger, m: &Move<'_>) {
    if m.place == Some(place::DUE) {
        let at = Timestamp(m.position);
        ledger.first_due = Some(ledger.first_due.map_or(at, |first| first.min(at)));
    }
    let counts = &mut ledger.counts;
    counts.running = counts.running.saturating_sub(1);
    match m.state {
        State::Retrying => {
            counts.retried_total += 1;
            counts.retrying += 1;
        }
        State::Scheduled => counts.scheduled += 1,
        _ if m.place == Some(place::PARKED) => counts.parked += 1,
        State::Pending => counts.pending += 1,
        ended => ledger.count_ended(ended),
    }
}
