//! What can be known of a job and of a process from outside.

use windlass_testkit::shared_redis;

use crate::faults::Direct;
use crate::harness::{Home, SOON, wait};

/// Every attempt of a job is told over HTTP, on the command line and on its page; a job that succeeds at
/// once leaves nothing behind for it.
#[test]
fn attempts_are_told_everywhere() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let (_up, url) = home.serve(&["up"]);
        let id = home.enqueue("probe.fail", r#"{"how":"retry","times":2}"#, &[]);
        home.wait_for(&id, "success");
        let task: serde_json::Value =
            ureq::get(format!("{url}/api/tasks/{id}")).call().unwrap().body_mut().read_json().unwrap();
        let attempts = task["attempts"].as_array().unwrap();
        let told: Vec<_> = attempts.iter().map(|a| (a["attempt"].as_u64(), a["outcome"].as_str().unwrap())).collect();
        assert_eq!(told, [(Some(1), "retried"), (Some(2), "retried"), (Some(3), "success")], "{task:#}");
        for attempt in attempts {
            assert!(attempt["worker"].is_string() && attempt["duration_ms"].is_u64(), "{task:#}");
        }
        assert_eq!(attempts[1]["error"], task["error"], "{task:#}");
        let shown = home.run(&["task", &id]);
        for part in ["attempt 1 retried after", "attempt 3 success after"] {
            assert!(shown.stdout.contains(part), "{}", shown.stdout);
        }
        let page = ureq::get(format!("{url}/tasks/{id}")).call().unwrap().body_mut().read_to_string().unwrap();
        assert!(page.contains("Attempts") && page.matches("retried").count() == 2, "{page}");
    }
    let home = Home::on(shared_redis());
    let _worker = home.worker("probe", &[]);
    let id = home.enqueue("probe.noop", "{}", &[]);
    let task = home.wait_for(&id, "success");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task:#}");
    let ulid = id.split('.').next().unwrap().to_owned();
    let kept: Vec<String> =
        Direct::to(&home, "probe").census().into_iter().filter(|key| key.contains(&format!("e:{ulid}"))).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

fn json_lines(log: &str) -> Vec<serde_json::Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The filter of the log is changed over HTTP and by SIGHUP; JSON lines of a run name its job.
#[test]
fn the_log_is_changed_while_a_process_runs() {
    let home = Home::embedded().with("WINDLASS_LOG_FORMAT", "json");
    home.file(".env", "WINDLASS_LOG=warn");
    let (up, url) = home.serve(&["up"]);
    let filter = || -> String {
        let seen: serde_json::Value =
            ureq::get(format!("{url}/api/log")).call().unwrap().body_mut().read_json().unwrap();
        seen["filter"].as_str().unwrap().to_owned()
    };
    let put = |filter: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent
            .put(format!("{url}/api/log"))
            .send_json(serde_json::json!({ "filter": filter }))
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(filter(), "warn");
    let quiet = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&quiet, "success");
    assert_eq!(put("windlass_worker=loud"), 422);
    assert_eq!(put(""), 422);
    assert_eq!(filter(), "warn", "a wrong one changes nothing");
    assert_eq!(put("info,windlass_worker=debug"), 200);
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
    let of_run = |id: &str| {
        let lines = json_lines(&up.log());
        lines.into_iter().find(|line| line["message"] == "run ended" && line["span"]["job"] == id)
    };
    wait(SOON, "the run is in the log", || of_run(&id).is_some());
    let line = of_run(&id).unwrap();
    assert_eq!(
        (line["span"]["kind"].as_str(), line["span"]["run"].as_u64()),
        (Some("probe.noop"), Some(1)),
        "{line:#}"
    );
    assert!(of_run(&quiet).is_none(), "{}", up.log());
    home.file(".env", "WINDLASS_LOG=error");
    up.signal(rustix::process::Signal::HUP);
    wait(SOON, "the settings are read again", || filter() == "error");
    home.file(".env", "WINDLASS_LOG=windlass=loud");
    up.signal(rustix::process::Signal::HUP);
    assert_eq!(put("warn"), 200);
    home.file(".env", "WINDLASS_LOG=info");
    up.signal(rustix::process::Signal::HUP);
    wait(SOON, "a process outlives settings that are wrong", || filter() == "info");
}

