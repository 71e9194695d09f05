//! How long a failed job waits before its next run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::millis;

/// The wait between a failed run and the next.
///
/// *Default*: exponential from 1 s to 10 min. The exponential form is spread over ±25 % so
/// that jobs which failed together do not come back together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Backoff {
    /// The same wait every time.
    Fixed {
        /// The wait, in milliseconds.
        delay_ms: u64,
    },
    /// `base · 2^(n−1)`, at most `max`, ±25 %.
    Exponential {
        /// The wait after the first failure, in milliseconds.
        base_ms: u64,
        /// The longest wait, in milliseconds.
        max_ms: u64,
    },
    /// One wait after another; the last is repeated.
    List {
        /// The waits, in milliseconds; 1 to 6 of them.
        delays_ms: Vec<u64>,
    },
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential { base_ms: 1_000, max_ms: 600_000 }
    }
}

impl Backoff {
    /// The longest wait a job may ask for: 30 days.
    pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// The wait after the `failures`-th failure (from 1). `random` in 0.0–1.0 places the
    /// exponential form within its spread.
    #[must_use]
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let ms = match self {
            Self::Fixed { delay_ms } => *delay_ms,
            Self::Exponential { base_ms, max_ms } => {
                let doubled = base_ms.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
                let spread = 0.75 + 0.5 * random.clamp(0.0, 1.0);
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a wait of at most 30 days is far below 2^52 ms"
                )]
                let spread_ms = (doubled.min(*max_ms) as f64 * spread) as u64;
                spread_ms
            }
            Self::List { delays_ms } => {
                let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
                delays_ms.get(index).or(delays_ms.last()).copied().unwrap_or(0)
            }
        };
        Duration::from_millis(ms).min(Self::MAX_DELAY)
    }

    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn check(&self) -> Result<(), String> {
        let max = u64::try_from(millis(Self::MAX_DELAY)).unwrap_or(u64::MAX);
        let waits: &[u64] = match self {
            Self::Fixed { delay_ms } => &[*delay_ms],
            Self::Exponential { base_ms, max_ms } if base_ms > max_ms => {
                return Err(format!("base_ms {base_ms} is above max_ms {max_ms}"));
            }
            Self::Exponential { max_ms, .. } => &[*max_ms],
            Self::List { delays_ms } if !(1..=6).contains(&delays_ms.len()) => {
                return Err(format!("a list of {} waits; 1 to 6 are allowed", delays_ms.len()));
            }
            Self::List { delays_ms } => delays_ms,
        };
        match waits.iter().find(|ms| **ms > max) {
            Some(ms) => Err(format!("a wait of {ms} ms; at most {max} (30 days) is allowed")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Backoff {
    /// The short form kept with a job: `fix:500`, `exp:1000:600000`, `list:1,2,3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed { delay_ms } => write!(f, "fix:{delay_ms}"),
            Self::Exponential { base_ms, max_ms } => write!(f, "exp:{base_ms}:{max_ms}"),
            Self::List { delays_ms } => {
                let waits: Vec<String> = delays_ms.iter().map(u64::to_string).collect();
                write!(f, "list:{}", waits.join(","))
            }
        }
    }
}

impl FromStr for Backoff {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let fail = || format!("backoff {s:?} is not fix:ms, exp:base:max or list:ms,ms");
        let number = |t: &str| t.parse::<u64>().map_err(|_| fail());
        let (form, rest) = s.split_once(':').ok_or_else(fail)?;
        match form {
            "fix" => Ok(Self::Fixed { delay_ms: number(rest)? }),
            "exp" => {
                let (base, max) = rest.split_once(':').ok_or_else(fail)?;
                Ok(Self::Exponential { base_ms: number(base)?, max_ms: number(max)? })
            }
            "list" => Ok(Self::List { delays_ms: rest.split(',').map(number).collect::<Result<_, _>>()? }),
            _ => Err(fail()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_follow_their_form() {
        let check = |backoff: &str, failures, random, expected_ms| {
            let backoff: Backoff = backoff.parse().unwrap();
            assert_eq!(backoff.delay(failures, random), Duration::from_millis(expected_ms), "{backoff} {failures}");
        };
        check("fix:500", 1, 0.9, 500);
        check("exp:1000:600000", 1, 0.5, 1_000);
        check("exp:1000:600000", 4, 0.5, 8_000);
        check("exp:1000:600000", 4, 0.0, 6_000);
        check("exp:1000:600000", 99, 0.5, 600_000);
        check("list:10,20", 1, 0.5, 10);
        check("list:10,20", 7, 0.5, 20);
    }

    proptest! {
        #[test]
        fn the_short_form_round_trips(base in 0_u64..1_000_000, more in 0_u64..1_000_000, list in proptest::collection::vec(0_u64..100_000, 1..7)) {
            for backoff in [Backoff::Fixed { delay_ms: base }, Backoff::Exponential { base_ms: base, max_ms: base + more }, Backoff::List { delays_ms: list }] {
                prop_assert!(backoff.check().is_ok());
                prop_assert_eq!(backoff.to_string().parse::<Backoff>().unwrap(), backoff);
            }
        }

        #[test]
        fn an_exponential_wait_stays_within_its_spread(failures in 1_u32..200, random in 0.0_f64..=1.0) {
            let delay = Backoff::default().delay(failures, random);
            prop_assert!(delay >= Duration::from_millis(750) && delay <= Duration::from_secs(750));
        }
    }
}
