//! Who is let in, and what for.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_api::keys::{Book, NewKey, hash_key};
use windlass_api::{Anonymous, ApiOptions, Auth, ROUTES, Route, Scope, Sees};
use windlass_jobs::Timestamp;

use crate::support::{Answer, Bench};

fn with_keys(keys: &[&str]) -> Bench {
    let auth = Auth { fixed: keys.iter().map(|key| hash_key(key)).collect(), ..Auth::default() };
    Bench::for_keys(ApiOptions { auth, ..ApiOptions::default() })
}

fn path_of(path: &str) -> String {
    path.replace("{id}", "x")
        .replace("{sha256}", "x")
        .replace("{code}", "internal")
        .replace("{queue}", "q")
        .replace("{namespace}", "n")
        .replace("{key}", "k")
        .replace("{name}", "n")
        .replace("{symbol}", "S")
        .replace("{interval}", "1d")
}

async fn ask(bench: &Bench, key: &str, route: &Route) -> Answer {
    bench.with_key(key, route.method, &path_of(route.path), None).await
}

/// B01: the table is walked; what is not declared public needs a key.
#[tokio::test]
async fn b01_every_route_asks_for_a_key_unless_it_is_public() {
    let bench = with_keys(&["k"]);
    let public: Vec<&str> = ROUTES.iter().filter(|r| r.scope == Scope::Public).map(|r| r.path).collect();
    let health = ["/api/health/redis", "/api/health/cache"];
    let probes = ["/api/openapi.json", "/api/health", "/livez", "/readyz", "/metrics", "/docs/errors/{code}"];
    assert_eq!(public, [&health[..], &probes].concat());
    for route in ROUTES {
        let answer = bench.send(route.method, &path_of(route.path), &[], Body::empty()).await;
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, route.scope != Scope::Public, "{route:?}");
        let answer = ask(&bench, "k", route).await;
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{route:?}");
        // The router knows the route: an unknown one would be "not_found".
        assert!(route.method == "HEAD" || answer.status.is_success() || answer.code() != "not_found", "{route:?}");
    }
}

/// B01: whatever is wrong with a key, the answer is the same.
#[tokio::test]
async fn b01_whatever_is_wrong_with_a_key_is_answered_alike() {
    let bench = with_keys(&["a-key-of-the-settings"]);
    let book = Book::new(bench.api.records.clone());
    let (good, revoked) = (bench.key(&["*"], None).await, bench.key(&["*"], None).await);
    let second = bench.key(&["*"], None).await;
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    book.revoke(&id(&revoked)).await.unwrap();
    let soon = Timestamp::now().plus(Duration::from_millis(50));
    let brief = NewKey {
        name: "brief".into(),
        scopes: vec!["*".parse().unwrap()],
        expires_at: Some(soon),
        ..NewKey::default()
    };
    let (expired, _) = book.create(brief).await.unwrap();
    bench.api.ring.refresh().await.unwrap();
    while Timestamp::now() <= soon {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The id of one key with the secret of another.
    let mixed = format!("wl_{}_{}", id(&good), second.split('_').nth(2).unwrap());
    let cut = &good[..good.len() - 1];
    let hash = hash_key(&good).to_string();
    let mut bodies = Vec::new();
    let mut refused = async |headers: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("x-request-id", "r")]).collect();
        let answer = bench.send("GET", "/api/queues", &headers, Body::empty()).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        bodies.push(answer.body);
    };
    let (one, two) = (format!("Bearer {good}"), format!("Bearer {second}"));
    refused(&[]).await;
    refused(&[("authorization", &one), ("authorization", &two)]).await;
    for value in ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer é", &good] {
        refused(&[("authorization", value)]).await;
    }
    for key in ["wl_", "wl_x_y", revoked.as_str(), &expired, &mixed, cut, &hash] {
        refused(&[("authorization", &format!("Bearer {key}"))]).await;
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    for key in [good.as_str(), &second, "a-key-of-the-settings"] {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let headers = [("authorization", format!("{scheme} {key}")), ("host", "example.com".into())];
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(bench.send("GET", "/api/queues", &headers, Body::empty()).await.status, StatusCode::OK);
        }
    }
    assert_eq!(with_keys(&[]).get("/api/queues").await.code(), "unauthorized", "no keys let nobody in");
    assert_eq!(with_keys(&[""]).with_key("", "GET", "/api/queues", None).await.code(), "unauthorized");
}

