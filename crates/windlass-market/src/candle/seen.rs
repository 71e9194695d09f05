//! A set of numbers that mostly rise by one: kept as ranges.

/// Numbers, as sorted ranges with both ends in, no two of which touch.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ranges: Vec<(i64, i64)>,
}

impl Seen {
    /// Adds a number; false when it was in.
    pub(super) fn insert(&mut self, number: i64) -> bool {
        // The first range that ends at or after the number.
        let at = self.ranges.partition_point(|&(_, end)| end < number);
        if self.ranges.get(at).is_some_and(|&(start, _)| start <= number) {
            return false;
        }
        let joins_left = at > 0 && self.ranges[at - 1].1.checked_add(1) == Some(number);
        let joins_right = self.ranges.get(at).is_some_and(|&(start, _)| number.checked_add(1) == Some(start));
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        true
    }

    /// How many ranges it takes.
    pub(super) fn ranges(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_is_a_set_and_ranges_join() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut seen, mut set) = (Seen::default(), BTreeSet::new());
        for _ in 0..20_000 {
            let number = random.i64(-300..300);
            assert_eq!(seen.insert(number), set.insert(number), "{number}");
        }
        for number in [i64::MAX, i64::MIN, i64::MAX - 1, i64::MIN + 1, i64::MAX] {
            assert_eq!(seen.insert(number), set.insert(number), "{number}");
        }
        assert_eq!(seen.ranges(), 3);
    }
}
