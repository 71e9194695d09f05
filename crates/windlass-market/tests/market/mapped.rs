//! §8.25: positions in the tables of another application, as Django makes them: decimals, words for
//! sides and states, and no column for a version. They stand in a schema of their own beside tables
//! whose names are ours.

mod guards;
mod race;
mod refusals;

use std::sync::Arc;

use sqlx::PgPool;
use windlass_market::desk::{self, Closing};
use windlass_market::engine::{Engine, check};
use windlass_market::explain::explain;
use windlass_market::positions::{
    Change, Class, Error, Instrument, Mapping, NewPosition, Options, Positions, RawQuote, Reach, Status,
};
use windlass_market::price;
use windlass_market::rules::{Distance, Quote, Reason, Rules, Side, Trail};
use windlass_testkit::{PostgresServer, shared_postgres};

use crate::naive;
use crate::positions::block_on;

/// What the application has made. Its other tables have the names of ours.
const THEIRS: &str = "
CREATE TABLE positions(id integer);
CREATE TABLE accounts(id integer, name text);
CREATE TABLE audit(what text);
CREATE TABLE trading_instrument(id bigserial PRIMARY KEY, code varchar(16) UNIQUE NOT NULL);
CREATE TABLE trading_position(
  id bigserial PRIMARY KEY,
  account_id bigint NOT NULL,
  instrument_id bigint NOT NULL REFERENCES trading_instrument(id),
  direction varchar(4) NOT NULL,
  volume numeric(12, 2) NOT NULL,
  open_price numeric(20, 8) NOT NULL,
  stop_loss numeric(20, 8),
  take_profit numeric(20, 8),
  trailing_points integer,
  status varchar(16) NOT NULL DEFAULT 'open',
  close_price numeric(20, 8),
  close_reason varchar(32),
  closed_at timestamptz,
  pnl numeric(20, 2),
  armed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE VIEW worker_open_positions AS
  SELECT p.id, p.account_id, i.code AS symbol, p.direction AS side, p.volume AS qty, p.open_price AS entry,
    p.stop_loss AS sl, p.take_profit AS tp, p.trailing_points AS trail_points, p.armed_at, p.updated_at AS version
  FROM trading_position p JOIN trading_instrument i ON i.id = p.instrument_id WHERE p.status = 'open';
INSERT INTO trading_instrument(code) VALUES ('EURUSD');
";
const CLOSE: &str = "UPDATE trading_position SET status = 'closed', close_price = $2, close_reason = $3,
  closed_at = now(), updated_at = clock_timestamp()
WHERE id = $1 AND status = 'open' AND updated_at = $4 RETURNING id -- one row or none";

pub(crate) fn mapping() -> Mapping {
    let value = serde_json::json!({
        "open_positions": "SELECT * FROM worker_open_positions;",
        "changed_since": "SELECT * FROM worker_open_positions WHERE version >= $1",
        "close": CLOSE,
        "map": {
            "side": { "long": ["BUY"], "short": ["SELL"] },
            "qty_digits": 2,
            "reason": { "SL": "stop_loss", "TRAIL": "trailing_stop", "TP": "take_profit", "MANUAL": "manual" },
        },
    });
    serde_json::from_value(value).unwrap()
}

/// The application and its database.
pub(crate) struct Broker {
    pub(crate) pool: PgPool,
    pub(crate) url: String,
    _server: Option<Arc<PostgresServer>>,
}

/// A row of the application.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Theirs {
    pub(crate) status: String,
    close_price: Option<String>,
    close_reason: Option<String>,
}

impl Broker {
    pub(crate) async fn new() -> Self {
        let server = shared_postgres();
        let url = server.database();
        Self::at(url, Some(server)).await
    }

    async fn at(url: String, server: Option<Arc<PostgresServer>>) -> Self {
        let pool = PgPool::connect(&url).await.unwrap();
        sqlx::raw_sql(THEIRS).execute(&pool).await.unwrap();
        Self { pool, url, _server: server }
    }

    async fn store(&self) -> Positions {
        let store = Positions::mapped(&self.url, &Options::default(), &mapping()).await.unwrap();
        store.put_instrument(&Instrument::new("EURUSD", 5)).await.unwrap();
        store
    }

    /// Opens a position of 0.10 as the application does it; prices in points.
    pub(crate) async fn open(&self, side: Side, entry: i64, sl: Option<i64>, tp: Option<i64>) -> i64 {
        let text = |points: Option<i64>| points.map(|points| price::format(points, 5));
        let word = if side == Side::Long { "BUY" } else { "SELL" };
        sqlx::query_scalar(
            "INSERT INTO trading_position(account_id, instrument_id, direction, volume, open_price, stop_loss, take_profit)
             VALUES (1, 1, $1, 0.10, $2::numeric, $3::numeric, $4::numeric) RETURNING id",
        )
        .bind(word)
        .bind(text(Some(entry)))
        .bind(text(sl))
        .bind(text(tp))
        .fetch_one(&self.pool)
        .await
        .unwrap()
    }

