//! Candles are the same whatever the delivery.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use windlass_market::candle::{Added, Candle, Candles, Life, Tick, Timeframe};

fn frame(name: &str) -> Timeframe {
    Timeframe::parse(name).unwrap()
}

type Row = (i64, i64, i64, i64, i64, i64, i64, i128, u64);

fn row(c: &Candle) -> Row {
    (c.start_ms, c.o, c.h, c.l, c.c, c.ah, c.al, c.v, c.n)
}

/// Sorts each number's tick once and folds: what a candle is by definition.
fn oracle(ticks: &[Tick], ms: i64) -> Vec<Row> {
    let mut known = BTreeSet::new();
    let mut periods: BTreeMap<i64, Vec<Tick>> = BTreeMap::new();
    for tick in ticks {
        if known.insert(tick.seq) {
            periods.entry(tick.ts_ms - tick.ts_ms.rem_euclid(ms)).or_default().push(*tick);
        }
    }
    let fold = |(start, mut ticks): (i64, Vec<Tick>)| {
        ticks.sort_by_key(|t| (t.ts_ms, t.seq));
        let bids = || ticks.iter().map(|t| t.bid);
        let asks = || ticks.iter().map(|t| t.ask);
        (
            start,
            ticks[0].bid,
            bids().max().unwrap(),
            bids().min().unwrap(),
            ticks[ticks.len() - 1].bid,
            asks().max().unwrap(),
            asks().min().unwrap(),
            ticks.iter().map(|t| i128::from(t.volume)).sum(),
            ticks.len() as u64,
        )
    };
    periods.into_iter().map(fold).collect()
}

prop_compose! {
    /// Ticks of half an hour, then delivered with repetitions and out of order.
    fn delivery()(
        ticks in prop::collection::vec((0_i64..1_800_000, 1_i64..1_000, 0_i64..9, 0_i64..5), 1..120),
        seed in any::<u64>(),
    ) -> Vec<Tick> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut all: Vec<Tick> = ticks
            .into_iter()
            .zip(1..)
            .map(|((ts_ms, bid, spread, volume), seq)| Tick { ts_ms, seq: Some(seq), bid, ask: bid + spread, volume })
            .collect();
        let again: Vec<Tick> = all.iter().filter(|_| random.u8(..4) == 0).copied().collect();
        all.extend(again);
        random.shuffle(&mut all);
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn candles_are_exact_under_duplicates_and_disorder_8_1(ticks in delivery()) {
        let frames = [frame("1m"), frame("5m"), frame("15m")];
        let life = Life { minute_ms: Some(3_600_000), ..Life::default() };
        for life in [life, Life { minute_ms: None, ..life }] {
            let mut candles = Candles::new(&frames, None, life);
            for tick in &ticks {
                candles.add(tick);
            }
            for (frame, ms) in frames.iter().zip([60_000, 300_000, 900_000]) {
                let rows: Vec<Row> = candles.iter().filter(|(f, _)| f == frame).map(|(_, c)| row(c)).collect();
                prop_assert_eq!(rows, oracle(&ticks, ms));
            }
        }
    }
}

fn tick(ts_ms: i64, seq: i64, bid: i64) -> Tick {
    Tick { ts_ms, seq: Some(seq), bid, ask: bid + 1, volume: 1 }
}

#[test]
fn silent_hours_give_no_candle_and_no_burst_8_19() {
    let mut candles = Candles::new(&[Timeframe::MINUTE], None, Life::default());
    candles.add(&tick(0, 1, 10));
    candles.add(&tick(7_200_000, 2, 11));
    let starts: Vec<i64> = candles.tick_over(7_200_000).iter().map(|(_, c)| c.start_ms).collect();
    assert_eq!(starts, [0, 7_200_000]);
    assert!(candles.tick_over(7_200_001).is_empty(), "only what changed is told");
}

#[test]
fn a_quiet_day_candle_is_still_there_after_two_hours_8_19() {
    let mut candles = Candles::new(&[Timeframe::MINUTE, Timeframe::Day], None, Life::default());
    candles.add(&tick(1_000, 1, 10));
    candles.tick_over(2 * 3_600_000);
    let left: Vec<Timeframe> = candles.iter().map(|(frame, _)| frame).collect();
    assert_eq!(left, [Timeframe::Day]);
    candles.add(&tick(2 * 3_600_000, 2, 30));
    let day = candles.tick_over(2 * 3_600_000).into_iter().find(|(frame, _)| *frame == Timeframe::Day).unwrap().1;
    assert_eq!((day.o, day.c, day.n), (10, 30, 2));
}

#[test]
fn late_ticks_count_until_their_minute_is_forgotten() {
    let life = Life { minute_ms: Some(60_000), grace_ms: 2_000 };
    let mut candles = Candles::new(&[Timeframe::MINUTE], None, life);
    assert_eq!(candles.add(&tick(10, 1, 10)), Added::Counted);
    assert!(candles.tick_over(62_000)[0].1.is_final);
    assert_eq!(candles.add(&tick(70_000, 3, 12)), Added::Counted);
    assert_eq!(candles.add(&tick(5, 2, 9)), Added::Late);
    assert_eq!(candles.add(&tick(5, 2, 9)), Added::Duplicate);
    let late = candles.tick_over(70_000).into_iter().find(|(_, c)| c.start_ms == 0).unwrap().1;
    assert_eq!((late.o, late.n, late.rev, late.is_final), (9, 2, 1, true));
    candles.tick_over(121_000);
    assert_eq!(candles.add(&tick(6, 4, 9)), Added::Dropped);
    assert_eq!(candles.add(&tick(i64::MAX, 5, 9)), Added::OutOfRange);
}

#[test]
fn memory_stays_flat_8_20() {
    let mut candles = Candles::new(&[Timeframe::MINUTE, frame("1h")], None, Life::default());
    let mut most = 0;
    for n in 0..40_000_i64 {
        // Every second number belongs to another symbol: no ranges join.
        candles.add(&tick(n * 100, n * 2, 10));
        if n % 100 == 0 {
            candles.tick_over(n * 100);
        }
        if n == 15_000 {
            most = candles.footprint();
        }
    }
    assert!(candles.footprint() <= most + most / 10, "{} after {most}", candles.footprint());
}
