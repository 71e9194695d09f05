//! The result cache: what went into a job names what came out of it.

use std::time::Duration;

use serde_json::Value;
use windlass_store::{Digest, Services};

use crate::kind::KindSpec;
use crate::result::StoredResult;

/// The key of a job's result: BLAKE3 over kind, version and canonical args, as 64 hex digits.
/// Input files count through their digests, which are part of the args.
pub(crate) fn key(spec: &KindSpec, args: &Value) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(spec.name.as_bytes()).update(&[0]).update(&spec.version.to_le_bytes());
    hash_value(&mut hasher, args);
    hasher.finalize().to_hex().to_string()
}

/// Every value is hashed with its type and length, object members by sorted name.
fn hash_value(hasher: &mut blake3::Hasher, value: &Value) {
    let text = |hasher: &mut blake3::Hasher, tag: u8, text: &str| {
        hasher.update(&[tag]).update(&text.len().to_le_bytes()).update(text.as_bytes());
    };
    match value {
        Value::Null => text(hasher, b'n', ""),
        Value::Bool(b) => text(hasher, b'b', if *b { "1" } else { "0" }),
        Value::Number(number) => text(hasher, b'#', &canonical_number(number)),
        Value::String(s) => text(hasher, b's', s),
        Value::Array(items) => {
            hasher.update(b"[").update(&items.len().to_le_bytes());
            items.iter().for_each(|item| hash_value(hasher, item));
        }
        Value::Object(members) => {
            hasher.update(b"{").update(&members.len().to_le_bytes());
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            for (name, member) in sorted {
                text(hasher, b's', name);
                hash_value(hasher, member);
            }
        }
    }
}

/// `2` and `2.0` are one number.
fn canonical_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

/// The result of an equal job, if it and all its artifacts are still there; their time is
/// renewed. A store that fails is a miss.
pub(crate) async fn look_up(services: &Services, key: &str) -> Option<StoredResult> {
    let json = match services.results.get(key).await {
        Ok(json) => json?,
        Err(error) => {
            tracing::warn!(%error, "result cache not asked: the job is run");
            return None;
        }
    };
    let mut result: StoredResult = serde_json::from_str(&json).ok()?;
    for artifact in &result.artifacts {
        let digest: Digest = artifact.blob.parse().ok()?;
        if !services.artifacts.touch(&digest).await.unwrap_or(false) {
            return None;
        }
    }
    result.cached = true;
    Some(result)
}

/// Keeps a result for equal jobs. A store that fails costs a later run, nothing else.
pub(crate) async fn keep(services: &Services, key: &str, result: &StoredResult, ttl: Duration) {
    let json = serde_json::to_string(result).unwrap_or_default();
    if let Err(error) = services.results.put(key, &json, ttl).await {
        tracing::warn!(%error, "result not cached");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(args: Value) -> String {
        key(&KindSpec::new("k", ""), &args)
    }

    #[test]
    fn equal_args_have_equal_keys() {
        assert_eq!(of(json!({"a": 1, "b": [2.0]})), of(json!({"b": [2], "a": 1.0})));
    }

    #[test]
    fn different_args_have_different_keys() {
        let all = [
            json!(null),
            json!({}),
            json!([]),
            json!(""),
            json!("1"),
            json!(1),
            json!(-1),
            json!(1.5),
            json!(true),
            json!({"a": "bc"}),
            json!({"ab": "c"}),
            json!(["a", "b"]),
            json!(["b", "a"]),
            json!([["a"], "b"]),
        ];
        let keys: std::collections::BTreeSet<_> = all.iter().cloned().map(of).collect();
        assert_eq!(keys.len(), all.len());
        let newer = KindSpec { version: 2, ..KindSpec::new("k", "") };
        assert_ne!(key(&newer, &all[0]), of(all[0].clone()));
    }
}
