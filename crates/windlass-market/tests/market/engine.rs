//! The sweep over real tables: quotes in, closings out.

use std::time::{Duration, Instant};

use windlass_market::engine::{Engine, check};
use windlass_market::explain::explain;
use windlass_market::kinds::mark;
use windlass_market::positions::{
    Change, Instrument, NewPosition, Options, Position, Positions, RawQuote, Seed, Status,
};
use windlass_market::rules::{Distance, Leg, Reason, Rules, Side, Trail};

use windlass_testkit::PostgresServer;

use crate::positions::{block_on, closed_now, on_both, on_postgres, prepare};

async fn quotes(store: &Positions, from: i64, bids: &[i64]) {
    let now_ms = store.now_ms().await.unwrap();
    let raw = |(seq, bid): (i64, &i64)| RawQuote {
        symbol: "EURUSD".to_owned(),
        bid: windlass_market::price::format(*bid, 5),
        ask: windlass_market::price::format(*bid + 2, 5),
        ts_ms: now_ms,
        seq,
        ..RawQuote::default()
    };
    let batch: Vec<RawQuote> = (from..).zip(bids).map(raw).collect();
    let taken = store.take_quotes(&batch).await.unwrap();
    assert_eq!((taken.accepted, taken.rejected.len()), (bids.len() as u64, 0));
}

async fn open(store: &Positions, rules: Rules) -> i64 {
    let on = store.last_quote("EURUSD").await.unwrap();
    let new = NewPosition { id: None, account_id: 1, symbol: "EURUSD".to_owned(), rules, on };
    store.open(&new, "test").await.unwrap()
}

fn long() -> Rules {
    Rules { sl: Some(90), tp: Some(110), ..Rules::new(Side::Long, 10, 100) }
}

async fn get(store: &Positions, id: i64) -> Position {
    store.get(id).await.unwrap().unwrap()
}

#[test]
fn a_spike_between_two_sweeps_closes_and_one_before_opening_does_not_8_3() {
    on_both(async |store: Positions| {
        quotes(&store, 1, &[100, 80, 100]).await;
        let id = open(&store, long()).await;
        let mut engine = Engine::new(store.clone(), "a");
        assert_eq!(engine.sweep().await.unwrap().closed, 0);
        quotes(&store, 4, &[101, 89, 101]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.quotes, report.triggered, report.closed, report.sl_closed), (3, 1, 1, 1));
        assert_eq!((report.closings[0].position_id, report.closings[0].fill), (id, 89));
        let explained = explain(&store, id).await.unwrap();
        assert_eq!((explained.len(), explained[0].agrees), (1, Some(true)), "8.29");
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.checked, report.quotes, report.closed), (0, 0, 0));
    });
}

#[test]
fn what_is_over_is_forgotten_in_slices_and_what_nobody_saw_is_not_8_20() {
    on_both(async |store: Positions| {
        let now_ms = store.now_ms().await.unwrap();
        let arrived_at = |seq: i64, received_at_ms: i64| RawQuote {
            symbol: "EURUSD".to_owned(),
            bid: "0.00100".to_owned(),
            ask: "0.00102".to_owned(),
            ts_ms: received_at_ms,
            seq,
            received_at_ms: Some(received_at_ms),
            ..RawQuote::default()
        };
        let old = now_ms - 3_600_000;
        store.take_quotes(&[1, 2, 3, 4].map(|seq| arrived_at(seq, old + seq))).await.unwrap();
        assert_eq!(store.trim_ticks(now_ms, 100).await.unwrap(), 0, "nobody has seen them");
        let mut engine = Engine::new(store.clone(), "a");
        // What is over is forgotten by the sweep that saw it.
        assert_eq!(engine.sweep().await.unwrap().quotes, 4);
        assert_eq!(store.last_ticks("EURUSD", 100).await.unwrap(), Vec::new());
        store.take_quotes(&[5, 6, 7].map(|seq| arrived_at(seq, now_ms - 1_000 + seq))).await.unwrap();
        engine.release().await.unwrap();
        let mut other = Engine::new(store.clone(), "b");
        assert_eq!(other.sweep().await.unwrap().quotes, 3);
        let left =
            async || store.last_ticks("EURUSD", 100).await.unwrap().iter().map(|t| t.quote.seq).collect::<Vec<_>>();
        assert_eq!(left().await, [5, 6, 7], "they are young");
        let later = now_ms + 900_000;
        assert_eq!(store.trim_ticks(later, 2).await.unwrap(), 2);
        assert_eq!(left().await, [7], "the oldest go first");
        assert_eq!(store.trim_ticks(later, 2).await.unwrap(), 1);
    });
}

