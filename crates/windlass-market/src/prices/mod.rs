//! The price cache: the last price, the last ticks and the candles of each symbol, where other
//! programs read them.
//!
//! It shows, and decides nothing: closings are made of the quotes in the tables. Writing never makes
//! a feed wait: what Redis does not take in time is left out and counted. Reading answers from what
//! is there – Redis, this process' memory, the tables – and says from which.

mod keys;
mod old;
mod redis;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;
use windlass_redis::Link;

pub use keys::Names;

use crate::calm::Standing;
use crate::candle::{Candle, Timeframe};
use crate::positions::Fresh;
use crate::rules::Quote;

/// How values look on Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Hashes and streams of integers.
    #[default]
    Hash,
    /// The JSON texts of the replaced system, whose readers go on as they are.
    Json,
}

impl std::str::FromStr for Format {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "hash" => Ok(Self::Hash),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

/// What the cache keeps, and for how long.
#[derive(Debug, Clone)]
pub struct PriceOptions {
    /// How values look. Default [`Format::Hash`].
    pub format: Format,
    /// What stands before every key, such as `market:`. Default nothing, as in the replaced system.
    pub prefix: String,
    /// How long a price stands. Default 10 s.
    pub price_ttl: Duration,
    /// How long ticks are kept. Default 5 min.
    pub tick_ttl: Duration,
    /// What the ticks of a symbol may take, in bytes. Default 100 KiB.
    pub tick_bytes: usize,
    /// How long a candle is kept after its period. Default 1 h.
    pub candle_ttl: Duration,
    /// How long the flag of calm mode stands. Default 1 h.
    pub calm_ttl: Duration,
    /// How long a band stands. Default 30 min.
    pub band_ttl: Duration,
    /// Where nothing is known of a symbol, prices and candles are made up for display, and say so. Never
    /// in production. Default false.
    pub synthetic: bool,
}

impl Default for PriceOptions {
    fn default() -> Self {
        Self {
            format: Format::Hash,
            prefix: String::new(),
            price_ttl: Duration::from_secs(10),
            tick_ttl: Duration::from_secs(300),
            tick_bytes: 100 * 1024,
            candle_ttl: Duration::from_secs(3_600),
            calm_ttl: Duration::from_secs(3_600),
            band_ttl: Duration::from_secs(1_800),
            synthetic: false,
        }
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The shared cache.
    Redis,
    /// This process.
    Memory,
    /// The tables: what was known before a restart, or when the caches are away.
    Database,
    /// Made up for display, where nothing is known.
    Synthetic,
}

/// The last price of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Digits after the point.
    pub digits: u8,
    /// The quote.
    pub quote: Quote,
    /// Units traded with it.
    pub volume: i64,
    /// Which feed said it, if it is known.
    pub feed: Option<String>,
    /// Where it was found.
    pub source: Source,
}

/// What has happened to the cache since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Quotes written to Redis.
    pub written: u64,
    /// Quotes left out: Redis was away or too slow.
    pub dropped: u64,
    /// Reads that did without Redis.
    pub fallbacks: u64,
}

/// How long a read waits for Redis.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// Batches of quotes that wait for Redis.
const WAITING: usize = 256;
/// How often the same trouble is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The cache of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prices(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: PriceOptions,
    redis: Option<redis::Redis>,
    memory: Mutex<HashMap<String, (Price, Instant)>>,
    writer: OnceLock<mpsc::Sender<Vec<Fresh>>>,
    said: Mutex<Option<Instant>>,
    written: AtomicU64,
    dropped: AtomicU64,
    fallbacks: AtomicU64,
}

