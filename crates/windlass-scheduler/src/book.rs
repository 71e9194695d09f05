//! The book of schedules: list, set, change, pause, run, forget; what HTTP, the command line and
//! the settings file do. Everything is checked before it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use windlass_broker::SharedBroker;
use windlass_jobs::{JobId, Queue, Timestamp, Violation};
use windlass_producer::{Catalogue, Producer};
use windlass_store::records::{Batch, Expect, Record, Records, Write, Written};

use crate::schedule::{Definition, Kinds, Schedule, WithPublished, is_name};
use crate::state::{Entry, Kept, LEDGER_KEEP, Origin, SCHEDULES, SPACE, STATES, State, What};

/// Most schedules kept.
pub const MAX_SCHEDULES: usize = 20_000;
/// A schedule that has not fired this long after it should have is overdue.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(30);
/// The prefix of the built-in ones' names.
pub const BUILTIN_PREFIX: &str = "windlass.";
/// How often a change is tried again when others change the same.
const TRIES: usize = 5;
/// How long the start of a process waits for the kinds of others.
const PATIENCE: Duration = Duration::from_secs(3);
/// Schedules written in one batch.
const SLICE: usize = 100;

/// What can go wrong with the book.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is wrong with a schedule; nothing was kept.
    #[error("{}", list(.0))]
    Refused(Vec<Violation>),
    /// There is one of this name.
    #[error("there is a schedule {0} already")]
    Exists(String),
    /// There is none of this name.
    #[error("there is no schedule {0}")]
    NotFound(String),
    /// It is not for this caller to change.
    #[error("schedule {name} comes from {from}: {hint}")]
    Managed {
        /// The schedule.
        name: String,
        /// Where it comes from.
        from: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// No more are kept.
    #[error("there are {MAX_SCHEDULES} schedules, as many as there may be")]
    TooMany,
    /// Others changed the same schedules again and again.
    #[error("the schedules are being changed by others")]
    Busy,
    /// The store did not do it.
    #[error("schedules")]
    Store(#[from] windlass_store::Error),
    /// The queue did not take the job.
    #[error("enqueue")]
    Enqueue(#[from] windlass_producer::Error),
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|v| format!("{}: {}", v.path, v.message)).collect::<Vec<_>>().join("; ")
}

type Result<T> = std::result::Result<T, Error>;

/// A schedule as it stands.
#[derive(Debug, Clone)]
pub struct View {
    /// What is kept.
    pub kept: Kept,
    /// Where it stands.
    pub state: State,
    /// The next tick and when it fires; `None` when it rests or its time is over.
    pub next: Option<(Timestamp, Timestamp)>,
    /// The tick it should have settled by now.
    pub overdue: Option<Timestamp>,
}

impl View {
    fn new(kept: Kept, state: State, now: Timestamp) -> Self {
        let schedule = Schedule::new(kept.definition.clone()).ok().filter(|_| kept.is_active());
        let cursor = state.cursor.max(kept.from);
        let due = |schedule: &Schedule| {
            let tick = schedule.next_after(cursor)?;
            Some((tick, schedule.due(tick)))
        };
        let open = schedule.as_ref().and_then(due);
        let overdue = open.filter(|(_, due)| due.plus(OVERDUE_AFTER) < now).map(|(tick, _)| tick);
        let later = |schedule: &Schedule| schedule.firings(cursor.max(now), 1).first().copied();
        let next = open.filter(|(_, due)| *due >= now).or_else(|| schedule.as_ref().and_then(later));
        Self { kept, state, next, overdue }
    }

    /// One word: `active`, `paused`, `disabled`, `done`.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (self.kept.paused, self.kept.definition.enabled, self.next.is_some()) {
            (true, ..) => "paused",
            (_, false, _) => "disabled",
            (.., true) => "active",
            (.., false) => "done",
        }
    }

    /// The schedule as HTTP and `--json` show it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let State { last, held, fired_total, skipped_total, missed_total, .. } = &self.state;
        let mut value = serde_json::to_value(&self.kept.definition).unwrap_or_default();
        let last = last
            .as_ref()
            .map(|last| json!({ "planned_at": last.planned_at, "fired_at": last.fired_at, "task_id": last.job }));
        let facts = json!({
            "queue": self.kept.queue,
            "origin": self.kept.origin,
            "paused": self.kept.paused,
            "status": self.status(),
            "changed_at": self.kept.changed_at,
            "next_at": self.next.map(|(tick, _)| tick),
            "next_fires_at": self.next.map(|(_, due)| due),
            "overdue_since": self.overdue,
            "last": last,
            "held": held,
            "fired_total": fired_total,
            "skipped_total": skipped_total,
            "missed_total": missed_total,
        });
        if let (Value::Object(value), Value::Object(facts)) = (&mut value, facts) {
            value.extend(facts);
        }
        value
    }
}

