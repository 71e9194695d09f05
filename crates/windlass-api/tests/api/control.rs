//! Cancel, retry, pause, bound, and the dead set.

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::json;
use windlass_jobs::Reason;
use windlass_jobs::command::Settle;

use crate::support::Bench;

fn failure() -> Settle {
    let error = r#"{"code":"broken","message":"as asked"}"#.to_owned();
    Settle::Failure { reason: Reason::Error, failures: 1, error }
}

/// A waiting task is cancelled at once, a running one by its worker, an ended one not at all.
#[tokio::test]
async fn delete_cancels() {
    let bench = Bench::new();
    let id = bench.echo().await;
    let url = format!("/api/tasks/{id}");
    let answer = bench.send("DELETE", &url, &[], Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        (&answer.json()["success"], &answer.json()["message"]),
        (&json!(true), &json!("Task cancelled successfully"))
    );
    assert_eq!(bench.get(&url).await.json()["status"], "cancelled");
    let late = bench.send("DELETE", &url, &[], Body::empty()).await;
    assert_eq!((late.status, late.code().as_str()), (StatusCode::BAD_REQUEST, "task_cancel_failed"));

    let id = bench.echo().await;
    bench.claim("default").await;
    let answer = bench.send("DELETE", &format!("/api/tasks/{id}"), &[], Body::empty()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(bench.get(&format!("/api/tasks/{id}")).await.json()["cancel_requested"], true);
    let none = bench.send("DELETE", "/api/tasks/01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.default", &[], Body::empty()).await;
    assert_eq!((none.status, none.code().as_str()), (StatusCode::NOT_FOUND, "task_not_found"));
}

/// Only a failed task is retried; it starts anew with all its attempts.
#[tokio::test]
async fn a_failed_task_is_retried() {
    let bench = Bench::new();
    let id = bench.ended(failure()).await;
    let url = format!("/api/tasks/{id}/retry");
    let dead = bench.get("/api/queues/default/dead").await.json();
    assert_eq!((&dead["tasks"][0]["task_id"], &dead["next"]), (&json!(id), &json!(null)));
    let answer = bench.send("POST", &url, &[], Body::empty()).await;
    assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::ACCEPTED, &json!("pending")));
    assert_eq!(bench.get(&format!("/api/tasks/{id}")).await.json()["attempt"], 0);
    let again = bench.send("POST", &url, &[], Body::empty()).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "task_not_failed"));
    assert_eq!(bench.get("/api/queues/default/dead").await.json()["tasks"], json!([]));
}

