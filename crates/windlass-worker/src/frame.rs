//! What parent and child say to each other: a length of four bytes, little end first, and JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_jobs::{Outcome, Progress};

/// The longest frame: the largest args or result, and room around them.
pub(crate) const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// The one frame a child reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToChild {
    pub(crate) kind: String,
    pub(crate) args: Value,
    pub(crate) dir: PathBuf,
    pub(crate) attempt: u32,
    pub(crate) remaining_ms: u64,
    pub(crate) peak_memory_bytes: u64,
}

/// A frame a child writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromChild {
    Progress(Progress),
    Outcome(Outcome),
}

/// A value as a frame.
pub(crate) fn encode(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME_BYTES);
    let prefix = prefix.ok_or_else(|| std::io::Error::other(format!("a frame of {length} bytes is too long")))?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}
