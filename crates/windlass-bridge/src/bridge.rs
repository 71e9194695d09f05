//! The bridge itself: takes, sends, looks, tells, one loop for each source.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use windlass_broker::SharedBroker;
use windlass_jobs::catalogue::KindInfo;
use windlass_jobs::{JobId, JobRecord, NewJob, Queue, State, Timestamp, When};
use windlass_producer::Producer;
use windlass_redis::{Error, Message};

use crate::counters::{Counters, Meter, add};
use crate::custody::{Became, Next, Note, Row, Turn};
use crate::health::Health;
use crate::source::{AnySource, Foreign, News, Refusal, Source, What};

/// Most jobs taken in one call.
const SLICE: usize = 100;
/// Most jobs sent or looked at in one turn.
const LOOK: usize = 200;
/// Looks under way at once.
const LOOKS_AT_ONCE: usize = 32;
/// How soon a job that was just put on its queue is looked at.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// So long before it may run a job is looked at often: a task that is revoked by then never starts.
const SHORTLY: Duration = Duration::from_secs(2);
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
                revocations: source.revocations(),
                source,
                broker: Arc::clone(broker),
                // Without a spool: until the queue has a job, its source keeps it.
                producer: Producer::new(Arc::<dyn windlass_broker::Broker>::clone(broker)),
                queues: Arc::clone(&queues),
                options: options.clone(),
                meter,
                taking: Health::new("reach its source"),
                sending: Health::new("put jobs on their queues"),
                looking: Health::new("see what became of jobs"),
                recovering: Health::new("look for jobs of workers that are gone"),
                shy: None,
                recovered: None,
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
    /// The queue of a kind; `None` where nobody has published or knows it.
    async fn of(&self, kind: &str) -> windlass_broker::Result<Option<Queue>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kinds = match known.filter(|(at, _)| at.elapsed() < KINDS_FOR) {
            Some((_, kinds)) => kinds,
            None => {
                let kinds = Arc::new(self.broker.kinds().await?);
                let news = (Instant::now(), Arc::clone(&kinds));
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
                kinds
            }
        };
        let published = kinds.iter().find(|info| info.name == kind || info.aliases.iter().any(|alias| alias == kind));
        Ok(published.and_then(|info| Queue::new(&info.queue).ok()).or_else(|| (self.queue_of)(kind)))
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
    /// Where the source's clients say what is no longer wanted.
    revocations: Option<mpsc::UnboundedReceiver<Message>>,
    taking: Health,
    sending: Health,
    looking: Health,
    recovering: Health,
    /// When no job got through to its queue, if that is how it went last.
    shy: Option<Instant>,
    /// When jobs of workers that are gone were last looked for.
    recovered: Option<Instant>,
}

/// A job on its way to the queue.
struct Sending {
    member: Vec<u8>,
    foreign: Foreign,
}

/// Jobs on their way, by what is to be done with them.
#[derive(Default)]
struct Sorted {
    /// What is sent, by queue.
    parts: BTreeMap<Queue, Vec<Sending>>,
    /// What never becomes a job here.
    closed: Vec<Closing>,
    /// What is tried again.
    again: Vec<Vec<u8>>,
    failure: Option<windlass_broker::Error>,
}

/// A job that is let go without having been one here.
struct Closing {
    member: Vec<u8>,
    news: News,
    /// Of one that was refused; the others were revoked before they were taken.
    note: Option<Note>,
}

/// Where jobs were put, and what is left of the others.
#[derive(Default)]
struct Sent {
    settled: Vec<(Vec<u8>, Next, Option<Became>)>,
    closed: Vec<Closing>,
    failure: Option<windlass_producer::Error>,
    any_through: bool,
}

