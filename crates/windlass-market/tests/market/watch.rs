//! The watcher: every quote decided on as it comes, beside jobs, other processes and faults.

use std::time::{Duration, Instant};

use windlass_market::positions::{Change, Instrument, NewPosition, RawQuote, Status};
use windlass_market::prices::PriceOptions;
use windlass_market::rules::{Rules, Side};
use windlass_market::{FeedOptions, Market, Nearest, Where};
use windlass_redis::{Link, Options, cmd};
use windlass_testkit::{PostgresServer, RedisServer};

use crate::positions::{block_on, on_postgres, prepare};
use crate::until;

fn market(at: Where, owner: &str) -> Market {
    Market::new(at, owner, None, PriceOptions::default())
}

async fn quote(market: &Market, seq: i64, bid: &str) {
    let ts_ms = now_ms();
    let (bid, ask) = (bid.to_owned(), bid.to_owned());
    let raw = RawQuote { symbol: "EURUSD".to_owned(), bid, ask, ts_ms, seq, ..RawQuote::default() };
    let answer = market.take_quotes(vec![raw]).await.unwrap();
    assert_eq!((answer.accepted, answer.rejected.len()), (1, 0));
}

async fn open(market: &Market, sl: i64) -> i64 {
    let store = market.store().await.unwrap();
    let rules = Rules { sl: Some(sl), ..Rules::new(Side::Long, 10, 107_160) };
    let on = store.last_quote("EURUSD").await.unwrap();
    store.open(&NewPosition { id: None, account_id: 1, symbol: "EURUSD".to_owned(), rules, on }, "test").await.unwrap()
}

