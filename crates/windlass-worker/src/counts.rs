//! What runs and children of a worker come to, for its metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Counted since the worker started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    kinds: Mutex<BTreeMap<&'static str, OneKind>>,
    cached: [AtomicU64; Asked::ALL.len()],
    pub(crate) children: Children,
}

/// How long runs of a kind took.
#[derive(Debug, Default)]
struct OneKind {
    /// Below each end of [`BUCKETS`], and above all of them.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

/// What the result cache said of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Hit,
    Miss,
    /// An equal job runs.
    PutOff,
}

impl Asked {
    const ALL: [(Self, &'static str); 3] = [(Self::Hit, "hit"), (Self::Miss, "miss"), (Self::PutOff, "put_off")];
}

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It had run enough, or held too much.
    Worn,
    /// There was no work for it.
    Surplus,
    /// Its run was cut short, crashed, or left something behind.
    Spoilt,
    /// It was found dead, or never spoke.
    Died,
}

impl Gone {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Worn, "worn"), (Self::Surplus, "surplus"), (Self::Spoilt, "spoilt"), (Self::Died, "died")];
}

/// The children of a worker.
#[derive(Debug, Default)]
pub(crate) struct Children {
    started: AtomicU64,
    idle: AtomicU64,
    gone: [AtomicU64; Gone::ALL.len()],
}

impl Children {
    pub(crate) fn started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn idle(&self, children: usize) {
        self.idle.store(children as u64, Ordering::Relaxed);
    }

    pub(crate) fn gone(&self, why: Gone) {
        if let Some(count) = self.gone.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Counts {
    pub(crate) fn ran(&self, kind: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let one = kinds.entry(kind).or_default();
        one.buckets[BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len())] += 1;
        one.seconds += seconds;
    }

    pub(crate) fn asked(&self, answer: Asked) {
        if let Some(count) = self.cached.get(answer as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every figure; names of workers and kinds need no escaping.
    pub(crate) fn render(&self, worker: &str, text: &mut String) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        self.render_runs(worker, text);
        let name = "windlass_worker_cache_total";
        head(text, name, "counter", "Jobs that the result cache was asked for, by what it said.");
        for (answer, word) in Asked::ALL {
            let _ = writeln!(
                text,
                "{name}{{worker=\"{worker}\",outcome=\"{word}\"}} {}",
                read(&self.cached[answer as usize])
            );
        }
        let Children { started, idle, gone } = &self.children;
        let (started, idle, ended) = (read(started), read(idle), gone.iter().map(read).sum::<u64>());
        let name = "windlass_worker_children";
        head(text, name, "gauge", "Child processes, by whether they run a job.");
        let busy = started.saturating_sub(ended + idle);
        let _ = writeln!(
            text,
            "{name}{{worker=\"{worker}\",state=\"busy\"}} {busy}\n{name}{{worker=\"{worker}\",state=\"idle\"}} {idle}"
        );
        let name = "windlass_worker_children_started_total";
        head(text, name, "counter", "Child processes that were started.");
        let _ = writeln!(text, "{name}{{worker=\"{worker}\"}} {started}");
        let name = "windlass_worker_children_ended_total";
        head(text, name, "counter", "Child processes that ended, by why.");
        for (why, word) in Gone::ALL {
            let _ = writeln!(text, "{name}{{worker=\"{worker}\",why=\"{word}\"}} {}", read(&gone[why as usize]));
        }
    }

    fn render_runs(&self, worker: &str, text: &mut String) {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "windlass_worker_run_seconds";
        let _ = writeln!(text, "# HELP {name} How long runs took, by kind.\n# TYPE {name} histogram");
        for (kind, one) in &*kinds {
            let labels = format!("worker=\"{worker}\",kind=\"{kind}\"");
            let mut below = 0;
            for (end, n) in BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]).zip(one.buckets) {
                below += n;
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{end}\"}} {below}");
            }
            let _ = writeln!(text, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {below}", one.seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_children_and_the_cache_are_counted() {
        let counts = Counts::default();
        counts.ran("a", Duration::from_millis(3));
        counts.ran("a", Duration::from_secs(400));
        counts.asked(Asked::Hit);
        for _ in 0..3 {
            counts.children.started();
        }
        counts.children.idle(1);
        counts.children.gone(Gone::Spoilt);
        let mut text = String::new();
        counts.render("w", &mut text);
        for line in [
            "windlass_worker_run_seconds_bucket{worker=\"w\",kind=\"a\",le=\"0.005\"} 1",
            "windlass_worker_run_seconds_bucket{worker=\"w\",kind=\"a\",le=\"300\"} 1",
            "windlass_worker_run_seconds_bucket{worker=\"w\",kind=\"a\",le=\"+Inf\"} 2",
            "windlass_worker_run_seconds_count{worker=\"w\",kind=\"a\"} 2",
            "windlass_worker_cache_total{worker=\"w\",outcome=\"hit\"} 1",
            "windlass_worker_children{worker=\"w\",state=\"busy\"} 1",
            "windlass_worker_children{worker=\"w\",state=\"idle\"} 1",
            "windlass_worker_children_ended_total{worker=\"w\",why=\"spoilt\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
