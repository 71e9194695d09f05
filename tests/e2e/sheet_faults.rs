//! Card sheets when something goes wrong around them: a worker is killed, a disk is full, a result
//! is damaged, nobody wants it any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_testkit::shared_redis;

use crate::harness::{Daemon, Home, SOON, wait};
use crate::isolation::SmallDisk;
use crate::sheets::{bytes, card, get, png};

/// Uploads a picture; its name.
fn blob(url: &str, bytes: &[u8]) -> String {
    let mut answer = ureq::post(format!("{url}/api/blobs")).send(bytes).unwrap();
    answer.body_mut().read_json::<Value>().unwrap()["blob"].as_str().unwrap().to_owned()
}

/// What a job is given is limited in all, whatever each file is: it fails before it runs.
#[test]
fn inputs_are_limited_in_all() {
    let home = Home::on(shared_redis()).with("WINDLASS_CHILD_INPUT_MIB", "1");
    let (_up, url) = home.serve(&["up", "--queues", "pdf"]);
    let part = |byte: u8| blob(&url, &vec![byte; 600 * 1024]);
    let run = |pdfs: &[String]| {
        let id = home.enqueue("pdf.merge", &json!({ "pdfs": pdfs }).to_string(), &["--max-attempts", "1"]);
        home.wait_for(&id, "failure")["error"]["code"].clone()
    };
    assert_eq!(run(&[part(1), part(2)]), "inputs_too_large");
    assert_ne!(run(&[part(1)]), "inputs_too_large");
}

/// Forty sheets, each a picture of its own with its label: some seconds of work.
fn long(url: &str) -> Value {
    json!({
        "cards": [{"front": blob(url, &card(1)), "copies": 320}],
        "back": blob(url, &card(5)), "mode": "raster", "ppi": 300,
    })
}

fn task(url: &str, id: &str) -> Value {
    get(&format!("{url}/api/tasks/{id}")).1
}

fn done(url: &str, id: &str) -> Value {
    let mut record = Value::Null;
    wait(Duration::from_secs(60), id, || {
        record = task(url, id);
        assert_ne!(record["status"], "failure", "{record:#}");
        record["status"] == "success"
    });
    record
}

fn file_of(record: &Value) -> &str {
    record["result"]["artifacts"][0]["blob"].as_str().unwrap_or_else(|| panic!("{record:#}"))
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let paths = entries.into_iter().flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What an observer sees of a job, asked again and again: who runs it, and how far it is.
#[derive(Default)]
struct Seen(Vec<(String, f64)>);

impl Seen {
    fn look(&mut self, record: &Value) -> f64 {
        let percent = record["progress"].as_f64().unwrap_or(0.0);
        self.0.push((record["worker"].as_str().unwrap_or_default().to_owned(), percent));
        percent
    }

    /// Progress is that of the run that goes on: it falls only when another begins.
    fn assert_rises(&self) {
        for pair in self.0.windows(2) {
            assert!(pair[0].0 != pair[1].0 || pair[0].1 <= pair[1].1, "{pair:?}");
        }
        assert!(self.0.iter().filter(|(_, percent)| (1.0..99.0).contains(percent)).count() > 3, "{:?}", self.0);
    }
}

/// §8.10 and §8.9: the worker of a sheet is killed half way. The sheet is made by the other, is the same
/// file as one nobody disturbed, and the equal job that waited for it runs no second time. What the
/// killed one left is swept.
#[test]
fn a_killed_workers_sheet_is_made_elsewhere_and_is_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let home =
        Home::on(shared_redis()).with("WINDLASS_LEASE_MS", "1000").with("TMPDIR", scratch.path().to_str().unwrap());
    let (_api, url) = home.serve(&["api"]);
    let mut workers: Vec<Daemon> = (0..2).map(|_| home.worker("pdf", &["--slots", "1"])).collect();
    let args = long(&url).to_string();
    let [first, second] = [0; 2].map(|_| home.enqueue("pdf.card_sheet", &args, &[]));
    let (mut leader, mut seen) = (Value::Null, Seen::default());
    let mut led = String::new();
    wait(Duration::from_secs(60), "half of it is done", || {
        for id in [&first, &second] {
            let record = task(&url, id);
            if record["progress"].as_f64().unwrap_or(0.0) > 0.0 {
                led.clone_from(id);
                leader = record;
            }
        }
        !led.is_empty() && seen.look(&leader) >= 50.0
    });
    let pid = leader["worker"].as_str().unwrap().split('-').nth(1).unwrap().to_owned();
    let at = workers.iter().position(|worker| worker.pid().to_string() == pid).unwrap();
    workers.remove(at).kill();
    wait(Duration::from_secs(60), "the other makes it", || {
        let record = task(&url, &led);
        seen.look(&record);
        record["status"] == "success"
    });
    seen.assert_rises();
    let records = [&first, &second].map(|id| done(&url, id));
    assert_eq!(file_of(&records[0]), file_of(&records[1]));
    assert_eq!(records.iter().filter(|r| r.get("cached") == Some(&json!(true))).count(), 1, "{records:#?}");

    let mut again: Value = serde_json::from_str(&args).unwrap();
    again["cache"] = "refresh".into();
    let undisturbed = done(&url, &home.enqueue("pdf.card_sheet", &again.to_string(), &[]));
    assert_ne!(undisturbed.get("cached"), Some(&json!(true)));
    assert_eq!(file_of(&undisturbed), file_of(&records[0]), "equal jobs of two processes give one file");

    let left: Vec<PathBuf> = std::fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().path()).collect();
    for dir in &left {
        // As if an hour had passed: what is young may be of a worker that is just starting.
        assert!(std::process::Command::new("touch").args(["-d", "1 hour ago"]).arg(dir).status().unwrap().success());
    }
    drop(workers);
    let _worker = home.worker("pdf", &["--slots", "1"]);
    done(&url, &home.enqueue("pdf.calibration", "{}", &[]));
    assert!(left.iter().all(|dir| !dir.exists()), "{left:?}");
}

