//! How a worker's slots are shared: by queue, by weight, by kind, by declared memory.

use std::time::Duration;

use serde_json::{Value, json};
use windlass_jobs::{JobId, JobRecord, NewJob, State};
use windlass_testkit::shared_redis;

use crate::faults::{Direct, sleep_job};
use crate::harness::{Home, SOON, wait};

/// A run's end is written a little after it, when its room may be taken already.
const WRITTEN_WITHIN_MS: i64 = 30;

fn home() -> Home {
    Home::on(shared_redis())
}

fn memory_job(mib: u64, ms: u64) -> NewJob {
    NewJob::new("probe.memory", &json!({ "mib": mib, "ms": ms })).unwrap()
}

/// How many of these jobs ran at once at most, by the server's clock.
fn most_at_once(direct: &Direct, ids: &[JobId]) -> i32 {
    let mut edges = Vec::new();
    for id in ids {
        let record = direct.get(id);
        assert_eq!((record.state, record.failures, record.deliveries), (State::Success, 0, 1), "{record:?}");
        edges.push((record.started_at.unwrap().0, 1));
        edges.push((record.finished_at.unwrap().0 - WRITTEN_WITHIN_MS, -1));
    }
    edges.sort();
    let mut now = 0;
    edges
        .iter()
        .map(|(_, step)| {
            now += step;
            now
        })
        .max()
        .unwrap_or(0)
}

/// While two queues have jobs, their starts stand to each other as their weights; what one does not
/// use the other gets.
#[test]
fn queues_share_a_worker_by_weight() {
    let home = home().with("WINDLASS_QUEUE_WEIGHTS", "heavy=3,light=1");
    let (heavy, light) = (Direct::to(&home, "heavy"), Direct::to(&home, "light"));
    let jobs = || (0..120).map(|_| sleep_job(20)).collect::<Vec<_>>();
    let (heavy_ids, light_ids) = (heavy.enqueue(&jobs()), light.enqueue(&jobs()));
    let _worker = home.worker("heavy,light", &["--slots", "4"]);
    heavy.wait_drained(SOON);
    light.wait_drained(SOON);
    let start = |direct: &Direct, id: &JobId| direct.get(id).started_at.unwrap();
    let mut starts: Vec<_> = heavy_ids.iter().map(|id| (start(&heavy, id), 1)).collect();
    starts.extend(light_ids.iter().map(|id| (start(&light, id), 0)));
    starts.sort();
    let of_heavy: i32 = starts[..100].iter().map(|(_, heavy)| heavy).sum();
    assert!((65..=85).contains(&of_heavy), "{of_heavy} of the first 100 starts");
}

/// A queue and a kind never have more than their slots; the others have theirs meanwhile, and
/// nothing is charged to a job that was held back.
#[test]
fn queues_and_kinds_keep_to_their_slots() {
    let home = home().with("WINDLASS_QUEUE_SLOTS", "narrow=1").with("WINDLASS_KIND_SLOTS", "probe.memory=2");
    let (narrow, wide) = (Direct::to(&home, "narrow"), Direct::to(&home, "wide"));
    let narrow_ids = narrow.enqueue(&(0..6).map(|_| sleep_job(60)).collect::<Vec<_>>());
    let wide_ids = wide.enqueue(&(0..12).map(|_| sleep_job(60)).collect::<Vec<_>>());
    let kind_ids = wide.enqueue(&(0..6).map(|_| memory_job(0, 60)).collect::<Vec<_>>());
    let after = wide.enqueue(&[sleep_job(1)]);
    let worker = home.worker("narrow,wide", &["--slots", "6"]);
    narrow.wait_drained(SOON);
    wide.wait_drained(SOON);
    assert_eq!(most_at_once(&narrow, &narrow_ids), 1);
    assert!(most_at_once(&wide, &wide_ids) >= 3, "the others are not held back");
    assert_eq!(most_at_once(&wide, &kind_ids), 2);
    assert_eq!(wide.get(&after[0]).state, State::Success);
    drop(worker);
}

