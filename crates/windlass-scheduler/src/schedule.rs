//! A schedule as people write it: what to enqueue, when, and what to do when something is in the
//! way. With everything that can be wrong with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_jobs::{
    Backoff, JobId, NewJob, Options, Priority, Queue, Timestamp, Ulid, Violation, When, check_kind, new_ulid,
};

use crate::plan::{BadPlan, ClockChange, Plan, Zone};

/// How late a tick may be before the schedule's [`Missed`] rule decides about it.
pub const GRACE: Duration = Duration::from_secs(10);
/// The longest grace.
pub const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest jitter.
pub const MAX_JITTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The most runs [`Missed::All`] makes up for.
pub const MAX_CATCH_UP: u32 = 1_000;
/// The widest window of [`Missed::All`].
pub const MAX_WINDOW: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Ticks that wait for the run before them, under [`Overlap::Queue`].
pub const MAX_HELD: usize = 100;
/// The label that names a job's schedule; a schedule may not set it itself.
pub const LABEL: &str = "schedule";
/// The largest args of a schedule, as JSON text: they are kept with it and read with each change.
pub const MAX_ARGS_BYTES: usize = 64 * 1024;

/// What to do about ticks that are more than the grace late: the scheduler was down, or the store.
///
/// *Shape as JSON*: `"skip"`, `"latest"`, `{"all": {"max": 10, "window_ms": 3600000}}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Missed {
    /// None of them is made up for.
    Skip,
    /// The last one is, once. The default.
    #[default]
    Latest,
    /// The newest `max` of those at most `window_ms` late are.
    All {
        /// 1 to [`MAX_CATCH_UP`].
        max: u32,
        /// 1 s to [`MAX_WINDOW`], in ms.
        window_ms: u64,
    },
}

/// What to do when the run before has not ended: it waits, runs, or waits to be retried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The tick is skipped. The default.
    #[default]
    Skip,
    /// The tick waits for it, behind at most [`MAX_HELD`] others.
    Queue,
    /// Both run.
    Allow,
    /// The one before is cancelled: at once where it waits; a running one is told to stop.
    Replace,
}

/// A schedule as people write it, in TOML, JSON and on the command line. Everything but `name`,
/// `plan` and `kind` has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// `[a-z0-9_.-]{1,64}`, unique. Names that begin with `windlass.` are the built-in ones'.
    pub name: String,
    /// When; see [`Plan`].
    pub plan: String,
    /// IANA zone of the plan; default UTC.
    #[serde(default = "utc")]
    pub zone: String,
    /// What happens to local times when clocks are changed.
    #[serde(default)]
    pub clock_change: ClockChange,
    /// What is to be done.
    pub kind: String,
    /// With what; default `{}`.
    #[serde(default = "no_args")]
    pub args: Value,
    /// Where; default the kind's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Default normal.
    #[serde(default)]
    pub priority: Priority,
    /// Runs at most, the first included; default the kind's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The wait after a failed run; default the worker's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// The hard limit of one run, in ms; default the kind's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Not started so long after it was enqueued: it ends in failure, reason expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// Labels of its jobs: at most 15; `schedule` is set to its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Spreads firings: each is late by a part of this that its name and tick determine. 0 to
    /// [`MAX_JITTER`], less than the time between ticks; default 0.
    #[serde(default)]
    pub jitter_ms: u64,
    /// No tick before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// No tick after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
    /// What to do about ticks that are more than `grace_ms` late.
    #[serde(default)]
    pub missed: Missed,
    /// How late is late: default [`GRACE`], up to [`MAX_GRACE`].
    #[serde(default = "grace_ms")]
    pub grace_ms: u64,
    /// What to do when the run before has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// False: it is kept, and does not fire.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn no_args() -> Value {
    Value::Object(serde_json::Map::new())
}

fn grace_ms() -> u64 {
    u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX)
}

fn yes() -> bool {
    true
}

/// What the scheduler asks of the kinds there are.
pub trait Kinds: Send + Sync {
    /// The queue a kind's jobs go to by default; `None` when the kind is not known.
    fn queue(&self, kind: &str) -> Option<Queue>;
    /// Everything wrong with a known kind's args; paths start at the args.
    fn check(&self, kind: &str, args: &Value) -> Vec<Violation>;
    /// The names of all kinds, for people.
    fn names(&self) -> Vec<String>;
}

/// The kinds of this program, and those that workers of others have published.
pub(crate) struct WithPublished {
    pub(crate) own: std::sync::Arc<dyn Kinds>,
    pub(crate) published: windlass_producer::Catalogue,
}

impl Kinds for WithPublished {
    fn queue(&self, kind: &str) -> Option<Queue> {
        self.own.queue(kind).or_else(|| Queue::new(&self.published.get(kind)?.queue).ok())
    }

