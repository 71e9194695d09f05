//! The dashboard in a real browser. With `WINDLASS_SCREENSHOTS=DIR` the pages are also kept as
//! pictures there.

use serde_json::json;
use windlass_testkit::{Browser, RedisServer};

use crate::harness::{Home, SOON, wait};

/// Keeps a picture of the page when pictures are asked for.
fn picture(browser: &Browser, name: &str) {
    if let Some(dir) = std::env::var_os("WINDLASS_SCREENSHOTS") {
        std::fs::write(std::path::Path::new(&dir).join(format!("{name}.png")), browser.screenshot()).unwrap();
    }
}

/// Everything an operator does, on a queue that works: see it run, cancel, retry, pause.
#[test]
fn an_operator_sees_and_steers_what_runs() {
    let home = Home::embedded();
    let (_up, base) = home.serve(&["up"]);
    let browser = Browser::start();
    browser.open(&base);
    browser.wait_for_text("Throughput");

    // A job's progress moves on its page, without a reload, and then its end shows.
    let slow = home.enqueue("probe.sleep", r#"{"ms": 3000}"#, &[]);
    browser.open(&format!("{base}/tasks/{slow}"));
    let percent = || browser.run("return document.querySelector('.progress progress')?.value ?? -1").as_f64().unwrap();
    browser.run("window.sameDocument = true");
    browser.wait("it has begun", || percent() > 0.0);
    let seen = percent();
    browser.wait("it moves", || percent() > seen);
    browser.wait_for_text("success");
    assert_eq!(browser.run("return window.sameDocument"), json!(true), "no reload");

    // A task is found by its id.
    browser.open(&base);
    browser.type_into("input[type=search]", &format!("{slow}\u{e007}"));
    browser.wait("its page", || browser.url() == format!("{base}/tasks/{slow}"));

    // Cancel one that runs.
    let long = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &["--label", "customer=acme"]);
    browser.open(&format!("{base}/tasks/{long}"));
    browser.wait_for_text("running");
    picture(&browser, "task-running");
    browser.click("//button[.='Cancel']");
    browser.wait_for_text("cancelled");
    assert_eq!(home.task(&long)["status"], "cancelled");

    // Retry a dead one, from the list.
    let dead = home.enqueue("probe.fail", r#"{"how": "fatal", "times": 1}"#, &[]);
    home.wait_for(&dead, "failure");
    browser.open(&format!("{base}/tasks?queue=probe&state=failure"));
    browser.wait_for_text("probe.fail");
    picture(&browser, "tasks-dead");
    browser.click(&format!("input[value='{dead}']"));
    browser.click("//button[.='Retry']");
    home.wait_for(&dead, "failure");
    wait(SOON, "it ran again", || home.task(&dead)["attempt"].as_u64() >= Some(1));

    // Pause a queue, and let it go on.
    browser.open(&format!("{base}/queues"));
    browser.click("//tr[@id='queue-probe']//button[.='Pause']");
    browser.wait_for_text("paused");
    let waiting = home.enqueue("probe.noop", "{}", &[]);
    browser.open(&format!("{base}/queues"));
    browser.wait("one waits", || {
        browser.run("return document.querySelector('#queue-probe td:nth-child(2)').innerText") == json!("1")
    });
    browser.click("//tr[@id='queue-probe']//button[.='Resume']");
    home.wait_for(&waiting, "success");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// What a job made can be looked at: a PDF opens in its page, a chart shows in the gallery.
#[test]
fn results_are_shown_where_they_were_made() {
    let home = Home::embedded();
    let demo = home.json(&["demo", "--once"]);
    let (_up, base) = home.serve(&["up"]);
    let browser = Browser::start();
    let id = |n: usize| demo["first"][n]["task_id"].as_str().unwrap().to_owned();
    browser.open(&format!("{base}/tasks/{}", id(1)));
    browser.wait("the chart is drawn", || {
        browser.run("const i = document.querySelector('.artifact img'); return i && i.complete && i.naturalWidth > 0")
            == json!(true)
    });
    picture(&browser, "task-chart");
    browser.open(&format!("{base}/tasks/{}", id(0)));
    let pdf = browser.run("return document.querySelector('.artifact a').href").as_str().unwrap().to_owned();
    let mut answer = ureq::get(&pdf).call().unwrap();
    assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'self'");
    assert!(answer.body_mut().read_to_vec().unwrap().starts_with(b"%PDF-1.7"));
    picture(&browser, "task-pdf");
    browser.open(&format!("{base}/images"));
    browser.wait("the gallery has it", || {
        browser.run("return document.querySelectorAll('.gallery img').length") != json!(0)
    });
    picture(&browser, "images");
    for page in ["schedules", "caches", "settings", "workers"] {
        browser.open(&format!("{base}/{page}"));
        browser.wait_for_text(&page[..1].to_uppercase());
        picture(&browser, page);
    }
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// A worker that is killed vanishes from a page that is open.
#[test]
fn a_killed_worker_vanishes_from_the_page() {
    let redis = RedisServer::start();
    let home = Home::on(&redis);
    let worker = home.worker("probe", &["--slots", "4"]);
    let (_api, base) = home.serve(&["api"]);
    let browser = Browser::start();
    browser.open(&format!("{base}/workers"));
    browser.wait_for_text(&format!("pid {}", worker.pid()));
    worker.kill();
    browser.wait_for_text("No worker is there");
}

/// B29 and B30 in the browser: what users write is text, other sites change nothing, nothing may
/// frame a page.
#[test]
fn b29_b30_what_users_write_is_text_and_other_sites_change_nothing() {
    let home = Home::embedded();
    let (_up, base) = home.serve(&["up"]);
    let evil = r#"{"html": "<script>window.pwned=1</script>\"><img src=x onerror=window.pwned=1>"}"#;
    let id = home.enqueue("probe.noop", evil, &["--label", "note=<img src=x onerror=window.pwned=1>"]);
    home.wait_for(&id, "success");
    let browser = Browser::start();
    for page in [format!("/tasks/{id}"), "/tasks?queue=probe&state=success".to_owned()] {
        browser.open(&format!("{base}{page}"));
        browser.wait_for_text("<img src=x onerror");
        assert_eq!(browser.run("return window.pwned ?? null"), json!(null));
    }
    assert_eq!(browser.errors(), Vec::<String>::new());

    let post = |headers: &[(&str, &str)]| {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        let mut request = ureq::Agent::from(config).post(format!("{base}/ui/queues/probe/pause"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.header("content-type", "application/x-www-form-urlencoded").send("").unwrap().status().as_u16()
    };
    let host = base.as_str();
    assert_eq!(post(&[]), 403, "neither Origin nor Sec-Fetch-Site");
    assert_eq!(post(&[("origin", "https://evil.example")]), 403);
    assert_eq!(post(&[("origin", host), ("sec-fetch-site", "cross-site")]), 403);
    let queues = home.json(&["queues"]);
    let probe = queues["queues"].as_array().unwrap().iter().find(|q| q["queue"] == "probe").unwrap();
    assert_eq!(probe["counts"]["paused"], false, "{probe}");
    assert_eq!(post(&[("origin", host), ("sec-fetch-site", "same-origin")]), 303);
    let page = ureq::get(&base).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

/// Behind a proxy under a path every link, asset, form and stream stays below it.
#[test]
fn pages_work_under_a_base_path_in_the_dark_and_on_a_phone() {
    let home = Home::embedded().with("WINDLASS_BASE_PATH", "/ops/jobs");
    let (_up, base) = home.serve(&["up"]);
    for n in 0..3 {
        home.enqueue("probe.noop", &format!("{{\"n\": {n}}}"), &[]);
    }
    let browser = Browser::start();
    browser.open(&format!("{base}/ops/jobs/"));
    browser.wait("it is live", || browser.run("return document.getElementById('live').textContent") == json!("live"));
    picture(&browser, "overview-light");
    browser.prefer_dark(true);
    picture(&browser, "overview-dark");
    browser.resize(390, 844);
    let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, json!(0), "nothing is cut off on a phone");
    picture(&browser, "overview-phone");
    browser.click("//nav[@aria-label='Pages']//a[.='Queues']");
    browser.wait_for_text("probe");
    assert_eq!(browser.url(), format!("{base}/ops/jobs/queues"));
    browser.click("//tr[@id='queue-probe']//button[.='Pause']");
    browser.wait_for_text("paused");
    assert_eq!(browser.url(), format!("{base}/ops/jobs/queues"));
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// The table of docs/metrics.md is what `/metrics` answers, name by name, and the files in `deploy`
/// ask for nothing else.
#[test]
fn every_metric_is_documented_and_no_other() {
    let redis = RedisServer::start();
    let home = Home::on(&redis)
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .with("WINDLASS_APALIS_SOURCES", "old=probe.noop");
    let (_up, base) = home.serve(&["up"]);
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        words.filter(|word| word.starts_with("windlass_")).map(str::to_owned).collect()
    };
    let scraped = || ureq::get(format!("{base}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    wait(SOON, "a look has seen the queues", || scraped().contains("windlass_queue_jobs{"));
    let text = scraped();
    let answered: std::collections::BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("windlass_"))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    assert_eq!(answered, names(include_str!("../../docs/metrics.md")));
    for file in
        [include_str!("../../deploy/grafana/windlass.json"), include_str!("../../deploy/prometheus/windlass.rules.yml")]
    {
        let unknown: Vec<_> = names(file).difference(&answered).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new());
    }
}

/// Where keys are asked for: signing in by key, doing what the key allows and nothing more, and
/// out again; a session ends with its key.
#[test]
fn a_key_signs_in_and_its_scopes_hold_in_the_browser() {
    let home = Home::embedded().with("WINDLASS_LOOPBACK_ACCESS", "none");
    let (_up, base) = home.serve(&["up"]);
    let made = home.json(&["keys", "create", "--name", "operator", "--scope", "jobs:*,schedules:read"]);
    let key = made["key"].as_str().unwrap().to_owned();
    let browser = Browser::start();
    browser.open(&format!("{base}/queues"));
    browser.wait_for_text("Sign in");
    picture(&browser, "login");
    browser.type_into("input[name=key]", "wl_nobody_000000000000");
    browser.click("//button[.='Sign in']");
    browser.wait_for_text("This key is not valid.");
    browser.type_into("input[name=key]", &key);
    browser.click("//button[.='Sign in']");
    browser.wait("the page that was asked for", || browser.url() == format!("{base}/queues"));
    browser.wait("it is live", || browser.run("return document.getElementById('live').textContent") == json!("live"));
    // No script sees the session, and the browser never keeps the key.
    assert_eq!(browser.run("return document.cookie"), json!(""));

    // jobs:* cancels a job; pausing a queue is administration.
    let long = home.enqueue("probe.sleep", r#"{"ms": 600000}"#, &[]);
    browser.open(&format!("{base}/tasks/{long}"));
    browser.click("//button[.='Cancel']");
    home.wait_for(&long, "cancelled");
    browser.open(&format!("{base}/queues"));
    browser.click("//tr[@id='queue-probe']//button[.='Pause']");
    browser.wait_for_text("admin:queues");
    // Nor does its stream get what the page would refuse.
    let status = "const r = await fetch(arguments[0] ?? '/ui/live/settings'); return r.status";
    assert_eq!(browser.run(status), json!(403));

    browser.open(&base);
    browser.click("//button[.='Sign out']");
    browser.wait_for_text("Sign in");
    browser.open(&format!("{base}/tasks"));
    browser.wait_for_text("Sign in");
    browser.type_into("input[name=key]", &key);
    browser.click("//button[.='Sign in']");
    browser.wait("in again", || browser.url() == format!("{base}/tasks"));
    home.json(&["keys", "revoke", made["id"].as_str().unwrap()]);
    browser.wait("the session ends with its key", || {
        browser.open(&format!("{base}/tasks"));
        browser.text().contains("Sign in")
    });
}
