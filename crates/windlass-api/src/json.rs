//! JSON as strictly as it can be read: what two readers could understand differently is
//! refused.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most members of one object.
const MAX_MEMBERS: usize = 10_000;
/// Most values in one document, so that its tree stays within some tens of MiB.
const MAX_VALUES: usize = 1_000_000;

/// Reads one document: UTF-8 without a byte order mark, nothing after it, at most 127 levels
/// deep, no member twice, no lone surrogate, no number that a 64-bit type cannot hold.
///
/// # Errors
/// What is wrong and where, for a person.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut values = 0;
    let value = Strict { values: &mut values }.deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())?;
    if !integers_fit(bytes) {
        return Err("an integer does not fit into 64 bits".to_owned());
    }
    Ok(value)
}

/// True when no integer in the value is above 2^63 − 1: not every reader has unsigned ones.
pub(crate) fn is_signed(value: &Value) -> bool {
    match value {
        Value::Number(n) => n.is_f64() || n.is_i64(),
        Value::Array(items) => items.iter().all(is_signed),
        Value::Object(members) => members.values().all(is_signed),
        _ => true,
    }
}

/// True when every integer lies between −2^63 and 2^64 − 1; `serde_json` reads others as
/// floats and loses digits. Expects valid JSON.
fn integers_fit(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'"' => after_string(tail),
            b'-' | b'0'..=b'9' => {
                let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E');
                let end = rest.iter().position(|b| !is_part(b)).unwrap_or(rest.len());
                if !fits(&rest[..end]) {
                    return false;
                }
                &rest[end..]
            }
            _ => tail,
        };
    }
    true
}

/// What follows the string whose opening quote was taken.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'\\')) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    &[]
}

fn fits(number: &[u8]) -> bool {
    const RANGE: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;
    let is_integer = number.iter().all(|b| b.is_ascii_digit() || *b == b'-');
    let read = || std::str::from_utf8(number).ok().and_then(|text| text.parse::<i128>().ok());
    !is_integer || read().is_some_and(|n| RANGE.contains(&n))
}

/// Builds a [`Value`], refusing members given twice.
struct Strict<'a> {
    /// How many values were read so far.
    values: &'a mut usize,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        *self.values += 1;
        if *self.values > MAX_VALUES {
            return Err(D::Error::custom(format!("more than {MAX_VALUES} values")));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Strict { values: &mut *self.values })? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.len() == MAX_MEMBERS {
                return Err(A::Error::custom(format!("an object with more than {MAX_MEMBERS} members")));
            }
            if object.contains_key(&name) {
                let shown: String = name.chars().take(64).collect();
                return Err(A::Error::custom(format!("the member {shown:?} is there twice")));
            }
            let value = members.next_value_seed(Strict { values: &mut *self.values })?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_serde_json_reads() {
        for good in [
            r#"{"a":[1,-2,3.5,"x\"\\9999999999999999999999",null,true],"b":{}}"#,
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "  [ ]\n",
            "\"\\u00e9\\ud83d\\ude00\"",
        ] {
            assert_eq!(parse(good.as_bytes()).unwrap(), serde_json::from_str::<Value>(good).unwrap(), "{good}");
        }
        assert!(parse(nested(127).as_bytes()).is_ok());
    }

    fn nested(depth: usize) -> String {
        "[".repeat(depth) + &"]".repeat(depth)
    }

    /// B07
    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check =
            |bad: &[u8]| assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(80)]));
        for bad in [
            "",
            "{",
            "{} {}",
            "[1]x",
            "NaN",
            "Infinity",
            "1e999",
            "[1,]",
            "{'a':1}",
            "// x\n1",
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#""\ud800""#,
            r#""\udc00x""#,
            "18446744073709551616",
            "-9223372036854775809",
            "[1, 99999999999999999999999]",
            "\u{feff}{}",
        ] {
            check(bad.as_bytes());
        }
        check(b"\"\xff\"");
        check(nested(128).as_bytes());
        check(nested(1_000_000).as_bytes());
        let members: Vec<String> = (0..MAX_MEMBERS + 1).map(|i| format!("\"{i}\":0")).collect();
        check(format!("{{{}}}", members.join(",")).as_bytes());
        check(format!("[{}0]", "0,".repeat(MAX_VALUES)).as_bytes());
    }

    #[test]
    fn signed_integers_are_told_from_unsigned_ones() {
        assert!(is_signed(&parse(b"{\"a\":[9223372036854775807,1e30]}").unwrap()));
        assert!(!is_signed(&parse(b"{\"a\":[9223372036854775808]}").unwrap()));
    }
}
