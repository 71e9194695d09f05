//! The kinds of job: `trading.sltp_sweep`, `trading.sltp_check`, `trading.mark`,
//! `trading.close_position`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{InlineKind, KindSpec, Registry, RunContext};

use crate::engine::{self, Engine, Report};
use crate::positions::Outcome as Closing;
use crate::positions::{Class, Close, Error, Mark, Options, Page, Position, Positions, Result, Status};
use crate::rules::{Fill, Quote, Reason};

/// Where positions lie.
#[derive(Clone)]
pub enum Where {
    /// `postgres://…`
    Postgres(String),
    /// An embedded file, made when it is not there.
    Sqlite(PathBuf),
}

/// The positions of a process and the index over them, opened when they are first needed.
#[derive(Clone, Default)]
pub struct Market {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    at: Where,
    owner: String,
    store: OnceCell<Positions>,
    engine: Mutex<Option<Engine>>,
}

impl std::fmt::Debug for Market {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Market")
    }
}

impl Market {
    /// Positions at a place; `owner` names this process in the lease. The default has none: its
    /// kinds can be named and checked, but not run.
    #[must_use]
    pub fn new(at: Where, owner: &str) -> Self {
        let inner = Inner { at, owner: owner.to_owned(), store: OnceCell::new(), engine: Mutex::new(None) };
        Self { inner: Some(Arc::new(inner)) }
    }

    /// The tables, opened and brought up to date by the first call that reaches them.
    ///
    /// # Errors
    /// [`Error`]; the next call tries again.
    pub async fn store(&self) -> Result<&Positions> {
        let Some(inner) = &self.inner else {
            return Err(Error::Refused {
                field: "market",
                code: "no_store",
                why: "this process has no positions".to_owned(),
            });
        };
        let open = async || match &inner.at {
            Where::Postgres(url) => Positions::postgres(url, &Options::default()).await,
            Where::Sqlite(file) => Positions::sqlite(file, &Options::default()).await,
        };
        inner.store.get_or_try_init(open).await
    }

    /// Sweeps once; `None` while this process is at it already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sweep(&self) -> Result<Option<Report>> {
        let store = self.store().await?.clone();
        let Some(inner) = &self.inner else { return Ok(None) };
        let Ok(mut engine) = inner.engine.try_lock() else { return Ok(None) };
        engine.get_or_insert_with(|| Engine::new(store, &inner.owner)).sweep().await.map(Some)
    }
}

impl Market {
    /// Gives the shard back, so that another process may sweep at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release(&self) -> Result<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        match inner.engine.lock().await.as_mut() {
            Some(engine) => engine.release().await,
            None => Ok(()),
        }
    }
}

/// Adds the kinds.
pub fn register(registry: &mut Registry, market: &Market) {
    registry.inline(Sweep(market.clone()));
    registry.inline(Check(market.clone()));
    registry.inline(MarkAll(market.clone()));
    registry.inline(ClosePosition(market.clone()));
}

/// A database that is away is no failure of a job that comes again: it is skipped, and said.
fn skipped(error: &Error) -> Outcome {
    if error.class() == Class::Retryable {
        tracing::warn!(error = %chain(error), "positions are not reachable: skipped");
        return done(json!({ "skipped": "database_unavailable", "errors": 1 }), true);
    }
    failed(error)
}

fn failed(error: &Error) -> Outcome {
    match error {
        Error::Refused { code, .. } => Outcome::fatal(*code, error.to_string()),
        _ => Outcome::retry("positions_failed", chain(error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |e| e.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn done(value: Value, skipped: bool) -> Outcome {
    Outcome::Done(Done { value, artifacts: Vec::new(), skipped })
}

const QUEUE: &str = "trading";

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
            Ok(Some(report)) => told(&report),
            Ok(None) => done(json!({ "skipped": "running" }), true),
            Err(error) => skipped(&error),
        }
    }
}

/// A report with the member that the replaced system's callers read.
fn told(report: &Report) -> Outcome {
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["errors"] = 0.into();
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
    for instrument in store.instruments().await? {
        if let Some(quote) = store.last_quote(&instrument.symbol).await? {
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

/// Args of `trading.close_position`.
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
    let Some(position) = store.get(id).await? else {
        return Ok(Outcome::fatal("position_not_found", format!("there is no position {id}")));
    };
    if position.status == Status::Closed {
        return Ok(done(json!({ "outcome": "already_closed", "closings": store.closings(&[id]).await? }), true));
    }
    if version.is_some_and(|version| version != position.version) {
        return Ok(Outcome::fatal("version_changed", format!("the position has version {}", position.version)));
    }
    let instruments = store.instruments().await?;
    let max_age_ms = instruments.iter().find(|i| i.symbol == position.symbol).map_or(0, |i| i.max_quote_age_ms);
    let now_ms = store.now_ms().await?;
    let fresh =
        store.last_quote(&position.symbol).await?.filter(|quote| now_ms.saturating_sub(quote.ts_ms) <= max_age_ms);
    let Some(quote) = fresh else {
        return Ok(Outcome::retry("no_fresh_price", format!("{} has no quote that is fresh enough", position.symbol)));
    };
    let price = quote.closing_price(position.rules.side);
    let fill = Fill { leg: 0, qty: position.open_qty, reason, level: None, price, ambiguous: false };
    let detail = json!({ "why": "asked", "reason": reason, "version": position.version }).to_string();
    let close = Close::new(id, position.version, quote, vec![fill], &position.rules, detail);
    let mut closed = store.close(&[close], None, now_ms, "close_position", None).await?;
    Ok(match closed.outcomes.remove(&id) {
        Some(Closing::Closed { .. }) => {
            done(json!({ "outcome": "closed", "closings": store.closings(&[id]).await? }), false)
        }
        Some(already @ Closing::AlreadyClosed { .. }) => done(json!(already), true),
        // It changed between reading and writing: read it again.
        other => Outcome::retry("close_refused", json!(other).to_string()),
    })
}