impl Runner {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let wait = match self.turn().await {
                Ok(more) => {
                    self.taking.works(self.source.name());
                    if more { Duration::ZERO } else { self.options.poll }
                }
                Err(error) => {
                    self.taking.fails(self.source.name(), &self.meter, &error);
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
    async fn turn(&mut self) -> Result<bool, Error> {
        let take = if self.shy.is_some_and(|at| at.elapsed() < SHY) { 0 } else { SLICE };
        let (script, call) = self.source.turn(take, LOOK, self.options.hold);
        let mut turn = self.source.custody().turn(script, &call).await?;
        self.hear();
        self.meter.waiting.store(turn.waiting, Ordering::Relaxed);
        self.meter.open.store(turn.open + turn.later, Ordering::Relaxed);
        if let Some((member, error)) = turn.unreadable.first() {
            // They stay: another bridge may have written them in a form of its own.
            let (source, count) = (self.source.name(), turn.unreadable.len());
            add(&self.meter.errors, count);
            let member = String::from_utf8_lossy(member);
            tracing::warn!(source, count, %member, %error, "it cannot be read what jobs in custody became");
        }
        let (unsent, sent) = (std::mem::take(&mut turn.unsent), std::mem::take(&mut turn.sent));
        self.send(unsent, &turn).await?;
        self.look(sent, &turn).await?;
        self.recover().await;
        Ok(turn.is_full)
    }

    /// Takes note of what is no longer wanted.
    fn hear(&mut self) {
        while let Some(Ok(message)) = self.revocations.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            if let Message::Text(text) = message {
                self.source.revoke(&text);
            }
        }
    }

    /// A failure stops nothing else.
    async fn recover(&mut self) {
        if self.recovered.is_some_and(|at| at.elapsed() < RECOVER_EVERY) {
            return;
        }
        let name = self.source.name();
        match self.source.recover().await {
            Ok(found) => {
                self.recovering.works(name);
                if found > 0 {
                    tracing::warn!(source = name, found, "jobs of workers that are gone are taken over");
                }
            }
            Err(error) => self.recovering.fails(name, &self.meter, &error),
        }
        self.recovered = Some(Instant::now());
    }

    async fn send(&mut self, rows: Vec<Row>, turn: &Turn) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let Sorted { parts, mut closed, again, failure } = self.sort(rows).await;
        let mut sent = Sent { failure: failure.map(Into::into), ..Sent::default() };
        let retry = AGAIN.max(turn.least());
        sent.settled.extend(again.into_iter().map(|member| (member, Next::Soon(retry), None)));
        for (queue, part) in parts {
            self.send_part(&queue, part, turn, &mut sent).await;
        }
        closed.append(&mut sent.closed);
        if sent.any_through {
            self.shy = None;
        }
        if let Some(error) = &sent.failure {
            self.sending.fails(self.source.name(), &self.meter, error);
            if !sent.any_through {
                self.shy = Some(Instant::now());
            }
        } else if sent.any_through {
            self.sending.works(self.source.name());
        }
        self.source.custody().settle(&sent.settled).await?;
        self.close(closed).await
    }

    /// What is to be sent where, and what is not to be sent.
    async fn sort(&self, rows: Vec<Row>) -> Sorted {
        let mut sorted = Sorted::default();
        for row in rows {
            let foreign = match self.source.read(&row) {
                Ok(foreign) => foreign,
                Err(refusal) => {
                    let found = row.more.into_iter().next().flatten().unwrap_or(row.held);
                    sorted.closed.push(self.refused(row.member, refusal, &found));
                    continue;
                }
            };
            if sorted.failure.is_some() {
                sorted.again.push(row.member);
                continue;
            }
            match self.place(&foreign).await {
                Ok(Some(queue)) => {
                    sorted.parts.entry(queue).or_default().push(Sending { member: row.member, foreign });
                }
                Ok(None) => {
                    tracing::info!(source = self.source.name(), id = foreign.id, "revoked before it was taken");
                    let Foreign { id, group, is_quiet, .. } = foreign;
                    let what = What::Cancelled("revoked before it was taken".to_owned());
                    let news = News { id, group, is_quiet, attempt: 0, worker: None, is_new_run: false, what };
                    sorted.closed.push(Closing { member: row.member, news, note: None });
                }
                Err(error) => {
                    sorted.failure = Some(error);
                    sorted.again.push(row.member);
                }
            }
        }
        sorted
    }

    /// The queue of a job; `None` for one that is no longer wanted and that the queue does not have.
    async fn place(&self, foreign: &Foreign) -> windlass_broker::Result<Option<Queue>> {
        let mut queue = match &foreign.queue {
            Some(queue) => queue.clone(),
            None => self.queues.of(&foreign.job.kind).await?.unwrap_or_else(default_queue),
        };
        if self.source.is_revoked(&foreign.id, State::Pending) {
            // A bridge that was killed may have sent it: then it is cancelled when it is looked at.
            let mut job = foreign.job.clone();
            let is_placed = self.producer.place(&mut [(&mut queue, &mut job)]).is_ok();
            if is_placed && self.broker.get(&JobId::new(job.ulid, queue.clone())).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(queue))
    }

