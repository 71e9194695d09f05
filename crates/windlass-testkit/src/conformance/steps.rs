//! Random verbs as data: the same seed gives the same sequence everywhere, and any part of a
//! sequence can be played too.

use std::fmt;
use std::time::Duration;

use windlass_jobs::command::{Claim, Filter, Settle};
use windlass_jobs::lanes::lane_name;
use windlass_jobs::model::Model;
use windlass_jobs::{
    DependsOn, JobId, Lease, Limits, NewJob, OnClash, OnFailure, Options, Priority, Progress, Queue, Rate, Reason,
    State, Timestamp, Ulid, Unique, Until, When,
};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
const LONG_WAIT: Duration = Duration::from_millis(50);
/// The kinds of random jobs.
const KINDS: [&str; 3] = ["a", "b", "c"];
/// How far back a sequence names jobs it enqueued.
const RECENT: usize = 60;

/// One verb with its arguments. Jobs and leases are named by where they stand, so that a step
/// keeps its sense when others are left out.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Enqueue(Vec<NewJob>),
    Exchange(Vec<(Held, Settle)>, Option<Claim>),
    Renew(Vec<Held>, Duration),
    Progress(Held, Progress),
    Cancel(Job),
    Pause(bool),
    MaxWaiting(Option<u64>),
    Limits(Limits),
    /// Carries over what the queue has to say, to itself; or hears it without taking it off.
    Forward(bool),
    Replay(Vec<Job>),
    Delete(Vec<Job>),
    Unpark(Vec<String>),
    Tidy(Duration, Duration),
    /// All pages of so many entries.
    List(State, usize),
    /// All pages of so many of the jobs that a filter wants.
    Search(Filter, usize),
    Wait(Duration),
}

/// A job: a certain one, or the so many-th in a state when the step is played.
#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    This(Ulid),
    In(State, usize),
}

/// A lease: of a job's newest epoch, so many before it (stale), or one after it (never held).
#[derive(Debug, Clone, Copy)]
pub(super) struct Held(Job, i8);

impl Job {
    pub(super) fn find(self, model: &Model) -> Ulid {
        match self {
            Self::This(ulid) => ulid,
            Self::In(state, n) => {
                let ids = model.list(state, 0, usize::MAX).ids;
                if ids.is_empty() { Ulid::nil() } else { ids[n % ids.len()] }
            }
        }
    }
}

impl Held {
    pub(super) fn find(self, model: &Model) -> Lease {
        let ulid = self.0.find(model);
        let newest = model.get(ulid).map_or(1, |record| record.epoch);
        Lease { ulid, epoch: newest.saturating_add_signed(-i32::from(self.1)) }
    }
}

/// Stands for the queue that is played on: its name is not known when a sequence is made.
pub(super) fn random_queue() -> Queue {
    Queue::new("random").expect("it is a queue's name")
}

/// A job's name in a trace: `j7`.
pub(super) fn name(ulid: Ulid) -> String {
    format!("j{}", ulid.random())
}

impl Step {
    /// The same step with the jobs named that it means now, so that leaving others out before
    /// it does not change which.
    pub(super) fn pinned(&self, model: &Model) -> Self {
        let job = |job: &Job| Job::This(job.find(model));
        let held = |held: &Held| Held(job(&held.0), held.1);
        match self {
            Self::Exchange(finishes, claim) => {
                let finishes = finishes.iter().map(|(lease, settle)| (held(lease), settle.clone()));
                Self::Exchange(finishes.collect(), claim.clone())
            }
            Self::Renew(leases, lease) => Self::Renew(leases.iter().map(held).collect(), *lease),
            Self::Progress(lease, progress) => Self::Progress(held(lease), progress.clone()),
            Self::Cancel(this) => Self::Cancel(job(this)),
            Self::Replay(jobs) => Self::Replay(jobs.iter().map(job).collect()),
            Self::Delete(jobs) => Self::Delete(jobs.iter().map(job).collect()),
            other => other.clone(),
        }
    }

