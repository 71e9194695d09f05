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
