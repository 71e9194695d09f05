//! Proof that a worker can fetch: a token through its own wake-up path, and then a reply to a
//! claim. A worker that looks alive and takes nothing does not pass.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::health::Health;

/// Tokens that are remembered at most.
const REMEMBERED: usize = 64;

/// The pump's canary; what it proves is written into the worker's [`Health`].
#[derive(Debug)]
pub(crate) struct Canary {
    health: Health,
    every: Duration,
    number: u64,
    /// Tokens that may still come back, and when they were sent.
    sent: VecDeque<(u64, Instant)>,
    /// A token is on its way to the broker.
    in_flight: bool,
    /// One came back; the reply to a claim is still awaited.
    heard: bool,
}

impl Canary {
    /// How often one is sent when all is well.
    const EVERY: Duration = Duration::from_secs(5);
    /// How often one is sent while none comes back, and how often is looked whether one is due.
    pub(crate) const HURRY: Duration = Duration::from_millis(500);

    pub(crate) fn new(health: Health) -> Self {
        let every = Self::EVERY.min(health.ready_within() / 3);
        Self { health, every, number: 0, sent: VecDeque::new(), in_flight: false, heard: false }
    }

    /// Whether one should be sent now: in turn, or at once when the last round is overdue.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let since_last = self.sent.back().map(|(_, at)| now.saturating_duration_since(*at));
        let overdue = self.health.canary_age() > self.every + 2 * Self::HURRY || !self.health.has_fetched();
        let wait = if overdue { Self::HURRY.min(self.every) } else { self.every };
        !self.in_flight && since_last.is_none_or(|since| since >= wait)
    }

    /// The token to send now.
    pub(crate) fn next(&mut self, now: Instant) -> String {
        self.number += 1;
        self.in_flight = true;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.number, now));
        self.number.to_string()
    }

    /// True while a token is on its way to the broker.
    pub(crate) fn is_under_way(&self) -> bool {
        self.in_flight
    }

    /// The broker has it, or it was lost on the way.
    pub(crate) fn was_sent(&mut self) {
        self.in_flight = false;
    }

    /// True when this is a token that was sent lately: an old one proves nothing about now.
    pub(crate) fn hears(&mut self, token: &str, now: Instant) -> bool {
        let within = self.health.ready_within();
        let fresh = |(number, at): &(u64, Instant)| {
            token.parse() == Ok(*number) && now.saturating_duration_since(*at) <= within
        };
        let heard = self.sent.iter().any(fresh);
        self.heard |= heard;
        heard
    }

    /// A claim was answered.
    pub(crate) fn came_back(&mut self) {
        if std::mem::take(&mut self.heard) {
            self.health.fetched();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthLimits;

    fn canary() -> (Canary, Health) {
        let health = Health::new("w", 1, HealthLimits::default());
        (Canary::new(health.clone()), health)
    }

    #[test]
    fn only_a_full_round_counts() {
        let (mut canary, health) = canary();
        canary.came_back();
        assert!(!health.has_fetched(), "an answer without a token");
        let now = Instant::now();
        let token = canary.next(now);
        assert!(!canary.hears("no token", now) && canary.hears(&token, now));
        assert!(!health.has_fetched(), "a token without an answer");
        canary.came_back();
        assert!(health.has_fetched());
    }

    #[test]
    fn a_token_that_took_too_long_proves_nothing() {
        let (mut canary, _) = canary();
        let sent = Instant::now();
        let (slow, slower) = (canary.next(sent), canary.next(sent));
        // Slow is not dead: a later one was sent meanwhile.
        assert!(canary.hears(&slow, sent + Duration::from_secs(14)));
        assert!(!canary.hears(&slower, sent + Duration::from_secs(16)));
    }

    #[test]
    fn a_lost_one_is_followed_soon_and_never_two_at_once() {
        let (mut canary, health) = canary();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(canary.is_due(at(0)));
        let token = canary.next(at(0));
        assert!(!canary.is_due(at(60_000)), "the first is still on its way");
        canary.was_sent();
        assert!(!canary.is_due(at(499)) && canary.is_due(at(500)), "none has come back yet");
        canary.hears(&token, at(10));
        canary.came_back();
        assert!(health.has_fetched() && !canary.is_due(at(4_999)) && canary.is_due(at(5_000)));
    }
}
