//! The market of a process: its tables, its index, its price cache, and the way of quotes into them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify, OnceCell, mpsc, watch};
use tokio::task::JoinHandle;
use windlass_jobs::{Timestamp, chain, millis};
use windlass_redis::Link;

use crate::callback::{self, CloseJobs};
use crate::calm::{self, Band};
use crate::candle::{Candle, Timeframe};
use crate::engine::{Engine, Report, Told};
use crate::feed::{self, FeedOptions};
use crate::index::Near;
use crate::ingest::{Answer, Ingest, TakeError};
use crate::positions::{
    AskedCount, Callback, Class, Error, Hold, Holder, LINKED_AT_ONCE, Mapping, Options, Positions, RawQuote, Result,
};
use crate::prices::{PriceOptions, Prices, Source};
use crate::rollup::{Rolled, Rollup};
use crate::stop::{self, Stop};

/// What a process knows of a symbol's triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearest {
    /// These are nearest.
    Found(Vec<Near>),
    /// This process does not watch it.
    Unwatched,
    /// It does not know at the moment: a pass, or a reading of everything, is under way.
    Busy,
}

/// Where positions lie.
#[derive(Clone)]
pub enum Where {
    /// `postgres://…`
    Postgres(String),
    /// An embedded file, made when it is not there.
    Sqlite(PathBuf),
    /// `postgres://…`, where positions lie in another application's tables.
    Mapped(String, Box<Mapping>),
}

/// The positions of a process and the index over them, opened when they are first needed, and its
/// price cache. Cheap to clone.
#[derive(Clone, Default)]
pub struct Market {
    inner: Option<Arc<Inner>>,
}

pub(crate) struct Inner {
    me: Weak<Inner>,
    link: Option<Link>,
    feed: FeedOptions,
    at: Where,
    owner: String,
    store: OnceCell<Positions>,
    /// Looks at PostgreSQL from outside: makes nothing there.
    outside: OnceCell<Positions>,
    engine: AsyncMutex<Option<Engine>>,
    rollup: AsyncMutex<Option<Rollup>>,
    pub(crate) prices: Prices,
    ingest: Ingest,
    wake: Notify,
    counters: Mutex<Counters>,
    heard_by: Mutex<Vec<mpsc::UnboundedSender<(Instant, Told)>>>,
}

/// What the watching of positions has done in this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Quotes that were accepted here.
    pub quotes_accepted: u64,
    /// Quotes that were not, by why.
    pub quotes_rejected: BTreeMap<&'static str, u64>,
    /// Passes over new quotes.
    pub passes: u64,
    /// Closings written.
    pub closed: u64,
    /// Decisions that another write had made needless.
    pub lost_race: u64,
    /// Closings that another application's tables refused; each try counts.
    pub refused: u64,
    /// Quotes that decided nothing, by guard.
    pub held: BTreeMap<&'static str, u64>,
    /// Passes that found the tables away.
    pub skipped: u64,
    /// Symbols with open positions, in session, of which no quote comes.
    pub frozen: u64,
    /// Positions that their own application was asked to close, without an answer yet.
    pub asked: u64,
    /// Those of which the asking has failed for good.
    pub asked_failed: u64,
}

impl std::fmt::Debug for Market {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Market")
    }
}

/// How often positions are watched at the least, where nobody says that quotes have come.
const POLL: Duration = Duration::from_millis(250);
/// How often candles are rolled up.
const ROLL_EVERY: Duration = Duration::from_millis(250);
/// The shard whose lease says who links the history.
const LINKING: i64 = 3;
/// How often lines of the history are linked.
const LINK_EVERY: Duration = Duration::from_millis(500);
/// Lines this much older than the newest linked one are linked, those of transactions that took longer aside.
const SETTLED: Duration = Duration::from_secs(60);
/// No transaction that adds a line takes longer, and how often those that took long are looked for. Reading all of
/// another application's positions may take minutes.
const LONGEST: Duration = Duration::from_secs(3_600);
const LOOK_BACK_EVERY: Duration = Duration::from_secs(600);
/// How long a caller waits for what a pass holds; then the tables are asked.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long the end of a watching waits for statements that are under way.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Candles that are looked up on Redis one by one.
const MOST_RECENT: usize = 200;
/// The longest pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the same trouble is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

