//! What an operator, or time, does to jobs that no worker has in hand.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{CANCELLED_ERROR, Cancel, MAX_CONTROL, TIDY_SLICE};
use windlass_jobs::{JobId, Lease, Queue, State, Timestamp, Ulid};

use super::batch::Batched;
use super::enqueue::read_ulid;
use super::exchange::{end_cancelled, json_list, move_all, read_text, trim};
use super::fault::failed;
use super::flow;
use super::lanes::{join, lane_of};
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::unique;
use crate::Result;

/// Cancels a job; see [`Model::cancel`](windlass_jobs::model::Model::cancel). Answers the
/// worker to tell too.
pub(super) async fn cancel(
    conn: &mut SqliteConnection,
    id: &JobId,
    now: Timestamp,
    keep: u64,
    // The last: something may go on that waited for it.
) -> Result<(Cancel, Option<(String, Lease)>, bool)> {
    const VERB: &str = "cancel";
    let Some(mut ledger) = Ledger::load(conn, &id.queue, VERB).await? else {
        return Ok((Cancel::Unknown, None, false));
    };
    let row = sqlx::query("SELECT id, place, state, epoch, worker FROM job WHERE queue = ? AND ulid = ?");
    let row = row.bind(ledger.id).bind(id.ulid.to_bytes().to_vec());
    let row = row.fetch_optional(&mut *conn).await.map_err(failed(VERB))?;
    let Some(row) = row else { return Ok((Cancel::Unknown, None, false)) };
    let (job, place): (i64, i64) = (row.get_unchecked(0), row.get_unchecked(1));
    let state = read_text(&row, 2).and_then(|word| word.parse::<State>().ok());
    let counts = &mut ledger.counts;
    let count = match place {
        place::DONE => return Ok((Cancel::Ended(state.unwrap_or(State::Success)), None, false)),
        place::DEAD => return Ok((Cancel::Ended(State::Failure), None, false)),
        place::LEASED => {
            request(conn, job).await?;
            let epoch = u32::try_from(row.get_unchecked::<i64, _>(3)).unwrap_or(0);
            let lease = Lease { ulid: id.ulid, epoch };
            return Ok((Cancel::Requested, read_text(&row, 4).map(|worker| (worker, lease)), false));
        }
        place::PARKED => &mut counts.parked,
        place::BLOCKED => &mut counts.blocked,
        place::DUE if state == Some(State::Retrying) => &mut counts.retrying,
        place::DUE => &mut counts.scheduled,
        _ => &mut counts.pending,
    };
    *count = count.saturating_sub(1);
    let lane = lane_of(conn, &ledger, id.ulid, VERB).await?;
    if let Some(lane) = &lane {
        ledger.lanes().let_go(lane, id.ulid, now);
    }
    if place == place::BLOCKED {
        flow::close(conn, job, VERB).await?;
    }
    end_cancelled(conn, &mut ledger, job, now, CANCELLED_ERROR, VERB).await?;
    trim(conn, &mut ledger, keep).await?;
    ledger.store(conn, VERB).await?;
    Ok((Cancel::Done, None, lane.is_some() || ledger.flows))
}

/// Notes that a running job is to be cancelled, for its worker's process to see.
async fn request(conn: &mut SqliteConnection, job: i64) -> Result<()> {
    let fail = failed("cancel");
    let mark = sqlx::query("UPDATE job SET cancel_requested = 1 WHERE id = ?").bind(job);
    mark.execute(&mut *conn).await.map_err(&fail)?;
    let forget = sqlx::query(
        "DELETE FROM cancel_request WHERE job NOT IN
             (SELECT job.id FROM cancel_request JOIN job ON job.id = cancel_request.job
              WHERE job.cancel_requested = 1 AND job.place = ?)",
    );
    forget.bind(place::LEASED).execute(&mut *conn).await.map_err(&fail)?;
    let note = sqlx::query("INSERT OR IGNORE INTO cancel_request (job) VALUES (?)").bind(job);
    note.execute(conn).await.map_err(&fail)?;
    Ok(())
}

