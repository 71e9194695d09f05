//! One way to a Redis, whatever stands behind the address: with real servers, sentinels, clusters
//! and certificates.

#![allow(clippy::unwrap_used, reason = "a test's panic is its failure")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod cluster;
mod errors;
mod failover;
mod sharing;
mod tls;
mod urls;
mod users;

use std::time::Duration;

use windlass_redis::{FromRedisValue as _, Link, Options, cmd};

/// How long anything that should happen soon may take on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A link with time-outs that suit a test.
fn link(url: &str) -> Link {
    Link::new(impatient(Options::from_url(url).unwrap())).unwrap()
}

fn impatient(mut options: Options) -> Options {
    options.connect_timeout = Duration::from_secs(5);
    options.response_timeout = Duration::from_secs(2);
    options
}

async fn set(link: &Link, key: &str, value: &str) -> Result<(), windlass_redis::Error> {
    let mut command = cmd("SET");
    command.arg(key).arg(value);
    link.call(&command).await.map(drop)
}

async fn get(link: &Link, key: &str) -> String {
    let mut command = cmd("GET");
    command.arg(key);
    String::from_redis_value(link.call(&command).await.unwrap()).unwrap_or_default()
}