    /// The same step with less to do, in every way there is.
    pub(super) fn smaller(&self) -> Vec<Self> {
        match self {
            Self::Enqueue(jobs) => without_one(jobs).map(Self::Enqueue).collect(),
            Self::Exchange(finishes, claim) => {
                let mut all: Vec<Self> =
                    without_one(finishes).map(|finishes| Self::Exchange(finishes, claim.clone())).collect();
                if finishes.len() == 1 {
                    all.push(Self::Exchange(vec![], claim.clone()));
                }
                if claim.is_some() && !finishes.is_empty() {
                    all.push(Self::Exchange(finishes.clone(), None));
                }
                if let Some(claim) = claim.as_ref().filter(|claim| claim.max > 1) {
                    all.push(Self::Exchange(finishes.clone(), Some(Claim { max: 1, ..claim.clone() })));
                }
                all
            }
            Self::Renew(held, lease) => without_one(held).map(|held| Self::Renew(held, *lease)).collect(),
            Self::Replay(jobs) => without_one(jobs).map(Self::Replay).collect(),
            Self::Delete(jobs) => without_one(jobs).map(Self::Delete).collect(),
            Self::Unpark(kinds) => without_one(kinds).map(Self::Unpark).collect(),
            // One long wait takes the place of several.
            Self::Wait(span) if *span < LONG_WAIT => vec![Self::Wait(LONG_WAIT)],
            _ => Vec::new(),
        }
    }
}

/// The list without its first, its second, and so on; nothing when that would be empty.
fn without_one<T: Clone>(all: &[T]) -> impl Iterator<Item = Vec<T>> {
    let n = if all.len() > 1 { all.len() } else { 0 };
    (0..n).map(|left_out| {
        let kept = all.iter().enumerate().filter(move |(i, _)| *i != left_out);
        kept.map(|(_, item)| item.clone()).collect()
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enqueue(jobs) => {
                write!(f, "enqueue")?;
                jobs.iter().try_for_each(|job| write_job(f, job))
            }
            Self::Pause(paused) => f.write_str(if *paused { "pause" } else { "resume" }),
            Self::MaxWaiting(max) => write!(f, "set max_waiting {max:?}"),
            Self::Limits(limits) => {
                write!(f, "set limits {}", serde_json::to_string(limits).expect("numbers can be written as JSON"))
            }
            Self::Forward(done) => f.write_str(if *done { "forward" } else { "forward, and stop before the end" }),
            Self::Unpark(kinds) => write!(f, "unpark {kinds:?}"),
            Self::Tidy(success, failure) => write!(f, "tidy success {success:?} failure {failure:?}"),
            Self::List(state, limit) => write!(f, "list {state} by {limit}"),
            Self::Search(filter, limit) => write!(f, "search {filter:?} by {limit}"),
            Self::Wait(span) => write!(f, "wait {span:?}"),
            // What they name depends on the state they are played in: written by the player.
            other => write!(f, "{other:?}"),
        }
    }
}

fn write_job(f: &mut fmt::Formatter<'_>, job: &NewJob) -> fmt::Result {
    write!(f, " {}({}", name(job.ulid), job.kind)?;
    if job.options.priority != Priority::Normal {
        write!(f, " {:?}", job.options.priority)?;
    }
    if job.when != When::Now {
        write!(f, " run {:?}", job.when)?;
    }
    if job.options.expires != When::Now {
        write!(f, " expires {:?}", job.options.expires)?;
    }
    if let Some(lane) = lane_name(&job.options, job.options.priority) {
        write!(f, " lane {lane:?}")?;
    }
    if let Some(after) = &job.options.depends_on {
        write!(f, " {:?} after", after.on_failure)?;
        after.parents.iter().try_for_each(|parent| write!(f, " {}", name(parent.ulid)))?;
    }
    if let Some(unique) = &job.options.unique {
        write!(f, " unique {}:{unique}", unique.key)?;
    }
    f.write_str(")")
}