#[test]
fn one_of_two_workers_sweeps_and_the_other_takes_over_where_it_left_8_9() {
    on_both(async |store: Positions| {
        quotes(&store, 1, &[100]).await;
        let trail = Trail { distance: Distance::Points(5), activation: None, step: 4 };
        let id = open(&store, Rules { tp: None, trail: Some(trail), ..long() }).await;
        let (mut first, mut second) = (Engine::new(store.clone(), "a"), Engine::new(store.clone(), "b"));
        quotes(&store, 2, &[104, 103, 107]).await;
        // The quote it was opened on is read too, and triggers nothing.
        assert_eq!(first.sweep().await.unwrap().quotes, 4);
        assert_eq!(second.sweep().await.unwrap().skipped, Some("held_by_another_worker"));
        let kept = get(&store, id).await;
        assert_eq!(
            (kept.stop, kept.version),
            (Some((99, Reason::Trail)), 1),
            "104 moved it to 99; 107 is less than a step"
        );
        // The first one dies without a word; what it knew is read from the tables.
        first.release().await.unwrap();
        drop(first);
        quotes(&store, 5, &[100, 99]).await;
        let report = second.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].fill), (1, 99));
        assert_eq!(explain(&store, id).await.unwrap()[0].agrees, Some(true));
    });
}

#[test]
fn legs_at_several_quotes_of_one_sweep_close_in_turn_8_8() {
    on_both(async |store: Positions| {
        quotes(&store, 1, &[100]).await;
        let leg = |leg, price, qty| Leg { leg, price, qty };
        let id = open(&store, Rules { legs: [leg(1, 103, 2), leg(2, 106, 3)].into(), ..long() }).await;
        let mut engine = Engine::new(store.clone(), "a");
        quotes(&store, 2, &[103, 107, 111]).await;
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.lost_race), (3, 0));
        let told: Vec<_> = store.closings(&[id]).await.unwrap().iter().map(|c| (c.leg, c.qty, c.fill)).collect();
        assert_eq!(told, [(0, 5, 111), (1, 2, 103), (2, 3, 107)]);
        assert!(explain(&store, id).await.unwrap().iter().all(|e| e.agrees == Some(true)));
        assert_eq!(get(&store, id).await.status, Status::Closed);
    });
}

#[test]
fn a_moved_stop_is_seen_by_the_next_sweep_and_old_quotes_do_not_reach_it_8_3_8_11() {
    on_both(async |store: Positions| {
        quotes(&store, 1, &[100]).await;
        let id = open(&store, long()).await;
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[95, 100]).await;
        let on = store.last_quote("EURUSD").await.unwrap();
        let change = Change { sl: Some(Some(97)), ..Change::default() };
        store.change(id, &change, on, "user").await.unwrap().unwrap();
        assert_eq!(engine.sweep().await.unwrap().closed, 0, "95 was before the stop was moved to 97");
        quotes(&store, 4, &[97]).await;
        assert_eq!(engine.sweep().await.unwrap().closings[0].fill, 97);
    });
}

#[test]
fn a_check_needs_no_lease_and_closes_by_the_same_guards() {
    on_both(async |store: Positions| {
        quotes(&store, 1, &[100]).await;
        let (a, b) = (open(&store, long()).await, open(&store, long()).await);
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        quotes(&store, 2, &[85]).await;
        let report = check(&store, vec![get(&store, a).await]).await.unwrap();
        assert_eq!((report.checked, report.closed, report.closings[0].position_id), (1, 1, a));
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, b), "the sweep closes the other one");
        assert_eq!(store.closings(&[a, b]).await.unwrap().len(), 2);
    });
}

