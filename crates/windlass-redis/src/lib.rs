//! One way to a Redis: URL forms, time-outs, reconnecting, scripts, subscriptions, and
//! errors sorted by what to do about them.
//!
//! This crate knows no queue and builds no key. It never blocks a shared connection, never
//! retries a call by itself (the caller knows whether a repeat is safe), and never prints a
//! password.

#![forbid(unsafe_code)]

mod error;
mod link;
mod options;
mod script;
mod subscription;

pub use error::{Class, Error};
pub use link::Link;
pub use options::{BadUrl, Options};
pub use redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};
pub use script::Script;
pub use subscription::{Message, subscribe};
