//! Candles rolled up from quotes as they come, on both databases, over restarts.

use windlass_market::candle::{Candles, Life, Tick, Timeframe};
use windlass_market::positions::{Positions, RawQuote};
use windlass_market::prices::{PriceOptions, Prices};
use windlass_market::rollup::Rollup;

use crate::positions::on_both;

fn raw(ts_ms: i64, seq: i64, bid: i64) -> RawQuote {
    let text = |points| windlass_market::price::format(points, 5);
    let (bid, ask) = (text(bid), text(bid + 2));
    RawQuote { symbol: "EURUSD".to_owned(), bid, ask, ts_ms, seq, volume: 2, ..RawQuote::default() }
}

fn rollup(store: &Positions, owner: &str) -> Rollup {
    Rollup::new(store.clone(), Prices::new(None, PriceOptions::default()), owner)
}

/// Duplicates, late and out-of-order ticks in random batches, with restarts without a word between
/// them: every candle of every timeframe is that of the plain list of ticks.
#[test]
fn candles_are_exact_over_duplicates_late_ticks_and_restarts_8_1_8_19() {
    on_both(async |store: Positions| {
        let mut random = fastrand::Rng::with_seed(11);
        // Six minutes up to now, so that nothing is forgotten meanwhile.
        let from_ms = store.now_ms().await.unwrap() - 360_000;
        let all: Vec<RawQuote> = (0..600)
            .map(|n| raw(from_ms + n * 600 + random.i64(0..600), n + 1, 100_000 + random.i64(-200..200)))
            .collect();
        let mut plain = Candles::new(&Timeframe::ALL, None, Life { minute_ms: None, ..Life::default() });
        for quote in &all {
            let points = |text: &str| windlass_market::price::parse(text, 5).unwrap();
            let (bid, ask) = (points(&quote.bid), points(&quote.ask));
            plain.add(&Tick { ts_ms: quote.ts_ms, seq: Some(quote.seq), bid, ask, volume: 2 });
        }
        // Neighbours swapped, and one in five sent again.
        let mut sent: Vec<RawQuote> = Vec::new();
        for quote in &all {
            sent.push(quote.clone());
            if random.u8(0..5) == 0 {
                sent.push(all[random.usize(0..all.len().min(sent.len()))].clone());
            }
            let at = sent.len();
            if at > 3 && random.u8(0..4) == 0 {
                sent.swap(at - 1, at - 2);
            }
        }
        let mut taken = 0;
        let mut current = rollup(&store, "a");
        for (n, batch) in sent.chunks(50).enumerate() {
            taken += store.take_quotes(batch).await.unwrap().accepted;
            current.pass(n % 2 == 0).await.unwrap();
            if n % 3 == 2 {
                // It dies; another one of this name goes on from what the tables hold.
                current = rollup(&store, "a");
            }
        }
        assert!(taken < 600, "some were late");
        current.pass(true).await.unwrap();
        for frame in Timeframe::ALL {
            let found = store.candles("EURUSD", frame, (i64::MIN, i64::MAX), 1_000).await.unwrap();
            let expected: Vec<_> = plain.iter().filter(|(own, _)| *own == frame).map(|(_, candle)| candle).collect();
            assert_eq!(found.len(), expected.len(), "{frame}");
            for (found, expected) in found.iter().zip(expected) {
                let key = |c: &windlass_market::candle::Candle| {
                    (c.start_ms, [c.o, c.h, c.l, c.c, c.ah, c.al], c.v, c.n, c.open_at, c.close_at)
                };
                assert_eq!(key(found), key(expected), "{frame}");
            }
        }
    });
}

#[test]
fn one_of_two_processes_rolls_up_and_the_other_takes_over() {
    on_both(async |store: Positions| {
        let now_ms = store.now_ms().await.unwrap();
        store.take_quotes(&[raw(now_ms, 1, 100)]).await.unwrap();
        let (mut first, mut second) = (rollup(&store, "a"), rollup(&store, "b"));
        let rolled = first.pass(false).await.unwrap();
        assert_eq!((rolled.quotes, rolled.candles), (1, 9));
        assert_eq!(second.pass(false).await.unwrap().skipped, Some("held_by_another_worker"));
        assert_eq!(first.live("EURUSD", Timeframe::MINUTE).unwrap().len(), 1);
        assert!(second.live("EURUSD", Timeframe::MINUTE).is_none());
        first.release().await.unwrap();
        store.take_quotes(&[raw(now_ms, 2, 90)]).await.unwrap();
        assert_eq!(second.pass(true).await.unwrap().quotes, 1, "the first quote is in the tables");
        let month = store.candles("EURUSD", Timeframe::Month, (0, i64::MAX), 5).await.unwrap();
        assert_eq!((month[0].n, month[0].v, month[0].o, month[0].l), (2, 4, 100, 90));
        assert_eq!(store.prune_candles().await.unwrap(), 0);
    });
}