#[test]
fn what_triggers_while_the_market_is_closed_closes_on_the_first_quote_of_the_session_8_18() {
    on_both(async |store: Positions| {
        let at = |calendar: &str| Instrument { calendar: calendar.to_owned(), ..Instrument::new("EURUSD", 5) };
        store.put_instrument(&at(&closed_now(&store).await)).await.unwrap();
        quotes(&store, 1, &[100]).await;
        let id = open(&store, long()).await;
        quotes(&store, 2, &[80]).await;
        let report = Engine::new(store.clone(), "a").sweep().await.unwrap();
        assert_eq!((report.closed, report.waiting), (0, 1));
        assert_eq!(get(&store, id).await.status, Status::Closing);
        store.put_instrument(&at("24x7")).await.unwrap();
        quotes(&store, 3, &[75, 70]).await;
        let report = Engine::new(store.clone(), "a").sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].fill, report.closings[0].reason), (1, 75, Reason::Sl));
    });
}

/// A symbol whose closing fails does not undo that of another one, nor what is told of it.
#[test]
fn a_closing_that_fails_leaves_those_of_other_symbols_whole_8_9() {
    block_on(async {
        let home = on_postgres().await;
        let store = &home.store;
        prepare(store).await;
        store.put_instrument(&Instrument::new("GBPUSD", 5)).await.unwrap();
        let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
        // The one fails at once, the other takes its time.
        let trigger = "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.position_id = (SELECT min(id) FROM positions) THEN RAISE EXCEPTION 'no'; END IF;
             PERFORM pg_sleep(1); RETURN NEW; END $$;
           CREATE TRIGGER odd BEFORE INSERT ON closings FOR EACH ROW EXECUTE FUNCTION odd()";
        sqlx::raw_sql(trigger).execute(&pool).await.unwrap();
        let both = async |seq: i64, bid: &str| {
            let (ts_ms, bid) = (store.now_ms().await.unwrap(), bid.to_owned());
            let raw = |symbol: &str| RawQuote {
                symbol: symbol.to_owned(),
                bid: bid.clone(),
                ask: bid.clone(),
                ts_ms,
                seq,
                ..RawQuote::default()
            };
            assert_eq!(store.take_quotes(&[raw("EURUSD"), raw("GBPUSD")]).await.unwrap().accepted, 2);
        };
        both(1, "0.00100").await;
        let bad = open(store, long()).await;
        let on = store.last_quote("GBPUSD").await.unwrap();
        let new = NewPosition { id: None, account_id: 1, symbol: "GBPUSD".to_owned(), rules: long(), on };
        let good = store.open(&new, "test").await.unwrap();
        let mut engine = Engine::new(store.clone(), "a");
        both(2, "0.00080").await;
        engine.sweep().await.unwrap_err();
        assert_eq!((get(store, good).await.status, get(store, bad).await.status), (Status::Closed, Status::Open));
        sqlx::raw_sql("DROP TRIGGER odd ON closings").execute(&pool).await.unwrap();
        let report = engine.sweep().await.unwrap();
        let mut told: Vec<i64> = report.closings.iter().map(|told| told.position_id).collect();
        told.sort_unstable();
        assert_eq!((report.closed, told), (2, vec![bad, good]), "what was done before the error is told with the rest");
        store.close_pool().await;
    });
}

/// Reading everything may take longer than a lease lives: nobody takes the shard over meanwhile.
#[test]
fn a_slow_load_keeps_its_lease_8_9() {
    block_on(async {
        let home = on_postgres().await;
        prepare(&home.store).await;
        quotes(&home.store, 1, &[100]).await;
        let id = open(&home.store, long()).await;
        quotes(&home.store, 2, &[80]).await;
        let slow = Options { statement_timeout: Duration::from_secs(60), ..Options::default() };
        let mut engine = Engine::new(Positions::postgres(&home.url, &slow).await.unwrap(), "a");
        let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
        let mut held = pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE tp_legs IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
        let begun = Instant::now();
        let loading = tokio::spawn(async move { engine.sweep().await });
        let lease = async || home.store.lease(0, "b", Duration::from_secs(8)).await.unwrap();
        while begun.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(lease().await, None, "after {:?}", begun.elapsed());
        }
        held.rollback().await.unwrap();
        let report = loading.await.unwrap().unwrap();
        assert_eq!((report.closed, report.closings[0].position_id), (1, id));
        home.store.close_pool().await;
    });
}

