//! The HTTP API of the real binary: other services' way in.

use std::io::{BufRead as _, BufReader, Read as _};

use serde_json::{Value, json};
use windlass_testkit::shared_redis;

use crate::harness::{Home, SOON, wait};

/// An agent that answers error statuses instead of failing on them.
pub(crate) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn get(url: &str) -> (u16, Value) {
    let mut answer = agent().get(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

pub(crate) fn post(url: &str, body: &Value) -> (u16, Value) {
    let mut answer = agent().post(url).send_json(body).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

pub(crate) fn delete(url: &str) -> (u16, Value) {
    let mut answer = agent().delete(url).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap_or(Value::Null))
}

fn chart() -> Value {
    json!({
        "symbol": "X", "interval": "1d",
        "candles": { "t": [0, 86_400_000], "o": [1, 2], "h": [3, 4], "l": [1, 1], "c": [2, 3] },
    })
}

/// From POST to the picture, over `windlass up`, embedded and on Redis.
#[test]
fn a_job_goes_from_post_to_its_result() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let (_up, url) = home.serve(&["up"]);
        let (status, task) = post(&format!("{url}/api/tasks"), &json!({ "kind": "chart.render", "args": chart() }));
        assert_eq!(status, 202, "{task:#}");
        let at = format!("{url}{}", task["status_url"].as_str().unwrap());
        wait(SOON, "the chart is drawn", || get(&at).1["status"] == "success");
        let (_, task) = get(&at);
        assert_eq!((&task["progress"], &task["error"]), (&json!(100.0), &json!(null)), "{task:#}");

        let mut answer = agent().get(format!("{at}/result")).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "image/png");
        let etag = answer.headers()["etag"].clone();
        let mut png = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut png).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        let again = agent().get(format!("{at}/result")).header("if-none-match", etag).call().unwrap();
        assert_eq!(again.status(), 304);
    }
}

/// Progress arrives as server-sent events, the end among them.
#[test]
fn progress_streams_to_its_end() {
    let home = Home::on(shared_redis());
    let (_up, url) = home.serve(&["up"]);
    let (_, task) = post(&format!("{url}/api/tasks"), &json!({ "kind": "probe.sleep", "args": { "ms": 1500 } }));
    let at = format!("{url}{}/events", task["status_url"].as_str().unwrap());
    let mut answer = agent().get(at).call().unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let lines = BufReader::new(answer.body_mut().as_reader()).lines().map(Result::unwrap);
    let events: Vec<String> = lines.filter_map(|line| line.strip_prefix("event: ").map(str::to_owned)).collect();
    assert!(events.iter().filter(|e| *e == "progress").count() >= 3, "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("end"));
}

/// What is wrong is said as problem JSON with a stable code, and nothing is queued.
#[test]
fn bad_input_is_answered_and_not_queued() {
    let home = Home::embedded();
    let (_api, url) = home.serve(&["api"]);
    let tasks = format!("{url}/api/tasks");
    let check = |body: Value, status: u16, code: &str| {
        let (got, problem) = post(&tasks, &body);
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{problem:#}");
        assert_eq!(problem["status"], status);
    };
    check(json!({ "kind": "no.such_kind", "args": {} }), 422, "unknown_kind");
    check(json!({ "kind": "probe.noop", "args": {}, "state": "running" }), 422, "unknown_field");
    check(json!({ "kind": "probe.sleep", "args": { "ms": "soon" } }), 422, "args_invalid");
    let mut nan = chart();
    nan["candles"]["c"][1] = json!("NaN");
    check(json!({ "kind": "chart.render", "args": nan }), 422, "args_invalid");
    let digest = format!("sha256:{}", "0".repeat(64));
    check(json!({ "kind": "pdf.card_sheet", "args": { "cards": [{ "front": digest }] } }), 422, "blob_missing");
    assert!(refusal_of_length(&url, 5_000_000).starts_with("HTTP/1.1 413"));
    assert_eq!(get(&format!("{url}/api/queues")).1.pointer("/queues"), Some(&json!([])));
}

/// What is answered to a body announced too long, before any of it is sent.
fn refusal_of_length(url: &str, bytes: u32) -> String {
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let head = format!(
        "POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n"
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
