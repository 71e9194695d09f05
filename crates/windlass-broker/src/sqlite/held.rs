//! Writes about a job in a worker's hands: renewal and progress.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};
use windlass_jobs::command::Ack;
use windlass_jobs::{Lease, Progress, Queue, Timestamp};

use super::batch::Batched;
use super::fault::failed;
use super::schema::place;
use super::settle::read_lease;
use crate::Result;

/// Parameters: the new end, queue; per job ulid, epoch. Answers ulid, epoch and whether to cancel of those held.
static RENEW: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        "UPDATE job SET position = head.until
         FROM (SELECT id, ? AS until FROM queue WHERE name = ?) AS head, (VALUES ",
        "(?,?)",
        &format!(
            ") AS held WHERE job.queue = head.id AND job.ulid = held.column1 AND job.epoch = held.column2
                 AND job.place = {} RETURNING ulid, epoch, cancel_requested",
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
    let mut held = HashMap::with_capacity(leases.len());
    for (sql, piece) in RENEW.pieces(leases) {
        let mut query = sqlx::query(sql).bind(now.plus(lease).0).bind(queue.as_str());
        for lease in piece {
            query = query.bind(lease.ulid.to_bytes().to_vec()).bind(i64::from(lease.epoch));
        }
        let rows = query.fetch_all(&mut *conn).await.map_err(failed("renew"))?;
        held.extend(rows.iter().filter_map(|row| Some((read_lease(row)?, row.get_unchecked::<i64, _>(2) != 0))));
    }
    let mut acks = Vec::with_capacity(leases.len());
    for lease in leases {
        acks.push(match held.get(lease) {
            Some(true) => Ack::Cancel,
            Some(false) => Ack::Taken,
            None => {
                let queue = sqlx::query_scalar("SELECT id FROM queue WHERE name = ?").bind(queue.as_str());
                if let Some(queue) = queue.fetch_optional(&mut *conn).await.map_err(failed("renew"))? {
                    prove_alive(conn, queue, *lease, false, "renew").await?;
                }
                Ack::Stale
            }
        });
    }
    Ok(acks)
}

/// How a lost epoch is written in the column `lost`; see [`prove_alive`].
pub(super) const LOST_TAG: &str = "'<' || epoch || '>'";

/// A worker whose lease was ended speaks: it was alive, so that delivery was no crash. Said of
/// a terminal job it means nothing, unless `anyway`.
pub(super) async fn prove_alive(
    conn: &mut SqliteConnection,
    queue: i64,
    lease: Lease,
    anyway: bool,
    operation: &'static str,
) -> Result<()> {
    let update = sqlx::query(
        "UPDATE job SET deliveries = max(deliveries - 1, 0), lost = replace(lost, ?1, '')
         WHERE queue = ?2 AND ulid = ?3 AND instr(lost, ?1) > 0 AND (?4 OR place NOT IN (?5, ?6))",
    );
    let update = update.bind(format!("<{}>", lease.epoch)).bind(queue).bind(lease.ulid.to_bytes().to_vec());
    let update = update.bind(anyway).bind(place::DONE).bind(place::DEAD);
    update.execute(conn).await.map_err(failed(operation))?;
    Ok(())
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
