//! F35, F36: schedulers at work, on the model broker and a store of records.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_broker::{Broker, Inspect as _, Leases as _};
use windlass_jobs::command::{Claim, Exchange, Finish, Settle};
use windlass_jobs::{JobId, JobRecord, Queue, State as JobState, Timestamp, Violation};
use windlass_scheduler::{
    Book, Definition, Entry, Error, Kinds, Missed, Origin, Overlap, Runner, RunnerOptions, SPACE, STATES, State, What,
};
use windlass_store::records::{Batch, Expect, Records, SqliteRecords, Write};
use windlass_testkit::ModelBroker;

const SOON: Duration = Duration::from_secs(20);

struct Known;

impl Kinds for Known {
    fn queue(&self, kind: &str) -> Option<Queue> {
        (kind == "probe.noop").then(|| Queue::new("probe").unwrap())
    }
    fn check(&self, _: &str, args: &Value) -> Vec<Violation> {
        let fits = args.as_object().is_some_and(|args| args.is_empty());
        if fits { Vec::new() } else { vec![Violation::new("/x", "unknown_field", "no such field")] }
    }
    fn names(&self) -> Vec<String> {
        vec!["probe.noop".to_owned()]
    }
}

struct World {
    _dir: tempfile::TempDir,
    broker: Arc<ModelBroker>,
    records: Arc<dyn Records>,
    book: Book,
}

fn world() -> World {
    let broker = Arc::new(ModelBroker::default());
    let dir = tempfile::tempdir().unwrap();
    let records: Arc<dyn Records> = Arc::new(SqliteRecords::new(&dir.path().join("records.db")));
    let book = Book::new(Arc::clone(&records), Arc::clone(&broker) as Arc<dyn Broker>, Arc::new(Known));
    World { _dir: dir, broker, records, book }
}

fn every_second(name: &str, overlap: Overlap) -> Definition {
    Definition { overlap, ..Definition::new(name, "@every 1s", "probe.noop") }
}

impl World {
    fn runner(&self) -> Runner {
        Runner::start(&self.book, &RunnerOptions::default())
    }

    /// Every job there is, by schedule and tick.
    async fn jobs(&self) -> BTreeMap<(String, i64), JobRecord> {
        let queue = Queue::new("probe").unwrap();
        let mut all = BTreeMap::new();
        for state in JobState::ALL {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let page = self.broker.list(&queue, state, from, 500).await.unwrap();
                for ulid in page.ids {
                    let Some(job) = self.broker.get(&JobId::new(ulid, queue.clone())).await.unwrap() else { continue };
                    let tick = i64::try_from(ulid.timestamp_ms()).unwrap();
                    all.insert((job.options.labels["schedule"].clone(), tick), job);
                }
                cursor = page.next;
            }
        }
        all
    }

    /// Claims one job and ends it well.
    async fn finish_one(&self) -> Option<JobId> {
        let queue = Queue::new("probe").unwrap();
        let claim = Claim {
            worker: "w".into(),
            max: 1,
            lease: Duration::from_secs(60),
            grace: false,
            sent_at: None,
            quotas: None,
        };
        let claimed = self.broker.exchange(&queue, &Exchange { finishes: vec![], claim: Some(claim) }).await.unwrap();
        let lease = claimed.claimed.first()?.lease;
        let settle = Settle::Success { result: None, skipped: false };
        let finishes = vec![Finish { lease, settle }];
        self.broker.exchange(&queue, &Exchange { finishes, claim: None }).await.unwrap();
        Some(JobId::new(lease.ulid, queue))
    }

    /// Pretends that a schedule was settled up to an instant.
    async fn set_back(&self, name: &str, cursor: Timestamp) {
        let state = State { cursor, ..State::default() };
        let mut kept = self.book.get(name).await.unwrap().kept;
        kept.from = cursor;
        let put = |set, json| Write::Put { set, name: name.into(), json, expect: Expect::Any };
        let writes = vec![
            put(windlass_scheduler::SCHEDULES, serde_json::to_string(&kept).unwrap()),
            put(STATES, serde_json::to_string(&state).unwrap()),
        ];
        self.records.write(SPACE, &Batch { notify: true, writes, ..Batch::default() }).await.unwrap();
    }

    async fn ledger(&self, name: &str) -> Vec<Entry> {
        let mut entries = self.book.history(name, 0, 100).await.unwrap();
        entries.reverse();
        entries
    }
}

