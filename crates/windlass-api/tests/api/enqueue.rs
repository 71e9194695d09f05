//! `POST /api/tasks`.

use axum::http::StatusCode;
use serde_json::{Value, json};
use windlass_broker::Inspect as _;
use windlass_jobs::{Backoff, JobId, Priority, State, Timestamp};
use windlass_store::Digest;

use crate::support::Bench;

fn echo(more: Value) -> Value {
    let mut job = json!({ "kind": "test.echo", "args": { "text": "hi" } });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

/// Sends a job that must be refused, with its code and the first violation's path.
async fn refused(bench: &Bench, body: Value, code: &str, path: &str) {
    let answer = bench.post(&body).await;
    assert_eq!(answer.code(), code, "{body}");
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.violations()[0].0, path, "{body}");
    assert_eq!(bench.enqueued().await, 0, "nothing is queued on a refusal");
}

#[tokio::test]
async fn one_job_is_accepted_with_its_place() {
    let bench = Bench::new();
    let answer = bench.post(echo(json!({}))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = answer.json();
    let id = body["task_id"].as_str().unwrap();
    let url = format!("/api/tasks/{id}");
    assert_eq!(body, json!({ "task_id": id, "status": "pending", "status_url": url }));
    assert_eq!(answer.header("location"), url);
    assert_eq!(bench.get(&url).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_option_reaches_the_job_and_args_stay_as_written() {
    let bench = Bench::new();
    let body = r#"{ "kind": "test.echo", "args": { "text" : "\u0068i" }, "queue": "q-1", "priority": "high",
        "delay_ms": 60000, "max_attempts": 7, "timeout_ms": 5000, "labels": {"tenant": "a"},
        "tenant": "acme", "ordering_key": "o", "concurrency_key": "c", "rate_key": "r",
        "backoff": {"type": "fixed", "delay_ms": 10} }"#;
    let answer = bench.post(body).await;
    assert_eq!(answer.json()["status"], "scheduled");
    let id: JobId = answer.json()["task_id"].as_str().unwrap().parse().unwrap();
    let record = bench.broker.get(&id).await.unwrap().unwrap();
    assert_eq!(record.args, r#"{ "text" : "\u0068i" }"#);
    assert_eq!((record.id.queue.as_str(), record.state, record.max_attempts), ("q-1", State::Scheduled, 7));
    assert_eq!(record.options.priority, Priority::High);
    assert_eq!(record.options.backoff, Some(Backoff::Fixed { delay_ms: 10 }));
    assert_eq!(record.options.timeout, Some(std::time::Duration::from_secs(5)));
    assert_eq!(record.options.labels["tenant"], "a");
    let keys =
        [record.options.tenant, record.options.ordering_key, record.options.concurrency_key, record.options.rate_key];
    assert_eq!(keys.map(Option::unwrap), ["acme", "o", "c", "r"]);
    assert_eq!(record.run_at, Some(record.created_at.plus(std::time::Duration::from_secs(60))));
}

/// Whoever asks for more than `fast` is told what was reached, each for itself.
#[tokio::test]
async fn a_durability_is_answered_with_what_was_reached() {
    let bench = Bench::new();
    let asks = |word: Value| echo(json!({ "durability": word }));
    let batch = bench.post(json!([asks(json!("replicated")), asks(json!("fast")), asks(Value::Null)])).await.json();
    let found: Vec<Option<&str>> = (0..3).map(|i| batch["tasks"][i]["durability"].as_str()).collect();
    assert_eq!(found, [Some("fast"), None, None], "the model has no replicas");
    refused(&Bench::new(), asks(json!("forever")), "job_invalid", "/durability").await;
}

/// A second job with a unique key is answered with the first.
#[tokio::test]
async fn a_unique_clash_names_the_job_that_is_there() {
    let bench = Bench::new();
    let first = bench.post(echo(json!({ "unique": { "key": "u" }, "delay_ms": 60000 }))).await.json();
    assert_eq!((first["status"].as_str(), first.get("unique")), (Some("scheduled"), None));
    let second = bench.post(echo(json!({ "unique": { "key": "u" } }))).await;
    assert_eq!(second.status, StatusCode::ACCEPTED);
    let mut expected = first.clone();
    expected["unique"] = "kept".into();
    assert_eq!(second.json(), expected);
    let more = json!([
        echo(json!({ "unique": { "key": "other" } })),
        echo(
            json!({ "unique": { "key": "u", "on_clash": "replace", "until": "ttl", "ttl_ms": 5 }, "max_attempts": 9 })
        ),
    ]);
    let batch = bench.post(&more).await.json();
    expected["unique"] = "replaced".into();
    assert_eq!((&batch["tasks"][1], batch["tasks"][0].get("unique")), (&expected, None));
    let id: JobId = first["task_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(bench.broker.get(&id).await.unwrap().unwrap().max_attempts, 9);
    let bench = Bench::new();
    refused(&bench, echo(json!({ "unique": { "key": "" } })), "job_invalid", "/unique/key").await;
    refused(&bench, echo(json!({ "unique": { "key": "k", "ttl": 5 } })), "job_invalid", "/unique").await;
    refused(&bench, echo(json!({ "unique": { "key": "k", "ttl_ms": 0 } })), "job_invalid", "/unique/ttl_ms").await;
}

/// B04
#[tokio::test]
async fn unknown_and_system_fields_are_named() {
    let bench = Bench::new();
    for field in ["status", "attempts", "locked_by", "prio", "worker", "a/b~c"] {
        let path = format!("/{}", field.replace('~', "~0").replace('/', "~1"));
        refused(&bench, echo(json!({ field: 1 })), "unknown_field", &path).await;
    }
    let inside = json!({ "kind": "test.echo", "args": { "text": "hi", "status": "x" } });
    refused(&bench, inside, "args_invalid", "/args").await;
}

/// B10
#[tokio::test]
async fn names_outside_their_grammar_are_refused() {
    let bench = Bench::new();
    let long = "q".repeat(1_000_000);
    for queue in ["", "a:b", "*", "?", "[", "{q}", "a b", "a\n", "a\0", &long, "😀", "\u{202e}q", "..", "UPPER"] {
        refused(&bench, echo(json!({ "queue": queue })), "job_invalid", "/queue").await;
    }
    refused(&bench, echo(json!({ "labels": { "a:b": "x" } })), "job_invalid", "/labels").await;
    let answer = bench.post(json!({ "kind": "test.echo", "args": { "text": "hi", &long: 1 } })).await;
    assert_eq!(answer.code(), "args_invalid");
    assert!(answer.body.len() < 2_000, "what was sent is not sent back whole");
}

/// B13
#[tokio::test]
async fn times_are_checked() {
    let bench = Bench::new();
    for run_at in ["2030-01-01T00:00:00", "10000-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "tomorrow", ""] {
        refused(&bench, echo(json!({ "run_at": run_at })), "job_invalid", "/run_at").await;
    }
    refused(&bench, echo(json!({ "run_at": 5 })), "job_invalid", "/run_at").await;
    for delay in [json!(-1), json!(u64::MAX), json!(1.5), json!("5"), json!(31_622_400_001_u64)] {
        refused(&bench, echo(json!({ "delay_ms": delay })), "job_invalid", "/delay_ms").await;
    }
    let both = json!({ "run_at": Timestamp::now(), "delay_ms": 1 });
    refused(&bench, echo(both), "job_invalid", "/delay_ms").await;
    let past = bench.post(echo(json!({ "run_at": "2001-01-01T00:00:00+01:00" }))).await;
    assert_eq!(past.json()["status"], "pending", "past means now");
    assert_eq!(bench.post(echo(json!({ "delay_ms": 0, "queue": null }))).await.json()["status"], "pending");
}

/// B15
#[tokio::test]
async fn numbers_out_of_range_are_refused() {
    let bench = Bench::new();
    let too_long = u64::from(u32::MAX) + 1;
    for value in [json!(0), json!(-1), json!(too_long), json!(1001), json!("3"), json!(true)] {
        refused(&bench, echo(json!({ "max_attempts": value })), "job_invalid", "/max_attempts").await;
    }
    for value in [json!(0), json!(-1), json!(too_long), json!(86_400_001), json!([])] {
        refused(&bench, echo(json!({ "timeout_ms": value })), "job_invalid", "/timeout_ms").await;
    }
    for value in [json!(0), json!(-1), json!("urgent"), json!("High")] {
        refused(&bench, echo(json!({ "priority": value })), "job_invalid", "/priority").await;
    }
    for value in [json!("fix:1"), json!({ "type": "fixed" }), json!({ "type": "list", "delays_ms": [] })] {
        refused(&bench, echo(json!({ "backoff": value })), "job_invalid", "/backoff").await;
    }
}

#[tokio::test]
async fn everything_wrong_is_told_at_once() {
    let bench = Bench::new();
    let answer = bench
        .post(json!({ "kind": "test.echo", "args": { "text": "" }, "max_attempts": 0, "queue": ":", "extra": 1 }))
        .await;
    assert_eq!(answer.code(), "unknown_field", "the code is that of the first");
    let paths: Vec<String> = answer.violations().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/extra", "/queue", "/max_attempts", "/args/text"]);
    assert_eq!(answer.json()["violations_total"], 4);
    refused(&bench, json!({ "args": {} }), "job_invalid", "/kind").await;
    refused(&bench, json!({ "kind": null, "args": {} }), "job_invalid", "/kind").await;
    refused(&bench, json!({ "kind": "test.echo" }), "job_invalid", "/args").await;
}

/// B32
#[tokio::test]
async fn an_unknown_kind_is_refused_without_naming_others() {
    let bench = Bench::new();
    for kind in ["nope", "windlass.canary", "../x", "No Kind", &"k".repeat(100_000)] {
        let answer = bench.post(json!({ "kind": kind, "args": {} })).await;
        assert_eq!(answer.code(), "unknown_kind");
        assert_eq!(answer.violations(), [("/kind".to_owned(), "unknown_kind".to_owned())]);
        assert!(!String::from_utf8_lossy(&answer.body).contains("test."), "{}", answer.json());
    }
    assert_eq!(bench.enqueued().await, 0);
}

/// B18: the kind's own check decides at the door, from the facts in the args.
#[tokio::test]
async fn args_are_checked_by_their_kind() {
    let bench = Bench::new();
    for width in [0, 60_000, 1_u64 << 31] {
        let answer = bench.post(json!({ "kind": "test.picture", "args": { "blob": "x", "width": width } })).await;
        assert_eq!(answer.code(), "args_invalid");
        assert_eq!(answer.violations(), [("/args/width".to_owned(), "image_too_large".to_owned())]);
    }
}

#[tokio::test]
async fn a_job_whose_blob_is_not_stored_is_refused_until_it_is() {
    let bench = Bench::new();
    let digest = Digest::of(b"picture");
    let job = json!({ "kind": "old_picture", "args": { "blob": digest.hex(), "width": 10 } });
    let answer = bench.post(&job).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "blob_missing"));
    assert!(answer.json()["detail"].as_str().unwrap().contains(&digest.to_string()), "{}", answer.json());
    let never = json!({ "kind": "test.picture", "args": { "blob": "../../etc/passwd", "width": 10 } });
    assert_eq!(bench.post(&never).await.code(), "blob_missing");
    assert_eq!(bench.enqueued().await, 0);

    bench.api.services.artifacts.put(b"picture".as_slice().into()).await.unwrap();
    let answer = bench.post(&job).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(answer.json()["task_id"].as_str().unwrap().ends_with(".pictures"), "the kind's own queue");
}

/// B16
#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let bench = Bench::new();
    let good = echo(json!({}));
    let batch = json!([good, echo(json!({ "queue": "other" })), good]);
    let answer = bench.post(&batch).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let tasks = answer.json()["tasks"].as_array().unwrap().clone();
    let queues: Vec<&str> = tasks.iter().map(|t| t["task_id"].as_str().unwrap().split_once('.').unwrap().1).collect();
    assert_eq!(queues, ["default", "other", "default"], "in the caller's order");
    assert_eq!(bench.enqueued().await, 3);

    let bad = json!([good, { "kind": "test.echo", "args": { "text": "" } }, good, { "kind": "nope", "args": 1 }, 7]);
    let answer = bench.post(&bad).await;
    assert_eq!(answer.code(), "args_invalid");
    assert_eq!(answer.json()["indexes"], json!([1, 3, 4]));
    assert_eq!(answer.json()["violations"][0]["index"], 1);
    assert_eq!(answer.json()["violations"][0]["path"], "/args/text");
    let digest = Digest::of(b"?").hex();
    let lacks = json!([good, { "kind": "test.picture", "args": { "blob": digest, "width": 1 } }]);
    let answer = bench.post(&lacks).await;
    assert_eq!((answer.code().as_str(), &answer.json()["indexes"]), ("blob_missing", &json!([1])));

    let many = |n: usize| format!("[{}]", vec![good.to_string(); n].join(","));
    let answer = bench.post(many(10_001)).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large"));
    assert_eq!(bench.post("[]").await.code(), "job_invalid");
    assert_eq!(bench.enqueued().await, 3);
    assert_eq!(bench.post(many(10_000)).await.json()["tasks"].as_array().unwrap().len(), 10_000);
    assert_eq!(bench.enqueued().await, 10_003);
}

/// B16: a long list of faults is cut, and counted whole.
#[tokio::test]
async fn a_batch_of_bad_jobs_gets_a_bounded_answer() {
    let bench = Bench::new();
    let bad = json!({ "kind": "test.echo", "args": { "text": "" } }).to_string();
    let answer = bench.post(format!("[{}]", vec![bad; 5_000].join(","))).await;
    assert_eq!(answer.code(), "args_invalid");
    let body = answer.json();
    assert_eq!(body["violations_total"], 5_000);
    assert_eq!(
        (body["violations"].as_array().unwrap().len(), body["indexes"].as_array().unwrap().len()),
        (1_000, 5_000)
    );
}

/// B07
#[tokio::test]
async fn ambiguous_json_is_refused() {
    let bench = Bench::new();
    let nested = format!(r#"{{"kind":"test.echo","args":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    let keys: Vec<String> = (0..300_000).map(|i| format!("\"{i}\":0")).collect();
    let keys = format!("{{{}}}", keys.join(","));
    for body in [
        r#"{"kind":"test.echo","kind":"test.echo","args":{"text":"hi"}}"#,
        r#"{"kind":"test.echo","args":{"text":"hi","text":"ho"}}"#,
        r#"{"kind":"test.echo","args":{"text":"\ud800"}}"#,
        r#"{"kind":"test.echo","args":NaN}"#,
        r#"{"kind":"test.echo","args":1e999}"#,
        r#"{"kind":"test.echo","args":9223372036854775808}"#,
        r#"{"kind":"test.echo","args":{"text":"hi"}} x"#,
        "\u{feff}{}",
        "",
        "\u{80}\u{04}\u{95}",
        &nested,
        &keys,
    ] {
        let answer = bench.post(body).await;
        let start: String = body.chars().take(60).collect();
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "json_invalid"), "{start}");
    }
    let not_utf8 = b"{\"kind\":\"test.echo\",\"args\":\"\xff\"}".to_vec();
    let answer = bench.send("POST", "/api/tasks", &[("content-type", "application/json")], not_utf8).await;
    assert_eq!(answer.code(), "json_invalid");
    for body in ["1", "\"x\"", "null"] {
        assert_eq!(bench.post(body).await.code(), "job_invalid");
    }
    assert_eq!(bench.enqueued().await, 0);
}

