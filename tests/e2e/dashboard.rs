//! The dashboard in a real browser. With `WINDLASS_SCREENSHOTS=DIR` the pages are also kept as
//! pictures there.

use serde_json::{Value, json};
use windlass_testkit::{Browser, RedisServer};

use crate::harness::{Home, SOON, wait};
use crate::trading::{Desk, call, get};

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
    // Every page again, in the dark and as wide as a phone: nothing sticks out.
    let dead = home.enqueue(
        "probe.fail",
        r#"{"how": "fatal", "times": 1}"#,
        &["--label", "customer=a-rather-long-name-of-one"],
    );
    home.wait_for(&dead, "failure");
    browser.prefer_dark(true);
    browser.resize(390, 844);
    let (chart, failed) = (format!("tasks/{}", id(1)), format!("tasks/{dead}"));
    for page in [
        "",
        "queues",
        "tasks?queue=probe&state=failure",
        &chart,
        &failed,
        "workers",
        "schedules",
        "schedules/windlass.retention",
        "images",
        "caches",
        "settings",
        "positions",
        "login",
    ] {
        browser.open(&format!("{base}/{page}"));
        browser.wait("it is laid out", || browser.run("return document.readyState") == json!("complete"));
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, json!(0), "/{page} sticks out on a phone");
        picture(&browser, &format!("phone-{}", page.replace(['/', '?', '&', '='], "-")));
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

fn open_position(base: &str, account: i64, side: &str, sl: &str, tp: &str) -> i64 {
    let body = json!({ "account_id": account, "symbol": "EURUSD", "side": side, "qty": 1500, "sl": sl, "tp": tp });
    call("POST", &format!("{base}/api/positions"), &body)["position_id"].as_i64().unwrap()
}

/// The first line of each cell of a position's row.
fn cells(browser: &Browser, position: i64) -> Vec<String> {
    let row = format!(
        "return [...document.querySelectorAll('#position-{position} td')].map(td => td.innerText.split('\\n')[0].trim())"
    );
    serde_json::from_value(browser.run(&row)).unwrap()
}

