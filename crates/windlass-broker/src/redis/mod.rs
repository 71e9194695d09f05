//! The Redis engine: Lua scripts on plain Redis ≥ 6.2, no modules.
//!
//! Every verb is one script call on one queue's keys, which share a hash tag. Time is the
//! server's. See [`keys`] for the keys and `lua/` for the scripts, each of which opens with its
//! arguments, replies and cost.

mod decode;
mod durable;
mod encode;
mod holds;
pub mod keys;
mod watch;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_jobs::catalogue::{KEEP_KIND_FOR, KINDS_SLICE, KindInfo, MAX_KINDS, NEWER_COUNTS_FOR};
use windlass_jobs::command::{
    Ack, CANCELLED_ERROR, Cancel, Counts, EXPIRED_ERROR, Enqueued, Exchange, Exchanged, Filter, Found, MAX_CONTROL,
    MAX_PAGE, Page, SEARCH_WINDOW, WorkerInfo, slices,
};
use windlass_jobs::flow::{Mail, Message, Received};
use windlass_jobs::{JobId, JobRecord, Lease, Limits, NewJob, Progress, Queue, State, Timestamp, Ulid, millis};
use windlass_redis::{Class, Cmd, Link, Script, Value};

use crate::{Broker, Control, Enqueue, Error, Inspect, Leases, Outbox, Result, Wake};
use durable::Durable;
pub use durable::Waits;
use holds::Holds;
use keys::Keys;
use watch::Watches;

/// What the names of the queue's keys start with, unless the setting `queue_prefix` says otherwise.
pub const DEFAULT_PREFIX: &str = "wl";

/// A queue on a Redis.
#[derive(Debug)]
pub struct RedisBroker {
    link: Link,
    keys: Keys,
    keep: usize,
    scripts: Scripts,
    /// When each queue was last put on the list of queues.
    listed: Mutex<HashMap<Queue, Instant>>,
    watches: Watches,
    durable: Durable,
    holds: Holds,
}

#[derive(Debug)]
struct Scripts {
    enqueue: Script,
    exchange: Script,
    renew: Script,
    progress: Script,
    get: Script,
    list: Script,
    search: Script,
    counts: Script,
    workers: Script,
    kinds: Script,
    cancel: Script,
    control: Script,
    receive: Script,
    outbox: Script,
}

impl Scripts {
    /// With so many workers told of new jobs, at most, until one of them hears it.
    fn new(told: usize) -> Self {
        let of = |parts: &[&str]| {
            let text = [&[keys::LUA_NAMES], parts].concat().concat();
            let text =
                text.replace("@FORMAT@", &keys::FORMAT.to_string()).replace("@PLAIN@", &keys::PLAIN_FORMAT.to_string());
            let text = text.replace("@TOLD@", &told.to_string());
            Script::new(text.replace("@CANCELLED@", CANCELLED_ERROR).replace("@EXPIRED@", EXPIRED_ERROR))
        };
        let wake = include_str!("lua/wake.lua");
        let attempts = include_str!("lua/attempts.lua");
        let ending = include_str!("lua/ending.lua");
        let alive = include_str!("lua/alive.lua");
        let unique = include_str!("lua/unique.lua");
        let entries = include_str!("lua/entries.lua");
        let waiting = include_str!("lua/waiting.lua");
        let makes = |name: &str, body: &str| format!("function {name}()\nlocal here = {{}}\n{body}return here\nend\n");
        let rates = makes("make_rates", include_str!("lua/rates.lua"));
        let moves = makes("make_moves", include_str!("lua/moves.lua"));
        let lanes = [include_str!("lua/lanes.lua"), &rates, &moves].concat();
        let turns = makes("make_lanes", &[&lanes, include_str!("lua/turns.lua")].concat());
        let lanes = makes("make_lanes", &lanes);
        let (lanes, turns) = (lanes.as_str(), turns.as_str());
        let flows = include_str!("lua/flows.lua");
        Self {
            enqueue: of(&[wake, waiting, lanes, flows, include_str!("lua/clash.lua"), include_str!("lua/enqueue.lua")]),
            exchange: of(&[
                wake,
                waiting,
                turns,
                flows,
                ending,
                attempts,
                alive,
                unique,
                include_str!("lua/exchange.lua"),
            ]),
            renew: of(&[alive, include_str!("lua/renew.lua")]),
            progress: of(&[wake, include_str!("lua/progress.lua")]),
            get: of(&[include_str!("lua/get.lua")]),
            list: of(&[entries, include_str!("lua/list.lua")]),
            search: of(&[entries, include_str!("lua/search.lua")]),
            counts: of(&[include_str!("lua/counts.lua")]),
            workers: Script::new(include_str!("lua/workers.lua")),
            kinds: Script::new(include_str!("lua/kinds.lua")),
            cancel: of(&[wake, waiting, lanes, flows, ending, attempts, unique, include_str!("lua/cancel.lua")]),
            receive: of(&[wake, waiting, lanes, flows, ending, unique, include_str!("lua/receive.lua")]),
            outbox: of(&[include_str!("lua/outbox.lua")]),
            control: of(&[wake, waiting, lanes, ending, attempts, include_str!("lua/control.lua")]),
        }
    }
}

