//! Values by namespace and user.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_jobs::millis;
use windlass_redis::{Error, Link, Script, Value, cmd};

use super::breaker::BreakerStats;
use super::names::{BadName, Key, Names, Namespace};
use super::side::{self, Answer, Side};
use super::{MAX_TTL, MAX_VALUE_BYTES};

/// Names taken off an index, and asked for, in one command.
const SLICE: usize = 500;
/// Most namespaces that are counted or cleared together.
const MAX_NAMESPACES: usize = 1_000;

/// A value that cannot be kept or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Over [`MAX_VALUE_BYTES`].
    #[error("{0} bytes; at most {MAX_VALUE_BYTES} are kept of one value")]
    TooLarge(usize),
    /// It was to be counted up, and is no whole number of 64 bits, or would not be one after.
    #[error("not a whole number of 64 bits")]
    NotANumber,
    /// It cannot be written as JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
}

/// A value as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// JSON text.
    pub json: String,
    /// What is left of its time.
    pub ttl: Duration,
}

/// What there is, and how well it served this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheCounts {
    /// Values by namespace; those of [`Namespace::KNOWN`] always.
    pub by_namespace: BTreeMap<String, u64>,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Bytes of values in this process.
    pub memory_bytes: usize,
    /// How Redis does.
    pub breaker: BreakerStats,
}

