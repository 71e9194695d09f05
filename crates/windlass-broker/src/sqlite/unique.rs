//! Unique keys: who holds one, and what a second job with it does.

use std::sync::LazyLock;

use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::Clash;
use windlass_jobs::{NewJob, OnClash, State, Timestamp, Ulid, Unique};

use super::batch::Batched;
use super::enqueue::{INLINE_ARGS_BYTES, labels_text, read_ulid};
use super::exchange::{json_list, read_text};
use super::fault::failed;
use super::ledger::Ledger;
use super::schema::place;
use crate::Result;

const VERB: &str = "enqueue";

/// What a job whose unique key is held does to the holder; `None`: the key is free. The second
/// answer: the holder's time has moved.
pub(super) async fn clash(
    conn: &mut SqliteConnection,
    queue: i64,
    new: &NewJob,
    unique: &Unique,
    now: Timestamp,
) -> Result<Option<(Clash, bool)>> {
    let row = sqlx::query(
        "SELECT unique_key.ulid, job.id, job.place, job.state, job.created_at,
             job.options LIKE '%after=%' FROM unique_key
         LEFT JOIN job ON job.queue = unique_key.queue AND job.ulid = unique_key.ulid
         WHERE unique_key.queue = ? AND unique_key.key = ? AND unique_key.until > ?",
    );
    let row = row.bind(queue).bind(&unique.key).bind(now.0).fetch_optional(&mut *conn).await.map_err(failed(VERB))?;
    let Some(row) = row else { return Ok(None) };
    let Some(with) = read_ulid(&row, 0) else { return Ok(None) };
    let mut clash = Clash { with, replaced: false };
    let number = |i: usize| row.get_unchecked::<Option<i64>, _>(i);
    // Forgotten, where nothing but time ends the hold.
    let (Some(id), Some(place), Some(created_at)) = (number(1), number(2), number(4)) else {
        return Ok(Some((clash, false)));
    };
    let waits = place <= place::DUE || matches!(place, place::PARKED | place::LANED);
    let is_tied = new.options.depends_on.is_some() || number(5) == Some(1);
    if waits && !is_tied && unique.on_clash == OnClash::Replace {
        replace(conn, id, new, now).await?;
        clash.replaced = true;
    }
    let mut moved = false;
    if place == place::DUE
        && read_text(&row, 3).as_deref() == Some(State::Scheduled.as_str())
        && let Some(most) = unique.debounce
    {
        let wish = new.when.instant(now).unwrap_or(now).max(now);
        let at = wish.min(Timestamp(created_at).plus(most));
        let update = sqlx::query("UPDATE job SET position = ? WHERE id = ?").bind(at.0).bind(id);
        update.execute(&mut *conn).await.map_err(failed(VERB))?;
        moved = true;
    }
    if clash.replaced || moved {
        let ends = clash.replaced.then(|| unique.until.letter().to_string());
        let update =
            sqlx::query("UPDATE unique_key SET until = ?, ends = coalesce(?, ends) WHERE queue = ? AND key = ?");
        let update = update.bind(now.plus(unique.ttl).0).bind(ends).bind(queue).bind(&unique.key);
        update.execute(conn).await.map_err(failed(VERB))?;
    }
    Ok(Some((clash, moved)))
}

async fn replace(conn: &mut SqliteConnection, id: i64, new: &NewJob, now: Timestamp) -> Result<()> {
    let args = new.args.get();
    let is_large = args.len() > INLINE_ARGS_BYTES;
    let options = &new.options;
    let update = sqlx::query(
        "UPDATE job SET kind = ?, args = ?, options = ?, labels = ?, max_attempts = ?, expires_at = ?,
             unique_key = ? WHERE id = ?",
    );
    let update = update
        .bind(new.kind.as_str())
        .bind((!is_large).then_some(args))
        .bind(options.to_short())
        .bind((!options.labels.is_empty()).then(|| labels_text(&options.labels)))
        .bind(options.max_attempts.map(i64::from))
        .bind(options.expires.instant(now).map(|at| at.0))
        // The holder's id may have come again without the key.
        .bind(options.unique.as_ref().map(|unique| unique.key.as_str()))
        .bind(id);
    update.execute(&mut *conn).await.map_err(failed(VERB))?;
    let forget = sqlx::query("DELETE FROM large_args WHERE job = ?").bind(id);
    forget.execute(&mut *conn).await.map_err(failed(VERB))?;
    if is_large {
        let insert = sqlx::query("INSERT INTO large_args (job, args) VALUES (?, ?)").bind(id).bind(args);
        insert.execute(conn).await.map_err(failed(VERB))?;
    }
    Ok(())
}

