//! Settings of the market: its price cache, and the Redis that others read it from.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use windlass_market::FeedOptions;
use windlass_market::positions::{Callback, Mapping, Secret};
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
    /// `WINDLASS_BAND_TTL_SECONDS` (the same, default 1,800). `WINDLASS_SYNTHETIC_PRICES` (default false) makes up
    /// what is not known.
    pub(crate) prices: PriceOptions,
    /// Where workers of the market read quotes, on its Redis: `WINDLASS_QUOTES_STREAM` and
    /// `WINDLASS_QUOTES_CHANNEL`; default nowhere.
    pub(crate) feed: FeedOptions,
    /// Where positions lie in another application's tables: `[trading.db]` of the settings file with
    /// `mode = "mapped"`, on the database of `WINDLASS_MARKET_DATABASE_URL`; default none. With `mode =
    /// "task"` that application closes by itself: `[trading.task]`, and `WINDLASS_CALLBACK_KEY` for its HTTP.
    pub(crate) mapping: Option<Mapping>,
}

/// `[trading]` of the settings file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trading {
    #[serde(default)]
    db: Map<String, Value>,
    task: Option<Callback>,
}

/// The mapping of `[trading.db]`, if it is to be used.
fn mapping(trading: Option<&Value>, key: Option<&str>) -> anyhow::Result<Option<Mapping>> {
    let Some(trading) = trading else { return Ok(None) };
    let Trading { mut db, task } = Trading::deserialize(trading).context("[trading] of the settings file")?;
    let mode = db.remove("mode").unwrap_or_else(|| "own".into());
    let mapped = |db| Mapping::deserialize(Value::Object(db)).context("[trading.db] of the settings file");
    let mapping = match (mode.as_str(), task) {
        (Some("own"), None) if db.is_empty() => return Ok(None),
        (Some("own"), None) => {
            bail!("[trading.db]: mode = \"own\" has no other settings; mode = \"mapped\" and \"task\" have")
        }
        (Some("mapped"), None) => mapped(db)?,
        (Some("own" | "mapped"), Some(_)) => bail!("[trading.task] goes with mode = \"task\" of [trading.db]"),
        (Some("task"), Some(callback)) => {
            let key = key.map(|key| Secret(key.to_owned()));
            Mapping { callback: Some(Callback { key, ..callback }), ..mapped(db)? }
        }
        (Some("task"), None) => bail!("[trading.db]: mode = \"task\" needs [trading.task] close"),
        _ => bail!("[trading.db]: mode is {mode}; own, mapped and task are allowed"),
    };
    mapping.check().context("[trading.db]")?;
    Ok(Some(mapping))
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
        if let Some(synthetic) = found.parse("WINDLASS_SYNTHETIC_PRICES", "true or false", |_| true)? {
            prices.synthetic = synthetic;
        }
        if prices.synthetic && found.text("ENVIRONMENT").is_some_and(|name| name.starts_with("prod")) {
            bail!("WINDLASS_SYNTHETIC_PRICES is true while ENVIRONMENT is production: prices made up are for trials");
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
        let mapping = mapping(found.trading(), found.text("WINDLASS_CALLBACK_KEY"))?;
        if mapping.is_some() && found.text("WINDLASS_MARKET_DATABASE_URL").is_none() {
            bail!("[trading.db]: mapped tables lie in the database of WINDLASS_MARKET_DATABASE_URL, which is not set");
        }
        Ok(Self { redis, prices, feed, mapping })
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::read;

    const URL: (&str, &str) = ("WINDLASS_MARKET_DATABASE_URL", "postgres://a@b/c");

    #[test]
    fn mapped_tables_are_told_in_the_settings_file() {
        let toml = "[trading.db]\nmode = 'mapped'\nopen_positions = 'a'\nchanged_since = 'b'\nclose = 'c'\n";
        let more = "[trading.db.map]\nside = { long = ['BUY'], short = ['SELL'] }\nreason = { SL = 'stop_loss' }\n";
        let settings = read(&[URL], &[("windlass.toml", &format!("{toml}{more}"))]).unwrap();
        let mapping = settings.market.mapping.unwrap();
        assert_eq!((mapping.schema.as_str(), mapping.map.side.long[0].as_str()), ("windlass", "BUY"));
        assert_eq!(mapping.map.reason["SL"], "stop_loss");
        assert!(read(&[], &[("windlass.toml", "[trading.db]\nmode = 'own'")]).unwrap().market.mapping.is_none());
        let check = |env: &[(&str, &str)], text: &str, part: &str| {
            let error = format!("{:#}", read(env, &[("windlass.toml", text)]).unwrap_err());
            assert!(error.contains(part), "{error}");
        };
        check(&[("WINDLASS_SYNTHETIC_PRICES", "true"), ("ENVIRONMENT", "production")], "", "trials");
        check(&[], toml, "WINDLASS_MARKET_DATABASE_URL");
        check(&[URL], &format!("{toml}schemo = 'x'"), "schemo");
        check(&[URL], &format!("{toml}schema = 'public'"), "schema of its own");
        check(&[URL], &format!("{toml}[trading.db.map]\nreason = {{ STOP = 'x' }}"), "STOP_OUT");
        check(&[URL], "[trading.db]\nmode = 'theirs'", "own, mapped and task");
        let task = "[trading.db]\nmode = 'task'\nopen_positions = 'a'\nchanged_since = 'b'\n[trading.task]\nclose = ";
        let callback = |close: &str| {
            let env = [URL, ("WINDLASS_CALLBACK_KEY", "geheim")];
            read(&env, &[("windlass.toml", &format!("{task}'{close}'"))])
                .unwrap()
                .market
                .mapping
                .unwrap()
                .callback
                .unwrap()
        };
        assert_eq!((callback("http://a:1/b").kind(), callback("http://a:1/b").queue()), (None, "trading"));
        assert_eq!(
            (callback("broker.close").kind(), callback("broker.close").queue()),
            (Some("broker.close"), "default")
        );
        assert!(!format!("{:?}", callback("broker.close")).contains("geheim"));
        assert_eq!(callback("https://a/b").kind(), None);
        check(&[URL], &format!("{task}'broker close'"), "kind of job");
        check(&[URL], &format!("{task}'http://a/b'\nqueue = 'x'"), "goes with a kind");
        check(&[URL], &format!("{task}'a.b'\nattempts = 0"), "attempts");
        check(&[URL], &format!("{toml}[trading.task]\nclose = 'a.b'"), "goes with mode");
        check(&[URL], "[trading.db]\nmode = 'task'", "needs [trading.task]");
        check(&[URL], "[trading.db]\nopen_positions = 'a'", "mode = \"own\" has no other");
        check(&[URL], "[trading.dp]\nmode = 'own'", "dp");
        check(&[URL], "trading = 1", "[trading]");
    }
}