impl Market {
    /// Positions at a place; `owner` names this process in the lease. Prices are shared over the
    /// link, or stay in this process. The default market has no place: its kinds can be named and
    /// checked, but not run.
    #[must_use]
    pub fn new(at: Where, owner: &str, link: Option<Link>, prices: PriceOptions) -> Self {
        Self::fed(at, owner, link, prices, FeedOptions::default())
    }

    /// As [`Market::new`]; whoever watches also reads quotes from here.
    #[must_use]
    pub fn fed(at: Where, owner: &str, link: Option<Link>, prices: PriceOptions, feed: FeedOptions) -> Self {
        let inner = Arc::new_cyclic(|weak| Inner {
            me: weak.clone(),
            link: link.clone(),
            feed,
            at,
            owner: owner.to_owned(),
            store: OnceCell::new(),
            outside: OnceCell::new(),
            engine: AsyncMutex::new(None),
            rollup: AsyncMutex::new(None),
            prices: Prices::new(link, prices),
            ingest: Ingest::default(),
            wake: Notify::new(),
            counters: Mutex::default(),
            heard_by: Mutex::default(),
        });
        Self { inner: Some(inner) }
    }

    pub(crate) fn inner(&self) -> Result<&Arc<Inner>> {
        self.inner.as_ref().ok_or_else(|| Error::refused("market", "no_store", "this process has no positions"))
    }

    /// The tables, opened and brought up to date by the first call that reaches them.
    ///
    /// # Errors
    /// [`Error`]; the next call tries again.
    pub async fn store(&self) -> Result<&Positions> {
        self.inner()?.store().await
    }

    /// Opens the tables now where positions lie in another application's, so that a mapping which will
    /// not do is known at start. A database that is away is only said.
    ///
    /// # Errors
    /// [`Error`] of the mapping.
    pub async fn check_mapping(&self) -> Result<()> {
        let Some(inner) = self.inner.as_ref().filter(|inner| matches!(inner.at, Where::Mapped(..))) else {
            return Ok(());
        };
        match inner.store().await {
            Err(error) if error.class() == Class::Retryable => {
                tracing::warn!(error = chain(&error), "the mapped tables are checked when their database answers");
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Whether anything is traded here: there is an instrument. Makes no tables, and is false while those
    /// there are do not answer.
    pub async fn is_in_use(&self) -> bool {
        let Ok(inner) = self.inner() else { return false };
        let is_traded = async {
            let store = match (inner.store.get(), &inner.at) {
                (Some(store), _) => store,
                (None, Where::Sqlite(file)) if !file.exists() => return Ok(false),
                (None, Where::Sqlite(_)) => inner.store().await?,
                (None, Where::Postgres(url)) => inner.outside(url, None).await?,
                (None, Where::Mapped(url, mapping)) => inner.outside(url, Some(&mapping.schema)).await?,
            };
            store.is_traded().await
        };
        is_traded.await.unwrap_or(false)
    }

    /// The price cache.
    ///
    /// # Errors
    /// [`Error`] without a place.
    pub fn prices(&self) -> Result<&Prices> {
        Ok(&self.inner()?.prices)
    }

    /// Takes quotes in: into the tables, the price cache, and to whoever watches positions. What comes
    /// at the same time is written together.
    ///
    /// # Errors
    /// [`TakeError`]. Then none of them is kept, as far as is known.
    pub async fn take_quotes(&self, quotes: Vec<RawQuote>) -> std::result::Result<Answer, TakeError> {
        let inner = self.inner().map_err(|e| TakeError::Store(Arc::new(e)))?;
        inner.take(quotes).await
    }

    /// Sweeps once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sweep(&self) -> Result<Report> {
        let inner = Arc::clone(self.inner()?);
        // Whoever gives up leaves no statement half sent: its locks would stand until a time-out.
        let swept = tokio::spawn(async move { inner.sweep().await }).await;
        swept.unwrap_or_else(|stopped| match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Sql { operation: "sweep", source: sqlx::Error::PoolClosed }),
        })
    }