    async fn send_part(&self, queue: &Queue, mut part: Vec<Sending>, turn: &Turn, sent: &mut Sent) {
        while !part.is_empty() {
            let jobs: Vec<NewJob> = part.iter().map(|sending| sending.foreign.job.clone()).collect();
            match self.producer.enqueue_all(queue, jobs).await {
                Ok(accepted) => {
                    sent.any_through = true;
                    add(&self.meter.taken, accepted.iter().filter(|accepted| accepted.fresh).count());
                    for (sending, accepted) in part.drain(..).zip(accepted) {
                        let Foreign { id: foreign, group, is_quiet, job, .. } = sending.foreign;
                        let at = match job.when {
                            When::At(at) => at.0.max(turn.now),
                            _ => turn.now,
                        };
                        let became = Became { id: accepted.id, foreign, at, told: String::new(), group, is_quiet };
                        let next =
                            if at > turn.now { next_look(at, State::Scheduled, turn) } else { Next::Soon(FIRST_LOOK) };
                        sent.settled.push((sending.member, next, Some(became)));
                    }
                }
                Err(windlass_producer::Error::Refused(list)) => {
                    for (index, sending) in std::mem::take(&mut part).into_iter().enumerate() {
                        let Some(wrong) = list.iter().find(|wrong| wrong.index == index) else {
                            part.push(sending);
                            continue;
                        };
                        let reason = format!("{}: {}", wrong.violation.path, wrong.violation.message);
                        let refusal = Refusal { id: sending.foreign.id, reason };
                        let found = sending.foreign.job.args.get().as_bytes();
                        sent.closed.push(self.refused(sending.member, refusal, found));
                    }
                }
                Err(error) => {
                    sent.failure = Some(error);
                    let next = Next::Soon(AGAIN.max(turn.least()));
                    sent.settled.extend(part.drain(..).map(|sending| (sending.member, next, None)));
                }
            }
        }
    }

    /// A job that is put aside, where its owners and ours see it.
    fn refused(&self, member: Vec<u8>, Refusal { id, reason }: Refusal, found: &[u8]) -> Closing {
        tracing::warn!(source = self.source.name(), id, reason, "the bridge refuses a job");
        let text = String::from_utf8_lossy(found);
        let message = text[..text.floor_char_boundary(NOTE_BYTES)].to_owned();
        let note = Note { id: id.clone(), at: Timestamp::now(), reason: reason.clone(), message };
        let what = What::Refused(reason);
        let news = News { id, group: None, is_quiet: false, attempt: 0, worker: None, is_new_run: false, what };
        Closing { member, news, note: Some(note) }
    }

    async fn close(&self, jobs: Vec<Closing>) -> Result<(), Error> {
        let (news, closed): (Vec<News>, Vec<_>) =
            jobs.into_iter().map(|Closing { member, news, note }| (news, (member, note))).unzip();
        self.source.tell(&news).await?;
        let refused = closed.iter().filter(|(_, note)| note.is_some()).count();
        add(&self.meter.refused, refused);
        add(&self.meter.revoked, closed.len() - refused);
        self.source.custody().close(&closed).await
    }