impl Prices {
    /// On a Redis, or in this process alone.
    #[must_use]
    pub fn new(link: Option<Link>, options: PriceOptions) -> Self {
        let redis = link.map(|link| redis::Redis::new(link, &options));
        Self(Arc::new(Inner {
            options,
            redis,
            memory: Mutex::default(),
            writer: OnceLock::new(),
            said: Mutex::default(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
        }))
    }

    /// What is kept, and for how long.
    #[must_use]
    pub fn options(&self) -> &PriceOptions {
        &self.0.options
    }

    /// True when other processes see what is written here.
    #[must_use]
    pub fn is_on_redis(&self) -> bool {
        self.0.redis.is_some()
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            written: self.0.written.load(Ordering::Relaxed),
            dropped: self.0.dropped.load(Ordering::Relaxed),
            fallbacks: self.0.fallbacks.load(Ordering::Relaxed),
        }
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, (Price, Instant)>> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in quotes that may decide, in their order. Redis hears of them soon. Needs a tokio
    /// runtime where there is a Redis.
    pub fn put(&self, fresh: &[Fresh]) {
        if fresh.is_empty() {
            return;
        }
        {
            let now = Instant::now();
            let mut memory = self.memory();
            for Fresh { symbol, digits, quote, volume, source } in fresh {
                let (feed, source) = (source.clone(), Source::Memory);
                let price = Price { digits: *digits, quote: *quote, volume: *volume, feed, source };
                match memory.get_mut(symbol) {
                    Some(known) if known.0.quote.seq > quote.seq => {}
                    Some(known) => *known = (price, now),
                    None => drop(memory.insert(symbol.clone(), (price, now))),
                }
            }
        }
        if self.0.redis.is_some() {
            let writer = self.0.writer.get_or_init(|| {
                let (sender, receiver) = mpsc::channel(WAITING);
                tokio::spawn(write(Arc::downgrade(&self.0), receiver));
                sender
            });
            if writer.try_send(fresh.to_vec()).is_err() {
                self.0.dropped.fetch_add(fresh.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// The newest price that Redis or this process knows, if it still stands.
    pub async fn price(&self, symbol: &str) -> Option<Price> {
        let shared = self.ask(async |redis| redis.price(symbol).await).await.flatten();
        let own = self.memory().get(symbol).filter(|(_, at)| at.elapsed() < self.0.options.price_ttl).cloned();
        match (shared, own) {
            (Some(shared), Some((own, _))) if own.quote.seq > shared.quote.seq => Some(own),
            (Some(shared), _) => Some(shared),
            (None, own) => own.map(|(price, _)| price),
        }
    }

    /// As [`Prices::price`], of many symbols in few trips; those that are not known are left out.
    pub async fn prices(&self, symbols: &[String]) -> HashMap<String, Price> {
        let shared = self.ask(async |redis| redis.prices(symbols).await).await.unwrap_or_default();
        let mut found: HashMap<String, Price> = shared.into_iter().collect();
        let memory = self.memory();
        for symbol in symbols {
            let own = memory.get(symbol).filter(|(_, at)| at.elapsed() < self.0.options.price_ttl);
            if let Some((own, _)) = own
                && found.get(symbol).is_none_or(|shared| own.quote.seq > shared.quote.seq)
            {
                found.insert(symbol.clone(), own.clone());
            }
        }
        found
    }

    /// The last price that this process knows, however old.
    #[must_use]
    pub fn remembered(&self, symbol: &str) -> Option<Price> {
        self.memory().get(symbol).map(|(price, _)| price.clone())
    }

    /// A symbol's newest ticks on Redis, the oldest of them first; `None` when it cannot be asked.
    pub async fn ticks(&self, symbol: &str, digits: u8, limit: usize) -> Option<Vec<(Quote, i64)>> {
        self.ask(async |redis| redis.ticks(symbol, digits, limit).await).await
    }

    /// Writes candles, each whole. False when Redis did not take them.
    pub async fn put_candles(&self, symbol: &str, digits: u8, candles: &[(Timeframe, Candle)]) -> bool {
        if self.0.redis.is_none() {
            return true;
        }
        self.ask(async |redis| redis.put_candles(symbol, digits, candles).await).await.is_some()
    }

    /// A candle on Redis.
    pub async fn candle(&self, symbol: &str, digits: u8, frame: Timeframe, start_ms: i64) -> Option<Candle> {
        self.ask(async |redis| redis.candle(symbol, digits, frame, start_ms).await).await.flatten()
    }

    /// Writes flags and bands of calm positions, and takes those of others away. False when Redis did not
    /// take them: they end by themselves.
    pub async fn put_calm(&self, standing: &[(i64, Standing, i128)], gone: &[i64], now_ms: i64) -> bool {
        self.ask(async |redis| redis.put_calm(standing, gone, now_ms).await).await.is_some()
    }

    /// Asks Redis; `None` when there is none, or it does not answer in time.
    async fn ask<T>(&self, work: impl AsyncFnOnce(&redis::Redis) -> Result<T, windlass_redis::Error>) -> Option<T> {
        let redis = self.0.redis.as_ref()?;
        match tokio::time::timeout(READ_WITHIN, Box::pin(work(redis))).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => self.0.say(&error.to_string()),
            Err(_) => self.0.say("no answer in time"),
        }
        self.0.fallbacks.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Inner {
    /// Says that Redis is not to be had, at most once a minute.
    fn say(&self, error: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            drop(said);
            tracing::warn!(event = "redis_fallback", error, "Redis operation failed, using fallback: the price cache");
        }
    }
}

/// Writes to Redis what was put, until the cache is gone. What waited meanwhile goes together.
async fn write(cache: std::sync::Weak<Inner>, mut batches: mpsc::Receiver<Vec<Fresh>>) {
    while let Some(mut fresh) = batches.recv().await {
        while let Ok(more) = batches.try_recv() {
            fresh.extend(more);
        }
        let Some(inner) = cache.upgrade() else { return };
        let Some(redis) = &inner.redis else { return };
        let count = fresh.len() as u64;
        let counter = match tokio::time::timeout(READ_WITHIN, redis.put(&fresh)).await {
            Ok(Ok(())) => &inner.written,
            Ok(Err(error)) => {
                inner.say(&error.to_string());
                &inner.dropped
            }
            Err(_) => {
                inner.say("no answer in time");
                &inner.dropped
            }
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