/// What a synchronisation did, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Synced {
    /// New.
    pub added: Vec<String>,
    /// Changed.
    pub changed: Vec<String>,
    /// Gone.
    pub removed: Vec<String>,
}

impl Synced {
    /// True when nothing had to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The book. Clones share it.
#[derive(Clone)]
pub struct Book {
    records: Arc<dyn Records>,
    broker: SharedBroker,
    kinds: Arc<dyn Kinds>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Book")
    }
}

impl Book {
    /// The schedules of a store, whose jobs go to a broker.
    #[must_use]
    pub fn new(records: Arc<dyn Records>, broker: SharedBroker, kinds: Arc<dyn Kinds>) -> Self {
        Self { records, broker, kinds }
    }

    /// Where it is kept.
    #[must_use]
    pub fn records(&self) -> &Arc<dyn Records> {
        &self.records
    }

    /// Where its jobs go.
    #[must_use]
    pub const fn broker(&self) -> &SharedBroker {
        &self.broker
    }

    /// Every schedule, by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn all(&self) -> Result<Vec<View>> {
        let now = self.records.meta(SPACE).await?.now;
        let mut states: BTreeMap<String, State> = self
            .records
            .all(SPACE, STATES)
            .await?
            .iter()
            .filter_map(|doc| Some((doc.name.clone(), read(doc)?)))
            .collect();
        let kept = self.records.all(SPACE, SCHEDULES).await?;
        let view = |doc: &Record| Some(View::new(read(doc)?, states.remove(&doc.name).unwrap_or_default(), now));
        Ok(kept.iter().filter_map(view).collect())
    }

    /// One schedule.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn get(&self, name: &str) -> Result<View> {
        let (kept, _) = self.kept(name).await?;
        let state = self.records.get(SPACE, STATES, name).await?;
        let now = self.records.meta(SPACE).await?.now;
        Ok(View::new(kept, state.as_ref().and_then(read).unwrap_or_default(), now))
    }

    /// Its next firings: `(tick, when it fires)`. A resting one is answered as if it did not rest.
    ///
    /// # Errors
    /// As [`Book::get`].
    pub async fn next(&self, name: &str, count: usize) -> Result<Vec<(Timestamp, Timestamp)>> {
        let (kept, _) = self.kept(name).await?;
        let now = self.records.meta(SPACE).await?.now;
        Ok(Schedule::new(kept.definition).map(|s| s.firings(now, count)).unwrap_or_default())
    }

    /// What a definition would do from now on, without keeping it.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Store`].
    pub async fn preview(&self, definition: &Definition, count: usize) -> Result<Vec<(Timestamp, Timestamp)>> {
        let now = self.records.meta(SPACE).await?.now;
        let kinds = self.kinds_of(std::slice::from_ref(definition)).await?;
        check(definition, kinds.as_ref(), now)?;
        Ok(Schedule::new(definition.clone()).map(|s| s.firings(now, count)).unwrap_or_default())
    }

    /// Its ledger, newest first.
    ///
    /// # Errors
    /// As [`Book::get`].
    pub async fn history(&self, name: &str, from: usize, limit: usize) -> Result<Vec<Entry>> {
        self.kept(name).await?;
        let entries = self.records.log(SPACE, name, from, limit).await?;
        Ok(entries.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
    }

    /// Keeps a new schedule.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Exists`], [`Error::TooMany`], [`Error::Store`].
    pub async fn create(&self, definition: Definition) -> Result<View> {
        let meta = self.records.meta(SPACE).await?;
        let kinds = self.kinds_of(std::slice::from_ref(&definition)).await?;
        check(&definition, kinds.as_ref(), meta.now)?;
        if definition.name.starts_with(BUILTIN_PREFIX) {
            let message = "names that begin with windlass. are the built-in schedules'";
            return Err(Error::Refused(vec![Violation::new("/name", "name_invalid", message)]));
        }
        if self.records.all(SPACE, SCHEDULES).await?.len() >= MAX_SCHEDULES {
            return Err(Error::TooMany);
        }
        let name = definition.name.clone();
        let kept = keep(definition, kinds.as_ref(), Origin::User, meta.now, None)?;
        match self.write(vec![put(&kept, Expect::Absent)]).await? {
            Written::Done(_) => self.get(&name).await,
            _ => Err(Error::Exists(name)),
        }
    }

    /// Replaces what is kept under the definition's name.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::NotFound`], [`Error::Managed`], [`Error::Busy`], [`Error::Store`].
    pub async fn change(&self, definition: Definition) -> Result<View> {
        let name = definition.name.clone();
        for _ in 0..TRIES {
            let (old, rev) = self.kept(&name).await?;
            if old.origin == Origin::Settings {
                return Err(managed(&name));
            }
            let now = self.records.meta(SPACE).await?.now;
            let kinds = self.kinds_of(std::slice::from_ref(&definition)).await?;
            check(&definition, kinds.as_ref(), now)?;
            let mut kept = keep(definition.clone(), kinds.as_ref(), old.origin, now, Some(&old))?;
            kept.own = old.origin == Origin::Builtin;
            if let Written::Done(_) = self.write(vec![put(&kept, Expect::Rev(rev))]).await? {
                return self.get(&name).await;
            }
        }
        Err(Error::Busy)
    }

    /// Forgets a schedule, its state and its ledger. Jobs it has enqueued stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Managed`], [`Error::Store`].
    pub async fn remove(&self, name: &str) -> Result<()> {
        let (old, _) = self.kept(name).await?;
        match old.origin {
            Origin::User => {}
            Origin::Settings => return Err(managed(name)),
            Origin::Builtin => {
                let hint = "pause it to switch it off";
                return Err(Error::Managed { name: name.to_owned(), from: "the program", hint });
            }
        }
        self.write(forget(name)).await?;
        Ok(())
    }

    /// Puts a schedule to rest, or lets it go on: from now, ticks of the rest are not missed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`], [`Error::Store`].
    pub async fn pause(&self, name: &str, paused: bool) -> Result<View> {
        for _ in 0..TRIES {
            let (mut kept, rev) = self.kept(name).await?;
            if kept.paused == paused {
                return self.get(name).await;
            }
            let now = self.records.meta(SPACE).await?.now;
            kept.paused = paused;
            kept.changed_at = now;
            if !paused {
                kept.from = now;
            }
            if let Written::Done(_) = self.write(vec![put(&kept, Expect::Rev(rev))]).await? {
                return self.get(name).await;
            }
        }
        Err(Error::Busy)
    }

    /// Enqueues its job now, whatever its plan says; the job's id.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Enqueue`], [`Error::Store`] (then it may have been enqueued).
    pub async fn run(&self, name: &str) -> Result<JobId> {
        let (kept, _) = self.kept(name).await?;
        let refused = |message: String| Error::Refused(vec![Violation::new("/plan", "plan_invalid", message)]);
        let schedule = Schedule::new(kept.definition).map_err(|e| refused(e.message))?;
        let (id, job) = schedule.extra_job(kept.queue).map_err(|e| refused(e.to_string()))?;
        Producer::new(Arc::<dyn windlass_broker::Broker>::clone(&self.broker)).enqueue(&id.queue, job).await?;
        let now = self.records.meta(SPACE).await?.now;
        let entry = Entry { job: Some(id.clone()), ..Entry::new(What::Manual, now, now) };
        let batch = Batch { writes: vec![append(name, &entry)], ..Batch::default() };
        self.records.write(SPACE, &batch).await?;
        Ok(id)
    }

    /// Makes what is kept of an origin equal to `wanted`: adds, changes, removes. What was paused
    /// stays so. Everything is checked first; one wrong schedule, and nothing is done.
    ///
    /// # Errors
    /// [`Error::Refused`] (paths begin with the schedule's name), [`Error::Busy`], [`Error::Store`].
    pub async fn sync(&self, origin: Origin, wanted: &[Definition]) -> Result<Synced> {
        let kinds = self.kinds_of(wanted).await?;
        check_all(wanted, kinds.as_ref())?;
        for _ in 0..TRIES {
            let (synced, writes) = self.difference(origin, wanted, kinds.as_ref()).await?;
            let mut done = true;
            for slice in writes.chunks(SLICE) {
                done &= matches!(self.write(slice.concat()).await?, Written::Done(_));
            }
            if done {
                return Ok(synced);
            }
        }
        Err(Error::Busy)
    }

    /// The writes that make the book fit, one group for each schedule.
    async fn difference(
        &self,
        origin: Origin,
        wanted: &[Definition],
        kinds: &dyn Kinds,
    ) -> Result<(Synced, Vec<Vec<Write>>)> {
        let now = self.records.meta(SPACE).await?.now;
        let documents = self.records.all(SPACE, SCHEDULES).await?;
        let old: BTreeMap<&str, (u64, Kept)> =
            documents.iter().filter_map(|doc| Some((doc.name.as_str(), (doc.rev, read(doc)?)))).collect();
        let (mut synced, mut writes) = (Synced::default(), Vec::new());
        for definition in wanted {
            let name = &definition.name;
            match old.get(name.as_str()) {
                None => {
                    writes.push(vec![put(&keep(definition.clone(), kinds, origin, now, None)?, Expect::Absent)]);
                    synced.added.push(name.clone());
                }
                // Retimed by hand, or by the settings file.
                Some((_, kept)) if origin == Origin::Builtin && (kept.own || kept.origin != origin) => {}
                Some((rev, kept)) => {
                    let new = keep(definition.clone(), kinds, origin, now, Some(kept))?;
                    if (&new.definition, &new.queue, new.origin) != (&kept.definition, &kept.queue, kept.origin) {
                        writes.push(vec![put(&new, Expect::Rev(*rev))]);
                        synced.changed.push(name.clone());
                    }
                }
            }
        }
        let names: BTreeSet<&str> = wanted.iter().map(|definition| definition.name.as_str()).collect();
        for (name, (_, kept)) in &old {
            if kept.origin == origin && !kept.own && !names.contains(name) {
                writes.push(forget(name));
                synced.removed.push((*name).to_owned());
            }
        }
        Ok((synced, writes))
    }

    /// Everything wrong with schedules of a settings file, as far as it can be known now: kinds that
    /// only others know are let pass while the queue does not answer.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn check_settings(&self, wanted: &[Definition]) -> Result<()> {
        match tokio::time::timeout(PATIENCE, self.kinds_of(wanted)).await {
            Ok(Ok(kinds)) => check_all(wanted, kinds.as_ref()),
            Ok(Err(_)) | Err(_) => {
                let known: Vec<Definition> =
                    wanted.iter().filter(|d| self.kinds.queue(&d.kind).is_some()).cloned().collect();
                check_all(&known, self.kinds.as_ref())
            }
        }
    }

    /// The kinds to check these against: this program's, and where those do not do, also those that
    /// workers of others have published.
    async fn kinds_of(&self, definitions: &[Definition]) -> Result<Arc<dyn Kinds>> {
        if definitions.iter().all(|definition| self.kinds.queue(&definition.kind).is_some()) {
            return Ok(Arc::clone(&self.kinds));
        }
        let published = self.broker.kinds().await.map_err(windlass_producer::Error::from)?;
        Ok(Arc::new(WithPublished { own: Arc::clone(&self.kinds), published: Catalogue::new(published) }))
    }

    async fn kept(&self, name: &str) -> Result<(Kept, u64)> {
        let missing = || Error::NotFound(name.chars().take(64).collect());
        if !is_name(name) {
            return Err(missing());
        }
        let record = self.records.get(SPACE, SCHEDULES, name).await?.ok_or_else(missing)?;
        Ok((read(&record).ok_or_else(missing)?, record.rev))
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Written> {
        Ok(self.records.write(SPACE, &Batch { notify: true, writes, ..Batch::default() }).await?)
    }
}

