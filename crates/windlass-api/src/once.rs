//! `Idempotency-Key`: a request that is sent twice is done once.
//!
//! The key is claimed with the digest of the body and the ids its jobs will have, before anything is
//! queued. Whoever sends it again queues the same ids, which changes nothing, until the claim says
//! that it was done; so a caller or an API that died in between leaves nothing half done. The same key
//! with another body is refused.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_jobs::{JobId, Ulid};
use windlass_store::Digest;

use crate::Shared;
use crate::auth::Caller;
use crate::enqueue::Accepted;
use crate::problem::{Code, Problem, chain};
use crate::request::Jobs;

/// How long a key is remembered.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// What is kept under a key.
#[derive(Serialize, Deserialize)]
struct Kept {
    body: String,
    /// The ids of the jobs, in the order of the body.
    ulids: Vec<String>,
    /// Set once all are queued: what is answered for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<JobId>>,
}

/// A key of a caller's.
pub(crate) struct Once {
    name: Digest,
}

/// A key with its body.
pub(crate) struct About {
    name: Digest,
    body: String,
    ulids: std::sync::OnceLock<Vec<Ulid>>,
}

/// What a claim found.
pub(crate) enum Claimed {
    /// The first.
    Mine,
    /// It was begun before, and perhaps not done: the jobs have its ids now.
    Again,
    /// It was done before.
    Done(Vec<JobId>),
}

impl Once {
    /// The key in the headers, if there is one. Keys of different callers are different.
    pub(crate) fn of(headers: &HeaderMap, caller: &Caller) -> Result<Option<Self>, Problem> {
        let mut all = headers.get_all("idempotency-key").iter();
        let Some(value) = all.next() else { return Ok(None) };
        let fits = |key: &&str| (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        match value.to_str().ok().filter(fits) {
            Some(key) if all.next().is_none() => {
                let (who, _) = caller.who();
                Ok(Some(Self { name: Digest::of(format!("{who}\n{key}").as_bytes()) }))
            }
            _ => {
                let detail = format!("Idempotency-Key: 1 to {MAX_KEY_BYTES} visible ASCII characters, once");
                Err(Problem::new(Code::IdempotencyKeyInvalid, detail))
            }
        }
    }

    /// The key with the body that came with it. Bodies that are the same JSON are the same.
    pub(crate) fn about(self, body: &[u8]) -> About {
        let canonical = serde_json::from_slice::<Value>(body).map(|value| value.to_string());
        let body = Digest::of(canonical.as_deref().map_or(body, str::as_bytes)).hex();
        About { name: self.name, body, ulids: std::sync::OnceLock::new() }
    }
}

impl About {
    /// Claims the key; jobs of a request that was begun before are given its ids.
    pub(crate) async fn claim(&self, shared: &Shared, jobs: &mut Jobs) -> Result<Claimed, Problem> {
        let fresh: Vec<Ulid> = jobs.ready.iter().map(|ready| ready.job.ulid).collect();
        let kept = self.kept(&fresh, None);
        let Some(found) = shared.claims.claim(&self.name, &kept, TTL).await? else {
            let _ = self.ulids.set(fresh);
            return Ok(Claimed::Mine);
        };
        let odd = || Problem::new(Code::Internal, "what is kept of the idempotency key cannot be read");
        let found: Kept = serde_json::from_str(&found).map_err(|_| odd())?;
        if found.body != self.body || found.ulids.len() != jobs.ready.len() {
            let detail = "this Idempotency-Key came with another body before; nothing was queued";
            return Err(Problem::new(Code::IdempotencyConflict, detail));
        }
        if let Some(tasks) = found.tasks {
            return Ok(Claimed::Done(tasks));
        }
        let ulids: Result<Vec<Ulid>, _> = found.ulids.iter().map(|ulid| ulid.parse()).collect();
        let ulids = ulids.map_err(|_| odd())?;
        let renamed: HashMap<Ulid, Ulid> = fresh.into_iter().zip(ulids.iter().copied()).collect();
        for (ready, ulid) in jobs.ready.iter_mut().zip(&ulids) {
            ready.job.ulid = *ulid;
            // Jobs of a flow name each other.
            for parent in ready.job.options.depends_on.iter_mut().flat_map(|after| &mut after.parents) {
                parent.ulid = renamed.get(&parent.ulid).copied().unwrap_or(parent.ulid);
            }
        }
        let _ = self.ulids.set(ulids);
        Ok(Claimed::Again)
    }

    /// Says that all is queued. If that fails, who sends it again queues the same ids.
    pub(crate) async fn settle(&self, shared: &Shared, accepted: &[Accepted]) {
        let tasks = accepted.iter().map(|task| task.task_id.clone()).collect();
        let ulids = self.ulids.get().map_or(&[][..], Vec::as_slice);
        if let Err(error) = shared.claims.settle(&self.name, &self.kept(ulids, Some(tasks))).await {
            tracing::warn!(error = %chain(&error), "an idempotency key is not settled");
        }
    }

    fn kept(&self, ulids: &[Ulid], tasks: Option<Vec<JobId>>) -> String {
        let ulids = ulids.iter().map(ToString::to_string).collect();
        let kept = Kept { body: self.body.clone(), ulids, tasks };
        serde_json::to_string(&kept).unwrap_or_default()
    }
}
