//! Plays a sequence of random verbs on an engine and on the model in step.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use windlass_broker::{Error, SharedBroker};
use windlass_jobs::command::{Ack, Cancel, Exchange, Exchanged, Filter, Finish};
use windlass_jobs::flow::{Heard, Message, News};
use windlass_jobs::model::Model;
use windlass_jobs::{Clock, JobId, JobRecord, Lease, NewJob, Queue, SetClock, State, Timestamp, Ulid};

use super::steps::{Held, Job, Step, ending, name};
use crate::unique_queue;

/// Without its clock in hand, the engine's instant of a renewal is not known: the model's may
/// differ by as much. Long leases lie an hour apart.
const SLACK: Duration = Duration::from_secs(600);
/// Every so many steps everything is compared.
const COMPARE_EVERY: usize = 50;
/// Jobs compared then; at the end it is all.
const COMPARE_JOBS: usize = 20;

/// Where engine and model differ.
pub(super) struct Difference {
    /// After which step, from 0.
    pub(super) step: usize,
    /// The steps until then, each naming its jobs.
    pub(super) pinned: Vec<Step>,
    /// What was done until then, a line per step.
    pub(super) trace: Vec<String>,
    /// What differs.
    pub(super) what: String,
}

/// Plays steps on a queue of its own. `clock`: the engine's, if it is in hand. `thorough`:
/// everything is compared after every step.
pub(super) async fn play(
    broker: &SharedBroker,
    clock: Option<Arc<SetClock>>,
    keep: usize,
    steps: &[Step],
    thorough: bool,
) -> Option<Difference> {
    let queue = unique_queue("random");
    let model = Model::keeping(queue.clone(), keep);
    let mut player = Player { broker, clock, queue, model, known: vec![], trace: vec![] };
    let mut pinned = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        pinned.push(step.pinned(&player.model));
        let is_last = i + 1 == steps.len();
        let mut played = player.step(step).await;
        if played.is_ok() && (thorough || is_last || i % COMPARE_EVERY == COMPARE_EVERY - 1) {
            played = player.compare_all(if is_last { usize::MAX } else { COMPARE_JOBS }).await;
        }
        if let Err(what) = played {
            return Some(Difference { step: i, pinned, trace: player.trace, what });
        }
    }
    None
}

/// What differs, if anything does.
type Played = Result<(), String>;

struct Player<'a> {
    broker: &'a SharedBroker,
    clock: Option<Arc<SetClock>>,
    queue: Queue,
    model: Model,
    known: Vec<Ulid>,
    trace: Vec<String>,
}