#[track_caller]
fn wait<F: Future<Output = bool>>(what: &'static str, mut condition: impl FnMut() -> F) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < SOON, "{caller}: not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Ticks of a one-second schedule, each once and none left out.
fn assert_gapless(jobs: &BTreeMap<(String, i64), JobRecord>, name: &str) -> usize {
    let ticks: Vec<i64> = jobs.keys().filter(|(of, _)| of == name).map(|(_, tick)| *tick).collect();
    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 1_000), "{name}: {ticks:?}");
    ticks.len()
}

/// F36: of several schedulers one works; when it is gone another goes on within 5 s, and every
/// tick is one job.
#[tokio::test(flavor = "multi_thread")]
async fn f36_each_tick_is_one_job_whoever_leads() {
    let world = world();
    for name in ["a", "b", "c"] {
        world.book.create(every_second(name, Overlap::Allow)).await.unwrap();
    }
    let (first, second) = (world.runner(), world.runner());
    wait("ticks are fired", async || world.jobs().await.len() >= 6).await;
    let leads = |runner: &Runner| runner.counters().read().contains(&("scheduler_leading_now", 1));
    assert!(leads(&first) != leads(&second), "one of them leads");
    // Its process dies: nobody gives the lease back.
    let (dead, alive) = if leads(&first) { (first, second) } else { (second, first) };
    let before = world.jobs().await.len();
    // As kill -9 does it: the tasks end in the middle.
    dead.abort().await;
    let died = Instant::now();
    wait("another goes on", async || world.jobs().await.len() > before + 3).await;
    assert!(died.elapsed() < Duration::from_secs(5), "{:?}", died.elapsed());
    let until = Instant::now();
    wait("all is caught up", async || until.elapsed() > Duration::from_millis(1_500)).await;
    alive.stop().await;
    let jobs = world.jobs().await;
    for name in ["a", "b", "c"] {
        assert!(assert_gapless(&jobs, name) >= 3);
        let view = world.book.get(name).await.unwrap();
        assert!(view.overdue.is_none() && view.state.fired_total >= 3);
        for entry in world.ledger(name).await {
            assert_eq!(entry.what, What::Fired);
            let job = &jobs[&(name.to_owned(), entry.planned_ms)];
            assert_eq!(entry.job.as_ref(), Some(&job.id));
            assert!(job.created_at.0 >= entry.planned_ms - 1, "never early");
        }
    }
}

/// A clean stop hands over at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_hands_over_at_once() {
    let world = world();
    let first = world.runner();
    let led = |runner: &Runner| runner.counters().read().contains(&("scheduler_leading_now", 1));
    world.book.create(every_second("a", Overlap::Allow)).await.unwrap();
    wait("it leads", async || led(&first)).await;
    let second = world.runner();
    first.stop().await;
    let stopped = Instant::now();
    wait("the other leads", async || led(&second)).await;
    assert!(stopped.elapsed() < Duration::from_millis(1_500), "{:?}", stopped.elapsed());
    second.stop().await;
}

