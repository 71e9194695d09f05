//! How a worker is, for probes and lists: told by the pump, asked from anywhere.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use windlass_jobs::command::Settle;

use crate::counts::Counts;

/// How old the canary may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthLimits {
    /// A worker whose canary is older than this takes no jobs: 500 ms to 1 h, default 15 s. A
    /// canary is sent three times within it, at least every 5 s.
    pub ready_within: Duration,
    /// A worker whose canary is older than this should be started again; not below
    /// `ready_within`, at most a day, default 60 s.
    pub live_within: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self { ready_within: Duration::from_secs(15), live_within: Duration::from_secs(60) }
    }
}

/// What a worker is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has not fetched yet.
    Starting,
    /// Its canary comes back.
    Ready,
    /// It was told to stop and finishes what it has.
    Draining,
    /// Its canary does not come back.
    CutOff,
    /// Its canary has not come back for so long, or its pump is dead: start it again.
    Dead,
}

impl Condition {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::CutOff => "cut_off",
            Self::Dead => "dead",
        }
    }
}

/// How a worker is. Clones are about the same worker; asking costs nothing.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    worker: String,
    slots: usize,
    limits: HealthLimits,
    started: Instant,
    /// When the last full round came back, in milliseconds since `started`, plus one; 0: none yet.
    fetched_ms: AtomicU64,
    pump_ended: AtomicBool,
    draining: AtomicBool,
    running: AtomicUsize,
    ended: [AtomicU64; RunEnd::ALL.len()],
    counts: Arc<Counts>,
}

/// How runs end, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Success,
    Failure,
    Retry,
    Other,
}

impl RunEnd {
    pub(crate) const fn of(settle: &Settle) -> Self {
        match settle {
            Settle::Success { .. } => Self::Success,
            Settle::Failure { .. } => Self::Failure,
            Settle::Retry { .. } => Self::Retry,
            _ => Self::Other,
        }
    }

    const ALL: [(Self, &'static str); 4] =
        [(Self::Success, "success"), (Self::Failure, "failure"), (Self::Retry, "retry"), (Self::Other, "other")];
}

impl Health {
    pub(crate) fn new(worker: &str, slots: usize, limits: HealthLimits) -> Self {
        let inner = Inner {
            worker: worker.to_owned(),
            slots,
            limits,
            started: Instant::now(),
            fetched_ms: AtomicU64::new(0),
            pump_ended: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            ended: Default::default(),
            counts: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The worker's name.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.inner.worker
    }

    /// How many jobs it runs at once.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.inner.slots
    }

    /// How many it runs now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.running.load(Ordering::Relaxed)
    }

    /// How long ago the worker last proved that it can fetch: its canary went through its own
    /// wake-up path and a claim was answered. Before the first time, the worker's age.
    #[must_use]
    pub fn canary_age(&self) -> Duration {
        let since = self.inner.fetched_ms.load(Ordering::Relaxed).saturating_sub(1);
        self.inner.started.elapsed().saturating_sub(Duration::from_millis(since))
    }

    /// True once a canary has come back.
    #[must_use]
    pub fn has_fetched(&self) -> bool {
        self.inner.fetched_ms.load(Ordering::Relaxed) > 0
    }

    /// What the worker is now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let age = self.canary_age();
        if self.inner.pump_ended.load(Ordering::Relaxed) || age > self.inner.limits.live_within {
            Condition::Dead
        } else if self.inner.draining.load(Ordering::Relaxed) {
            Condition::Draining
        } else if !self.has_fetched() {
            Condition::Starting
        } else if age > self.inner.limits.ready_within {
            Condition::CutOff
        } else {
            Condition::Ready
        }
    }

    /// True when it takes jobs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition() == Condition::Ready
    }

    /// False when it should be started again.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.condition() != Condition::Dead
    }

    pub(crate) fn ready_within(&self) -> Duration {
        self.inner.limits.ready_within
    }

    pub(crate) fn fetched(&self) {
        let ms = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.inner.fetched_ms.store(ms + 1, Ordering::Relaxed);
    }

    pub(crate) fn drains(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn runs(&self, running: usize) {
        self.inner.running.store(running, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, end: RunEnd) {
        if let Some(counter) = self.inner.ended.get(end as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.inner.counts
    }

    /// Notes the end of the pump when it is dropped, by whatever way its thread ends.
    pub(crate) fn pump_guard(&self) -> PumpGuard {
        PumpGuard(self.clone())
    }

    /// The worker's metrics in the Prometheus text format, version 0.0.4.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut text = String::with_capacity(4096);
        let seconds = self.canary_age().as_secs_f64();
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "at most 10,000 slots")]
        let gauges = [
            ("windlass_worker_canary_age_seconds", "Since the worker last proved that it can fetch.", seconds),
            ("windlass_worker_ready", "1 when the worker takes jobs.", flag(self.is_ready())),
            ("windlass_worker_live", "0 when the worker should be started again.", flag(self.is_live())),
            ("windlass_worker_slots", "Jobs the worker runs at once.", self.slots() as f64),
            ("windlass_worker_running", "Jobs the worker runs now.", self.running() as f64),
        ];
        let worker = &self.inner.worker;
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{worker=\"{worker}\"}} {value}");
        }
        let name = "windlass_worker_runs_total";
        let _ = writeln!(text, "# HELP {name} Runs that ended, by how.\n# TYPE {name} counter");
        for (end, word) in RunEnd::ALL {
            let count = self.inner.ended[end as usize].load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}{{worker=\"{worker}\",end=\"{word}\"}} {count}");
        }
        self.inner.counts.render(worker, &mut text);
        text
    }
}

/// See [`Health::pump_guard`].
pub(crate) struct PumpGuard(Health);

impl Drop for PumpGuard {
    fn drop(&mut self) {
        self.0.inner.pump_ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(ready_ms: u64, live_ms: u64) -> Health {
        let limits =
            HealthLimits { ready_within: Duration::from_millis(ready_ms), live_within: Duration::from_millis(live_ms) };
        Health::new("w1", 4, limits)
    }

    #[test]
    fn a_worker_is_ready_from_its_first_fetch_until_it_is_cut_off() {
        let health = health(3_600_000, 3_600_000);
        assert_eq!(health.condition(), Condition::Starting);
        assert!(!health.is_ready() && health.is_live());
        health.fetched();
        assert_eq!(health.condition(), Condition::Ready);
        health.drains();
        assert_eq!(health.condition(), Condition::Draining);
        let cut_off = self::health(0, 3_600_000);
        cut_off.fetched();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(cut_off.condition(), Condition::CutOff);
        assert!(!cut_off.is_ready() && cut_off.is_live());
    }

    #[test]
    fn a_dead_pump_or_an_old_canary_is_not_alive() {
        let health = health(3_600_000, 3_600_000);
        health.fetched();
        drop(health.pump_guard());
        assert_eq!(health.condition(), Condition::Dead);
        let old = self::health(0, 0);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(old.condition(), Condition::Dead);
    }

    #[test]
    fn every_metric_has_its_type_and_its_worker() {
        let health = health(1_000, 1_000);
        health.ended(RunEnd::Retry);
        let text = health.metrics();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("worker=\"w1\""), "{line}");
        }
        assert!(text.contains("windlass_worker_runs_total{worker=\"w1\",end=\"retry\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE windlass_worker_canary_age_seconds gauge\n"), "{text}");
    }
}