/// A job that was accepted holds its key.
pub(super) async fn hold(
    conn: &mut SqliteConnection,
    queue: i64,
    ulid: Ulid,
    unique: &Unique,
    now: Timestamp,
) -> Result<()> {
    let ulid = ulid.to_bytes().to_vec();
    let insert =
        sqlx::query("INSERT OR REPLACE INTO unique_key (queue, key, ulid, until, ends) VALUES (?, ?, ?, ?, ?)");
    let insert = insert.bind(queue).bind(&unique.key).bind(&ulid).bind(now.plus(unique.ttl).0);
    insert.bind(unique.until.letter().to_string()).execute(&mut *conn).await.map_err(failed(VERB))?;
    let update = sqlx::query("UPDATE job SET unique_key = ? WHERE queue = ? AND ulid = ?");
    update.bind(&unique.key).bind(queue).bind(ulid).execute(conn).await.map_err(failed(VERB))?;
    Ok(())
}

/// Parameters: queue; per job ulid.
static LET_GO: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new("DELETE FROM unique_key WHERE queue = ? AND ends <> 't' AND ulid IN (VALUES ", "(?)", ")")
});

/// The keys of jobs that have ended are free.
pub(super) async fn let_go(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ended: &[Ulid],
    operation: &'static str,
) -> Result<()> {
    if !ledger.special {
        return Ok(());
    }
    for (sql, piece) in LET_GO.pieces(ended) {
        let mut query = sqlx::query(sql).bind(ledger.id);
        for ulid in piece {
            query = query.bind(ulid.to_bytes().to_vec());
        }
        query.execute(&mut *conn).await.map_err(failed(operation))?;
    }
    Ok(())
}

/// The same of jobs by their rows' ids.
pub(super) async fn let_go_rows(
    conn: &mut SqliteConnection,
    ledger: &Ledger,
    ended: &[i64],
    operation: &'static str,
) -> Result<()> {
    if !ledger.special {
        return Ok(());
    }
    let delete = sqlx::query(
        "DELETE FROM unique_key WHERE queue = ? AND ends <> 't'
             AND ulid IN (SELECT job.ulid FROM json_each(?) AS ids JOIN job ON job.id = ids.value)",
    );
    delete.bind(ledger.id).bind(json_list(ended)).execute(conn).await.map_err(failed(operation))?;
    Ok(())
}

/// The keys that are held until the first start of these jobs are free; said after the claim.
pub(super) async fn start(conn: &mut SqliteConnection, ledger: &Ledger, started: &[i64]) -> Result<()> {
    if !ledger.special {
        return Ok(());
    }
    let delete = sqlx::query(
        "DELETE FROM unique_key WHERE queue = ? AND ends = 's'
             AND ulid IN (SELECT job.ulid FROM json_each(?) AS ids JOIN job ON job.id = ids.value WHERE job.epoch = 1)",
    );
    delete.bind(ledger.id).bind(json_list(started)).execute(conn).await.map_err(failed("exchange"))?;
    Ok(())
}

/// Forgets keys whose time is over, a bounded number of them.
pub(super) async fn tidy(conn: &mut SqliteConnection, ledger: &Ledger, now: Timestamp) -> Result<()> {
    if !ledger.special {
        return Ok(());
    }
    let delete = sqlx::query(
        "DELETE FROM unique_key WHERE queue = ?1
             AND key IN (SELECT key FROM unique_key WHERE queue = ?1 AND until <= ?2 LIMIT 250)",
    );
    delete.bind(ledger.id).bind(now.0).execute(conn).await.map_err(failed("tidy"))?;
    Ok(())
}