#[test]
fn quotes_that_cannot_be_are_told_by_reason_and_change_nothing_8_16_f43() {
    on_both(async |store: Positions| {
        let now_ms = store.now_ms().await.unwrap();
        let raw = |symbol: &str, bid: &str, ask: &str, ts_ms, seq| RawQuote {
            symbol: symbol.to_owned(),
            bid: bid.to_owned(),
            ask: ask.to_owned(),
            ts_ms,
            seq,
            ..RawQuote::default()
        };
        let batch = [
            raw("NOPE", "1", "1", now_ms, 1),
            raw("EURUSD", "NaN", "1", now_ms, 2),
            raw("EURUSD", "1.000001", "2", now_ms, 3),
            raw("EURUSD", "0", "1", now_ms, 4),
            raw("EURUSD", "-1", "1", now_ms, 5),
            raw("EURUSD", "1.1", "1.0", now_ms, 6),
            raw("EURUSD", "1", "99999999999999999", now_ms, 7),
            raw("EURUSD", "1", "1", now_ms + 60_000, 8),
            raw("EURUSD", "1.1", "1.2", now_ms, 9),
            raw("EURUSD", "1.1", "1.2", now_ms, 9),
        ];
        let taken = store.take_quotes(&batch).await.unwrap();
        let told: Vec<(&str, u64)> = taken.rejected.iter().map(|(why, count)| (*why, *count)).collect();
        let expected = [
            ("crossed", 1),
            ("duplicate", 1),
            ("future", 1),
            ("not_a_number", 1),
            ("not_positive", 2),
            ("surplus_digits", 1),
            ("too_large", 1),
            ("unknown_symbol", 1),
        ];
        assert_eq!((taken.accepted, told.as_slice()), (1, expected.as_slice()));
        assert_eq!(store.take_quotes(&batch[8..9]).await.unwrap().rejected["duplicate"], 1);
    });
}

#[test]
fn stale_quotes_decide_nothing_8_15_f43() {
    on_both(async |store: Positions| {
        let id = open(&store, Rules { sl: Some(90), ..Rules::new(Side::Long, 10, 100) }).await;
        let ts_ms = store.now_ms().await.unwrap() - 11_000;
        let old = RawQuote {
            symbol: "EURUSD".to_owned(),
            bid: "0.00080".to_owned(),
            ask: "0.00082".to_owned(),
            ts_ms,
            seq: 1,
            ..RawQuote::default()
        };
        store.take_quotes(&[old]).await.unwrap();
        let report = Engine::new(store.clone(), "a").sweep().await.unwrap();
        assert_eq!((report.closed, report.held.get("stale")), (0, Some(&1)));
        assert_eq!(get(&store, id).await.status, Status::Open);
    });
}

#[test]
fn marks_are_written_beside_the_positions_which_stay_untouched_8_23() {
    crate::positions::block_on(async {
        let home = on_postgres().await;
        let store = &home.store;
        prepare(store).await;
        quotes(store, 1, &[100]).await;
        for _ in 0..20 {
            open(store, long()).await;
        }
        quotes(store, 2, &[105]).await;
        let pool = sqlx::PgPool::connect(&home.url).await.unwrap();
        // A row that is rewritten carries the number of the transaction that did it.
        let written_by = async || -> i64 {
            let sql = "SELECT max(xmin::text::bigint) FROM positions";
            sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap()
        };
        let before = written_by().await;
        for _ in 0..3 {
            assert_eq!(mark(store).await.unwrap()["positions"], 20);
        }
        assert_eq!(written_by().await, before);
        let sums = store.account_sums().await.unwrap();
        assert_eq!((sums[0].positions, sums[0].pnl_points.as_str(), sums[0].stale), (20, "1000", 0));
        store.close_pool().await;
    });
}