/// B02: every scope against every route: a key may what it grants, and nothing else.
#[tokio::test]
async fn b02_every_route_asks_for_its_scope() {
    let bench = Bench::for_keys(ApiOptions::default());
    for scope in Scope::ALL {
        let key = bench.key(&[scope.as_str()], None).await;
        for route in ROUTES.iter().filter(|route| route.scope != Scope::Public) {
            let answer = ask(&bench, &key, route).await;
            let refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(refused, route.scope != *scope, "{scope:?} {route:?}");
            if refused && route.method != "HEAD" {
                assert_eq!(answer.code(), "scope_missing");
                assert_eq!(answer.json()["scope"], route.scope.as_str());
            }
        }
    }
    let wide = bench.key(&["jobs:*", "*:read"], None).await;
    for route in ROUTES.iter().filter(|route| route.scope != Scope::Public) {
        let allowed = route.scope == Scope::JobsWrite || route.scope.is_reading();
        assert_eq!(ask(&bench, &wide, route).await.status != StatusCode::FORBIDDEN, allowed, "{route:?}");
    }
}

/// B02: who was refused, and who administered what, stands in the audit log.
#[tokio::test]
async fn b02_refusals_and_administration_are_audited() {
    let bench = Bench::for_keys(ApiOptions::default());
    let (reader, admin) = (bench.key(&["jobs:read"], None).await, bench.key(&["*"], None).await);
    bench.with_key(&reader, "POST", "/api/cache/clear", None).await;
    bench.with_key(&admin, "POST", "/api/cache/clear", None).await;
    bench.with_key(&admin, "GET", "/api/cache/stats", None).await;
    let entries = audited(&bench, &admin, 2).await;
    let line = |entry: &Value| (entry["action"].clone(), entry["status"].clone(), entry["target"].clone());
    assert_eq!(line(&entries[0]), (json!("POST /api/cache/clear"), json!(200), json!("/api/cache/clear")));
    assert_eq!(line(&entries[1]), (json!("POST /api/cache/clear"), json!(403), json!("/api/cache/clear")));
    assert_eq!(entries[1]["who"], reader.split('_').nth(1).unwrap());
    assert_eq!((&entries[0]["name"], &entries[0]["request_id"]), (&json!("test"), &json!("r")));
    let page = bench.with_key(&admin, "GET", "/api/audit?limit=1", None).await.json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    assert_eq!(bench.with_key(&admin, "GET", "/api/audit?limit=501", None).await.code(), "query_invalid");
}