/// How a run ended, without what can be left out.
pub(super) fn ending(settle: &Settle) -> String {
    match settle {
        Settle::Success { result, skipped } => match (result, skipped) {
            (None, false) => "success".into(),
            _ => format!("success {result:?} skipped {skipped}"),
        },
        Settle::Failure { reason, failures, .. } => format!("failure {reason} failures {failures}"),
        Settle::Retry { delay, failures, .. } => format!("retry in {delay:?} failures {failures}"),
        Settle::Snooze { delay } => format!("snooze {delay:?}"),
        Settle::Cancelled { .. } => "cancelled".into(),
        Settle::Release => "release".into(),
        Settle::Unknown { delay, park_after } => format!("unknown for {delay:?} park after {park_after:?}"),
    }
}

/// Makes a sequence from a seed; a longer one begins with the shorter one.
pub(super) struct Maker {
    dice: Dice,
    /// The jobs enqueued so far.
    known: Vec<Ulid>,
    /// Which hour the next long lease ends in.
    long: u32,
    /// Ages may be told apart by milliseconds.
    exact: bool,
}

impl Maker {
    /// `exact`: the engine's clock is in the test's hand, so that any age may be asked for.
    pub(super) const fn new(seed: u64, exact: bool) -> Self {
        Self { dice: Dice(seed), known: Vec::new(), long: 1, exact }
    }

    pub(super) fn steps(mut self, n: usize) -> Vec<Step> {
        (0..n).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        match self.dice.below(100) {
            0..24 => self.enqueue(),
            24..66 => self.exchange(),
            66..71 => {
                let held = (0..self.dice.below(8)).map(|_| self.held()).collect();
                Step::Renew(held, self.long_lease())
            }
            71..75 => self.progress(),
            75..79 => Step::Cancel(self.job(&[
                State::Pending,
                State::Running,
                State::Running,
                State::Scheduled,
                State::Retrying,
            ])),
            79..81 => Step::Pause(self.dice.chance(20)),
            94 => Step::Limits(self.limits()),
            95..97 => Step::Forward(self.dice.chance(85)),
            81 => Step::MaxWaiting(self.dice.chance(25).then_some(self.dice.next() % 40)),
            82..85 => Step::Replay(self.jobs(&[State::Failure])),
            85..87 => Step::Delete(self.jobs(&[State::Failure, State::Success])),
            87..90 => {
                let kinds: Vec<&str> = KINDS.into_iter().filter(|_| self.dice.chance(60)).collect();
                Step::Unpark(kinds.into_iter().map(str::to_owned).collect())
            }
            90 => Step::Tidy(self.age(), self.age()),
            91..93 => Step::List(self.state(), self.dice.below(30) + 1),
            93 => self.search(),
            // Short leases and delays come to their end.
            _ => Step::Wait(Duration::from_millis(1 + self.dice.next() % 4)),
        }
    }

    fn state(&mut self) -> State {
        State::ALL[self.dice.below(State::ALL.len())]
    }

    fn search(&mut self) -> Step {
        let mut filter = Filter::of(self.state());
        filter.parked = self.dice.chance(20);
        filter.kind = self.dice.chance(50).then(|| KINDS[self.dice.below(KINDS.len())].to_owned());
        if self.dice.chance(30) {
            filter.labels = [("tenant".into(), "a b".into())].into();
        }
        Step::Search(filter, self.dice.below(10) + 1)
    }

    fn age(&mut self) -> Duration {
        match self.dice.below(3) {
            0 => HOUR,
            1 if self.exact => Duration::from_millis(self.dice.next() % 40),
            _ => Duration::ZERO,
        }
    }

    fn enqueue(&mut self) -> Step {
        let mut jobs: Vec<NewJob> = Vec::new();
        for _ in 0..=self.dice.below(8) {
            let job = self.new_job();
            self.known.push(job.ulid);
            jobs.push(job);
            if self.dice.chance(5) {
                jobs.extend(self.dice.pick(&jobs));
            }
        }
        Step::Enqueue(jobs)
    }

