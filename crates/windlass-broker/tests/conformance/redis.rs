//! The Redis engine, on a server of this process, each case under a key prefix of its own.

use std::sync::Arc;

use windlass_broker::SharedBroker;
use windlass_broker::redis::RedisBroker;
use windlass_redis::{Link, Options};

async fn make(keep: usize) -> (SharedBroker, ()) {
    let options = Options::from_url(&windlass_testkit::shared_redis().url()).unwrap();
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    (Arc::new(RedisBroker::keeping(Link::new(options).unwrap(), &prefix, keep)), ())
}

windlass_testkit::conformance!(make);
