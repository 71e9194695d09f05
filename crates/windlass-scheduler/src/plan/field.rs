//! One field of a cron expression: numbers, names, ranges, lists and steps, read into a bit set.

use super::BadPlan;

/// What a field may hold.
pub(super) struct Spec {
    /// For people: `"minute"`.
    pub(super) name: &'static str,
    /// The least number.
    pub(super) min: u32,
    /// The greatest number.
    pub(super) max: u32,
    /// Names of the numbers from `min` on, three letters each.
    pub(super) names: &'static [&'static str],
}

pub(super) const SECOND: Spec = Spec { name: "second", min: 0, max: 59, names: &[] };
pub(super) const MINUTE: Spec = Spec { name: "minute", min: 0, max: 59, names: &[] };
pub(super) const HOUR: Spec = Spec { name: "hour", min: 0, max: 23, names: &[] };
pub(super) const DAY: Spec = Spec { name: "day of month", min: 1, max: 31, names: &[] };
pub(super) const MONTH: Spec = Spec {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
/// 0 and 7 are both Sunday.
pub(super) const WEEKDAY: Spec =
    Spec { name: "day of week", min: 0, max: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };

impl Spec {
    /// The set of a whole field: bit n stands for n.
    pub(super) fn read(&self, text: &str) -> Result<u64, BadPlan> {
        text.split(',').try_fold(0, |set, item| Ok(set | self.read_item(item)?))
    }

    /// The set of one item of a list: `*`, `*/5`, `3`, `3-9`, `3-9/2`, `3/2`, names for numbers.
    pub(super) fn read_item(&self, item: &str) -> Result<u64, BadPlan> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((from, to)) => (self.value(from)?, self.end(to)?),
            None if step.is_some() => (self.value(range)?, self.max),
            None => (self.value(range)?, self.value(range)?),
        };
        if from > to {
            let hint = format!("{from}-{},{}-{to}", self.max, self.min);
            return Err(self.wrong(format!("the range {range} falls; write {hint} to go over the end")));
        }
        let step = step.unwrap_or(1);
        // 7 is Sunday again, but no day of its own for `*/2` and the like.
        let to = if range == "*" && self.max == 7 { 6 } else { to };
        Ok((from..=to).step_by(usize::try_from(step).unwrap_or(1)).fold(0, |set, n| set | 1 << n))
    }

    /// A number or a name.
    pub(super) fn value(&self, text: &str) -> Result<u32, BadPlan> {
        if let Some(index) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.min + u32::try_from(index).unwrap_or(0));
        }
        let number = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
        number.filter(|n| (self.min..=self.max).contains(n)).ok_or_else(|| {
            let names = if self.names.is_empty() { String::new() } else { format!(", {} …", self.names[0]) };
            self.wrong(format!("{:?} is not {} to {}{names}", short(text), self.min, self.max))
        })
    }

    /// The end of a range: Sunday ends a week.
    fn end(&self, text: &str) -> Result<u32, BadPlan> {
        let value = self.value(text)?;
        Ok(if self.max == 7 && value == 0 { 7 } else { value })
    }

    fn step(&self, text: &str) -> Result<u32, BadPlan> {
        let span = self.max - self.min;
        let step = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
        step.filter(|n| (1..=span).contains(n))
            .ok_or_else(|| self.wrong(format!("the step {:?} is not 1 to {span}", short(text))))
    }

    pub(super) fn wrong(&self, message: String) -> BadPlan {
        BadPlan::new("plan_invalid", format!("{}: {message}", self.name))
    }
}

/// At most 32 characters of what was found.
pub(super) fn short(text: &str) -> String {
    text.chars().take(32).collect()
}

/// A set as a list of numbers, `*` when all of them are in it.
pub(super) fn list(set: u64, min: u32, max: u32) -> String {
    let all: Vec<String> = (min..=max).filter(|n| set >> n & 1 == 1).map(|n| n.to_string()).collect();
    if all.len() == usize::try_from(max - min + 1).unwrap_or(0) { "*".to_owned() } else { all.join(",") }
}