    fn new_job(&mut self) -> NewJob {
        let dice = &mut self.dice;
        let filler = if dice.chance(5) { 3_000 } else { dice.below(100) };
        let kind = KINDS[dice.below(KINDS.len())];
        let mut job = NewJob::new(kind, &"x".repeat(filler)).expect("a text is JSON");
        // Its order among ids is not that of arrival.
        job.ulid = Ulid::from_parts(dice.next() % 1_000, self.known.len() as u128 + 1);
        if dice.chance(10) {
            job.ulid = dice.pick(recent(&self.known)).unwrap_or(job.ulid);
        }
        job.when = match dice.below(10) {
            0 => When::After(Duration::ZERO),
            1 | 2 => When::After(Duration::from_millis(dice.next() % 4)),
            3 => When::At(Timestamp(0)),
            4 => When::After(HOUR * u32::try_from(dice.below(3) + 1).expect("it is small")),
            _ => When::Now,
        };
        job.options.expires = match dice.below(20) {
            0 => When::At(Timestamp(0)),
            1 | 2 => When::After(Duration::from_millis(dice.next() % 30)),
            3 => When::After(HOUR),
            _ => When::Now,
        };
        job.options.priority = Priority::ALL[dice.below(3)];
        if dice.chance(20) {
            let labels = [("tenant".into(), "a b".into())].into();
            let timeout = Some(Duration::from_millis(250));
            job.options = Options { max_attempts: Some(5), timeout, labels, ..job.options };
        }
        if self.dice.chance(40) {
            let mut key = |keys: [&str; 2]| self.dice.chance(40).then(|| keys[self.dice.below(2)].to_owned());
            let options = &mut job.options;
            (options.tenant, options.ordering_key) = (key(["t", "u"]), key(["o", "p"]));
            (options.concurrency_key, options.rate_key) = (key(["c", "d"]), key(["r", "s"]));
        }
        if self.dice.chance(25) {
            self.make_dependent(&mut job);
        }
        if self.dice.chance(20) {
            self.make_unique(&mut job);
        }
        job
    }

    /// Depends on a few jobs of before, or on one that never comes.
    fn make_dependent(&mut self, job: &mut NewJob) {
        let mut parents: Vec<Ulid> =
            (0..=self.dice.below(3)).filter_map(|_| self.dice.pick(recent(&self.known))).collect();
        if self.dice.chance(3) {
            parents.push(Ulid::from_parts(7, 7));
        }
        parents.retain(|parent| *parent != job.ulid);
        parents.sort();
        parents.dedup();
        if parents.is_empty() {
            return;
        }
        let parents = parents.into_iter().map(|ulid| JobId::new(ulid, random_queue())).collect();
        let on_failure = if self.dice.chance(40) { OnFailure::Run } else { OnFailure::Cancel };
        job.options.depends_on = Some(DependsOn { parents, on_failure });
    }

    fn limits(&mut self) -> Limits {
        let dice = &mut self.dice;
        let mut count = |percent| dice.chance(percent).then(|| 1 + u32::try_from(dice.below(5)).expect("it is small"));
        let (concurrency, key_concurrency, of_c) = (count(15), count(60), count(30));
        let mut rate = |percent| {
            let (count, burst) = (1 + dice.next() % 4, 1 + dice.next() % 3);
            let (count, burst) = (u32::try_from(count).ok()?, u32::try_from(burst).ok());
            dice.chance(percent).then(|| Rate { count, per_ms: 1 + dice.next() % 12, burst })
        };
        let (rate, key_rate, of_r) = (rate(15), rate(60), rate(30));
        Limits {
            concurrency,
            rate,
            key_concurrency,
            key_concurrencies: of_c.map(|n| ("c".to_owned(), n)).into_iter().collect(),
            key_rate,
            key_rates: of_r.map(|rate| ("r".to_owned(), rate)).into_iter().collect(),
        }
    }

