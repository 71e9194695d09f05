//! The Redis engine: Lua scripts on plain Redis ≥ 6.2, no modules.
//!
//! Every verb is one script call on one queue's keys, which share a hash tag. Time is the
//! server's. See [`keys`] for the keys and `lua/` for the scripts, each of which opens with its
//! arguments, replies and cost.

mod decode;
mod encode;
pub mod keys;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::mpsc;
use windlass_jobs::command::{Ack, Counts, Enqueued, Exchange, Exchanged, MAX_ENQUEUE, Page, WorkerInfo};
use windlass_jobs::{JobId, JobRecord, Lease, NewJob, Progress, Queue, State};
use windlass_redis::{Class, Cmd, Link, Message, Script, Value};

use crate::{Broker, Enqueue, Error, Inspect, Leases, Result, Wake};
use keys::Keys;

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
}

#[derive(Debug)]
struct Scripts {
    enqueue: Script,
    exchange: Script,
    renew: Script,
    progress: Script,
    get: Script,
    list: Script,
    counts: Script,
    workers: Script,
}

impl Scripts {
    fn new() -> Self {
        let of = |parts: &[&str]| Script::new([&[keys::LUA_NAMES], parts].concat().concat());
        let wake = include_str!("lua/wake.lua");
        Self {
            enqueue: of(&[wake, include_str!("lua/enqueue.lua")]),
            exchange: of(&[wake, include_str!("lua/exchange.lua")]),
            renew: of(&[include_str!("lua/renew.lua")]),
            progress: of(&[include_str!("lua/progress.lua")]),
            get: of(&[include_str!("lua/get.lua")]),
            list: of(&[include_str!("lua/list.lua")]),
            counts: of(&[include_str!("lua/counts.lua")]),
            workers: Script::new(include_str!("lua/workers.lua")),
        }
    }
}

impl RedisBroker {
    /// How often a queue in use is put on the list of queues again, in case the server lost it.
    const LIST_EVERY: Duration = Duration::from_secs(60);
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
        Self { link, keys: Keys::new(prefix), keep, scripts: Scripts::new(), listed: Mutex::default() }
    }

    async fn run(&self, operation: &'static str, script: &Script, call: &Cmd) -> Result<Value> {
        script.run(&self.link, call).await.map_err(|e| broker_error(operation, e))
    }

    /// Puts a queue on the list of queues, now and then.
    async fn list_queue(&self, queue: &Queue) -> Result<()> {
        {
            let listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if listed.get(queue).is_some_and(|at| at.elapsed() < Self::LIST_EVERY) {
                return Ok(());
            }
        }
        let mut call = windlass_redis::cmd("SADD");
        call.arg(self.keys.queues()).arg(queue.as_str());
        self.link.call(&call).await.map_err(|e| broker_error("enqueue", e))?;
        let mut listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listed.insert(queue.clone(), Instant::now());
        Ok(())
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
            let detail = source_chain(source.as_ref());
            Error::Unexpected { operation, detail }
        }
    }
}

fn source_chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[async_trait]
impl Enqueue for RedisBroker {
    async fn enqueue(&self, queue: &Queue, jobs: &[NewJob]) -> Result<Vec<Enqueued>> {
        self.list_queue(queue).await?;
        let mut replies = Vec::with_capacity(jobs.len());
        for slice in jobs.chunks(MAX_ENQUEUE) {
            let mut call = self.scripts.enqueue.on(&self.keys.meta(queue));
            encode::enqueue(&mut call, &self.keys.wake_prefix(), slice);
            let reply = self.run("enqueue", &self.scripts.enqueue, &call).await?;
            decode::enqueued(&reply, slice, &mut replies)?;
        }
        Ok(replies)
    }
}

#[async_trait]
impl Leases for RedisBroker {
    async fn exchange(&self, queue: &Queue, exchange: &Exchange) -> Result<Exchanged> {
        let mut call = self.scripts.exchange.on(&self.keys.meta(queue));
        encode::exchange(&mut call, &self.keys.wake_prefix(), self.keep, exchange);
        let reply = self.run("exchange", &self.scripts.exchange, &call).await?;
        decode::exchanged(reply)
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

    async fn announce(&self, worker: &WorkerInfo) -> Result<()> {
        let json = serde_json::to_string(worker)
            .map_err(|e| Error::Unexpected { operation: "announce", detail: e.to_string() })?;
        let mut call = self.scripts.workers.on(&self.keys.workers());
        call.arg(&worker.name).arg(json);
        self.run("announce", &self.scripts.workers, &call).await?;
        for queue in &worker.queues {
            self.list_queue(queue).await?;
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
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let wake = match message {
                    Message::Subscribed => Wake::All,
                    Message::Text(name) => Queue::new(&name).map_or(Wake::All, Wake::Queue),
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
        call.arg(state.as_str()).arg(cursor).arg(limit.min(windlass_jobs::command::MAX_PAGE));
        let reply = self.run("list", &self.scripts.list, &call).await?;
        decode::page(reply, cursor)
    }

    async fn counts(&self, queue: &Queue) -> Result<Counts> {
        let call = self.scripts.counts.on(&self.keys.meta(queue));
        let reply = self.run("counts", &self.scripts.counts, &call).await?;
        decode::counts(reply)
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

    async fn ping(&self) -> Result<()> {
        self.link.ping().await.map_err(|e| broker_error("ping", e))
    }
}

impl Broker for RedisBroker {
    fn engine(&self) -> &'static str {
        "redis"
    }
}