    /// Gives the shard back, so that another process may sweep at once.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn release(&self) -> Result<()> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let swept = match inner.engine.lock().await.as_mut() {
            Some(engine) => engine.release().await,
            None => Ok(()),
        };
        let rolled = match inner.rollup.lock().await.as_mut() {
            Some(rollup) => rollup.release().await,
            None => Ok(()),
        };
        swept.and(rolled)
    }

    /// Rolls the quotes that have come up into candles, and writes these down.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn roll_up(&self) -> Result<Rolled> {
        self.inner()?.roll_up(true).await
    }

    /// A symbol's newest candles that begin within a span, oldest first, at most `limit`: from the tables,
    /// with what changes at the moment over them. While the tables are away, what Redis has of the last
    /// hour.
    ///
    /// # Errors
    /// [`Error`] when neither can be asked.
    pub async fn candles(
        &self,
        symbol: &str,
        frame: Timeframe,
        span: (i64, i64),
        limit: usize,
    ) -> Result<(Vec<Candle>, Source)> {
        let inner = self.inner()?;
        let count = i64::try_from(limit).unwrap_or(i64::MAX);
        let kept = async { inner.store().await?.candles(symbol, frame, span, count).await };
        let (mut candles, mut source) = match kept.await {
            Ok(kept) => (by_start(kept), Source::Database),
            Err(error) => match inner.recent_candles(symbol, frame, span, limit).await {
                Some(found) => (by_start(found), Source::Redis),
                None => return Err(error),
            },
        };
        if source == Source::Database {
            let (live, of) = inner.live_candles(symbol, frame).await;
            for candle in live.into_iter().filter(|candle| (span.0..=span.1).contains(&candle.start_ms)) {
                source = of;
                candles.insert(candle.start_ms, candle);
            }
        }
        while candles.len() > limit {
            candles.pop_first();
        }
        Ok((candles.into_values().collect(), source))
    }

    /// What of a symbol is nearest to a trigger at these prices, as far as this process knows. Waits 50 ms for it
    /// at most.
    pub async fn nearest(&self, symbol: &str, bid: i64, ask: i64, limit: usize) -> Nearest {
        let Some(inner) = &self.inner else { return Nearest::Unwatched };
        let Some(engine) = patiently(&inner.engine).await else { return Nearest::Busy };
        let found = engine.as_ref().and_then(|engine| engine.nearest(symbol, bid, ask, limit));
        found.map_or(Nearest::Unwatched, Nearest::Found)
    }

    /// The band of a calm account's position: the last one, or none in particular. Never fails: nobody
    /// is shown a number because something is away.
    pub async fn band(&self, position: i64) -> Band {
        let standing = async { self.store().await?.band(position).await };
        match standing.await {
            Ok(Some(standing)) => standing.band,
            Ok(None) | Err(_) => Band::AroundZero,
        }
    }

    /// Works the bands of calm accounts' positions out anew, or that of one of them; answers how many
    /// stand.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn refresh_calm(&self, only: Option<i64>) -> Result<usize> {
        let (store, prices) = (self.store().await?, self.prices()?);
        let (before, now_ms) = (store.bands().await?, store.now_ms().await?);
        let (mut bands, mut risks) = (HashMap::new(), HashMap::new());
        let quotes = store.last_quotes().await?;
        for position in store.calm_positions(only).await? {
            let Some(quote) = quotes.get(&position.symbol) else { continue };
            let risk = calm::risk(&position);
            let pnl = position.rules.pnl_points(quote.closing_price(position.rules.side), position.open_qty);
            bands.insert(position.id, calm::next(before.get(&position.id).copied(), pnl, risk, now_ms));
            risks.insert(position.id, risk);
        }
        let gone = store.put_bands(&bands, only.is_none()).await?;
        let told = bands.iter().map(|(id, standing)| (*id, *standing, risks.get(id).copied().unwrap_or(1)));
        prices.put_calm(&told.collect::<Vec<_>>(), &gone, now_ms).await;
        Ok(bands.len())
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.as_ref().map(|inner| inner.counters().clone()).unwrap_or_default()
    }

    /// The closings that this process writes from now on, each with the moment at which its commit was
    /// known.
    #[must_use]
    pub fn closings(&self) -> mpsc::UnboundedReceiver<(Instant, Told)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(inner) = &self.inner {
            inner.heard_by.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
        receiver
    }

    /// Watches positions: every batch of quotes is decided on as it comes, for as long as this process
    /// holds the shard; while another one does, this one stands by. Needs a tokio runtime.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        self.watch_with(None)
    }

    /// As [`Market::watch`]; closings that an application's own code carries out are asked for over these
    /// jobs.
    #[must_use]
    pub fn watch_with(&self, jobs: Option<Arc<dyn CloseJobs>>) -> Watcher {
        let (say, stop) = stop::pair();
        let mut tasks = Vec::new();
        if let Some(inner) = &self.inner {
            let (watching, hearing, rolling) = (Arc::clone(inner), Arc::clone(inner), Arc::clone(inner));
            let linking = Arc::clone(inner);
            let (watched, heard, rolled, linked) = (stop.clone(), stop.clone(), stop.clone(), stop.clone());
            tasks.extend([
                tokio::spawn(async move { watching.watch(watched).await }),
                tokio::spawn(async move { hearing.hear(heard).await }),
                tokio::spawn(async move { rolling.roll(rolled).await }),
                tokio::spawn(async move { linking.link_history(linked).await }),
            ]);
            if let (Some(link), true) = (inner.link.clone(), inner.feed.is_some()) {
                let (reading, stop) = (Arc::clone(inner), stop.clone());
                tasks.push(tokio::spawn(async move { feed::run(&reading, &link, &reading.feed, stop).await }));
            }
            if let (Some(jobs), true) = (jobs, self.callback().is_some()) {
                let asking = Arc::clone(inner);
                tasks.push(tokio::spawn(async move {
                    if let Some(callback) = asking.callback() {
                        callback::run(&asking, jobs, callback, stop).await;
                    }
                }));
            }
        }
        Watcher { market: self.clone(), say, tasks }
    }

    /// How an application's own code closes positions, if it does.
    #[must_use]
    pub fn callback(&self) -> Option<&Callback> {
        self.inner.as_ref()?.callback()
    }
}