    /// With the engine's clock out of hand, what a clash writes must not depend on the instant.
    fn make_unique(&mut self, job: &mut NewJob) {
        let dice = &mut self.dice;
        let mut unique = Unique::new(["x", "y", "z"][dice.below(3)]);
        unique.until = [Until::Started, Until::Finished, Until::Ttl][dice.below(3)];
        unique.ttl = if self.exact { Duration::from_millis(1 + dice.next() % 60) } else { HOUR };
        if unique.until == Until::Ttl && !self.exact {
            // Held to the end: a few keys, so that others are left to be tried.
            unique.key = format!("t{}", dice.below(40));
        }
        if dice.chance(50) {
            unique.on_clash = OnClash::Replace;
            if !self.exact && matches!(job.options.expires, When::After(_)) {
                job.options.expires = When::Now;
            }
        }
        if dice.chance(40) {
            unique.debounce = Some(Duration::from_millis(1 + dice.next() % 30));
            job.when = match dice.below(3) {
                0 if self.exact => When::Now,
                1 if self.exact => When::After(Duration::from_millis(dice.next() % 20)),
                // After any maximum.
                _ => When::At(Timestamp(4_000_000_000_000)),
            };
        }
        job.options.unique = Some(unique);
    }

    fn exchange(&mut self) -> Step {
        let finishes = (0..self.dice.below(10)).map(|_| (self.held(), self.settle())).collect();
        let claim = self.dice.chance(80).then(|| {
            let grace = self.dice.chance(8);
            let is_short = grace || self.dice.chance(60);
            let lease = if is_short { Duration::from_millis(self.dice.next() % 4) } else { self.long_lease() };
            // Long ago, by any clock: it is not heard.
            let sent_at = self.dice.chance(5).then_some(Timestamp(0));
            let (worker, max) = (format!("w{}", self.dice.below(4)), self.dice.below(15));
            let quotas = self.dice.chance(20).then(|| [0; 3].map(|_| self.dice.below(5)));
            Claim { worker, max, lease, grace, sent_at, quotas }
        });
        Step::Exchange(finishes, claim)
    }

    fn settle(&mut self) -> Settle {
        let dice = &mut self.dice;
        let (failures, text) = (u32::try_from(dice.below(4)).expect("it is small"), dice.below(1_000).to_string());
        let error = super::error_text(&text);
        let delay = if dice.chance(20) { HOUR } else { Duration::from_millis(dice.next() % 4) };
        match dice.below(14) {
            0..4 => Settle::Success { result: None, skipped: false },
            4 => Settle::Success { result: Some(text), skipped: dice.chance(50) },
            5 | 6 => Settle::Failure { reason: Reason::ALL[dice.below(Reason::ALL.len())], failures, error },
            7 => Settle::Cancelled { error },
            8 => Settle::Snooze { delay },
            9 | 10 => Settle::Release,
            11 => Settle::Unknown { delay, park_after: Duration::from_millis(dice.next() % 6) },
            _ => Settle::Retry { delay, failures, error },
        }
    }

    fn progress(&mut self) -> Step {
        let held = self.held();
        #[allow(clippy::cast_precision_loss, reason = "a number below 1,000 fits an f32")]
        let percent = self.dice.below(1_000) as f32 / 10.0;
        Step::Progress(held, Progress::new(percent, "some of it"))
    }

    /// A job, most often in one of these states.
    fn job(&mut self, states: &[State]) -> Job {
        let any = self.dice.pick(recent(&self.known));
        match any.filter(|_| self.dice.chance(25)) {
            Some(ulid) => Job::This(ulid),
            None => Job::In(states[self.dice.below(states.len())], self.dice.below(64)),
        }
    }

    fn jobs(&mut self, states: &[State]) -> Vec<Job> {
        (0..=self.dice.below(4)).map(|_| self.job(states)).collect()
    }

    /// A lease, most often one that is held.
    fn held(&mut self) -> Held {
        let job = self.job(&[State::Running, State::Running, State::Running, State::Pending]);
        let back = match self.dice.below(20) {
            0 => -1,
            1..4 => 1,
            4 => 2,
            _ => 0,
        };
        Held(job, back)
    }

    /// Long leases lie an hour apart, so that their order does not depend on the instant.
    fn long_lease(&mut self) -> Duration {
        self.long += 1;
        HOUR * self.long
    }
}

fn recent(known: &[Ulid]) -> &[Ulid] {
    &known[known.len().saturating_sub(RECENT)..]
}

/// A small generator (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n` - 1.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("it is less than a usize")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())).cloned() }
    }
}
