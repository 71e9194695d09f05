//! The kinds of job: `trading.sltp_sweep`, `trading.sltp_check`, `trading.mark`,
//! `trading.close_position`, `market.outbox_prune`, `calm.refresh`,
//! `market.candles`; `trading.call_close` is in [`crate::callback`].

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_jobs::{Done, Outcome, Violation, chain};
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

use crate::callback::CallClose;
use crate::desk::{self, Closing};
use crate::engine::{self, Report};
use crate::market::Market;
use crate::positions::{Class, Error, Mark, Page, Position, Positions, Reach, Result};
use crate::rules::{Quote, Reason};

/// Adds the kinds.
pub fn register(registry: &mut Registry, market: &Market) {
    registry.inline(Sweep(market.clone()));
    registry.inline(Check(market.clone()));
    registry.inline(MarkAll(market.clone()));
    registry.inline(ClosePosition(market.clone()));
    registry.inline(OutboxPrune(market.clone()));
    registry.inline(CalmRefresh(market.clone()));
    registry.inline(RollUp(market.clone()));
    registry.inline(CallClose(market.clone()));
}

/// A database that is away is no failure of a job that comes again: it is skipped, and said.
fn skipped(error: &Error) -> Outcome {
    if error.class() == Class::Retryable {
        tracing::warn!(error = %chain(error), "positions are not reachable: skipped");
        return done(json!({ "skipped": "database_unavailable", "errors": 1 }), true);
    }
    failed(error)
}

pub(crate) fn failed(error: &Error) -> Outcome {
    match error {
        Error::Refused { code, .. } => Outcome::fatal(*code, error.to_string()),
        _ => Outcome::retry("positions_failed", chain(error)),
    }
}

pub(crate) fn done(value: Value, skipped: bool) -> Outcome {
    Outcome::Done(Done { value, artifacts: Vec::new(), skipped })
}

/// The queue of these kinds.
pub const QUEUE: &str = "trading";

struct Sweep(Market);

/// Args of `trading.sltp_sweep` and `trading.mark`: none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

#[async_trait]
impl InlineKind for Sweep {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            aliases: &["market.sl_tp_watcher.check_sl_tp_positions"],
            queue: QUEUE,
            max_attempts: 1,
            timeout: Duration::from_secs(60),
            ..KindSpec::new("trading.sltp_sweep", "Close what the quotes since the last sweep trigger")
        }
    }

    fn check(&self, _args: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _args: NoArgs, _ctx: &dyn RunContext) -> Outcome {
        match self.0.sweep().await {
            Ok(report) => told(&report),
            Err(error) => skipped(&error),
        }
    }
}

/// A report with the member that the replaced system's callers read.
fn told(report: &Report) -> Outcome {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["errors"] = report.refused.into();
    done(value, report.skipped.is_some())
}

struct Check(Market);

/// Args of `trading.sltp_check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckArgs {
    /// Positions of these symbols.
    #[serde(default)]
    symbols: Vec<String>,
    /// These positions.
    #[serde(default)]
    position_ids: Vec<i64>,
}

/// Positions checked by one job at most.
const CHECKED: i64 = 10_000;
/// How far back another application's changes are read before a check, in ms; a watcher has read all before.
const SYNCED_MS: i64 = 15_000;

#[async_trait]
impl InlineKind for Check {
    type Args = CheckArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            ..KindSpec::new("trading.sltp_check", "Check positions now and close what is triggered")
        }
    }

    fn check(&self, args: &CheckArgs) -> Vec<Violation> {
        let mut wrong = Vec::new();
        if args.symbols.is_empty() && args.position_ids.is_empty() {
            wrong.push(Violation::new("", "required", "symbols or position_ids is needed"));
        }
        for (index, symbol) in args.symbols.iter().enumerate() {
            if !crate::csv::is_symbol(symbol) {
                let path = format!("/symbols/{index}");
                wrong.push(Violation::new(path, "out_of_range", "1 to 32 letters, digits and . _ - / are allowed"));
            }
        }
        if args.position_ids.len() as u64 > CHECKED.unsigned_abs() || args.symbols.len() > 1_000 {
            wrong.push(Violation::new("", "too_many", "at most 10000 positions or 1000 symbols are allowed"));
        }
        wrong
    }

    async fn run(&self, args: CheckArgs, _ctx: &dyn RunContext) -> Outcome {
        match self.positions(&args).await {
            Ok(report) => told(&report),
            Err(error) => failed(&error),
        }
    }
}