impl RedisBroker {
    /// How often a queue in use is put on the list of queues again, in case the server lost it.
    const LIST_EVERY: Duration = Duration::from_secs(60);
    /// Most jobs deleted in one script call: each may be searched for in a list.
    const DELETE_SLICE: usize = 8;
    /// How long a worker waits for its subscription to stand before it goes on without.
    const SUBSCRIBE_WAIT: Duration = Duration::from_secs(1);
    /// Most idle workers told of new jobs until one hears it.
    const TOLD: usize = 64;
    /// The same in a cluster, where a script does not know who listens at other nodes.
    const TOLD_IN_CLUSTER: usize = 3;
    /// Most leases renewed in one script call.
    const RENEW_SLICE: usize = 500;

    /// A queue on the Redis of `link`, whose keys start with `prefix`
    /// ([`DEFAULT_PREFIX`]). Nothing is contacted yet.
    #[must_use]
    pub fn new(link: Link, prefix: &str) -> Self {
        Self::keeping(link, prefix, windlass_jobs::command::KEEP_TERMINAL)
    }

    /// The same, keeping only `keep` successes and `keep` failures per queue.
    #[must_use]
    pub fn keeping(link: Link, prefix: &str, keep: usize) -> Self {
        let told = if link.options().is_cluster() { Self::TOLD_IN_CLUSTER } else { Self::TOLD };
        Self {
            durable: Durable::new(&link, Waits::default()),
            link,
            keys: Keys::new(prefix),
            keep,
            scripts: Scripts::new(told),
            listed: Mutex::default(),
            watches: Watches::default(),
            holds: Holds::default(),
        }
    }

    /// What jobs that ask for more than [`Fast`](windlass_jobs::Durability::Fast) wait for.
    #[must_use]
    pub fn waiting(mut self, waits: Waits) -> Self {
        self.durable = Durable::new(&self.link, waits);
        self
    }

    /// One slice, and what was reached of the durability its jobs ask for.
    async fn enqueue_slice(&self, queue: &Queue, slice: &[NewJob]) -> Result<(Value, durable::Reached)> {
        let key = self.keys.meta(queue);
        let mut call = self.scripts.enqueue.on(&key);
        encode::enqueue(&mut call, &self.keys.wake_prefix(), slice);
        let wish = durable::Wish::of(slice);
        let reply = if wish.is_fast() {
            self.scripts.enqueue.run(&self.link, &call).await.map(|reply| (reply, durable::Reached::default()))
        } else {
            self.durable.run(&self.link, &self.scripts.enqueue, call, &key, wish).await
        };
        reply.map_err(|e| match e.code() {
            Some("QUEUEFULL") => Error::QueueFull {
                queue: queue.clone(),
                max_waiting: e.detail().and_then(|text| text.trim().parse().ok()).unwrap_or_default(),
            },
            _ => broker_error("enqueue", e),
        })
    }

    async fn run(&self, operation: &'static str, script: &Script, call: &Cmd) -> Result<Value> {
        script.run(&self.link, call).await.map_err(|e| broker_error(operation, e))
    }

    /// Puts queues on the list of queues, now and then, in one call.
    async fn list_queues(&self, queues: &[Queue]) -> Result<()> {
        let unlisted: Vec<&Queue> = {
            let listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let is_listed = |queue: &Queue| listed.get(queue).is_some_and(|at| at.elapsed() < Self::LIST_EVERY);
            queues.iter().filter(|queue| !is_listed(queue)).collect()
        };
        if unlisted.is_empty() {
            return Ok(());
        }
        let mut call = windlass_redis::cmd("SADD");
        call.arg(self.keys.queues());
        for queue in &unlisted {
            call.arg(queue.as_str());
        }
        self.link.call(&call).await.map_err(|e| broker_error("list queues", e))?;
        let mut listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listed.extend(unlisted.into_iter().map(|queue| (queue.clone(), Instant::now())));
        Ok(())
    }
}

