//! F18, F35, F36: schedules with the real binary: the settings file, the command line, any number
//! of schedulers, and what happens to all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use windlass_broker::Inspect as _;
use windlass_jobs::{JobId, JobRecord, Timestamp};
use windlass_testkit::{RedisSentinels, RedisServer};

use crate::faults::Direct;
use crate::harness::{Daemon, Home, SOON, wait};

/// One-second schedules whose every tick is to be one job.
const SETTINGS: &str = "
[[schedule]]
name = 'one'
plan = '@every 1s'
kind = 'probe.noop'
overlap = 'allow'
missed = { all = { max = 1000, window_ms = 600000 } }
[[schedule]]
name = 'two'
plan = '* * * * * *'
zone = 'Europe/Berlin'
kind = 'probe.noop'
overlap = 'allow'
missed = { all = { max = 1000, window_ms = 600000 } }
";

/// How long the storm lasts: the long form is `tests/soak scheduler`.
fn storm_lasts() -> Duration {
    let seconds = std::env::var("WINDLASS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(16))
}

/// The Redis of a fleet.
enum Store {
    /// One, which keeps everything on disk.
    One(RedisServer),
    /// A primary with two replicas and three sentinels.
    Set(RedisSentinels),
}

impl Store {
    /// What befalls a server: a restart, or another one that takes over.
    fn replace(&self) {
        match self {
            Self::One(redis) => redis.restart(),
            Self::Set(set) => set.fail_over(),
        }
    }

    /// The server that is asked.
    fn server(&self) -> &RedisServer {
        match self {
            Self::One(redis) => redis,
            Self::Set(set) => set.primary(),
        }
    }
}

/// Schedulers on one store, and what befalls them.
struct Fleet {
    home: Home,
    redis: Store,
    direct: Direct,
    replicas: Vec<Daemon>,
    /// Stopped by SIGSTOP, and until when.
    frozen: Vec<(usize, Instant)>,
}

impl Fleet {
    fn start(replicas: usize, redis: Store) -> Self {
        let home = match &redis {
            Store::One(redis) => Home::on(redis),
            // With a queue spread over shards elsewhere: a fail-over is noticed all the same.
            Store::Set(set) => Home::at(&set.url()).with("WINDLASS_QUEUE_SHARDS", "elsewhere=2"),
        };
        home.file("windlass.toml", SETTINGS);
        let direct = Direct::to(&home, "probe");
        let replicas = (0..replicas).map(|_| home.start(&["scheduler"])).collect();
        Self { home, redis, direct, replicas, frozen: Vec::new() }
    }

    /// Every job of the two schedules, by schedule and tick.
    fn jobs(&self) -> BTreeMap<(String, i64), JobRecord> {
        let direct = &self.direct;
        let mut jobs = BTreeMap::new();
        for state in windlass_jobs::State::ALL {
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let page = direct.read(async |broker| broker.list(&direct.queue, state, from, 500).await);
                for ulid in page.ids {
                    let id = JobId::new(ulid, direct.queue.clone());
                    let Some(job) = direct.read(async |broker| broker.get(&id).await) else { continue };
                    let tick = i64::try_from(ulid.timestamp_ms()).unwrap();
                    jobs.insert((job.options.labels["schedule"].clone(), tick), job);
                }
                cursor = page.next;
            }
        }
        jobs
    }

    fn enqueued(&self) -> u64 {
        self.direct.counts().enqueued_total
    }

    /// Which replica leads, by the lease and the replicas' logs.
    fn leader(&self) -> Option<usize> {
        let key = format!("{}:{{rec:sched}}:lease", self.direct.prefix);
        let holder = self.direct.text(&["HGET", &key, "holder"]);
        (0..self.replicas.len()).find(|i| !holder.is_empty() && self.replicas[*i].log().contains(&holder))
    }

    fn is_frozen(&self, replica: usize) -> bool {
        self.frozen.iter().any(|(i, _)| *i == replica)
    }

    fn thaw(&mut self, all: bool) {
        let replicas = &self.replicas;
        self.frozen.retain(|(i, until)| {
            let over = all || Instant::now() >= *until;
            if over {
                replicas[*i].signal(Signal::CONT);
            }
            !over
        });
    }

    /// One fault; they take turns, and most of them meet the leader.
    fn strike(&mut self, turn: usize) {
        let leader = self.leader().unwrap_or(0);
        match turn % 4 {
            0 if !self.is_frozen(leader) => {
                self.replicas[leader].signal(Signal::STOP);
                // Longer than a lease, and as long as not to be noticed.
                let span = [4_000, 900, 6_000, 2_600][turn / 4 % 4];
                self.frozen.push((leader, Instant::now() + Duration::from_millis(span)));
            }
            1 if !self.is_frozen(leader) => {
                let fresh = self.home.start(&["scheduler"]);
                std::mem::replace(&mut self.replicas[leader], fresh).kill();
            }
            2 => self.redis.replace(),
            3 => {
                let server = self.redis.server();
                server.freeze();
                // Long enough for sentinels to make another one the primary.
                std::thread::sleep(Duration::from_millis(1_200));
                server.thaw();
            }
            _ => {}
        }
    }
}