/// A definition as it is kept from now on, in the place of an old one.
fn keep(definition: Definition, kinds: &dyn Kinds, origin: Origin, now: Timestamp, old: Option<&Kept>) -> Result<Kept> {
    let queue: Option<Queue> = definition.queue.clone().or_else(|| kinds.queue(&definition.kind));
    let unknown = || Error::Refused(vec![Violation::new("/kind", "unknown_kind", "the kind is not known here")]);
    // The same times go on where they were: a change of args makes no tick missed or anew.
    let same_times = old.filter(|old| {
        let (a, b) = (&old.definition, &definition);
        (&a.plan, &a.zone, a.clock_change, a.starts_at, a.enabled)
            == (&b.plan, &b.zone, b.clock_change, b.starts_at, b.enabled)
    });
    Ok(Kept {
        queue: queue.ok_or_else(unknown)?,
        definition,
        origin,
        own: false,
        paused: old.is_some_and(|old| old.paused),
        from: same_times.map_or(now, |old| old.from),
        changed_at: now,
    })
}

fn check(definition: &Definition, kinds: &dyn Kinds, now: Timestamp) -> Result<()> {
    let wrong = definition.check(kinds, Some(now));
    if wrong.is_empty() { Ok(()) } else { Err(Error::Refused(wrong)) }
}

