//! What can be known of a job and of a process from outside.

use windlass_testkit::shared_redis;

use crate::faults::Direct;
use crate::harness::Home;

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
