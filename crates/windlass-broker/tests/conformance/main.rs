//! Every engine keeps every promise of the model, and a few of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

#[cfg(feature = "redis")]
mod durability;
#[cfg(feature = "redis")]
mod holds;
mod model;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod rights;
#[cfg(feature = "redis")]
mod shards;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "redis")]
mod topologies;
