//! Cache, locks, sessions and rate limits, on Redis and in one process.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use windlass_redis::cmd;
use windlass_store::{
    BadValue, Cache, Caching, CachingOptions, Grant, Key, Locks, MAX_VALUE_BYTES, Namespace, Quota, WhenAway,
};
use windlass_testkit::wait_until;

use crate::{prefix, redis_link};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

/// Runs a check in this process, on a Redis, and on a cluster, where each key may lie on another node;
/// each fresh.
macro_rules! on_all {
    ($($(#[$about:meta])* $name:ident;)*) => {
        mod here {
            $($(#[$about])* #[tokio::test] async fn $name() {
                super::$name(super::Caching::new(None, &super::options())).await;
            })*
        }
        mod redis {
            $($(#[$about])* #[tokio::test] async fn $name() {
                super::$name(super::Caching::new(Some(super::redis_link()), &super::options())).await;
            })*
        }
        mod cluster {
            $($(#[$about])* #[tokio::test] async fn $name() {
                super::$name(super::Caching::new(Some(crate::cluster_link()), &super::options())).await;
            })*
        }
    };
}

on_all! {
    values_are_set_read_and_removed;
    a_value_has_the_time_of_its_namespace;
    numbers_are_counted_up_and_down;
    /// B11: `*` in an id is a letter like any other.
    clearing_takes_a_user_or_a_namespace_and_nothing_else;
    a_value_is_computed_once_for_all_who_ask;
    a_wrapped_function_runs_and_its_error_is_not_kept;
    a_stale_value_is_answered_while_it_is_computed_anew;
    a_hundred_clients_never_hold_one_lock_together;
    a_lock_is_its_holders_alone;
    a_holder_that_was_paused_has_a_lower_fence;
    a_lock_is_held_for_as_long_as_the_work_takes;
    sessions_are_kept_for_their_time;
    a_quota_lets_a_burst_pass_and_says_when;
    a_window_counts_uses;
}

fn options() -> CachingOptions {
    CachingOptions { prefix: prefix(), ..CachingOptions::default() }
}

fn profile(user: &str) -> Key {
    Key::user_data(user, "profile").unwrap()
}

async fn values_are_set_read_and_removed(Caching { cache, .. }: Caching) {
    let key = profile("123");
    assert_eq!(cache.get::<String>(&key).await, None);
    assert!(!cache.exists(&key).await.value && !cache.delete(&key).await.value);
    for value in [json!({"name": "Ada"}), json!([1, null]), json!("é\n")] {
        assert!(!cache.set(&key, &value, None).await.unwrap().degraded);
        assert_eq!(cache.get(&key).await, Some(value));
    }
    assert!(cache.exists(&key).await.value);
    let keys = [key.clone(), profile("none"), key.clone()];
    let found: Vec<bool> = cache.find_many(&keys).await.iter().map(|found| found.value.is_some()).collect();
    assert_eq!(found, [true, false, true]);
    assert!(cache.delete(&key).await.value && !cache.delete(&key).await.value);
    let large = "x".repeat(MAX_VALUE_BYTES);
    assert_eq!(cache.set(&key, &large, None).await, Err(BadValue::TooLarge(MAX_VALUE_BYTES + 2)));
    assert_eq!(cache.get::<String>(&key).await, None);
    let counts = cache.counts().await.value;
    assert_eq!((counts.hits, counts.misses), (5, 3));
}

async fn a_value_has_the_time_of_its_namespace(Caching { cache, .. }: Caching) {
    let other = Namespace::new("mine").unwrap();
    for (namespace, seconds) in [
        (Namespace::users(), 3600),
        (Namespace::ai(), 1800),
        (Namespace::trading(), 900),
        (Namespace::analytics(), 1800),
        (Namespace::general(), 3600),
        (other, 3600),
    ] {
        let key = Key::of_user(namespace, "1", "x").unwrap();
        cache.set(&key, &1, None).await.unwrap();
        let ttl = cache.ttl(&key).await.value.unwrap();
        assert!(ttl > Duration::from_secs(seconds - 10) && ttl <= Duration::from_secs(seconds), "{ttl:?}");
    }
    let brief = profile("brief");
    cache.set(&brief, &1, Some(Duration::from_millis(20))).await.unwrap();
    wait_until(SOON, "it goes", async || cache.ttl(&brief).await.value.is_none()).await;
    let counts = cache.counts().await.value.by_namespace;
    let expected = [("ai", 1), ("analytics", 1), ("general", 1), ("mine", 1), ("trading", 1), ("users", 1)];
    let known: Vec<(&str, u64)> = counts.iter().map(|(name, n)| (name.as_str(), *n)).filter(|(_, n)| *n > 0).collect();
    assert!(expected.iter().all(|pair| known.contains(pair) || pair.0 == "mine"), "{known:?}");
}

async fn numbers_are_counted_up_and_down(Caching { cache, .. }: Caching) {
    let key = Key::analytics("1", "visits").unwrap();
    assert_eq!(cache.increment(&key, 5, None).await.unwrap().value, 5);
    assert_eq!(cache.increment(&key, -7, None).await.unwrap().value, -2);
    assert_eq!(cache.get::<i64>(&key).await, Some(-2));
    assert!(cache.ttl(&key).await.value.unwrap() <= Duration::from_secs(1800));
    cache.set(&key, &i64::MAX, None).await.unwrap();
    assert_eq!(cache.increment(&key, 1, None).await.unwrap_err(), BadValue::NotANumber);
    assert_eq!(cache.get::<i64>(&key).await, Some(i64::MAX));
    cache.set(&key, "text", None).await.unwrap();
    assert_eq!(cache.increment(&key, 1, None).await.unwrap_err(), BadValue::NotANumber);
}

async fn clearing_takes_a_user_or_a_namespace_and_nothing_else(Caching { cache, .. }: Caching) {
    let users = ["1", "10", "*", "1:profile", "?"];
    let fill = async || {
        for user in users {
            for namespace in [Namespace::users(), Namespace::ai()] {
                for part in ["a", "b"] {
                    let key = Key::of_user(namespace.clone(), user, part).unwrap();
                    cache.set(&key, &1, None).await.unwrap();
                }
            }
        }
        cache.set(&Key::new(Namespace::ai(), "shared").unwrap(), &1, None).await.unwrap();
    };
    fill().await;
    assert_eq!(cache.clear_user("*", Some(&Namespace::users())).await.unwrap().value, 2);
    assert_eq!(cache.clear_user("1", None).await.unwrap().value, 4);
    assert_eq!(cache.clear_user("1", None).await.unwrap().value, 0);
    let left = cache.counts().await.value.by_namespace;
    assert_eq!((left["users"], left["ai"]), (6, 9), "{left:?}");
    assert_eq!(cache.clear(&Namespace::ai()).await.value, 9);
    assert!(cache.exists(&Key::user_data("10", "a").unwrap()).await.value);
    fill().await;
    let left = cache.counts().await.value.by_namespace;
    assert_eq!((left["users"], left["ai"]), (10, 11), "{left:?}");
    for n in 0..1200 {
        cache.set(&Key::new(Namespace::trading(), &format!("k{n}")).unwrap(), &n, None).await.unwrap();
    }
    assert_eq!(cache.clear(&Namespace::trading()).await.value, 1200);
}

async fn a_value_is_computed_once_for_all_who_ask(Caching { cache, .. }: Caching) {
    let runs = Arc::new(AtomicUsize::new(0));
    let ask = || {
        let (cache, runs) = (cache.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            let compute = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, Infallible>(42)
            };
            cache.get_or_compute(&profile("once"), None, compute).await.unwrap()
        })
    };
    let all: Vec<_> = (0..100).map(|_| ask()).collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 42);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn a_wrapped_function_runs_and_its_error_is_not_kept(Caching { cache, .. }: Caching) {
    let cached = cache.cache_user_specific(LONG, "profile");
    assert_eq!(cached.call("7", || async { Err::<u8, _>("down") }).await, Err("down"));
    assert_eq!(cached.call("7", || async { Ok::<_, Infallible>(1) }).await, Ok(1));
    assert_eq!(cached.call("7", || async { Ok::<_, Infallible>(2) }).await, Ok(1));
    assert_eq!(cached.call("8", || async { Ok::<_, Infallible>(2) }).await, Ok(2), "another user");
    assert_eq!(cached.call("", || async { Ok::<_, Infallible>(3) }).await, Ok(3), "no user, no cache");
    assert_eq!(cache.get::<u8>(&profile("7")).await, Some(1));
    let by_name = cache.cache_result(LONG, Namespace::trading());
    assert_eq!(by_name.call("AAPL:quote", || async { Ok::<_, Infallible>(4) }).await, Ok(4));
    assert_eq!(by_name.call("AAPL:quote", || async { Ok::<_, Infallible>(5) }).await, Ok(4));
    let large = || async { Ok::<_, Infallible>("x".repeat(MAX_VALUE_BYTES)) };
    assert_eq!(by_name.call("large", large).await.unwrap().len(), MAX_VALUE_BYTES, "too large to keep");
}