/// Running jobs never declare more than the budget together; a large one gets its turn among small
/// ones of another queue; one that is larger than the budget is left to larger workers.
#[test]
fn declared_memory_stays_within_the_budget() {
    let home = home().with("WINDLASS_MEMORY_MIB", "100").with("WINDLASS_PARK_SECONDS", "1");
    let (small, large) = (Direct::to(&home, "small"), Direct::to(&home, "large"));
    let small_ids = small.enqueue(&(0..16).map(|_| memory_job(40, 80)).collect::<Vec<_>>());
    let large_ids = large.enqueue(&[memory_job(90, 80), memory_job(90, 80)]);
    let too_large = large.enqueue(&[memory_job(101, 1)]).remove(0);
    let worker = home.worker("small,large", &["--slots", "8"]);
    small.wait_drained(SOON);
    wait(SOON, "the large ones are done", || large_ids.iter().all(|id| large.get(id).state == State::Success));
    assert!(most_at_once(&small, &small_ids) <= 2);
    assert_eq!(most_at_once(&large, &large_ids), 1);
    for big in &large_ids {
        let big = large.get(big);
        let beside = small_ids.iter().map(|id| small.get(id)).filter(|one| {
            let before =
                |a: &JobRecord, b: &JobRecord| a.finished_at.unwrap().0 - WRITTEN_WITHIN_MS <= b.started_at.unwrap().0;
            !before(one, &big) && !before(&big, one)
        });
        assert_eq!(beside.count(), 0, "90 and 40 are over 100");
    }
    wait(SOON, "the one that fits nowhere is parked", || large.counts().parked == 1);
    assert_eq!((large.get(&too_large).state, large.get(&too_large).failures), (State::Pending, 0));
    drop(worker);
    let home = Home::clone_of(&home).with("WINDLASS_MEMORY_MIB", "200");
    let _larger = home.worker("large", &[]);
    wait(SOON, "a larger worker runs it", || large.get(&too_large).state == State::Success);
}

/// A held queue does not keep a worker busy: while it waits for room, hardly anything is claimed.
#[test]
fn a_held_queue_is_left_alone() {
    let home = home().with("WINDLASS_KIND_SLOTS", "probe.sleep=1");
    let direct = Direct::to(&home, "probe");
    let ids = direct.enqueue(&(0..3).map(|_| sleep_job(1_500)).collect::<Vec<_>>());
    let _worker = home.worker("probe", &["--slots", "4"]);
    wait(SOON, "one runs", || direct.counts().running == 1);
    std::thread::sleep(Duration::from_millis(600));
    let epochs = |ids: &[JobId]| ids.iter().map(|id| direct.get(id).epoch).sum::<u32>();
    let before = epochs(&ids);
    std::thread::sleep(Duration::from_millis(500));
    assert!(epochs(&ids) <= before + 1, "claimed and given back {} times in half a second", epochs(&ids) - before);
    direct.wait_drained(SOON);
    let task: Value = home.task(&ids[2].to_string());
    assert_eq!((&task["status"], &task["attempt"]), (&json!("success"), &json!(1)), "{task:#}");
}

/// F50: among 1,000 queues of one worker, of which one always has more than it can do, a job of a quiet
/// one starts within a second.
#[test]
fn f50_a_hot_queue_does_not_starve_a_thousand_quiet_ones() {
    const QUIET: usize = 999;
    let home = home();
    let names: Vec<String> = (0..QUIET).map(|n| format!("quiet-{n}")).collect();
    let hot = Direct::to(&home, "hot");
    hot.enqueue(&(0..3_000).map(|_| sleep_job(5)).collect::<Vec<_>>());
    let _worker = home.worker(&format!("hot,{}", names.join(",")), &["--slots", "4"]);
    wait(SOON, "the hot queue is worked on", || hot.counts().success_total > 20);
    let mut waits = Vec::new();
    for name in names.iter().step_by(QUIET / 12) {
        let quiet = Direct::to(&home, name);
        let id = quiet.enqueue(&[sleep_job(1)]).remove(0);
        wait(SOON, "the quiet job is done", || quiet.get(&id).state == State::Success);
        let record = quiet.get(&id);
        waits.push(record.started_at.unwrap().since(record.created_at));
    }
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!("{} quiet jobs beside {} hot ones: the longest wait was {longest:?}", waits.len(), hot.counts().pending);
    assert!(hot.counts().pending > 0, "the hot queue ran dry: nothing was shown");
    assert!(longest < Duration::from_secs(1), "{waits:?}");
}
