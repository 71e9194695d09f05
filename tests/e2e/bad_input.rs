//! Bad input to the kinds of the real binary, and the table of all of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Home, SOON, wait};

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn post(url: &str, job: &Value) -> (u16, Value) {
    let mut answer = agent().post(format!("{url}/api/tasks")).send_json(job).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

fn upload(url: &str, bytes: &[u8]) -> String {
    let mut answer = agent().post(format!("{url}/api/blobs")).send(bytes).unwrap();
    answer.body_mut().read_json::<Value>().unwrap()["blob"].as_str().unwrap().to_owned()
}

/// The job once it has ended.
fn ended(url: &str, job: &Value) -> Value {
    let (status, task) = post(url, job);
    assert_eq!(status, 202, "{task:#}");
    let at = format!("{url}{}", task["status_url"].as_str().unwrap());
    let mut task = Value::Null;
    wait(SOON, "the job has ended", || {
        task = agent().get(&at).call().unwrap().body_mut().read_json().unwrap();
        ["success", "failure"].contains(&task["status"].as_str().unwrap())
    });
    task
}

/// B19, B20, B22: pictures of other formats, PDFs that nest or loop: one failed job each, by name, and the
/// worker goes on.
#[test]
fn b20_b22_files_that_cannot_be_taken_are_one_failed_job() {
    let home = Home::embedded();
    let (mut up, url) = home.serve(&["up"]);
    let pictures: [(&str, &[u8]); 6] = [
        ("svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>"),
        ("exr", b"\x76\x2f\x31\x01\x02\0\0\0channels\0chlist\0"),
        ("avif", b"\0\0\0\x20ftypavif\0\0\0\0mif1avif"),
        ("hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n"),
        ("ico", b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0"),
        ("html", b"GIF89a<html><script>alert(1)</script>"),
    ];
    for (name, bytes) in pictures {
        let card = json!({ "front": upload(&url, bytes) });
        let task = ended(&url, &json!({ "kind": "pdf.card_sheet", "args": { "cards": [card] } }));
        assert_eq!(task["status"], "failure", "{name}: {task:#}");
        let code = task["error"]["code"].as_str().unwrap_or_default();
        assert!(["unsupported_image", "image_unreadable", "image_too_large"].contains(&code), "{name}: {task:#}");
    }
    let nested = format!(
        "%PDF-1.4\n1 0 obj\n{}{}\nendobj\ntrailer <</Root 1 0 R>>\n%%EOF",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let looped = "%PDF-1.4\nxref\n0 1\n0000000000 65535 f \ntrailer <</Root 1 0 R /Prev 9>>\nstartxref\n9\n%%EOF";
    for pdf in [nested.as_bytes(), looped.as_bytes(), b"%PDF-1.7", b""] {
        let task = ended(&url, &json!({ "kind": "pdf.offset", "args": { "pdf": upload(&url, pdf), "x": 1, "y": 1 } }));
        assert_eq!((&task["status"], &task["attempt"]), (&json!("failure"), &json!(1)), "{task:#}");
    }
    let task = ended(&url, &json!({ "kind": "probe.noop", "args": {} }));
    assert_eq!(task["status"], "success", "the worker goes on");
    assert!(up.is_up());
}

/// B21, B26: a font is none of the args, and a URL is no picture: both are refused at the door, and nothing
/// is fetched.
#[test]
fn b21_b26_fonts_and_addresses_are_refused_at_the_door() {
    let home = Home::embedded();
    let (_api, url) = home.serve(&["api"]);
    for field in ["font", "fonts", "font_url", "font_file"] {
        let args = json!({ "blocks": [{ "type": "heading", "text": "x" }], field: "sha256:00" });
        let (status, problem) = post(&url, &json!({ "kind": "pdf.report", "args": args }));
        assert_eq!((status, &problem["code"]), (422, &json!("args_invalid")), "{problem:#}");
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = format!("http://{}/x.png", listener.local_addr().unwrap());
    let addresses = [
        own.as_str(),
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/x.png",
        "http://0x7f.1/x.png",
        "http://user@127.0.0.1/x.png",
        "//evil.example/x.png",
        "../../etc/passwd",
    ];
    for address in addresses {
        let card = json!({ "front": address });
        let (status, problem) = post(&url, &json!({ "kind": "pdf.card_sheet", "args": { "cards": [card] } }));
        assert_eq!((status, &problem["code"]), (422, &json!("args_invalid")), "{address}: {problem:#}");
    }
    assert!(listener.accept().is_err(), "nobody called");
}

/// B26: what speaks HTTP as a client is one crate, and only those name it whose addresses are settings: where
/// traces go, and the application that closes its own positions. Nothing a caller sends is ever fetched.
#[test]
fn b26_only_addresses_of_the_settings_are_called() {
    let tree = |args: &[&str]| {
        let with = ["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
        let output = std::process::Command::new(env!("CARGO")).args(with).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let all = tree(&["-p", "windlass"]);
    assert!(all.lines().count() > 50, "{all}");
    let clients = ["reqwest ", "ureq ", "isahc ", "curl ", "hyper-rustls ", "attohttpc ", "minreq "];
    let found: BTreeSet<&str> =
        all.lines().filter_map(|line| clients.iter().find(|client| line.starts_with(**client))).copied().collect();
    assert_eq!(found, BTreeSet::from(["ureq "]));
    let by = tree(&["-p", "windlass", "--invert", "ureq", "--depth", "1"]);
    let by: BTreeSet<&str> = by.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(by, BTreeSet::from(["ureq", "windlass", "windlass-market"]));
}

/// B23: control characters and letters that no font has are refused at the door; a long text makes a
/// document.
#[test]
fn b23_odd_text_makes_a_document_or_is_refused() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let report =
        |text: &str| json!({ "kind": "pdf.report", "args": { "blocks": [{ "type": "paragraph", "text": text }] } });
    for bad in ["a\u{0}b", "a\u{1b}[31mb", "a\u{7}b"] {
        let (status, problem) = post(&url, &report(bad));
        assert_eq!((status, &problem["code"]), (422, &json!("args_invalid")), "{problem:#}");
    }
    // What no font of ours can set is refused by name.
    let pile = format!("Z{}", "\u{301}\u{327}".repeat(500));
    for text in [pile.as_str(), "\u{5d0}\u{5d1} \u{645}\u{631}", "\u{1f9ff}\u{10ffff} \u{4e2d}"] {
        let (status, problem) = post(&url, &report(text));
        assert_eq!((status, &problem["violations"][0]["code"]), (422, &json!("glyph_missing")), "{problem:#}");
    }
    let long = "word ".repeat(20_000);
    for text in [long.as_str(), "\u{dc}b\u{e9}r \u{41f}\u{440}\u{438} \u{3b1}"] {
        let task = ended(&url, &report(text));
        assert_eq!((&task["status"], &task["attempt"]), (&json!("success"), &json!(1)), "{task:#}");
    }
}

/// Every row B01 to B38 stands in the table, and every test it names is there.
#[test]
fn every_row_of_bad_input_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let table = std::fs::read_to_string(root.join("docs/bad-input.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| B"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<String> = (1..=38).map(|n| format!("B{n:02}")).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), names);
    for row in rows {
        let tests: Vec<&str> = row[3].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row:?}");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(text.contains(&format!("fn {name}(")), "{} names {test}, which is not there", row[0]);
        }
    }
}
