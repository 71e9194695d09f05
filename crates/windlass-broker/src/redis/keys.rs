//! Every Redis key of the queue, with its type. Nothing else builds a key's name.
//!
//! With prefix `wl` (setting `queue_prefix`) and queue `pdf`, all keys of the queue start with
//! `wl:{pdf}:`; the braces are the hash tag that keeps them in one slot.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `j:<ulid>` | hash, a listpack | the job; absent field = default, no value over 64 bytes |
//! | `a:<ulid>` `r:<ulid>` `e:<ulid>` | string | args over 256 bytes, result, error with earlier attempts ([`windlass_jobs::attempts`]); unlinked with the hash |
//! | `p0` `p1` `p2` | list | waiting by priority; the right end is next to run |
//! | `due` | sorted set, ms | scheduled and retrying jobs by the time they may run |
//! | `lease` | sorted set, ms | `<ulid>:<epoch>` by the end of the lease: the fence |
//! | `done` | list | ids of successes and cancelled jobs, newest first, trimmed by count and age |
//! | `dead` | sorted set, ms | failed jobs by the time of failure, trimmed by count and age |
//! | `parked` | sorted set, all 0 | jobs whose kind no worker knows, by id |
//! | `gone` | set | cancelled jobs that were forgotten while their id still stands in `p0`–`p2` |
//! | `u:<key>` | string PX | who holds a unique key: `<ulid> <held until ms>` |
//! | `l:<lane>` | list | the jobs that wait in a lane, as `p0`–`p2`; lane names: `windlass_jobs::lanes` |
//! | `lanes` | sorted set, all 0 | lanes in a ring or parked |
//! | `ring0`–`ring2` | list | ready lanes without a tenant, and `t<tenant>`; the right end is next |
//! | `t:<priority>\t<tenant>` / `tenants` | list / set | a tenant's ready lanes / tenants in a ring |
//! | `park:<constraint>` / `parks` | list / sorted set, all 0 | lanes that wait for `o`, `c` or `r` and its key / which there are |
//! | `orders` | hash | the job that holds an ordering key |
//! | `conc` | hash | running jobs by concurrency key |
//! | `tat:<key>` | string PX, µs | when all starts of a rate key are paid for; the queue's own has key `` |
//! | `rated` | sorted set, ms | rate keys with parked lanes, by when they may go on |
//! | `blocked` | sorted set, ms | jobs that wait for others, by the time before which they may not run, or 0 |
//! | `w:<ulid>` / `g:<ulid>` | string / set | the ids of the jobs it depends on / of those that have not ended |
//! | `d:<ulid>` / `parents` | set | the ids of the jobs that depend on it / the jobs that have such |
//! | `out` | sorted set, ms | the outbox: what is to be said to other queues, by when; see `windlass_jobs::flow` |
//! | `limits` | hash | [`Limits`](windlass_jobs::Limits): see `encode::limits` |
//! | `gonelanes` | hash | the lanes of those in `gone` that stood in one |
//! | `idle` | set | workers that found nothing and wait for a wake-up |
//! | `watch` | set | ids somebody has open; left when the job ends |
//! | `stat` | hash | counters; `retrying`, `laned` (ids in lanes) and `ghosts` (cancelled ids still in `p0`–`p2`) are levels |
//! | `meta` | hash | `format`, `since`, `paused`, `max_waiting`, `reap_after`, `graced_at`, `special` (there are limits, or some job had a unique key or a lane), `flows` (some job depends on another, or is depended on), `turn` (1: the ring is next, not the list), `alone` (1: no tenant's job ever had another key), `durable` (1: written before a `WAIT`, so that it has something to wait for); the key every script of the queue is called on |
//!
//! `idle`, `watch`, `stat` and `meta` have no cap of their own: their members are workers, open
//! event streams and fixed fields. The channel `watched` of the queue says which watched job
//! has changed.
//!
//! Outside the queues: `wl:{reg}:queues` (set of names), `wl:{reg}:workers` (hash, name → JSON),
//! `wl:{reg}:seen` (sorted set, ms, by name), `wl:{reg}:kinds` (hash, kind → version and JSON, at most
//! 500) with `wl:{reg}:kinds_seen` (sorted set, ms, by kind), and the channel `wl:wake:<worker>`, which carries
//! `<queue>` (ask again), `c:<queue>:<ulid>:<epoch>` (cancel this run) and `k:<token>` (canary).
//!
//! Fields of `j:`: `kind`, `created_at` (ms), `args` `args.1` … (pieces of 64 bytes), `state` (`blocked` is scheduled for readers),
//! `priority` (0 or 2; with a lane 0l, 1l or 2l, and `tenant`, `order`, `conc`, `rate`), `max_attempts`, `opts` `opts.1` … (short form, opened by `+ ` when
//! `max_attempts` or `expires_at` stands beside it, by `+s `, `+f ` or `+t ` when there is a `unique` key: absent, a claim asks for none of them), `attempt` (failed runs),
//! `run` (`epoch deliveries started_ms worker`), `run_at` (ms), `finished_at` (ms), `progress`
//! (`percent message`), `reason`, `skipped`, `expires_at` (ms), `cancel` (asked for), `lost`
//! (epochs whose lease was ended, `,1,2,`), `unknown_since` (ms), `ghost` (the list it still stands in), `unique` (key), and the caller's labels as
//! `l.<key>`.
//!
//! `meta.format` is [`PLAIN_FORMAT`], and [`FORMAT`] from the first unique key, lane, limit or
//! dependency on: what does not know of those would start jobs that have to wait. A process refuses a
//! queue of a newer format; it reads its own and those before. A queue of format 2 has a hash `held` of what its
//! running jobs hold, which goes with its first exchange: that stands in the jobs, and is said with the ends of runs.

