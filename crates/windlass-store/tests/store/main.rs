//! Both forms of each store keep the same promises.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod artifacts;
mod caching;
mod claims;
mod images;
mod killed;
mod outages;

use windlass_redis::{Link, Options};

pub(crate) fn redis_link() -> Link {
    Link::new(Options::from_url(&windlass_testkit::shared_redis().url()).unwrap()).unwrap()
}

pub(crate) fn cluster_link() -> Link {
    Link::new(Options::from_url(&windlass_testkit::shared_cluster().url()).unwrap()).unwrap()
}

pub(crate) fn prefix() -> String {
    format!("t{}", windlass_jobs::new_ulid())
}
