//! The bridge itself: takes, sends, looks, tells, one loop for each source.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_broker::SharedBroker;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::{JobRecord, NewJob, Queue, State, Timestamp};
use windlass_producer::Producer;
use windlass_redis::{Error, Message};

use crate::counters::{Counters, Meter, add};
use crate::custody::{Became, Note, Row, Turn};
use crate::source::{AnySource, Foreign, News, Refusal, Source, What};

/// Most jobs taken in one call.
const SLICE: usize = 100;
/// Most jobs sent or looked at in one turn.
const LOOK: usize = 200;
/// Looks under way at once.
const LOOKS_AT_ONCE: usize = 32;
/// How soon a job is tried again that the queue did not take.
const AGAIN: Duration = Duration::from_millis(500);
/// After a failure nothing new is taken for so long, unless a job gets through.
const SHY: Duration = Duration::from_secs(5);
/// How often jobs of workers that are gone are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(30);
/// How long the published kinds are remembered.
const KINDS_FOR: Duration = Duration::from_secs(10);
/// The longest text of a refused job that is kept.
const NOTE_BYTES: usize = 64 * 1024;

/// The queue of a kind that no worker has published.
pub type QueueOf = Arc<dyn Fn(&str) -> Option<Queue> + Send + Sync>;

/// How a bridge works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a source that had nothing is left alone. Default 100 ms.
    pub poll: Duration,
    /// For how long other bridges leave alone what one has in hand: a job whose bridge was killed goes
    /// on after that. Default 10 s.
    pub hold: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { poll: Duration::from_millis(100), hold: Duration::from_secs(10) }
    }
}

/// Moves the jobs of its sources until it is stopped. Any number of bridges may share sources.
#[derive(Debug)]
pub struct Bridge {
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Bridge {
    /// Starts on this runtime.
    #[must_use]
    pub fn start(broker: &SharedBroker, sources: Vec<AnySource>, queue_of: QueueOf, options: &Options) -> Self {
        let (stop, stopped) = watch::channel(false);
        let queues = Arc::new(Queues { broker: Arc::clone(broker), queue_of, known: Mutex::default() });
        let mut counters = Counters::default();
        let running = sources.into_iter().map(|AnySource(source)| {
            let meter = Arc::new(Meter::default());
            counters.0.push((source.name().to_owned(), Arc::clone(&meter)));
            let runner = Runner {
                source,
                broker: Arc::clone(broker),
                // Without a spool: until the queue has a job, its source keeps it.
                producer: Producer::new(Arc::<dyn windlass_broker::Broker>::clone(broker)),
                queues: Arc::clone(&queues),
                options: options.clone(),
                meter,
                failed: Mutex::default(),
                recovered: Mutex::default(),
            };
            tokio::spawn(runner.run(stopped.clone()))
        });
        let running = running.collect();
        Self { stop, running, counters: Arc::new(counters) }
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Ends it, once what is in hand is done.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for running in self.running {
            // A panic was logged; the jobs lie where they lay.
            let _ = running.await;
        }
    }
}

/// Which queue a kind belongs to.
struct Queues {
    broker: SharedBroker,
    queue_of: QueueOf,
    known: Mutex<Option<(Instant, Arc<Vec<KindInfo>>)>>,
}

impl Queues {
    async fn of(&self, kind: &str) -> Option<Queue> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kinds = match known.filter(|(at, _)| at.elapsed() < KINDS_FOR) {
            Some((_, kinds)) => kinds,
            None => {
                let kinds = Arc::new(self.broker.kinds().await.unwrap_or_default());
                let news = (Instant::now(), Arc::clone(&kinds));
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
                kinds
            }
        };
        let published = kinds.iter().find(|info| info.name == kind || info.aliases.iter().any(|alias| alias == kind));
        published.and_then(|info| Queue::new(&info.queue).ok()).or_else(|| (self.queue_of)(kind))
    }
}

/// The loop of one source.
struct Runner {
    source: Arc<dyn Source>,
    broker: SharedBroker,
    producer: Producer,
    queues: Arc<Queues>,
    options: Options,
    meter: Arc<Meter>,
    /// When the queue last took no job.
    failed: Mutex<Option<Instant>>,
    /// When jobs of workers that are gone were last looked for.
    recovered: Mutex<Option<Instant>>,
}

