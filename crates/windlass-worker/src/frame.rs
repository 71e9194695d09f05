//! What parent and child say to each other: a length of four bytes, little end first, and JSON.
//!
//! A child says hello once. For each job the parent sends one frame; the child says that it has
//! begun, how far it is, and how it ended. The end of the parent's frames is the child's end.

use std::io::Read;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use windlass_jobs::{Outcome, Progress};

use crate::kind::Parent;
use crate::sandbox::Sandbox;
use crate::trace::Stage;

/// The longest frame: the largest args or result, and room around them.
pub(crate) const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// What a child writes to its error output after each job, so that the parent knows where the next
/// one's words begin.
pub(crate) const END_OF_WORDS: &[u8] = b"\0\x04windlass\x04\0";

/// One job, for a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToChild {
    pub(crate) kind: String,
    pub(crate) args: Value,
    pub(crate) dir: PathBuf,
    pub(crate) attempt: u32,
    pub(crate) remaining_ms: u64,
    /// Until the soft limit; 0 when it has passed.
    pub(crate) soft_ms: u64,
    pub(crate) peak_memory_bytes: u64,
    /// What the jobs that it depends on have left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parents: Vec<Parent>,
    /// Its stages are wanted.
    #[serde(default)]
    pub(crate) traced: bool,
}

/// A frame a child writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromChild {
    /// First: how well it is confined.
    Hello(Sandbox),
    /// The job has been read: from here on its end is the job's.
    Begun,
    Progress(Progress),
    /// Last: how the job ended.
    Answer {
        outcome: Outcome,
        wear: Wear,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stages: Vec<Stage>,
    },
    /// Instead of an answer that does not fit into a frame.
    TooLarge {
        bytes: usize,
    },
}

/// What running has left behind in a child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wear {
    /// The most memory it ever had resident; 0 when the system does not tell.
    pub(crate) peak_rss_bytes: u64,
    /// Threads it has now; 0 when the system does not tell.
    pub(crate) threads: u32,
    /// The handler panicked.
    pub(crate) panicked: bool,
}

/// A value as a frame, or how long it would be.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, usize> {
    let mut bytes = vec![0; 4];
    // Our own frames serialize; what cannot be written down is as good as too large.
    serde_json::to_writer(&mut bytes, value).map_err(|_| usize::MAX)?;
    let length = bytes.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME_BYTES).ok_or(length)?;
    bytes[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// The child's way of reading; `None` when the parent wants no more.
pub(crate) fn read_request(from: &mut impl Read) -> std::io::Result<Option<ToChild>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(std::io::Error::other("the request is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// The parent's way of reading; `None` when the child says no more, in the middle of a frame too:
/// its exit status tells why.
///
/// # Errors
/// What is wrong with the frame.
pub(crate) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<FromChild>, String> {
    let mut length = [0; 4];
    if from.read_exact(&mut length).await.is_err() {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(format!("a frame of {length} bytes; at most {MAX_FRAME_BYTES} are allowed"));
    }
    let mut bytes = vec![0; length];
    if from.read_exact(&mut bytes).await.is_err() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<FromChild>, String> {
        read_frame(&mut &*bytes).await
    }

    #[tokio::test]
    async fn frames_come_back_as_they_were_and_cut_ones_are_an_end() {
        let bytes = encode(&FromChild::Progress(Progress::new(50.0, "half"))).unwrap();
        assert!(matches!(read(&bytes).await, Ok(Some(FromChild::Progress(p))) if p.message == "half"));
        for cut in 0..bytes.len() {
            assert!(matches!(read(&bytes[..cut]).await, Ok(None)), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn garbage_is_told_from_an_end() {
        assert!(read(b"this is no frame").await.is_err());
        assert!(read(b"\x02\0\0\0{]").await.is_err());
    }

    #[test]
    fn a_value_that_does_not_fit_says_how_long_it_is() {
        let text = "x".repeat(MAX_FRAME_BYTES);
        assert_eq!(encode(&text), Err(MAX_FRAME_BYTES + 2));
        assert!(encode(&&text[2..]).is_ok());
    }
}