/// §8.15: at 30 % it is cancelled: it stops within a card's time, nothing of it is left, and the worker
/// takes the next job.
#[test]
fn a_cancelled_sheet_stops_at_once_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let home = Home::on(shared_redis()).with("TMPDIR", scratch.path().to_str().unwrap());
    let (_up, url) = home.serve(&["up", "--queues", "pdf", "--slots", "1"]);
    let id = home.enqueue("pdf.card_sheet", &long(&url).to_string(), &[]);
    let mut seen = Seen::default();
    wait(SOON, "a third of it is done", || seen.look(&task(&url, &id)) >= 30.0);
    assert!(!files(scratch.path()).is_empty());
    let begun = Instant::now();
    ureq::delete(format!("{url}/api/tasks/{id}")).call().unwrap();
    wait(SOON, "it is cancelled", || task(&url, &id)["status"] == "cancelled");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "cancelled after {took:?}");
    wait(SOON, "its files are gone", || files(scratch.path()).is_empty());
    done(&url, &home.enqueue("pdf.calibration", "{}", &[]));
    let record = task(&url, &id);
    assert!(record.get("result").is_none_or(Value::is_null), "{record:#}");
}

/// §8.9: an equal job is answered without a run; when its file is damaged or gone it is made anew, the
/// same.
#[test]
fn a_known_sheet_is_answered_and_a_damaged_one_made_again() {
    let home = Home::embedded();
    let (_up, url) = home.serve(&["up"]);
    let fronts: Vec<Value> = (0..8).map(|n| json!({"front": blob(&url, &card(n))})).collect();
    let args = json!({"cards": fronts}).to_string();
    let run = || done(&url, &home.enqueue("pdf.card_sheet", &args, &[]));
    let first = run();
    let id = file_of(&first).to_owned();
    let hex = id.strip_prefix("sha256:").unwrap().to_owned();
    let known = run();
    assert_eq!((known["cached"].as_bool(), file_of(&known)), (Some(true), id.as_str()), "{known:#}");
    // The times are those of the run that was: nothing was decoded for this answer.
    assert_eq!(known["result"]["value"]["ms"], first["result"]["value"]["ms"]);

    let stored = || -> PathBuf {
        let all = files(&home.path().join("windlass-data/artifacts"));
        all.into_iter().find(|path| path.to_str().unwrap().contains(&hex)).expect("the file is kept")
    };
    let whole = std::fs::read(stored()).unwrap();
    let damages: [fn(&Path, &[u8]); 3] = [
        |path, whole| std::fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        |path, whole| std::fs::write(path, vec![7; whole.len()]).unwrap(),
        |path, _| std::fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        damage(&stored(), &whole);
        let rebuilt = run();
        assert_ne!(rebuilt.get("cached"), Some(&json!(true)), "{rebuilt:#}");
        assert_eq!(file_of(&rebuilt), id);
        let task = rebuilt["task_id"].as_str().unwrap();
        let (status, sent) = bytes(&format!("{url}/api/tasks/{task}/result"));
        assert!(status == 200 && sent == whole, "{status}");
    }
}

/// §8.10: a disk that is full while the file is written ends in a failed job, never in a short PDF.
#[test]
fn a_full_disk_leaves_no_short_pdf() {
    let home = Home::on(shared_redis());
    let at = home.path().join("small");
    let Some(_disk) = SmallDisk::mount(&at, "size=8m,mode=1777") else {
        eprintln!("SKIPPED: no right to mount a file system");
        return;
    };
    let home = home.with("TMPDIR", at.to_str().unwrap());
    let (_up, url) = home.serve(&["up", "--queues", "pdf", "--slots", "1"]);
    // Five megabytes go in and would come out again.
    let large = blob(&url, &png(1300, 1300, [10, 20, 30]));
    let args = json!({"cards": [{"front": large}], "sides": "fronts", "bleed": "none", "png": "lossless"});
    let id = home.enqueue("pdf.card_sheet", &args.to_string(), &["--max-attempts", "1"]);
    let record = home.wait_for(&id, "failure");
    assert_eq!(record["error"]["code"], "storage", "{record:#}");
    assert!(record["error"]["message"].as_str().unwrap().contains("No space"), "{record:#}");
    assert_eq!(bytes(&format!("{url}/api/tasks/{id}/result")).0 / 100, 4, "nothing is answered as its result");
    let fits = json!({"cards": [{"front": blob(&url, &card(1))}]});
    done(&url, &home.enqueue("pdf.card_sheet", &fits.to_string(), &[]));
}
