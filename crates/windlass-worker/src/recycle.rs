//! When a child is used again: pure rules over what it has been through.

use std::time::{Duration, Instant};

use crate::frame::Wear;

/// How long children are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recycle {
    /// Jobs a child runs before another takes its place, at least 1. Default 100.
    pub after_jobs: u32,
    /// A child that ever had more memory than this resident is not used again. Default 256 MiB.
    pub above_rss_bytes: u64,
    /// Idle children that are kept for good. Default 2.
    pub keep_idle: usize,
    /// How long the others wait for work. Default 60 s.
    pub idle_for: Duration,
}

impl Default for Recycle {
    fn default() -> Self {
        Self { after_jobs: 100, above_rss_bytes: 256 * 1024 * 1024, keep_idle: 2, idle_for: Duration::from_secs(60) }
    }
}

/// Why a child that answered is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worn {
    /// The handler panicked: what it left half done is unknown.
    Panicked,
    /// A thread of the last job still runs, and would see the next one's files.
    Threads,
    Jobs,
    Memory,
}

impl Recycle {
    /// Whether a child that has run `jobs` jobs, and is as `wear` says, has to go.
    pub(crate) fn worn(&self, jobs: u32, wear: Wear) -> Option<Worn> {
        if wear.panicked {
            Some(Worn::Panicked)
        } else if wear.threads > 1 {
            Some(Worn::Threads)
        } else if jobs >= self.after_jobs {
            Some(Worn::Jobs)
        } else if wear.peak_rss_bytes > self.above_rss_bytes {
            Some(Worn::Memory)
        } else {
            None
        }
    }

    /// How many of the idle children, longest idle first, have to go.
    pub(crate) fn surplus(&self, idle_since: impl ExactSizeIterator<Item = Instant>, now: Instant) -> usize {
        let over = idle_since.len().saturating_sub(self.keep_idle);
        idle_since.take(over).take_while(|since| now.saturating_duration_since(*since) >= self.idle_for).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_used_until_it_is_worn() {
        let rules = Recycle { after_jobs: 10, above_rss_bytes: 1000, ..Recycle::default() };
        let check = |jobs, peak_rss_bytes, threads, panicked, expected| {
            assert_eq!(rules.worn(jobs, Wear { peak_rss_bytes, threads, panicked }), expected);
        };
        check(1, 0, 0, false, None);
        check(9, 1000, 1, false, None);
        check(10, 1000, 1, false, Some(Worn::Jobs));
        check(1, 1001, 1, false, Some(Worn::Memory));
        check(1, 0, 2, false, Some(Worn::Threads));
        check(1, 0, 1, true, Some(Worn::Panicked));
    }

    #[test]
    fn surplus_children_go_after_a_while_longest_idle_first() {
        let rules = Recycle { keep_idle: 2, idle_for: Duration::from_secs(60), ..Recycle::default() };
        let now = Instant::now() + Duration::from_secs(1000);
        let check = |ages_s: &[u64], expected| {
            let since: Vec<Instant> = ages_s.iter().map(|s| now - Duration::from_secs(*s)).collect();
            assert_eq!(rules.surplus(since.into_iter(), now), expected, "{ages_s:?}");
        };
        check(&[], 0);
        check(&[900, 800], 0);
        check(&[900, 800, 700], 1);
        check(&[59, 58, 57, 1], 0);
        check(&[90, 60, 59, 1], 2);
        check(&[90, 61, 60, 60, 1], 3);
    }
}