async fn closed(market: &Market, id: i64) {
    let begun = Instant::now();
    while market.store().await.unwrap().get(id).await.unwrap().unwrap().status != Status::Closed {
        assert!(begun.elapsed() < Duration::from_secs(15), "position {id} is not closed: {:?}", market.counters());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn quotes_close_positions_as_they_come() {
    block_on(async {
        let home = on_postgres().await;
        let dir = tempfile::tempdir().unwrap();
        for at in [Where::Postgres(home.url.clone()), Where::Sqlite(dir.path().join("market.db"))] {
            let watching = market(at.clone(), "a");
            prepare(watching.store().await.unwrap()).await;
            // Another process, as an API without a worker is one.
            let bringing = market(at, "b");
            let watcher = watching.watch();
            quote(&bringing, 1, "1.07160").await;
            let (a, b) = (open(&bringing, 107_100).await, open(&bringing, 107_000).await);
            quote(&bringing, 2, "1.07090").await;
            closed(&watching, a).await;
            // A stop that is moved counts at once, and for what comes after it alone.
            let store = watching.store().await.unwrap();
            let change = Change { sl: Some(Some(107_080)), ..Change::default() };
            store.change(b, &change, store.last_quote("EURUSD").await.unwrap(), "user").await.unwrap();
            quote(&watching, 3, "1.07085").await;
            quote(&watching, 4, "1.07080").await;
            closed(&watching, b).await;
            assert_eq!(store.closings(&[b]).await.unwrap()[0].quote.seq, 4);
            // A sweep beside it finds nothing left to do.
            assert_eq!(watching.sweep().await.unwrap().closed, 0);
            assert_eq!(bringing.sweep().await.unwrap().skipped, Some("held_by_another_worker"));
            watcher.stop().await;
            assert_eq!(bringing.sweep().await.unwrap().skipped, None, "the shard was given back");
            assert_eq!(store.cursors().await.unwrap()["EURUSD"].seq, 4);
            bringing.release().await.unwrap();
        }
    });
}

/// F39, §8.14: PostgreSQL goes away and comes back: nothing is lost, nothing closes twice, and the
/// watching goes on by itself.
#[test]
fn watching_goes_on_when_the_tables_are_back_8_14_f39() {
    block_on(async {
        let server = PostgresServer::start(&[]);
        let at = Where::Postgres(server.database());
        let (watching, bringing) = (market(at.clone(), "a"), market(at, "b"));
        prepare(watching.store().await.unwrap()).await;
        let watcher = watching.watch();
        quote(&bringing, 1, "1.07160").await;
        let (a, b) = (open(&bringing, 107_100).await, open(&bringing, 107_000).await);
        quote(&bringing, 2, "1.07090").await;
        closed(&watching, a).await;
        server.stop_immediate();
        let lost = RawQuote { symbol: "EURUSD".to_owned(), ..RawQuote::default() };
        assert!(bringing.take_quotes(vec![lost]).await.is_err(), "what is not kept is refused, not dropped in silence");
        server.restart();
        until("the tables are back", async || bringing.store().await.unwrap().now_ms().await.is_ok()).await;
        quote(&bringing, 3, "1.06990").await;
        let back = Instant::now();
        closed(&watching, b).await;
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
        assert_eq!(watching.store().await.unwrap().closings(&[a, b]).await.unwrap().len(), 2);
        watcher.stop().await;
    });
}

/// §8.13: quotes on a stream are read from where the reading ended, judged by when they reached Redis: an
/// excursion while nobody read closes afterwards, and what was trimmed is told as a gap.
#[test]
fn a_stream_is_read_from_where_it_was_left_8_13() {
    block_on(async {
        let (home, redis) = (on_postgres().await, RedisServer::start());
        prepare(&home.store).await;
        let link = Link::new(Options::from_url(&redis.url()).unwrap()).unwrap();
        let feed = FeedOptions { stream: Some("quotes".to_owned()), channel: Some("said".to_owned()) };
        let at = Where::Postgres(home.url.clone());
        let fed =
            |owner: &str| Market::fed(at.clone(), owner, Some(link.clone()), PriceOptions::default(), feed.clone());
        let add = async |bid: &str, seq: i64| {
            let mut call = cmd("XADD");
            call.arg("quotes").arg("*").arg("symbol").arg("EURUSD").arg("bid").arg(bid).arg("ask").arg(bid);
            call.arg("ts_ms").arg(now_ms()).arg("seq").arg(seq);
            link.call(&call).await.unwrap();
        };
        let market = fed("a");
        let watcher = market.watch();
        add("1.07160", 1).await;
        until("the first quote is read", async || home.store.last_quote("EURUSD").await.unwrap().is_some()).await;
        let (a, b) = (open(&market, 107_100).await, open(&market, 107_000).await);
        watcher.stop().await;
        // A spike that nobody saw come.
        add("1.07090", 2).await;
        add("1.07160", 3).await;
        let market = fed("b");
        let watcher = market.watch();
        closed(&market, a).await;
        assert_eq!(home.store.closings(&[a]).await.unwrap()[0].fill, 107_090);
        // Over the channel too; a quote that comes both ways counts once.
        let said = format!(r#"{{"symbol":"EURUSD","bid":1.06990,"ask":"1.07","ts_ms":{},"seq":4}}"#, now_ms());
        until("it closes", async || {
            link.call(cmd("PUBLISH").arg("said").arg(&said)).await.unwrap();
            home.store.get(b).await.unwrap().unwrap().status == Status::Closed
        })
        .await;
        watcher.stop().await;
        add("1.07160", 5).await;
        add("1.07161", 6).await;
        link.call(cmd("XTRIM").arg("quotes").arg("MAXLEN").arg(1)).await.unwrap();
        let market = fed("c");
        let watcher = market.watch();
        until("reading goes on", async || home.store.last_quote("EURUSD").await.unwrap().unwrap().seq == 6).await;
        let gaps = async || {
            let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
            let sql = "SELECT count(*) FROM audit WHERE kind = 'gap'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap()
        };
        assert_eq!(gaps().await, 1);
        watcher.stop().await;
    });
}

/// §8.15: a feed that stands still is counted, and no more once it goes on.
#[test]
fn a_feed_that_stands_still_is_noticed_8_15() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let market = market(Where::Sqlite(dir.path().join("market.db")), "a");
        let store = market.store().await.unwrap();
        prepare(store).await;
        let instrument = Instrument { max_quote_age_ms: 300, ..Instrument::new("EURUSD", 5) };
        store.put_instrument(&instrument).await.unwrap();
        let watcher = market.watch();
        quote(&market, 1, "1.07160").await;
        let id = open(&market, 107_100).await;
        until("the silence is noticed", async || market.counters().frozen == 1).await;
        assert_eq!(store.get(id).await.unwrap().unwrap().status, Status::Open);
        let mut seq = 1;
        until("the feed goes on", async || {
            seq += 1;
            quote(&market, seq, "1.07160").await;
            market.counters().frozen == 0
        })
        .await;
        watcher.stop().await;
    });
}