impl Check {
    async fn positions(&self, args: &CheckArgs) -> Result<Report> {
        let store = self.0.store().await?;
        store.sync(Reach::These(&args.position_ids)).await?;
        if !args.symbols.is_empty() {
            store.sync(Reach::Since(store.now_ms().await? - SYNCED_MS)).await?;
        }
        let mut positions: Vec<Position> = store.get_many(&args.position_ids).await?;
        let mut report = Report::default();
        for symbol in args.symbols.iter().collect::<HashSet<_>>() {
            let mut page = Page { symbol: Some(symbol.clone()), limit: CHECKED, ..Page::default() };
            loop {
                let open = store.list(&page).await?;
                let Some(last) = open.last().map(|position| position.id) else { break };
                let count = open.len();
                let of_list = positions.drain(..).chain(open);
                report.add(engine::check(store, of_list.collect()).await?);
                page.after = last;
                if i64::try_from(count).unwrap_or(CHECKED) < CHECKED {
                    break;
                }
            }
        }
        if !positions.is_empty() {
            report.add(engine::check(store, positions).await?);
        }
        Ok(report)
    }
}

struct MarkAll(Market);

#[async_trait]
impl InlineKind for MarkAll {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            aliases: &["market.sl_tp_watcher.update_position_prices"],
            queue: QUEUE,
            max_attempts: 1,
            timeout: Duration::from_secs(60),
            ..KindSpec::new("trading.mark", "Write down what open positions are worth")
        }
    }

    fn check(&self, _args: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _args: NoArgs, _ctx: &dyn RunContext) -> Outcome {
        let store = match self.0.store().await {
            Ok(store) => store,
            Err(error) => return skipped(&error),
        };
        match mark(store).await {
            Ok(value) => done(value, false),
            Err(error) => skipped(&error),
        }
    }
}

/// Writes what every open position is worth at the last quote of its symbol. The table of
/// positions is only read.
///
/// # Errors
/// [`Error`].
pub async fn mark(store: &Positions) -> Result<Value> {
    let begun = Instant::now();
    let now_ms = store.now_ms().await?;
    let mut quotes: HashMap<String, (Quote, bool)> = HashMap::new();
    let mut last = store.last_quotes().await?;
    for instrument in store.instruments().await? {
        if let Some(quote) = last.remove(&instrument.symbol) {
            let stale = now_ms.saturating_sub(quote.ts_ms) > instrument.max_quote_age_ms;
            quotes.insert(instrument.symbol, (quote, stale));
        }
    }
    let mut marks = Vec::new();
    store
        .load_open(None, |position| {
            let Some((quote, stale)) = quotes.get(&position.symbol) else { return };
            let mark = quote.closing_price(position.rules.side);
            let pnl = position.rules.pnl_points(mark, position.open_qty);
            marks.push(Mark { position_id: position.id, account_id: position.account_id, mark, pnl, stale: *stale });
        })
        .await?;
    store.mark(&marks).await?;
    let accounts: HashSet<i64> = marks.iter().map(|mark| mark.account_id).collect();
    let mut stale: Vec<&String> = quotes.iter().filter(|(_, (_, stale))| *stale).map(|(symbol, _)| symbol).collect();
    stale.sort();
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(
        json!({ "positions": marks.len(), "updated": marks.len(), "accounts": accounts.len(), "stale_symbols": stale, "ms": ms }),
    )
}

struct ClosePosition(Market);

/// Args of `trading.close_position`, `market.outbox_prune`, `calm.refresh`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseArgs {
    /// The position.
    position_id: i64,
    /// Only in this version.
    #[serde(default)]
    version: Option<i64>,
    /// `MANUAL` or `STOP_OUT`. Default `MANUAL`.
    #[serde(default)]
    reason: Option<Reason>,
}