/// F36: whatever befalls them, each tick is one job that runs once.
fn storm(replicas: usize, redis: Store) {
    let mut fleet = Fleet::start(replicas, redis);
    let _worker = fleet.home.worker("probe", &["--slots", "4"]);
    wait(SOON, "ticks are fired", || fleet.enqueued() >= 4);
    let (begun, mut turn, mut next) = (Instant::now(), 0, Instant::now() + Duration::from_secs(1));
    while begun.elapsed() < storm_lasts() {
        fleet.thaw(false);
        if Instant::now() >= next {
            fleet.strike(turn);
            turn += 1;
            next = Instant::now() + Duration::from_millis(3_700);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fleet.thaw(true);
    // The calm after it: what is due is caught up, and goes on.
    let calm = Timestamp::now();
    let reached = |fleet: &Fleet, name: &str| {
        fleet.jobs().iter().any(|((of, tick), job)| of == name && *tick > calm.0 && job.finished_at.is_some())
    };
    wait(SOON * 2, "both go on", || reached(&fleet, "one") && reached(&fleet, "two"));
    for replica in &mut fleet.replicas {
        assert!(replica.is_up(), "none ended unasked:\n{}", replica.log());
        replica.signal(Signal::TERM);
    }
    for replica in &mut fleet.replicas {
        assert!(replica.ended(SOON).success());
    }
    fleet.direct.wait_drained(SOON);
    check_ticks(&fleet, turn);
}

#[expect(clippy::print_stdout, reason = "the long form prints its figures")]
fn check_ticks(fleet: &Fleet, faults: usize) {
    let jobs = fleet.jobs();
    let mut late = Vec::new();
    for name in ["one", "two"] {
        let ticks: Vec<i64> = jobs.keys().filter(|(of, _)| of == name).map(|(_, tick)| *tick).collect();
        let gaps: Vec<i64> = ticks.windows(2).filter(|pair| pair[1] - pair[0] != 1_000).map(|pair| pair[0]).collect();
        assert!(gaps.is_empty(), "{name}: no tick follows {gaps:?} of {ticks:?}");
        assert!(ticks.len() >= 15, "{name}: {} ticks", ticks.len());
        late.extend(ticks.iter().map(|tick| jobs[&(name.to_owned(), *tick)].created_at.0 - tick));
    }
    let counts = fleet.direct.counts();
    let all = u64::try_from(jobs.len()).unwrap();
    assert_eq!((counts.enqueued_total, counts.success_total), (all, all), "each tick once: {counts:?}");
    assert!(late.iter().all(|ms| *ms >= -2), "none early: {late:?}");
    late.sort_unstable();
    let share = |part: usize| late[(late.len() - 1) * part / 100];
    println!(
        "{} replicas, {faults} faults, {all} ticks: each once; late p50 {} ms, p90 {} ms, most {} ms",
        fleet.replicas.len(),
        share(50),
        share(90),
        share(100)
    );
}

fn durable() -> Store {
    Store::One(RedisServer::builder().append_only("always").start())
}

#[test]
fn f36_two_schedulers_under_stops_kills_and_restarts_of_redis_fire_each_tick_once() {
    storm(2, durable());
}

#[test]
fn f36_five_schedulers_under_stops_kills_and_restarts_of_redis_fire_each_tick_once() {
    storm(5, durable());
}

#[test]
fn f36_two_schedulers_under_stops_kills_and_fail_overs_of_redis_fire_each_tick_once() {
    storm(2, Store::Set(RedisSentinels::start(2)));
}

/// F32: a scheduler whose clock is an hour ahead fires nothing early and nothing late: the time is
/// the server's.
#[test]
fn f32_a_scheduler_with_a_wrong_clock_fires_at_the_right_time() {
    let redis = RedisServer::start();
    let home = Home::on(&redis);
    let direct = Direct::to(&home, "probe");
    let ahead = Home::clone_of(&home).with("LD_PRELOAD", &crate::hostile::faketime()).with("FAKETIME", "+1h");
    ahead.file("windlass.toml", SETTINGS);
    let _scheduler = ahead.start(&["scheduler"]);
    wait(SOON, "ticks are fired", || direct.counts().enqueued_total >= 8);
    let page =
        direct.runtime.block_on(direct.broker.list(&direct.queue, windlass_jobs::State::Pending, 0, 100)).unwrap();
    for ulid in page.ids {
        let tick = i64::try_from(ulid.timestamp_ms()).unwrap();
        let late = direct.get(&JobId::new(ulid, direct.queue.clone())).created_at.0 - tick;
        assert!((-2..5_000).contains(&late), "{late} ms late, by the server's clock");
    }
}

/// F18: schedules survive FLUSHALL: those of the settings and those set by hand.
#[test]
fn f18_schedules_survive_a_redis_that_lost_everything() {
    let redis = RedisServer::start();
    let home = Home::on(&redis);
    home.file("windlass.toml", SETTINGS);
    let direct = Direct::to(&home, "probe");
    let _scheduler = home.start(&["scheduler"]);
    home.json(&["schedule", "add", "mine", "--plan", "@every 1s", "--kind", "probe.noop", "--overlap", "allow"]);
    home.json(&["schedule", "pause", "one"]);
    let fired = |name: &str| home.json(&["schedule", "show", name])["fired_total"].as_u64().unwrap_or(0);
    wait(SOON, "all fire", || fired("two") >= 2 && fired("mine") >= 2);
    let copied = || {
        let copies = std::fs::read_dir(home.path().join("windlass-data")).unwrap();
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let mut texts = copies.map(|entry| text(entry.unwrap().path()));
        texts.any(|text| text.contains("mine") && text.contains("paused"))
    };
    wait(SOON, "a copy is kept", copied);
    direct.call(&["FLUSHALL"]);
    let lost = Instant::now();
    let back = || home.run(&["schedule", "show", "mine", "--json"]).status.success();
    wait(SOON, "they are back", back);
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    assert_eq!(home.json(&["schedule", "show", "one"])["status"], "paused");
    let counts = || direct.counts().enqueued_total;
    let before = counts();
    wait(SOON, "they fire", || counts() >= before + 4);
}

/// One process does it all, without any server; a newcomer sees what happens.
#[test]
fn schedules_run_in_one_process_and_can_be_looked_at() {
    let home = Home::embedded();
    home.file("windlass.toml", "[[schedule]]\nname = 'tick'\nplan = '@every 1s'\nkind = 'probe.noop'\n");
    let (_up, url) = home.serve(&["up"]);
    let ran = || home.json(&["schedule", "history", "tick"])["history"].as_array().is_some_and(|h| h.len() >= 3);
    wait(SOON, "it has fired", || home.run(&["schedule", "show", "tick"]).status.success() && ran());
    let history = home.json(&["schedule", "history", "tick"])["history"].clone();
    let id = history[2]["task_id"].as_str().unwrap();
    assert_eq!(home.wait_for(id, "success")["labels"]["schedule"], "tick");
    let names = |list: &Value| -> Vec<String> {
        list["schedules"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    let built_in = || names(&home.json(&["schedule", "list"]));
    wait(SOON, "the built-in ones are there", || built_in().contains(&"windlass.retention".to_owned()));
    let body = ureq::get(format!("{url}/api/schedules")).call().unwrap().body_mut().read_to_string().unwrap();
    assert_eq!(names(&serde_json::from_str(&body).unwrap()), built_in());

    let run = home.json(&["schedule", "run", "windlass.retention"]);
    home.wait_for(run["task_id"].as_str().unwrap(), "success");
    let refused = home.run(&["schedule", "add", "x", "--plan", "0 0 31 2 *", "--kind", "probe.noop"]);
    assert!(!refused.status.success() && refused.stderr.contains("no such date"), "{refused:?}");
    let managed = home.run(&["schedule", "remove", "tick"]);
    assert!(managed.stderr.contains("settings file"), "{managed:?}");
    let metrics = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(metrics.contains("windlass_scheduler_fired_total"), "{metrics}");
}

/// B14: a wrong schedule in the settings stops the start, and is named.
#[test]
fn b14_a_wrong_schedule_in_the_settings_stops_the_start() {
    let home = Home::embedded();
    home.file("windlass.toml", "[[schedule]]\nname = 'bad'\nplan = '0 0 * * 8'\nkind = 'probe.noop'\n");
    let ran = home.run(&["scheduler"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("bad") && ran.stderr.contains("day of week"), "{ran:?}");
}
