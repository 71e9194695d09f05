//! Whether a server that failed is asked again: after a few failures only once in a while, so
//! that a dead server costs no time limit for every image. Pure: the caller brings the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many failures…
const FAILURES: usize = 3;
/// …within this time open it.
const WITHIN: Duration = Duration::from_secs(10);
/// Open, it lets one call through so often.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// The state of a server as its callers see it.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failed: VecDeque<Instant>,
    /// Since when it is open, and when the last probe went out.
    open: Option<Instant>,
}

impl Breaker {
    /// Whether a call may go out now; one that may counts as the probe of an open breaker.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        match self.open {
            None => true,
            Some(probed) if now.saturating_duration_since(probed) >= PROBE_EVERY => {
                self.open = Some(now);
                true
            }
            Some(_) => false,
        }
    }

    /// A call worked; true when that closed it.
    pub(super) fn worked(&mut self) -> bool {
        self.failed.clear();
        self.open.take().is_some()
    }

    /// A call failed; true when that opened it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failed.push_back(now);
        while self.failed.front().is_some_and(|at| now.saturating_duration_since(*at) > WITHIN) {
            self.failed.pop_front();
        }
        if self.open.is_some() || self.failed.len() < FAILURES {
            return false;
        }
        self.open = Some(now);
        true
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_open_it_and_one_success_closes_it() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(!breaker.failed(at(0)) && !breaker.failed(at(11)) && !breaker.failed(at(12)), "not within 10 s");
        assert!(breaker.allows(at(12)) && breaker.failed(at(13)), "three within 10 s");
        assert!(!breaker.allows(at(17)));
        assert!(breaker.allows(at(18)), "a probe after 5 s");
        assert!(!breaker.allows(at(18)), "one probe only");
        assert!(!breaker.failed(at(19)), "it was open already");
        assert!(breaker.allows(at(24)) && breaker.worked());
        assert!(breaker.allows(at(24)) && !breaker.is_open() && !breaker.worked());
    }
}