    /// A statement of the application about one of its positions.
    pub(crate) async fn run(&self, sql: &'static str, id: i64) {
        assert_eq!(sqlx::query(sql).bind(id).execute(&self.pool).await.unwrap().rows_affected(), 1, "{sql}");
    }

    pub(crate) async fn row(&self, id: i64) -> Theirs {
        let sql = "SELECT status, close_price::text, close_reason FROM trading_position WHERE id = $1";
        let (status, close_price, close_reason) = sqlx::query_as(sql).bind(id).fetch_one(&self.pool).await.unwrap();
        Theirs { status, close_price, close_reason }
    }
}

fn closed(price: &str, reason: &str) -> Theirs {
    Theirs { status: "closed".into(), close_price: Some(price.into()), close_reason: Some(reason.into()) }
}

/// Quotes of this moment, numbered from here on, stamped a millisecond apart.
pub(crate) async fn quotes(store: &Positions, from: i64, bids: &[i64]) -> i64 {
    // No two batches of one test share a stamp, and none lies ahead.
    tokio::time::sleep(std::time::Duration::from_millis(bids.len() as u64 + 2)).await;
    let first_ms = store.now_ms().await.unwrap() - bids.len() as i64;
    send(store, from, first_ms, bids).await;
    first_ms
}

async fn send(store: &Positions, from: i64, first_ms: i64, bids: &[i64]) {
    let raw = |(at, bid): (i64, &i64)| RawQuote {
        symbol: "EURUSD".to_owned(),
        bid: price::format(*bid, 5),
        ask: price::format(*bid + 2, 5),
        ts_ms: first_ms + at,
        seq: from + at,
        ..RawQuote::default()
    };
    let batch: Vec<RawQuote> = (0..).zip(bids).map(raw).collect();
    assert_eq!(store.take_quotes(&batch).await.unwrap().accepted, bids.len() as u64);
}

#[test]
fn a_spike_closes_their_row_and_one_before_it_was_armed_does_not_8_25_8_3() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        quotes(&store, 1, &[107_100, 80, 107_100]).await;
        let id = broker.open(Side::Long, 107_100, Some(107_000), Some(107_400)).await;
        let mut engine = Engine::new(store.clone(), "a");
        assert_eq!(engine.sweep().await.unwrap().closed, 0, "the spike came before it was opened");
        let short = broker.open(Side::Short, 107_100, Some(107_200), None).await;
        quotes(&store, 4, &[107_100, 106_999, 107_100]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.sl_closed, report.closings[0].position_id), (1, 1, id));
        assert_eq!(broker.row(id).await, closed("1.06999000", "stop_loss"));
        assert_eq!(broker.row(short).await.status, "open");
        assert_eq!(explain(&store, id).await.unwrap()[0].agrees, Some(true));
        // The stop of the other one is moved: what came before reaches it no more.
        quotes(&store, 7, &[107_120]).await;
        let moved = "UPDATE trading_position SET stop_loss = 1.07110, armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1";
        broker.run(moved, short).await;
        assert_eq!(engine.sweep().await.unwrap().closed, 0);
        quotes(&store, 8, &[107_108]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].fill), (1, 107_110));
        assert_eq!(broker.row(short).await, closed("1.07110000", "stop_loss"));
        let untold = store.untold(10).await.unwrap();
        assert_eq!(untold.iter().filter(|row| row.topic == "position.closed").count(), 2);
        let strangers: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM positions) + (SELECT count(*) FROM accounts) + (SELECT count(*) FROM audit)",
        )
        .fetch_one(&broker.pool)
        .await
        .unwrap();
        assert_eq!(strangers, 0, "tables with our names are theirs, and stay as they are");
        store.close_pool().await;
    });
}

