//! `windlass market`: the rules of the market over files, and positions from the command line.

mod desk;
mod live;

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;
use windlass_market::replay::{self, Mode, Report};

use super::report;
use crate::cli::{Market, MarketCandles, MarketReplay, MarketVerb, ReplayMode};
use crate::market_settings::MarketSettings;
use crate::settings::Settings;

pub(crate) async fn run(settings: &Settings, args: Market, as_json: bool) -> anyhow::Result<ExitCode> {
    let market = place(settings)?;
    match args.verb {
        MarketVerb::Replay(args) => tokio::task::spawn_blocking(move || replay(&args, as_json)).await?,
        MarketVerb::Quotes { file, pace } => live::quotes(&market, &file, pace, as_json).await,
        MarketVerb::Open(args) => live::open(&market, &args, as_json).await,
        MarketVerb::Change(args) => desk::change(&market, &args, as_json).await,
        MarketVerb::Close { id, version } => desk::close(&market, id, version, as_json).await,
        MarketVerb::Next { symbol, limit } => desk::next(&market, symbol.as_deref(), limit, as_json).await,
        MarketVerb::Latency { closings } => desk::latency(&market, closings, as_json).await,
        MarketVerb::Positions { all } => live::positions(&market, all, as_json).await,
        MarketVerb::Explain { id } => live::why(&market, id, as_json).await,
        MarketVerb::Audit { links, head } => desk::audit(&market, links, head.as_ref(), as_json).await,
        MarketVerb::Sweep => live::sweep(&market, as_json).await,
        MarketVerb::Demo(args) => live::demo(&market, &args, as_json).await,
        MarketVerb::Candles(args) => tokio::task::spawn_blocking(move || candles(&args, as_json)).await?,
    }
}

/// Where the positions lie, opened when they are first needed, and the price cache. The lease is held
/// by what holds this.
pub(crate) fn place(settings: &Settings) -> anyhow::Result<windlass_market::Market> {
    use windlass_market::Where;
    let at = match (&settings.market_database_url, &settings.market.mapping) {
        (Some(url), Some(mapping)) => Where::Mapped(url.0.clone(), Box::new(mapping.clone())),
        (Some(url), None) => Where::Postgres(url.0.clone()),
        (None, _) => Where::Sqlite(settings.data_dir.join("market.db")),
    };
    let owner = format!("{}-{}", std::process::id(), windlass_jobs::new_ulid());
    let link = settings.market.redis.clone().map(windlass_redis::Link::new).transpose()?;
    let MarketSettings { prices, feed, .. } = settings.market.clone();
    Ok(windlass_market::Market::fed(at, &owner, link, prices, feed))
}

fn replay(args: &MarketReplay, as_json: bool) -> anyhow::Result<ExitCode> {
    let mode = match (args.mode, args.sweep_every) {
        (ReplayMode::Quotes, None) => Mode::Quotes,
        (ReplayMode::Quotes, Some(every)) => Mode::Sweep(usize::try_from(every)?),
        (ReplayMode::Bars, None) => Mode::Bars,
        (ReplayMode::Bars, Some(_)) => bail!("--sweep-every goes with --mode quotes"),
    };
    let mut out = Vec::new();
    let report = replay::replay(open(&args.positions)?, open(&args.quotes)?, mode, &mut out)
        .with_context(|| format!("replay of {} on {}", args.positions.display(), args.quotes.display()))?;
    write(&args.out, &out)?;
    tell(&report, &args.out, as_json, || {
        let open = report.positions - report.closed;
        format!("{} of {} positions closed, {open} open, over {} rows", report.closed, report.positions, report.rows)
    });
    Ok(ExitCode::SUCCESS)
}

fn candles(args: &MarketCandles, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = Vec::new();
    let report = replay::candles(open(&args.ticks)?, args.tf, &mut out)
        .with_context(|| format!("candles of {}", args.ticks.display()))?;
    write(&args.out, &out)?;
    tell(&report, &args.out, as_json, || {
        format!("{} candles of {} from {} ticks", report.candles, args.tf, report.rows)
    });
    Ok(ExitCode::SUCCESS)
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).with_context(|| format!("file {}", path.display()))?))
}

/// Writes the whole file or leaves what was there.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || format!("file {}", path.display());
    if path == Path::new("-") {
        return std::io::stdout().write_all(bytes).context("standard output");
    }
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return std::fs::write(path, bytes).with_context(context);
    }
    let mut name = path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(context)
}

/// What was done, on the error output for people, or as the last line for programs.
fn tell(report: &Report, out: &Path, as_json: bool, summary: impl Fn() -> String) {
    if as_json {
        report::json_line(&json!({
            "rows": report.rows,
            "passed_over": report.passed_over,
            "positions": report.positions,
            "closed": report.closed,
            "ambiguous": report.ambiguous,
            "candles": report.candles,
            "sha256": report.hash,
            "out": out.display().to_string(),
        }));
        return;
    }
    report::notice(summary());
    for (why, rows) in &report.passed_over {
        report::notice(format_args!("passed over: {rows} {}", why.replace('_', " ")));
    }
    report::notice(format_args!("sha256 {}", report.hash));
}
