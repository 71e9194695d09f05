//! Jobs that wait for others; see [`windlass_jobs::flow`].

use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::SLICE;
use windlass_jobs::flow::{DependsOn, Ended, Heard, Mail, Message, News, OnFailure, dependency_error};
use windlass_jobs::{JobId, JobRecord, Options, Queue, State, Timestamp, Ulid};

use super::batch::Batched;
use super::enqueue::read_ulid;
use super::exchange::{end_cancelled, json_list, move_all, read_text, trim};
use super::fault::failed;
use super::lanes::join;
use super::ledger::{Ledger, offset};
use super::schema::place;
use crate::Result;

const VERB: &str = "receive";

/// Holds a job that was just inserted until its parents have ended, and asks each to be told.
pub(super) async fn hold(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    ulid: Ulid,
    after: &DependsOn,
    now: Timestamp,
) -> Result<()> {
    let fail = failed("enqueue");
    ledger.flows = true;
    let parents: Vec<String> = after.parents.iter().map(ToString::to_string).collect();
    let insert = sqlx::query(
        "INSERT INTO parent (job, nth, parent, open) SELECT job.id, ids.key, ids.value, 1 FROM job, json_each(?) AS ids
         WHERE job.queue = ? AND job.ulid = ?",
    );
    let insert = insert.bind(json_texts(&parents)).bind(ledger.id).bind(ulid.to_bytes().to_vec());
    insert.execute(&mut *conn).await.map_err(&fail)?;
    let messages: Vec<String> = parents.iter().map(|parent| format!("w {parent} {ulid} {}", now.0)).collect();
    put(conn, ledger.id, &messages, now, "enqueue").await
}

fn json_texts(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("a list of texts can be written as JSON")
}

/// Puts messages into the outbox.
async fn put(
    conn: &mut SqliteConnection,
    queue: i64,
    messages: &[String],
    now: Timestamp,
    operation: &'static str,
) -> Result<()> {
    let insert =
        sqlx::query("INSERT OR REPLACE INTO outbox (queue, message, due) SELECT ?, value, ? FROM json_each(?)");
    let insert = insert.bind(queue).bind(now.0).bind(json_texts(messages));
    insert.execute(conn).await.map_err(failed(operation))?;
    Ok(())
}

/// Tells those who wait for these jobs, which have just ended.
pub(super) async fn tell(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ended: &[i64],
    now: Timestamp,
    operation: &'static str,
) -> Result<()> {
    if !ledger.flows {
        return Ok(());
    }
    let children = sqlx::query(
        "SELECT job.ulid, job.state, child.child FROM json_each(?) AS ids JOIN child ON child.job = ids.value
         JOIN job ON job.id = ids.value",
    );
    let children = children.bind(json_list(ended)).fetch_all(&mut *conn).await.map_err(failed(operation))?;
    let message = |row: &SqliteRow| {
        let ended = read_text(row, 1)?.parse::<State>().ok().and_then(Ended::of)?;
        Some(format!("e {} {} {}", read_text(row, 2)?, read_ulid(row, 0)?, ended.letter()))
    };
    let messages: Vec<String> = children.iter().filter_map(message).collect();
    if messages.is_empty() { Ok(()) } else { put(conn, ledger.id, &messages, now, operation).await }
}

/// Parameters: queue; per job ulid.
static IDS: LazyLock<Batched> =
    LazyLock::new(|| Batched::new("SELECT id FROM job WHERE queue = ? AND ulid IN (VALUES ", "(?)", ")"));

/// The same of jobs by their ulids.
pub(super) async fn tell_ulids(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ended: &[Ulid],
    now: Timestamp,
) -> Result<()> {
    for (sql, piece) in IDS.pieces(ended) {
        let mut query = sqlx::query_scalar::<_, i64>(sql).bind(ledger.id);
        for ulid in piece {
            query = query.bind(ulid.to_bytes().to_vec());
        }
        let ids = query.fetch_all(&mut *conn).await.map_err(failed("exchange"))?;
        tell(conn, ledger, &ids, now, "exchange").await?;
    }
    Ok(())
}

