//! Reading: one job, pages of a list, queues and workers. Never takes the write lock.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::{Filter, Found, MAX_PAGE, Page, SEARCH_WINDOW, WorkerInfo};
use windlass_jobs::lanes::Lane;
use windlass_jobs::{
    DEFAULT_MAX_ATTEMPTS, JobId, JobRecord, Options, Priority, Progress, Queue, State, Timestamp, millis,
};

use super::enqueue::read_ulid;
use super::exchange::read_text;
use super::fault::failed;
use super::flow;
use super::schema::place;
use crate::Result;

/// One job. What is damaged in it reads as absent: its kind as `""`.
pub(super) async fn get(conn: &mut SqliteConnection, id: &JobId) -> Result<Option<JobRecord>> {
    let row = sqlx::query(
        "SELECT kind, coalesce(job.args, large_args.args), state, reason, failures, max_attempts, epoch, deliveries,
             priority, options, labels, created_at, place, position, started_at, finished_at, worker, progress, result,
             skipped, error, expires_at, cancel_requested, unique_key, lane, job.id, queue.flows
         FROM job JOIN queue ON queue.id = job.queue LEFT JOIN large_args ON large_args.job = job.id
         WHERE queue.name = ? AND job.ulid = ?",
    );
    let row = row.bind(id.queue.as_str()).bind(id.ulid.to_bytes().to_vec());
    let row = row.fetch_optional(&mut *conn).await.map_err(failed("get"))?;
    let Some(row) = row else { return Ok(None) };
    let mut record = read_record(&row, id);
    if row.get_unchecked::<bool, _>(26) {
        flow::read_ties(conn, row.get_unchecked(25), &mut record).await?;
    }
    Ok(Some(record))
}

fn read_record(row: &SqliteRow, id: &JobId) -> JobRecord {
    let number = |i: usize| row.get_unchecked::<Option<i64>, _>(i);
    let small = |i: usize| number(i).and_then(|n| u32::try_from(n).ok());
    let instant = |i: usize| number(i).map(Timestamp);
    let max_attempts = small(5);
    let (kind, args) = match (read_text(row, 0), read_text(row, 1)) {
        (Some(kind), Some(args)) => (kind, args),
        _ => (String::new(), String::new()),
    };
    let state = read_text(row, 2).and_then(|word| word.parse().ok()).unwrap_or(State::Pending);
    let (error, earlier) = windlass_jobs::attempts::read(&read_text(row, 20).unwrap_or_default());
    JobRecord {
        id: id.clone(),
        kind,
        args,
        state,
        reason: read_text(row, 3).and_then(|word| word.parse().ok()),
        failures: small(4).unwrap_or(0),
        max_attempts: max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
        epoch: small(6).unwrap_or(0),
        deliveries: small(7).unwrap_or(0),
        options: read_options(row, max_attempts),
        created_at: instant(11).unwrap_or_default(),
        run_at: instant(13).filter(|at| match number(12) {
            Some(place::DUE) => true,
            Some(place::BLOCKED) => at.0 > 0,
            _ => false,
        }),
        expires_at: instant(21),
        cancel_requested: state == State::Running && number(22) == Some(1),
        started_at: instant(14),
        finished_at: instant(15),
        worker: read_text(row, 16),
        progress: read_text(row, 17).map(|short| Progress::from_short(&short)),
        result: read_text(row, 18),
        skipped: number(19) == Some(1),
        error,
        earlier,
        waits_for: 0,
        children: Vec::new(),
    }
}

fn read_options(row: &SqliteRow, max_attempts: Option<u32>) -> Options {
    let priority = row.get_unchecked::<i64, _>(8);
    let priority = usize::try_from(priority).ok().and_then(|i| Priority::ALL.get(i)).copied();
    let labels: Option<BTreeMap<_, _>> = read_text(row, 10).and_then(|text| serde_json::from_str(&text).ok());
    let mut options = Options {
        priority: priority.unwrap_or_default(),
        max_attempts,
        labels: labels.unwrap_or_default(),
        ..Options::default()
    };
    // A word that cannot be read leaves that option at its default; the worker, which must
    // not guess, refuses the job instead.
    let short = read_text(row, 9).unwrap_or_default();
    let _ = options.read_short(&short);
    options.read_unique(&short, read_text(row, 23).as_deref());
    if let Some(name) = read_text(row, 24) {
        let key = |key: &str| (!key.is_empty()).then(|| key.to_owned());
        let lane = Lane::parse(&name);
        (options.tenant, options.ordering_key) = (key(lane.tenant), key(lane.ordering));
        (options.concurrency_key, options.rate_key) = (key(lane.concurrency), key(lane.rate));
    }
    options
}