use windlass_jobs::Queue;

/// The number of the layout described here.
pub const FORMAT: u32 = 3;
/// The number of a queue that uses nothing but priorities and times.
pub const PLAIN_FORMAT: u32 = 1;

/// The Lua lines that name the queue's keys from the one key a script is called on. Every
/// script of the queue starts with them.
pub(super) const LUA_NAMES: &str = r"
local call, sub, byte, match = redis.call, string.sub, string.byte, string.match
local P = sub(KEYS[1], 1, -5)
local J, DUE, LEASE, DONE, DEAD, IDLE, STAT = P..'j:', P..'due', P..'lease', P..'done', P..'dead', P..'idle', P..'stat'
local PARKED, WATCH, GONE = P..'parked', P..'watch', P..'gone'
local WAIT = {[0] = P..'p0', P..'p1', P..'p2'}
";

/// Builds names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Hash; the key on which every script of a queue is called.
    pub(super) fn meta(&self, queue: &Queue) -> String {
        format!("{}:{{{queue}}}:meta", self.prefix)
    }

    /// Hash of the queue's limits.
    pub(super) fn limits(&self, queue: &Queue) -> String {
        format!("{}:{{{queue}}}:limits", self.prefix)
    }

    /// Channel on which watched jobs are named when they change.
    pub(super) fn watched(&self, queue: &Queue) -> String {
        format!("{}:{{{queue}}}:watched", self.prefix)
    }

    /// Set of watched ids.
    pub(super) fn watch(&self, queue: &Queue) -> String {
        format!("{}:{{{queue}}}:watch", self.prefix)
    }

    /// Set of queue names.
    pub(super) fn queues(&self) -> String {
        format!("{}:{{reg}}:queues", self.prefix)
    }

    /// Hash; the key on which the scripts of the worker list are called. `seen` lies beside it.
    pub(super) fn workers(&self) -> String {
        format!("{}:{{reg}}:workers", self.prefix)
    }

    /// Hash; the key on which the script of the catalogue is called. `kinds_seen` lies beside it.
    pub(super) fn kinds(&self) -> String {
        format!("{}:{{reg}}:kinds", self.prefix)
    }

    /// What a worker's channel starts with.
    pub(super) fn wake_prefix(&self) -> String {
        format!("{}:wake:", self.prefix)
    }

    /// A worker's channel.
    pub(super) fn wake(&self, worker: &str) -> String {
        format!("{}{worker}", self.wake_prefix())
    }
}
