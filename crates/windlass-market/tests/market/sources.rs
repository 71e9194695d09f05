//! §8.31: two sources of one symbol, over real tables: one is believed, the other one stands by.

use windlass_market::engine::Engine;
use windlass_market::positions::{Instrument, NewPosition, Positions, RawQuote, Status};
use windlass_market::price;
use windlass_market::rules::{Rules, Side};

use crate::positions::{on_both, prepare};

/// Two sources; a jump of more than 500 points needs a second opinion.
async fn two_sources(store: &Positions) {
    prepare(store).await;
    let sources = ["lp1", "lp2"].map(str::to_owned).to_vec();
    let instrument =
        Instrument { sources, hold_down_ms: 1_500, max_jump_points: Some(500), ..Instrument::new("EURUSD", 5) };
    store.put_instrument(&instrument).await.unwrap();
}

/// A quote of a source, so many ms ago; its number counts for that source alone. What became of it.
async fn quote(store: &Positions, source: &str, seq: i64, bid: i64, ago_ms: i64) -> String {
    let raw = RawQuote {
        symbol: "EURUSD".to_owned(),
        bid: price::format(bid, 5),
        ask: price::format(bid + 2, 5),
        ts_ms: store.now_ms().await.unwrap() - ago_ms,
        seq,
        source: Some(source.to_owned()),
        ..RawQuote::default()
    };
    let taken = store.take_quotes(&[raw]).await.unwrap();
    taken.rejects.first().map_or("taken", |reject| reject.code).to_owned()
}

async fn open(store: &Positions, sl: i64) -> i64 {
    let on = store.last_quote("EURUSD").await.unwrap();
    let rules = Rules { sl: Some(sl), ..Rules::new(Side::Long, 10, 107_100) };
    let new = NewPosition { id: None, account_id: 1, symbol: "EURUSD".to_owned(), rules, on };
    store.open(&new, "test").await.unwrap()
}

/// The best source is wrong by a tenth: nothing closes on it, and the other one decides within the
/// hold-down.
#[test]
fn a_source_that_is_wrong_closes_nothing_and_is_left_8_31() {
    on_both(async |store: Positions| {
        two_sources(&store).await;
        assert_eq!(quote(&store, "lp1", 10, 107_100, 0).await, "taken");
        assert_eq!(quote(&store, "lp2", 900, 107_101, 0).await, "standby");
        let id = open(&store, 107_000).await;
        let mut engine = Engine::new(store.clone(), "a");
        assert_eq!(quote(&store, "lp2", 901, 107_060, 0).await, "standby");
        let begun = std::time::Instant::now();
        // 10 % below, over and over, as the other source goes on.
        let (mut seq, mut told) = (10, Vec::new());
        while told.last().is_none_or(|word| word != "taken") {
            assert!(begun.elapsed().as_secs() < 15, "{told:?}");
            seq += 1;
            assert_eq!(quote(&store, "lp1", seq, 96_400, 0).await, "contradicted");
            told.push(quote(&store, "lp2", 900 + seq, 107_050, 0).await);
            assert_eq!(engine.sweep().await.unwrap().closed, 0, "not on the bad source");
        }
        assert!(begun.elapsed().as_millis() >= 1_500, "held for the hold-down");
        let position = store.get(id).await.unwrap().unwrap();
        assert_eq!((position.status, store.sources().await.unwrap()["EURUSD"].active()), (Status::Open, Some("lp2")));
        // The stop is watched on the one that is left.
        assert_eq!(quote(&store, "lp2", 5_000, 106_990, 0).await, "taken");
        let report = engine.sweep().await.unwrap();
        assert_eq!((report.closed, report.closings[0].fill), (1, 106_990));
        let last = store.last_quote("EURUSD").await.unwrap().unwrap();
        assert!(last.seq < 20, "numbered by itself: {last:?}");
    });
}

/// The best source is silent, or what it says is old: the other one takes over, and gives back.
#[test]
fn a_source_that_is_silent_or_late_is_left_and_comes_back_8_31() {
    on_both(async |store: Positions| {
        two_sources(&store).await;
        assert_eq!(quote(&store, "lp1", 1, 107_100, 0).await, "taken");
        let mut seq = 0;
        let mut until = async |source: &str, wanted: &str, also: Option<(&str, i64)>| {
            for _ in 0..600 {
                seq += 1;
                if let Some((other, ago_ms)) = also {
                    quote(&store, other, 100 + seq, 107_100, ago_ms).await;
                }
                if quote(&store, source, 100 + seq, 107_100, 0).await == wanted {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            panic!("{source} is never {wanted}");
        };
        // Its quotes are twenty seconds old: no sign of life.
        until("lp2", "taken", Some(("lp1", 20_000))).await;
        assert_eq!(store.sources().await.unwrap()["EURUSD"].active(), Some("lp2"));
        until("lp1", "taken", Some(("lp2", 0))).await;
        assert_eq!(quote(&store, "lp2", 9_000, 107_100, 0).await, "standby");
        assert_eq!(quote(&store, "lp2", 9_000, 107_100, 0).await, "duplicate");
        assert_eq!(quote(&store, "lp2", 8_999, 107_100, 0).await, "late");
        assert_eq!(quote(&store, "lp3", 1, 107_100, 0).await, "unknown_source");
        let raw = RawQuote {
            source: None,
            symbol: "EURUSD".into(),
            bid: "1".into(),
            ask: "1".into(),
            ts_ms: store.now_ms().await.unwrap(),
            seq: 1,
            ..RawQuote::default()
        };
        assert_eq!(store.take_quotes(&[raw]).await.unwrap().rejects[0].code, "unknown_source");
    });
}