#[async_trait]
impl InlineKind for ClosePosition {
    type Args = CloseArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            max_attempts: 10,
            ..KindSpec::new("trading.close_position", "Close a position at the last quote")
        }
    }

    fn check(&self, args: &CloseArgs) -> Vec<Violation> {
        match args.reason {
            None | Some(Reason::Manual | Reason::StopOut) => Vec::new(),
            Some(_) => vec![Violation::new("/reason", "out_of_range", "MANUAL or STOP_OUT is allowed")],
        }
    }

    async fn run(&self, args: CloseArgs, _ctx: &dyn RunContext) -> Outcome {
        let store = match self.0.store().await {
            Ok(store) => store,
            Err(error) => return failed(&error),
        };
        let reason = args.reason.unwrap_or(Reason::Manual);
        close_now(store, args.position_id, args.version, reason).await.unwrap_or_else(|error| failed(&error))
    }
}

async fn close_now(store: &Positions, id: i64, version: Option<i64>, reason: Reason) -> Result<Outcome> {
    Ok(match desk::close(store, id, version, reason, "close_position").await? {
        Closing::Closed(closings) => done(json!({ "outcome": "closed", "closings": closings }), false),
        Closing::Asked => done(json!({ "outcome": "asked" }), false),
        Closing::AlreadyClosed(closings) => done(json!({ "outcome": "already_closed", "closings": closings }), true),
        Closing::Unknown => Outcome::fatal("position_not_found", format!("there is no position {id}")),
        Closing::VersionChanged(now) => Outcome::fatal("version_changed", format!("the position has version {now}")),
        Closing::NoFreshPrice(symbol) => {
            Outcome::retry("no_fresh_price", format!("{symbol} has no quote that is fresh enough"))
        }
        Closing::Busy => Outcome::retry("close_refused", "others write the position over and over"),
        Closing::Refused(why) => Outcome::retry("close_refused", why),
    })
}

/// `market.outbox_prune`: what others were told of closings, or never asked for, does not stay for ever, nor
/// do short candles.
struct OutboxPrune(Market);

#[async_trait]
impl InlineKind for OutboxPrune {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            max_attempts: 1,
            ..KindSpec::new("market.outbox_prune", "Forget events of positions and short candles past their time")
        }
    }

    fn check(&self, _args: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _args: NoArgs, _ctx: &dyn RunContext) -> Outcome {
        let pruned = async {
            let store = self.0.store().await?;
            Ok((store.prune_outbox().await?, store.prune_candles().await?))
        };
        match pruned.await {
            Ok((events, candles)) => done(json!({ "forgotten": events, "candles": candles }), events + candles == 0),
            Err(error) => skipped(&error),
        }
    }
}

/// `calm.refresh`: bands in place of numbers.
struct CalmRefresh(Market);

/// Args of `calm.refresh`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CalmArgs {
    /// Only this position; default all of calm accounts.
    #[serde(default)]
    position_id: Option<i64>,
}

#[async_trait]
impl InlineKind for CalmRefresh {
    type Args = CalmArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            max_attempts: 2,
            timeout: Duration::from_secs(60),
            ..KindSpec::new("calm.refresh", "Work out the bands that calm accounts are shown")
        }
    }

    fn check(&self, _args: &CalmArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, args: CalmArgs, _ctx: &dyn RunContext) -> Outcome {
        match self.0.refresh_calm(args.position_id).await {
            Ok(bands) => done(json!({ "bands": bands }), bands == 0),
            Err(error) => skipped(&error),
        }
    }
}

/// `market.candles`: quotes rolled up into candles; what a worker that watches does all the time.
struct RollUp(Market);

#[async_trait]
impl InlineKind for RollUp {
    type Args = NoArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: QUEUE,
            max_attempts: 1,
            timeout: Duration::from_secs(60),
            ..KindSpec::new("market.candles", "Roll the quotes since the last time up into candles")
        }
    }

    fn check(&self, _args: &NoArgs) -> Vec<Violation> {
        Vec::new()
    }

    async fn run(&self, _args: NoArgs, _ctx: &dyn RunContext) -> Outcome {
        match self.0.roll_up().await {
            Ok(rolled) => done(json!(rolled), rolled.skipped.is_some()),
            Err(error) => skipped(&error),
        }
    }
}