/// §8.11: a stop that is moved while the quote comes that reaches it: whichever was written first decides, and
/// what a closing was decided on is what stood then.
#[test]
fn a_stop_moved_at_the_moment_of_its_trigger_is_explained_by_versions_8_11() {
    crate::positions::block_on(async {
        let home = on_postgres().await;
        let store = &home.store;
        prepare(store).await;
        quotes(store, 1, &[100]).await;
        let mut engine = Engine::new(store.clone(), "a");
        engine.sweep().await.unwrap();
        let (mut closed_first, mut moved_first, mut seq) = (0, 0, 1);
        let trials = std::env::var("WINDLASS_SOAK_TRIALS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
        for trial in 0..trials {
            let id = open(store, Rules { tp: None, ..long() }).await;
            engine.sweep().await.unwrap();
            seq += 2;
            quotes(store, seq, &[89]).await;
            let change = Change { sl: Some(Some(50)), ..Change::default() };
            let mover = {
                let store = store.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_micros(trial % 20 * 300)).await;
                    store.change(id, &change, None, "user").await
                })
            };
            engine.sweep().await.unwrap();
            let moved = mover.await.unwrap().is_ok();
            engine.sweep().await.unwrap();
            let position = get(store, id).await;
            let kinds: Vec<String> = store.history(id, 0, 100).await.unwrap().into_iter().map(|row| row.kind).collect();
            if position.status == Status::Closed {
                closed_first += 1;
                assert!(!moved, "the one that came second was refused: {kinds:?}");
                let explained = explain(store, id).await.unwrap();
                assert_eq!((explained[0].agrees, explained[0].stop), (Some(true), Some((90, Reason::Sl))));
            } else {
                moved_first += 1;
                assert!(moved, "{kinds:?}");
                assert_eq!((position.rules.sl, position.version), (Some(50), 2));
                store.change(id, &Change { sl: Some(Some(1)), ..Change::default() }, None, "user").await.unwrap();
            }
            quotes(store, seq + 1, &[100]).await;
            engine.sweep().await.unwrap();
        }
        assert_eq!(closed_first + moved_first, trials);
        assert!(closed_first > 0, "some closed");
    });
}

/// §8.24: once positions are loaded, sweeps, closings and changes read them by index alone, and quotes too: the
/// server writes down the plan of every statement that it runs.
#[test]
fn a_sweep_scans_no_table_of_positions_or_quotes_8_24() {
    crate::positions::block_on(async {
        let explained = [("session_preload_libraries", "auto_explain"), ("auto_explain.log_min_duration", "0")];
        let server = PostgresServer::start(&[&explained[..], &[("fsync", "off")]].concat());
        let url = server.database();
        let store = &Positions::postgres(&url, &Options::default()).await.unwrap();
        prepare(store).await;
        let rules = Rules { sl: Some(10), ..Rules::new(Side::Long, 10, 100) };
        let seeds: Vec<Seed<'_>> =
            (1..=20_000).map(|id| Seed { id: 1_000 + id, symbol: "EURUSD", rules: rules.clone() }).collect();
        store.seed(&seeds).await.unwrap();
        quotes(store, 1, &[100; 20_000]).await;
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        sqlx::query("ANALYZE ticks").execute(&pool).await.unwrap();
        pool.close().await;
        let mut engine = Engine::new(store.clone(), "a");
        assert_eq!(engine.sweep().await.unwrap().checked, 20_000);
        let loaded = server.log();
        assert!(loaded.contains("Seq Scan on positions"), "the load reads them all, and is seen to");
        for seq in 20_001..20_031 {
            let id = open(store, long()).await;
            quotes(store, seq, &[85]).await;
            assert_eq!(engine.sweep().await.unwrap().closings[0].position_id, id);
        }
        let change = Change { tp: Some(Some(50_000)), ..Change::default() };
        store.change(1_001, &change, None, "user").await.unwrap().unwrap();
        engine.sweep().await.unwrap();
        assert_eq!(store.trim_ticks(store.now_ms().await.unwrap(), 1_000).await.unwrap(), 0, "they are young");
        let log = server.log();
        let plans = log[loaded.len()..].split("LOG:  duration:").skip(1);
        let scans = |plan: &&str| plan.contains("Seq Scan on positions") || plan.contains("Seq Scan on ticks");
        let (scans, others): (Vec<&str>, Vec<&str>) = plans.partition(scans);
        assert!(scans.is_empty(), "{scans:?}");
        let by_index = others.iter().filter(|plan| plan.contains("positions") && plan.contains("Index")).count();
        assert!(by_index >= 60, "the plans are there: {by_index} of {}", others.len());
        store.close_pool().await;
    });
}