/// B34: other wire formats in JSON's name are not JSON; none has a type tag that selects code.
#[tokio::test]
async fn b34_pickle_and_its_kin_are_not_json() {
    let bench = Bench::new();
    let pickle =
        b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
            .to_vec();
    let old_pickle = b"cos\nsystem\n(S'id'\ntR.".to_vec();
    let message_pack = b"\x82\xa4kind\xa9test.echo\xa4args\x81\xa4text\xa2hi".to_vec();
    let bincode = b"\x09\0\0\0\0\0\0\0test.echo".to_vec();
    let yaml = b"!!python/object/apply:os.system ['id']".to_vec();
    for body in [pickle, old_pickle, message_pack, bincode, yaml] {
        let answer = bench.send("POST", "/api/tasks", &[("content-type", "application/json")], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "json_invalid"));
    }
    for tagged in ["py/object", "$type", "@class", "__reduce__"] {
        let mut job = echo(json!({}));
        job[tagged] = json!("os.system");
        assert_eq!(bench.post(job).await.code(), "unknown_field", "{tagged}");
    }
    assert_eq!(bench.enqueued().await, 0);
}

/// What is read as a type is an object, never a list of its members; and no kind is no kind.
#[tokio::test]
async fn lists_are_no_objects_and_no_name_is_no_kind() {
    let bench = Bench::new();
    for more in [json!({ "unique": ["k"] }), json!({ "backoff": ["fixed", 5] }), json!({ "backoff": [] })] {
        assert_eq!(bench.post(echo(more.clone())).await.code(), "job_invalid", "{more}");
    }
    assert_eq!(bench.post(json!({ "kind": "", "args": {} })).await.code(), "unknown_kind");
    let headers = [("content-type", "application/json")];
    for (method, path, body) in [
        ("PUT", "/api/cache/general/k", json!([1, 5])),
        ("POST", "/api/sessions", json!([null, null])),
        ("POST", "/api/locks/a", json!([])),
        ("POST", "/api/ratelimits/a", json!([5])),
        ("POST", "/api/keys", json!(["a", ["jobs:read"]])),
        ("POST", "/api/keys", json!({ "name": "a", "scopes": ["jobs:read"], "rate": [5, 1000] })),
    ] {
        assert_eq!(bench.send(method, path, &headers, body.to_string()).await.code(), "body_invalid", "{path}");
    }
    let limits = json!({ "limits": [null, null] }).to_string();
    assert_eq!(bench.send("PUT", "/api/queues/default/limits", &headers, limits).await.code(), "job_invalid");
    assert_eq!(bench.enqueued().await, 0);
}

