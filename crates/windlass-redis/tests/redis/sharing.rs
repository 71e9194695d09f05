//! How many connections a link opens.

use std::time::Duration;

use windlass_redis::{Link, Options};
use windlass_testkit::{Fault, Proxy, RedisServer};

#[tokio::test]
async fn connections_grow_with_the_calls_and_to_their_bound() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let mut options = Options::from_url(&proxy.redis_url()).unwrap();
    options.max_connections = 3;
    let link = Link::new(options).unwrap();
    for _ in 0..10 {
        link.ping().await.unwrap();
    }
    assert_eq!((link.connections(), proxy.accepted()), (1, 1), "one does for calls one after the other");
    proxy.set(Fault::Latency(Duration::from_millis(20)));
    for _ in 0..3 {
        let calls = (0..Link::CALLS_PER_CONNECTION * 8).map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.ping().await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
    }
    assert_eq!((link.connections(), proxy.accepted()), (3, 3));
}