/// F35: down for an hour, each schedule's rule decides, and the ledger says what was not done.
#[tokio::test(flavor = "multi_thread")]
async fn f35_what_was_missed_is_made_up_by_rule() {
    let world = world();
    let hourly = |name: &str, missed| Definition {
        missed,
        overlap: Overlap::Allow,
        ..Definition::new(name, "*/10 * * * *", "probe.noop")
    };
    let all = Missed::All { max: 3, window_ms: 7_200_000 };
    let ago = Timestamp(Timestamp::now().0 - 3_600_000);
    for (name, missed) in [("skip", Missed::Skip), ("latest", Missed::Latest), ("all", all)] {
        world.book.create(hourly(name, missed)).await.unwrap();
        world.set_back(name, ago).await;
        assert!(world.book.get(name).await.unwrap().overdue.is_some(), "nobody schedules: that can be seen");
    }
    let runner = world.runner();
    for (name, fired) in [("skip", 0), ("latest", 1), ("all", 3)] {
        wait("the past is settled", async || world.book.get(name).await.unwrap().overdue.is_none()).await;
        let view = world.book.get(name).await.unwrap();
        let total = view.state.fired_total + view.state.missed_total;
        assert!(total == 6 || total == 7, "{name}: {total} ticks in an hour");
        // A tick may have come due meanwhile.
        assert!((fired..=fired + 1).contains(&view.state.fired_total), "{name}: {:?}", view.state);
        let ledger = world.ledger(name).await;
        let missed: u64 = ledger.iter().filter_map(|e| e.range.map(|(_, count)| count)).sum();
        assert_eq!(missed, view.state.missed_total, "{name}: {ledger:?}");
        assert_eq!(ledger[0].what, What::Missed);
    }
    runner.stop().await;
}

