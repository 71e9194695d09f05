//! Private servers, a broker over the model, and the conformance suite: for tests only.
//!
//! It never skips a test in silence: a server whose program is missing panics and names the
//! package to install. It never touches a server it did not start.

mod process;
mod redis_server;
mod wait;

pub use redis_server::{RedisServer, RedisServerBuilder, shared_redis};
pub use wait::{unique_queue, wait_until};
