//! One way to a Redis, be it one server, the primary that sentinels name, or a cluster: URL forms,
//! TLS, time-outs, reconnecting, scripts, subscriptions, and errors sorted by what to do about them.
//!
//! This crate knows no queue and builds no key. It never blocks a shared connection, never
//! retries a call by itself (the caller knows whether a repeat is safe; only the client of a cluster
//! says a call again whose node is gone), and never prints a password.

#![forbid(unsafe_code)]

mod cause;
mod connect;
mod error;
mod link;
mod options;
mod script;
mod sentinel;
mod stock;
mod subscription;
mod tls;
mod url;

pub use cause::Cause;
pub use error::{Class, Error};
pub use link::{Link, LinkStats};
pub use options::{BadUrl, Options};
pub use redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};
pub use script::Script;
pub use subscription::{Message, subscribe};
pub use tls::{BadTls, Tls};