/// A job on its way to the queue.
struct Sending {
    member: Vec<u8>,
    foreign: Foreign,
}

impl Runner {
    async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut revocations = self.source.revocations();
        let mut is_well = true;
        while !*stopped.borrow() {
            while let Some(Ok(message)) = revocations.as_mut().map(tokio::sync::mpsc::UnboundedReceiver::try_recv) {
                if let Message::Text(text) = message {
                    self.source.revoke(&text);
                }
            }
            let wait = match self.turn().await {
                Ok(more) => {
                    if !is_well {
                        tracing::info!(source = self.source.name(), "the bridge's source answers again");
                    }
                    is_well = true;
                    if more { Duration::ZERO } else { self.options.poll }
                }
                Err(error) => {
                    add(&self.meter.errors, 1);
                    if is_well {
                        tracing::warn!(source = self.source.name(), error = ?error, "the bridge's source does not answer");
                    }
                    is_well = false;
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                _ = stopped.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes, sends, looks and tells once; true when there is more to do.
    async fn turn(&self) -> Result<bool, Error> {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let take = if failed.is_some_and(|at| at.elapsed() < SHY) { 0 } else { SLICE };
        self.recover().await?;
        let (script, call) = self.source.turn(take, LOOK, self.options.hold);
        let mut turn = self.source.custody().turn(script, &call).await?;
        self.meter.waiting.store(turn.waiting, Ordering::Relaxed);
        self.meter.open.store(turn.open, Ordering::Relaxed);
        let rows = std::mem::take(&mut turn.rows);
        let is_full = turn.taken == SLICE || rows.len() == LOOK;
        let (sent, unsent): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.became.is_some());
        self.send(unsent, &turn).await?;
        self.look(sent, &turn).await?;
        Ok(is_full)
    }

    async fn recover(&self) -> Result<(), Error> {
        let last = *self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < RECOVER_EVERY) {
            return Ok(());
        }
        let found = self.source.recover().await?;
        if found > 0 {
            tracing::warn!(source = self.source.name(), found, "jobs of workers that are gone are taken over");
        }
        *self.recovered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    fn failing(&self, error: &dyn std::error::Error) {
        add(&self.meter.errors, 1);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.replace(Instant::now()).is_none() {
            let source = error.source().map(ToString::to_string);
            tracing::warn!(source = self.source.name(), %error, cause = source, "the queue takes no jobs of the bridge");
        }
    }

    async fn send(&self, rows: Vec<Row>, turn: &Turn) -> Result<(), Error> {
        let (mut settled, mut refused) = (Vec::new(), Vec::new());
        let mut parts: BTreeMap<Queue, Vec<Sending>> = BTreeMap::new();
        for row in rows {
            match self.source.read(&row) {
                Ok(foreign) => {
                    let queue = match &foreign.queue {
                        Some(queue) => queue.clone(),
                        None => self.queues.of(&foreign.job.kind).await.unwrap_or_else(default_queue),
                    };
                    parts.entry(queue).or_default().push(Sending { member: row.member, foreign });
                }
                Err(refusal) => {
                    let found = row.more.into_iter().next().flatten().unwrap_or(row.held);
                    refused.push((row.member, refusal, found));
                }
            }
        }
        for (queue, mut part) in parts {
            while !part.is_empty() {
                let jobs: Vec<NewJob> = part.iter().map(|sending| sending.foreign.job.clone()).collect();
                match self.producer.enqueue_all(&queue, &jobs).await {
                    Ok(accepted) => {
                        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        add(&self.meter.taken, accepted.iter().filter(|accepted| accepted.fresh).count());
                        for (sending, accepted) in part.drain(..).zip(accepted) {
                            let Foreign { id: foreign, group, is_quiet, .. } = sending.foreign;
                            let became =
                                Became { id: accepted.id, foreign, at: turn.now, told: String::new(), group, is_quiet };
                            settled.push((sending.member, Duration::from_millis(20), Some(became)));
                        }
                    }
                    Err(windlass_producer::Error::Refused(list)) => {
                        for (index, sending) in std::mem::take(&mut part).into_iter().enumerate() {
                            let Some(wrong) = list.iter().find(|wrong| wrong.index == index) else {
                                part.push(sending);
                                continue;
                            };
                            let reason = format!("{}: {}", wrong.violation.path, wrong.violation.message);
                            let found = sending.foreign.job.args.get().as_bytes().to_vec();
                            refused.push((sending.member, Refusal { id: sending.foreign.id, reason }, found));
                        }
                    }
                    Err(error) => {
                        self.failing(&error);
                        settled.extend(part.drain(..).map(|sending| (sending.member, AGAIN, None)));
                    }
                }
            }
        }
        self.source.custody().settle(&settled).await?;
        self.refuse(refused).await
    }

    /// Puts jobs aside, where their owners and ours see them.
    async fn refuse(&self, jobs: Vec<(Vec<u8>, Refusal, Vec<u8>)>) -> Result<(), Error> {
        let mut news = Vec::new();
        let mut closed = Vec::new();
        for (member, Refusal { id, reason }, found) in jobs {
            tracing::warn!(source = self.source.name(), id, reason, "the bridge refuses a job");
            let text = String::from_utf8_lossy(&found);
            let message = text[..text.floor_char_boundary(NOTE_BYTES)].to_owned();
            let note = Note { id: id.clone(), at: Timestamp::now(), reason: reason.clone(), message };
            closed.push((member, Some(note)));
            let what = What::Refused(reason);
            news.push(News { id, group: None, is_quiet: false, attempt: 0, worker: None, is_new_run: false, what });
        }
        self.source.tell(&news).await?;
        add(&self.meter.refused, closed.len());
        self.source.custody().close(&closed).await
    }

    async fn look(&self, rows: Vec<Row>, turn: &Turn) -> Result<(), Error> {
        let known = rows.into_iter().filter_map(|row| Some((row.member, row.became?)));
        let look = |(member, became): (Vec<u8>, Became)| async {
            let record = self.broker.get(&became.id).await;
            (member, became, record)
        };
        let looked: Vec<_> =
            futures_util::stream::iter(known).map(look).buffer_unordered(LOOKS_AT_ONCE).collect().await;
        let (mut news, mut settled, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for (member, mut became, record) in looked {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    self.failing(&error);
                    settled.push((member, AGAIN, None));
                    continue;
                }
            };
            self.cancel_revoked(&became, record.as_ref()).await;
            let (what, attempt) = (What::of(record.as_ref()), record.as_ref().map_or(0, JobRecord::attempt));
            let is_end = what.is_end();
            let short = what.short(attempt);
            let is_news = short != became.told;
            let delay = next_look(&became, record.as_ref(), turn);
            if is_news {
                let (id, group) = (became.foreign.clone(), became.group.clone());
                let worker = record.and_then(|record| record.worker);
                let is_new_run = !became.told.starts_with(&What::run(attempt));
                news.push(News { id, group, is_quiet: became.is_quiet, attempt, worker, is_new_run, what });
                became.told = short;
            }
            if is_end {
                closed.push((member, None));
            } else {
                settled.push((member, delay, is_news.then_some(became)));
            }
        }
        self.source.tell(&news).await?;
        add(&self.meter.answered, closed.len());
        self.source.custody().close(&closed).await?;
        self.source.custody().settle(&settled).await
    }

    async fn cancel_revoked(&self, became: &Became, record: Option<&JobRecord>) {
        let waits = record
            .is_some_and(|record| !record.state.is_terminal() && self.source.is_revoked(&became.foreign, record.state));
        if waits && let Err(error) = self.broker.cancel(&became.id).await {
            self.failing(&error);
        }
    }
}

fn default_queue() -> Queue {
    Queue::new("default").expect("the name fits the grammar")
}

/// A young job is looked at often, an old one now and then; of very many each more rarely, so that
/// there are at most some 2,000 looks a second.
fn next_look(became: &Became, record: Option<&JobRecord>, turn: &Turn) -> Duration {
    let age = Timestamp(turn.now).since(Timestamp(became.at));
    let most = match record.map(|record| record.state) {
        Some(State::Running) => Duration::from_secs(1),
        _ => Duration::from_secs(5),
    };
    let least = Duration::from_millis(50).max(Duration::from_millis(turn.open / 2));
    (age / 8).clamp(least, most.max(least))
}