/// §8.35: what the pages of positions say is what the API, the command line and the tables say; a closing
/// tells its quote and rule and is decided again.
#[test]
fn positions_and_closings_say_what_the_api_says_8_35() {
    let home = Home::embedded();
    let (_up, base) = home.serve(&["up"]);
    let browser = Browser::start();
    browser.open(&format!("{base}/positions"));
    browser.wait_for_text("Nothing is traded here");
    let menu =
        "return [...document.querySelectorAll('nav[aria-label=Pages] a')].some(a => a.textContent == 'Positions')";
    assert_eq!(browser.run(menu), json!(false));
    let mut desk = Desk::new(&base);
    desk.quote("1.07200");
    let open =
        [open_position(&base, 1, "long", "1.07000", "1.07500"), open_position(&base, 1, "short", "1.07450", "1.06900")];
    let stopped = open_position(&base, 1, "long", "1.07150", "1.07900");
    desk.quote("1.07140");
    desk.closed(stopped);
    browser.open(&format!("{base}/positions"));
    browser.wait_for_text("Next to their trigger");
    assert_eq!(browser.run(menu), json!(true));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for id in open {
        let (told, shown) = (get(&format!("{base}/api/positions/{id}")), cells(&browser, id));
        assert_eq!(shown[..2], [id.to_string(), text(&told["symbol"])]);
        let levels = [&told["entry"], &told["price"], &told["stop"]["price"], &told["tp"], &told["pnl_points"]];
        assert_eq!(shown[3..8], levels.map(text));
    }
    let near = "return [...document.querySelectorAll('section:nth-of-type(1) tbody tr')].map(tr => tr.cells[0].innerText + ' ' + tr.cells[4].innerText)";
    let next = get(&format!("{base}/api/positions/next?limit=10"));
    let next =
        next["next"].as_array().unwrap().iter().map(|n| format!("{} {}", n["position_id"], n["distance_points"]));
    assert_eq!(browser.run(near), json!(next.collect::<Vec<_>>()));
    let tiles = browser.run("return [...document.querySelectorAll('.tile')].map(t => t.innerText.replace('\\n', ' '))");
    let (stats, latency) = (get(&format!("{base}/api/market/stats")), get(&format!("{base}/api/market/latency")));
    let told = json!([
        format!("Open {}", stats["open_positions"]),
        format!("Closed within, p50 {} ms", latency["total_ms"]["p50"]),
        format!("Closed within, p99 {} ms", latency["total_ms"]["p99"]),
        format!("Symbols without quotes {}", stats["frozen_symbols"].as_array().unwrap().len()),
        format!("Gaps in the feed {}", stats["gaps"].as_array().unwrap().len()),
    ]);
    assert_eq!(tiles, told);
    assert_eq!(json!(home.json(&["market", "positions"]).as_array().unwrap().len()), stats["open_positions"]);
    let why = text(&browser.run(&format!("return document.getElementById('closing-{stopped}-0').innerText")));
    for part in ["1.07140", "stop: the bid 1.07140 reached 1.07150", "quote 2", "agrees"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    picture(&browser, "positions-light");
    browser.open(&format!("{base}/positions/{stopped}"));
    browser.wait_for_text("stop: the bid 1.07140 reached 1.07150");
    picture(&browser, "position");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// A quote moves the page and its silence is said; calm accounts are bands to who may not see numbers.
#[test]
fn positions_are_live_and_calm_accounts_are_bands() {
    let home = Home::embedded();
    let (_up, base) = home.serve(&["up"]);
    let made = home.json(&["keys", "create", "--name", "desk", "--scope", "jobs:read,trading:read"]);
    let browser = Browser::start();
    let mut desk = Desk::new(&base);
    call("PUT", &format!("{base}/api/accounts/2"), &json!({ "currency": "USD", "calm": true }));
    desk.quote("1.07200");
    let long = open_position(&base, 1, "long", "1.07000", "1.07500");
    let calm = open_position(&base, 2, "long", "1.06100", "1.08900");
    browser.open(&format!("{base}/positions"));
    browser.wait_for_text("1.08900");
    browser.run("window.sameDocument = true");
    desk.quote("1.07160");
    browser.wait("the price is the new one", || cells(&browser, long)[4] == "1.07160");
    call("PUT", &format!("{base}/api/instruments/EURUSD"), &json!({ "digits": 5, "max_quote_age_ms": 1 }));
    browser.wait_for_text("No quotes come of EURUSD");
    browser.wait_for_text("stale");
    assert_eq!(browser.run("return window.sameDocument"), json!(true), "no reload");
    picture(&browser, "positions-frozen");
    call("PUT", &format!("{base}/api/instruments/EURUSD"), &json!({ "digits": 5 }));

    browser.open(&format!("{base}/login?back=/positions"));
    browser.type_into("input[name=key]", made["key"].as_str().unwrap());
    browser.click("//button[.='Sign in']");
    browser.wait_for_text("around zero");
    let page = browser.text();
    assert!(!page.contains("1.06100") && !page.contains("1.08900"), "{page}");
    assert!(page.contains("1.07500"), "the other account is no secret: {page}");
    browser.prefer_dark(true);
    browser.resize(390, 844);
    let wide = || browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide(), json!(0), "nothing is cut off on a phone");
    picture(&browser, "positions-phone-dark");
    browser.open(&format!("{base}/positions/{calm}"));
    browser.wait_for_text("trading:exact");
    assert_eq!(wide(), json!(0));
    picture(&browser, "position-phone-dark");
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
    let ran = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&ran, "success");
    wait(SOON, "a look has seen the queues", || scraped().contains("windlass_queue_jobs{"));
    let text = scraped();
    let answered: std::collections::BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("windlass_"))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    assert_eq!(answered, names(include_str!("../../docs/metrics.md")));
    let grafana: Value = serde_json::from_str(include_str!("../../deploy/grafana/windlass.json")).unwrap();
    let targets = grafana["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut asked: Vec<String> = targets
        .map(|target| format!("{} {}", target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap_or("")))
        .collect();
    assert!(asked.len() > 20, "{asked:?}");
    let rules = include_str!("../../deploy/prometheus/windlass.rules.yml");
    let alerts: Vec<&str> = rules.split("- alert:").skip(1).collect();
    assert!(alerts.len() > 10);
    asked.extend(alerts.iter().map(|alert| (*alert).to_owned()));
    for query in &asked {
        check_query(query, &text);
    }
}

/// Every metric of a query, each label it is asked by, and each value of one, is there.
fn check_query(query: &str, scraped: &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let series = |name: &str| -> Vec<&str> {
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        scraped.lines().filter(of_it).collect()
    };
    let has = |name: &str, label: &str| {
        ["instance", "job"].contains(&label) || series(name).iter().any(|s| s.contains(&format!("{label}=\"")))
    };
    let mut names = Vec::new();
    for (at, _) in query.match_indices("windlass_").filter(|(at, _)| !query[..*at].ends_with(is_word)) {
        let end = query[at..].find(|c| !is_word(c)).map_or(query.len(), |n| at + n);
        let name = &query[at..end];
        assert!(!series(name).is_empty(), "{name} is not measured: {query}");
        names.push((at, name));
        let Some(inner) = query[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()) else { continue };
        for part in inner.split(',') {
            let (label, values) = part.split_once('=').unwrap();
            let values = values.trim_start_matches('~').trim_matches('"');
            for value in values.split('|') {
                let wanted = format!("{}=\"{value}\"", label.trim().trim_end_matches('!'));
                assert!(series(name).iter().any(|s| s.contains(&wanted)), "{name} has no {wanted}: {query}");
            }
        }
    }
    for (at, _) in query.match_indices("by (").chain(query.match_indices("by(")) {
        let labels = query[at..].split(['(', ')']).nth(1).unwrap();
        let (_, name) = names.iter().find(|(n, _)| *n > at).unwrap();
        for label in labels.split(',').map(str::trim) {
            assert!(has(name, label), "{name} has no label {label}: {query}");
        }
    }
    // What titles and legends name.
    for told in query.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
        let label = told.trim().trim_start_matches("$labels.").split_whitespace().next().unwrap();
        if label != "$value" {
            assert!(names.iter().any(|(_, name)| has(name, label)), "nothing has the label {label}: {query}");
        }
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