/// A seeded walk of prices, and positions that open along it, as the oracle of the rules closes them.
#[test]
fn mapped_positions_close_as_the_oracle_says_8_25_8_1() {
    const STEP: usize = 8;
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        let mut engine = Engine::new(store.clone(), "a");
        let mut random = fastrand::Rng::with_seed(7);
        let (mut bid, mut walk) = (107_100_i64, Vec::<i64>::new());
        for _ in 0..40 {
            // A position opens between two batches: the first quote of a batch is the last of the one before.
            walk.extend(std::iter::once(bid).chain((1..STEP).map(|_| {
                bid += random.i64(-12..=12);
                bid
            })));
        }
        let quote = |(at, bid): (usize, &i64)| Quote { ts_ms: at as i64, seq: at as i64 + 1, bid: *bid, ask: bid + 2 };
        let all: Vec<Quote> = walk.iter().enumerate().map(quote).collect();
        let mut opened: Vec<(i64, Rules, usize)> = Vec::new();
        for (turn, batch) in walk.chunks(STEP).enumerate() {
            quotes(&store, (turn * STEP) as i64 + 1, batch).await;
            engine.sweep().await.unwrap();
            let last = *batch.last().unwrap();
            for _ in 0..3 {
                let side = if random.bool() { Side::Long } else { Side::Short };
                let away = |points: i64| Some(last + side.sign() * points);
                let (sl, tp) =
                    (away(-random.i64(5..60)), random.bool().then(|| last + side.sign() * random.i64(5..60)));
                let id = broker.open(side, last, sl, tp).await;
                let points = random.bool().then(|| random.i64(5..40));
                if let Some(points) = points {
                    let sql = "UPDATE trading_position SET trailing_points = $2 WHERE id = $1";
                    sqlx::query(sql).bind(id).bind(points as i32).execute(&broker.pool).await.unwrap();
                }
                let trail =
                    points.map(|points| Trail { distance: Distance::Points(points), activation: None, step: 1 });
                opened.push((id, Rules { sl, tp, trail, ..Rules::new(side, 10, last) }, (turn + 1) * STEP - 1));
            }
        }
        let mut closings = 0;
        for (id, rules, open) in &opened {
            let (expected, _) = naive::closings(rules, *open, &all, None);
            let found: Vec<(i64, i64, Reason, i64)> =
                store.closings(&[*id]).await.unwrap().iter().map(|c| (c.quote.seq, c.qty, c.reason, c.fill)).collect();
            let expected: Vec<(i64, i64, Reason, i64)> =
                expected.iter().map(|(at, _, qty, reason, fill, _)| (*at as i64 + 1, *qty, *reason, *fill)).collect();
            assert_eq!(found, expected, "{id}: {rules:?} opened on {open}");
            let theirs = broker.row(*id).await;
            match expected.first() {
                Some((_, _, _, fill)) => {
                    assert_eq!(theirs.close_price, Some(format!("{}000", price::format(*fill, 5))));
                }
                None => assert_eq!(theirs.status, "open"),
            }
            closings += expected.len();
        }
        assert!(closings > 60, "{closings} of {} closed", opened.len());
        store.close_pool().await;
    });
}

/// What another application does to its rows meanwhile: it is noticed, and nothing closes twice.
#[test]
fn what_they_do_meanwhile_is_followed_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        quotes(&store, 1, &[107_100]).await;
        let touched = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let moved = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let theirs = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        let before = store.get(touched).await.unwrap().unwrap();
        assert_eq!((before.rules.qty, before.rules.sl, before.version), (10, Some(107_000), 1));
        // Their profit job writes the row; its version is another one, its rules are the same.
        broker.run("UPDATE trading_position SET pnl = 1, updated_at = clock_timestamp() WHERE id = $1", touched).await;
        engine.sweep().await.unwrap();
        assert_eq!(store.get(touched).await.unwrap().unwrap(), before, "armed as it was");
        // All three are reached; one is touched, one moved, one closed after it was read.
        quotes(&store, 2, &[106_990]).await;
        broker.run("UPDATE trading_position SET pnl = 2, updated_at = clock_timestamp() WHERE id = $1", touched).await;
        broker.run("UPDATE trading_position SET stop_loss = 1.06, armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1", moved).await;
        broker.run("UPDATE trading_position SET status = 'closed', close_reason = 'desk', updated_at = clock_timestamp() WHERE id = $1", theirs).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, touched), "{report:?}");
        assert_eq!(broker.row(touched).await, closed("1.06990000", "stop_loss"));
        assert_eq!(
            (broker.row(moved).await.status.as_str(), broker.row(theirs).await.close_reason.as_deref()),
            ("open", Some("desk"))
        );
        let gone = store.get(theirs).await.unwrap().unwrap();
        assert_eq!((gone.status, store.closings(&[theirs]).await.unwrap().len()), (Status::Closed, 0));
        let kinds: Vec<String> = store.history(theirs, 0, 10).await.unwrap().into_iter().map(|row| row.kind).collect();
        assert!(kinds.contains(&"gone".to_owned()), "{kinds:?}");
        // They open it again: it is watched again.
        broker.run("UPDATE trading_position SET status = 'open', stop_loss = 1.06985, armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1", theirs).await;
        quotes(&store, 3, &[106_980]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, theirs));
        // By hand, through the same statement.
        let by_hand = desk::close(&store, moved, None, Reason::Manual, "test").await.unwrap();
        assert!(matches!(by_hand, Closing::Closed(_)), "{by_hand:?}");
        assert_eq!(broker.row(moved).await, closed("1.06980000", "manual"));
        assert!(matches!(
            desk::close(&store, moved, None, Reason::Manual, "test").await,
            Ok(Closing::AlreadyClosed(_))
        ));
        store.close_pool().await;
    });
}