impl Player<'_> {
    async fn step(&mut self, step: &Step) -> Played {
        let (broker, queue) = (self.broker, self.queue.clone());
        match step {
            Step::Enqueue(jobs) => self.enqueue(step, jobs).await,
            Step::Exchange(finishes, claim) => {
                let find =
                    |(held, settle): &(Held, _)| Finish { lease: held.find(&self.model), settle: Clone::clone(settle) };
                let finishes = finishes.iter().map(find).collect();
                self.exchange(&Exchange { finishes, claim: claim.clone() }).await
            }
            Step::Renew(held, lease) => {
                let leases = self.leases(held);
                let acks = broker.renew(&queue, &leases, *lease).await;
                let expected = self.model.renew(&leases, *lease, self.now());
                self.check(format!("renew {} for {lease:?}", lease_names(&leases)), acks, expected)
            }
            Step::Progress(held, progress) => {
                let lease = held.find(&self.model);
                let ack = broker.progress(&queue, lease, progress).await;
                let expected = self.model.progress(lease, progress);
                self.check(format!("progress {} of {}", progress.percent, lease_name(lease)), ack, expected)
            }
            Step::Forward(to_the_end) => self.forward(step, *to_the_end).await,
            Step::Cancel(job) => self.cancel(job.find(&self.model)).await,
            Step::Wait(span) => {
                match &self.clock {
                    Some(clock) => clock.advance(*span),
                    None => tokio::time::sleep(*span).await,
                }
                self.trace.push(step.to_string());
                Ok(())
            }
            _ => self.control(step).await,
        }
    }

    async fn control(&mut self, step: &Step) -> Played {
        let (broker, queue) = (self.broker, self.queue.clone());
        match step {
            Step::Pause(paused) => {
                let reply = broker.pause(&queue, *paused).await;
                self.model.pause(*paused);
                self.check(step.to_string(), reply, ())
            }
            Step::MaxWaiting(max) => {
                let reply = broker.set_max_waiting(&queue, *max).await;
                self.model.set_max_waiting(*max);
                self.check(step.to_string(), reply, ())
            }
            Step::Limits(limits) => {
                let reply = broker.set_limits(&queue, limits).await;
                self.model.set_limits(limits);
                self.check(step.to_string(), reply, ())
            }
            Step::Replay(jobs) => {
                let ulids = self.ulids(jobs);
                let (reply, expected) = (broker.replay(&queue, &ulids).await, self.model.replay(&ulids).0);
                self.check(format!("replay {}", names(&ulids)), reply, expected)
            }
            Step::Delete(jobs) => {
                let ulids = self.ulids(jobs);
                let (reply, expected) = (broker.delete(&queue, &ulids).await, self.model.delete(&ulids));
                self.check(format!("delete {}", names(&ulids)), reply, expected)
            }
            Step::Unpark(kinds) => {
                let (reply, expected) = (broker.unpark(&queue, kinds).await, self.model.unpark(kinds).0);
                self.check(step.to_string(), reply, expected)
            }
            Step::Tidy(success, failure) => {
                let reply = broker.tidy(&queue, *success, *failure).await;
                let expected = self.model.tidy(*success, *failure, self.now());
                self.check(step.to_string(), reply, expected)
            }
            Step::List(state, limit) => {
                let (ids, expected) = (self.pages(*state, *limit).await, self.model.list(*state, 0, 500).ids);
                self.check(step.to_string(), ids, expected)
            }
            Step::Search(filter, limit) => {
                let (ids, expected) = (self.finds(filter, *limit).await, self.model.search(filter, 0, 500).ids);
                self.check(step.to_string(), ids, expected)
            }
            other => unreachable!("{other} is played elsewhere"),
        }
    }

    /// Says what the queue has to say, to itself, as [`windlass_broker::flow::forward`] does.
    async fn forward(&mut self, step: &Step, to_the_end: bool) -> Played {
        let mail = self.broker.outbox(&self.queue).await.map_err(|e| format!("outbox: {e:?}"))?;
        self.trace.push(format!("{step} -> {:?}", mail.messages.iter().map(ToString::to_string).collect::<Vec<_>>()));
        same("the outbox", Ok(mail.messages.clone()), self.model.outbox(mail.now))?;
        let heard = self.receive(&mail.messages).await?;
        let answer = |(message, heard): (&Message, &Heard)| match (message.news, heard) {
            (News::Waits(_), Heard::Ended(ended)) => {
                let (to, from) = (message.from.clone(), message.to.clone());
                Some(Message { to, from, news: News::Ended(*ended) })
            }
            _ => None,
        };
        let answers: Vec<Message> = mail.messages.iter().zip(&heard).filter_map(answer).collect();
        if !answers.is_empty() {
            self.receive(&answers).await?;
        }
        if to_the_end && !mail.messages.is_empty() {
            // The first is to be said again, whatever it is.
            let (again, done) = mail.messages.split_at(1);
            let later = mail.now.plus(Duration::from_millis(5));
            let reply = self.broker.sent(&self.queue, done, again, later).await;
            self.model.sent(done, again, later);
            same("the reply", reply, ())?;
        }
        Ok(())
    }

    async fn receive(&mut self, messages: &[Message]) -> Result<Vec<Heard>, String> {
        let reply = self.broker.receive(&self.queue, messages).await.map_err(|e| format!("receive: {e:?}"))?;
        let (expected, _) = self.model.receive(messages, reply.now);
        same("what was heard", Ok(reply.heard), &expected)?;
        Ok(expected)
    }

    async fn enqueue(&mut self, step: &Step, jobs: &[NewJob]) -> Played {
        let jobs = &jobs.iter().map(|job| self.on_this_queue(job)).collect::<Vec<_>>()[..];
        let reply = match self.broker.enqueue(&self.queue, jobs).await {
            Ok(replies) => Ok(Ok(replies)),
            Err(Error::QueueFull { max_waiting, .. }) => Ok(Err(max_waiting)),
            Err(e) => Err(e),
        };
        // The engine's instant, read back from a job it accepted; it matters only if there is one.
        let fresh = reply.as_ref().ok().and_then(|reply| reply.as_ref().ok()?.iter().find(|reply| reply.fresh));
        let now = match fresh {
            Some(fresh) if self.clock.is_none() => {
                self.record(fresh.ulid).await?.map_or_else(Timestamp::now, |record| record.created_at)
            }
            _ => self.now(),
        };
        self.known.extend(jobs.iter().map(|job| job.ulid));
        let expected = self.model.enqueue(jobs, now);
        let expected = expected.map(|(replies, _)| replies).map_err(|full| full.max_waiting);
        let what = match &expected {
            Err(_) => format!("{step} -> queue full"),
            Ok(replies) => {
                let words = replies.iter().map(|reply| match reply.clash {
                    Some(clash) => format!("{} {}", if clash.replaced { "replaced" } else { "kept" }, name(clash.with)),
                    None => if reply.fresh { "fresh" } else { "known" }.to_owned(),
                });
                format!("{step} -> {}", words.collect::<Vec<_>>().join(" "))
            }
        };
        self.trace.push(what);
        same("the reply", reply, expected)
    }

    async fn exchange(&mut self, exchange: &Exchange) -> Played {
        let reply = self.broker.exchange(&self.queue, exchange).await;
        let now = reply.as_ref().map_or_else(|_| self.now(), |reply| reply.now);
        let (mut expected, _) = self.model.exchange(exchange, now);
        if let Ok(reply) = reply.as_ref()
            && self.clock.is_none()
        {
            forgive_renewals(reply, &mut expected);
        }
        let finishes = exchange.finishes.iter().map(|f| format!("{} {}", lease_name(f.lease), ending(&f.settle)));
        let finishes = finishes.collect::<Vec<_>>().join(", ");
        let what = match &exchange.claim {
            Some(claim) => {
                let grace = if claim.grace { " with grace" } else { "" };
                let late = if claim.sent_at.is_some() { " too late" } else { "" };
                format!("finish [{finishes}], {} claims {} for {:?}{grace}{late}", claim.worker, claim.max, claim.lease)
            }
            None => format!("finish [{finishes}]"),
        };
        if reply.as_ref().is_ok_and(|reply| *reply == expected) {
            self.trace.push(format!("{what} -> {}", short(&expected)));
            return Ok(());
        }
        self.trace.push(format!("{what} -> see below"));
        same("the reply", reply, expected)
    }

    async fn cancel(&mut self, ulid: Ulid) -> Played {
        let reply = self.broker.cancel(&JobId::new(ulid, self.queue.clone())).await;
        let record = match reply {
            // The engine's instant.
            Ok(Cancel::Done) if self.clock.is_none() => self.record(ulid).await?,
            _ => None,
        };
        let now = record.and_then(|record| record.finished_at).unwrap_or_else(|| self.now());
        let (expected, _) = self.model.cancel(ulid, now);
        self.check(format!("cancel {}", name(ulid)), reply, expected)
    }

    /// Counts, lists, and the newest jobs.
    async fn compare_all(&mut self, jobs: usize) -> Played {
        let counts = self.broker.counts(&self.queue).await;
        same("counts", counts, self.model.counts())?;
        for state in State::ALL {
            let ids = self.pages(state, 500).await;
            same(&format!("the list of {state} jobs"), ids, self.model.list(state, 0, 500).ids)?;
        }
        for ulid in self.known.iter().rev().take(jobs) {
            let record = self.broker.get(&JobId::new(*ulid, self.queue.clone())).await;
            same(&format!("the record of {}", name(*ulid)), record, self.model.get(*ulid))?;
        }
        Ok(())
    }

    /// A whole list, page by page. A page may hold fewer entries than asked for: where it ends is
    /// the engine's affair.
    async fn pages(&self, state: State, limit: usize) -> Result<Vec<Ulid>, Error> {
        let (mut ids, mut cursor) = (Vec::new(), 0);
        loop {
            let page = self.broker.list(&self.queue, state, cursor, limit).await?;
            ids.extend(page.ids);
            match page.next {
                Some(next) => cursor = next,
                None => return Ok(ids),
            }
        }
    }

    /// All that a search finds, reply by reply.
    async fn finds(&self, filter: &Filter, limit: usize) -> Result<Vec<Ulid>, Error> {
        let (mut ids, mut cursor) = (Vec::new(), 0);
        loop {
            let found = self.broker.search(&self.queue, filter, cursor, limit).await?;
            assert!(found.ids.len() <= limit && !found.beyond);
            ids.extend(found.ids);
            match found.next {
                Some(next) => cursor = next,
                None => return Ok(ids),
            }
        }
    }

    async fn record(&self, ulid: Ulid) -> Result<Option<JobRecord>, String> {
        self.broker.get(&JobId::new(ulid, self.queue.clone())).await.map_err(|e| format!("get: {e:?}"))
    }

    fn check<T: PartialEq + Debug>(&mut self, what: String, engine: Result<T, Error>, model: T) -> Played {
        let result = same("the reply", engine, &model);
        self.trace.push(format!("{what} -> {model:?}"));
        result
    }

    fn on_this_queue(&self, job: &NewJob) -> NewJob {
        let mut job = job.clone();
        for parent in job.options.depends_on.iter_mut().flat_map(|after| &mut after.parents) {
            parent.queue = self.queue.clone();
        }
        job
    }

    fn now(&self) -> Timestamp {
        self.clock.as_ref().map_or_else(Timestamp::now, |clock| clock.now())
    }

    fn leases(&self, held: &[Held]) -> Vec<Lease> {
        held.iter().map(|held| held.find(&self.model)).collect()
    }

    fn ulids(&self, jobs: &[Job]) -> Vec<Ulid> {
        jobs.iter().map(|job| job.find(&self.model)).collect()
    }
}