impl RedisBroker {
    fn control_call(&self, queue: &Queue, verb: &str) -> Cmd {
        let mut call = self.scripts.control.on(&self.keys.meta(queue));
        call.arg(self.keys.wake_prefix()).arg(verb);
        call
    }

    async fn control_ids(&self, verb: &'static str, queue: &Queue, ulids: &[Ulid], slice: usize) -> Result<Vec<bool>> {
        let mut replies = Vec::with_capacity(ulids.len());
        for slice in ulids.chunks(slice) {
            let mut call = self.control_call(queue, verb);
            for ulid in slice {
                call.arg(ulid.to_string());
            }
            replies.extend(decode::flags(verb, &self.run(verb, &self.scripts.control, &call).await?)?);
        }
        Ok(replies)
    }
}

fn broker_error(operation: &'static str, error: windlass_redis::Error) -> Error {
    let class = error.class();
    let source = Box::new(error);
    match class {
        Class::Retryable => Error::Unavailable { operation, source },
        Class::Full => Error::Full { operation, source },
        Class::Denied => Error::Denied { operation, source },
        Class::Bug => {
            let detail = windlass_jobs::chain(source.as_ref());
            Error::Unexpected { operation, detail }
        }
    }
}

#[async_trait]
impl Enqueue for RedisBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        self.list_queues(std::slice::from_ref(queue)).await?;
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in slices(jobs) {
            let (reply, reached) = self.enqueue_slice(queue, slice).await?;
            let first = replies.len();
            decode::enqueued(reply, slice, &mut replies)?;
            for (reply, job) in replies[first..].iter_mut().zip(slice) {
                reply.durability = reached.of(job.options.durability);
            }
        }
        Ok(replies)
    }
}

