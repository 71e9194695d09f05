//! Taking jobs in.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Clash, Enqueued};
use windlass_jobs::lanes::lane_name;
use windlass_jobs::model::Full;
use windlass_jobs::{NewJob, Queue, State, Timestamp, Ulid};

use super::batch::Batched;
use super::fault::failed;
use super::flow;
use super::ledger::{Ledger, offset};
use super::schema::place;
use super::unique;
use crate::Result;

/// Larger args lie in a table of their own, so that a claim or a finish, which write the
/// job's row anew, never write them again. Half a page: such a row still fits one.
pub(super) const INLINE_ARGS_BYTES: usize = 2 * 1024;

/// Parameters: queue, now; per job ulid, state, priority, place, position, max_attempts, kind,
/// options, labels, args, expires_at. A row per job that is answered costs as much as its insert, so that none is:
/// see [`insert`].
static INSERT: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "INSERT INTO job (queue, created_at, ulid, state, priority, place, position, max_attempts, kind, options, \
             labels, args, expires_at)
         SELECT head.queue, head.now, new.* FROM (SELECT ? AS queue, ? AS now) AS head CROSS JOIN (VALUES ",
        "(?,?,?,?,?,?,?,?,?,?,?)",
        ") AS new WHERE true ON CONFLICT (queue, ulid) DO NOTHING",
    )
});

/// A job on its way in.
struct Placed<'a> {
    job: &'a NewJob,
    state: State,
    place: i64,
    position: i64,
}

/// What became of a slice, and whether the time of a known job was moved.
pub(super) struct Accepted {
    pub(super) replies: Vec<Enqueued>,
    pub(super) moved: bool,
}

/// Accepts one slice of jobs, all or none; see
/// [`Model::enqueue`](windlass_jobs::model::Model::enqueue).
pub(super) async fn enqueue(
    conn: &mut SqliteConnection,
    queue: &Queue,
    jobs: &[NewJob],
    now: Timestamp,
) -> Result<std::result::Result<Accepted, Full>> {
    let mut ledger = Ledger::open(conn, queue, "enqueue").await?;
    if let Some(full) = check_room(conn, &ledger, jobs).await? {
        return Ok(Err(full));
    }
    let first = ledger.take_tail(jobs.len());
    let rows: Vec<Placed<'_>> = jobs.iter().enumerate().map(|(i, job)| lay(job, first + offset(i), now)).collect();
    let mut fresh = HashSet::with_capacity(jobs.len());
    let mut clashes = HashMap::new();
    let is_special = |row: &Placed<'_>| {
        let options = &row.job.options;
        options.unique.is_some() || options.depends_on.is_some() || lane_name(options, options.priority).is_some()
    };
    if rows.iter().any(is_special) {
        for (i, row) in rows.iter().enumerate() {
            if let Some(clash) = insert_special(conn, &mut ledger, row, now, &mut fresh).await? {
                clashes.insert(i, clash);
            }
        }
    } else {
        for (sql, piece) in INSERT.pieces(&rows) {
            insert(conn, sql, piece, ledger.id, now, &mut fresh).await?;
        }
    }
    let (mut replies, mut moved) = (Vec::with_capacity(jobs.len()), false);
    for (i, row) in rows.iter().enumerate() {
        let ulid = row.job.ulid;
        let clash: Option<(Clash, bool)> = clashes.remove(&i);
        moved |= clash.is_some_and(|(_, moved)| moved);
        // A second job with the id in this slice finds it gone from the set: it is known.
        let fresh = clash.is_none() && fresh.remove(&ulid);
        if fresh {
            ledger.counts.enqueued_total += 1;
            match row.state {
                State::Scheduled if row.place == place::BLOCKED => ledger.counts.blocked += 1,
                State::Scheduled => ledger.counts.scheduled += 1,
                _ => ledger.counts.pending += 1,
            }
            if row.job.args.get().len() > INLINE_ARGS_BYTES {
                insert_large(conn, ledger.id, row.job).await?;
            }
        }
        replies.push(Enqueued { fresh, clash: clash.map(|(clash, _)| clash), ..Enqueued::known(ulid) });
    }
    if replies.iter().any(|reply| reply.fresh) {
        ledger.since.get_or_insert(now);
        ledger.store(conn, "enqueue").await?;
    }
    Ok(Ok(Accepted { replies, moved }))
}

/// Inserts one job of a slice in which some have unique keys.
async fn insert_special(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    row: &Placed<'_>,
    now: Timestamp,
    fresh: &mut HashSet<Ulid>,
) -> Result<Option<(Clash, bool)>> {
    let job = row.job;
    if let Some(unique) = &job.options.unique {
        let known = sqlx::query("SELECT 1 FROM job WHERE queue = ? AND ulid = ?");
        let known = known.bind(ledger.id).bind(job.ulid.to_bytes().to_vec());
        if known.fetch_optional(&mut *conn).await.map_err(failed("enqueue"))?.is_some() {
            return Ok(None);
        }
        if let Some(clash) = unique::clash(conn, ledger.id, job, unique, now).await? {
            return Ok(Some(clash));
        }
    }
    let known = fresh.contains(&job.ulid);
    for (sql, piece) in INSERT.pieces(std::slice::from_ref(row)) {
        insert(conn, sql, piece, ledger.id, now, fresh).await?;
    }
    if known || !fresh.contains(&job.ulid) {
        return Ok(None);
    }
    if let Some(lane) = lane_name(&job.options, job.options.priority) {
        put_in_lane(conn, ledger, row, &lane).await?;
    }
    if let Some(after) = &job.options.depends_on {
        flow::hold(conn, ledger, job.ulid, after, now).await?;
    }
    if let Some(unique) = &job.options.unique {
        ledger.special = true;
        unique::hold(conn, ledger.id, job.ulid, unique, now).await?;
    }
    Ok(None)
}