fn same<T: PartialEq + Debug>(what: &str, engine: Result<T, Error>, model: impl std::borrow::Borrow<T>) -> Played {
    match (engine, model.borrow()) {
        (Ok(engine), model) if engine == *model => Ok(()),
        (Ok(engine), model) => Err(format!("{what}\n  engine: {engine:?}\n  model:  {model:?}")),
        (Err(e), model) => Err(format!("{what}\n  engine: {e:?}\n  model:  {model:?}")),
    }
}

/// Takes over the end of a renewed lease if it is near enough.
fn forgive_renewals(reply: &Exchanged, expected: &mut Exchanged) {
    if let (Some(found), Some(wanted)) = (reply.next_lease, expected.next_lease)
        && found.since(wanted).max(wanted.since(found)) < SLACK
    {
        expected.next_lease = Some(found);
    }
}

fn names(ulids: &[Ulid]) -> String {
    ulids.iter().map(|ulid| name(*ulid)).collect::<Vec<_>>().join(" ")
}

fn lease_name(lease: Lease) -> String {
    format!("{}:{}", name(lease.ulid), lease.epoch)
}

fn lease_names(leases: &[Lease]) -> String {
    leases.iter().map(|lease| lease_name(*lease)).collect::<Vec<_>>().join(" ")
}

fn short(reply: &Exchanged) -> String {
    let acks = reply.acks.iter().map(|ack| if *ack == Ack::Taken { "taken" } else { "stale" });
    let claimed = reply.claimed.iter().map(|c| format!("{}/{}", lease_name(c.lease), c.deliveries));
    format!(
        "[{}], got [{}], next {:?} {:?}",
        acks.collect::<Vec<_>>().join(" "),
        claimed.collect::<Vec<_>>().join(" "),
        reply.next_due.map(|at| at.0),
        reply.next_lease.map(|at| at.0),
    )
}
