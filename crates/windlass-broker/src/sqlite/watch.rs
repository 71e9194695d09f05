//! Watched jobs: who wants to hear of a change, and what each job looked like when he last did.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use sqlx::SqliteConnection;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use windlass_jobs::{JobId, Queue, Ulid};

use super::batch::Batched;
use super::enqueue::read_ulid;
use super::exchange::read_text;
use super::fault::failed;
use super::schema::place;
use crate::Result;

/// The jobs watched in this process.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// False without taking the lock: a commit that nobody watches pays this load.
    any: AtomicBool,
    jobs: Mutex<HashMap<Queue, HashMap<Ulid, Job>>>,
}

#[derive(Debug, Default)]
struct Job {
    listeners: Vec<UnboundedSender<()>>,
    seen: Look,
}

/// What of a job can be seen to change; `Gone` when it is not known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    /// Not looked at yet.
    #[default]
    Unseen,
    Gone,
    There(String),
}

/// Parameters: queue; per job ulid. A renewal changes nothing that can be seen.
static LOOK: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(
        &format!(
            "SELECT ulid, concat_ws(' ', epoch, state, failures, deliveries, cancel_requested, finished_at,
                 iif(place = {}, position, place), progress)
             FROM job WHERE queue = (SELECT id FROM queue WHERE name = ?) AND ulid IN (VALUES ",
            place::DUE
        ),
        "(?)",
        ")",
    )
});

impl Watched {
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Adds a listener of a job.
    pub(super) fn add(&self, id: &JobId) -> UnboundedReceiver<()> {
        let (sender, receiver) = unbounded_channel();
        let mut jobs = self.lock();
        jobs.entry(id.queue.clone()).or_default().entry(id.ulid).or_default().listeners.push(sender);
        self.any.store(true, Ordering::SeqCst);
        receiver
    }

    /// Forgets listeners that are gone; answers the jobs still watched.
    pub(super) fn list(&self) -> Vec<(Queue, Vec<Ulid>)> {
        let mut jobs = self.lock();
        jobs.retain(|_, jobs| {
            jobs.retain(|_, job| {
                job.listeners.retain(|listener| !listener.is_closed());
                !job.listeners.is_empty()
            });
            !jobs.is_empty()
        });
        self.any.store(!jobs.is_empty(), Ordering::SeqCst);
        jobs.iter().map(|(queue, jobs)| (queue.clone(), jobs.keys().copied().collect())).collect()
    }

    /// Notes how jobs of a queue look now, and tells who listens where that is news.
    pub(super) fn tell(&self, queue: &Queue, looks: HashMap<Ulid, Look>) {
        let mut jobs = self.lock();
        let Some(jobs) = jobs.get_mut(queue) else { return };
        for (ulid, look) in looks {
            let Some(job) = jobs.get_mut(&ulid) else { continue };
            if job.seen != look && job.seen != Look::Unseen {
                for listener in &job.listeners {
                    // One that is gone is removed with the next `list`.
                    let _ = listener.send(());
                }
            }
            job.seen = look;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Queue, HashMap<Ulid, Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How jobs of a queue look now.
pub(super) async fn look(conn: &mut SqliteConnection, queue: &Queue, ulids: &[Ulid]) -> Result<HashMap<Ulid, Look>> {
    let mut looks: HashMap<Ulid, Look> = ulids.iter().map(|ulid| (*ulid, Look::Gone)).collect();
    for (sql, piece) in LOOK.pieces(ulids) {
        let mut query = sqlx::query(sql).bind(queue.as_str());
        for ulid in piece {
            query = query.bind(ulid.to_bytes().to_vec());
        }
        let rows = query.fetch_all(&mut *conn).await.map_err(failed("watch"))?;
        let read = |row| Some((read_ulid(row, 0)?, Look::There(read_text(row, 1).unwrap_or_default())));
        looks.extend(rows.iter().filter_map(read));
    }
    Ok(looks)
}
