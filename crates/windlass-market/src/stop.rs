//! The word that a watching ends: heard between statements, so that none is left half done.

use std::time::Duration;

use tokio::sync::watch;

/// Hears the word. Whoever may say it and goes without a word has said it.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// Who says it, and who hears it.
pub(crate) fn pair() -> (watch::Sender<bool>, Stop) {
    let (sender, receiver) = watch::channel(false);
    (sender, Stop(receiver))
}

impl Stop {
    pub(crate) fn is_said(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns once it is said.
    pub(crate) async fn said(&mut self) {
        // An error is the end of who may say it.
        let _ = self.0.wait_for(|said| *said).await;
    }

    /// Rests for so long, or until it is said.
    pub(crate) async fn rest(&mut self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.said()).await;
    }
}
