//! Quotes from Redis: a stream, read from where the tables say, or a channel, which loses what comes
//! while nobody listens.
//!
//! One process at a time reads, under a lease of its own. A stream's entry is `symbol`, `bid`, `ask`,
//! `ts_ms`, `seq`, `v` and `src`, as a feed writes them, or a quote or list of quotes as JSON in `json`. How
//! far a stream is read is written after its quotes are kept: after a crash some come twice, and count
//! once by their numbers. What was trimmed before it was read is told as a gap.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use windlass_jobs::chain;
use windlass_redis::{Link, Message, cmd, from_redis_value, subscribe};

use crate::ingest::TakeError;
use crate::market::Inner;
use crate::positions::{Error, Hold, Holder, RawQuote};
use crate::stop::Stop;
use crate::wire;

/// Where quotes come from besides HTTP.
#[derive(Debug, Clone, Default)]
pub struct FeedOptions {
    /// A stream on the market's Redis. Default none.
    pub stream: Option<String>,
    /// A channel on the market's Redis. Default none.
    pub channel: Option<String>,
}

impl FeedOptions {
    pub(crate) const fn is_some(&self) -> bool {
        self.stream.is_some() || self.channel.is_some()
    }
}

/// The shard whose lease says who reads.
const SHARD: i64 = 2;
/// Entries read at once.
const RUN: usize = 1_000;
/// How often a stream is asked that was empty.
const EVERY: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_secs(1);

/// Why reading stops for a while.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error("the tables cannot be used")]
    Store(#[from] Error),
    #[error("quotes are not taken in")]
    Take(#[from] TakeError),
    #[error("redis cannot be used")]
    Redis(#[from] windlass_redis::Error),
}

/// Reads for as long as the process lives, or stands by.
pub(crate) async fn run(market: &Inner, link: &Link, options: &FeedOptions, mut stop: Stop) {
    let mut said = false;
    let mut hold = Hold::new(SHARD, market.owner());
    while !stop.is_said() {
        match read(market, link, options, &mut hold, &mut stop).await {
            Ok(()) => said = false,
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(error = chain(&error), "quotes are not read from redis");
                }
            }
        }
        stop.rest(PAUSE).await;
    }
    if let Ok(store) = market.store().await
        && let Err(error) = hold.release(store).await
    {
        tracing::debug!(error = chain(&error), "the lease of the feed ends by itself");
    }
}

/// Reads while the lease is ours, and nobody says the end.
async fn read(
    market: &Inner,
    link: &Link,
    options: &FeedOptions,
    hold: &mut Hold,
    stop: &mut Stop,
) -> Result<(), Halt> {
    let store = market.store().await?;
    if hold.keep(store, true).await? == Holder::Other {
        return Ok(());
    }
    let mut messages = options.channel.as_ref().map(|channel| subscribe(link, channel.clone()));
    let mut place = match &options.stream {
        Some(stream) => Some(begin(market, link, stream).await?),
        None => None,
    };
    while !stop.is_said() {
        if hold.keep(store, false).await? != Holder::Still {
            return Ok(());
        }
        let mut found = false;
        if let (Some(stream), Some(at)) = (&options.stream, &mut place) {
            let entries = entries(link, stream, at).await?;
            if let Some((last, _)) = entries.last().cloned() {
                found = true;
                let quotes = entries.iter().flat_map(|(id, fields)| quotes_of(id, fields)).collect();
                take(market, quotes).await?;
                store.set_feed_place(stream, &last).await?;
                *at = last;
            }
        }
        if let Some(messages) = &mut messages {
            let quotes = heard(messages);
            if !quotes.is_empty() {
                found = true;
                take(market, quotes).await?;
            }
        }
        if !found {
            stop.rest(EVERY).await;
        }
    }
    Ok(())
}

