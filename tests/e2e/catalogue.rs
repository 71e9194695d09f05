//! Kinds of another program: published by its workers, checked at the door, left to those who know
//! them. The other program is the example of a kind of one's own.

use serde_json::{Value, json};

use crate::harness::{Home, Ran, SOON, wait};

fn greet(home: &Home, args: &Value, more: &[&str]) -> Ran {
    let file = home.file("greet.json", args.to_string());
    home.run(&[&["enqueue", "example.greet", "--json", "--args", file.to_str().unwrap()], more].concat())
}

fn counts(home: &Home) -> Value {
    let queues = home.json(&["queues"])["queues"].clone();
    let mine = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "example").cloned();
    mine.unwrap_or_default()["counts"].clone()
}

/// F49, and the example of docs and README: a kind that no worker ever published is refused; once
/// one has, its args are checked by schema, also when the worker is gone; a worker of another build
/// leaves its jobs alone and parks them; they run when a worker comes that knows them.
#[test]
fn f49_a_kind_of_another_program_is_checked_kept_and_run() {
    let home = Home::embedded().with("WINDLASS_PARK_SECONDS", "1");
    let never_seen = greet(&home, &json!({ "name": "you" }), &[]);
    assert_eq!(never_seen.status.code(), Some(1));
    assert!(never_seen.stdout.contains("no worker ever published it"), "{never_seen:?}");

    let worker = home.start_example("greet");
    let kinds = || home.json(&["kinds", "--published"])["kinds"].clone();
    wait(SOON, "it is published", || kinds()[0]["name"] == "example.greet");
    assert_eq!(kinds()[0]["schema"]["required"], json!(["name"]));
    let wrong = greet(&home, &json!({ "name": 1, "more": true }), &[]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(wrong.stdout.contains("/name (type)") && wrong.stdout.contains("(additionalProperties)"), "{wrong:?}");
    let done = greet(&home, &json!({ "name": "you" }), &["--wait"]);
    assert_eq!(done.json()["result"]["value"], "Hello, you!", "{done:?}");

    worker.kill();
    let accepted = greet(&home, &json!({ "name": "you again" }), &[]);
    let id = accepted.json()["task_id"].as_str().unwrap().to_owned();
    assert!(id.ends_with(".example"), "{id}");
    let other = home.worker("example", &[]);
    wait(SOON, "it is parked", || counts(&home)["parked"] == 1);
    assert_eq!((&home.task(&id)["status"], &home.task(&id)["attempt"]), (&json!("pending"), &json!(0)));
    other.kill();
    let _worker = home.start_example("greet");
    let task = home.wait_for(&id, "success");
    assert_eq!((&task["result"]["value"], &task["attempt"]), (&json!("Hello, you again!"), &json!(1)), "{task:#}");
}

/// The example shows a kind of one's own in under 40 lines of code, worker included.
#[test]
fn the_example_is_short() {
    let source = include_str!("../../examples/src/bin/greet.rs");
    let code = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let kind = code.skip_while(|line| *line != "struct Greet;").count();
    assert!(kind < 40, "{kind} lines");
}
