//! Private servers, a broker over the model, and the conformance suite: for tests only.
//!
//! It never skips a test in silence: a server whose program is missing panics and names the
//! package to install. It never touches a server it did not start.

mod browser;
mod certificates;
mod collector;
pub mod conformance;
mod model_broker;
mod postgres_server;
mod process;
mod proxy;
mod redis_cluster;
mod redis_sentinels;
mod redis_server;
mod shared;
mod sqlite_lock;
mod wait;

pub use browser::Browser;
pub use certificates::{Certificates, Validity};
pub use collector::{Collector, RecordedSpan};
pub use model_broker::ModelBroker;
pub use postgres_server::{PostgresServer, shared_postgres};
pub use process::spawn;
pub use proxy::{Fault, Proxy};
pub use redis_cluster::RedisCluster;
pub use redis_sentinels::RedisSentinels;
pub use redis_server::{RedisServer, RedisServerBuilder, shared_redis};
pub use shared::{shared_cluster, shared_sentinels, shared_tls_redis};
pub use sqlite_lock::SqliteLock;
pub use wait::{unique_queue, wait_until};