/// The running jobs whose cancel was asked for, with their workers.
pub(super) async fn requested(conn: &mut SqliteConnection) -> Result<Vec<(String, Queue, Lease)>> {
    let rows = sqlx::query(
        "SELECT job.ulid, job.epoch, job.worker, queue.name FROM cancel_request
         JOIN job ON job.id = cancel_request.job JOIN queue ON queue.id = job.queue
         WHERE job.cancel_requested = 1 AND job.place = ?",
    );
    let rows = rows.bind(place::LEASED).fetch_all(conn).await.map_err(failed("watch"))?;
    let read =
        |row: &SqliteRow| Some((read_text(row, 2)?, read_text(row, 3)?.parse().ok()?, super::settle::read_lease(row)?));
    Ok(rows.iter().filter_map(read).collect())
}

/// Pauses or resumes; answers whether an idle worker is to be woken.
pub(super) async fn pause(conn: &mut SqliteConnection, queue: &Queue, paused: bool) -> Result<bool> {
    let mut ledger = Ledger::open(conn, queue, "pause").await?;
    ledger.counts.paused = paused;
    ledger.store(conn, "pause").await?;
    Ok(!paused && ledger.counts.pending > 0)
}

/// Bounds how many jobs may wait.
pub(super) async fn set_max_waiting(conn: &mut SqliteConnection, queue: &Queue, max: Option<u64>) -> Result<()> {
    let mut ledger = Ledger::open(conn, queue, "set_max_waiting").await?;
    ledger.counts.max_waiting = max;
    ledger.store(conn, "set_max_waiting").await
}

/// Parameters: queue; per job ulid. Answers id, ulid and place.
static FIND: LazyLock<Batched> =
    LazyLock::new(|| Batched::new("SELECT id, ulid, place FROM job WHERE queue = ? AND ulid IN (VALUES ", "(?)", ")"));

/// The ids of those jobs that lie in one of these places, in order, and per job whether it
/// does; a job named twice counts once.
async fn find(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ulids: &[Ulid],
    places: &[i64],
    operation: &'static str,
) -> Result<(Vec<bool>, Vec<(i64, i64)>)> {
    let mut found = HashMap::with_capacity(ulids.len());
    for (sql, piece) in FIND.pieces(ulids) {
        let mut query = sqlx::query(sql).bind(ledger.id);
        for ulid in piece {
            query = query.bind(ulid.to_bytes().to_vec());
        }
        for row in query.fetch_all(&mut *conn).await.map_err(failed(operation))? {
            let (id, place): (i64, i64) = (row.get_unchecked(0), row.get_unchecked(2));
            if let Some(ulid) = read_ulid(&row, 1).filter(|_| places.contains(&place)) {
                found.insert(ulid, (id, place));
            }
        }
    }
    let (mut replies, mut jobs) = (Vec::with_capacity(ulids.len()), Vec::with_capacity(found.len()));
    for ulid in ulids {
        let job = found.remove(ulid);
        replies.push(job.is_some());
        jobs.extend(job);
    }
    Ok((replies, jobs))
}

/// Lets one slice of failed jobs start anew; see
/// [`Model::replay`](windlass_jobs::model::Model::replay).
pub(super) async fn replay(conn: &mut SqliteConnection, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
    let Some(mut ledger) = Ledger::load(conn, queue, "replay").await? else { return Ok(vec![false; ulids.len()]) };
    let (replies, jobs) = find(conn, &ledger, ulids, &[place::DEAD], "replay").await?;
    let ids: Vec<i64> = jobs.iter().map(|(id, _)| *id).collect();
    super::attempts::note(conn, &ids, None, "replay").await?;
    let tail = ledger.take_tail(ids.len());
    let update = "UPDATE job SET state = 'pending', place = iif(lane IS NULL, priority, 8), position = ? + ids.key, reason = NULL,
             finished_at = NULL, expires_at = NULL, failures = 0, deliveries = 0, progress = NULL, lost = NULL,
             unknown_since = NULL, cancel_requested = 0
         FROM json_each(?) AS ids WHERE job.id = ids.value";
    move_all(conn, update, tail, &ids, "replay").await?;
    join(conn, &mut ledger, &ids, "replay").await?;
    ledger.counts.dead -= (ids.len() as u64).min(ledger.counts.dead);
    ledger.counts.pending += ids.len() as u64;
    ledger.store(conn, "replay").await?;
    Ok(replies)
}

