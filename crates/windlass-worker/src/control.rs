//! How a running job is told to stop.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Why a run should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The worker stops and the grace is over: the job goes back.
    Shutdown,
    /// The lease is someone else's: whatever comes out will be refused.
    LeaseLost,
    /// The job was cancelled on request.
    Cancelled,
}

/// The switch of one run.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicU8,
    notify: Notify,
}

impl Control {
    pub(crate) fn stop(&self, why: Stop) {
        let code = match why {
            Stop::Shutdown => 1,
            Stop::LeaseLost => 2,
            Stop::Cancelled => 3,
        };
        let _ = self.stop.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    pub(crate) fn why(&self) -> Option<Stop> {
        match self.stop.load(Ordering::SeqCst) {
            0 => None,
            1 => Some(Stop::Shutdown),
            2 => Some(Stop::LeaseLost),
            _ => Some(Stop::Cancelled),
        }
    }

    /// Waits until the run should stop.
    pub(crate) async fn stopped(&self) -> Stop {
        loop {
            let notified = self.notify.notified();
            tokio::pin!(notified);
            // Listen before looking, so that a stop in between is not missed.
            notified.as_mut().enable();
            if let Some(why) = self.why() {
                return why;
            }
            notified.await;
        }
    }
}
