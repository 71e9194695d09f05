//! `windlass market …` on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `windlass market`.
#[derive(Debug, Args)]
pub(crate) struct Market {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: MarketVerb,
}

/// What can be done with markets.
#[derive(Debug, Subcommand)]
pub(crate) enum MarketVerb {
    /// Run positions against recorded quotes or bars and write how each one closed.
    Replay(MarketReplay),
    /// Make candles of recorded ticks, whatever order they come in.
    Candles(MarketCandles),
    /// Take in quotes of a CSV file: symbol,ts_ms,seq,bid,ask with decimals.
    Quotes {
        /// The file.
        file: PathBuf,
        /// Let them come as far apart as they were recorded, N times as fast, stamped and numbered anew;
        /// default all at once, as they stand.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        pace: Option<u32>,
    },
    /// Open a position.
    Open(MarketOpen),
    /// Move a position's stop, target or end.
    Change(MarketChange),
    /// Close a position at the last quote.
    Close {
        /// The position.
        id: i64,
        /// Only in this version.
        #[arg(long, value_name = "N")]
        version: Option<i64>,
    },
    /// List the positions nearest to a trigger.
    Next {
        /// Only of this symbol.
        #[arg(long)]
        symbol: Option<String>,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
    },
    /// Show how long closings took, from quote to decision to closing.
    Latency {
        /// Over so many of the last closings.
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        closings: i64,
    },
    /// List positions with their effective stops, in points.
    Positions {
        /// Closed ones too.
        #[arg(long)]
        all: bool,
    },
    /// Show a position's history and decide its closings again; code 1 when the answer differs.
    Explain {
        /// The position.
        id: i64,
    },
    /// Hold the history of positions against its chain of hashes; code 1 when a line was changed or is gone.
    Audit {
        /// Over the newest so many links; default all.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
        links: Option<i64>,
        /// What an earlier run named as head: the chain must still go through it.
        #[arg(long, value_name = "N:HASH", value_parser = head)]
        head: Option<windlass_market::positions::Link>,
    },
    /// Take in quotes and close what they trigger, once; what the job trading.sltp_sweep does.
    Sweep,
    /// Watch positions close on quotes drawn from a seed, without any server.
    Demo(MarketDemo),
}

fn head(text: &str) -> Result<windlass_market::positions::Link, &'static str> {
    windlass_market::positions::Link::parse(text).ok_or("N:HASH, as windlass market audit says it, is allowed")
}

/// `windlass market open`.
#[derive(Debug, Args)]
pub(crate) struct MarketOpen {
    /// What is traded.
    #[arg(long)]
    pub(crate) symbol: String,
    /// Digits after the point, for a symbol that is not known yet.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=18))]
    pub(crate) digits: Option<u8>,
    /// Sold instead of bought.
    #[arg(long)]
    pub(crate) short: bool,
    /// Units.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) qty: i64,
    /// What it was opened at, as a decimal.
    #[arg(long, value_name = "PRICE")]
    pub(crate) entry: String,
    /// The stop.
    #[arg(long, value_name = "PRICE")]
    pub(crate) sl: Option<String>,
    /// The target.
    #[arg(long, value_name = "PRICE")]
    pub(crate) tp: Option<String>,
    /// The stop follows gains at this distance, in points.
    #[arg(long, value_name = "POINTS", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) trail_points: Option<i64>,
    /// Whose it is.
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) account: i64,
}

/// `windlass market change`.
#[derive(Debug, Args)]
pub(crate) struct MarketChange {
    /// The position.
    pub(crate) id: i64,
    /// The stop, or none.
    #[arg(long, value_name = "PRICE|none")]
    pub(crate) sl: Option<String>,
    /// The target, or none.
    #[arg(long, value_name = "PRICE|none")]
    pub(crate) tp: Option<String>,
    /// When it is closed in any case, in ms since 1970 UTC, or none.
    #[arg(long, value_name = "MS|none")]
    pub(crate) expires_at_ms: Option<String>,
    /// Only in this version.
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<i64>,
}

/// `windlass market demo`.
#[derive(Debug, Args)]
pub(crate) struct MarketDemo {
    /// What the quotes are drawn from.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// How long it goes on.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
}

/// `windlass market replay`.
#[derive(Debug, Args)]
pub(crate) struct MarketReplay {
    /// Positions as CSV, all prices in integer points, empty for none:
    /// id,symbol,side,qty,entry,open_index,sl,tp,trail_points,trail_bps,trail_activation,trail_step,be_trigger,be_offset,expires_index
    #[arg(long, value_name = "FILE")]
    pub(crate) positions: PathBuf,
    /// Quotes (symbol,index,ts_ms,seq,bid,ask) or bars (symbol,index,ts_ms,o,h,l,c,spread) as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) quotes: PathBuf,
    /// What the file of quotes holds.
    #[arg(long, value_enum, default_value_t = ReplayMode::Quotes)]
    pub(crate) mode: ReplayMode,
    /// Decide after every N quotes instead of on each: the closings are the same.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sweep_every: Option<u32>,
    /// Where to write id,index,ts_ms,reason,fill,final_stop,pnl_points; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// What a file of prices holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReplayMode {
    /// Bid and ask, one after the other.
    Quotes,
    /// Open, high, low, close of the bid.
    Bars,
}

/// `windlass market candles`.
#[derive(Debug, Args)]
pub(crate) struct MarketCandles {
    /// Ticks as CSV, in the order of their delivery: symbol,ts_ms,seq,bid,ask,volume
    #[arg(long, value_name = "FILE")]
    pub(crate) ticks: PathBuf,
    /// How long a candle is: 1s, 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1mo.
    #[arg(long, value_name = "SPAN", value_parser = windlass_market::candle::Timeframe::parse)]
    pub(crate) tf: windlass_market::candle::Timeframe,
    /// Where to write symbol,start_ms,o,h,l,c,v,n; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}
