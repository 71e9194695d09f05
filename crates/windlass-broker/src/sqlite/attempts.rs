//! Attempts that are followed by others: kept behind the error of their job, as text; see
//! [`windlass_jobs::attempts`].

use sqlx::{Row, SqliteConnection};
use windlass_jobs::attempts::{End, Entry, with_entry};
use windlass_jobs::{Reason, Timestamp};

use super::exchange::{json_list, read_text};
use super::fault::failed;
use crate::Result;

/// SQL for another error, a parameter; what is known of earlier attempts stays.
pub(super) const ANOTHER_ERROR: &str =
    "? || iif(instr(coalesce(error, ''), char(10)) > 0, substr(error, instr(error, char(10))), '')";

/// Notes the last attempt of jobs that will run again: lost at `lost_at`, or else the one they failed with.
pub(super) async fn note(
    conn: &mut SqliteConnection,
    ids: &[i64],
    lost_at: Option<Timestamp>,
    operation: &'static str,
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let read = sqlx::query(
        "SELECT id, epoch, failures, started_at, finished_at, worker, reason, error FROM job
         WHERE id IN (SELECT value FROM json_each(?))",
    );
    let rows = read.bind(json_list(ids)).fetch_all(&mut *conn).await.map_err(failed(operation))?;
    for row in rows {
        let number = |i: usize| row.get_unchecked::<Option<i64>, _>(i);
        let small = |i: usize| number(i).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let reason: Option<Reason> = read_text(&row, 6).and_then(|word| word.parse().ok());
        let (end, ended_at) = match (lost_at, reason) {
            (Some(at), _) => (End::Lost, at),
            (None, Some(reason)) => (End::Failed(reason), Timestamp(number(4).unwrap_or(0))),
            (None, None) => continue,
        };
        let (Some(started_at), Some(worker)) = (number(3).map(Timestamp), read_text(&row, 5)) else { continue };
        let text = read_text(&row, 7).unwrap_or_default();
        let spent = end != End::Lost && end != End::Failed(Reason::Poisoned);
        let entry = Entry {
            run: small(1),
            attempt: if spent { small(2) } else { small(2) + 1 },
            started_at,
            ended_at,
            end,
            worker,
            error: if end == End::Lost { None } else { windlass_jobs::attempts::read(&text).0 },
        };
        let write = sqlx::query("UPDATE job SET error = ? WHERE id = ?").bind(with_entry(&text, entry)).bind(number(0));
        write.execute(&mut *conn).await.map_err(failed(operation))?;
    }
    Ok(())
}