/// A job waits for nobody any more.
pub(super) async fn close(conn: &mut SqliteConnection, job: i64, operation: &'static str) -> Result<()> {
    let update = sqlx::query("UPDATE parent SET open = 0 WHERE job = ?").bind(job);
    update.execute(conn).await.map_err(failed(operation))?;
    Ok(())
}

/// When the first message is due.
pub(super) async fn first(conn: &mut SqliteConnection, queue: i64) -> Result<Option<Timestamp>> {
    let first = sqlx::query_scalar::<_, Option<i64>>("SELECT min(due) FROM outbox WHERE queue = ?").bind(queue);
    Ok(first.fetch_one(conn).await.map_err(failed("exchange"))?.map(Timestamp))
}

/// What a queue has to say by now.
pub(super) async fn outbox(conn: &mut SqliteConnection, queue: &Queue, now: Timestamp) -> Result<Mail> {
    let due = sqlx::query(
        "SELECT message FROM outbox WHERE queue = (SELECT id FROM queue WHERE name = ?) AND due <= ?
         ORDER BY due, message LIMIT ?",
    );
    let due = due.bind(queue.as_str()).bind(now.0).bind(offset(SLICE));
    let due = due.fetch_all(conn).await.map_err(failed("read outbox"))?;
    Ok(Mail { now, messages: due.iter().filter_map(|row| Message::parse(queue, &read_text(row, 0)?)).collect() })
}

/// Takes messages off the outbox, and puts off others.
pub(super) async fn sent(
    conn: &mut SqliteConnection,
    queue: &Queue,
    done: &[Message],
    again: &[Message],
    later: Timestamp,
) -> Result<()> {
    let fail = failed("write outbox");
    let texts = |messages: &[Message]| json_texts(&messages.iter().map(ToString::to_string).collect::<Vec<_>>());
    let of = "queue = (SELECT id FROM queue WHERE name = ?) AND message IN (SELECT value FROM json_each(?))";
    let delete = sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM outbox WHERE {of}")));
    delete.bind(queue.as_str()).bind(texts(done)).execute(&mut *conn).await.map_err(&fail)?;
    if !again.is_empty() {
        let update = sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE outbox SET due = ? WHERE {of}")));
        update.bind(later.0).bind(queue.as_str()).bind(texts(again)).execute(conn).await.map_err(&fail)?;
    }
    Ok(())
}

/// Hears messages; answers each, and whether an idle worker is to be woken.
pub(super) async fn receive(
    conn: &mut SqliteConnection,
    queue: &Queue,
    messages: &[Message],
    now: Timestamp,
    keep: u64,
) -> Result<(Vec<Heard>, bool)> {
    let Some(mut ledger) = Ledger::load(conn, queue, VERB).await? else {
        let hear = |message: &Message| match message.news {
            News::Waits(_) => Heard::Ended(Ended::Unknown),
            News::Ended(_) => Heard::Noted,
        };
        return Ok((messages.iter().map(hear).collect(), false));
    };
    let (mut heard, mut news) = (Vec::with_capacity(messages.len()), false);
    for message in messages {
        heard.push(match message.news {
            News::Waits(_) => note_child(conn, &mut ledger, message.to.ulid, &message.from).await?,
            News::Ended(ended) => {
                news |= parent_ended(conn, &mut ledger, message.to.ulid, &message.from, ended, now).await?;
                Heard::Noted
            }
        });
    }
    trim(conn, &mut ledger, keep).await?;
    ledger.store(conn, VERB).await?;
    Ok((heard, news))
}

/// The id, place, position and options of a job.
async fn find(conn: &mut SqliteConnection, ledger: &Ledger, ulid: Ulid) -> Result<Option<SqliteRow>> {
    let row = sqlx::query("SELECT id, state, place, position, options FROM job WHERE queue = ? AND ulid = ?");
    let row = row.bind(ledger.id).bind(ulid.to_bytes().to_vec());
    row.fetch_optional(conn).await.map_err(failed(VERB))
}

