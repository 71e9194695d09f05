//! `{{name}}` in texts, filled from data.

use serde_json::Value;

/// `text` with every `{{path}}` replaced by the value it names; members and indexes are joined
/// by dots.
///
/// # Errors
/// A sentence that names the first path without a value.
pub(super) fn fill(text: &str, data: &Value) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((path, after)) = after.split_once("}}") else {
            return Err("{{ without }}".to_owned());
        };
        out.push_str(&value(path.trim(), data)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn value(path: &str, data: &Value) -> Result<String, String> {
    let shown = || path.chars().take(60).collect::<String>();
    let mut at = data;
    for step in path.split('.') {
        let next = match at {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            Value::Object(members) => members.get(step),
            _ => None,
        };
        at = next.ok_or_else(|| format!("data has no {:?}", shown()))?;
    }
    match at {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err(format!("{:?} in data is no text and no number", shown())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_filled_and_unknown_ones_are_told() {
        let data = json!({"a": {"b": [1.5, "x"]}, "n": null});
        assert_eq!(fill("{{a.b.0}} and {{ a.b.1 }}{{n}}.", &data), Ok("1.5 and x.".to_owned()));
        assert_eq!(fill("plain } text {", &data), Ok("plain } text {".to_owned()));
        for bad in ["{{a}}", "{{a.b.2}}", "{{c}}", "{{a.b", "{{}}"] {
            assert!(fill(bad, &data).is_err(), "{bad}");
        }
        // What is filled in is not a template.
        assert_eq!(fill("{{x}}", &json!({"x": "{{y}}"})), Ok("{{y}}".to_owned()));
    }
}