    fn check(&self, kind: &str, args: &Value) -> Vec<Violation> {
        if self.own.queue(kind).is_some() {
            return self.own.check(kind, args);
        }
        self.published.check(kind, args).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        self.own.names()
    }
}

/// Checks a schedule's name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

impl Definition {
    /// A schedule with every default.
    #[must_use]
    pub fn new(name: &str, plan: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            plan: plan.to_owned(),
            zone: utc(),
            clock_change: ClockChange::default(),
            kind: kind.to_owned(),
            args: no_args(),
            queue: None,
            priority: Priority::default(),
            max_attempts: None,
            backoff: None,
            timeout_ms: None,
            expires_in_ms: None,
            labels: BTreeMap::new(),
            jitter_ms: 0,
            starts_at: None,
            ends_at: None,
            missed: Missed::default(),
            grace_ms: grace_ms(),
            overlap: Overlap::default(),
            enabled: true,
        }
    }

    /// Everything wrong with it, each under its own path. `now`: also that it would never fire;
    /// without it a schedule whose time is over is right.
    #[must_use]
    pub fn check(&self, kinds: &dyn Kinds, now: Option<Timestamp>) -> Vec<Violation> {
        let mut wrong = Vec::new();
        if !is_name(&self.name) {
            let shown: String = self.name.chars().take(64).collect();
            wrong.push(Violation::new("/name", "name_invalid", format!("{shown:?} is not 1 to 64 of a-z 0-9 _ - .")));
        }
        match self.plan() {
            Ok(plan) => wrong.extend(self.check_times(&plan, now)),
            Err(e) => {
                let path = if e.code == "zone_unknown" { "/zone" } else { "/plan" };
                wrong.push(Violation::new(path, e.code, e.message));
            }
        }
        wrong.extend(self.check_numbers());
        wrong.extend(self.check_job(kinds));
        wrong
    }

    fn check_times(&self, plan: &Plan, now: Option<Timestamp>) -> Vec<Violation> {
        let mut wrong = Vec::new();
        if let (Some(start), Some(end)) = (self.starts_at, self.ends_at)
            && end < start
        {
            wrong.push(Violation::new("/ends_at", "out_of_range", "it ends before it starts"));
            return wrong;
        }
        let schedule = Schedule { definition: self.clone(), plan: plan.clone() };
        if let Some(now) = now
            && self.enabled
            && schedule.next_after(now).is_none()
        {
            let message = if plan.is_once() || self.ends_at.is_some() {
                "its time is over: it would never fire"
            } else {
                "there is no such date: it would never fire"
            };
            wrong.push(Violation::new("/plan", "never_fires", message));
        }
        if self.jitter_ms > 0 && self.jitter_ms <= ms(MAX_JITTER) {
            // Without a clock the plan is looked at from its start on, or from 2001.
            let from = now.or(self.starts_at).unwrap_or(Timestamp(978_307_200_000));
            let apart = schedule.shortest_distance(from);
            if apart.is_some_and(|apart| Duration::from_millis(self.jitter_ms) >= apart) {
                let message = format!("{} ms; less than the time between two ticks is allowed", self.jitter_ms);
                wrong.push(Violation::new("/jitter_ms", "out_of_range", message));
            }
        }
        wrong
    }

    fn check_numbers(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let mut range = |path: &str, found: u64, least: u64, most: u64| {
            if !(least..=most).contains(&found) {
                let message = format!("{found}; {least} to {most} is allowed");
                wrong.push(Violation::new(path, "out_of_range", message));
            }
        };
        range("/grace_ms", self.grace_ms, 0, ms(MAX_GRACE));
        range("/jitter_ms", self.jitter_ms, 0, ms(MAX_JITTER));
        if let Missed::All { max, window_ms } = self.missed {
            range("/missed/all/max", max.into(), 1, MAX_CATCH_UP.into());
            range("/missed/all/window_ms", window_ms, 1_000, ms(MAX_WINDOW));
        }
        if let Some(found) = self.expires_in_ms {
            range("/expires_in_ms", found, 1, 366 * 86_400_000);
        }
        wrong
    }

    fn check_job(&self, kinds: &dyn Kinds) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let options = self.options();
        wrong.extend(options.check().into_iter().filter(|v| v.path != "/expires_at"));
        if self.labels.contains_key(LABEL) {
            wrong.push(Violation::new("/labels", "label_invalid", "the label schedule is set to the schedule's name"));
        }
        let bytes = self.args.to_string().len();
        if bytes > MAX_ARGS_BYTES {
            let message = format!("{bytes} bytes; at most {MAX_ARGS_BYTES} are allowed: upload a blob");
            wrong.push(Violation::new("/args", "args_too_large", message));
            return wrong;
        }
        if check_kind(&self.kind).is_err() || kinds.queue(&self.kind).is_none() {
            let shown: String = self.kind.chars().take(64).collect();
            let message = format!("kind {shown:?} is not known here; there are {}", kinds.names().join(", "));
            wrong.push(Violation::new("/kind", "unknown_kind", message));
            return wrong;
        }
        let inside = kinds.check(&self.kind, &self.args).into_iter();
        wrong.extend(inside.map(|v| Violation { path: format!("/args{}", v.path), ..v }));
        wrong
    }

    fn plan(&self) -> Result<Plan, BadPlan> {
        Plan::new(&self.plan, Zone::new(&self.zone)?, self.clock_change, self.starts_at)
    }

    fn options(&self) -> Options {
        let mut labels = self.labels.clone();
        labels.insert(LABEL.to_owned(), self.name.clone());
        Options {
            priority: self.priority,
            max_attempts: self.max_attempts,
            backoff: self.backoff.clone(),
            timeout: self.timeout_ms.map(Duration::from_millis),
            expires: self.expires_in_ms.map_or(When::Now, |ms| When::After(Duration::from_millis(ms))),
            labels,
            ..Options::default()
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A definition that was checked, ready to be asked.
#[derive(Debug, Clone)]
pub struct Schedule {
    definition: Definition,
    plan: Plan,
}

impl Schedule {
    /// Reads the plan of a definition.
    ///
    /// # Errors
    /// [`BadPlan`].
    pub fn new(definition: Definition) -> Result<Self, BadPlan> {
        Ok(Self { plan: definition.plan()?, definition })
    }

    /// What was written.
    #[must_use]
    pub const fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Its plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The first tick after an instant, within start and end.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = self.definition.starts_at.map_or(after, |start| after.max(Timestamp(start.0 - 1)));
        self.plan.next_after(after).filter(|tick| self.definition.ends_at.is_none_or(|end| *tick <= end))
    }

    /// The next firings, at most `count`, jitter included: `(tick, when it fires)`.
    #[must_use]
    pub fn firings(&self, after: Timestamp, count: usize) -> Vec<(Timestamp, Timestamp)> {
        let ticks = std::iter::successors(self.next_after(after), |tick| self.next_after(*tick));
        ticks.take(count).map(|tick| (tick, self.due(tick))).collect()
    }

    /// When a tick fires: the tick and its jitter, the same for everyone who asks.
    #[must_use]
    pub fn due(&self, tick: Timestamp) -> Timestamp {
        match self.definition.jitter_ms {
            0 => tick,
            jitter => {
                let hash = digest("jitter", &self.definition.name, tick);
                let part = u64::from_le_bytes(hash[..8].try_into().expect("8 bytes are 8 bytes")) % (jitter + 1);
                tick.plus(Duration::from_millis(part))
            }
        }
    }

    /// The job of a tick: its id is that of schedule and tick, so that whoever enqueues it a
    /// second time changes nothing. `queue` is the kind's own, for a schedule that names none.
    ///
    /// # Errors
    /// When the args cannot be written as JSON.
    pub fn job(&self, tick: Timestamp, queue: Queue) -> Result<(JobId, NewJob), serde_json::Error> {
        let hash = digest("tick", &self.definition.name, tick);
        let random = u128::from_le_bytes(hash[..16].try_into().expect("16 bytes are 16 bytes"));
        let ulid = Ulid::from_parts(u64::try_from(tick.0).unwrap_or(0), random);
        self.job_as(ulid, queue)
    }

    /// A job of its own, now: of no tick.
    ///
    /// # Errors
    /// When the args cannot be written as JSON.
    pub fn extra_job(&self, queue: Queue) -> Result<(JobId, NewJob), serde_json::Error> {
        self.job_as(new_ulid(), queue)
    }

    fn job_as(&self, ulid: Ulid, queue: Queue) -> Result<(JobId, NewJob), serde_json::Error> {
        let definition = &self.definition;
        let job = NewJob { ulid, options: definition.options(), ..NewJob::new(&definition.kind, &definition.args)? };
        Ok((JobId::new(ulid, definition.queue.clone().unwrap_or(queue)), job))
    }

    /// The shortest time between two of the next ten ticks.
    fn shortest_distance(&self, from: Timestamp) -> Option<Duration> {
        let ticks: Vec<Timestamp> = self.firings(from, 10).into_iter().map(|(tick, _)| tick).collect();
        ticks.windows(2).map(|pair| pair[1].since(pair[0])).min()
    }
}

/// A hash of a schedule's tick, for one purpose.
fn digest(purpose: &str, name: &str, tick: Timestamp) -> [u8; 32] {
    // Names hold no zero byte.
    *blake3::hash(format!("windlass schedule {purpose}\0{name}\0{}", tick.0).as_bytes()).as_bytes()
}