/// The document tells of the members that are read, and of no other.
#[tokio::test]
async fn the_document_has_the_members_of_a_job() {
    let document = Bench::new().get("/api/openapi.json").await.json();
    let schema = &document["paths"]["/api/tasks"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let members = schema["oneOf"][0]["properties"].as_object().unwrap();
    let bench = Bench::new();
    let mut job = json!({ "kind": "test.echo", "args": { "text": "hi" } });
    for name in members.keys().filter(|name| !["kind", "args"].contains(&name.as_str())) {
        job[name] = Value::Null;
    }
    assert_eq!(bench.post(&job).await.status, StatusCode::ACCEPTED, "every one is known");
    assert_eq!(members.len(), 20, "a member that is read stands in the document, too");
}

/// B31: what would be code elsewhere is text here, on the way in and out.
#[tokio::test]
async fn b31_templates_formats_and_sql_are_text() {
    let bench = Bench::new();
    let texts = [
        "{{7*7}}",
        "${7*7}",
        "%s%n%x",
        "'; DROP TABLE job; --",
        "redis.call('FLUSHALL')",
        "return KEYS[1]",
        "$(id)",
        "`id`",
        "a\"b",
    ];
    for text in texts {
        let more = json!({ "labels": { "l": text }, "unique": { "key": text }, "ordering_key": text });
        let answer = bench.post(echo(more)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{text}: {}", answer.json());
        let task = bench.get(answer.json()["status_url"].as_str().unwrap()).await.json();
        assert_eq!(task["labels"]["l"], text);
        let body = json!({ "value": text });
        let path =
            format!("/api/cache/general/k?user={}", text.bytes().map(|b| format!("%{b:02X}")).collect::<String>());
        let headers = [("content-type", "application/json")];
        assert_eq!(bench.send("PUT", &path, &headers, body.to_string()).await.status, StatusCode::OK);
        assert_eq!(bench.get(&path).await.json()["value"], text);
    }
}

/// B26, B27: no job names an address that anybody would call.
#[tokio::test]
async fn b27_a_job_has_no_webhook() {
    let bench = Bench::new();
    for name in ["webhook", "callback_url", "on_success", "url"] {
        let answer = bench.post(echo(json!({ name: "http://169.254.169.254/latest/meta-data/" }))).await;
        assert_eq!(answer.code(), "unknown_field", "{name}");
    }
}

/// B12: the same key and body is done once; another body is refused.
#[tokio::test]
async fn b12_a_request_that_is_sent_twice_is_done_once() {
    let bench = Bench::new();
    let send = async |key: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        bench.send("POST", "/api/tasks", &headers, body.to_owned()).await
    };
    let one = r#"{"kind":"test.echo","args":{"text":"hi"}}"#;
    let first = send("k1", one).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    let id = first.json()["task_id"].clone();
    for same in [one, r#"{ "args": {"text": "hi"}, "kind": "test.echo" }"#] {
        let again = send("k1", same).await;
        assert_eq!((again.status, &again.json()["task_id"]), (StatusCode::OK, &id));
    }
    let other = send("k1", r#"{"kind":"test.echo","args":{"text":"ho"}}"#).await;
    assert_eq!((other.status, other.code().as_str()), (StatusCode::CONFLICT, "idempotency_conflict"));
    assert_eq!(bench.enqueued().await, 1);
    assert_ne!(send("k2", one).await.json()["task_id"], id);
    let batch = format!("[{one},{one}]");
    let (all, again) = (send("k3", &batch).await.json(), send("k3", &batch).await);
    let ids = |body: &Value| body["tasks"].as_array().unwrap().iter().map(|t| t["task_id"].clone()).collect::<Vec<_>>();
    assert_eq!((again.status, ids(&again.json())), (StatusCode::OK, ids(&all)));
    assert_eq!(bench.enqueued().await, 4);
    for bad in ["", "a b", "é", &"k".repeat(256)] {
        assert_eq!(send(bad, one).await.code(), "idempotency_key_invalid", "{bad:?}");
    }
    let wrong = send("k4", r#"{"kind":"test.echo","args":{}}"#).await;
    assert_eq!(wrong.code(), "args_invalid", "what is refused does not use the key up");
    assert_eq!(send("k4", one).await.status, StatusCode::ACCEPTED);
}

/// B12: a request that broke off is taken up with the ids it had; many at once are one.
#[tokio::test]
async fn b12_what_was_begun_is_taken_up_and_what_is_sent_at_once_is_one() {
    let bench = Bench::new();
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let body = r#"{"kind":"test.echo","args":{"text":"hi"}}"#;
    bench.broker.full.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(bench.send("POST", "/api/tasks", &headers, body).await.code(), "store_full");
    bench.broker.full.store(false, std::sync::atomic::Ordering::SeqCst);
    let tries = (0..20).map(|_| bench.send("POST", "/api/tasks", &headers, body));
    let answers = futures_util::future::join_all(tries).await;
    let first = answers[0].json()["task_id"].clone();
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK && answer.json()["task_id"] == first));
    assert_eq!(bench.enqueued().await, 1);
    // Keys of different callers are different.
    let (a, b) = (bench.key(&["jobs:*"], None).await, bench.key(&["jobs:*"], None).await);
    for key in [&a, &b] {
        let bearer = format!("Bearer {key}");
        let headers = [headers[0], headers[1], ("authorization", bearer.as_str())];
        assert_eq!(bench.send("POST", "/api/tasks", &headers, body).await.status, StatusCode::ACCEPTED);
    }
}

fn published(name: &str, schema: Option<Value>) -> windlass_jobs::catalogue::KindInfo {
    windlass_jobs::catalogue::KindInfo {
        name: name.into(),
        version: 1,
        aliases: vec!["old_greet".into()],
        queue: "greetings".into(),
        schema,
        max_attempts: 3,
        timeout_ms: 1_000,
        isolated: false,
        about: "greets".into(),
        seen_at: windlass_jobs::Timestamp(0),
    }
}

/// B32, B33: a kind of another program is taken when its workers ever published it, also when they
/// are gone; its args are held against its schema, and everything wrong with them is told.
#[tokio::test]
async fn published_kinds_are_checked_at_the_door() {
    use windlass_broker::Leases as _;
    let bench = Bench::new();
    let post = async |kind: &str, args: Value| bench.post(json!({ "kind": kind, "args": args })).await;
    assert_eq!(post("other.greet", json!({})).await.code(), "unknown_kind", "never seen");
    let schema = json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": { "name": { "type": "string" }, "times": { "type": "integer", "maximum": 3 } },
    });
    bench.broker.publish(&[published("other.greet", Some(schema))]).await.unwrap();
    // What was asked a moment ago is not asked again at once.
    windlass_testkit::wait_until(std::time::Duration::from_secs(5), "the door hears of it", async || {
        post("other.greet", json!({ "name": "you" })).await.status == StatusCode::ACCEPTED
    })
    .await;
    let accepted = post("old_greet", json!({ "name": "you", "times": 3 })).await.json();
    assert!(accepted["task_id"].as_str().unwrap().ends_with(".greetings"), "{accepted}");
    let answer = post("other.greet", json!({ "name": 1, "times": 4, "more": true })).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "args_invalid"));
    let body = answer.json();
    let mut found: Vec<_> = body["violations"].as_array().unwrap().iter().map(|v| v["path"].clone()).collect();
    found.sort_by_key(Value::to_string);
    assert_eq!(found, [json!("/args"), json!("/args/name"), json!("/args/times")]);
    let kinds = bench.get("/api/kinds").await.json();
    assert_eq!((&kinds["kinds"][0]["name"], &kinds["kinds"][0]["workers"]), (&json!("other.greet"), &json!(0)));
}

/// Whether a kind is known cannot be said while the catalogue does not answer.
#[tokio::test]
async fn an_unknown_kind_while_the_queue_is_away_is_no_verdict() {
    let bench = Bench::new();
    bench.broker.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = bench.post(json!({ "kind": "other.greet", "args": {} })).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"));
}
