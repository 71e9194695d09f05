//! `/api/cache`, `/api/locks`, `/api/sessions`, `/api/ratelimits`, and the health of them.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_redis::{Link, Options};
use windlass_store::{Caching, CachingOptions};
use windlass_testkit::RedisServer;

use crate::support::{Answer, Bench};

impl Bench {
    /// The same, with the cache service on a Redis.
    fn with_redis(redis: &RedisServer) -> Self {
        let mut bench = Self::new();
        let link = Link::new(Options::from_url(&redis.url()).unwrap()).unwrap();
        bench.api.caching = Caching::new(Some(link), &CachingOptions::default());
        bench.app = windlass_api::router(bench.api.clone());
        bench
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn delete(&self, path: &str) -> Value {
        let answer = self.send("DELETE", path, &[], Body::empty()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
        answer.json()
    }
}

#[tokio::test]
async fn values_go_in_and_out_by_namespace_and_user() {
    let bench = Bench::new();
    let at = "/api/cache/users/profile?user=123";
    assert_eq!(bench.get(at).await.code(), "key_not_found");
    let body = json!({ "value": { "name": "Ada" }, "ttl_seconds": 60.5 });
    assert_eq!(bench.json("PUT", at, body).await.json(), json!({ "success": true, "degraded": false }));
    let found = bench.get(at).await.json();
    assert_eq!((&found["value"], &found["degraded"]), (&json!({ "name": "Ada" }), &json!(false)));
    assert!((60_000..=60_500).contains(&found["ttl_ms"].as_u64().unwrap()), "{found}");
    assert_eq!(bench.send("HEAD", at, &[], Body::empty()).await.status, StatusCode::OK);
    assert_eq!(bench.get("/api/cache/users/profile?user=124").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/api/cache/users/profile").await.status, StatusCode::NOT_FOUND, "nobody's");
    assert_eq!(bench.delete(at).await, json!({ "deleted": true, "degraded": false }));
    assert_eq!(bench.delete(at).await["deleted"], false);

    let count = "/api/cache/analytics/visits/increment?user=1";
    assert_eq!(bench.json("POST", count, json!({})).await.json()["value"], 1);
    assert_eq!(bench.json("POST", count, json!({ "amount": -3 })).await.json()["value"], -2);
    bench.json("PUT", "/api/cache/general/text", json!({ "value": "x" })).await;
    assert_eq!(bench.json("POST", "/api/cache/general/text/increment", json!({})).await.code(), "not_a_number");

    for (namespace, user) in [("users", "7"), ("ai", "7"), ("ai", "8"), ("trading", "7")] {
        let at = format!("/api/cache/{namespace}/BTC%2FUSD:quote?user={user}");
        bench.json("PUT", &at, json!({ "value": 1 })).await;
    }
    assert_eq!(bench.delete("/api/cache/ai?user=7").await["removed"], 1);
    assert_eq!(bench.delete("/api/cache?user=7").await["removed"], 2);
    assert_eq!(bench.delete("/api/cache/ai").await["removed"], 1);
}

#[tokio::test]
async fn a_batch_is_checked_whole_and_answered_in_order() {
    let bench = Bench::new();
    let op = |op: &str, key: &str| json!({ "op": op, "namespace": "general", "key": key });
    let set = |key: &str, value: Value| {
        let mut set = op("set", key);
        set["value"] = value;
        set
    };
    let batch = json!({ "operations": [set("a", json!(1)), set("b", json!("x"))] });
    assert_eq!(bench.json("POST", "/api/cache", batch).await.status, StatusCode::OK);
    let all = [op("get", "a"), op("exists", "none"), op("increment", "b"), op("delete", "b"), op("get", "none")];
    let results = bench.json("POST", "/api/cache", json!({ "operations": all })).await.json()["results"].clone();
    assert_eq!((&results[0]["value"], &results[1]["exists"]), (&json!(1), &json!(false)));
    assert_eq!((&results[2]["code"], &results[3]["deleted"]), (&json!("not_a_number"), &json!(true)));
    assert_eq!(results[4], json!({ "value": null, "ttl_ms": null, "degraded": false }));

    let bad = json!({ "operations": [set("c", json!(1)), op("get", "")] });
    let refused = bench.json("POST", "/api/cache", bad).await;
    assert_eq!((refused.code().as_str(), &refused.json()["index"]), ("name_invalid", &json!(1)));
    assert_eq!(bench.get("/api/cache/general/c").await.status, StatusCode::NOT_FOUND, "none was done");
    let many = json!({ "operations": vec![op("get", "a"); 1001] });
    assert_eq!(bench.json("POST", "/api/cache", many).await.code(), "batch_too_large");
}

/// B04, B10, B15: names, fields and numbers that cannot be are refused, and nothing is done.
#[tokio::test]
async fn bad_input_is_refused() {
    let bench = Bench::new();
    let put = async |path: &str, body: Value| bench.json("PUT", path, body).await;
    for path in ["/api/cache/Users/a", "/api/cache/index/a", "/api/cache/users/user:1:a", "/api/cache/users/a::b"] {
        assert_eq!(put(path, json!({ "value": 1 })).await.code(), "name_invalid", "{path}");
    }
    assert_eq!(put("/api/cache/users/a?user=", json!({ "value": 1 })).await.code(), "name_invalid");
    assert_eq!(put("/api/cache/users/a?usr=1", json!({ "value": 1 })).await.code(), "query_invalid");
    assert_eq!(put("/api/cache/users/%ff", json!({ "value": 1 })).await.code(), "name_invalid");
    let at = "/api/cache/users/a";
    assert_eq!(put(at, json!({ "value": 1, "tenant": "x" })).await.code(), "unknown_field");
    for ttl in [json!(0), json!(-1), json!(1e300), json!(2_592_001), json!("60")] {
        assert_eq!(put(at, json!({ "value": 1, "ttl_seconds": ttl })).await.code(), "body_invalid");
    }
    assert_eq!(put(at, json!({})).await.code(), "body_invalid");
    assert_eq!(put(at, json!({ "value": "x".repeat(1024 * 1024) })).await.code(), "body_too_large");
    assert_eq!(bench.get(at).await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.send("DELETE", "/api/cache", &[], Body::empty()).await.code(), "query_invalid");
    for (path, body) in [
        ("/api/locks/a::b", json!({})),
        ("/api/locks/a", json!({ "ttl_ms": 0 })),
        ("/api/locks/a", json!({ "wait_ms": 30_001 })),
        ("/api/locks/a", json!({ "when_away": "maybe" })),
        ("/api/ratelimits/a", json!({})),
        ("/api/ratelimits/a", json!({ "limit": 0 })),
        ("/api/ratelimits/a", json!({ "limit": 1, "cost": 1_000_001 })),
        ("/api/ratelimits/a", json!({ "limit": 1, "burst": 1, "algorithm": "fixed_window" })),
        ("/api/sessions", json!({ "data": {}, "ttl_seconds": 0 })),
    ] {
        let answer = bench.json("POST", path, body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body}: {}", answer.json());
    }
}

#[tokio::test]
async fn a_lock_is_taken_renewed_and_let_go() {
    let bench = Bench::new();
    let at = "/api/locks/portfolio:42";
    let taken = bench.json("POST", at, json!({ "ttl_ms": 5000 })).await;
    assert_eq!(taken.status, StatusCode::CREATED);
    let grant = taken.json();
    assert_eq!(
        (&grant["name"], &grant["ttl_ms"], &grant["degraded"]),
        (&json!("portfolio:42"), &json!(5000), &json!(false))
    );
    let held = bench.json("POST", at, json!({})).await;
    assert_eq!((held.status, held.code().as_str()), (StatusCode::CONFLICT, "lock_held"));
    let renewed = bench.json("PUT", at, json!({ "token": grant["token"] })).await;
    assert_eq!(renewed.json(), json!({ "renewed": true }));
    assert_eq!(bench.json("PUT", at, json!({ "token": "theirs" })).await.code(), "lock_lost");
    let token = grant["token"].as_str().unwrap();
    assert_eq!(bench.delete(&format!("{at}?token={token}")).await, json!({ "released": true }));
    let again = bench.send("DELETE", &format!("{at}?token={token}"), &[], Body::empty()).await;
    assert_eq!(again.code(), "lock_lost");
    let next = bench.json("POST", at, json!({})).await.json();
    assert!(next["fence"].as_u64() > grant["fence"].as_u64() && next["ttl_ms"] == 30_000);
}

#[tokio::test]
async fn sessions_begin_last_and_end() {
    let bench = Bench::new();
    let made = bench.json("POST", "/api/sessions", json!({ "data": { "user": 7 } })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let at = made.header("location").to_owned();
    let session = bench.get(&at).await.json();
    assert_eq!(session["data"], json!({ "user": 7 }));
    assert!(session["ttl_ms"].as_u64().unwrap() > 3_590_000);
    assert_eq!(bench.json("PUT", &at, json!({ "data": 1, "ttl_seconds": 60 })).await.status, StatusCode::OK);
    assert_eq!(bench.json("POST", &format!("{at}/touch"), json!({ "ttl_seconds": 600 })).await.status, StatusCode::OK);
    assert!(bench.get(&at).await.json()["ttl_ms"].as_u64().unwrap() > 590_000);
    assert_eq!(bench.delete(&at).await["deleted"], true);
    assert_eq!(bench.get(&at).await.code(), "session_not_found");
    assert_eq!(bench.json("POST", &format!("{at}/touch"), json!({})).await.code(), "session_not_found");
}

#[tokio::test]
async fn rate_limits_count_and_say_when() {
    let bench = Bench::new();
    let ask = async |body: Value| bench.json("POST", "/api/ratelimits/10.0.0.1", body).await.json();
    for remaining in [1, 0] {
        let body = ask(json!({ "limit": 2, "algorithm": "fixed_window" })).await;
        assert_eq!((&body["allowed"], &body["remaining"]), (&json!(true), &json!(remaining)), "{body}");
    }
    let refused = ask(json!({ "limit": 2, "algorithm": "fixed_window" })).await;
    assert_eq!((&refused["allowed"], &refused["count"]), (&json!(false), &json!(2)));
    assert!(refused["reset_ms"].as_u64().unwrap() > 59_000);
    assert_eq!(ask(json!({ "limit": 2, "burst": 1 })).await["allowed"], true, "counted apart");
    let refused = ask(json!({ "limit": 2, "burst": 1 })).await;
    assert!(refused["allowed"] == false && refused["retry_after_ms"].as_u64().unwrap() > 29_000, "{refused}");
}

/// Replaces what differs from run to run by its type, so that the rest can be compared.
fn shape(value: &mut Value, varies: &[&str]) {
    if let Value::Object(members) = value {
        for (name, member) in members {
            if varies.contains(&name.as_str()) {
                match member {
                    Value::Number(_) => *member = "number".into(),
                    Value::String(_) => *member = "text".into(),
                    _ => {}
                }
            }
            shape(member, varies);
        }
    }
}

fn golden(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// `compat.md` §2 and §3: the bodies, with Redis up, gone, away from the start, and without one.
#[tokio::test]
async fn health_has_the_bodies_of_the_replaced_services() {
    let varies = [
        "version",
        "uptime",
        "connected_clients",
        "used_memory",
        "used_memory_human",
        "keyspace_hits",
        "keyspace_misses",
        "instantaneous_ops_per_sec",
        "evicted_keys",
        "expired_keys",
        "rejected_connections",
        "total_commands_processed",
        "uptime_in_seconds",
        "redis_version",
        "timestamp",
        "failures",
        "fallbacks",
        "opened",
    ];
    let check = async |bench: &Bench, path: &str, status: u16, expected: &str| {
        let answer = bench.get(path).await;
        let mut body = answer.json();
        if let Some(at) = body["timestamp"].as_str() {
            assert!(at.len() == 19 && at.as_bytes()[10] == b'T', "UTC without suffix: {at}");
        }
        shape(&mut body, &varies);
        assert_eq!((answer.status.as_u16(), &body), (status, &golden(expected)), "{path}: {body:#}");
    };
    let redis = RedisServer::builder().max_memory("100mb", "noeviction").start();
    let up = Bench::with_redis(&redis);
    for namespace in ["users", "users", "ai"] {
        let key = windlass_jobs::new_ulid();
        up.json("PUT", &format!("/api/cache/{namespace}/{key}"), json!({ "value": 1 })).await;
    }
    check(&up, "/api/health/redis", 200, include_str!("golden/health_redis_up.json")).await;
    check(&up, "/api/health/cache", 200, include_str!("golden/health_cache_up.json")).await;
    check(&up, "/api/debug/redis", 200, include_str!("golden/debug_redis_up.json")).await;
    redis.kill();
    let late = Bench::with_redis(&redis);
    for bench in [&up, &late] {
        check(bench, "/api/health/redis", 503, include_str!("golden/health_redis_away.json")).await;
        check(bench, "/api/debug/redis", 200, include_str!("golden/debug_redis_away.json")).await;
        let cache = bench.get("/api/health/cache").await.json();
        assert_eq!((&cache["status"], &cache["keys"]["total"]), (&json!("degraded"), &json!(0)), "{cache}");
        assert!(!cache.to_string().contains("127.0.0.1"));
        let put = bench.json("PUT", "/api/cache/users/a", json!({ "value": 1 })).await;
        assert_eq!(put.json(), json!({ "success": true, "degraded": true }), "it still works");
        assert_eq!(bench.json("POST", "/api/locks/a", json!({})).await.code(), "store_unavailable");
        let local = bench.json("POST", "/api/locks/a", json!({ "when_away": "local" })).await;
        assert_eq!((local.status, &local.json()["degraded"]), (StatusCode::CREATED, &json!(true)));
    }
    let none = Bench::new();
    check(&none, "/api/health/redis", 200, include_str!("golden/health_redis_none.json")).await;
    check(&none, "/api/health/cache", 200, include_str!("golden/health_cache_none.json")).await;
}