/// One page of a list; the cursor is how many ids lie before it.
pub(super) async fn list(
    conn: &mut SqliteConnection,
    queue: &Queue,
    state: State,
    cursor: u64,
    limit: usize,
) -> Result<Page> {
    let limit = limit.clamp(1, MAX_PAGE);
    let (from, to) = places(state);
    let more = place_after(conn, queue, state).await?;
    let sql = list_sql("ulid", from, more);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(queue.as_str())
        .bind(from)
        .bind(to)
        .bind(i64::try_from(limit + 1).unwrap_or(i64::MAX))
        .bind(i64::try_from(cursor).unwrap_or(i64::MAX));
    let rows = rows.fetch_all(conn).await.map_err(failed("list"))?;
    let next = (rows.len() > limit).then(|| cursor.saturating_add(limit as u64));
    Ok(Page { ids: rows.iter().take(limit).filter_map(|row| read_ulid(row, 0)).collect(), next })
}

/// The place of the jobs that come after the others of a list, if there may be such: in lanes, or
/// waiting for other jobs.
async fn place_after(conn: &mut SqliteConnection, queue: &Queue, state: State) -> Result<Option<i64>> {
    let (sql, place) = match state {
        State::Pending => ("SELECT special <> 0 FROM queue WHERE name = ?", place::LANED),
        State::Scheduled | State::Retrying => ("SELECT flows <> 0 FROM queue WHERE name = ?", place::BLOCKED),
        _ => return Ok(None),
    };
    let any = sqlx::query_scalar::<_, bool>(sql).bind(queue.as_str()).fetch_optional(conn);
    Ok(any.await.map_err(failed("list"))?.unwrap_or(false).then_some(place))
}

/// The first and last place of the list that holds the jobs in a state.
const fn places(state: State) -> (i64, i64) {
    match state {
        State::Pending => (0, place::FIRST_NOT_WAITING - 1),
        State::Scheduled | State::Retrying => (place::DUE, place::DUE),
        State::Running => (place::LEASED, place::LEASED),
        State::Success | State::Cancelled => (place::DONE, place::DONE),
        State::Failure => (place::DEAD, place::DEAD),
    }
}

/// Reads entries of a list in its order. Parameters: queue, first and last place, how many, how
/// many before them. `after`: the place of those that come after the others, in lanes by the lanes'
/// names.
fn list_sql(columns: &str, from: i64, after: Option<i64>) -> String {
    if let Some(after) = after {
        let lane = if after == place::LANED { "lane, " } else { "" };
        return format!(
            "SELECT {columns} FROM job WHERE queue = (SELECT id FROM queue WHERE name = ?)
             AND (place BETWEEN ? AND ? OR place = {after}) ORDER BY place, {lane}position, ulid LIMIT ? OFFSET ?"
        );
    }
    let order = match from {
        place::DONE | place::DEAD => "place DESC, position DESC, ulid DESC",
        _ => "place, position, ulid",
    };
    format!(
        "SELECT {columns} FROM job WHERE queue = (SELECT id FROM queue WHERE name = ?) AND place BETWEEN ? AND ?
         ORDER BY {order} LIMIT ? OFFSET ?"
    )
}

