//! Positions on a real PostgreSQL and on SQLite: the same promises on both.

mod chain;
mod closing;
mod faults;
mod race;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use windlass_market::positions::{Account, Close, Fence, Instrument, NewPosition, Options, Position, Positions};
use windlass_market::rules::{Fill, Gate, Quote, Rules, Side};
use windlass_testkit::{PostgresServer, shared_postgres};

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A store with what keeps it alive.
pub(crate) struct Home {
    pub(crate) store: Positions,
    /// Of PostgreSQL.
    pub(crate) url: String,
    _server: Option<Arc<PostgresServer>>,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) async fn on_postgres() -> Home {
    let server = shared_postgres();
    let url = server.database();
    let store = Positions::postgres(&url, &Options::default()).await.unwrap();
    Home { store, url, _server: Some(server), _dir: None }
}

pub(crate) async fn on_sqlite() -> Home {
    let dir = tempfile::tempdir().unwrap();
    let store = Positions::sqlite(&dir.path().join("market.db"), &Options::default()).await.unwrap();
    Home { store, url: String::new(), _server: None, _dir: Some(dir) }
}

/// Runs a check on both.
pub(crate) fn on_both<F: Future<Output = ()>>(check: impl Fn(Positions) -> F) {
    block_on(async {
        for home in [on_postgres().await, on_sqlite().await] {
            prepare(&home.store).await;
            check(home.store.clone()).await;
            home.store.close_pool().await;
        }
    });
}

/// An instrument and an account.
pub(crate) async fn prepare(store: &Positions) {
    store.put_instrument(&Instrument::new("EURUSD", 5)).await.unwrap();
    let account = Account { id: 1, currency: "USD".to_owned(), balance: 1_000_000, calm: false };
    store.put_account(&account).await.unwrap();
}

/// A calendar in which the market is closed now: every moment of the week is outside of its one minute.
pub(crate) async fn closed_now(store: &Positions) -> String {
    let now = store.now_ms().await.unwrap() / 1000 % (7 * 86_400);
    let day = (4 + (now / 86_400 + 2)) % 7;
    let name = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"][usize::try_from(day).unwrap()];
    format!("UTC;{name} 00:00-{name} 00:01")
}

pub(crate) fn quote(seq: i64, bid: i64) -> Quote {
    Quote { ts_ms: 1_000 + seq, seq, bid, ask: bid + 2 }
}

/// A long of 10 with a stop at 90 and a target at 110.
pub(crate) fn long() -> Rules {
    Rules { sl: Some(90), tp: Some(110), ..Rules::new(Side::Long, 10, 100) }
}

pub(crate) async fn open(store: &Positions, rules: Rules) -> Position {
    let new = NewPosition { id: None, account_id: 1, symbol: "EURUSD".to_owned(), rules, on: Some(quote(0, 100)) };
    let id = store.open(&new, "test").await.unwrap();
    store.get(id).await.unwrap().unwrap()
}

/// What a quote makes of a position.
pub(crate) fn decide(position: &Position, quote: Quote) -> Close {
    let mut track = position.track();
    let fills: Vec<Fill> = track.on_quote(&quote, quote.ts_ms, Gate::OPEN);
    assert!(!fills.is_empty(), "the quote triggers");
    Close::new(position.id, position.version, quote, fills, &position.rules, "{}".to_owned())
}

pub(crate) async fn fence(store: &Positions, owner: &str) -> Fence {
    Fence::from(&store.lease(0, owner, Duration::from_secs(60)).await.unwrap().unwrap())
}
