//! Blobs that jobs hold, let go once their jobs have ended.
//!
//! Whoever enqueues a job pins its blobs; nobody has to remember to let go. Jobs that hold some are
//! looked up every five minutes, by one process each, and those that have ended, or never
//! came to be, release what they held.

use std::time::Duration;

use tokio::task::JoinHandle;
use windlass_broker::SharedBroker;
use windlass_jobs::JobId;
use windlass_store::Services;

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(60);
/// Most jobs looked up in one go.
const SLICE: usize = 100;

/// Looks after the stores of a process: forgets what is past its time, releases what ended jobs
/// hold. Ends when it is dropped.
#[derive(Debug)]
pub struct Housekeeper(JoinHandle<()>);

impl Housekeeper {
    /// Starts on this runtime; the first round is a minute away.
    #[must_use]
    pub fn start(broker: SharedBroker, services: Services) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                if let Err(error) = release_ended(&broker, &services).await {
                    tracing::warn!(%error, "blobs of ended jobs not released");
                }
                if let Err(error) = services.artifacts.tidy().await {
                    tracing::warn!(%error, "artifact store not tidied");
                }
            }
        }))
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Releases the blobs of every job that is due to be asked about and has ended; answers how many
/// jobs let go. A job the broker cannot be asked about now holds what it has.
///
/// # Errors
/// When the store fails.
pub async fn release_ended(broker: &SharedBroker, services: &Services) -> windlass_store::Result<usize> {
    let mut released = 0;
    loop {
        let due = services.artifacts.due_pins(SLICE).await?;
        for job in &due {
            if has_ended(broker, job).await {
                services.artifacts.release(job).await?;
                released += 1;
            }
        }
        if due.len() < SLICE {
            return Ok(released);
        }
    }
}

async fn has_ended(broker: &SharedBroker, job: &str) -> bool {
    // A name that is no job's was never enqueued.
    let Ok(id) = job.parse::<JobId>() else { return true };
    match broker.get(&id).await {
        Ok(record) => record.is_none_or(|record| record.state.is_terminal()),
        Err(error) => {
            tracing::debug!(%error, %id, "not known whether the job has ended: it keeps its blobs");
            false
        }
    }
}