#[async_trait]
impl Leases for RedisBroker {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        let mut call = self.scripts.exchange.on(&self.keys.meta(queue));
        let holds = self.holds.take(encode::sent(&exchange.finishes));
        encode::exchange(&mut call, &self.keys.wake_prefix(), self.keep, exchange, &holds);
        let reply = self.run("exchange", &self.scripts.exchange, &call).await?;
        let (exchanged, holds) = decode::exchanged(reply)?;
        self.holds.note(holds);
        Ok(exchanged)
    }

    async fn renew(&self, queue: &Queue, leases: &[Lease], lease: Duration) -> Result<Vec<Ack>> {
        let mut acks = Vec::with_capacity(leases.len());
        for slice in leases.chunks(Self::RENEW_SLICE) {
            let mut call = self.scripts.renew.on(&self.keys.meta(queue));
            call.arg(windlass_jobs::millis(lease));
            for held in slice {
                call.arg(held.to_string());
            }
            let reply = self.run("renew", &self.scripts.renew, &call).await?;
            acks.extend(decode::acks("renew", &reply)?);
        }
        Ok(acks)
    }

    async fn progress(&self, queue: &Queue, lease: Lease, progress: &Progress) -> Result<Ack> {
        let mut call = self.scripts.progress.on(&self.keys.meta(queue));
        call.arg(lease.to_string()).arg(progress.to_short());
        let reply = self.run("progress", &self.scripts.progress, &call).await?;
        Ok(if reply == Value::Int(1) { Ack::Taken } else { Ack::Stale })
    }

    async fn tidy(&self, queue: &Queue, success: Duration, failure: Duration) -> Result<usize> {
        let mut call = self.control_call(queue, "tidy");
        call.arg(millis(success)).arg(millis(failure));
        Ok(decode::tidied(&self.run("tidy", &self.scripts.control, &call).await?))
    }

    async fn unpark(&self, queue: &Queue, kinds: &[String]) -> Result<usize> {
        let mut after = String::new();
        loop {
            let mut call = self.control_call(queue, "unpark");
            call.arg(&after).arg(kinds);
            let (back, last) = decode::unparked(self.run("unpark", &self.scripts.control, &call).await?)?;
            if back > 0 || last.is_empty() {
                return Ok(back);
            }
            after = last;
        }
    }

    async fn canary(&self, worker: &str, token: &str) -> Result<()> {
        let mut call = windlass_redis::cmd("PUBLISH");
        call.arg(self.keys.wake(worker)).arg(format!("k:{token}"));
        self.link.call(&call).await.map(|_| ()).map_err(|e| broker_error("canary", e))
    }

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        let json = serde_json::to_string(worker)
            .map_err(|e| Error::Unexpected { operation: "announce", detail: e.to_string() })?;
        let mut call = self.scripts.workers.on(&self.keys.workers());
        call.arg(&worker.name).arg(json);
        self.run("announce", &self.scripts.workers, &call).await?;
        self.list_queues(&worker.queues).await
    }

    async fn publish(&self, kinds: &[KindInfo]) -> Result<()> {
        for slice in kinds.chunks(KINDS_SLICE) {
            let mut call = self.scripts.kinds.on(&self.keys.kinds());
            call.arg(millis(KEEP_KIND_FOR)).arg(millis(NEWER_COUNTS_FOR)).arg(MAX_KINDS);
            for kind in slice {
                let json = serde_json::to_string(kind)
                    .map_err(|e| Error::Unexpected { operation: "publish", detail: e.to_string() })?;
                call.arg(&kind.name).arg(kind.version).arg(json);
            }
            self.run("publish", &self.scripts.kinds, &call).await?;
        }
        Ok(())
    }

    async fn retire(&self, worker: &str) -> Result<()> {
        let mut call = self.scripts.workers.on(&self.keys.workers());
        call.arg(worker);
        self.run("retire", &self.scripts.workers, &call).await.map(|_| ())
    }

    async fn wakes(&self, worker: &str) -> mpsc::UnboundedReceiver<Wake> {
        let mut messages = windlass_redis::subscribe(&self.link, self.keys.wake(worker));
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Ok(Some(windlass_redis::Message::Subscribed)) =
            tokio::time::timeout(Self::SUBSCRIBE_WAIT, messages.recv()).await
        {
            let _ = sender.send(Wake::All);
        }
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let wake = match message {
                    windlass_redis::Message::Subscribed => Wake::All,
                    windlass_redis::Message::Text(text) => decode::wake(&text),
                };
                if sender.send(wake).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

#[async_trait]
impl Inspect for RedisBroker {
    async fn get(&self, id: &JobId) -> Result<Option<JobRecord>> {
        let mut call = self.scripts.get.on(&self.keys.meta(&id.queue));
        call.arg(id.ulid.to_string());
        let reply = self.run("get", &self.scripts.get, &call).await?;
        decode::record(id, reply)
    }

    async fn list(&self, queue: &Queue, state: State, cursor: u64, limit: usize) -> Result<Page> {
        let mut call = self.scripts.list.on(&self.keys.meta(queue));
        call.arg(state.as_str()).arg(cursor).arg(limit.clamp(1, MAX_PAGE));
        let reply = self.run("list", &self.scripts.list, &call).await?;
        decode::page(reply, cursor)
    }

    async fn search(&self, queue: &Queue, filter: &Filter, cursor: u64, limit: usize) -> Result<Found> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut found = Found::default();
        let mut at = cursor;
        loop {
            found.beyond = at >= SEARCH_WINDOW;
            if found.beyond {
                return Ok(found);
            }
            if found.ids.len() == limit {
                return Ok(Found { next: Some(at), ..found });
            }
            let entries = (SEARCH_WINDOW - at).min(MAX_PAGE as u64);
            let mut call = self.scripts.search.on(&self.keys.meta(queue));
            encode::search(&mut call, filter, at, entries, limit - found.ids.len());
            let page = decode::page(self.run("search", &self.scripts.search, &call).await?, at)?;
            found.ids.extend(page.ids);
            let Some(next) = page.next else { return Ok(found) };
            at = next;
        }
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        let call = self.scripts.counts.on(&self.keys.meta(queue));
        let reply = self.run("counts", &self.scripts.counts, &call).await?;
        decode::counts(reply)
    }

    async fn limits(&self, queue: &Queue) -> Result<Limits> {
        let mut call = windlass_redis::cmd("HGETALL");
        call.arg(self.keys.limits(queue));
        decode::limits(self.link.call(&call).await.map_err(|e| broker_error("limits", e))?)
    }

    async fn queues(&self) -> Result<Vec<Queue>> {
        let mut call = windlass_redis::cmd("SMEMBERS");
        call.arg(self.keys.queues());
        let reply = self.link.call(&call).await.map_err(|e| broker_error("queues", e))?;
        let names: Vec<String> = windlass_redis::from_redis_value(reply)
            .map_err(|e| Error::Unexpected { operation: "queues", detail: e.to_string() })?;
        let mut queues: Vec<Queue> = names.iter().filter_map(|name| Queue::new(name).ok()).collect();
        queues.sort();
        Ok(queues)
    }

    async fn workers(&self) -> Result<Vec<WorkerInfo>> {
        let call = self.scripts.workers.on(&self.keys.workers());
        let reply = self.run("workers", &self.scripts.workers, &call).await?;
        decode::workers(reply)
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>> {
        let call = self.scripts.kinds.on(&self.keys.kinds());
        decode::kinds(self.run("kinds", &self.scripts.kinds, &call).await?)
    }

    async fn watch(&self, id: &JobId) -> mpsc::UnboundedReceiver<()> {
        self.watches.watch(&self.link, &self.keys, id)
    }

    async fn ping(&self) -> Result<()> {
        self.link.ping().await.map_err(|e| broker_error("ping", e))
    }
}

#[async_trait]
impl Control for RedisBroker {
    async fn cancel(&self, id: &JobId) -> Result<Cancel> {
        let mut call = self.scripts.cancel.on(&self.keys.meta(&id.queue));
        call.arg(self.keys.wake_prefix()).arg(id.ulid.to_string()).arg(self.keep);
        decode::cancel(self.run("cancel", &self.scripts.cancel, &call).await?)
    }

    async fn pause(&self, queue: &Queue, paused: bool) -> Result<()> {
        let mut call = self.control_call(queue, "pause");
        call.arg(u8::from(paused));
        self.run("pause", &self.scripts.control, &call).await.map(|_| ())
    }

    async fn set_max_waiting(&self, queue: &Queue, max: Option<u64>) -> Result<()> {
        let mut call = self.control_call(queue, "max_waiting");
        call.arg(max.map(|max| max.to_string()).unwrap_or_default());
        self.run("set max waiting", &self.scripts.control, &call).await.map(|_| ())
    }

    async fn set_limits(&self, queue: &Queue, limits: &Limits) -> Result<()> {
        let mut call = self.control_call(queue, "limits");
        encode::limits(&mut call, limits);
        let mut reply = self.run("set limits", &self.scripts.control, &call).await?;
        // What is left waiting after a fault here comes back as jobs end and time goes on.
        while reply == Value::Int(1) {
            let call = self.control_call(queue, "again");
            reply = self.run("set limits", &self.scripts.control, &call).await?;
        }
        Ok(())
    }

    async fn replay(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        self.control_ids("replay", queue, ulids, MAX_CONTROL).await
    }

    async fn delete(&self, queue: &Queue, ulids: &[Ulid]) -> Result<Vec<bool>> {
        self.control_ids("delete", queue, ulids, Self::DELETE_SLICE).await
    }
}

#[async_trait]
impl Outbox for RedisBroker {
    async fn outbox(&self, queue: &Queue) -> Result<Mail> {
        let call = self.scripts.outbox.on(&self.keys.meta(queue));
        decode::mail(queue, self.run("read outbox", &self.scripts.outbox, &call).await?)
    }

    async fn receive(&self, queue: &Queue, messages: &[Message]) -> Result<Received> {
        let mut call = self.scripts.receive.on(&self.keys.meta(queue));
        call.arg(self.keys.wake_prefix()).arg(self.keep);
        encode::messages(&mut call, messages);
        decode::received(self.run("receive", &self.scripts.receive, &call).await?, messages.len())
    }

    async fn sent(&self, queue: &Queue, done: &[Message], again: &[Message], later: Timestamp) -> Result<()> {
        let mut call = self.scripts.outbox.on(&self.keys.meta(queue));
        call.arg(later.0).arg(done.len());
        for message in done.iter().chain(again) {
            call.arg(message.to_string());
        }
        self.run("write outbox", &self.scripts.outbox, &call).await.map(drop)
    }
}

impl Broker for RedisBroker {
    fn engine(&self) -> &'static str {
        "redis"
    }

    fn generation(&self) -> u64 {
        self.link.generation()
    }
}