/// Checks what a settings file names. A time that is over is right there: it is read at every
/// start.
fn check_all(wanted: &[Definition], kinds: &dyn Kinds) -> Result<()> {
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for definition in wanted {
        let found = definition.check(kinds, None);
        wrong.extend(found.into_iter().map(|v| Violation { path: format!("{}{}", definition.name, v.path), ..v }));
        if !names.insert(&definition.name) {
            wrong.push(Violation::new(definition.name.clone(), "name_taken", "two schedules have this name"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Refused(wrong)) }
}

fn managed(name: &str) -> Error {
    let hint = "change it there and start the scheduler again";
    Error::Managed { name: name.to_owned(), from: "the settings file", hint }
}

fn put(kept: &Kept, expect: Expect) -> Write {
    let json = serde_json::to_string(kept).unwrap_or_default();
    Write::Put { set: SCHEDULES, name: kept.definition.name.clone(), json, expect }
}

/// Everything that is kept of a schedule goes.
pub(crate) fn forget(name: &str) -> Vec<Write> {
    let remove = |set| Write::Remove { set, name: name.to_owned(), expect: Expect::Any };
    vec![remove(SCHEDULES), remove(STATES), Write::DropLog { log: name.to_owned() }]
}

/// An entry at the top of a schedule's ledger.
pub(crate) fn append(name: &str, entry: &Entry) -> Write {
    let json = serde_json::to_string(entry).unwrap_or_default();
    Write::Append { log: name.to_owned(), json, keep: LEDGER_KEEP }
}

/// A document, unless it cannot be read: then it is said, and left alone.
pub(crate) fn read<T: DeserializeOwned>(record: &Record) -> Option<T> {
    let read = serde_json::from_str(&record.json);
    read.inspect_err(|e| tracing::error!(schedule = record.name, error = %e, "schedule_unreadable")).ok()
}