/// The audit log once it holds so many entries.
async fn audited(bench: &Bench, key: &str, count: usize) -> Vec<Value> {
    let begun = std::time::Instant::now();
    loop {
        let body = bench.with_key(key, "GET", "/api/audit", None).await.json();
        let entries = body["entries"].as_array().unwrap();
        if entries.len() >= count {
            assert_eq!(entries.len(), count, "{body:#}");
            return entries.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{body:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Keys over HTTP: made, listed without their secret, rotated with two live ones, revoked.
#[tokio::test]
async fn keys_are_made_rotated_and_revoked() {
    let bench = Bench::for_keys(ApiOptions::default());
    let admin = bench.key(&["admin:*", "jobs:read"], None).await;
    let body = json!({ "name": "reports", "scopes": ["jobs:read"], "rate": { "limit": 5, "period_ms": 1000 } });
    let made = bench.with_key(&admin, "POST", "/api/keys", Some(body)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let (id, old) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!(bench.with_key(old, "GET", "/api/queues", None).await.status, StatusCode::OK);
    let listed = bench.with_key(&admin, "GET", "/api/keys", None).await.json();
    let text = listed.to_string();
    assert!(!text.contains(old) && !text.contains("hash") && !text.contains(&hash_key(old).to_string()), "{text}");
    let of_id = |listed: &Value| listed["keys"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap().clone();
    assert!(of_id(&listed)["last_used_at"].is_string(), "{listed:#}");

    let path = format!("/api/keys/{id}/rotate");
    let rotate = async |overlap: u64| {
        let body = json!({ "overlap_seconds": overlap });
        let answer = bench.with_key(&admin, "POST", &path, Some(body)).await;
        answer.json()["key"].as_str().unwrap().to_owned()
    };
    let new = rotate(3600).await;
    for key in [old, &new] {
        assert_eq!(bench.with_key(key, "GET", "/api/queues", None).await.status, StatusCode::OK, "two are live");
    }
    let newest = rotate(0).await;
    for (key, status) in [(old, 401), (&new, 401), (&newest, 200)] {
        assert_eq!(bench.with_key(key, "GET", "/api/queues", None).await.status.as_u16(), status);
    }
    let revoked = bench.with_key(&admin, "DELETE", &format!("/api/keys/{id}"), None).await;
    assert_eq!(revoked.json()["status"], "revoked");
    assert_eq!(bench.with_key(&newest, "GET", "/api/queues", None).await.code(), "unauthorized");
    for (method, path) in [("DELETE", "/api/keys/nope"), ("DELETE", &format!("/api/keys/{id}"))] {
        assert_eq!(bench.with_key(&admin, method, path, None).await.code(), "api_key_not_found");
    }
    let again = bench.with_key(&admin, "POST", &path, Some(json!({}))).await;
    assert_eq!(again.code(), "api_key_not_found");
}

/// Nobody gives away, or takes over, what they do not have.
#[tokio::test]
async fn a_key_grants_no_more_than_it_has() {
    let bench = Bench::for_keys(ApiOptions::default());
    let (admin, all) = (bench.key(&["admin:keys", "jobs:*"], None).await, bench.key(&["*"], None).await);
    let create = async |scopes: Value| {
        let body = json!({ "name": "x", "scopes": scopes });
        bench.with_key(&admin, "POST", "/api/keys", Some(body)).await
    };
    assert_eq!(create(json!(["jobs:write"])).await.status, StatusCode::CREATED);
    for more in [json!(["*"]), json!(["*:read"]), json!(["jobs:read", "admin:audit"])] {
        assert_eq!(create(more).await.code(), "scope_missing");
    }
    for bad in [json!([]), json!(["jobs"]), json!(["jobs:delete"]), json!("jobs:read"), json!(null)] {
        assert_eq!(create(bad).await.code(), "body_invalid");
    }
    let path = format!("/api/keys/{}/rotate", all.split('_').nth(1).unwrap());
    assert_eq!(bench.with_key(&admin, "POST", &path, Some(json!({}))).await.code(), "scope_missing");
    let named = |name: &str| json!({ "name": name, "scopes": ["jobs:read"] });
    for bad in ["", "a\nb", &"x".repeat(101)] {
        assert_eq!(bench.with_key(&admin, "POST", "/api/keys", Some(named(bad))).await.code(), "body_invalid");
    }
    let unknown = json!({ "name": "x", "scopes": ["jobs:read"], "admin": true });
    assert_eq!(bench.with_key(&admin, "POST", "/api/keys", Some(unknown)).await.code(), "unknown_field");
}

/// B17: a key that asks more often than it may is told when to come back; others are not held up.
#[tokio::test]
async fn b17_a_key_that_asks_too_often_waits() {
    let rate = windlass_api::keys::Rate { limit: 2, period_ms: 60_000 };
    let bench = Bench::for_keys(ApiOptions { rate: Some(rate), ..ApiOptions::default() });
    let (one, two) = (bench.key(&["jobs:read"], None).await, bench.key(&["jobs:read"], None).await);
    let ask = async |key: &str| bench.with_key(key, "GET", "/api/queues", None).await;
    let first = ask(&one).await;
    assert_eq!(first.header("ratelimit-policy"), "\"key\";q=2;w=60");
    assert_eq!(first.header("ratelimit"), "\"key\";r=1;t=30");
    assert_eq!(ask(&one).await.status, StatusCode::OK);
    let third = ask(&one).await;
    assert_eq!((third.status, third.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    assert_eq!((third.header("retry-after"), third.header("ratelimit")), ("30", "\"key\";r=0;t=60"));
    assert_eq!(ask(&two).await.status, StatusCode::OK);
    assert_eq!(bench.get("/livez").await.status, StatusCode::OK);
}

/// On loopback, embedded: reading needs no key, the rest does; a bad key is never taken for none.
#[tokio::test]
async fn reading_may_be_open_while_the_rest_asks_for_a_key() {
    let auth = Auth { anonymous: Anonymous::Reading, ..Auth::default() };
    let bench = Bench::for_keys(ApiOptions { auth, ..ApiOptions::default() });
    for route in ROUTES.iter().filter(|route| route.scope != Scope::Public) {
        let answer = bench.send(route.method, &path_of(route.path), &[], Body::empty()).await;
        assert_eq!(answer.status != StatusCode::UNAUTHORIZED, route.scope.is_reading(), "{route:?}");
    }
    assert_eq!(bench.with_key("wl_bad", "GET", "/api/queues", None).await.code(), "unauthorized");
    let writer = bench.key(&["jobs:write"], None).await;
    assert_eq!(bench.with_key(&writer, "GET", "/api/queues", None).await.code(), "scope_missing");
}

/// B03: what is another tenant's is not there, byte by byte.
#[tokio::test]
async fn b03_another_tenants_job_is_not_there() {
    let bench = Bench::for_keys(ApiOptions::default());
    let (a, b) = (bench.key(&["*"], Some("a")).await, bench.key(&["*"], Some("b")).await);
    let all = bench.key(&["*"], None).await;
    let job = |tenant: Value| json!({ "kind": "test.echo", "args": { "text": "hi" }, "tenant": tenant, "unique": { "key": "k" } });
    let enqueue = async |key: &str, tenant: Value| bench.with_key(key, "POST", "/api/tasks", Some(job(tenant))).await;
    let task = enqueue(&a, Value::Null).await.json()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(enqueue(&a, json!("b")).await.code(), "tenant_refused");
    let same = enqueue(&a, json!("a")).await.json();
    assert_eq!((&same["task_id"], &same["unique"]), (&json!(task), &json!("kept")));
    assert!(enqueue(&b, Value::Null).await.json()["unique"].is_null(), "a tenant's unique keys are its own");

    // The same length and form, of nobody.
    let nobody = format!("{}{}", if task.starts_with('0') { "1" } else { "0" }, &task[1..]);
    let urls = [("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")];
    for (method, rest) in urls {
        let other = bench.with_key(&b, method, &format!("/api/tasks/{task}{rest}"), None).await;
        let none = bench.with_key(&b, method, &format!("/api/tasks/{nobody}{rest}"), None).await;
        assert_eq!((other.status, other.code().as_str()), (StatusCode::NOT_FOUND, "task_not_found"), "{method} {rest}");
        assert_eq!(other.body, none.body, "{method} {rest}");
    }
    for key in [&a, &all] {
        assert_eq!(bench.with_key(key, "GET", &format!("/api/tasks/{task}"), None).await.status, StatusCode::OK);
    }
    let listed = async |key: &str| {
        let body = bench.with_key(key, "GET", "/api/tasks?queue=default", None).await.json();
        body["tasks"].as_array().unwrap().len()
    };
    assert_eq!((listed(&a).await, listed(&b).await, listed(&all).await), (1, 1, 2));
    for route in ROUTES.iter().filter(|route| route.sees == Sees::All && route.method != "HEAD") {
        assert_eq!(ask(&bench, &a, route).await.code(), "tenant_refused", "{route:?}");
    }
}

/// B03: values, sessions, locks and limits of a tenant are its own.
#[tokio::test]
async fn b03_another_tenants_values_are_not_there() {
    let bench = Bench::for_keys(ApiOptions::default());
    let (a, b) = (bench.key(&["*"], Some("a")).await, bench.key(&["*"], Some("b")).await);
    for query in ["", "?user=u"] {
        let path = format!("/api/cache/general/k{query}");
        let value = async |key: &str| bench.with_key(key, "GET", &path, None).await;
        bench.with_key(&a, "PUT", &path, Some(json!({ "value": 1 }))).await;
        assert_eq!(value(&a).await.json()["value"], 1);
        assert_eq!(value(&b).await.code(), "key_not_found");
        bench.with_key(&b, "DELETE", "/api/cache/general", None).await;
        bench.with_key(&b, "DELETE", "/api/cache?user=u", None).await;
        assert_eq!(value(&a).await.json()["value"], 1, "nobody else's to clear");
        let gone = bench.with_key(&a, "DELETE", &format!("/api/cache/general{query}"), None).await;
        assert_eq!(gone.json()["removed"], 1);
    }
    let get = json!({ "operations": [{ "op": "set", "namespace": "general", "key": "x", "value": 2 }] });
    bench.with_key(&a, "POST", "/api/cache", Some(get)).await;
    let get = json!({ "operations": [{ "op": "get", "namespace": "general", "key": "x" }] });
    let read = async |key: &str| bench.with_key(key, "POST", "/api/cache", Some(get.clone())).await.json();
    assert_eq!(read(&a).await["results"][0]["value"], 2);
    assert_eq!(read(&b).await["results"][0]["value"], Value::Null);

    let made = bench.with_key(&a, "POST", "/api/sessions", Some(json!({ "data": { "n": 1 } }))).await.json();
    let path = format!("/api/sessions/{}", made["session_id"].as_str().unwrap());
    assert_eq!(bench.with_key(&a, "GET", &path, None).await.json()["data"]["n"], 1);
    assert_eq!(bench.with_key(&b, "GET", &path, None).await.code(), "session_not_found");
    for key in [&a, &b] {
        let grant = bench.with_key(key, "POST", "/api/locks/portfolio:1", Some(json!({}))).await;
        assert_eq!((grant.status, &grant.json()["name"]), (StatusCode::CREATED, &json!("portfolio:1")));
        let once = json!({ "limit": 1 });
        assert_eq!(bench.with_key(key, "POST", "/api/ratelimits/x", Some(once)).await.json()["allowed"], true);
    }
}

/// B30: where not everything asks for a key, a page of another site reaches nothing: neither by a name
/// of its own that leads to loopback, nor by posting across sites.
#[tokio::test]
async fn b30_without_keys_other_sites_are_refused() {
    let bench = Bench::new();
    let blob = async |headers: &[(&str, &str)]| bench.send("POST", "/api/blobs", headers, "x").await;
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.168.0.1:8001", ""] {
        for path in ["/api/queues", "/livez", "/nope"] {
            let answer = bench.send("GET", path, &[("host", host)], Body::empty()).await;
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "host_refused"), "{host}");
        }
    }
    assert_eq!(bench.send("GET", "http://evil.example/livez", &[], Body::empty()).await.code(), "host_refused");
    for host in ["localhost", "127.0.0.1:8001", "[::1]:8001"] {
        assert_eq!(blob(&[("host", host)]).await.status, StatusCode::CREATED);
        assert_eq!(blob(&[("host", host), ("origin", &format!("http://{host}"))]).await.status, StatusCode::CREATED);
    }
    for origin in ["https://evil.example", "null", "http://localhost:9999", "http://localhost:8001.evil.example", ""] {
        let answer = blob(&[("origin", origin)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "origin_refused"), "{origin}");
    }
    let reading = bench.send("GET", "/livez", &[("origin", "https://evil.example")], Body::empty()).await;
    assert_eq!(reading.status, StatusCode::OK, "a browser does not hand the answer over");
    assert!(!reading.headers.contains_key("access-control-allow-origin"));
}
