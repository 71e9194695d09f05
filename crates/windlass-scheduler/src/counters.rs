//! What a scheduler has done, as counters: the source of its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one process; all rise, but for those called now.
#[derive(Debug, Default)]
pub struct Counters {
    leading: AtomicU64,
    schedules: AtomicU64,
    takeovers: AtomicU64,
    fired: AtomicU64,
    repeated: AtomicU64,
    refired: AtomicU64,
    skipped: AtomicU64,
    missed: AtomicU64,
    refused: AtomicU64,
    errors: AtomicU64,
    overdue: AtomicU64,
    late_ms: AtomicU64,
    late_most_ms: AtomicU64,
}

impl Counters {
    /// The counters in the Prometheus text format; all names begin with `windlass_`.
    #[must_use]
    pub fn metrics(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (name, value) in self.read() {
            let kind = if name.ends_with("_now") || name.ends_with("_most") { "gauge" } else { "counter" };
            let _ = writeln!(text, "# TYPE windlass_{name} {kind}\nwindlass_{name} {value}");
        }
        text
    }
}

macro_rules! names {
    ($($field:ident $name:literal)*) => {
        impl Counters {
            /// Every counter with its name, in a fixed order.
            #[must_use]
            pub fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

names! {
    leading "scheduler_leading_now"
    schedules "scheduler_schedules_now"
    overdue "scheduler_overdue_now"
    takeovers "scheduler_takeovers_total"
    fired "scheduler_fired_total"
    repeated "scheduler_repeated_total"
    refired "scheduler_refired_total"
    skipped "scheduler_skipped_total"
    missed "scheduler_missed_total"
    refused "scheduler_refused_total"
    errors "scheduler_errors_total"
    late_ms "scheduler_late_ms_sum"
    late_most_ms "scheduler_late_ms_most"
}

impl Counters {
    pub(crate) fn leads(&self, leads: bool) {
        let was = self.leading.swap(u64::from(leads), Ordering::Relaxed);
        self.takeovers.fetch_add(u64::from(leads && was == 0), Ordering::Relaxed);
    }

    pub(crate) fn knows(&self, schedules: usize) {
        self.schedules.store(u64::try_from(schedules).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn overdue(&self, schedules: usize) {
        self.overdue.store(u64::try_from(schedules).unwrap_or(0), Ordering::Relaxed);
    }

    /// A tick was enqueued; `fresh`: by us, not by a leader before.
    pub(crate) fn fired(&self, late_ms: u64, fresh: bool) {
        self.fired.fetch_add(1, Ordering::Relaxed);
        self.repeated.fetch_add(u64::from(!fresh), Ordering::Relaxed);
        self.late_ms.fetch_add(late_ms, Ordering::Relaxed);
        self.late_most_ms.fetch_max(late_ms, Ordering::Relaxed);
    }

    /// Ticks that the store had lost were enqueued anew.
    pub(crate) fn refired(&self, ticks: usize) {
        self.refired.fetch_add(u64::try_from(ticks).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn missed(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
