//! Traces from a request to the file it asked for, as a collector gets them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_testkit::{Certificates, Collector, RecordedSpan, shared_redis};

use crate::harness::{Home, SOON, wait};

/// Enqueues over HTTP; the answer's `traceparent` and the job.
fn post(url: &str, traceparent: Option<&str>, body: &Value) -> (String, Value) {
    let mut request = ureq::post(format!("{url}/api/tasks"));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let mut answer = request.send_json(body).unwrap();
    let told = answer.headers().get("traceparent").map(|value| value.to_str().unwrap().to_owned());
    (told.unwrap_or_default(), answer.body_mut().read_json().unwrap())
}

fn get(url: &str) -> Value {
    ureq::get(url).call().unwrap().body_mut().read_json().unwrap()
}

/// The spans of a trace, once so many of each of these names are there.
fn trace(collector: &Collector, trace_id: &str, names: &[(&str, usize)]) -> Vec<RecordedSpan> {
    let begun = Instant::now();
    loop {
        let mut found = collector.spans();
        found.retain(|span| span.trace_id == trace_id);
        let count = |name: &str| found.iter().filter(|span| span.name == name).count();
        if names.iter().all(|(name, n)| count(name) == *n) {
            found.sort_by_key(|span| span.nanos);
            return found;
        }
        assert!(begun.elapsed() < SOON, "{names:?} are not in {found:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn named<'a>(spans: &'a [RecordedSpan], name: &str) -> Vec<&'a RecordedSpan> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// A figure of a process's metrics.
fn figure(url: &str, name: &str) -> f64 {
    let text = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// One trace from the caller's own span over the request, the queue and the run in a child to the finished
/// PDF.
#[test]
fn one_trace_leads_from_the_request_to_the_finished_pdf() {
    let collector = Collector::start();
    let home = Home::on(shared_redis())
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .with("OTEL_EXPORTER_OTLP_HEADERS", "x-team=print%20shop")
        .with("OTEL_SERVICE_NAME", "press");
    let (_api, url) = home.serve(&["api"]);
    let _worker = home.worker("pdf", &[]);

    let (trace_id, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let job = json!({ "kind": "pdf.calibration", "args": { "paper": "a4" }, "queue": "pdf" });
    let (told, accepted) = post(&url, Some(&format!("00-{trace_id}-{caller}-01")), &job);
    assert!(told.starts_with(&format!("00-{trace_id}-")) && told.ends_with("-01"), "{told}");
    let id = accepted["task_id"].as_str().unwrap().to_owned();
    assert_eq!(home.wait_for(&id, "success")["trace_id"], trace_id);
    assert_eq!(get(&format!("{url}/api/tasks/{id}"))["trace_id"], trace_id);
    let file = ureq::get(format!("{url}/api/tasks/{id}/result")).call().unwrap().body_mut().read_to_vec().unwrap();
    assert!(file.starts_with(b"%PDF"));
    let names = ["POST /api/tasks", "enqueue pdf", "wait pdf", "run pdf.calibration", "inputs", "child", "write"];
    let spans =
        trace(&collector, trace_id, &[names.map(|name| (name, 1)).as_slice(), &[("keep", 1), ("publish", 1)]].concat());
    let one = |name: &str| named(&spans, name)[0].clone();
    let [request, enqueue, waited, run, inputs, child, write] = names.map(one);
    assert_eq!(request.parent_id, caller);
    for (span, parent) in [
        (&enqueue, &request),
        (&waited, &enqueue),
        (&run, &enqueue),
        (&inputs, &run),
        (&child, &run),
        (&one("keep"), &run),
        (&one("publish"), &run),
        (&write, &child),
    ] {
        assert_eq!(span.parent_id, parent.span_id, "{span:#?} below {parent:#?}");
        assert_eq!(span.attributes["service.name"], "press");
    }
    for (span, kind) in [(&request, "SERVER"), (&enqueue, "PRODUCER"), (&run, "CONSUMER"), (&child, "INTERNAL")] {
        assert_eq!(span.kind, format!("SPAN_KIND_{kind}"));
    }
    for (inner, outer) in [(&enqueue, &request), (&child, &run), (&write, &child)] {
        assert!(outer.nanos.0 <= inner.nanos.0 && inner.nanos.1 <= outer.nanos.1, "{inner:#?} within {outer:#?}");
    }
    assert_eq!(
        (run.attributes["messaging.message.id"].as_str(), run.attributes["windlass.outcome"].as_str()),
        (&*id, "success")
    );
    assert_eq!(request.attributes["http.response.status_code"], "202");
    assert_ne!(request.attributes["process.pid"], run.attributes["process.pid"]);
    assert!(collector.heads().contains("x-team: print shop"), "{}", collector.heads());
}

/// A retry is a second run under the same enqueue, the jobs of a flow lie in one trace, and what its caller
/// does not record is carried and recorded by nobody.
#[test]
fn retries_and_flows_lie_in_the_trace_of_their_request() {
    let collector = Collector::start();
    let home = Home::on(shared_redis()).with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url());
    let (_api, url) = home.serve(&["api"]);
    let mut worker = home.worker("probe", &[]);

    // A retry: two runs and two waits under one enqueue, in a trace that begins here.
    let job = json!({ "kind": "probe.fail", "args": { "how": "retry", "times": 1 },
        "backoff": { "type": "fixed", "delay_ms": 100 } });
    let (told, _) = post(&url, None, &job);
    let trace_id = told.split('-').nth(1).unwrap();
    let names = [("run probe.fail", 2), ("wait probe", 2), ("enqueue probe", 1), ("POST /api/tasks", 1)];
    let spans = trace(&collector, trace_id, &names);
    assert_eq!(named(&spans, "POST /api/tasks")[0].parent_id, "");
    let enqueue = named(&spans, "enqueue probe")[0];
    let runs = named(&spans, "run probe.fail");
    let seen: Vec<_> =
        runs.iter().map(|run| (&*run.attributes["windlass.attempt"], &*run.attributes["windlass.outcome"])).collect();
    assert_eq!(seen, [("1", "retry"), ("2", "success")]);
    assert!(runs[0].error.is_some() && runs[1].error.is_none(), "{runs:#?}");
    for span in runs.iter().chain(&named(&spans, "wait probe")) {
        assert_eq!(span.parent_id, enqueue.span_id, "{span:#?}");
    }
    let second = named(&spans, "wait probe")[1];
    assert!(
        second.nanos.1 - second.nanos.0 >= 99_000_000,
        "the wait before the second run is its backoff: {second:#?}"
    );

    // Two members and what follows them.
    let noop = json!({ "kind": "probe.noop", "args": {} });
    let flow = json!({ "group": [noop, noop], "then": { "kind": "probe.parents", "args": {} } });
    let (told, _) = post(&url, None, &flow);
    let names = [("run probe.noop", 2), ("run probe.parents", 1), ("enqueue probe", 1)];
    let spans = trace(&collector, told.split('-').nth(1).unwrap(), &names);
    let enqueue = named(&spans, "enqueue probe")[0];
    assert_eq!(enqueue.attributes["messaging.batch.message_count"], "3");
    for run in spans.iter().filter(|span| span.name.starts_with("run ")) {
        assert_eq!(run.parent_id, enqueue.span_id, "{run:#?}");
    }

    // A trace that its caller does not record is carried, and recorded by nobody.
    let (silent, caller) = ("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7");
    let (told, accepted) = post(&url, Some(&format!("00-{silent}-{caller}-00")), &noop);
    assert!(told.starts_with(&format!("00-{silent}-")) && told.ends_with("-00"), "{told}");
    let id = accepted["task_id"].as_str().unwrap();
    assert_eq!(home.wait_for(id, "success")["trace_id"], silent);
    // The worker sends what it has when it stops.
    worker.signal(rustix::process::Signal::TERM);
    assert!(worker.ended(SOON).success());
    assert!(collector.spans().iter().all(|span| span.trace_id != silent));
}

/// A collector that is away, that never answers, or that refuses, costs no job anything; what is dropped is
/// counted, and it is taken up again.
#[test]
fn a_collector_that_is_away_harms_nothing() {
    let away = Home::embedded().with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let (mut up, url) = away.serve(&["up"]);
    let (_, accepted) = post(&url, None, &json!({ "kind": "probe.noop", "args": {} }));
    away.wait_for(accepted["task_id"].as_str().unwrap(), "success");
    wait(SOON, "it is said that the collector is away", || figure(&url, "windlass_otlp_up") == 0.0);
    wait(SOON, "and logged", || up.log().contains("otlp_failed"));
    let begun = Instant::now();
    up.signal(rustix::process::Signal::TERM);
    assert!(up.ended(SOON).success());
    assert!(begun.elapsed() < Duration::from_secs(5), "the end does not wait for it: {:?}", begun.elapsed());

    let collector = Collector::start();
    collector.answer_with(0);
    let home = Home::embedded()
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .with("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
    let (_up, url) = home.serve(&["up"]);
    // More spans than the queue of 2,048 and the batch under way hold.
    let jobs: Vec<Value> = (0..3_000).map(|_| json!({ "kind": "probe.noop", "args": {} })).collect();
    let (_, accepted) = post(&url, None, &json!(jobs));
    let last = accepted["tasks"][2_999]["task_id"].as_str().unwrap();
    home.wait_for(last, "success");
    wait(SOON, "what finds no room is counted", || {
        figure(&url, "windlass_otlp_spans_dropped_total{why=\"queue_full\"}") > 0.0
    });
    wait(SOON, "a silent collector is said", || figure(&url, "windlass_otlp_up") == 0.0);
    collector.answer_with(200);
    wait(SOON, "it is taken up again", || figure(&url, "windlass_otlp_up") == 1.0);
    wait(SOON, "and what waited is sent", || figure(&url, "windlass_otlp_spans_sent_total") >= 512.0);
    collector.answer_with(400);
    post(&url, None, &json!({ "kind": "probe.noop", "args": {} }));
    wait(SOON, "what it refuses is counted", || {
        figure(&url, "windlass_otlp_spans_dropped_total{why=\"refused\"}") > 0.0
    });

    let wrong = |name: &str, value: &str, told: &str| {
        let on = Home::embedded().with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let ran = on.with(name, value).run(&["up"]);
        assert!(!ran.status.success() && ran.stderr.contains(told), "{ran:?}");
    };
    wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://collector:4318");
    wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf");
    wrong("OTEL_TRACES_SAMPLER", "sometimes", "traceidratio");
    wrong("OTEL_EXPORTER_OTLP_HEADERS", "secret-without-equals", "***");
}

/// A collector behind `https` gets the traces when its authority is the one that the settings name, and nothing
/// otherwise; what is set for traces alone beats what is set for everything.
#[test]
fn traces_go_over_tls_to_a_collector_that_is_trusted() {
    let certificates = Certificates::new();
    let collector = Collector::start_tls(&certificates);
    let on = |authority: &Certificates| {
        Home::embedded()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .with("OTEL_EXPORTER_OTLP_HEADERS", "x-team=everything")
            .with("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")
            .with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", collector.url()))
            .with("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-team=traces")
            .with("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", authority.ca().to_str().unwrap())
    };
    let noop = json!({ "kind": "probe.noop", "args": {} });
    let stranger = Certificates::new();
    let home = on(&stranger);
    let (up, url) = home.serve(&["up"]);
    post(&url, None, &noop);
    wait(SOON, "it is said that the collector is not trusted", || figure(&url, "windlass_otlp_up") == 0.0);
    wait(SOON, "and logged why", || up.log().contains("invalid peer certificate"));
    assert!(collector.spans().is_empty());

    let home = on(&certificates);
    let (_up, url) = home.serve(&["up"]);
    let (told, _) = post(&url, None, &noop);
    trace(&collector, told.split('-').nth(1).unwrap(), &[("POST /api/tasks", 1), ("run probe.noop", 1)]);
    assert!(collector.heads().contains("x-team: traces"), "{}", collector.heads());
}
