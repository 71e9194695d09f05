//! What is kept beside the queue: artifacts, uploaded blobs, the result cache and images, each on
//! Redis or on files.
//!
//! This crate never touches the queue's keys and never decides what is cached or for how
//! long. Everything it keeps has an end: a TTL, a byte cap with an index, or an owner.

#![forbid(unsafe_code)]

mod artifacts;
mod digest;
mod error;
pub mod images;

pub use artifacts::file::{FileArtifacts, FileResults, file_services};
pub use artifacts::redis::{RedisArtifacts, RedisResults, redis_services};
pub use artifacts::{Artifacts, Lead, Limits, MAX_ARTIFACT_BYTES, PIN_CHECK, Results, Room, Services, Stats, Upload};
pub use digest::{BadDigest, Digest};
pub use error::Error;

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;
