//! Numbers and dates as people read them, in English.

use jiff::civil::{Date, DateTime};

use super::steps::decimals_of;

/// The true minus sign; a hyphen is too short beside figures.
const MINUS: char = '\u{2212}';

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `value` with `decimals` and thousands separated: `1,234.50`.
#[must_use]
pub(super) fn number(value: f64, decimals: usize) -> String {
    let digits = format!("{:.decimals$}", value.abs());
    let (whole, broken) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 3);
    let is_zero = digits.bytes().all(|b| b == b'0' || b == b'.');
    if value < 0.0 && !is_zero {
        text.push(MINUS);
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push_str(broken);
    text
}

/// `value` with its sign always shown: `+4.21`, `−0.53`, and `0.00` for nothing.
#[must_use]
pub(super) fn signed(value: f64, decimals: usize) -> String {
    let text = number(value, decimals);
    let positive = value > 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if positive { format!("+{text}") } else { text }
}

/// A volume in thousands, millions, billions or trillions: `2.18M`. `decimals`: `None` for
/// two, with trailing zeros; otherwise as given.
#[must_use]
pub(super) fn volume(value: f64, decimals: Option<usize>) -> String {
    let units = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    // 999,995 prints as 1.00M rather than 1000.00K.
    let unit = units.into_iter().find(|(size, _)| value.abs() >= size * 0.999_995);
    match unit {
        Some((size, name)) => format!("{}{name}", number(value / size, decimals.unwrap_or(2))),
        None => number(value, decimals.unwrap_or_else(|| decimals_of(value).min(2))),
    }
}

/// A round volume: as few decimals as the value needs.
#[must_use]
pub(super) fn volume_tick(value: f64) -> String {
    volume(value, Some(volume_decimals(value)))
}

/// The labels of a volume axis: those of one unit have as many decimals as the longest of them.
#[must_use]
pub(super) fn volume_ticks(values: &[f64]) -> Vec<String> {
    let peers = |value: f64| values.iter().copied().filter(move |other| volume_unit(*other) == volume_unit(value));
    let text = |value: &f64| volume(*value, Some(peers(*value).map(volume_decimals).max().unwrap_or(0)));
    values.iter().map(text).collect()
}

fn volume_unit(value: f64) -> f64 {
    [1e12, 1e9, 1e6, 1e3].into_iter().find(|size| value.abs() >= *size).unwrap_or(1.0)
}

fn volume_decimals(value: f64) -> usize {
    decimals_of(value / volume_unit(value)).min(4)
}

/// `Feb`.
#[must_use]
pub(super) fn month(month: i8) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index).copied()).unwrap_or("")
}

/// `1 Mar 2013`.
#[must_use]
pub(super) fn date(date: Date) -> String {
    format!("{} {} {}", date.day(), month(date.month()), date.year())
}

/// `09:30`.
#[must_use]
pub(super) fn clock(at: DateTime) -> String {
    format!("{:02}:{:02}", at.hour(), at.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: String, expected: &str) {
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_are_grouped_and_signed() {
        check(number(1_234_567.891, 2), "1,234,567.89");
        check(number(999.0, 0), "999");
        check(number(-1000.5, 1), "−1,000.5");
        check(number(-0.001, 2), "0.00");
        check(number(1e-8, 8), "0.00000001");
        check(number(1e12, 0), "1,000,000,000,000");
        check(signed(4.21, 2), "+4.21");
        check(signed(-4.21, 2), "−4.21");
        check(signed(0.001, 2), "0.00");
    }

    #[test]
    fn volumes_are_short() {
        check(volume(2_175_412.0, None), "2.18M");
        check(volume(999_996.0, None), "1.00M");
        check(volume(0.0, None), "0");
        check(volume(12.5, None), "12.5");
        check(volume(143_539_993.3, None), "143.54M");
        check(volume_tick(5e6), "5M");
        check(volume_tick(2.5e9), "2.5B");
        check(volume_tick(200.0), "200");
        assert_eq!(volume_ticks(&[1.1e9, 1.15e9, 1.2e9]), ["1.10B", "1.15B", "1.20B"]);
        assert_eq!(volume_ticks(&[0.0, 5e5, 1e6, 1.5e6]), ["0", "500K", "1.0M", "1.5M"]);
    }
}
