//! Proof that a worker can fetch: a token through its own wake-up path, and then a reply to a
//! claim. A worker that looks alive and takes nothing does not pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pump's canary. Clones share what came back.
#[derive(Debug, Clone)]
pub(crate) struct Canary {
    started: Instant,
    /// When the last full round came back, in milliseconds since `started`.
    last_ms: Arc<AtomicU64>,
    sent: u64,
    /// The token came back; the reply to a claim is still awaited.
    heard: bool,
}

impl Canary {
    /// How often one is sent.
    pub(crate) const EVERY: Duration = Duration::from_secs(5);

    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), last_ms: Arc::new(AtomicU64::new(0)), sent: 0, heard: false }
    }

    /// The token to send now.
    pub(crate) fn next(&mut self) -> String {
        self.sent += 1;
        self.heard = false;
        self.sent.to_string()
    }

    /// True when this is the token last sent: a late one proves nothing about now.
    pub(crate) fn hears(&mut self, token: &str) -> bool {
        let fresh = token.parse() == Ok(self.sent);
        self.heard |= fresh;
        fresh
    }

    /// A claim was answered.
    pub(crate) fn came_back(&mut self) {
        if std::mem::take(&mut self.heard) {
            let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// How long ago the last full round trip ended; the worker's age before the first.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_round_counts() {
        let mut canary = Canary::new();
        let watcher = canary.clone();
        canary.came_back();
        assert_eq!(watcher.last_ms.load(Ordering::Relaxed), 0, "an answer without a token");
        let old = canary.next();
        let token = canary.next();
        assert!(!canary.hears(&old) && canary.hears(&token));
        std::thread::sleep(Duration::from_millis(2));
        canary.came_back();
        assert!(watcher.last_ms.load(Ordering::Relaxed) > 0);
    }
}