/// The watching of a process, until it is stopped.
#[derive(Debug)]
pub struct Watcher {
    market: Market,
    /// Says the end; also by being dropped.
    say: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watcher {
    /// Ends it, and gives all leases back. Statements that are under way end first, within 5 s; then a closing
    /// that is being written is written, or not: whoever watches next sees which.
    pub async fn stop(self) {
        let _ = self.say.send(true);
        let end = tokio::time::Instant::now() + STOP_WITHIN;
        for mut task in self.tasks {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
        if let Err(error) = self.market.release().await {
            tracing::warn!(error = chain(&error), "the shard of positions is not given back; its lease ends by itself");
        }
    }
}

impl Inner {
    pub(crate) async fn store(&self) -> Result<&Positions> {
        let open = async || match &self.at {
            Where::Postgres(url) => Positions::postgres(url, &Options::default()).await,
            Where::Sqlite(file) => Positions::sqlite(file, &Options::default()).await,
            Where::Mapped(url, mapping) => Positions::mapped(url, &Options::default(), mapping).await,
        };
        self.store.get_or_try_init(open).await
    }

    async fn outside(&self, url: &str, schema: Option<&str>) -> Result<&Positions> {
        self.outside.get_or_try_init(async || Positions::outside(url, schema)).await
    }

    fn callback(&self) -> Option<&Callback> {
        match &self.at {
            Where::Mapped(_, mapping) => mapping.callback.as_ref(),
            _ => None,
        }
    }

    /// Notes how many closings were asked for and not answered.
    pub(crate) fn count_asked(&self, count: AskedCount) {
        let mut counters = self.counters();
        counters.asked = count.asked.unsigned_abs();
        counters.asked_failed = count.failed.unsigned_abs();
    }

    /// Says that positions are not closed, as long as there are such.
    pub(crate) fn tell_failed(&self, said: &mut Option<Instant>) {
        let failed = self.counters().asked_failed;
        if failed > 0 && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            tracing::error!(positions = failed, "positions are not closed by their application: see the dead set");
        }
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    pub(crate) async fn take(&self, quotes: Vec<RawQuote>) -> std::result::Result<Answer, TakeError> {
        self.ingest.take(self, quotes).await
    }

    fn counters(&self) -> std::sync::MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has brought quotes.
    pub(crate) fn quotes_came(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn count_quotes(&self, accepted: u64, rejected: &BTreeMap<&'static str, u64>) {
        let mut counters = self.counters();
        counters.quotes_accepted += accepted;
        for (why, count) in rejected {
            *counters.quotes_rejected.entry(why).or_default() += count;
        }
    }

    fn count(&self, report: &Report) {
        let mut counters = self.counters();
        counters.passes += u64::from(report.skipped.is_none());
        counters.closed += report.closed;
        let now = Instant::now();
        let mut heard_by = self.heard_by.lock().unwrap_or_else(PoisonError::into_inner);
        heard_by.retain(|sender| !sender.is_closed());
        for sender in heard_by.iter() {
            for told in &report.closings {
                // Whoever is gone is taken away next time.
                let _ = sender.send((now, told.clone()));
            }
        }
        drop(heard_by);
        counters.lost_race += report.lost_race;
        counters.refused += report.refused;
        for (why, count) in &report.held {
            *counters.held.entry(why).or_default() += count;
        }
    }

    /// Wakes the watcher when another process has brought quotes.
    async fn hear(&self, mut stop: Stop) {
        while !stop.is_said() {
            if let Ok(store) = self.store().await {
                tokio::select! {
                    // Returns when there is nothing to hear, or the connection is gone.
                    () = store.hear_quotes(&self.wake) => {}
                    () = stop.said() => {}
                }
            }
            stop.rest(PAUSE).await;
        }
    }

    async fn watch(&self, mut stop: Stop) {
        let (mut failed, mut said): (u32, Option<Instant>) = (0, None);
        let mut frozen_said: Option<Instant> = None;
        while !stop.is_said() {
            match self.pass().await {
                Ok(report) => {
                    if failed > 0 {
                        tracing::info!("positions are watched again");
                    }
                    failed = 0;
                    self.count(&report);
                    for (guard, quotes) in report.held.iter().filter(|(guard, _)| **guard != "late") {
                        tracing::debug!(guard, quotes, "quotes decided nothing");
                    }
                    if report.skipped.is_some() {
                        stop.rest(PAUSE).await;
                        continue;
                    }
                }
                Err(error) => {
                    failed += 1;
                    self.counters().skipped += 1;
                    if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                        said = Some(Instant::now());
                        let away = error.class() == Class::Retryable;
                        tracing::warn!(
                            error = chain(&error),
                            away,
                            "positions are not watched: the tables cannot be used"
                        );
                    }
                    stop.rest((Duration::from_millis(50) * failed.min(20)).min(PAUSE)).await;
                    continue;
                }
            }
            let is_idle = self.tell_frozen(&mut frozen_said).await;
            let pause = if is_idle { PAUSE } else { POLL };
            tokio::select! {
                () = self.wake.notified() => {}
                () = stop.rest(pause) => {}
            }
        }
    }

    async fn roll_up(&self, keep: bool) -> Result<Rolled> {
        let store = self.store().await?;
        let mut rollup = self.rollup.lock().await;
        let new = || Rollup::new(store.clone(), self.prices.clone(), &self.owner);
        rollup.get_or_insert_with(new).pass(keep).await
    }

    /// Rolls candles up for as long as the process lives, or stands by.
    async fn roll(&self, mut stop: Stop) {
        while !stop.is_said() {
            match self.roll_up(false).await {
                Ok(rolled) if rolled.skipped.is_none() && rolled.is_busy => stop.rest(ROLL_EVERY).await,
                // Nothing is traded, or another process does it; the watcher says what is wrong with the tables.
                Ok(_) | Err(_) => stop.rest(PAUSE).await,
            }
        }
    }

    /// Links the lines of the history to one another for as long as the process lives, or stands by.
    async fn link_history(&self, mut stop: Stop) {
        let mut hold = Hold::new(LINKING, &self.owner);
        let mut linker = Linker::default();
        while !stop.is_said() {
            let linked = async {
                let store = self.store().await?;
                match hold.keep(store, false).await? {
                    Holder::Other => return Ok(false),
                    Holder::Anew => linker = Linker::default(),
                    Holder::Still => {}
                }
                linker.pass(store).await
            };
            match linked.await {
                // There may be more.
                Ok(true) => stop.rest(LINK_EVERY).await,
                // The watcher says what is wrong with the tables.
                Ok(false) | Err(_) => stop.rest(PAUSE).await,
            }
        }
        if let Ok(store) = self.store().await
            && let Err(error) = hold.release(store).await
        {
            tracing::debug!(error = chain(&error), "the lease of the history ends by itself");
        }
    }

    /// The candles that change at the moment: this process' own, else those of Redis.
    async fn live_candles(&self, symbol: &str, frame: Timeframe) -> (Vec<Candle>, Source) {
        let rollup = patiently(&self.rollup).await;
        if let Some(live) = rollup.and_then(|rollup| rollup.as_ref().and_then(|rollup| rollup.live(symbol, frame))) {
            return (live, Source::Memory);
        }
        let Some(period) = frame.period(Timestamp::now().0, None) else {
            return (Vec::new(), Source::Redis);
        };
        // Prices are read by the digits of the last one that is known; a hash needs none.
        let digits = self.prices.price(symbol).await.map_or(0, |price| price.digits);
        let mut live = Vec::new();
        for start_ms in [frame.period(period.0 - 1, None).map_or(period.0, |before| before.0), period.0] {
            live.extend(self.prices.candle(symbol, digits, frame, start_ms).await);
        }
        (live, Source::Redis)
    }

    /// What Redis still has of a span, newest first, back to what has ended.
    async fn recent_candles(
        &self,
        symbol: &str,
        frame: Timeframe,
        span: (i64, i64),
        limit: usize,
    ) -> Option<Vec<Candle>> {
        let digits = match self.prices.price(symbol).await {
            Some(price) => price.digits,
            None => self.prices.remembered(symbol)?.digits,
        };
        let now_ms = Timestamp::now().0;
        let oldest = span.0.max(now_ms.saturating_sub(millis(self.prices.options().candle_ttl)));
        let (mut found, mut at) = (Vec::new(), span.1.min(now_ms));
        while found.len() < limit.min(MOST_RECENT) {
            let Some((start_ms, end_ms)) = frame.period(at, None).filter(|(_, end)| *end > oldest) else { break };
            if (span.0..=span.1).contains(&start_ms) {
                found.extend(self.prices.candle(symbol, digits, frame, start_ms).await);
            }
            at = start_ms.min(end_ms) - 1;
        }
        Some(found)
    }

    async fn sweep(&self) -> Result<Report> {
        let store = self.store().await?.clone();
        let mut engine = self.engine.lock().await;
        let report = engine.get_or_insert_with(|| Engine::new(store, &self.owner)).sweep().await?;
        self.count(&report);
        Ok(report)
    }

    async fn pass(&self) -> Result<Report> {
        let store = self.store().await?;
        let mut engine = self.engine.lock().await;
        engine.get_or_insert_with(|| Engine::new(store.clone(), &self.owner)).watch().await
    }

    /// G1: a feed that stands still is said once a minute, and counted all the time. True when there is
    /// nothing to watch.
    async fn tell_frozen(&self, said: &mut Option<Instant>) -> bool {
        // A sweep is under way: what was counted stands.
        let Some(engine) = patiently(&self.engine).await else { return false };
        let Some(engine) = engine.as_ref() else { return true };
        let frozen = engine.frozen();
        self.counters().frozen = frozen.len() as u64;
        if !frozen.is_empty() && said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            let symbols = frozen.iter().take(20).copied().collect::<Vec<_>>().join(" ");
            tracing::warn!(count = frozen.len(), symbols, "no quotes come: nothing closes on old prices");
        }
        engine.is_idle()
    }
}

/// From which line on the history is linked.
#[derive(Default)]
struct Linker {
    floor: i64,
    floored_at: Option<Instant>,
    looked_back_at: Option<Instant>,
    /// The floor is that of a look back.
    is_wide: bool,
}

impl Linker {
    /// Links what has come; true when that was something.
    async fn pass(&mut self, store: &Positions) -> Result<bool> {
        let is_past = |at: Option<Instant>, span: Duration| at.is_none_or(|at| at.elapsed() >= span);
        if is_past(self.looked_back_at, LOOK_BACK_EVERY) {
            self.floor = store.link_floor(LONGEST).await?;
            (self.is_wide, self.looked_back_at) = (true, Some(Instant::now()));
        } else if !self.is_wide && is_past(self.floored_at, SETTLED) {
            self.floor = store.link_floor(SETTLED).await?;
            self.floored_at = Some(Instant::now());
        }
        let (count, _) = store.link_history(self.floor).await?;
        if self.is_wide && count < LINKED_AT_ONCE {
            // The rest lies above the other floor.
            (self.is_wide, self.floored_at) = (false, None);
        }
        Ok(count > 0)
    }
}

/// What is behind a lock that a pass may hold for long.
async fn patiently<T>(lock: &AsyncMutex<T>) -> Option<MutexGuard<'_, T>> {
    tokio::time::timeout(PATIENCE, lock.lock()).await.ok()
}

fn by_start(candles: Vec<Candle>) -> BTreeMap<i64, Candle> {
    candles.into_iter().map(|candle| (candle.start_ms, candle)).collect()
}