async fn put_in_lane(conn: &mut SqliteConnection, ledger: &mut Ledger, row: &Placed<'_>, lane: &str) -> Result<()> {
    let waits = row.place < place::FIRST_NOT_WAITING;
    if waits {
        ledger.lanes().join(lane);
    }
    ledger.special = true;
    let update = sqlx::query("UPDATE job SET lane = ?, place = ? WHERE queue = ? AND ulid = ?");
    let update = update.bind(lane).bind(if waits { place::LANED } else { row.place }).bind(ledger.id);
    let update = update.bind(row.job.ulid.to_bytes().to_vec());
    update.execute(conn).await.map_err(failed("enqueue"))?;
    Ok(())
}

/// Parameters: queue; per job ulid. Answers how many are known.
static KNOWN: LazyLock<Batched> =
    LazyLock::new(|| Batched::new("SELECT count(*) FROM job WHERE queue = ? AND ulid IN (VALUES ", "(?)", ")"));

/// Says so when more jobs would wait than may.
async fn check_room(conn: &mut SqliteConnection, ledger: &Ledger, jobs: &[NewJob]) -> Result<Option<Full>> {
    let Some(max_waiting) = ledger.counts.max_waiting else { return Ok(None) };
    if ledger.waiting() + jobs.len() as u64 <= max_waiting {
        return Ok(None);
    }
    let ulids: Vec<Ulid> = jobs.iter().map(|job| job.ulid).collect::<HashSet<_>>().into_iter().collect();
    let mut fresh = ulids.len() as u64;
    for (sql, piece) in KNOWN.pieces(&ulids) {
        let mut query = sqlx::query_scalar::<_, i64>(sql).bind(ledger.id);
        for ulid in piece {
            query = query.bind(ulid.to_bytes().to_vec());
        }
        let known = query.fetch_one(&mut *conn).await.map_err(failed("enqueue"))?;
        fresh -= u64::try_from(known).unwrap_or(0);
    }
    Ok((fresh > 0 && ledger.waiting() + fresh > max_waiting).then_some(Full { max_waiting }))
}

/// Where a job goes, if it is new.
fn lay(job: &NewJob, tail: i64, now: Timestamp) -> Placed<'_> {
    let run_at = job.when.instant(now).filter(|at| *at > now);
    if job.options.depends_on.is_some() {
        let position = run_at.unwrap_or_default().0;
        return Placed { job, state: State::Scheduled, place: place::BLOCKED, position };
    }
    match run_at {
        Some(at) => Placed { job, state: State::Scheduled, place: place::DUE, position: at.0 },
        None => Placed { job, state: State::Pending, place: priority(job), position: tail },
    }
}

fn priority(job: &NewJob) -> i64 {
    offset(job.options.priority.index())
}

/// Inserts one piece and adds the ulids that were not known to `fresh`.
async fn insert(
    conn: &mut SqliteConnection,
    sql: &'static str,
    rows: &[Placed<'_>],
    queue: i64,
    now: Timestamp,
    fresh: &mut HashSet<Ulid>,
) -> Result<()> {
    let mut query = sqlx::query(sql).bind(queue).bind(now.0);
    for row in rows {
        let (job, options) = (row.job, &row.job.options);
        let args = job.args.get();
        query = query
            .bind(job.ulid.to_bytes().to_vec())
            .bind(row.state.as_str())
            .bind(priority(job))
            .bind(row.place)
            .bind(row.position)
            .bind(options.max_attempts.map(i64::from))
            .bind(job.kind.as_str())
            .bind(options.to_short())
            .bind((!options.labels.is_empty()).then(|| labels_text(&options.labels)))
            .bind((args.len() <= INLINE_ARGS_BYTES).then_some(args))
            .bind(options.expires.instant(now).map(|at| at.0));
    }
    let done = query.execute(&mut *conn).await.map_err(failed("enqueue"))?;
    let inserted = done.rows_affected();
    if inserted == rows.len() as u64 {
        fresh.extend(rows.iter().map(|row| row.job.ulid));
    } else if inserted > 0 {
        // SQLite gives each new row the highest id and one: these are the last ones.
        let last = done.last_insert_rowid();
        let which = sqlx::query("SELECT ulid FROM job WHERE id > ? AND id <= ?");
        let which = which.bind(last - i64::try_from(inserted).unwrap_or(0)).bind(last);
        let which = which.fetch_all(conn).await.map_err(failed("enqueue"))?;
        fresh.extend(which.iter().filter_map(|row| read_ulid(row, 0)));
    }
    Ok(())
}

async fn insert_large(conn: &mut SqliteConnection, queue: i64, job: &NewJob) -> Result<()> {
    let insert = sqlx::query("INSERT INTO large_args (job, args) SELECT id, ? FROM job WHERE queue = ? AND ulid = ?");
    let insert = insert.bind(job.args.get()).bind(queue).bind(job.ulid.to_bytes().to_vec());
    insert.execute(conn).await.map_err(failed("enqueue"))?;
    Ok(())
}

pub(super) fn labels_text(labels: &std::collections::BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).expect("a map of texts can be written as JSON")
}

/// A ulid out of a row; `None` when it is damaged.
pub(super) fn read_ulid(row: &SqliteRow, column: usize) -> Option<Ulid> {
    let bytes: Vec<u8> = row.try_get_unchecked(column).ok()?;
    Some(Ulid::from_bytes(bytes.try_into().ok()?))
}