/// B17: a bounded queue answers 429 and queues nothing; a paused one hands nothing out.
#[tokio::test]
async fn queues_are_bounded_and_paused() {
    let bench = Bench::new();
    let put = async |body: &str| {
        bench.send("PUT", "/api/queues/default/limits", &[("content-type", "application/json")], body.to_owned()).await
    };
    assert_eq!(put(r#"{"max_waiting": 1}"#).await.json()["max_waiting"], 1);
    bench.echo().await;
    let full = bench.post(json!({ "kind": "test.echo", "args": { "text": "hi" } })).await;
    assert_eq!((full.status, full.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "queue_full"));
    assert!(full.headers.contains_key("retry-after"));
    for wrong in [r#"{"max_waiting": -1}"#, r#"{"max_waiting": 1, "x": 2}"#, "[]", r#"{"max_waiting": "1"}"#] {
        assert_eq!(put(wrong).await.code(), "job_invalid", "{wrong}");
    }
    assert_eq!(put(r#"{"max_waiting": null}"#).await.status, StatusCode::OK);
    bench.echo().await;

    let post = async |verb: &str| bench.send("POST", &format!("/api/queues/default/{verb}"), &[], Body::empty()).await;
    assert_eq!(post("pause").await.json()["paused"], true);
    assert_eq!(bench.get("/api/queues").await.json()["queues"][0]["paused"], true);
    assert_eq!(post("resume").await.json()["paused"], false);
    assert_eq!(bench.send("POST", "/api/queues/Not%20One/pause", &[], Body::empty()).await.code(), "not_found");
}

/// A queue's limits are set as a whole, hold from the next claim on, and are refused by name.
#[tokio::test]
async fn a_queues_limits_are_set() {
    let bench = Bench::new();
    let put = async |limits: serde_json::Value| {
        let body = json!({ "limits": limits }).to_string();
        bench.send("PUT", "/api/queues/default/limits", &[("content-type", "application/json")], body).await
    };
    bench.echo().await;
    bench.echo().await;
    let rate = json!({ "count": 100, "per_ms": 1000, "burst": 1 });
    let keys: serde_json::Map<_, _> = (0..1_000).map(|n| (format!("{n:-<64}"), rate.clone())).collect();
    let limits = json!({ "concurrency": 1, "rate": { "count": 5, "per_ms": 60_000 }, "key_rates": keys });
    let answer = put(limits.clone()).await;
    assert_eq!((answer.status, &answer.json()["limits"]), (StatusCode::OK, &limits));
    bench.claim("default").await;
    assert!(bench.try_claim("default").await.is_none(), "one runs, and one may");
    assert_eq!(put(json!({})).await.json()["limits"], json!({}));
    bench.claim("default").await;
    for (wrong, named) in [
        (json!({ "concurrency": 0 }), "/limits/concurrency"),
        (json!({ "concurency": 1 }), "concurency"),
        (json!({ "rate": { "count": 1 } }), "per_ms"),
        (json!({ "key_rates": { "": rate } }), "/limits/key_rates"),
        (json!(7), "/limits"),
    ] {
        let answer = put(wrong.clone()).await;
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.code() == "job_invalid" && detail.contains(named), "{wrong}: {detail}");
    }
}

/// Chains and groups: each job waits for those before it, and everything wrong is named.
#[tokio::test]
async fn flows_are_queued() {
    let bench = Bench::new();
    let step = |text: &str| json!({ "kind": "test.echo", "args": { "text": text } });
    let flow = json!({ "chain": [step("a"), { "group": [step("b"), step("c")], "then": step("d") }] });
    let answer = bench.post(&flow).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json());
    let tasks = answer.json()["tasks"].clone();
    let states: Vec<&str> = (0..4).map(|n| tasks[n]["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["pending", "scheduled", "scheduled", "scheduled"]);
    let id = |n: usize| tasks[n]["task_id"].as_str().unwrap().to_owned();
    let shown = async |n: usize| bench.get(&format!("/api/tasks/{}", id(n))).await.json();
    assert_eq!(shown(3).await["parents"], json!([id(1), id(2)]));
    assert_eq!(shown(3).await["waits_for"], 2);
    assert_eq!((&shown(0).await["parents"], &shown(0).await["waits_for"]), (&json!(null), &json!(null)));
    let more = json!({ "kind": "test.echo", "args": { "text": "e" }, "depends_on": [id(3)], "on_failure": "run" });
    assert_eq!(bench.post(&more).await.status, StatusCode::ACCEPTED);

    let answer = bench.send("DELETE", &format!("/api/tasks/{}?tree=true", id(3)), &[], Body::empty()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
    assert_eq!(shown(1).await["status"], "cancelled");
    assert_eq!(shown(3).await["status"], "cancelled");

    let mut unique = step("u");
    unique["unique"] = json!({ "key": "k" });
    for (wrong, named) in [
        (json!({ "chain": [] }), "a chain has one step or more"),
        (json!({ "chain": [step("a"), 7] }), "a step of a flow is an object"),
        (json!({ "chain": [step("a")], "group": [step("b")] }), "a flow is"),
        (json!({ "chain": [unique, step("a")] }), "nothing can wait for a unique job"),
        (json!({ "kind": "test.echo", "args": { "text": "x" }, "depends_on": [] }), "1 to 1000"),
        (json!({ "kind": "test.echo", "args": { "text": "x" }, "depends_on": ["x"] }), "array of ids"),
        (
            json!({ "kind": "test.echo", "args": { "text": "x" }, "depends_on": [format!("{}.q", windlass_jobs::new_ulid())] }),
            "is not known",
        ),
    ] {
        let answer = bench.post(&wrong).await;
        let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status.is_client_error() && detail.contains(named), "{wrong}: {detail}");
    }
}

/// B37: on every listing pages are bounded, and a cursor is one that this listing gave to this tenant.
#[tokio::test]
async fn b37_made_up_cursors_and_pages_are_refused() {
    let bench = Bench::new();
    let listings = [
        "/api/tasks?queue=default&",
        "/api/queues/default/dead?",
        "/api/queues?",
        "/api/workers?",
        "/api/kinds?",
        "/api/schedules?",
        "/api/keys?",
        "/api/audit?",
        "/api/charts?",
    ];
    for listing in listings.into_iter().filter(|listing| *listing != "/api/charts?") {
        for bad in ["limit=0", "limit=501", "limit=x", "limit=-1", "limit=99999999999999999999", "page=1"] {
            assert_eq!(bench.get(&format!("{listing}{bad}")).await.code(), "query_invalid", "{listing}{bad}");
        }
        for bad in ["0", "-1", "x", "", "18446744073709551616", "%00", &"A".repeat(2000)] {
            let answer = bench.get(&format!("{listing}cursor={bad}")).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "cursor_invalid"), "{listing}{bad}");
        }
    }
    let posted = bench.post(json!(vec![json!({ "kind": "test.echo", "args": { "text": "a" } }); 3])).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED);
    let first = bench.get("/api/tasks?queue=default&limit=1").await.json();
    let next = first["next"].as_str().unwrap();
    let ask = async |path: &str| bench.get(&format!("{path}limit=1&cursor={next}")).await;
    assert_eq!(ask("/api/tasks?queue=default&").await.status, StatusCode::OK);
    for other in ["/api/tasks?queue=other&", "/api/tasks?queue=default&state=success&", "/api/queues/default/dead?"] {
        assert_eq!(ask(other).await.code(), "cursor_invalid", "{other}");
    }
    let mut forged = next.to_owned().into_bytes();
    forged[3] = if forged[3] == b'A' { b'B' } else { b'A' };
    let forged = format!("/api/tasks?queue=default&cursor={}", String::from_utf8(forged).unwrap());
    assert_eq!(bench.get(&forged).await.code(), "cursor_invalid");
    let tenant = bench.key(&["*"], Some("a")).await;
    let path = format!("/api/tasks?queue=default&limit=1&cursor={next}");
    assert_eq!(bench.with_key(&tenant, "GET", &path, None).await.code(), "cursor_invalid");
}

/// Every listing goes on where its page ended.
#[tokio::test]
async fn listings_go_on_where_they_ended() {
    let bench = Bench::new();
    for name in ["c", "a", "b"] {
        bench.key(&["jobs:read"], None).await;
        let body = json!({ "name": name, "plan": "@every 1h", "kind": "test.echo", "args": { "text": "hi" } });
        let headers = [("content-type", "application/json")];
        let made = bench.send("POST", "/api/schedules", &headers, body.to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED);
        let job = json!({ "kind": "test.echo", "args": { "text": "hi" }, "queue": name });
        assert_eq!(bench.post(job).await.status, StatusCode::ACCEPTED);
    }
    for (path, what) in [("/api/schedules", "schedules"), ("/api/keys", "keys"), ("/api/queues", "queues")] {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        for _ in 0..3 {
            let page = bench.get(&format!("{path}?limit=1{cursor}")).await.json();
            assert_eq!(page[what].as_array().unwrap().len(), 1, "{page:#}");
            let entry = &page[what][0];
            names.push(entry.get("id").unwrap_or(&entry["name"]).as_str().unwrap().to_owned());
            cursor = page["next"].as_str().map_or_else(|| "end".to_owned(), |next| format!("&cursor={next}"));
        }
        assert_eq!(cursor, "end", "{path}");
        assert!(names.is_sorted() && names[0] != names[1] && names[1] != names[2], "{names:?}");
    }
}

/// An expiry is an instant or a span, in the future.
#[tokio::test]
async fn a_task_may_expire() {
    let bench = Bench::new();
    let job = |more: serde_json::Value| {
        let mut job = json!({ "kind": "test.echo", "args": { "text": "hi" } });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    let id = bench.post(job(json!({ "expires_in_ms": 60_000 }))).await.json()["task_id"].clone();
    let task = bench.get(&format!("/api/tasks/{}", id.as_str().unwrap())).await.json();
    assert!(task["expires_at"].is_string(), "{task:#}");
    for wrong in [
        json!({ "expires_in_ms": 0 }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "expires_in_ms": 40_000_000_000_u64 }),
    ] {
        assert_eq!(bench.post(job(wrong.clone())).await.code(), "job_invalid", "{wrong}");
    }
}

/// Tasks are found by queue, state, kind and label; what is not known is refused with its name.
#[tokio::test]
async fn tasks_are_searched() {
    let bench = Bench::new();
    let failed = bench.ended(failure()).await;
    let body = json!([{ "kind": "test.echo", "args": { "text": "a" }, "labels": { "team": "a" } },
                       { "kind": "test.echo", "args": { "text": "b" } }]);
    let posted = bench.post(&body).await;
    assert_eq!(posted.status, StatusCode::ACCEPTED, "{}", posted.json());
    let ids = |answer: &serde_json::Value| {
        answer["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    };
    let find = async |query: &str| -> (Vec<String>, serde_json::Value) {
        let answer = bench.get(&format!("/api/tasks?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.json());
        let answer = answer.json();
        assert_eq!(answer["window"], json!({ "entries": 10_000, "beyond": false }));
        (ids(&answer), answer["next"].clone())
    };
    assert_eq!(find("queue=default&state=failure").await.0, [failed.to_string()]);
    assert_eq!(find("queue=default&state=failure&kind=other").await.0, Vec::<String>::new());
    assert_eq!(find("queue=default").await.0.len(), 2);
    let (first, next) = find("queue=default&limit=1").await;
    let (second, end) = find(&format!("queue=default&limit=1&cursor={}", next.as_str().unwrap())).await;
    assert!(first != second && end.is_null(), "{first:?} {second:?} {end}");
    assert_eq!(find("queue=default&label.team=a").await.0, first);
    assert_eq!(find("queue=default&parked=true").await.0, Vec::<String>::new());
    for query in ["", "queue=a:b", "queue=q&state=done", "queue=q&limit=0", "queue=q&team=a"] {
        let answer = bench.get(&format!("/api/tasks?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, "query_invalid"), "{query}");
    }
}
