//! Kinds as their workers publish them, so that a door that does not know a kind itself can still
//! tell a job that can be run from one that cannot.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::Timestamp;

/// Most kinds the catalogue keeps; beyond it the longest not heard of is forgotten.
pub const MAX_KINDS: usize = 500;
/// Most kinds one slice of a publication holds.
pub const KINDS_SLICE: usize = 50;
/// The longest schema that is published, as JSON text, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// How long a kind is remembered after its workers were last heard of.
pub const KEEP_KIND_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often a worker publishes its kinds.
pub const PUBLISH_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long a lower version of a kind is not heard after a higher one: during a rolling upgrade
/// the newer word counts, after a rollback the older one does.
pub const NEWER_COUNTS_FOR: Duration = Duration::from_secs(30 * 60);

/// A kind as its workers publish it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindInfo {
    /// The stable name on the wire.
    pub name: String,
    /// Raised whenever equal args may give another result.
    pub version: u32,
    /// Older names that mean the same kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The queue a job goes to when its producer names none.
    pub queue: String,
    /// JSON Schema (2020-12) of the args; `None`: not described, any JSON is taken at the door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Runs at most, the first included, unless the job says otherwise.
    pub max_attempts: u32,
    /// The longest one run may take, in ms, unless the job says otherwise.
    pub timeout_ms: u64,
    /// Runs in a child process.
    #[serde(default)]
    pub isolated: bool,
    /// One line for people.
    #[serde(default)]
    pub about: String,
    /// When a worker last published it; written by the broker's clock.
    pub seen_at: Timestamp,
}

impl KindInfo {
    /// Whether this publication replaces what is kept of the kind, last heard of `since` ago.
    #[must_use]
    pub fn replaces(&self, kept_version: u32, since: Duration) -> bool {
        self.version >= kept_version || since > NEWER_COUNTS_FOR
    }
}