/// A pass that its caller gave up in the middle counts as not done: what it had not written is decided
/// again.
#[test]
fn a_sweep_that_is_given_up_loses_nothing() {
    block_on(async {
        let home = on_postgres().await;
        prepare(&home.store).await;
        let market = market(Where::Postgres(home.url.clone()), "a");
        quote(&market, 1, "1.07160").await;
        market.sweep().await.unwrap();
        let mut seq = 1;
        for n in 0..40 {
            let id = open(&market, 107_100).await;
            seq += 2;
            quote(&market, seq, "1.07090").await;
            // Given up sooner or later, in the middle of anything.
            let _ = tokio::time::timeout(Duration::from_micros(n * 300), market.sweep()).await;
            market.sweep().await.unwrap();
            let closings = home.store.closings(&[id]).await.unwrap();
            assert_eq!(closings.len(), 1, "round {n}");
            quote(&market, seq + 1, "1.07160").await;
            market.sweep().await.unwrap();
        }
    });
}

/// A reading of everything that takes long holds nobody up who asks this process.
#[test]
fn who_asks_does_not_wait_for_a_long_sweep() {
    block_on(async {
        let home = on_postgres().await;
        prepare(&home.store).await;
        let market = market(Where::Postgres(home.url.clone()), "a");
        quote(&market, 1, "1.07160").await;
        open(&market, 107_100).await;
        let near = async || market.nearest("EURUSD", 107_160, 107_160, 5).await;
        assert_eq!(near().await, Nearest::Unwatched);
        let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
        let mut held = pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE tp_legs IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
        let sweeping = tokio::spawn({
            let market = market.clone();
            async move { market.sweep().await }
        });
        until("the sweep is under way", async || near().await == Nearest::Busy).await;
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(near().await, Nearest::Busy);
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        held.rollback().await.unwrap();
        sweeping.await.unwrap().unwrap();
        assert!(matches!(near().await, Nearest::Found(near) if near.len() == 1));
    });
}

/// Whoever watches next begins at once: all leases are given back.
#[test]
fn a_watcher_that_ends_gives_every_lease_back() {
    block_on(async {
        let (home, redis) = (on_postgres().await, RedisServer::start());
        prepare(&home.store).await;
        let link = Link::new(Options::from_url(&redis.url()).unwrap()).unwrap();
        let feed = FeedOptions { stream: Some("quotes".to_owned()), channel: None };
        let at = Where::Postgres(home.url.clone());
        let market = Market::fed(at, "a", Some(link), PriceOptions::default(), feed);
        let watcher = market.watch();
        let lease = async |shard: i64| home.store.lease(shard, "b", Duration::from_secs(8)).await.unwrap();
        let owners = async || {
            let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
            let sql = "SELECT count(*) FROM shard_lease WHERE owner = 'a'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap()
        };
        until("positions, candles, feed and history are held", async || owners().await == 4).await;
        watcher.stop().await;
        for shard in 0..4 {
            assert!(lease(shard).await.is_some(), "shard {shard}");
        }
    });
}

/// Whether something is traded is asked without making tables.
#[test]
fn looking_whether_something_is_traded_makes_nothing() {
    block_on(async {
        let server = windlass_testkit::shared_postgres();
        let url = server.database();
        let fresh = market(Where::Postgres(url.clone()), "a");
        assert!(!fresh.is_in_use().await);
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(tables, 0);
        prepare(market(Where::Postgres(url), "b").store().await.unwrap()).await;
        assert!(fresh.is_in_use().await);
    });
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}
