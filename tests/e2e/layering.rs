//! The dependency table of ARCHITECTURE.md, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each may use. Arrows go one way; a new one edits this table and
/// ARCHITECTURE.md in the same commit.
const MAY_USE: &[(&str, &[&str])] = &[
    ("windlass-jobs", &[]),
    ("windlass-redis", &[]),
    ("windlass-broker", &["jobs", "redis"]),
    ("windlass-store", &["jobs", "redis"]),
    ("windlass-producer", &["jobs", "broker"]),
    ("windlass-worker", &["jobs", "broker", "store", "producer"]),
    ("windlass-pdf", &["jobs", "worker", "chart"]),
    ("windlass-chart", &["jobs", "worker", "store"]),
    ("windlass-market", &["jobs", "redis", "store", "producer", "worker"]),
    ("windlass-scheduler", &["jobs", "broker", "store", "producer"]),
    ("windlass-bridge", &["jobs", "redis", "broker", "producer"]),
    (
        "windlass-api",
        &["jobs", "redis", "broker", "store", "producer", "worker", "pdf", "chart", "market", "scheduler"],
    ),
    ("windlass-testkit", &["jobs", "broker", "redis", "store", "producer", "worker"]),
    (
        "windlass",
        &[
            "jobs",
            "redis",
            "broker",
            "store",
            "producer",
            "worker",
            "pdf",
            "chart",
            "market",
            "scheduler",
            "bridge",
            "api",
        ],
    ),
    ("windlass-examples", &["jobs", "broker", "store", "producer", "worker"]),
];

/// What only one crate may name.
const KEPT_BY: &[(&str, &[&str])] = &[
    ("redis", &["windlass-redis"]),
    ("rustls", &["windlass-redis", "windlass-testkit"]),
    ("rcgen", &["windlass-testkit"]),
    ("apalis", &["windlass-worker"]),
    ("apalis-core", &["windlass-bridge", "windlass-worker"]),
    ("apalis-redis", &["windlass-bridge"]),
    ("printpdf", &["windlass-pdf"]),
    ("lopdf", &["windlass-pdf"]),
    ("subsetter", &["windlass-pdf"]),
    ("fast_image_resize", &["windlass-pdf"]),
    ("tiny-skia", &["windlass-chart"]),
    ("ta-lib", &["windlass-chart"]),
    ("jpeg-encoder", &["windlass-chart", "windlass-pdf"]),
    ("image-webp", &["windlass-chart"]),
    ("libwebp-sys", &["windlass-chart"]),
    ("miniz_oxide", &["windlass-chart"]),
    ("axum", &["windlass-api"]),
    ("maud", &["windlass-api"]),
    ("jsonschema", &["windlass-producer"]),
    ("schemars", &["windlass-worker", "windlass-chart", "windlass-pdf"]),
    ("sd-notify", &["windlass"]),
    ("opentelemetry_sdk", &["windlass"]),
    ("opentelemetry-proto", &["windlass", "windlass-testkit"]),
    ("ureq", &["windlass", "windlass-market", "windlass-testkit"]),
    ("clap", &["windlass"]),
    ("ratatui", &["windlass"]),
    ("landlock", &["windlass-worker"]),
    ("seccompiler", &["windlass-worker"]),
    ("sqlx", &["windlass-broker", "windlass-market", "windlass-store", "windlass-testkit"]),
    ("cron", &["windlass-scheduler"]),
    ("chrono", &["windlass-scheduler"]),
];

fn packages() -> BTreeMap<String, Vec<Value>> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--no-deps"]).output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |p: &Value| (p["name"].as_str().unwrap().to_owned(), p["dependencies"].as_array().unwrap().clone());
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

fn normal(dependencies: &[Value]) -> BTreeSet<String> {
    dependencies.iter().filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn arrows_between_our_crates_are_those_of_the_table() {
    let packages = packages();
    assert_eq!(
        packages.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        MAY_USE.iter().map(|(name, _)| *name).collect(),
        "every crate has a row"
    );
    for (name, allowed) in MAY_USE {
        for used in normal(&packages[*name]) {
            if let Some(short) = used.strip_prefix("windlass-") {
                assert!(allowed.contains(&short), "{name} must not use {used}");
            }
        }
    }
}

#[test]
fn what_a_crate_keeps_to_itself_is_named_nowhere_else() {
    for (name, dependencies) in packages() {
        for used in normal(&dependencies) {
            if let Some((_, keepers)) = KEPT_BY.iter().find(|(kept, _)| *kept == used) {
                assert!(keepers.contains(&name.as_str()), "{name} must not name {used}");
            }
        }
    }
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut todo = vec![root.join("crates"), root.join("examples"), root.join("tests")];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("//!"), "{} does not say what it is", path.display());
                assert!(text.lines().count() <= 800, "{} is over 800 lines", path.display());
            }
        }
    }
}
