//! What is kept beside the queue: artifacts, uploaded blobs, the result cache, images and records, each on
//! Redis or on files.
//!
//! This crate never touches the queue's keys and never decides what is cached or for how
//! long. Everything it keeps has an end: a TTL, a byte cap with an index, or an owner.

#![forbid(unsafe_code)]

mod artifacts;
mod claims;
mod digest;
mod error;
pub mod images;
mod kv;
pub mod records;

pub use artifacts::file::{FileArtifacts, FileResults, file_services};
pub use artifacts::redis::{RedisArtifacts, RedisResults, redis_services};
pub use artifacts::{Artifacts, Lead, Limits, MAX_ARTIFACT_BYTES, PIN_CHECK, Results, Room, Services, Stats, Upload};
pub use claims::{Claims, FileClaims, RedisClaims};
pub use digest::{BadDigest, Digest};
pub use error::Error;
pub use kv::{
    Answer, BadName, BadValue, BreakerStats, Cache, CacheCounts, CachedResult, CachedUser, Caching, CachingOptions,
    Decision, Found, Grant, Key, LockError, Locks, MAX_TTL, MAX_VALUE_BYTES, Namespace, Quota, RateLimits, Session,
    SessionError, Sessions, WhenAway,
};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;
