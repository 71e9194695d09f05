//! Every key of the market's caches. Nothing else builds one's name.
//!
//! | key | type, life | holds |
//! |---|---|---|
//! | `price:{SYMBOL}` | hash, 10 s | bid, ask, ts, seq, v in points, digits, src where the feed is named |
//! | `tick:{SYMBOL}` | stream, 5 min, by bytes | s, t, b, a, v |
//! | `candle:{SYMBOL}:{TIMEFRAME}:{START}` | hash, 1 h after its period | o h l c ah al v n ot os ct cs rev final; START in s |
//! | `calm:{POSITION}` | hash, 1 h | flag, since, until, mode |
//! | `calm:{POSITION}:pnl` | string, 30 min | band, as_of |
//!
//! With the old format: `price:{SYMBOL}` a JSON string, `tick:{SYMBOL}` a sorted set by epoch
//! seconds, `candle:{SYMBOL}:{M1}:{%Y%m%d%H%M%S}` a JSON string, `calm:{POSITION}` one hash of two
//! JSON texts; the symbol in capitals. On a cluster the symbol stands in braces, so that all keys of
//! a symbol lie in one slot.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Format, PriceOptions};
use crate::candle::Timeframe;

/// Builds names.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
    format: Format,
    braces: bool,
}

impl Names {
    /// As the options say; with braces on a cluster.
    #[must_use]
    pub fn new(options: &PriceOptions, cluster: bool) -> Self {
        Self { prefix: options.prefix.clone(), format: options.format, braces: cluster }
    }

    fn tagged(&self, text: &str) -> String {
        let text = if self.format == Format::Json { text.to_ascii_uppercase() } else { text.to_owned() };
        if self.braces { format!("{{{text}}}") } else { text }
    }

    /// The last price.
    #[must_use]
    pub fn price(&self, symbol: &str) -> String {
        format!("{}price:{}", self.prefix, self.tagged(symbol))
    }

    /// The last ticks.
    #[must_use]
    pub fn tick(&self, symbol: &str) -> String {
        format!("{}tick:{}", self.prefix, self.tagged(symbol))
    }

    /// A candle.
    #[must_use]
    pub fn candle(&self, symbol: &str, frame: Timeframe, start_ms: i64) -> String {
        let (prefix, symbol) = (&self.prefix, self.tagged(symbol));
        let old = frame.old_name().filter(|_| self.format == Format::Json);
        match (old, Timestamp::from_millisecond(start_ms)) {
            (Some(old), Ok(start)) => {
                let start = TimeZone::UTC.to_datetime(start).strftime("%Y%m%d%H%M%S").to_string();
                format!("{prefix}candle:{symbol}:{old}:{start}")
            }
            _ => format!("{prefix}candle:{symbol}:{frame}:{}", start_ms.div_euclid(1_000)),
        }
    }

    /// The flag of calm mode, and with the old format the band too.
    #[must_use]
    pub fn calm(&self, position: i64) -> String {
        format!("{}calm:{}", self.prefix, self.tagged(&position.to_string()))
    }

    /// The band of calm mode.
    #[must_use]
    pub fn calm_pnl(&self, position: i64) -> String {
        format!("{}:pnl", self.calm(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_replaced_system_8_32() {
        let at = |format, cluster| Names::new(&PriceOptions { format, ..PriceOptions::default() }, cluster);
        let start_ms = "2024-01-20T10:30:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let old = at(Format::Json, false);
        assert_eq!((old.price("eurusd"), old.tick("EURUSD")), ("price:EURUSD".into(), "tick:EURUSD".into()));
        assert_eq!(old.candle("eurusd", Timeframe::MINUTE, start_ms), "candle:EURUSD:M1:20240120103000");
        assert_eq!((old.calm(7), old.calm_pnl(7)), ("calm:7".into(), "calm:7:pnl".into()));
        let ours = at(Format::Hash, true);
        assert_eq!(ours.price("eurusd"), "price:{eurusd}");
        assert_eq!(ours.candle("A", Timeframe::Day, start_ms), "candle:{A}:1d:1705746600");
        let apart = Names::new(&PriceOptions { prefix: "m:".into(), ..PriceOptions::default() }, false);
        assert_eq!(apart.tick("A"), "m:tick:A");
    }
}
