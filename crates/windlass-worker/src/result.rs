//! What a finished job leaves behind for its readers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file kept in the artifact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// What it is called when it is downloaded.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// `sha256:` and 64 hex digits: where it lies.
    pub blob: String,
    /// Its size.
    pub bytes: u64,
}

/// A job's result as it is kept, as JSON.
///
/// *Shape*: `{"value": …, "artifacts": [{name, media_type, blob, bytes}], "cached": bool}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredResult {
    /// What the handler answered.
    #[serde(default)]
    pub value: Value,
    /// The files, in the handler's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<StoredArtifact>,
    /// True when an equal job's result was given without running.
    #[serde(default)]
    pub cached: bool,
}
