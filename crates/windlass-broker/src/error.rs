//! What can go wrong between a process and its queue.

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A broker call that did not work out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached or is not ready; trying again later is right. Whether the
    /// call took effect is not known.
    #[error("{operation}: the queue's store does not answer")]
    Unavailable {
        /// The verb.
        operation: &'static str,
        /// What the client said.
        #[source]
        source: Source,
    },
    /// The store has no room. Nothing was changed.
    #[error("{operation}: the queue's store is full")]
    Full {
        /// The verb.
        operation: &'static str,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// More jobs would wait than the queue may hold. Nothing was accepted.
    #[error("queue {queue} is full: {max_waiting} jobs may wait")]
    QueueFull {
        /// The queue.
        queue: windlass_jobs::Queue,
        /// How many may wait.
        max_waiting: u64,
    },
    /// The store refuses this client: a wrong password, a missing right.
    #[error("{operation}: the queue's store refuses")]
    Denied {
        /// The verb.
        operation: &'static str,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// The store answered something that cannot be understood.
    #[error("{operation}: unexpected answer of the queue's store: {detail}")]
    Unexpected {
        /// The verb.
        operation: &'static str,
        /// What was wrong with it.
        detail: String,
    },
}

impl Error {
    /// True when the same call may work later without anyone changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. } | Self::QueueFull { .. })
    }
}
