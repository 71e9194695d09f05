//! Who is let in.

use axum::body::Body;
use axum::http::StatusCode;
use windlass_api::{ApiOptions, Auth, ROUTES, Scope, generate_key, hash_key};

use crate::support::Bench;

fn with_keys(keys: &[&str]) -> Bench {
    let auth = Auth::Keys(keys.iter().map(|key| hash_key(key)).collect());
    Bench::with(ApiOptions { auth, ..ApiOptions::default() })
}

fn path_of(path: &str) -> String {
    path.replace("{id}", "x")
        .replace("{sha256}", "x")
        .replace("{code}", "internal")
        .replace("{queue}", "q")
        .replace("{namespace}", "n")
        .replace("{key}", "k")
        .replace("{name}", "n")
}

/// B01: the table is walked; what is not declared public needs a key.
#[tokio::test]
async fn every_route_asks_for_a_key_unless_it_is_public() {
    let bench = with_keys(&["k"]);
    let public: Vec<&str> = ROUTES.iter().filter(|r| r.scope == Scope::Public).map(|r| r.path).collect();
    let health = ["/api/health/redis", "/api/health/cache", "/api/health", "/livez", "/readyz", "/metrics"];
    assert_eq!(public, [&health[..], &["/docs/errors/{code}"]].concat());
    for route in ROUTES {
        let path = path_of(route.path);
        let answer = bench.send(route.method, &path, &[], Body::empty()).await;
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, route.scope != Scope::Public, "{route:?}");
        let answer = bench.send(route.method, &path, &[("authorization", "Bearer k")], Body::empty()).await;
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{route:?}");
        // The router knows the route: an unknown one would be "not_found".
        assert!(route.method == "HEAD" || answer.status.is_success() || answer.code() != "not_found", "{route:?}");
    }
}

/// B01: whatever is wrong with a key, the answer is the same.
#[tokio::test]
async fn a_missing_a_malformed_and_a_wrong_key_are_answered_alike() {
    let (one, two) = (generate_key(), generate_key());
    let bench = with_keys(&[&one, &two]);
    let stranger = format!("Bearer {}", generate_key());
    let cut = format!("Bearer {}", &one[..one.len() - 1]);
    let hash = format!("Bearer {}", hash_key(&one));
    let twice = [("authorization", format!("Bearer {one}")), ("authorization", format!("Bearer {two}"))];
    let mut bodies = Vec::new();
    let mut ask = async |headers: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("x-request-id", "r")]).collect();
        let answer = bench.send("GET", "/api/queues", &headers, Body::empty()).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthorized"));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        bodies.push(answer.body);
    };
    ask(&[]).await;
    ask(&[("authorization", twice[0].1.as_str()), ("authorization", twice[1].1.as_str())]).await;
    for value in ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer é", &one, &stranger, &cut, &hash] {
        ask(&[("authorization", value)]).await;
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    for key in [&one, &two] {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let value = format!("{scheme} {key}");
            let answer = bench
                .send("GET", "/api/queues", &[("authorization", &value), ("host", "example.com")], Body::empty())
                .await;
            assert_eq!(answer.status, StatusCode::OK);
        }
    }
    assert_eq!(with_keys(&[]).get("/api/queues").await.code(), "unauthorized", "no keys let nobody in");
    assert_eq!(
        with_keys(&[""]).send("GET", "/api/queues", &[("authorization", "Bearer ")], Body::empty()).await.code(),
        "unauthorized"
    );
}

/// B30: without keys, a page of another site reaches nothing: neither by a name of its own
/// that leads to loopback, nor by posting across sites.
#[tokio::test]
async fn without_keys_other_sites_are_refused() {
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
