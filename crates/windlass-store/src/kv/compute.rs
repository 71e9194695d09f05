//! Values that are computed when they are not there: once, however many ask.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use windlass_jobs::{millis, new_ulid};
use windlass_redis::Value;

use super::cache::Cache;
use super::names::{BadName, Key, Namespace};
use super::side;

/// How long others wait for whoever computes a value; after it they compute it themselves.
const LEAD: Duration = Duration::from_secs(10);
/// How often they look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Cache {
    /// The value that is kept, or what `compute` answers, which is then kept. Of many who ask at
    /// once, in this process and others, one computes. When the cache fails in any way, `compute`
    /// is called all the same.
    ///
    /// # Errors
    /// Those of `compute`; nothing is kept then.
    pub async fn get_or_compute<T, E, F>(
        &self,
        key: &Key,
        ttl: Option<Duration>,
        compute: impl FnOnce() -> F,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(value) = self.get(key).await {
            return Ok(value);
        }
        let name = self.inner.names.value(key);
        let flight = self.flight(&name);
        let _turn = flight.lock().await;
        let lead = self.take_lead(&name, key).await;
        if let Some(value) = self.get(key).await {
            return Ok(value);
        }
        let value = compute().await?;
        if let Err(error) = self.set(key, &value, ttl).await {
            tracing::warn!(%error, "computed value not kept");
        }
        drop(lead);
        Ok(value)
    }

    /// As [`Cache::get_or_compute`]; for `stale` after its time, a value is still answered
    /// while it is computed anew, once, behind the callers' back.
    ///
    /// # Errors
    /// Those of `compute`, when there is no value at all. One that fails to compute anew is
    /// logged, and tried again with the next call.
    pub async fn get_or_compute_stale<T, E, F, C>(
        &self,
        key: &Key,
        ttl: Option<Duration>,
        stale: Duration,
        compute: C,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: std::fmt::Display + Send + 'static,
        F: Future<Output = Result<T, E>> + Send,
        C: FnOnce() -> F + Send + 'static,
    {
        let kept_for = Some(self.ttl_of(key, ttl) + stale);
        let found = self.find(key).await.value;
        let kept = found.and_then(|found| Some((serde_json::from_str(&found.json).ok()?, found.ttl)));
        let Some((value, left)) = kept else { return self.get_or_compute(key, kept_for, compute).await };
        if left <= stale {
            let (cache, key) = (self.clone(), key.clone());
            tokio::spawn(async move { cache.compute_anew(&key, kept_for, compute).await });
        }
        Ok(value)
    }

    async fn compute_anew<T, E, F>(&self, key: &Key, ttl: Option<Duration>, compute: impl FnOnce() -> F)
    where
        T: Serialize,
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        let name = self.inner.names.value(key);
        let flight = self.flight(&name);
        // Somebody else is at it, here or elsewhere.
        let Ok(_turn) = flight.try_lock() else { return };
        let Some(_lead) = self.try_lead(&name).await else { return };
        match compute().await {
            Ok(value) => {
                let _ = self.set(key, &value, ttl).await;
            }
            Err(error) => tracing::warn!(%error, "value not computed anew: the stale one stays for a while"),
        }
    }

    /// Everyone in this process who wants this value takes turns.
    fn flight(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(name).and_then(std::sync::Weak::upgrade) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(tokio::sync::Mutex::new(()));
        flights.insert(name.to_owned(), Arc::downgrade(&flight));
        flight
    }

    /// Waits until the value may be computed here: nobody else does, or did for too long.
    async fn take_lead(&self, name: &str, key: &Key) -> Option<Lead> {
        let begun = tokio::time::Instant::now();
        loop {
            if let Some(lead) = self.try_lead(name).await {
                return Some(lead);
            }
            if begun.elapsed() >= LEAD || self.exists(key).await.value {
                return None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The lead among processes; one without Redis has it always.
    async fn try_lead(&self, name: &str) -> Option<Lead> {
        let (key, token) = (format!("{name}:lead"), new_ulid().to_string());
        let asked = self.side.ask(async |link| {
            side::run(link, &self.inner.lead, &key, |call| {
                call.arg("acquire").arg(&token).arg(millis(LEAD));
            })
            .await
        });
        match asked.await {
            Some(reply) if side::integers::<1>(&reply) == [0] => None,
            Some(_) => Some(Lead(Some((self.clone(), key, token)))),
            None => Some(Lead(None)),
        }
    }

    /// A wrapper that keeps what a function answers, by a name of the caller's: the old
    /// `@cache_result(ttl, namespace)`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use windlass_store::{Caching, CachingOptions, Namespace};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), std::io::Error> {
    /// let cache = Caching::new(None, &CachingOptions::default()).cache;
    /// let cached = cache.cache_result(Duration::from_secs(1800), Namespace::ai());
    /// let answer: String = cached.call("prompt:abc123", || async { Ok::<_, std::io::Error>("42".into()) }).await?;
    /// assert_eq!(answer, "42");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn cache_result(&self, ttl: Duration, namespace: Namespace) -> CachedResult {
        CachedResult { cache: self.clone(), ttl, namespace }
    }

    /// A wrapper that keeps what a function answers for each user: the old
    /// `@cache_user_specific(ttl, data_type)`.
    #[must_use]
    pub fn cache_user_specific(&self, ttl: Duration, data_type: &str) -> CachedUser {
        CachedUser { cache: self.clone(), ttl, data_type: data_type.to_owned() }
    }

    async fn wrap<T, E, F>(&self, key: Result<Key, BadName>, ttl: Duration, compute: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        match key {
            Ok(key) => self.get_or_compute(&key, Some(ttl), compute).await,
            Err(error) => {
                tracing::warn!(%error, "not cached: the function is called");
                compute().await
            }
        }
    }
}

/// Let go when it is dropped, and by itself after [`LEAD`].
struct Lead(Option<(Cache, String, String)>);

impl Drop for Lead {
    fn drop(&mut self) {
        let (Some((cache, key, token)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let release = async |link: &windlass_redis::Link| -> Result<Value, windlass_redis::Error> {
                side::run(link, &cache.inner.lead, &key, |call| {
                    call.arg("release").arg(&token);
                })
                .await
            };
            let _ = cache.side.ask(release).await;
        });
    }
}

/// See [`Cache::cache_result`].
#[derive(Debug, Clone)]
pub struct CachedResult {
    cache: Cache,
    ttl: Duration,
    namespace: Namespace,
}

impl CachedResult {
    /// What is kept under `key`, or what the function answers. It is called in any case where the
    /// cache fails, also for a key that cannot be one.
    ///
    /// # Errors
    /// Those of the function.
    pub async fn call<T, E, F>(&self, key: &str, function: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        self.cache.wrap(Key::new(self.namespace.clone(), key), self.ttl, function).await
    }
}

/// See [`Cache::cache_user_specific`].
#[derive(Debug, Clone)]
pub struct CachedUser {
    cache: Cache,
    ttl: Duration,
    data_type: String,
}

impl CachedUser {
    /// What is kept for this user, or what the function answers.
    ///
    /// # Errors
    /// Those of the function.
    pub async fn call<T, E, F>(&self, user: &str, function: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<T, E>>,
    {
        self.cache.wrap(Key::user_data(user, &self.data_type), self.ttl, function).await
    }
}