async fn a_stale_value_is_answered_while_it_is_computed_anew(Caching { cache, .. }: Caching) {
    let runs = Arc::new(AtomicU64::new(0));
    let ask = async || {
        let runs = Arc::clone(&runs);
        let compute = move || async move { Ok::<_, Infallible>(runs.fetch_add(1, Ordering::SeqCst) + 1) };
        let fresh = Some(Duration::from_millis(150));
        cache.get_or_compute_stale(&profile("stale"), fresh, LONG, compute).await.unwrap()
    };
    assert_eq!((ask().await, ask().await), (1, 1), "fresh");
    wait_until(SOON, "it is stale", async || cache.ttl(&profile("stale")).await.value.unwrap() <= LONG).await;
    assert_eq!(ask().await, 1, "the stale one, at once");
    wait_until(SOON, "it is computed anew", async || cache.get::<u64>(&profile("stale")).await >= Some(2)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

async fn lock(locks: &Locks, name: &str, ttl: Duration, wait: Duration) -> Option<Grant> {
    locks.acquire(name, ttl, wait, WhenAway::Refuse).await.unwrap()
}

async fn a_hundred_clients_never_hold_one_lock_together(Caching { locks, .. }: Caching) {
    let (holders, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let client = || {
        let (locks, holders, last) = (locks.clone(), Arc::clone(&holders), Arc::clone(&last));
        tokio::spawn(async move {
            let grant = lock(&locks, "portfolio:42", LONG, LONG).await.unwrap();
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "alone");
            assert!(last.swap(grant.fence, Ordering::SeqCst) < grant.fence, "the fence rises");
            tokio::time::sleep(Duration::from_micros(200)).await;
            holders.fetch_sub(1, Ordering::SeqCst);
            assert!(locks.release("portfolio:42", &grant.token).await.unwrap());
        })
    };
    let clients: Vec<_> = (0..100).map(|_| client()).collect();
    for client in clients {
        client.await.unwrap();
    }
}

async fn a_lock_is_its_holders_alone(Caching { locks, .. }: Caching) {
    let held = lock(&locks, "x", LONG, Duration::ZERO).await.unwrap();
    assert!(lock(&locks, "x", LONG, Duration::from_millis(50)).await.is_none());
    assert!(lock(&locks, "y", LONG, Duration::ZERO).await.is_some(), "another lock");
    assert!(!locks.release("x", "another token").await.unwrap());
    assert!(!locks.renew("x", "another token", LONG).await.unwrap());
    assert!(locks.renew("x", &held.token, LONG).await.unwrap());
    assert!(locks.release("x", &held.token).await.unwrap() && !locks.release("x", &held.token).await.unwrap());
    assert!(locks.acquire("", LONG, LONG, WhenAway::Refuse).await.is_err());
}

async fn a_holder_that_was_paused_has_a_lower_fence(Caching { locks, .. }: Caching) {
    let paused = lock(&locks, "x", Duration::from_millis(30), Duration::ZERO).await.unwrap();
    let next = lock(&locks, "x", LONG, SOON).await.expect("its time is over");
    assert!(next.fence > paused.fence && next.token != paused.token);
    assert!(!locks.renew("x", &paused.token, LONG).await.unwrap(), "it is too late");
    assert!(!locks.release("x", &paused.token).await.unwrap());
    assert!(lock(&locks, "x", LONG, Duration::ZERO).await.is_none(), "the next one still holds it");
}

async fn a_lock_is_held_for_as_long_as_the_work_takes(Caching { locks, .. }: Caching) {
    let ttl = Duration::from_millis(60);
    let other = locks.clone();
    let done = locks.with("x", ttl, Duration::ZERO, async |fence| {
        for _ in 0..10 {
            tokio::time::sleep(ttl / 3).await;
            assert!(lock(&other, "x", ttl, Duration::ZERO).await.is_none(), "renewed meanwhile");
        }
        fence
    });
    assert!(done.await.unwrap().is_some());
    assert!(lock(&locks, "x", LONG, Duration::ZERO).await.is_some(), "let go at once");
}

async fn sessions_are_kept_for_their_time(Caching { sessions, .. }: Caching) {
    let data = json!({"user": 7});
    let id = sessions.create(&data, LONG).await.unwrap().value;
    assert_eq!(id.len(), 52);
    let session = sessions.get(&id).await.unwrap().value.unwrap();
    assert!(session.data == data && session.ttl <= LONG);
    sessions.put(&id, &json!({"user": 8}), LONG).await.unwrap();
    assert!(sessions.touch(&id, LONG * 2).await.unwrap().value);
    let session = sessions.get(&id).await.unwrap().value.unwrap();
    assert!(session.data == json!({"user": 8}) && session.ttl > LONG);
    assert!(sessions.delete(&id).await.unwrap().value && !sessions.delete(&id).await.unwrap().value);
    assert_eq!(sessions.get(&id).await.unwrap().value, None);
    assert!(!sessions.touch(&id, LONG).await.unwrap().value);
    sessions.put("brief", &data, Duration::from_millis(20)).await.unwrap();
    wait_until(SOON, "it ends", async || sessions.get("brief").await.unwrap().value.is_none()).await;
    assert!(sessions.get("").await.is_err());
}

async fn a_quota_lets_a_burst_pass_and_says_when(Caching { rate_limits, .. }: Caching) {
    let quota = Quota::per(Duration::from_secs(3600), 5);
    for remaining in (0..5).rev() {
        let decision = rate_limits.check("api:1", quota, 1).await.unwrap().value;
        assert!(decision.allowed && decision.remaining == remaining, "{decision:?}");
    }
    let refused = rate_limits.check("api:1", quota, 1).await.unwrap().value;
    assert!(!refused.allowed && refused.remaining == 0, "{refused:?}");
    assert!((700_000..=720_000).contains(&refused.retry_after_ms), "a fifth of an hour: {refused:?}");
    assert!((3_500_000..=3_600_000).contains(&refused.reset_ms), "{refused:?}");
    assert!(rate_limits.check("api:2", quota, 1).await.unwrap().value.allowed, "another key");
    assert!(!rate_limits.check("api:3", quota, 6).await.unwrap().value.allowed, "more than the burst");
    assert_eq!(rate_limits.check("api:3", quota, 0).await.unwrap().value.remaining, 5, "refused is not counted");
    let fast = Quota::per(Duration::from_millis(100), 2);
    rate_limits.check("fast", fast, 2).await.unwrap();
    wait_until(SOON, "it may be used again", async || rate_limits.check("fast", fast, 1).await.unwrap().value.allowed)
        .await;
}

async fn a_window_counts_uses(Caching { rate_limits, .. }: Caching) {
    for n in 1..=3 {
        let (decision, count) = rate_limits.window("10.0.0.1", 3, LONG, 1).await.unwrap().value;
        assert!(decision.allowed && count == n && decision.remaining == 3 - n, "{decision:?} {count}");
    }
    let (refused, count) = rate_limits.window("10.0.0.1", 3, LONG, 1).await.unwrap().value;
    assert!(!refused.allowed && count == 3 && refused.reset_ms <= 60_000 && refused.reset_ms > 50_000, "{refused:?}");
    let brief = Duration::from_millis(30);
    rate_limits.window("w", 1, brief, 1).await.unwrap();
    wait_until(SOON, "the next window", async || rate_limits.window("w", 1, brief, 1).await.unwrap().value.0.allowed)
        .await;
}

/// Of callers in several processes one computes; each `Caching` stands for a process.
#[tokio::test]
async fn processes_compute_a_value_once() {
    let options = options();
    let runs = Arc::new(AtomicUsize::new(0));
    let ask = |cache: Cache| {
        let runs = Arc::clone(&runs);
        tokio::spawn(async move {
            let compute = || async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, Infallible>(1)
            };
            cache.get_or_compute(&profile("x"), None, compute).await.unwrap()
        })
    };
    let all: Vec<_> = (0..8).map(|_| ask(Caching::new(Some(redis_link()), &options).cache)).collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 1);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// The replaced applications' names and bytes, as their own clients read and write them.
#[tokio::test]
async fn old_applications_and_this_one_exclude_each_other() {
    let link = redis_link();
    let options = CachingOptions { old_names: true, ..options() };
    let Caching { cache, locks, sessions, rate_limits, .. } = Caching::new(Some(link.clone()), &options);
    let id = windlass_jobs::new_ulid().to_string();
    let call = async |words: &[&str]| {
        let mut call = cmd(words[0]);
        call.arg(&words[1..]);
        format!("{:?}", link.call(&call).await.unwrap())
    };
    let (name, key) = (format!("portfolio:{id}"), format!("lock:portfolio:{id}"));
    assert_eq!(call(&["SET", &key, "theirs", "PX", "30000", "NX"]).await, "ok");
    assert!(lock(&locks, &name, LONG, Duration::ZERO).await.is_none(), "they hold it");
    call(&["DEL", &key]).await;
    let ours = lock(&locks, &name, LONG, Duration::ZERO).await.unwrap();
    assert_eq!(call(&["SET", &key, "theirs", "PX", "30000", "NX"]).await, "nil", "we hold it");
    assert!(call(&["GET", &key]).await.contains(&ours.token));

    call(&["SET", &format!("session:{id}"), r#"{"user":1}"#, "EX", "3600"]).await;
    assert_eq!(sessions.get(&id).await.unwrap().value.unwrap().data, json!({"user": 1}));
    call(&["SET", &format!("rate_limit:{id}"), "9", "EX", "60"]).await;
    assert_eq!(rate_limits.window(&id, 10, LONG, 1).await.unwrap().value.1, 10);
    assert!(!rate_limits.window(&id, 10, LONG, 1).await.unwrap().value.0.allowed);
    let value = format!("{}:trading:user:{id}:AAPL:quote", options.prefix);
    call(&["SET", &value, r#"{"price":1.5}"#, "EX", "900"]).await;
    let quote = Key::trading(&id, "AAPL", "quote").unwrap();
    assert_eq!(cache.get(&quote).await, Some(json!({"price": 1.5})));
    cache.set(&quote, &json!({"price": 2}), None).await.unwrap();
    assert!(call(&["GET", &value]).await.contains("price"));
}