    async fn look(&mut self, known: Vec<(Vec<u8>, Became)>, turn: &Turn) -> Result<(), Error> {
        let broker = &self.broker;
        let look = |(member, became): (Vec<u8>, Became)| async move {
            let record = broker.get(&became.id).await;
            (member, became, record)
        };
        let looked: Vec<_> =
            futures_util::stream::iter(known).map(look).buffer_unordered(LOOKS_AT_ONCE).collect().await;
        let (mut news, mut settled, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        let (mut failure, mut any_seen) = (None, false);
        for (member, mut became, record) in looked {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    failure = Some(error);
                    settled.push((member, Next::Soon(AGAIN.max(turn.least())), None));
                    continue;
                }
            };
            any_seen = true;
            let is_cancelled = match self.cancel_revoked(&became, record.as_ref()).await {
                Ok(is_cancelled) => is_cancelled,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            };
            let (what, attempt) = (What::of(record.as_ref()), record.as_ref().map_or(0, JobRecord::attempt));
            let is_end = what.is_end();
            let short = what.short(attempt);
            let is_news = short != became.told;
            let state = record.as_ref().map_or(State::Pending, |record| record.state);
            if let Some(run_at) = record.as_ref().and_then(|record| record.run_at) {
                became.at = became.at.max(run_at.0);
            }
            let next = if is_cancelled { Next::Soon(turn.least()) } else { next_look(became.at, state, turn) };
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
                settled.push((member, next, is_news.then_some(became)));
            }
        }
        match &failure {
            Some(error) => self.looking.fails(self.source.name(), &self.meter, error),
            None if any_seen => self.looking.works(self.source.name()),
            None => {}
        }
        self.source.tell(&news).await?;
        add(&self.meter.answered, closed.len());
        self.source.custody().close(&closed).await?;
        self.source.custody().settle(&settled).await
    }

    /// True when it was no longer wanted.
    async fn cancel_revoked(&self, became: &Became, record: Option<&JobRecord>) -> windlass_broker::Result<bool> {
        let is_unwanted = record
            .is_some_and(|record| !record.state.is_terminal() && self.source.is_revoked(&became.foreign, record.state));
        if is_unwanted {
            self.broker.cancel(&became.id).await?;
        }
        Ok(is_unwanted)
    }
}

fn default_queue() -> Queue {
    Queue::new("default").expect("the name fits the grammar")
}

impl Turn {
    /// The least time between two looks at one job: of very many each is looked at more rarely, so
    /// that there are at most some 2,000 looks a second.
    fn least(&self) -> Duration {
        Duration::from_millis(self.open / 2).max(Duration::from_millis(50))
    }
}

/// When a job is looked at next whose age begins at `at`, by the source's clock in ms.
///
/// A young job is looked at often, an old one now and then. One that may not run for a while is looked at
/// every 5 s, of very many at most some 1,000 a second, until shortly before its time.
fn next_look(at: i64, state: State, turn: &Turn) -> Next {
    let (now, at) = (Timestamp(turn.now), Timestamp(at));
    let (until, age) = (at.since(now), now.since(at));
    if matches!(state, State::Scheduled | State::Retrying) && !until.is_zero() {
        let most = Duration::from_secs(5).max(Duration::from_millis(turn.later));
        return match until.saturating_sub(SHORTLY) {
            Duration::ZERO => Next::Soon(until.min(Duration::from_millis(250)).max(turn.least())),
            spare => Next::Later(spare.min(most)),
        };
    }
    let most = Duration::from_secs(if state == State::Running { 1 } else { 5 });
    let least = turn.least();
    Next::Soon((age / 8).clamp(least, most.max(least)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_that_wait_for_their_time_do_not_slow_the_others_down() {
        let check = |open: u64, later: u64, at_ms: i64, state: State, expected: Next| {
            let (unsent, sent, unreadable) = Default::default();
            let now = 1_000_000;
            let turn = Turn { now, open, later, waiting: 0, is_full: false, unsent, sent, unreadable };
            assert_eq!(next_look(now + at_ms, state, &turn), expected, "{open} {later} {at_ms} {state:?}");
        };
        let ms = Duration::from_millis;
        // A young one beside 100,000 that wait, and beside 10,000 like it.
        check(10, 100_000, 0, State::Running, Next::Soon(ms(50)));
        check(10_000, 0, 0, State::Running, Next::Soon(ms(5_000)));
        check(10, 0, -4_000, State::Running, Next::Soon(ms(500)));
        check(10, 0, -3_600_000, State::Running, Next::Soon(ms(1_000)));
        check(10, 0, -3_600_000, State::Pending, Next::Soon(ms(5_000)));
        // Hours before its time, shortly before, and from then on as one that was just enqueued.
        check(10, 10, 7_200_000, State::Scheduled, Next::Later(ms(5_000)));
        check(10, 60_000, 7_200_000, State::Scheduled, Next::Later(ms(60_000)));
        check(10, 10, 4_000, State::Retrying, Next::Later(ms(2_000)));
        check(10, 10, 1_500, State::Scheduled, Next::Soon(ms(250)));
        check(10, 10, 100, State::Scheduled, Next::Soon(ms(100)));
        check(10, 10, -10, State::Scheduled, Next::Soon(ms(50)));
    }
}
