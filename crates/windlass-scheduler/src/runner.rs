//! The runner: while it leads, every tick that is due becomes a job, and the ledger says so.
//!
//! A tick is settled in two steps: its job is enqueued under the id of schedule and tick, then
//! state and ledger are written under the leader's fence. A leader that is lost in between, or
//! wakes up late, repeats the first step to no effect; the second one is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;
use windlass_broker::SharedBroker;
use windlass_jobs::command::MAX_ENQUEUE;
use windlass_jobs::{JobId, NewJob, Queue, Timestamp};
use windlass_store::records::{Batch, Expect, Fence, MAX_WRITES, Record, Records, Snapshot, Write, Written};

use crate::book::{Book, OVERDUE_AFTER, append, forget, read};
use crate::counters::Counters;
use crate::lease::{LeaseTask, Standing, chain};
use crate::recent::Recent;
use crate::round::{Round, decide};
use crate::schedule::{Overlap, Schedule};
use crate::state::{Entry, Kept, LastRun, SCHEDULES, SPACE, STATES, State, What};

/// Schedules settled in one round.
const ROUND: usize = 200;
/// Looks at runs before at once.
const LOOKS: usize = 64;
/// How often a run is looked at that others wait for.
const HELD_EVERY: Duration = Duration::from_millis(500);
/// After an error a schedule is tried again this much later.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest sleep: a lost wake-up costs no more.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often it is looked whether something is overdue.
const ALARM_EVERY: Duration = Duration::from_secs(5);

/// How a scheduler runs.
#[derive(Debug, Clone, Default)]
pub struct RunnerOptions {
    /// Where a copy of the schedules is kept, from which an empty store is seeded; `None`: the
    /// store loses nothing.
    pub snapshot: Option<PathBuf>,
}

