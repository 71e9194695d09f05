//! Writes about a job in a worker's hands: renewal and progress.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::SqliteConnection;
use windlass_jobs::command::Ack;
use windlass_jobs::{Lease, Progress, Queue, Timestamp};

use super::batch::Batched;
use super::fault::failed;
use super::schema::place;
use super::settle::read_lease;
use crate::Result;

/// Parameters: the new end, queue; per job ulid, epoch. Answers ulid and epoch of those held.
static RENEW: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "UPDATE job SET position = head.until
         FROM (SELECT id, ? AS until FROM queue WHERE name = ?) AS head, (VALUES ",
        "(?,?)",
        &format!(
            ") AS held WHERE job.queue = head.id AND job.ulid = held.column1 AND job.epoch = held.column2
                 AND job.place = {} RETURNING ulid, epoch",
            place::LEASED
        ),
    )
});

/// Moves the end of each held lease; see [`Model::renew`](windlass_jobs::model::Model::renew).
pub(super) async fn renew(
    conn: &mut SqliteConnection,
    queue: &Queue,
    leases: &[Lease],
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Ack>> {
    let mut held = HashSet::with_capacity(leases.len());
    for (sql, piece) in RENEW.pieces(leases) {
        let mut query = sqlx::query(sql).bind(now.plus(lease).0).bind(queue.as_str());
        for lease in piece {
            query = query.bind(lease.ulid.to_bytes().to_vec()).bind(i64::from(lease.epoch));
        }
        let rows = query.fetch_all(&mut *conn).await.map_err(failed("renew"))?;
        held.extend(rows.iter().filter_map(read_lease));
    }
    Ok(leases.iter().map(|lease| if held.contains(lease) { Ack::Taken } else { Ack::Stale }).collect())
}

/// Writes a running job's progress.
pub(super) async fn progress(
    conn: &mut SqliteConnection,
    queue: &Queue,
    lease: Lease,
    progress: &Progress,
) -> Result<Ack> {
    let update = sqlx::query(
        "UPDATE job SET progress = ? WHERE queue = (SELECT id FROM queue WHERE name = ?) AND ulid = ? AND epoch = ?
             AND place = ?",
    );
    let update = update
        .bind(progress.to_short())
        .bind(queue.as_str())
        .bind(lease.ulid.to_bytes().to_vec())
        .bind(i64::from(lease.epoch))
        .bind(place::LEASED);
    let done = update.execute(conn).await.map_err(failed("progress"))?;
    Ok(if done.rows_affected() > 0 { Ack::Taken } else { Ack::Stale })
}
