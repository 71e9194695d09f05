//! What the broker records of a run: one pure function from the handler's outcome.

use std::time::Duration;

use windlass_jobs::command::Settle;
use windlass_jobs::{Backoff, MAX_RESULT_BYTES, Reason, RunError};

use crate::admission::Need;

/// The longest error text kept with a job, in bytes.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// How long a job of a kind this worker does not know is left to others.
const UNKNOWN_KIND_WAIT: Duration = Duration::from_secs(5);

/// How a run ended, as the worker sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// The handler is done; the result as JSON text.
    Done { result: Option<String>, skipped: bool },
    /// It failed for a reason that may pass.
    Failed { reason: Reason, error: RunError, after: Option<Duration> },
    /// It failed and always will.
    Fatal { reason: Reason, error: RunError },
    /// Not yet.
    Snooze(Duration),
    /// No longer wanted.
    Cancelled(String),
    /// The worker stops, or lost the lease: given back.
    GivenBack,
    /// It found no room beside its slot, and was not started.
    Held(Need),
    /// This worker does not know the kind; parked when nobody did for so long.
    UnknownKind { park_after: Duration },
}

/// What the job's own words say about failing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempts {
    /// Failed runs before this one.
    pub(crate) failures: u32,
    /// Runs at most.
    pub(crate) max: u32,
    /// The wait after a failed run.
    pub(crate) backoff: Backoff,
}

/// Decides: retry or bury. `random` in 0.0–1.0 spreads the wait.
pub(crate) fn settle(ended: Ended, attempts: &Attempts, random: f64) -> Settle {
    match ended {
        Ended::Done { result: Some(result), .. } if result.len() > MAX_RESULT_BYTES => {
            let message =
                format!("the result has {} bytes; at most {MAX_RESULT_BYTES} are kept: use an artifact", result.len());
            bury(Reason::ResultTooLarge, &RunError::new("result_too_large", message), attempts)
        }
        Ended::Done { result, skipped } => Settle::Success { result, skipped },
        Ended::Fatal { reason, error } => bury(reason, &error, attempts),
        Ended::Failed { reason, error, .. } if attempts.failures + 1 >= attempts.max => bury(reason, &error, attempts),
        Ended::Failed { error, after, .. } => {
            let failures = attempts.failures + 1;
            let delay = after.unwrap_or_else(|| attempts.backoff.delay(failures, random)).min(Backoff::MAX_DELAY);
            Settle::Retry { delay, failures, error: error_text(&error) }
        }
        Ended::Snooze(delay) => Settle::Snooze { delay: delay.min(Backoff::MAX_DELAY) },
        Ended::Cancelled(reason) => Settle::Cancelled { error: error_text(&RunError::new("cancelled", reason)) },
        Ended::GivenBack | Ended::Held(_) => Settle::Release,
        Ended::UnknownKind { park_after } => Settle::Unknown { delay: UNKNOWN_KIND_WAIT.min(park_after), park_after },
    }
}

fn bury(reason: Reason, error: &RunError, attempts: &Attempts) -> Settle {
    Settle::Failure { reason, failures: attempts.failures + 1, error: error_text(error) }
}

/// An error as the JSON text kept with the job.
pub(crate) fn error_text(error: &RunError) -> String {
    let mut error = error.clone();
    error.message.truncate(error.message.floor_char_boundary(MAX_ERROR_BYTES));
    serde_json::to_string(&error).unwrap_or_else(|_| r#"{"code":"error","message":""}"#.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(failures: u32, max: u32) -> Attempts {
        Attempts { failures, max, backoff: Backoff::Fixed { delay_ms: 500 } }
    }

    fn failed() -> Ended {
        Ended::Failed { reason: Reason::Timeout, error: RunError::new("timeout", "too slow"), after: None }
    }

    #[test]
    fn a_failure_is_retried_until_the_attempts_are_spent() {
        let retry = settle(failed(), &attempts(0, 2), 0.5);
        assert!(matches!(retry, Settle::Retry { failures: 1, delay, .. } if delay == Duration::from_millis(500)));
        let buried = settle(failed(), &attempts(1, 2), 0.5);
        assert!(matches!(buried, Settle::Failure { reason: Reason::Timeout, failures: 2, .. }));
    }

    #[test]
    fn a_fatal_error_is_never_retried() {
        let ended = Ended::Fatal { reason: Reason::Error, error: RunError::new("x", "y") };
        assert!(matches!(settle(ended, &attempts(0, 100), 0.5), Settle::Failure { failures: 1, .. }));
    }

    #[test]
    fn a_result_over_the_limit_is_a_failure() {
        let check = |len: usize, fits: bool| {
            let ended = Ended::Done { result: Some("x".repeat(len)), skipped: false };
            let settled = settle(ended, &attempts(0, 3), 0.5);
            assert_eq!(matches!(settled, Settle::Success { .. }), fits, "{len}");
        };
        check(MAX_RESULT_BYTES, true);
        check(MAX_RESULT_BYTES + 1, false);
    }

    #[test]
    fn a_long_error_is_cut() {
        let error = RunError::new("x", "é".repeat(20_000));
        assert!(error_text(&error).len() < MAX_ERROR_BYTES + 100);
    }
}