/// A scheduler of this process: one of any number, of which one leads.
#[derive(Debug)]
pub struct Runner {
    counters: Arc<Counters>,
    standing: watch::Receiver<Standing>,
    stop: Arc<Notify>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Runner {
    /// Starts one. It never ends by itself: whatever fails is tried again.
    #[must_use]
    pub fn start(book: &Book, options: &RunnerOptions) -> Self {
        let counters = Arc::new(Counters::default());
        let records = Arc::clone(book.records());
        let snapshot = options.snapshot.as_ref().map(|path| Snapshot::open(path, SPACE, &[SCHEDULES, STATES]));
        let lease = LeaseTask::start(Arc::clone(&records), snapshot);
        let leader = Leader {
            records,
            broker: book.broker().clone(),
            counters: Arc::clone(&counters),
            live: HashMap::new(),
            agenda: BTreeSet::new(),
            loaded: None,
            unsaved: BTreeMap::new(),
            alarmed: BTreeSet::new(),
            looked_at: None,
            recent: Recent::default(),
        };
        let (standing, stop) = (lease.standing.clone(), Arc::new(Notify::new()));
        let task = tokio::spawn(run(leader, lease, Arc::clone(&stop)));
        Self { counters, standing, stop, task: Mutex::new(Some(task)) }
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Waits until the store has answered and has what it should have: a store that lost
    /// everything has been seeded.
    pub async fn ready(&self) {
        // It fails only when the task has ended, and nobody is left to wait for.
        let _ = self.standing.clone().wait_for(|standing| standing.heard).await;
    }

    /// Ends it in the middle of whatever it does, as the end of its process would: the lease is
    /// not given back. For tests.
    pub async fn abort(&self) {
        if let Some(task) = self.task.lock().await.take() {
            task.abort();
        }
    }

    /// Finishes the round it is in and gives the lease back.
    pub async fn stop(&self) {
        self.stop.notify_one();
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

async fn run(mut leader: Leader, mut lease: LeaseTask, stop: Arc<Notify>) {
    loop {
        let standing = lease.standing.borrow_and_update().clone();
        let pause = match (standing.leads(), lease.clock.now()) {
            (Some(fence), Some(now)) => leader.work(fence, &standing, now, &lease).await,
            _ => {
                leader.counters.leads(false);
                leader.alarmed.clear();
                leader.counters.overdue(0);
                LONGEST_SLEEP
            }
        };
        tokio::select! {
            biased;
            () = stop.notified() => break,
            changed = lease.standing.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(pause) => {}
        }
    }
    leader.counters.leads(false);
    lease.stop().await;
}

/// A schedule in memory.
struct Live {
    /// The definition's, as it was read.
    rev: u64,
    kept: Arc<Kept>,
    schedule: Arc<Schedule>,
    state: State,
    /// Its place on the agenda.
    at: Option<Timestamp>,
    /// When its next tick fires.
    due: Option<Timestamp>,
}

struct Leader {
    records: Arc<dyn Records>,
    broker: SharedBroker,
    counters: Arc<Counters>,
    live: HashMap<String, Live>,
    /// What is to be looked at next, and when.
    agenda: BTreeSet<(Timestamp, String)>,
    /// The lease and version the schedules were read under.
    loaded: Option<(Fence, u64)>,
    /// States that are newer than what is kept, with their new entries.
    unsaved: BTreeMap<String, Vec<Entry>>,
    /// Schedules that were said to be overdue.
    alarmed: BTreeSet<String>,
    looked_at: Option<Instant>,
    /// What was enqueued lately, for a store that loses it in a fail-over.
    recent: Recent,
}

/// What a round does for one schedule.
struct Job {
    name: String,
    round: Round,
    fire: Vec<(Timestamp, JobId, NewJob)>,
    refused: Option<String>,
    replaces: Option<JobId>,
}

impl Leader {
    /// Does what is due; answers how long there is nothing to do.
    async fn work(&mut self, fence: &Fence, standing: &Standing, now: Timestamp, lease: &LeaseTask) -> Duration {
        self.counters.leads(true);
        self.recent.heed(standing.seeded);
        let result = match self.load(fence, standing.version, now).await {
            Ok(()) => self.turn(fence, lease).await,
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => {}
            Err(Stop::Fenced) => {
                tracing::warn!(epoch = fence.epoch, "scheduler_fenced: another leads");
                self.loaded = None;
                return LONGEST_SLEEP;
            }
            Err(Stop::Store(e)) => {
                self.counters.error();
                tracing::warn!(error = %chain(&e), "schedules: the store does not answer");
                return AGAIN;
            }
        }
        let now = lease.clock.now().unwrap_or(now);
        self.alarm(now);
        let next = self.agenda.first().map_or(LONGEST_SLEEP, |(at, _)| at.since(now));
        next.min(LONGEST_SLEEP)
    }

    /// Reads the schedules when they changed, and where they stand when the lease is a new one.
    async fn load(&mut self, fence: &Fence, version: u64, now: Timestamp) -> Result<(), Stop> {
        let wanted = (fence.clone(), version);
        if self.loaded.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let same_lease = self.loaded.as_ref().is_some_and(|(old, _)| old == fence);
        let kept = self.records.all(SPACE, SCHEDULES).await?;
        let mut states: HashMap<String, State> = HashMap::new();
        if !same_lease {
            let all = self.records.all(SPACE, STATES).await?;
            states.extend(all.iter().filter_map(|doc| Some((doc.name.clone(), read(doc)?))));
        }
        let mut old = std::mem::take(&mut self.live);
        self.agenda.clear();
        for doc in &kept {
            let old = old.remove(&doc.name);
            let state = states.remove(&doc.name);
            // A store that was lost counts its revisions anew, but under another lease.
            let unchanged = old.as_ref().filter(|old| same_lease && old.rev == doc.rev);
            let read = match unchanged {
                Some(old) => Some((Arc::clone(&old.kept), Arc::clone(&old.schedule))),
                None => read_schedule(doc),
            };
            let Some((kept, schedule)) = read else { continue };
            let mut state = match old {
                // Nobody else has settled anything meanwhile.
                Some(old) if same_lease => old.state,
                // What this process settled is newer than what the store kept, if the store lost it.
                Some(old) if state.as_ref().is_none_or(|state| state.cursor < old.state.cursor) => {
                    self.unsaved.entry(doc.name.clone()).or_default();
                    old.state
                }
                _ => state.unwrap_or_default(),
            };
            if state.cursor < kept.from {
                state.held.clear();
                state.cursor = kept.from;
            }
            let live = Live { rev: doc.rev, kept, schedule, state, at: None, due: None };
            self.live.insert(doc.name.clone(), live);
            self.plan(&doc.name, now);
        }
        self.unsaved.retain(|name, _| self.live.contains_key(name));
        self.forget(fence, old.into_keys().chain(states.into_keys())).await?;
        self.counters.knows(self.live.len());
        self.loaded = Some(wanted);
        Ok(())
    }

    /// Clears away what a commit may have written after its schedule was removed.
    async fn forget(&self, fence: &Fence, names: impl Iterator<Item = String>) -> Result<(), Stop> {
        let writes: Vec<Write> = names.flat_map(|name| forget(&name).into_iter().skip(1)).collect();
        for slice in writes.chunks(MAX_WRITES) {
            self.write(fence, slice.to_vec()).await?;
        }
        Ok(())
    }

    /// Puts a schedule on the agenda where it is next to be looked at.
    fn plan(&mut self, name: &str, now: Timestamp) {
        let Some(live) = self.live.get_mut(name) else { return };
        if let Some(at) = live.at.take() {
            self.agenda.remove(&(at, name.to_owned()));
        }
        live.due = None;
        if !live.kept.is_active() {
            return;
        }
        live.due = live.schedule.next_after(live.state.cursor).map(|tick| live.schedule.due(tick));
        let held = if live.state.held.is_empty() { None } else { Some(now.plus(HELD_EVERY)) };
        live.at = live.due.into_iter().chain(held).min();
        if let Some(at) = live.at {
            self.agenda.insert((at, name.to_owned()));
        }
    }

    /// Puts a schedule off: something did not answer.
    fn put_off(&mut self, name: &str, now: Timestamp) {
        let Some(live) = self.live.get_mut(name) else { return };
        if let Some(at) = live.at.take() {
            self.agenda.remove(&(at, name.to_owned()));
        }
        let at = now.plus(AGAIN);
        live.at = Some(at);
        self.agenda.insert((at, name.to_owned()));
    }

    /// Rounds until nothing is due any more.
    async fn turn(&mut self, fence: &Fence, lease: &LeaseTask) -> Result<(), Stop> {
        self.save(fence).await?;
        loop {
            let Some(now) = lease.clock.now() else { return Ok(()) };
            self.offer_again(now).await;
            let due = self.agenda.iter().take_while(|(at, _)| *at <= now).take(ROUND);
            let names: Vec<String> = due.map(|(_, name)| name.clone()).collect();
            let still_leads = |lease: &LeaseTask| lease.standing.borrow().leads() == Some(fence);
            if names.is_empty() || !still_leads(lease) {
                return Ok(());
            }
            let jobs = self.decide(names, now).await;
            // The looks took time; from here to the enqueue there is none to lose.
            if !still_leads(lease) {
                return Ok(());
            }
            self.enqueue(jobs, now, lease).await;
            self.save(fence).await?;
        }
    }

    /// Decides about each of these, after a look at the run before where its rule asks for it.
    async fn decide(&mut self, names: Vec<String>, now: Timestamp) -> Vec<Job> {
        let looks = names.iter().filter_map(|name| {
            let live = self.live.get(name)?;
            let last = live.state.last.as_ref()?;
            (live.schedule.definition().overlap != Overlap::Allow).then(|| (name.clone(), last.job.clone()))
        });
        let looks: Vec<(String, JobId)> = looks.collect();
        let broker = &self.broker;
        let seen: HashMap<String, windlass_broker::Result<bool>> = futures_util::stream::iter(looks)
            .map(|(name, id)| async move {
                let job = broker.get(&id).await;
                (name, job.map(|job| job.is_some_and(|job| !job.state.is_terminal())))
            })
            .buffer_unordered(LOOKS)
            .collect()
            .await;
        let mut jobs = Vec::new();
        for name in names {
            match seen.get(&name) {
                Some(Err(e)) => {
                    self.counters.error();
                    tracing::warn!(schedule = name, error = %chain(e), "the run before cannot be looked at");
                    self.put_off(&name, now);
                }
                Some(Ok(busy)) => jobs.extend(self.decide_one(name, now, *busy)),
                None => jobs.extend(self.decide_one(name, now, false)),
            }
        }
        jobs
    }

    fn decide_one(&mut self, name: String, now: Timestamp, busy: bool) -> Option<Job> {
        let live = self.live.get(&name)?;
        let round = decide(&live.schedule, &live.state, live.schedule.settle(live.state.cursor, now), busy);
        if round.is_empty(&live.state) {
            self.plan(&name, now);
            return None;
        }
        let mut job = Job { name, fire: Vec::new(), refused: None, replaces: None, round };
        for (tick, replaces) in &job.round.fire {
            match live.schedule.job(*tick, live.kept.queue.clone()) {
                Ok((id, new)) => match new.check().first() {
                    None => job.fire.push((*tick, id, new)),
                    Some(wrong) => job.refused = Some(format!("{}: {}", wrong.path, wrong.message)),
                },
                Err(e) => job.refused = Some(e.to_string()),
            }
            if *replaces {
                job.replaces = live.state.last.as_ref().map(|last| last.job.clone());
            }
        }
        Some(job)
    }

    /// Cancels what is replaced and enqueues what is due, queue by queue. What a queue does not
    /// take is tried again.
    async fn enqueue(&mut self, jobs: Vec<Job>, now: Timestamp, lease: &LeaseTask) {
        let mut queues: BTreeMap<Queue, Vec<NewJob>> = BTreeMap::new();
        for job in &jobs {
            if let Some(id) = &job.replaces
                && let Err(e) = self.broker.cancel(id).await
            {
                self.counters.error();
                tracing::warn!(schedule = job.name, error = %chain(&e), "the run before was not cancelled");
            }
            for (_, id, new) in &job.fire {
                queues.entry(id.queue.clone()).or_default().push(new.clone());
            }
        }
        let mut taken: HashMap<JobId, (Timestamp, bool)> = HashMap::new();
        for (queue, new) in queues {
            for slice in new.chunks(MAX_ENQUEUE) {
                match self.broker.enqueue(&queue, slice).await {
                    Ok(replies) => {
                        let at = lease.clock.now().unwrap_or(now);
                        let id = |ulid| JobId::new(ulid, queue.clone());
                        taken.extend(replies.iter().map(|reply| (id(reply.ulid), (at, reply.fresh))));
                    }
                    Err(e) => {
                        self.counters.error();
                        tracing::warn!(queue = %queue, jobs = slice.len(), error = %chain(&e), "not enqueued; tried again");
                    }
                }
            }
        }
        for job in jobs {
            if job.fire.iter().all(|(_, id, _)| taken.contains_key(id)) {
                self.settled(job, now, &taken);
            } else {
                self.put_off(&job.name, now);
            }
        }
    }

    /// Enqueues once more what was enqueued lately, when the store may have lost it: what is there is
    /// left alone.
    async fn offer_again(&mut self, now: Timestamp) {
        let mut queues: BTreeMap<Queue, Vec<NewJob>> = BTreeMap::new();
        let generation = self.broker.generation();
        for (name, tick) in self.recent.in_doubt(generation, now) {
            let Some(live) = self.live.get(name).filter(|live| live.kept.is_active()) else { continue };
            if let Ok((id, new)) = live.schedule.job(tick, live.kept.queue.clone()) {
                queues.entry(id.queue).or_default().push(new);
            }
        }
        for (queue, new) in queues {
            match self.broker.enqueue(&queue, &new).await {
                Ok(replies) => {
                    let lost = replies.iter().filter(|reply| reply.fresh).count();
                    if lost > 0 {
                        self.counters.refired(lost);
                        tracing::warn!(queue = %queue, ticks = lost, "schedule_refired: the store had lost them");
                    }
                }
                Err(e) => {
                    self.counters.error();
                    tracing::warn!(queue = %queue, error = %chain(&e), "not offered again; tried again");
                    return;
                }
            }
        }
        self.recent.settled(generation);
    }

    /// Notes what was done for a schedule, to be saved.
    fn settled(&mut self, job: Job, now: Timestamp, taken: &HashMap<JobId, (Timestamp, bool)>) {
        let Some(live) = self.live.get_mut(&job.name) else { return };
        let (state, counters) = (&mut live.state, &self.counters);
        let mut entries = Vec::new();
        if let Some(missed) = job.round.missed {
            let range = Some((missed.to.0, missed.count));
            entries.push(Entry { range, ..Entry::new(What::Missed, missed.from, now) });
            state.missed_total += missed.count;
            counters.missed(missed.count);
        }
        entries.extend(job.round.skipped.iter().map(|tick| Entry::new(What::Overlap, *tick, now)));
        entries.extend(job.round.held.iter().map(|tick| Entry::new(What::Held, *tick, now)));
        job.round.skipped.iter().for_each(|_| counters.skipped());
        state.skipped_total += u64::try_from(job.round.skipped.len()).unwrap_or(0);
        if let Some(message) = job.refused {
            tracing::error!(schedule = job.name, message, "schedule_refused");
            let tick = job.round.fire.first().map_or(now, |(tick, _)| *tick);
            entries.push(Entry { message: Some(message), ..Entry::new(What::Refused, tick, now) });
            state.skipped_total += 1;
            counters.refused();
        }
        for (tick, id, _) in job.fire {
            let (at, fresh) = taken.get(&id).copied().unwrap_or((now, true));
            let what = if job.replaces.is_some() { What::Replaced } else { What::Fired };
            counters.fired(u64::try_from(at.since(live.schedule.due(tick)).as_millis()).unwrap_or(0), fresh);
            entries.push(Entry { job: Some(id.clone()), ..Entry::new(what, tick, at) });
            self.recent.fired(at, &job.name, tick);
            state.last = Some(LastRun { planned_at: tick, fired_at: at, job: id });
            state.fired_total += 1;
        }
        state.cursor = state.cursor.max(job.round.cursor);
        state.held = job.round.waiting;
        self.unsaved.entry(job.name.clone()).or_default().extend(entries);
        self.plan(&job.name, now);
    }

    /// Writes what is not saved yet, under the fence. What cannot be written now is written later.
    async fn save(&mut self, fence: &Fence) -> Result<(), Stop> {
        while !self.unsaved.is_empty() {
            let (mut writes, mut names) = (Vec::new(), Vec::new());
            for (name, entries) in &self.unsaved {
                // A schedule's own writes stay within a batch: 1 state and at most 100 entries count.
                let newest = entries.len().saturating_sub(100);
                if !writes.is_empty() && writes.len() + 1 + entries.len() - newest > MAX_WRITES {
                    break;
                }
                names.push(name.clone());
                let Some(live) = self.live.get(name) else { continue };
                let json = serde_json::to_string(&live.state).unwrap_or_default();
                writes.push(Write::Put { set: STATES, name: name.clone(), json, expect: Expect::Any });
                writes.extend(entries[newest..].iter().map(|entry| append(name, entry)));
            }
            self.write(fence, writes).await?;
            for name in names {
                self.unsaved.remove(&name);
            }
        }
        Ok(())
    }

    async fn write(&self, fence: &Fence, writes: Vec<Write>) -> Result<(), Stop> {
        let batch = Batch { fence: Some(fence.clone()), writes, ..Batch::default() };
        match self.records.write(SPACE, &batch).await? {
            Written::Done(_) => Ok(()),
            Written::Fenced | Written::Conflict(_) => Err(Stop::Fenced),
        }
    }

    /// Says once of every schedule that it has not fired when it should, and once that it has.
    fn alarm(&mut self, now: Timestamp) {
        if self.looked_at.is_some_and(|at| at.elapsed() < ALARM_EVERY) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let late = |live: &Live| live.due.filter(|due| due.plus(OVERDUE_AFTER) < now);
        let overdue: BTreeMap<&String, Timestamp> =
            self.live.iter().filter_map(|(name, live)| Some((name, late(live)?))).collect();
        for (name, planned) in &overdue {
            if self.alarmed.insert((*name).clone()) {
                tracing::error!(schedule = name, planned_at = %planned, "schedule_overdue");
            }
        }
        self.counters.overdue(overdue.len());
        self.alarmed.retain(|name| {
            let still = overdue.contains_key(name);
            if !still {
                tracing::info!(schedule = name, "schedule_fires_again");
            }
            still
        });
    }
}

/// A definition, ready to be asked; one that cannot be read is said, and left alone.
fn read_schedule(doc: &Record) -> Option<(Arc<Kept>, Arc<Schedule>)> {
    let kept: Kept = read(doc)?;
    match Schedule::new(kept.definition.clone()) {
        Ok(schedule) => Some((Arc::new(kept), Arc::new(schedule))),
        Err(e) => {
            tracing::error!(schedule = doc.name, error = %e, "schedule_unreadable");
            None
        }
    }
}

/// Why a turn ends early.
enum Stop {
    /// Another leads.
    Fenced,
    /// The store does not answer.
    Store(windlass_store::Error),
}

impl From<windlass_store::Error> for Stop {
    fn from(e: windlass_store::Error) -> Self {
        Self::Store(e)
    }
}
