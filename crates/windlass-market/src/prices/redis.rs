//! The price cache on Redis.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use windlass_jobs::{Timestamp, millis};
use windlass_redis::{Cmd, Error, FromRedisValue as _, Link, Script, Value, cmd};

use super::{Format, Names, Price, PriceOptions, Source, old};
use crate::calm::Standing;
use crate::candle::{Candle, Timeframe};
use crate::positions::Fresh;
use crate::rules::Quote;

/// Calls under way at once.
const AT_ONCE: usize = 32;
/// Reads under way at once: they share a connection, and go out together.
const READ_AT_ONCE: usize = 256;
/// What a tick takes on a stream, in bytes; measured on Redis 7.0 with numbers of 13 digits: 46, and up to a
/// quarter more as a node of a little over 4 KiB is given the next size that its allocator has, 5 KiB.
const STREAM_BYTES: usize = 60;
/// Ticks that lie together on a stream (`stream-node-max-entries`): it is trimmed by whole nodes, and what is
/// over may stay of the last one.
const STREAM_NODE: usize = 100;
/// What a tick takes in a sorted set, in bytes; the same.
const SET_BYTES: usize = 330;

#[derive(Debug)]
pub(super) struct Redis {
    link: Link,
    names: Names,
    options: PriceOptions,
    put: Script,
    fields: Script,
}

impl Redis {
    pub(super) fn new(link: Link, options: &PriceOptions) -> Self {
        let names = Names::new(options, link.options().is_cluster());
        let put = match options.format {
            Format::Hash => include_str!("put_hash.lua"),
            Format::Json => include_str!("put_json.lua"),
        };
        let fields = Script::new(include_str!("fields.lua"));
        Self { link, names, options: options.clone(), put: Script::new(put), fields }
    }

    /// Writes quotes, those of a symbol in one step.
    pub(super) async fn put(&self, fresh: &[Fresh]) -> Result<(), Error> {
        let mut by_symbol: HashMap<&str, Vec<&Fresh>> = HashMap::new();
        for quote in fresh {
            by_symbol.entry(&quote.symbol).or_default().push(quote);
        }
        let mut calls = Vec::with_capacity(by_symbol.len());
        for (symbol, quotes) in by_symbol {
            calls.push(match self.options.format {
                Format::Hash => self.put_hash(symbol, &quotes),
                Format::Json => self.put_json(symbol, &quotes),
            });
        }
        self.run(Some(&self.put), calls).await
    }

