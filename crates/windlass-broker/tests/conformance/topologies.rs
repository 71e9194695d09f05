//! The Redis engine over TLS, by sentinels, on a cluster, and as a user with few rights.

use std::sync::Arc;
use std::time::Duration;

use windlass_broker::SharedBroker;
use windlass_broker::redis::RedisBroker;
use windlass_redis::{Link, Options, Tls};

fn on(mut options: Options, keep: usize) -> (SharedBroker, ()) {
    // Debug builds of four topologies at once: nobody is away because he is slow.
    options.response_timeout = Duration::from_secs(20);
    let prefix = format!("t{}", windlass_jobs::new_ulid());
    (Arc::new(RedisBroker::keeping(Link::new(options).unwrap(), &prefix, keep)), ())
}

mod tls {
    use super::*;

    async fn make(keep: usize) -> (SharedBroker, ()) {
        let (server, certificates) = windlass_testkit::shared_tls_redis();
        let tls = Tls { ca: Some(certificates.ca()), client: None };
        on(Options::from_url(&server.url()).unwrap().with_tls(tls), keep)
    }

    windlass_testkit::conformance!(make, random = 500);
}

mod sentinel {
    use super::*;

    async fn make(keep: usize) -> (SharedBroker, ()) {
        on(Options::from_url(&windlass_testkit::shared_sentinels().url()).unwrap(), keep)
    }

    windlass_testkit::conformance!(make, random = 500);
}

mod cluster {
    use super::*;

    async fn make(keep: usize) -> (SharedBroker, ()) {
        on(Options::from_url(&windlass_testkit::shared_cluster().url()).unwrap(), keep)
    }

    windlass_testkit::conformance!(make, random = 500);
}

mod worker_user {
    use super::*;

    async fn make(keep: usize) -> (SharedBroker, ()) {
        on(crate::rights::as_user("worker"), keep)
    }

    windlass_testkit::conformance!(make, random = 500);
}
