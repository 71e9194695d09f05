//! Redis away, slow, and back: who answers, and what Redis is told afterwards.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde_json::json;
use windlass_redis::{Link, Options};
use windlass_store::{Caching, CachingOptions, Key, LockError, Namespace, Quota, WhenAway};
use windlass_testkit::{RedisServer, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

fn on(redis: &RedisServer) -> Caching {
    let options = Options::from_url(&redis.url()).unwrap();
    Caching::new(Some(Link::new(options).unwrap()), &CachingOptions::default())
}

fn profile(user: &str) -> Key {
    Key::user_data(user, "profile").unwrap()
}

/// F16, design §6: three failures open the breaker; this process answers and says so; what was
/// changed meanwhile is put right before Redis is asked again.
#[tokio::test]
async fn what_was_changed_without_redis_is_put_right() {
    let redis = RedisServer::builder().append_only("always").start();
    let Caching { cache, sessions, .. } = on(&redis);
    for user in ["changed", "deleted", "kept"] {
        cache.set(&profile(user), "before", None).await.unwrap();
    }
    sessions.put("s1", &json!(1), LONG).await.unwrap();
    sessions.put("s2", &json!(1), LONG).await.unwrap();
    redis.kill();
    assert!(cache.set(&profile("changed"), "meanwhile", None).await.unwrap().degraded);
    assert_eq!(cache.get::<String>(&profile("changed")).await.as_deref(), Some("meanwhile"));
    assert!(cache.delete(&profile("deleted")).await.degraded);
    assert_eq!(cache.get::<String>(&profile("kept")).await, None, "unknown here");
    let compute = || async { Ok::<_, Infallible>("computed".to_owned()) };
    let computed = cache.get_or_compute(&profile("kept"), None, compute).await;
    assert_eq!(computed.unwrap(), "computed", "the function still runs");
    assert_eq!(cache.increment(&profile("n"), 2, None).await.unwrap().value, 2);
    let stats = cache.counts().await;
    assert!(stats.degraded && stats.value.breaker.open && stats.value.breaker.opened == 1, "{stats:?}");
    assert!(stats.value.breaker.failures <= 4, "an open breaker leaves Redis alone: {stats:?}");

    assert_eq!(sessions.get("s1").await.unwrap().value.unwrap().data, json!(1), "seen before");
    let made = sessions.create(&json!({"user": 9}), LONG).await.unwrap();
    assert!(made.degraded);
    sessions.delete("s2").await.unwrap();

    redis.restart();
    wait_until(SOON, "redis is asked again", async || !cache.exists(&profile("kept")).await.degraded).await;
    wait_until(SOON, "for sessions too", async || !sessions.get("s1").await.unwrap().degraded).await;
    let other = on(&redis);
    for user in ["changed", "deleted", "kept", "n"] {
        assert_eq!(other.cache.get::<String>(&profile(user)).await, None, "{user}: forgotten, so that it is computed");
        assert_eq!(cache.get::<String>(&profile(user)).await, None, "{user}");
    }
    assert_eq!(other.sessions.get(&made.value).await.unwrap().value.unwrap().data, json!({"user": 9}));
    assert_eq!(other.sessions.get("s2").await.unwrap().value, None);
    let stats = cache.counts().await;
    assert!(!stats.degraded && !stats.value.breaker.open);
}

/// What a clear would have taken is not known without Redis: all of it goes when it is back.
#[tokio::test]
async fn a_clear_without_redis_is_made_up_for() {
    let redis = RedisServer::builder().append_only("always").start();
    let Caching { cache, .. } = on(&redis);
    cache.set(&profile("1"), "before", None).await.unwrap();
    redis.kill();
    assert!(cache.clear(&Namespace::users()).await.degraded);
    redis.restart();
    wait_until(SOON, "redis is asked again", async || !cache.exists(&profile("1")).await.degraded).await;
    assert_eq!(cache.get::<String>(&profile("1")).await, None);
}

/// A lock that excludes nobody elsewhere is refused unless it is asked for; rate limits count here.
#[tokio::test]
async fn locks_are_refused_and_limits_count_on_without_redis() {
    let redis = RedisServer::start();
    let Caching { locks, rate_limits, .. } = on(&redis);
    redis.kill();
    let refused = locks.acquire("x", LONG, Duration::ZERO, WhenAway::Refuse).await;
    assert_eq!(refused, Err(LockError::Away));
    let local = locks.acquire("x", LONG, Duration::ZERO, WhenAway::Local).await.unwrap().unwrap();
    assert!(local.degraded);
    assert_eq!(locks.acquire("x", LONG, Duration::ZERO, WhenAway::Local).await.unwrap(), None);
    assert!(locks.release("x", &local.token).await.unwrap());
    let quota = Quota::per(LONG, 2);
    let mut allowed = Vec::new();
    for _ in 0..3 {
        let answer = rate_limits.check("k", quota, 1).await.unwrap();
        assert!(answer.degraded);
        allowed.push(answer.value.allowed);
    }
    assert_eq!(allowed, [true, true, false]);
}

/// F23, F24: a Redis that hangs costs a bounded time, three times; then nobody waits for it.
#[tokio::test]
async fn a_frozen_redis_is_left_alone_soon() {
    let redis = RedisServer::start();
    let Caching { cache, .. } = on(&redis);
    cache.set(&profile("1"), "before", None).await.unwrap();
    redis.freeze();
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(cache.find(&profile("1")).await.degraded);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    redis.thaw();
    wait_until(SOON, "redis is asked again", async || !cache.find(&profile("1")).await.degraded).await;
    assert_eq!(cache.get::<String>(&profile("1")).await.as_deref(), Some("before"));
}

/// Works from the start without a Redis that is set, and finds it when it comes.
#[tokio::test]
async fn a_redis_that_comes_later_is_found() {
    let redis = RedisServer::start();
    redis.kill();
    let Caching { cache, .. } = on(&redis);
    assert!(cache.set(&profile("1"), "early", None).await.unwrap().degraded);
    assert_eq!(cache.get::<String>(&profile("1")).await.as_deref(), Some("early"));
    redis.restart();
    wait_until(SOON, "redis is found", async || !cache.exists(&profile("1")).await.degraded).await;
    assert!(!cache.set(&profile("1"), "late", None).await.unwrap().degraded);
    assert_eq!(cache.get::<String>(&profile("1")).await.as_deref(), Some("late"));
}
