//! F27, F28: the primary changes under load; writes go on, on the new one.

use std::time::{Duration, Instant};

use windlass_redis::{Cause, Link, Message};
use windlass_testkit::RedisSentinels;

use crate::{SOON, get, link, set};

/// Writes until it works; how long that took.
async fn resumed(link: &Link, key: &str) -> Duration {
    let begun = Instant::now();
    while let Err(error) = set(link, key, "1").await {
        assert!(begun.elapsed() < Duration::from_secs(15), "not resumed: {error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn f27_writes_resume_after_a_killed_a_frozen_and_a_replaced_primary() {
    let set_of = RedisSentinels::start(2);
    let link = link(&set_of.url());
    set(&link, "k", "1").await.unwrap();
    assert_eq!(get(&link, "k").await, "1");
    let mut messages = windlass_redis::subscribe(&link, "news".to_owned());
    assert_eq!(messages.recv().await, Some(Message::Subscribed));

    let replaced = set_of.primary().port();
    set_of.fail_over();
    let took = resumed(&link, "after-command").await;
    assert_ne!(set_of.primary().port(), replaced);
    assert!(took < Duration::from_secs(2), "a commanded fail-over: {took:?}");

    // F28: it comes back as a replica; who still writes to it is sent on.
    let frozen = set_of.primary();
    frozen.freeze();
    let took = resumed(&link, "after-freeze").await;
    frozen.thaw();
    let late = resumed(&link, "after-thaw").await;
    assert!(late < Duration::from_secs(2), "the old primary came back: {late:?}");
    println!("resumed {took:?} after a frozen primary, {late:?} after its return");

    set_of.primary().kill();
    let took = resumed(&link, "after-kill").await;
    println!("resumed {took:?} after a killed primary");
    // The subscription stands on the new one.
    let mut publish = windlass_redis::cmd("PUBLISH");
    publish.arg("news").arg("heard");
    let begun = Instant::now();
    loop {
        link.call(&publish).await.unwrap();
        let message = tokio::time::timeout(Duration::from_millis(200), messages.recv()).await;
        if message == Ok(Some(Message::Text("heard".to_owned()))) {
            break;
        }
        assert!(begun.elapsed() < SOON, "the subscription is lost");
    }
}

#[tokio::test]
async fn an_unknown_service_and_silent_sentinels_are_named() {
    let set_of = RedisSentinels::start(0);
    let wrong = link(&set_of.url().replace("mymaster", "other"));
    assert_eq!(wrong.ping().await.unwrap_err().cause(), Cause::NoPrimary);
    let url = set_of.url();
    drop(set_of);
    let nobody = link(&url);
    let error = nobody.ping().await.unwrap_err();
    assert!(error.to_string().contains("no sentinel names a primary"), "{error}");
}
