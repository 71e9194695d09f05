//! Settings of the market: its price cache, and the Redis that others read it from.

use std::time::Duration;

use anyhow::bail;
use windlass_market::FeedOptions;
use windlass_market::prices::{Format, PriceOptions};

use crate::redis_settings::of_store;
use crate::settings::Found;

/// What the market is told.
#[derive(Debug, Clone)]
pub(crate) struct MarketSettings {
    /// The Redis of prices, ticks, candles and calm mode. `WINDLASS_MARKET_REDIS_URL`, default that of
    /// the queue; none: they stay in the process.
    pub(crate) redis: Option<windlass_redis::Options>,
    /// `WINDLASS_MARKET_FORMAT` (`hash` or `json`, default `hash`), `WINDLASS_MARKET_KEY_PREFIX` (default
    /// nothing), `WINDLASS_PRICE_TTL_SECONDS` (1–86,400, default 10), `WINDLASS_TICK_TTL_SECONDS`
    /// (1–86,400, default 300), `WINDLASS_TICK_MAX_KB` (1–65,536, default 100),
    /// `WINDLASS_CANDLE_TTL_SECONDS`, `WINDLASS_CALM_TTL_SECONDS` (both 1–2,592,000, default 3,600) and
    /// `WINDLASS_BAND_TTL_SECONDS` (the same, default 1,800).
    pub(crate) prices: PriceOptions,
    /// Where workers of the market read quotes, on its Redis: `WINDLASS_QUOTES_STREAM` and
    /// `WINDLASS_QUOTES_CHANNEL`; default nowhere.
    pub(crate) feed: FeedOptions,
}

impl MarketSettings {
    pub(crate) fn read(found: &Found, queue: Option<&windlass_redis::Options>) -> anyhow::Result<Self> {
        let mut prices = PriceOptions::default();
        if let Some(format) = found.parse::<Format>("WINDLASS_MARKET_FORMAT", "hash or json", |_| true)? {
            prices.format = format;
        }
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':');
        let fits = |prefix: &String| prefix.len() <= 64 && prefix.bytes().all(word);
        if let Some(prefix) = found.parse("WINDLASS_MARKET_KEY_PREFIX", "up to 64 of A-Z a-z 0-9 _ - :", fits)? {
            prices.prefix = prefix;
        }
        let spans = [
            ("WINDLASS_PRICE_TTL_SECONDS", 86_400, "1 to 86400", &mut prices.price_ttl),
            ("WINDLASS_TICK_TTL_SECONDS", 86_400, "1 to 86400", &mut prices.tick_ttl),
            ("WINDLASS_CANDLE_TTL_SECONDS", 2_592_000, "1 to 2592000", &mut prices.candle_ttl),
            ("WINDLASS_CALM_TTL_SECONDS", 2_592_000, "1 to 2592000", &mut prices.calm_ttl),
            ("WINDLASS_BAND_TTL_SECONDS", 2_592_000, "1 to 2592000", &mut prices.band_ttl),
        ];
        for (name, most, allowed, span) in spans {
            if let Some(s) = found.parse::<u64>(name, allowed, |s| (1..=most).contains(s))? {
                *span = Duration::from_secs(s);
            }
        }
        if let Some(kib) =
            found.parse::<usize>("WINDLASS_TICK_MAX_KB", "1 to 65536", |kib| (1..=65_536).contains(kib))?
        {
            prices.tick_bytes = kib * 1024;
        }
        let redis = of_store("WINDLASS_MARKET_REDIS_URL", found)?.or_else(|| queue.cloned());
        let name = |name: &String| (1..=512).contains(&name.len());
        let feed = FeedOptions {
            stream: found.parse("WINDLASS_QUOTES_STREAM", "the name of a stream, up to 512 bytes,", name)?,
            channel: found.parse("WINDLASS_QUOTES_CHANNEL", "the name of a channel, up to 512 bytes,", name)?,
        };
        if (feed.stream.is_some() || feed.channel.is_some()) && redis.is_none() {
            bail!(
                "WINDLASS_QUOTES_STREAM and WINDLASS_QUOTES_CHANNEL need a Redis: set WINDLASS_MARKET_REDIS_URL or REDIS_URL"
            );
        }
        Ok(Self { redis, prices, feed })
    }
}