async fn note_child(conn: &mut SqliteConnection, ledger: &mut Ledger, ulid: Ulid, child: &JobId) -> Result<Heard> {
    let Some(row) = find(conn, ledger, ulid).await? else { return Ok(Heard::Ended(Ended::Unknown)) };
    ledger.flows = true;
    let insert = sqlx::query("INSERT OR IGNORE INTO child (job, child) VALUES (?, ?)");
    let insert = insert.bind(row.get_unchecked::<i64, _>(0)).bind(child.to_string());
    insert.execute(conn).await.map_err(failed(VERB))?;
    let state = read_text(&row, 1).and_then(|word| word.parse::<State>().ok());
    Ok(state.and_then(Ended::of).map_or(Heard::Noted, Heard::Ended))
}

/// Answers whether the job waits no longer.
async fn parent_ended(
    conn: &mut SqliteConnection,
    ledger: &mut Ledger,
    ulid: Ulid,
    parent: &JobId,
    ended: Ended,
    now: Timestamp,
) -> Result<bool> {
    let fail = failed(VERB);
    let Some(row) = find(conn, ledger, ulid).await? else { return Ok(false) };
    let (job, place, run_at): (i64, i64, i64) = (row.get_unchecked(0), row.get_unchecked(2), row.get_unchecked(3));
    let update = sqlx::query("UPDATE parent SET open = 0 WHERE job = ? AND parent = ? AND open = 1");
    let closed = update.bind(job).bind(parent.to_string()).execute(&mut *conn).await.map_err(&fail)?.rows_affected();
    if place != place::BLOCKED || closed == 0 {
        return Ok(false);
    }
    let mut options = Options::default();
    // A word that cannot be read buries the job when a worker claims it.
    let _ = options.read_short(&read_text(&row, 4).unwrap_or_default());
    let runs = options.depends_on.is_some_and(|after| after.on_failure == OnFailure::Run);
    if ended != Ended::Success && !runs {
        close(conn, job, VERB).await?;
        ledger.counts.blocked = ledger.counts.blocked.saturating_sub(1);
        end_cancelled(conn, ledger, job, now, &dependency_error(parent, ended), VERB).await?;
        return Ok(true);
    }
    let open = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM parent WHERE job = ? AND open = 1)");
    if open.bind(job).fetch_one(&mut *conn).await.map_err(&fail)? {
        return Ok(false);
    }
    ledger.counts.blocked = ledger.counts.blocked.saturating_sub(1);
    if run_at > now.0 {
        ledger.counts.scheduled += 1;
        let update = sqlx::query("UPDATE job SET place = ? WHERE id = ?").bind(place::DUE).bind(job);
        update.execute(conn).await.map_err(&fail)?;
    } else {
        ledger.counts.pending += 1;
        let update = "UPDATE job SET state = 'pending', place = iif(lane IS NULL, priority, 8), position = ? + ids.key
             FROM json_each(?) AS ids WHERE job.id = ids.value";
        let tail = ledger.take_tail(1);
        move_all(conn, update, tail, &[job], VERB).await?;
        join(conn, ledger, &[job], VERB).await?;
    }
    Ok(true)
}

/// Fills in what a job depends on, and what depends on it.
pub(super) async fn read_ties(conn: &mut SqliteConnection, job: i64, record: &mut JobRecord) -> Result<()> {
    let fail = failed("get");
    let parents = sqlx::query("SELECT parent, open FROM parent WHERE job = ? ORDER BY nth").bind(job);
    let parents = parents.fetch_all(&mut *conn).await.map_err(&fail)?;
    record.waits_for = parents.iter().map(|row| u32::from(row.get_unchecked::<bool, _>(1))).sum();
    if let Some(after) = &mut record.options.depends_on {
        after.parents = parents.iter().filter_map(|row| read_text(row, 0)?.parse().ok()).collect();
    }
    let children = sqlx::query("SELECT child FROM child WHERE job = ?").bind(job);
    let children = children.fetch_all(conn).await.map_err(&fail)?;
    record.children = children.iter().filter_map(|row| read_text(row, 0)?.parse().ok()).collect();
    record.children.sort();
    Ok(())
}