/// Jobs a filter wants, from entry `cursor` of their list to the end of the window.
pub(super) async fn search(
    conn: &mut SqliteConnection,
    queue: &Queue,
    filter: &Filter,
    cursor: u64,
    limit: usize,
) -> Result<Found> {
    let (from, to) = if filter.parked { (place::PARKED, place::PARKED) } else { places(filter.state) };
    let limit = limit.clamp(1, MAX_PAGE);
    let mut found = Found { beyond: cursor >= SEARCH_WINDOW, ..Found::default() };
    let Some(entries) = SEARCH_WINDOW.checked_sub(cursor).filter(|n| *n > 0) else { return Ok(found) };
    let after = if filter.parked { None } else { place_after(conn, queue, filter.state).await? };
    let sql = list_sql("ulid, state, kind, labels", from, after);
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(queue.as_str())
        .bind(from)
        .bind(to)
        .bind(i64::try_from(entries + 1).unwrap_or(i64::MAX))
        .bind(i64::try_from(cursor).unwrap_or(i64::MAX))
        .fetch(conn);
    let mut at = cursor;
    while let Some(row) = rows.try_next().await.map_err(failed("search"))? {
        if at == SEARCH_WINDOW {
            found.beyond = true;
            return Ok(found);
        }
        if found.ids.len() == limit {
            found.next = Some(at);
            return Ok(found);
        }
        if is_wanted(&row, filter) {
            found.ids.extend(read_ulid(&row, 0));
        }
        at += 1;
    }
    Ok(found)
}

fn is_wanted(row: &SqliteRow, filter: &Filter) -> bool {
    let state = read_text(row, 1).and_then(|word| word.parse().ok()).unwrap_or(State::Pending);
    let Some(kind) = read_text(row, 2) else { return false };
    if state != filter.state || filter.kind.as_ref().is_some_and(|wanted| *wanted != kind) {
        return false;
    }
    let labels = || read_text(row, 3).and_then(|text| serde_json::from_str::<BTreeMap<String, String>>(&text).ok());
    filter.labels.is_empty()
        || labels().is_some_and(|labels| filter.labels.iter().all(|(name, value)| labels.get(name) == Some(value)))
}

/// Every queue, by name.
pub(super) async fn queues(conn: &mut SqliteConnection) -> Result<Vec<Queue>> {
    let names = sqlx::query("SELECT name FROM queue ORDER BY name").fetch_all(conn).await.map_err(failed("queues"))?;
    Ok(names.iter().filter_map(|row| read_text(row, 0)?.parse().ok()).collect())
}

/// The workers that are still there, by name.
pub(super) async fn workers(conn: &mut SqliteConnection, now: Timestamp) -> Result<Vec<WorkerInfo>> {
    let rows = sqlx::query("SELECT info, seen_at FROM worker WHERE seen_at >= ? ORDER BY name").bind(gone_before(now));
    let rows = rows.fetch_all(conn).await.map_err(failed("workers"))?;
    let read = |row: &SqliteRow| {
        let info: WorkerInfo = serde_json::from_str(&read_text(row, 0)?).ok()?;
        Some(WorkerInfo { seen_at: Timestamp(row.get_unchecked(1)), ..info })
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// Writes a worker and its queues; forgets the workers that are gone.
pub(super) async fn announce(conn: &mut SqliteConnection, worker: &WorkerInfo, now: Timestamp) -> Result<()> {
    let fail = failed("announce");
    for queue in &worker.queues {
        let insert = sqlx::query("INSERT INTO queue (name) VALUES (?) ON CONFLICT DO NOTHING").bind(queue.as_str());
        insert.execute(&mut *conn).await.map_err(&fail)?;
    }
    let info = serde_json::to_string(worker).expect("a worker's fields can be written as JSON");
    let upsert = sqlx::query("INSERT OR REPLACE INTO worker (name, seen_at, info) VALUES (?, ?, ?)");
    upsert.bind(&worker.name).bind(now.0).bind(info).execute(&mut *conn).await.map_err(&fail)?;
    let forget = sqlx::query("DELETE FROM worker WHERE seen_at < ?").bind(gone_before(now));
    forget.execute(conn).await.map_err(&fail)?;
    Ok(())
}

/// Takes a worker off the list.
pub(super) async fn retire(conn: &mut SqliteConnection, worker: &str) -> Result<()> {
    let delete = sqlx::query("DELETE FROM worker WHERE name = ?").bind(worker);
    delete.execute(conn).await.map_err(failed("retire"))?;
    Ok(())
}

fn gone_before(now: Timestamp) -> i64 {
    now.0.saturating_sub(millis(WorkerInfo::GONE_AFTER))
}
