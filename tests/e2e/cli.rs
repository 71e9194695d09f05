//! The command line, embedded and on Redis.

use serde_json::json;
use windlass_testkit::shared_redis;

use crate::harness::{Home, SOON, wait};

/// A PNG of 2 × 2 pixels, made here so that the tests hold no binary files.
fn png() -> Vec<u8> {
    // Signature, IHDR (2 × 2, 8-bit grey), IDAT (stored block), IEND; sums computed below.
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], data: &[u8]| {
        out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        let body = [&name[..], data].concat();
        out.extend(&body);
        out.extend(crc32(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0]);
    let raw = [0, 10, 200, 0, 90, 30];
    let mut zlib = vec![0x78, 1, 1, 6, 0, 249, 255];
    zlib.extend(raw);
    zlib.extend(adler32(&raw).to_be_bytes());
    chunk(b"IDAT", &zlib);
    chunk(b"IEND", &[]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

/// In embedded mode `enqueue --wait` runs the job itself when no worker is up.
#[test]
fn enqueue_and_wait_needs_no_worker_when_embedded() {
    let home = Home::embedded();
    for name in ["deck/front/1.png", "deck/front/2.png", "deck/back/back.png"] {
        home.file(name, png());
    }
    let done = home.json(&["enqueue", "pdf.card_sheet", "--cards", "deck", "--wait", "--out", "out"]);
    assert_eq!((&done["status"], &done["result"]["value"]["pages"]), (&json!("success"), &json!(2)));
    assert!(std::fs::read(home.path().join("out/cards.pdf")).unwrap().starts_with(b"%PDF"));
    let again = home.json(&["enqueue", "pdf.card_sheet", "--cards", "deck", "--wait"]);
    assert_eq!(again["result"]["cached"], true);
}

/// The same commands work across processes, on the embedded file and on a real Redis.
#[test]
fn commands_work_across_processes() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let _worker = home.worker("pdf,probe", &[]);
        home.file("deck/a.png", png());
        let done = home.json(&[
            "enqueue",
            "pdf.card_sheet",
            "--cards",
            "deck",
            "--label",
            "deck=one",
            "--wait",
            "--out",
            "out",
        ]);
        assert_eq!(done["status"], "success", "{done:#}");
        assert_eq!(done["labels"]["deck"], "one");
        assert!(home.path().join("out/cards.pdf").exists());

        let id = home.enqueue("probe.sleep", r#"{"ms": 300}"#, &[]);
        let ran = home.run(&["task", &id, "--follow"]);
        assert!(ran.status.success() && ran.stdout.contains("success"), "{ran:?}");
        let queues = home.json(&["queues"]);
        assert_eq!(queues["workers"].as_array().map(Vec::len), Some(1), "{queues:#}");
        let probe = queues["queues"].as_array().unwrap().iter().find(|q| q["queue"] == "probe").unwrap();
        assert_eq!(probe["counts"]["success_total"], 1);
    }
}

/// Progress travels from the handler into the job's hash.
#[test]
fn a_running_job_shows_its_progress() {
    for home in [Home::embedded(), Home::on(shared_redis())] {
        let _worker = home.worker("probe", &[]);
        let id = home.enqueue("probe.sleep", r#"{"ms": 2000}"#, &[]);
        wait(SOON, "progress is seen", || {
            let task = home.task(&id);
            task["status"] == "running" && task["progress"].as_f64().unwrap() > 0.0 && task["message"] == "sleeping"
        });
        assert_eq!(home.wait_for(&id, "success")["progress"], 100.0);
    }
}

/// A retried job waits and works; a fatal one is not retried; the exit code tells.
#[test]
fn failures_are_told_apart() {
    let home = Home::embedded();
    let check = |kind: &str, args: &str, more: &[&str], status: &str, attempt: u32, reason: serde_json::Value| {
        let file = home.file("args.json", args);
        let words = [&["enqueue", kind, "--args", file.to_str().unwrap(), "--wait", "--json"], more].concat();
        let ran = home.run(&words);
        let task = ran.json();
        assert_eq!(task["status"], status, "{task:#}");
        assert_eq!((&task["attempt"], &task["reason"]), (&json!(attempt), &reason), "{kind} {args}: {task:#}");
        assert_eq!(ran.status.code(), Some(if status == "success" { 0 } else { 3 }));
    };
    check("probe.fail", r#"{"how":"retry","times":1}"#, &[], "success", 2, json!(null));
    check("probe.fail", r#"{"how":"retry"}"#, &["--max-attempts", "1"], "failure", 1, json!("error"));
    check("probe.fail", r#"{"how":"fatal"}"#, &[], "failure", 1, json!("error"));
    check("probe.crash", r#"{"how":"abort"}"#, &["--max-attempts", "1"], "failure", 1, json!("crashed"));
    check("probe.crash", r#"{"how":"overflow"}"#, &["--max-attempts", "1"], "failure", 1, json!("crashed"));
    check("probe.crash", r#"{"how":"memory"}"#, &["--max-attempts", "1"], "failure", 1, json!("oom"));
    check(
        "probe.crash",
        r#"{"how":"loop"}"#,
        &["--max-attempts", "1", "--timeout", "500ms"],
        "failure",
        1,
        json!("timeout"),
    );
    check("probe.crash", r#"{"how":"garbage"}"#, &[], "success", 1, json!(null));
}

/// What cannot work is refused at the door, named, and nothing is queued.
#[test]
fn bad_input_is_refused_before_anything_is_queued() {
    let home = Home::embedded();
    let check = |words: &[&str], args: Option<&str>, part: &str| {
        let file = home.file("args.json", args.unwrap_or("{}"));
        let words = [&["enqueue"], words, &["--args", file.to_str().unwrap()]].concat();
        let ran = home.run(&words);
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains(part), "{part:?} in {}", ran.stderr);
    };
    check(&["pdf.card_shet"], None, "chart.book, chart.render");
    check(&["pdf.card_sheet"], Some(r#"{"cards": []}"#), "no_cards");
    check(&["pdf.card_sheet"], Some(r#"{"cardz": []}"#), "cardz");
    check(&["probe.sleep"], Some(r#"{"ms": -1}"#), "args_invalid");
    check(&["probe.sleep"], Some(r#"{"ms": 9999999999}"#), "out_of_range");
    check(&["probe.sleep"], Some("{"), "not JSON");
    check(&["probe.noop", "--max-attempts", "0"], None, "max_attempts");
    check(
        &["chart.render"],
        Some(r#"{"symbol":"X","interval":"1d","candles":{"t":[0],"o":[1],"h":[1],"l":[1],"c":[null]}}"#),
        "/candles/c/0 (not_finite)",
    );
    assert_eq!(home.json(&["queues"])["queues"], json!([]));
}

/// What only the worker can know ends in failure with a code, without a retry; the worker lives on.
#[test]
fn corrupt_pictures_are_failures_of_one_job() {
    let home = Home::embedded();
    let mut worker = home.worker("pdf,probe", &[]);
    let mut zero = png();
    zero[16..24].fill(0);
    let mut flood = png();
    flood[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    for picture in [&mut zero, &mut flood] {
        let sum = crc32(&picture[12..29]).to_be_bytes();
        picture[29..33].copy_from_slice(&sum);
    }
    let check = |picture: &[u8], code: &str| {
        home.file("one/card.png", picture);
        let ran = home.run(&["enqueue", "pdf.card_sheet", "--cards", "one", "--wait", "--json"]);
        let task = ran.json();
        assert_eq!(
            (&task["status"], &task["error"]["code"], &task["attempt"]),
            (&json!("failure"), &json!(code), &json!(1)),
            "{task:#}"
        );
    };
    check(&png()[..40], "image_unreadable");
    check(b"not a picture at all", "image_unreadable");
    check(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "unsupported_image");
    check(&zero, "image_unreadable");
    check(&flood, "image_too_large");
    let missing = format!(r#"{{"cards":[{{"front":"sha256:{}"}}]}}"#, "0".repeat(64));
    let file = home.file("missing.json", missing);
    let ran = home.run(&["enqueue", "pdf.card_sheet", "--args", file.to_str().unwrap()]);
    assert!(ran.status.code() == Some(1) && ran.stderr.contains("is not stored"), "{ran:?}");
    assert!(worker.is_up());
    let id = home.enqueue("probe.noop", "{}", &[]);
    home.wait_for(&id, "success");
}

/// Wrong words end with 2, a job that is not there with 1.
#[test]
fn usage_errors_have_their_own_exit_code() {
    let home = Home::embedded();
    assert_eq!(home.run(&["enqueue"]).status.code(), Some(2));
    assert_eq!(home.run(&["task", "nonsense"]).status.code(), Some(2));
    assert_eq!(home.run(&["worker", "--queues", "Not A Queue"]).status.code(), Some(2));
    let ran = home.run(&["task", "01K9ZQ4T8Z6V0YQ0M5R7T2W3XK.pdf", "--json"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.json()["error"].as_str().unwrap().contains("not known"));
}

/// `.env` and `.env.local` are read, never override what is set, and bad values stop the start.
#[test]
fn settings_come_from_the_environment_and_env_files() {
    let home = Home::embedded();
    home.file(".env", "WINDLASS_DATA_DIR=elsewhere\n");
    home.file(".env.local", "WINDLASS_DATA_DIR=ignored\nWINDLASS_SLOTS=0\n");
    let ran = home.run(&["queues"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("WINDLASS_SLOTS is \"0\"; 1 to 10000 is allowed"), "{}", ran.stderr);
    home.file(".env.local", "WINDLASS_SLOTS=3\n");
    assert!(home.run(&["queues"]).status.success());
    assert!(home.path().join("elsewhere/queue.db").exists() && !home.path().join("ignored").exists());
}