/// Takes quotes in; waits while as many wait as may.
async fn take(market: &Inner, quotes: Vec<RawQuote>) -> Result<(), Halt> {
    match market.take(quotes).await {
        Ok(answer) => {
            if !answer.rejected.is_empty() {
                tracing::debug!(rejected = answer.rejected.len(), "quotes from redis were rejected");
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where to read on: what the tables say, or the beginning of a stream that was never read.
async fn begin(market: &Inner, link: &Link, stream: &str) -> Result<String, Halt> {
    let store = market.store().await?;
    let mut call = cmd("XRANGE");
    call.arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
    let first: Vec<(String, Vec<String>)> = from_redis_value(link.call(&call).await?).unwrap_or_default();
    let Some(place) = store.feed_place(stream).await? else { return Ok("0-0".to_owned()) };
    if let Some((first, _)) = first.first()
        && order(first) > order(&place)
        && order(&place) > (0, 0)
    {
        tracing::warn!(
            stream,
            read_to = place,
            first,
            "quotes may have been lost: the stream was trimmed before it was read"
        );
        let detail = json!({ "stream": stream, "read_to": place, "first": first });
        store.note(None, "gap", "feed", &detail.to_string()).await?;
    }
    Ok(place)
}

/// An id as numbers: `1526919030474-55`.
fn order(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), seq.parse().unwrap_or(0))
}

type Entry = (String, Vec<String>);

async fn entries(link: &Link, stream: &str, after: &str) -> Result<Vec<Entry>, Halt> {
    let mut call = cmd("XRANGE");
    call.arg(stream).arg(format!("({after}")).arg("+").arg("COUNT").arg(RUN);
    Ok(from_redis_value(link.call(&call).await?).unwrap_or_default())
}

/// The quotes of an entry; its id says when they reached Redis.
fn quotes_of(id: &str, fields: &[String]) -> Vec<RawQuote> {
    let fields: HashMap<&str, &str> = fields.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let received_at_ms = i64::try_from(order(id).0).ok();
    if let Some(text) = fields.get("json") {
        let items = wire::parse(text.as_bytes()).unwrap_or_default();
        let read = wire::read(&items).quotes;
        return read.into_iter().map(|quote| RawQuote { received_at_ms, ..quote }).collect();
    }
    let int = |name: &str| fields.get(name)?.parse::<i64>().ok();
    let text = |name: &str| fields.get(name).map(|text| (*text).to_owned());
    let quote = || {
        let ts_ms = int("ts_ms")?;
        // The id's own order stands in for a number of the feed.
        let (ms, place) = order(id);
        let own = i64::try_from(ms).ok()?.checked_mul(1_000)?.checked_add(i64::try_from(place).ok()?);
        let seq = if fields.contains_key("seq") { int("seq") } else { own }?;
        let volume = int("v").unwrap_or(0);
        Some(RawQuote {
            symbol: text("symbol")?,
            bid: text("bid")?,
            ask: text("ask")?,
            ts_ms,
            seq,
            volume,
            received_at_ms,
            source: text("src"),
        })
    };
    match quote() {
        Some(quote) => vec![quote],
        None => {
            tracing::debug!(id, "an entry of the stream is no quote");
            Vec::new()
        }
    }
}

/// What came over the channel since the last time.
fn heard(messages: &mut mpsc::UnboundedReceiver<Message>) -> Vec<RawQuote> {
    let mut quotes = Vec::new();
    while quotes.len() < RUN
        && let Ok(message) = messages.try_recv()
    {
        if let Message::Text(text) = message {
            quotes.extend(wire::read(&wire::parse(text.as_bytes()).unwrap_or_default()).quotes);
        }
    }
    quotes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_quotes() {
        let fields = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let plain = fields(&["symbol", "A", "bid", "1.1", "ask", "1.2", "ts_ms", "5"]);
        let quotes = quotes_of("7-3", &plain);
        assert_eq!((quotes[0].seq, quotes[0].received_at_ms, quotes[0].bid.as_str()), (7_003, Some(7), "1.1"));
        let text = r#"[{"symbol":"A","bid":1.10,"ask":"1.2","ts_ms":5,"seq":9}]"#;
        let quotes = quotes_of("7-3", &fields(&["json", text]));
        assert_eq!((quotes[0].seq, quotes[0].bid.as_str()), (9, "1.10"));
        for bad in [&["symbol", "A"][..], &["json", "x"], &["json", "[1]"], &[]] {
            assert!(quotes_of("7-3", &fields(bad)).is_empty(), "{bad:?}");
        }
        assert!(order("10-2") > order("9-99") && order("x") == (0, 0));
    }
}