/// A stop that is moved after the decision was read: the statement itself is the guard.
#[test]
fn their_version_is_compared_where_the_row_is_written_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        quotes(&store, 1, &[107_100]).await;
        let (a, b) = (
            broker.open(Side::Long, 107_100, Some(107_000), None).await,
            broker.open(Side::Long, 107_100, Some(107_000), None).await,
        );
        store.sync(Reach::Whole).await.unwrap();
        let positions = store.get_many(&[a, b]).await.unwrap();
        broker
            .run("UPDATE trading_position SET stop_loss = 1.05, updated_at = clock_timestamp() WHERE id = $1", a)
            .await;
        let trigger = Quote { ts_ms: store.now_ms().await.unwrap() + 5, seq: 2, bid: 106_000, ask: 106_002 };
        let closes: Vec<_> = positions.iter().map(|position| crate::positions::decide(position, trigger)).collect();
        let done = store.close(&closes, None, store.now_ms().await.unwrap(), "test", None).await.unwrap();
        let outcomes = serde_json::json!([done.outcomes[&a], done.outcomes[&b]]);
        assert_eq!((&outcomes[0]["outcome"], &outcomes[1]["outcome"]), (&"version_changed".into(), &"closed".into()));
        assert_eq!((broker.row(a).await.status.as_str(), broker.row(b).await.status.as_str()), ("open", "closed"));
        assert_eq!(store.get(a).await.unwrap().unwrap().rules.sl, Some(105_000), "read anew at once");
        store.close_pool().await;
    });
}

#[test]
fn rows_that_do_not_fit_are_named_and_others_are_watched_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        quotes(&store, 1, &[107_100]).await;
        let good = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let fine = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        // A price between two points, and a side that is none.
        broker
            .run("UPDATE trading_position SET stop_loss = 1.070005, updated_at = clock_timestamp() WHERE id = $1", fine)
            .await;
        let odd = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        broker.run("UPDATE trading_position SET direction = 'HOLD' WHERE id = $1", odd).await;
        engine.sweep().await.unwrap();
        let (count, named) = store.unmapped(10).await.unwrap();
        assert_eq!(count, 2);
        let of = |id: i64| named.iter().find(|(named, _)| *named == id.to_string()).unwrap().1.clone();
        assert!(of(fine).starts_with("sl: 1.07000500") && of(odd).contains("HOLD"), "{named:?}");
        quotes(&store, 2, &[106_000]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, good), "never on a rounded price");
        // Set right, they are watched.
        broker.run("UPDATE trading_position SET stop_loss = 1.07, armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1", fine).await;
        broker.run("UPDATE trading_position SET direction = 'BUY', armed_at = clock_timestamp(), updated_at = clock_timestamp() WHERE id = $1", odd).await;
        quotes(&store, 3, &[106_000]).await;
        assert_eq!(engine.sweep().await.unwrap().closed, 2);
        assert_eq!(store.unmapped(10).await.unwrap().0, 0);
        store.close_pool().await;
    });
}

#[test]
fn only_they_open_and_change_8_25() {
    block_on(async {
        let broker = Broker::new().await;
        let store = broker.store().await;
        let id = broker.open(Side::Long, 107_100, Some(107_000), None).await;
        store.sync(Reach::Whole).await.unwrap();
        let new = NewPosition {
            id: None,
            account_id: 1,
            symbol: "EURUSD".into(),
            rules: Rules::new(Side::Long, 1, 1),
            on: None,
        };
        for refused in [
            store.open(&new, "test").await.unwrap_err(),
            store.change(id, &Change { sl: Some(None), ..Change::default() }, None, "test").await.unwrap_err(),
        ] {
            assert!(matches!(refused, Error::Refused { code: "mapped", .. }) && refused.class() == Class::Refused);
        }
        // A check that a service asks for reads what it names.
        quotes(&store, 1, &[107_100, 106_999]).await;
        let late = broker.open(Side::Short, 107_100, Some(107_001), None).await;
        store.sync(Reach::These(&[late])).await.unwrap();
        assert_eq!(store.get(late).await.unwrap().unwrap().rules.side, Side::Short);
        let report = check(&store, store.get_many(&[id, late]).await.unwrap()).await.unwrap();
        assert_eq!((report.checked, report.closed, report.closings[0].position_id), (2, 1, id));
        store.close_pool().await;
    });
}