/// The stable names of what happens with Redis, and what is measured of it and of the API.
#[test]
fn redis_events_have_names_and_figures() {
    let server = windlass_testkit::RedisServer::start();
    let home = Home::on(&server).with("WINDLASS_LOG_FORMAT", "json").with("REDIS_SOCKET_CONNECT_TIMEOUT", "1");
    let (api, url) = home.serve(&["api"]);
    let events = |name: &str| json_lines(&api.log()).iter().filter(|line| line["event"] == name).count();
    let figure = |name: &str| -> Option<f64> {
        let text = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?.to_owned();
        line.rsplit(' ').next()?.parse().ok()
    };
    for _ in 0..3 {
        ureq::get(format!("{url}/api/queues")).call().unwrap();
    }
    let route = r#"{method="GET",route="/api/queues""#;
    assert_eq!(figure(&format!("windlass_http_requests_total{route},status=\"200\"}}")), Some(3.0));
    assert_eq!(figure(&format!("windlass_http_request_seconds_bucket{route},le=\"+Inf\"}}")), Some(3.0));
    assert_eq!(figure("windlass_redis_up{server=\"queue\"}"), Some(1.0));
    assert!(figure("windlass_redis_memory_bytes{server=\"queue\"}") > Some(100_000.0));
    assert!(figure("windlass_redis_connect_seconds_count{server=\"queue\"}") >= Some(1.0));
    assert!(figure("windlass_redis_connect_seconds_sum{server=\"queue\"}") > Some(0.0));
    wait(SOON, "it said that it is connected", || events("redis_connected") > 0);
    let before = events("redis_connected");
    server.kill();
    wait(SOON, "it is away", || figure("windlass_redis_up{server=\"queue\"}") == Some(0.0));
    wait(SOON, "and that is said", || events("redis_connection_failed") > 0);
    assert!(figure("windlass_redis_connect_failures_total{server=\"queue\"}") > Some(0.0));
    server.restart();
    wait(SOON, "it is back", || figure("windlass_redis_up{server=\"queue\"}") == Some(1.0));
    wait(SOON, "and that is said", || events("redis_connected") > before);
}

/// A worker without an API tells on its probes what it runs, its children, its cache, its Redis, and the
/// market where it watches that; and nothing that is not in docs/metrics.md.
#[test]
fn a_worker_alone_tells_what_it_measures() {
    let home = Home::on(shared_redis());
    let probes = |queues: &str| {
        let mut worker = home.start(&["worker", "--queues", queues, "--json"]);
        let at = worker.first_line()["probes"].as_str().unwrap().to_owned();
        (worker, format!("http://{at}/metrics"))
    };
    let (_worker, url) = probes("probe,trading");
    let scraped = |url: &str| ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    for args in [r#"{"ms":1}"#, r#"{"ms":1}"#] {
        let id = home.enqueue("probe.cacheable", args, &[]);
        home.wait_for(&id, "success");
    }
    let crashed = home.enqueue("probe.crash", r#"{"how":"abort"}"#, &["--max-attempts", "1"]);
    home.wait_for(&crashed, "failure");
    let text = scraped(&url);
    let figure = |labels: &str| -> f64 {
        let (name, labels) = labels.split_once('{').unwrap();
        let fits =
            |line: &&str| line.starts_with(&format!("{name}{{")) && labels.split(',').all(|label| line.contains(label));
        let line = text.lines().find(fits).unwrap_or_else(|| panic!("{name} {labels}\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(figure(r#"windlass_worker_run_seconds_count{kind="probe.cacheable""#), 2.0);
    assert_eq!(figure(r#"windlass_worker_run_seconds_bucket{kind="probe.crash",le="+Inf""#), 1.0);
    assert_eq!(figure(r#"windlass_worker_cache_total{outcome="miss""#), 1.0);
    assert_eq!(figure(r#"windlass_worker_cache_total{outcome="hit""#), 1.0);
    assert_eq!(figure(r#"windlass_worker_children_ended_total{why="spoilt""#), 1.0);
    assert_eq!(figure(r#"windlass_worker_children{state="busy""#), 0.0);
    assert!(figure(r#"windlass_worker_children_started_total{worker="#) >= 1.0);
    assert_eq!(figure(r#"windlass_redis_up{server="queue""#), 1.0);
    assert!(figure(r#"windlass_cache_entries{of="results""#) >= 1.0);
    assert!(text.contains("\nwindlass_market_passes_total ") && text.contains("\nwindlass_images_count "), "{text}");
    let documented = include_str!("../../docs/metrics.md");
    for line in text.lines().filter(|line| line.starts_with("windlass_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/metrics.md");
    }
    let (_other, url) = probes("pdf");
    assert!(!scraped(&url).contains("windlass_market_"), "it watches no positions");
}
