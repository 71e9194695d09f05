//! Leaves a Redis that fails alone for a while.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// So many failures …
const FAILURES: usize = 3;
/// … in this time open it.
const WITHIN: Duration = Duration::from_secs(10);
/// How often an open one lets somebody try.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// What a breaker counted since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BreakerStats {
    /// True while Redis is left alone.
    pub open: bool,
    /// How often it opened.
    pub opened: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls answered by this process instead.
    pub fallbacks: u64,
}

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    recent: VecDeque<Instant>,
    /// When the next probe may go, while open.
    probe_at: Option<Instant>,
    stats: BreakerStats,
}

/// Whether Redis may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Call,
    /// It was left alone: ask it whether it is back first.
    Probe,
    No,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn may(&self) -> May {
        let mut state = self.state();
        let now = Instant::now();
        match state.probe_at {
            None => May::Call,
            Some(at) if at <= now => {
                state.probe_at = Some(now + PROBE_EVERY);
                May::Probe
            }
            Some(_) => May::No,
        }
    }

    /// Closes it.
    pub(super) fn succeeded(&self) {
        let mut state = self.state();
        if state.probe_at.take().is_some() {
            state.stats.open = false;
            state.recent.clear();
            drop(state);
            tracing::info!(event = "redis_connected", "Redis connected successfully");
        }
    }

    pub(super) fn failed(&self, error: &windlass_redis::Error) {
        let mut state = self.state();
        let now = Instant::now();
        state.stats.failures += 1;
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|at| now.duration_since(*at) > WITHIN) {
            state.recent.pop_front();
        }
        if state.recent.len() >= FAILURES && state.probe_at.is_none() {
            state.probe_at = Some(now + PROBE_EVERY);
            state.stats.open = true;
            state.stats.opened += 1;
            drop(state);
            tracing::warn!(event = "redis_fallback", %error, "Redis operation failed, using fallback");
        }
    }

    pub(super) fn fell_back(&self) {
        self.state().stats.fallbacks += 1;
    }

    pub(super) fn stats(&self) -> BreakerStats {
        self.state().stats
    }
}