/// Forgets one slice of terminal jobs.
pub(super) async fn delete(conn: &mut SqliteConnection, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
    let Some(mut ledger) = Ledger::load(conn, queue, "delete").await? else { return Ok(vec![false; ulids.len()]) };
    let (replies, jobs) = find(conn, &ledger, ulids, &[place::DONE, place::DEAD], "delete").await?;
    forget(conn, &mut ledger, &jobs, "delete").await?;
    Ok(replies)
}

/// Forgets terminal jobs past their time; see [`Model::tidy`](windlass_jobs::model::Model::tidy).
pub(super) async fn tidy(
    conn: &mut SqliteConnection,
    queue: &Queue,
    success: Duration,
    failure: Duration,
    now: Timestamp,
) -> Result<usize> {
    let Some(mut ledger) = Ledger::load(conn, queue, "tidy").await? else { return Ok(0) };
    unique::tidy(conn, &ledger, now).await?;
    let mut old = Vec::new();
    for (place, age) in [(place::DONE, success), (place::DEAD, failure)] {
        let oldest = sqlx::query(
            "SELECT id, finished_at FROM job WHERE queue = ? AND place = ? ORDER BY position, ulid LIMIT ?",
        );
        let oldest = oldest.bind(ledger.id).bind(place).bind(offset(TIDY_SLICE));
        let oldest = oldest.fetch_all(&mut *conn).await.map_err(failed("tidy"))?;
        let is_old = |row: &&SqliteRow| {
            let at = row.get_unchecked::<Option<i64>, _>(1).map(Timestamp);
            at.is_none_or(|at| now.since(at) >= age)
        };
        old.extend(oldest.iter().take_while(is_old).map(|row| (row.get_unchecked::<i64, _>(0), place)));
    }
    forget(conn, &mut ledger, &old, "tidy").await?;
    Ok(old.len())
}

/// Removes terminal jobs, each with its place.
async fn forget(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    jobs: &[(i64, i64)],
    operation: &'static str,
) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = jobs.iter().map(|(id, _)| *id).collect();
    let delete = sqlx::query("DELETE FROM job WHERE id IN (SELECT value FROM json_each(?))").bind(json_list(&ids));
    delete.execute(&mut *conn).await.map_err(failed(operation))?;
    let dead = jobs.iter().filter(|(_, place)| *place == place::DEAD).count() as u64;
    ledger.counts.dead -= dead.min(ledger.counts.dead);
    ledger.done -= (jobs.len() as u64 - dead).min(ledger.done);
    ledger.store(conn, operation).await
}

/// Offers parked jobs of these kinds again; see
/// [`Model::unpark`](windlass_jobs::model::Model::unpark).
pub(super) async fn unpark(conn: &mut SqliteConnection, queue: &Queue, kinds: &[String]) -> Result<usize> {
    let Some(mut ledger) = Ledger::load(conn, queue, "unpark").await? else { return Ok(0) };
    let parked = sqlx::query(
        "SELECT id FROM job WHERE queue = ? AND place = ? AND kind IN (SELECT value FROM json_each(?))
         ORDER BY position, ulid LIMIT ?",
    );
    let kinds = serde_json::to_string(kinds).expect("a list of texts can be written as JSON");
    let parked = parked.bind(ledger.id).bind(place::PARKED).bind(kinds).bind(offset(MAX_CONTROL));
    let parked = parked.fetch_all(&mut *conn).await.map_err(failed("unpark"))?;
    if parked.is_empty() {
        return Ok(0);
    }
    let ids: Vec<i64> = parked.iter().map(|row| row.get_unchecked(0)).collect();
    let tail = ledger.take_tail(ids.len());
    let update = "UPDATE job SET place = iif(lane IS NULL, priority, 8), position = ? + ids.key, unknown_since = NULL
         FROM json_each(?) AS ids WHERE job.id = ids.value";
    move_all(conn, update, tail, &ids, "unpark").await?;
    join(conn, &mut ledger, &ids, "unpark").await?;
    ledger.counts.parked -= (ids.len() as u64).min(ledger.counts.parked);
    ledger.counts.pending += ids.len() as u64;
    ledger.store(conn, "unpark").await?;
    Ok(ids.len())
}