/// Values by namespace and user, on Redis or in this process. Cheap to clone.
///
/// A call never fails for want of Redis: it is then answered by this process, which says so.
#[derive(Debug, Clone)]
pub struct Cache {
    pub(super) side: Side,
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) names: Names,
    default_ttl: Duration,
    index: Script,
    increment: Script,
    pub(super) lead: Script,
    hits: AtomicU64,
    misses: AtomicU64,
    /// Who computes a value in this process, by its name.
    pub(super) flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Cache {
    pub(super) fn new(side: Side, names: Names, default_ttl: Duration) -> Self {
        let inner = Inner {
            names,
            default_ttl,
            index: Script::new(include_str!("lua/index.lua")),
            increment: Script::new(include_str!("lua/increment.lua")),
            lead: Script::new(include_str!("lua/lock.lua")),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            flights: Mutex::default(),
        };
        Self { side, inner: Arc::new(inner) }
    }

    /// How long a value is kept: as asked for, within [`MAX_TTL`], else as its namespace says.
    pub(super) fn ttl_of(&self, key: &Key, ttl: Option<Duration>) -> Duration {
        let ttl = ttl.unwrap_or_else(|| key.namespace.ttl(self.inner.default_ttl));
        ttl.clamp(Duration::from_millis(1), MAX_TTL)
    }

    /// The value as a type; `None` when it is not there, or no such type.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        let found = self.find(key).await.value?;
        serde_json::from_str(&found.json).ok()
    }

    /// Keeps a value for `ttl`, or for the time of its namespace.
    ///
    /// # Errors
    /// [`BadValue`].
    pub async fn set<T: Serialize + ?Sized>(
        &self,
        key: &Key,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<Answer<()>, BadValue> {
        let json = serde_json::to_string(value).map_err(|e| BadValue::NotJson(e.to_string()))?;
        self.set_json(key, json, ttl).await
    }

    /// The value as JSON text, with its time. Counted as a hit or miss.
    pub async fn find(&self, key: &Key) -> Answer<Option<Found>> {
        let found = self.look(&self.inner.names.value(key)).await;
        let counter = if found.value.is_some() { &self.inner.hits } else { &self.inner.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// [`Cache::find`] for many, in order, in one pass.
    pub async fn find_many(&self, keys: &[Key]) -> Vec<Answer<Option<Found>>> {
        let mut all = Vec::with_capacity(keys.len());
        for slice in keys.chunks(SLICE) {
            all.extend(join_all(slice.iter().map(|key| self.find(key))).await);
        }
        all
    }

    async fn look(&self, name: &str) -> Answer<Option<Found>> {
        let (mut get, mut left) = (cmd("GET"), cmd("PTTL"));
        get.arg(name);
        left.arg(name);
        let asked = self.ask(async |link| {
            let (json, left) = tokio::join!(link.call(&get), link.call(&left));
            Ok((json?, left?))
        });
        match asked.await {
            Some((json, left)) => Answer { value: found(json, &left), degraded: false },
            None => {
                let value = self.side.memory().get(name).map(|(json, ttl)| Found { json, ttl });
                self.here(value)
            }
        }
    }

    /// An answer of this process.
    pub(super) fn here<T>(&self, value: T) -> Answer<T> {
        Answer { value, degraded: self.side.is_on_redis() }
    }

    /// Asks Redis, once it knows what was changed without it.
    async fn ask<T>(&self, work: impl AsyncFnOnce(&Link) -> Result<T, Error>) -> Option<T> {
        let lost = self.side.lost_changes();
        let asked = self.side.ask(async |link| {
            if lost {
                tracing::warn!("more was changed without Redis than is known key by key: the cache is cleared");
                self.clear_all(link).await?;
            }
            work(link).await
        });
        let answer = asked.await;
        if lost && answer.is_none() {
            self.side.remember_all();
        }
        answer
    }

    /// Keeps JSON text.
    ///
    /// # Errors
    /// [`BadValue::TooLarge`].
    pub async fn set_json(&self, key: &Key, json: String, ttl: Option<Duration>) -> Result<Answer<()>, BadValue> {
        if json.len() > MAX_VALUE_BYTES {
            return Err(BadValue::TooLarge(json.len()));
        }
        let (name, ttl) = (self.inner.names.value(key), self.ttl_of(key, ttl));
        let mut set = cmd("SET");
        set.arg(&name).arg(&json).arg("PX").arg(millis(ttl));
        let asked = self.ask(async |link| {
            // One connection keeps the order: a value that is there stands in the index.
            let (indexed, set) = tokio::join!(self.index(link, key, &name, ttl), link.call(&set));
            indexed.and(set)
        });
        if asked.await.is_some() {
            return Ok(Answer { value: (), degraded: false });
        }
        self.side.remember(&name, None);
        self.side.memory().set(&name, json, ttl);
        Ok(self.here(()))
    }

    async fn index(&self, link: &Link, key: &Key, name: &str, ttl: Duration) -> Result<Value, Error> {
        let (names, script) = (&self.inner.names, &self.inner.index);
        let add = async |index: &str, member: &str| {
            side::run(link, script, index, |call| {
                call.arg("add").arg(member).arg(millis(ttl));
            })
            .await
        };
        let (all, of_namespace) = (names.index(), names.index_of_all(&key.namespace));
        let of_user = key.user.as_deref().map(|user| names.index_of_encoded(&key.namespace, user));
        let user = async {
            match &of_user {
                Some(index) => add(index, name).await,
                None => Ok(Value::Okay),
            }
        };
        let (first, second, third) = tokio::join!(add(&all, key.namespace.as_str()), add(&of_namespace, name), user);
        first.and(second).and(third)
    }

    /// Removes a value; whether it was there.
    pub async fn delete(&self, key: &Key) -> Answer<bool> {
        let name = self.inner.names.value(key);
        let of_namespace = self.inner.names.index_of_all(&key.namespace);
        let mut unlink = cmd("UNLINK");
        unlink.arg(&name);
        let asked = self.ask(async |link| {
            let drop = side::run(link, &self.inner.index, &of_namespace, |call| {
                call.arg("drop").arg(&name);
            });
            let (gone, dropped) = tokio::join!(link.call(&unlink), drop);
            dropped.and(gone)
        });
        if let Some(gone) = asked.await {
            return Answer { value: gone == Value::Int(1), degraded: false };
        }
        self.side.remember(&name, None);
        self.here(self.side.memory().remove(&name))
    }

    /// Whether a value is there; not counted.
    pub async fn exists(&self, key: &Key) -> Answer<bool> {
        self.ttl(key).await.map(|ttl| ttl.is_some())
    }

    /// What is left of a value's time; `None` when it is not there.
    pub async fn ttl(&self, key: &Key) -> Answer<Option<Duration>> {
        let name = self.inner.names.value(key);
        let mut left = cmd("PTTL");
        left.arg(&name);
        match self.ask(async |link| link.call(&left).await).await {
            Some(left) => Answer { value: time_left(&left), degraded: false },
            None => self.here(self.side.memory().get(&name).map(|(_, ttl)| ttl)),
        }
    }

    /// Adds to a number, which begins at 0 and then lasts as [`Cache::set`] says; a number that is
    /// there keeps its time. Answers the sum.
    ///
    /// # Errors
    /// [`BadValue::NotANumber`].
    pub async fn increment(&self, key: &Key, by: i64, ttl: Option<Duration>) -> Result<Answer<i64>, BadValue> {
        let (name, ttl) = (self.inner.names.value(key), self.ttl_of(key, ttl));
        let asked = self.ask(async |link| {
            let add = side::run(link, &self.inner.increment, &name, |call| {
                call.arg(by).arg(millis(ttl));
            });
            let (indexed, sum) = tokio::join!(self.index(link, key, &name, ttl), add);
            indexed.and(sum)
        });
        if let Some(reply) = asked.await {
            let sum = match reply {
                Value::Array(items) => items.into_iter().nth(1).and_then(side::text).and_then(|sum| sum.parse().ok()),
                _ => None,
            };
            return sum.map(|value| Answer { value, degraded: false }).ok_or(BadValue::NotANumber);
        }
        self.side.remember(&name, None);
        let sum = self.side.memory().update(&name, |before| {
            let (value, ttl) = before.clone().unwrap_or_else(|| ("0".to_owned(), ttl));
            match value.parse::<i64>().ok().and_then(|value| value.checked_add(by)) {
                Some(sum) => (Some((sum.to_string(), ttl)), Ok(sum)),
                None => (before, Err(BadValue::NotANumber)),
            }
        });
        sum.map(|sum| self.here(sum))
    }

    /// Removes everything of a namespace; how many values.
    pub async fn clear(&self, namespace: &Namespace) -> Answer<u64> {
        let index = self.inner.names.index_of_all(namespace);
        let prefix = self.inner.names.values_of_all(namespace);
        self.clear_index(&index, None, &prefix).await
    }

    /// Removes everything of a user in one namespace, or in all of them; how many values.
    ///
    /// # Errors
    /// [`BadName`] when the id cannot be one.
    pub async fn clear_user(&self, user: &str, namespace: Option<&Namespace>) -> Result<Answer<u64>, BadName> {
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.clone()],
            None => self.namespaces().await,
        };
        let mut all = Answer { value: 0, degraded: false };
        for namespace in namespaces {
            let index = self.inner.names.index_of(&namespace, user)?;
            let prefix = self.inner.names.values_of(&namespace, user)?;
            let whole = self.inner.names.index_of_all(&namespace);
            let cleared = self.clear_index(&index, Some(&whole), &prefix).await;
            all = Answer { value: all.value + cleared.value, degraded: all.degraded | cleared.degraded };
        }
        Ok(all)
    }

    /// `whole`: another index that has the same names among its own.
    async fn clear_index(&self, index: &str, whole: Option<&str>, prefix: &str) -> Answer<u64> {
        let here = self.side.memory().clear(prefix);
        match self.ask(async |link| self.take_all(link, index, whole).await).await {
            Some(gone) => Answer { value: gone, degraded: false },
            None => {
                // Which keys Redis has is not known here: it forgets them all when it is back.
                self.side.remember_all();
                self.here(here)
            }
        }
    }

    async fn take_all(&self, link: &Link, index: &str, whole: Option<&str>) -> Result<u64, Error> {
        let mut gone = 0;
        loop {
            let taken = side::run(link, &self.inner.index, index, |call| {
                call.arg("take").arg(SLICE);
            });
            let names: Vec<String> = texts(taken.await?);
            if names.is_empty() {
                return Ok(gone);
            }
            if let Some(whole) = whole {
                let drop = side::run(link, &self.inner.index, whole, |call| {
                    call.arg("drop").arg(&names);
                });
                drop.await?;
            }
            let mut unlink = cmd("UNLINK");
            unlink.arg(&names);
            if let Value::Int(n) = link.call(&unlink).await? {
                gone += u64::try_from(n).unwrap_or(0);
            }
        }
    }

    async fn clear_all(&self, link: &Link) -> Result<(), Error> {
        let names = &self.inner.names;
        for name in self.live_namespaces(link).await? {
            if let Ok(namespace) = Namespace::new(&name) {
                self.take_all(link, &names.index_of_all(&namespace), None).await?;
            }
        }
        Ok(())
    }

    async fn live_namespaces(&self, link: &Link) -> Result<Vec<String>, Error> {
        let index = self.inner.names.index();
        let live = side::run(link, &self.inner.index, &index, |call| {
            call.arg("live").arg(MAX_NAMESPACES);
        });
        live.await.map(texts)
    }

    /// The known namespaces, and every other that has a value on Redis.
    async fn namespaces(&self) -> Vec<Namespace> {
        let live = self.ask(async |link| self.live_namespaces(link).await).await.unwrap_or_default();
        let known = Namespace::KNOWN.iter().map(|name| (*name).to_owned());
        let all: std::collections::BTreeSet<String> = known.chain(live).collect();
        all.iter().filter_map(|name| Namespace::new(name).ok()).collect()
    }

    /// What there is, from indexes and counters.
    pub async fn counts(&self) -> Answer<CacheCounts> {
        let mut counts = Answer { value: CacheCounts::default(), degraded: false };
        for namespace in self.namespaces().await {
            let index = self.inner.names.index_of_all(&namespace);
            let asked = self.ask(async |link| {
                side::run(link, &self.inner.index, &index, |call| {
                    call.arg("count");
                })
                .await
            });
            let n = match asked.await {
                Some(Value::Int(n)) => u64::try_from(n).unwrap_or(0),
                Some(_) => 0,
                None => {
                    counts.degraded |= self.side.is_on_redis();
                    self.side.memory().count(&self.inner.names.values_of_all(&namespace))
                }
            };
            counts.value.by_namespace.insert(namespace.as_str().to_owned(), n);
        }
        counts.value.hits = self.inner.hits.load(Ordering::Relaxed);
        counts.value.misses = self.inner.misses.load(Ordering::Relaxed);
        counts.value.memory_bytes = self.side.memory().bytes();
        counts.value.breaker = self.side.breaker();
        counts
    }
}

fn found(json: Value, left: &Value) -> Option<Found> {
    Some(Found { json: side::text(json)?, ttl: time_left(left)? })
}

/// A key without an end is one of another application: it counts as lasting.
fn time_left(left: &Value) -> Option<Duration> {
    match left {
        Value::Int(-1) => Some(MAX_TTL),
        Value::Int(ms) => u64::try_from(*ms).ok().map(Duration::from_millis),
        _ => None,
    }
}

fn texts(value: Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.into_iter().filter_map(side::text).collect(),
        _ => Vec::new(),
    }
}

/// All of them at once, in order; they travel over one connection.
async fn join_all<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<_> = work.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (one, out) in &mut work {
            if out.is_none() {
                match one.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *out = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    work.into_iter().filter_map(|(_, out)| out).collect()
}
