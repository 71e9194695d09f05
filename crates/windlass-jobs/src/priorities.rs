//! How many jobs of each priority a worker claims, where that is not strict.

use std::fmt;
use std::str::FromStr;

/// The parts that high, normal and low jobs get of a worker's claims while all three wait.
///
/// *Shape as text*: `6,3,1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityWeights([u32; 3]);

impl PriorityWeights {
    /// The largest weight; the least is 1.
    pub const MOST: u32 = 1_000;

    /// Weights of high, normal and low; `None` when one is not in 1 to [`PriorityWeights::MOST`].
    #[must_use]
    pub fn new(weights: [u32; 3]) -> Option<Self> {
        weights.iter().all(|weight| (1..=Self::MOST).contains(weight)).then_some(Self(weights))
    }

    /// Shares `n` jobs among the priorities. `credit` is what each has been owed by the shares
    /// before, so that many small shares come to the same as a large one; it starts as zeros.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers, none below 0"
    )]
    pub fn share(self, n: usize, credit: &mut [f64; 3]) -> [usize; 3] {
        let all: u32 = self.0.iter().sum();
        let mut quotas = [0; 3];
        for p in 0..3 {
            credit[p] += n as f64 * f64::from(self.0[p]) / f64::from(all);
            quotas[p] = (credit[p].max(0.0) as usize).min(n);
        }
        // Rounded down, they leave some over, or one that was owed much takes too many.
        while quotas.iter().sum::<usize>() > n {
            let most = (0..3).max_by_key(|p| quotas[*p]).unwrap_or(0);
            quotas[most] -= 1;
        }
        while quotas.iter().sum::<usize>() < n {
            let owed = |p: &usize| credit[*p] - quotas[*p] as f64;
            let next = (0..3).max_by(|a, b| owed(a).total_cmp(&owed(b)).then(b.cmp(a))).unwrap_or(0);
            quotas[next] += 1;
        }
        for p in 0..3 {
            credit[p] -= quotas[p] as f64;
        }
        quotas
    }
}

impl fmt::Display for PriorityWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, normal, low] = self.0;
        write!(f, "{high},{normal},{low}")
    }
}

impl FromStr for PriorityWeights {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let weights: Vec<u32> = text.split(',').map_while(|word| word.trim().parse().ok()).collect();
        let weights = <[u32; 3]>::try_from(weights).ok().filter(|_| text.split(',').count() == 3);
        weights.and_then(Self::new).ok_or_else(|| format!("{text:?} is not three numbers of 1 to 1000 such as 6,3,1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_to_the_weights_however_they_are_cut() {
        for (weights, of_a_hundred) in [("6,3,1", [60, 30, 10]), ("1,1,2", [25, 25, 50]), ("98,1,1", [98, 1, 1])] {
            let weights: PriorityWeights = weights.parse().unwrap();
            for size in [1, 3, 7, 20, 100, 128] {
                let (mut credit, mut sum, mut shared) = ([0.0; 3], [0; 3], 0);
                for _ in 0..400 {
                    let quotas = weights.share(size, &mut credit);
                    assert_eq!(quotas.iter().sum::<usize>(), size);
                    (0..3).for_each(|p| sum[p] += quotas[p]);
                    shared += size;
                }
                for p in 0..3 {
                    assert!(sum[p].abs_diff(shared * of_a_hundred[p] / 100) <= 2, "{weights} by {size}: {sum:?}");
                }
            }
        }
    }

    #[test]
    fn weights_are_checked() {
        assert_eq!("6, 3,1".parse::<PriorityWeights>().unwrap().to_string(), "6,3,1");
        for wrong in ["", "6,3", "6,3,0", "6,3,1,1", "6,3,x", "1001,1,1"] {
            assert!(wrong.parse::<PriorityWeights>().is_err(), "{wrong:?}");
        }
    }
}
