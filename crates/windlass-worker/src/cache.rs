//! The result cache: what went into a job names what came out of it, and equal jobs run once.
//!
//! The first of equal jobs takes the *lead*; the others are put off, without an attempt and without
//! a slot, until its result is there. A lead lasts [`LEAD`] and is renewed while the job runs, so
//! a leader that dies holds them up no longer than that. The cache only ever spares work: without
//! it, or when a lead is lost, equal jobs run more than once and come to the same.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use windlass_jobs::Ulid;
use windlass_store::{Digest, Results, Services};

use crate::kind::KindSpec;
use crate::result::StoredResult;

/// How long a lead lasts without a renewal.
const LEAD: Duration = Duration::from_secs(10);

/// The key of a job's result: BLAKE3 over kind, version and canonical args, as 64 hex digits.
/// Input files count through their digests, which are part of the args.
fn key(spec: &KindSpec, args: &Value) -> String {
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

/// What is to be done about a job whose result may be cached.
pub(crate) enum Sought {
    /// An equal job has left its result.
    Hit(StoredResult),
    /// An equal job is being run: ask again after this long.
    PutOff(Duration),
    /// It is to be run.
    Run(Lead),
}

/// Looks for the result of an equal job, and for equal jobs that are being run; takes the lead
/// when there are none. A store that fails means that the job is run.
pub(crate) async fn seek(services: &Services, spec: &KindSpec, args: &Value, job: Ulid) -> Sought {
    let Some(ttl) = spec.cache_ttl else { return Sought::Run(Lead::none()) };
    let key = key(spec, args);
    if let Some(hit) = look_up(services, &key).await {
        return Sought::Hit(hit);
    }
    // The job's name without its epoch: a job that is delivered again takes its own lead over.
    let token = job.to_string();
    match services.results.lead(&key, &token, LEAD).await {
        Ok(windlass_store::Lead::Mine) => {}
        Ok(windlass_store::Lead::Other { age }) => return Sought::PutOff(put_off(age)),
        Err(error) => {
            tracing::warn!(%error, "equal jobs not asked about: the job is run");
            return Sought::Run(Lead::none());
        }
    }
    let lead = Lead(Some(Held { results: Arc::clone(&services.results), key, token, ttl }));
    // The leader before may have ended between the two questions. Dropped, the lead is let go.
    match lead.look_again(services).await {
        Some(hit) => Sought::Hit(hit),
        None => Sought::Run(lead),
    }
}

/// A quarter of what the leader has spent already, so that a wait costs a job at most a quarter
/// of the run it spares; 100 ms to 2 s.
fn put_off(age: Duration) -> Duration {
    (age / 4).clamp(Duration::from_millis(100), Duration::from_secs(2))
}

/// The lead among equal jobs, or nothing for a job without any. Dropped, it is let go.
pub(crate) struct Lead(Option<Held>);

struct Held {
    results: Arc<dyn Results>,
    key: String,
    token: String,
    ttl: Duration,
}

impl Lead {
    /// For a job that equal ones do not concern.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// For a job that takes no equal one's result, but leaves its own for them.
    pub(crate) fn alone(services: &Services, spec: &KindSpec, args: &Value, job: Ulid) -> Self {
        let held =
            |ttl| Held { results: Arc::clone(&services.results), key: key(spec, args), token: job.to_string(), ttl };
        Self(spec.cache_ttl.map(held))
    }

    async fn look_again(&self, services: &Services) -> Option<StoredResult> {
        look_up(services, &self.0.as_ref()?.key).await
    }

    /// Keeps the lead while the work is done.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(held) = &self.0 else { return work.await };
        tokio::select! {
            biased;
            out = work => out,
            never = held.renew() => match never {},
        }
    }

    /// Keeps a result for equal jobs. A store that fails costs a later run, nothing else.
    pub(crate) async fn keep(&self, result: &StoredResult) {
        let Some(held) = &self.0 else { return };
        let json = serde_json::to_string(result).unwrap_or_default();
        if let Err(error) = held.results.put(&held.key, &json, held.ttl).await {
            tracing::warn!(%error, "result not cached");
        }
    }
}

impl Held {
    async fn renew(&self) -> Infallible {
        loop {
            tokio::time::sleep(LEAD / 3).await;
            // One that is lost meanwhile means that an equal job runs as well: no harm done.
            if let Err(error) = self.results.lead(&self.key, &self.token, LEAD).await {
                tracing::debug!(%error, "lead not renewed");
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let (Some(held), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            if let Err(error) = held.results.let_go(&held.key, &held.token).await {
                tracing::debug!(%error, "lead not let go: it ends by itself");
            }
        });
    }
}

/// The result of an equal job, if it and all its artifacts are still there; their time is
/// renewed. A store that fails is a miss.
async fn look_up(services: &Services, key: &str) -> Option<StoredResult> {
    let json = match services.results.get(key).await {
        Ok(json) => json?,
        Err(error) => {
            tracing::warn!(%error, "result cache not asked: the job is run");
            return None;
        }
    };
    match usable(services, &json).await {
        Some(result) => Some(result),
        None => {
            let _ = services.results.forget(key).await;
            None
        }
    }
}

async fn usable(services: &Services, json: &str) -> Option<StoredResult> {
    let mut result: StoredResult = serde_json::from_str(json).ok()?;
    for artifact in &result.artifacts {
        let digest: Digest = artifact.blob.parse().ok()?;
        // Whoever is answered from the cache never gets less than whoever waited for a run.
        if !services.artifacts.verify(&digest).await.unwrap_or(false) {
            return None;
        }
    }
    result.cached = true;
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(args: Value) -> String {
        key(&KindSpec::new("k", ""), &args)
    }

    #[test]
    fn a_wait_is_short_and_bounded() {
        let ms = Duration::from_millis;
        for (age, wait) in [(0, 100), (400, 100), (2_000, 500), (60_000, 2_000)] {
            assert_eq!(put_off(ms(age)), ms(wait));
        }
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