/// A run that has not ended: skipped, held, replaced or let run, as each schedule says.
#[tokio::test(flavor = "multi_thread")]
async fn overlapping_runs_follow_the_schedules_rule() {
    let world = world();
    let rules =
        [("allow", Overlap::Allow), ("queue", Overlap::Queue), ("replace", Overlap::Replace), ("skip", Overlap::Skip)];
    for (name, overlap) in rules {
        world.book.create(every_second(name, overlap)).await.unwrap();
    }
    let runner = world.runner();
    wait("some ticks have passed", async || world.jobs().await.keys().filter(|(name, _)| name == "allow").count() >= 4)
        .await;
    let of = |jobs: &BTreeMap<(String, i64), JobRecord>, name: &str, state| {
        jobs.iter().filter(|((of, _), job)| of == name && job.state == state).count()
    };
    let jobs = world.jobs().await;
    assert_eq!(of(&jobs, "skip", JobState::Pending), 1);
    assert_eq!(of(&jobs, "queue", JobState::Pending), 1);
    assert_eq!(of(&jobs, "replace", JobState::Pending), 1);
    assert!(of(&jobs, "replace", JobState::Cancelled) >= 2);
    let view = world.book.get("skip").await.unwrap();
    assert!(view.state.skipped_total >= 2 && view.state.fired_total == 1, "{:?}", view.state);
    assert!(world.book.get("queue").await.unwrap().state.held.len() >= 2);
    // The runs end: what was held is enqueued, in order, one after the other.
    for _ in 0..3 {
        let before = world.jobs().await.keys().filter(|(name, _)| name == "queue").count();
        while world.finish_one().await.is_some() {}
        wait("the next one is enqueued", async || {
            world.jobs().await.keys().filter(|(name, _)| name == "queue").count() > before
        })
        .await;
    }
    runner.stop().await;
    assert_gapless(&world.jobs().await, "queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_set_changed_paused_run_and_forgotten_while_they_run() {
    let world = world();
    let runner = world.runner();
    world.book.create(every_second("a", Overlap::Allow)).await.unwrap();
    assert!(matches!(world.book.create(every_second("a", Overlap::Allow)).await, Err(Error::Exists(_))));
    let count = async || world.jobs().await.len();
    wait("it fires", async || count().await >= 2).await;

    assert_eq!(world.book.pause("a", true).await.unwrap().status(), "paused");
    let paused_at = Timestamp::now();
    wait("it rests", async || Timestamp::now().since(paused_at) > Duration::from_secs(3)).await;
    let rested = count().await;
    let id = world.book.run("a").await.unwrap();
    assert_eq!(count().await, rested + 1, "by hand it runs all the same");
    assert_eq!(world.ledger("a").await.last().unwrap().job, Some(id.clone()));
    let resumed = world.book.pause("a", false).await.unwrap();
    wait("it goes on", async || count().await >= rested + 3).await;
    let jobs = world.jobs().await;
    let rest = (paused_at.0 + 2_000)..resumed.kept.from.0;
    let made_up = jobs.iter().filter(|((_, tick), job)| rest.contains(tick) && job.id != id).count();
    assert_eq!(made_up, 0, "the rest is not made up for");

    let hourly = Definition::new("a", "@hourly", "probe.noop");
    assert_eq!(world.book.change(hourly).await.unwrap().kept.definition.plan, "@hourly");
    world.book.remove("a").await.unwrap();
    assert!(matches!(world.book.get("a").await, Err(Error::NotFound(_))));
    assert!(matches!(world.book.run("a").await, Err(Error::NotFound(_))));
    let known = |n| runner.counters().read().contains(&("scheduler_schedules_now", n));
    wait("the runner forgets it", async || known(0)).await;
    runner.stop().await;
    assert!(world.records.all(SPACE, STATES).await.unwrap().is_empty(), "nothing is left");
    assert!(world.records.log(SPACE, "a", 0, 10).await.unwrap().is_empty());
}

/// Settings are the truth about what came from them: added, changed, removed; a pause stays.
#[tokio::test]
async fn the_settings_file_is_synchronised() {
    let world = world();
    let (a, b) = (Definition::new("a", "@daily", "probe.noop"), Definition::new("b", "@daily", "probe.noop"));
    world.book.create(Definition::new("mine", "@daily", "probe.noop")).await.unwrap();
    let synced = world.book.sync(Origin::Settings, &[a.clone(), b.clone()]).await.unwrap();
    assert_eq!(synced.added, ["a", "b"]);
    assert!(world.book.sync(Origin::Settings, &[a.clone(), b.clone()]).await.unwrap().is_empty());
    world.book.pause("a", true).await.unwrap();
    let from = world.book.get("a").await.unwrap().kept.from;
    let later = Definition { max_attempts: Some(7), ..a };
    let synced = world.book.sync(Origin::Settings, &[later]).await.unwrap();
    assert_eq!((synced.changed, synced.removed), (vec!["a".to_owned()], vec!["b".to_owned()]));
    let view = world.book.get("a").await.unwrap();
    assert!(view.kept.paused && view.kept.from == from, "the same times go on");
    assert!(matches!(world.book.change(b.clone()).await, Err(Error::NotFound(_))));
    assert!(matches!(world.book.remove("a").await, Err(Error::Managed { .. })));
    let names: Vec<String> = world.book.all().await.unwrap().into_iter().map(|v| v.kept.definition.name).collect();
    assert_eq!(names, ["a", "mine"]);

    // A time that is over is right in a file that is read at every start; a wrong plan never is.
    let over = Definition::new("once", "@at 2020-01-01T00:00", "probe.noop");
    world.book.sync(Origin::Settings, std::slice::from_ref(&over)).await.unwrap();
    assert_eq!(world.book.get("once").await.unwrap().status(), "done");
    let wrong = Definition::new("wrong", "61 * * * *", "probe.noop");
    let Err(Error::Refused(found)) = world.book.sync(Origin::Settings, &[b, wrong]).await else { panic!("refused") };
    assert_eq!(found[0].path, "wrong/plan");
    assert!(world.book.get("b").await.is_err(), "nothing of it was done");
}

/// A built-in schedule can be retimed and switched off; the program then leaves it alone.
#[tokio::test]
async fn built_in_schedules_can_be_retimed_and_switched_off() {
    let world = world();
    let tidy = Definition::new("windlass.tidy", "@hourly", "probe.noop");
    world.book.sync(Origin::Builtin, std::slice::from_ref(&tidy)).await.unwrap();
    assert!(matches!(world.book.remove("windlass.tidy").await, Err(Error::Managed { .. })));
    world.book.pause("windlass.tidy", true).await.unwrap();
    world.book.change(Definition { plan: "@daily".into(), ..tidy.clone() }).await.unwrap();
    assert!(world.book.sync(Origin::Builtin, std::slice::from_ref(&tidy)).await.unwrap().is_empty());
    let view = world.book.get("windlass.tidy").await.unwrap();
    assert!(view.kept.paused && view.kept.definition.plan == "@daily");
    assert!(matches!(
        world.book.create(Definition { name: "windlass.x".into(), ..tidy }).await,
        Err(Error::Refused(_))
    ));
}

/// B14: refused with the reason when it is set, and nothing is kept.
#[tokio::test]
async fn b14_wrong_schedules_are_refused_when_they_are_set() {
    let world = world();
    let check = async |path: &str, code: &str, change: &dyn Fn(&mut Definition)| {
        let mut definition = Definition::new("a", "@daily", "probe.noop");
        change(&mut definition);
        let Err(Error::Refused(wrong)) = world.book.create(definition).await else { panic!("{path} is not refused") };
        assert!(wrong.iter().any(|v| v.path == path && v.code == code), "{path} {code}: {wrong:?}");
    };
    check("/name", "name_invalid", &|d| d.name = "A b".into()).await;
    check("/plan", "never_fires", &|d| d.plan = "0 0 31 2 *".into()).await;
    check("/plan", "never_fires", &|d| d.plan = "@at 2020-01-01T00:00".into()).await;
    check("/plan", "never_fires", &|d| d.ends_at = Some(Timestamp(0))).await;
    check("/plan", "plan_too_long", &|d| d.plan = "1,".repeat(5_120)).await;
    check("/plan", "interval_out_of_range", &|d| d.plan = "@every 100ms".into()).await;
    check("/zone", "zone_unknown", &|d| d.zone = "Mars/Phobos".into()).await;
    check("/kind", "unknown_kind", &|d| d.kind = "no.such".into()).await;
    check("/args/x", "unknown_field", &|d| d.args = json!({ "x": 1 })).await;
    check("/args", "args_too_large", &|d| d.args = json!({ "x": "y".repeat(70_000) })).await;
    check("/jitter_ms", "out_of_range", &|d| {
        d.plan = "@every 5s".into();
        d.jitter_ms = 5_000;
    })
    .await;
    check("/grace_ms", "out_of_range", &|d| d.grace_ms = 86_400_001).await;
    check("/missed/all/max", "out_of_range", &|d| d.missed = Missed::All { max: 0, window_ms: 1_000 }).await;
    check("/max_attempts", "out_of_range", &|d| d.max_attempts = Some(0)).await;
    check("/labels", "label_invalid", &|d| {
        d.labels.insert("schedule".into(), "x".into());
    })
    .await;
    check("/ends_at", "out_of_range", &|d| {
        d.starts_at = Some(Timestamp(2));
        d.ends_at = Some(Timestamp(1));
    })
    .await;
    assert!(world.book.all().await.unwrap().is_empty());
}

/// The next ten firings can be asked for, of what is kept and of what is not.
#[tokio::test]
async fn the_next_ten_firings_can_be_asked_for() {
    let world = world();
    let berlin = Definition { zone: "Europe/Berlin".into(), ..Definition::new("a", "30 2 * * *", "probe.noop") };
    let preview = world.book.preview(&berlin, 10).await.unwrap();
    world.book.create(berlin).await.unwrap();
    let next = world.book.next("a", 10).await.unwrap();
    assert_eq!((next.len(), &next), (10, &preview));
    assert!(next.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let view = world.book.get("a").await.unwrap();
    assert_eq!(view.next, next.first().copied());
    assert_eq!(view.to_json()["next_at"], json!(next[0].0));
}