    /// Sends calls of a script, or plain ones, some at once.
    async fn run(&self, script: Option<&Script>, calls: Vec<Cmd>) -> Result<(), Error> {
        let send = |call: Cmd| async move {
            match script {
                Some(script) => Box::pin(script.run(&self.link, &call)).await.map(|_| ()),
                None => self.link.call(&call).await.map(|_| ()),
            }
        };
        stream::iter(calls.into_iter().map(send)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The start of a call of the script: what both formats begin with.
    fn begin(&self, symbol: &str, most: usize) -> Cmd {
        let mut call = self.put.on(&self.names.price(symbol));
        call.arg(self.names.tick(symbol))
            .arg(millis(self.options.price_ttl))
            .arg(millis(self.options.tick_ttl))
            .arg(most.max(1));
        call
    }

    /// The stamp before which ticks are over. By the host's clock: at worst some stay longer.
    fn oldest_ms(&self) -> i64 {
        Timestamp::now().0.saturating_sub(millis(self.options.tick_ttl)).max(0)
    }

    fn put_hash(&self, symbol: &str, quotes: &[&Fresh]) -> Cmd {
        let most = (self.options.tick_bytes / STREAM_BYTES).saturating_sub(STREAM_NODE);
        let mut call = self.begin(symbol, most);
        let source = quotes.last().and_then(|fresh| fresh.source.as_deref()).unwrap_or_default();
        call.arg(self.oldest_ms()).arg(quotes.first().map_or(0, |fresh| fresh.digits)).arg(source);
        for Fresh { quote, volume, .. } in quotes {
            call.arg(quote.seq).arg(quote.ts_ms).arg(quote.bid).arg(quote.ask).arg(*volume);
        }
        call
    }

    fn put_json(&self, symbol: &str, quotes: &[&Fresh]) -> Cmd {
        let mut call = self.begin(symbol, self.options.tick_bytes / SET_BYTES);
        call.arg(old::score(self.oldest_ms()));
        if let Some(Fresh { quote, volume, digits, .. }) = quotes.last() {
            call.arg(old::price(quote, *volume, *digits).to_string()).arg(quote.seq);
        }
        for Fresh { quote, volume, digits, .. } in quotes {
            call.arg(old::score(quote.ts_ms)).arg(old::tick(quote, *volume, *digits).to_string());
        }
        call
    }

    pub(super) async fn price(&self, symbol: &str) -> Result<Option<Price>, Error> {
        let key = self.names.price(symbol);
        let source = Source::Redis;
        Ok(match self.options.format {
            Format::Hash => {
                let fields = fields(self.link.call(cmd("HGETALL").arg(key)).await?);
                let int = |name: &str| fields.get(name)?.parse::<i64>().ok();
                let read = || {
                    let quote = Quote { ts_ms: int("ts")?, seq: int("seq")?, bid: int("bid")?, ask: int("ask")? };
                    let digits = u8::try_from(int("digits")?).ok()?;
                    Some(Price { digits, quote, volume: int("v")?, feed: fields.get("src").cloned(), source })
                };
                read()
            }
            Format::Json => text(self.link.call(cmd("GET").arg(key)).await?)
                .and_then(|text| old::read_quote(&text))
                .map(|(quote, digits, volume)| Price { digits, quote, volume, feed: None, source }),
        })
    }

    /// The prices of many symbols, many asked for at once; those that are not there are left out.
    pub(super) async fn prices(&self, symbols: &[String]) -> Result<Vec<(String, Price)>, Error> {
        let ask = |symbol: String| async move { Ok(self.price(&symbol).await?.map(|price| (symbol, price))) };
        let found = stream::iter(symbols.to_vec()).map(ask).buffer_unordered(READ_AT_ONCE);
        found.try_filter_map(|found| async move { Ok(found) }).try_collect().await
    }

    pub(super) async fn ticks(&self, symbol: &str, digits: u8, limit: usize) -> Result<Vec<(Quote, i64)>, Error> {
        let key = self.names.tick(symbol);
        let mut ticks = match self.options.format {
            Format::Hash => {
                let mut call = cmd("XREVRANGE");
                call.arg(key).arg("+").arg("-").arg("COUNT").arg(limit);
                let reply = self.link.call(&call).await?;
                let entries: Vec<(String, Vec<String>)> = windlass_redis::from_redis_value(reply).unwrap_or_default();
                entries.iter().filter_map(|(_, fields)| entry(fields)).collect::<Vec<_>>()
            }
            Format::Json => {
                let mut call = cmd("ZREVRANGE");
                call.arg(key).arg(0).arg(i64::try_from(limit).unwrap_or(i64::MAX) - 1);
                let reply = self.link.call(&call).await?;
                let texts: Vec<String> = windlass_redis::from_redis_value(reply).unwrap_or_default();
                let read = texts.iter().filter_map(|text| old::read_quote(text));
                read.filter(|(_, found, _)| *found == digits).map(|(quote, _, volume)| (quote, volume)).collect()
            }
        };
        ticks.reverse();
        Ok(ticks)
    }

    /// Writes candles; each stands until an hour, or what the settings say, after its period.
    pub(super) async fn put_candles(
        &self,
        symbol: &str,
        digits: u8,
        candles: &[(Timeframe, Candle)],
    ) -> Result<(), Error> {
        let mut calls = Vec::with_capacity(candles.len());
        for (frame, candle) in candles {
            let end_ms = frame.period(candle.start_ms, None).map_or(candle.start_ms, |(_, end)| end);
            let until = end_ms.max(Timestamp::now().0).saturating_add(millis(self.options.candle_ttl));
            let key = self.names.candle(symbol, *frame, candle.start_ms);
            calls.push(match self.options.format {
                Format::Hash => {
                    let mut call = self.fields.on(&key);
                    call.arg(until);
                    for (name, value) in columns(candle) {
                        call.arg(name).arg(value);
                    }
                    call
                }
                Format::Json => {
                    let mut call = cmd("SET");
                    call.arg(key).arg(old::candle(candle, digits).to_string()).arg("PXAT").arg(until);
                    call
                }
            });
        }
        let script = (self.options.format == Format::Hash).then_some(&self.fields);
        self.run(script, calls).await
    }

    /// Writes flags and bands: what they are made of is the band alone.
    pub(super) async fn put_calm(
        &self,
        standing: &[(i64, Standing, i128)],
        gone: &[i64],
        now_ms: i64,
    ) -> Result<(), Error> {
        let (flag_ttl, band_ttl) = (millis(self.options.calm_ttl), millis(self.options.band_ttl));
        let (mut calls, mut plain) = (Vec::with_capacity(standing.len()), Vec::new());
        for (id, Standing { band, since_ms }, risk) in standing {
            let (flag, pnl) = (self.names.calm(*id), self.names.calm_pnl(*id));
            match self.options.format {
                Format::Hash => {
                    let mut call = self.fields.on(&flag);
                    call.arg(now_ms.saturating_add(flag_ttl));
                    call.arg("flag").arg(1).arg("since").arg(*since_ms).arg("mode").arg("ULTRA");
                    calls.push(call);
                    let text = json!({ "band": band, "as_of": now_ms }).to_string();
                    let mut call = cmd("SET");
                    call.arg(pnl).arg(text).arg("PX").arg(band_ttl);
                    plain.push(call);
                }
                Format::Json => {
                    let at = old::instant(now_ms);
                    let blurred = band.shown(*risk).to_string();
                    let mut call = self.fields.on(&flag);
                    call.arg(now_ms.saturating_add(flag_ttl));
                    call.arg("stress_flag")
                        .arg(json!({ "stress_free": true, "mode": "ULTRA", "timestamp": at }).to_string());
                    call.arg("pnl_state")
                        .arg(json!({ "blurred_pnl": blurred, "actual_pnl": blurred, "timestamp": at }).to_string());
                    calls.push(call);
                }
            }
        }
        self.run(Some(&self.fields), calls).await?;
        for id in gone {
            for key in [self.names.calm(*id), self.names.calm_pnl(*id)] {
                let mut call = cmd("UNLINK");
                call.arg(key);
                plain.push(call);
            }
        }
        self.run(None, plain).await
    }

    pub(super) async fn candle(
        &self,
        symbol: &str,
        digits: u8,
        frame: Timeframe,
        start_ms: i64,
    ) -> Result<Option<Candle>, Error> {
        let key = self.names.candle(symbol, frame, start_ms);
        Ok(match self.options.format {
            Format::Hash => {
                let fields = fields(self.link.call(cmd("HGETALL").arg(key)).await?);
                read_columns(start_ms, |name| fields.get(name).map(String::as_str))
            }
            Format::Json => text(self.link.call(cmd("GET").arg(key)).await?)
                .and_then(|text| old::read_candle(&text, start_ms, digits)),
        })
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Nil => None,
        value => String::from_redis_value(value).ok(),
    }
}

fn fields(value: Value) -> HashMap<String, String> {
    windlass_redis::from_redis_value(value).unwrap_or_default()
}

/// `s 1 t 2 b 3 a 4 v 5`.
fn entry(fields: &[String]) -> Option<(Quote, i64)> {
    let int = |wanted: &str| {
        let pair = fields.chunks_exact(2).find(|pair| pair[0] == wanted)?;
        pair[1].parse::<i64>().ok()
    };
    Some((Quote { ts_ms: int("t")?, seq: int("s")?, bid: int("b")?, ask: int("a")? }, int("v")?))
}

/// A candle's fields.
fn columns(candle: &Candle) -> [(&'static str, String); 14] {
    [
        ("o", candle.o.to_string()),
        ("h", candle.h.to_string()),
        ("l", candle.l.to_string()),
        ("c", candle.c.to_string()),
        ("ah", candle.ah.to_string()),
        ("al", candle.al.to_string()),
        ("v", candle.v.to_string()),
        ("n", candle.n.to_string()),
        ("ot", candle.open_at.0.to_string()),
        ("os", candle.open_at.1.to_string()),
        ("ct", candle.close_at.0.to_string()),
        ("cs", candle.close_at.1.to_string()),
        ("rev", candle.rev.to_string()),
        ("final", u8::from(candle.is_final).to_string()),
    ]
}

fn read_columns<'a>(start_ms: i64, field: impl Fn(&str) -> Option<&'a str>) -> Option<Candle> {
    let int = |name: &str| field(name)?.parse::<i64>().ok();
    Some(Candle {
        start_ms,
        o: int("o")?,
        h: int("h")?,
        l: int("l")?,
        c: int("c")?,
        ah: int("ah")?,
        al: int("al")?,
        v: field("v")?.parse().ok()?,
        n: field("n")?.parse().ok()?,
        open_at: (int("ot")?, int("os")?),
        close_at: (int("ct")?, int("cs")?),
        rev: field("rev")?.parse().ok()?,
        is_final: int("final")? != 0,
    })
}
