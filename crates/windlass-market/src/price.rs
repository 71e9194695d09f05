//! Decimals at the edges, integer points inside.

/// Digits after the point at most: 10^18 is the largest power of ten in an i64.
pub const MAX_DIGITS: u8 = 18;

/// Why a text is not a price of an instrument. As text a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum BadPrice {
    /// It is no decimal number.
    #[error("it is not a decimal number")]
    NotANumber,
    /// It has more digits after the point than the instrument, and they are not zeros.
    #[error("it has more digits after the point than the instrument")]
    SurplusDigits,
    /// It does not fit into 64 bits as points.
    #[error("it is too large")]
    TooLarge,
}

impl BadPrice {
    /// The word in counters, audit and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotANumber => "not_a_number",
            Self::SurplusDigits => "surplus_digits",
            Self::TooLarge => "too_large",
        }
    }
}

/// Reads `"1.0716"` as points of an instrument with `digits` digits; exact. A sign and an
/// exponent as JSON allows them are read too; whether a price is above 0 is asked elsewhere.
///
/// # Errors
/// [`BadPrice`]; nothing is ever rounded.
pub fn parse(text: &str, digits: u8) -> Result<i64, BadPrice> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| BadPrice::NotANumber)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !all_digits(whole)
        || !all_digits(fraction)
        || (mantissa.contains('.') && fraction.is_empty())
    {
        return Err(BadPrice::NotANumber);
    }
    let mut digits_read: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    // value = digits_read × 10^scale, in points
    let mut scale = i64::from(exponent) + i64::from(digits) - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    while scale < 0 {
        match digits_read.pop() {
            Some(0) => scale += 1,
            None => return Ok(0),
            Some(_) => return Err(BadPrice::SurplusDigits),
        }
    }
    let mut points = 0_i64;
    for digit in digits_read {
        points = points.checked_mul(10).and_then(|p| p.checked_add(i64::from(digit))).ok_or(BadPrice::TooLarge)?;
    }
    if points == 0 {
        return Ok(0);
    }
    for _ in 0..scale {
        points = points.checked_mul(10).ok_or(BadPrice::TooLarge)?;
    }
    Ok(if negative { -points } else { points })
}

/// Writes points as a decimal with exactly `digits` digits after the point.
#[must_use]
pub fn format(points: i64, digits: u8) -> String {
    let digits = usize::from(digits.min(MAX_DIGITS));
    if digits == 0 {
        return points.to_string();
    }
    let sign = if points < 0 { "-" } else { "" };
    let text = format!("{:0width$}", points.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_or_refused_8_17() {
        let check = |text: &str, digits, expected| assert_eq!(parse(text, digits), expected, "{text} with {digits}");
        check("1.07160", 5, Ok(107_160));
        check("1.0716", 5, Ok(107_160));
        check("1.071600000", 5, Ok(107_160));
        check("1.071601", 5, Err(BadPrice::SurplusDigits));
        check("0.30000000000000004", 8, Err(BadPrice::SurplusDigits));
        check("0.3", 8, Ok(30_000_000));
        check("67000", 0, Ok(67_000));
        check("67000.0", 0, Ok(67_000));
        check("67000.5", 0, Err(BadPrice::SurplusDigits));
        check("9223372036854775807", 0, Ok(i64::MAX));
        check("9223372036854775808", 0, Err(BadPrice::TooLarge));
        check("92233720368547758.07", 2, Ok(i64::MAX));
        check("1e5", 2, Ok(10_000_000));
        check("1.5E-3", 4, Ok(15));
        check("1e-2000000000", 4, Err(BadPrice::SurplusDigits));
        check("0e2000000000", 4, Ok(0));
        check("1e2000000000", 4, Err(BadPrice::TooLarge));
        check("-1.5", 1, Ok(-15));
        for bad in ["", "NaN", "inf", "1.", ".5", "+1", "1_0", " 1", "0x10", "--1", "1.2.3", "1e", "٣"] {
            check(bad, 5, Err(BadPrice::NotANumber));
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (points, digits, text) in [
            (107_160, 5, "1.07160"),
            (5, 3, "0.005"),
            (-5, 3, "-0.005"),
            (7, 0, "7"),
            (i64::MAX, 18, "9.223372036854775807"),
        ] {
            assert_eq!(format(points, digits), text);
            assert_eq!(parse(text, digits), Ok(points));
        }
        assert_eq!(format(i64::MIN, 2), "-92233720368547758.08");
    }
}
