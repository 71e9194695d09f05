//! Properties of the rules per quote, and examples of each.

use proptest::prelude::*;
use windlass_market::guard::Limits;
use windlass_market::index::{Book, Decision, Held, Step};
use windlass_market::rules::{BreakEven, Distance, Fill, Gate, Leg, Quote, Reason, Rules, Side, Track, Trail};

use crate::naive;

/// Around this price everything happens: levels and quotes meet often.
const BASE: i64 = 1_000;

fn offset(range: std::ops::Range<i64>) -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 2 => range.prop_map(Some)]
}

prop_compose! {
    fn trail()(
        distance in prop_oneof![(1_i64..25).prop_map(Distance::Points), (1_i64..300).prop_map(Distance::Bps)],
        activation in offset(-30..40),
        step in 1_i64..8,
    ) -> (Distance, Option<i64>, i64) { (distance, activation, step) }
}

prop_compose! {
    /// Any rules, told by distances from the entry towards profit.
    fn rules()(
        side in prop_oneof![Just(Side::Long), Just(Side::Short)],
        entry in BASE - 5..BASE + 5,
        sl in offset(-40..5),
        tp in offset(6..40),
        guaranteed in any::<bool>(),
        trail in prop::option::of(trail()),
        even in prop::option::of((1_i64..25, 0_i64..4)),
        expires_at in prop::option::of(0_i64..80),
        legs in prop::collection::vec((6_i64..30, 1_i64..4), 0..=5),
    ) -> Rules {
        let at = |towards: i64| entry + side.sign() * towards;
        let legs: Box<[Leg]> = legs
            .into_iter()
            .zip(1..)
            .map(|((towards, qty), leg)| Leg { leg, price: at(towards), qty })
            .collect();
        Rules {
            sl: sl.map(at),
            tp: tp.map(at),
            guaranteed: guaranteed && sl.is_some(),
            trail: trail.map(|(distance, activation, step)| Trail { distance, activation: activation.map(at), step }),
            break_even: even.map(|(trigger, offset)| BreakEven { trigger, offset: offset.min(trigger) }),
            expires_at,
            legs,
            ..Rules::new(side, 20, entry)
        }
    }
}

prop_compose! {
    /// Quotes that walk, sometimes jump, with a spread that changes.
    fn quotes()(moves in prop::collection::vec((-4_i64..=4, 0_i64..4, 0_u8..30), 2..80)) -> Vec<Quote> {
        let mut bid = BASE;
        moves
            .into_iter()
            .zip(1_i64..)
            .map(|((by, spread, jump), seq)| {
                bid += if jump == 0 { by * 8 } else { by };
                Quote { ts_ms: seq * 100, seq, bid, ask: bid + spread }
            })
            .collect()
    }
}

type Closed = naive::Closed;

fn step(at: usize, quote: &Quote) -> Step {
    Step { quote: *quote, now: i64::try_from(at).unwrap(), gate: Gate::OPEN }
}

/// What the engine decides for one position, quote by quote.
fn engine(rules: &Rules, open: usize, quotes: &[Quote]) -> (Vec<Closed>, Option<i64>) {
    let mut track = Track::new(rules.clone());
    let mut closed = Vec::new();
    track.open_on(&quotes[open]);
    for (at, quote) in quotes.iter().enumerate().skip(open + 1) {
        let before = track.stop().map(|(stop, _)| stop);
        for Fill { leg, qty, reason, price, .. } in track.on_quote(quote, at as i64, Gate::OPEN) {
            closed.push((at, leg, qty, reason, price, before));
        }
        if track.open_qty() == 0 {
            break;
        }
    }
    (closed, track.stop().map(|(stop, _)| stop))
}

fn told(decision: &Decision) -> (i64, Closed) {
    let Fill { leg, qty, reason, price, .. } = decision.fill;
    (decision.id, (usize::try_from(decision.now).unwrap(), leg, qty, reason, price, decision.stop))
}

/// All positions opened on the first quote, then the rest in runs of `every`.
fn through_index(all: &[Rules], quotes: &[Quote], every: usize, bulk: bool) -> Vec<(i64, Closed)> {
    let mut book = Book::default();
    let held: Vec<Held> = all
        .iter()
        .zip(0..)
        .map(|(rules, id)| {
            let mut track = Track::new(rules.clone());
            track.open_on(&quotes[0]);
            Held { id, version: 1, armed: (i64::MIN, 0), seen: i64::MIN, track }
        })
        .collect();
    if bulk {
        book.load(held);
    } else {
        held.into_iter().for_each(|held| book.put(held));
    }
    let steps: Vec<Step> = quotes.iter().enumerate().skip(1).map(|(at, quote)| step(at, quote)).collect();
    let decisions: Vec<Decision> = steps.chunks(every).flat_map(|run| book.sweep(run)).collect();
    decisions.iter().map(told).collect()
}

fn cases() -> u32 {
    std::env::var("WINDLASS_SOAK_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// R1–R7, R9: what the engine closes is what the text says. Shrinking prints the tick path.
    #[test]
    fn the_engine_is_the_naive_oracle_8_1_8_34(rules in rules(), quotes in quotes(), open in 0_usize..5) {
        let open = open.min(quotes.len() - 1);
        prop_assert_eq!(engine(&rules, open, &quotes), naive::closings(&rules, open, &quotes, rules.expires_at));
    }

    /// The index, loaded at once or one by one, quote by quote or in sweeps, decides the same.
    #[test]
    fn index_and_sweeps_decide_what_every_quote_decides_8_2(
        all in prop::collection::vec(rules(), 1..12), quotes in quotes(), every in 1_usize..70, bulk in any::<bool>(),
    ) {
        let mut expected: Vec<(i64, Closed)> = Vec::new();
        for (rules, id) in all.iter().zip(0..) {
            expected.extend(naive::closings(rules, 0, &quotes, rules.expires_at).0.into_iter().map(|c| (id, c)));
        }
        let mut live = through_index(&all, &quotes, 1, bulk);
        let mut swept = through_index(&all, &quotes, every, bulk);
        // By quote, position and, at one quote, in the order of the fills: the sort is stable.
        for list in [&mut expected, &mut live, &mut swept] {
            list.sort_by_key(|(id, closed)| (closed.0, *id));
        }
        prop_assert_eq!(&live, &expected);
        prop_assert_eq!(&swept, &expected);
    }

    /// R3: a stop never gets looser, whatever comes.
    #[test]
    fn a_stop_never_loosens_8_7(rules in rules(), quotes in quotes()) {
        let mut track = Track::new(rules.clone());
        track.open_on(&quotes[0]);
        let mut last = track.stop().map(|(stop, _)| stop);
        for (at, quote) in quotes.iter().enumerate().skip(1) {
            track.on_quote(quote, at as i64, Gate::OPEN);
            let now = track.stop().map(|(stop, _)| stop);
            if let Some(last) = last {
                let tightened = (now.unwrap() - last) * rules.side.sign();
                prop_assert!(tightened >= 0, "{} after {}", now.unwrap(), last);
            }
            last = now;
        }
    }

    /// A position taken up after a crash from its checkpoint goes on as if nothing had been.
    #[test]
    fn a_resumed_position_decides_as_one_that_never_stopped_8_7(rules in rules(), quotes in quotes(), cut in 0_usize..80) {
        let cut = cut.min(quotes.len() - 1);
        let (whole, _) = engine(&rules, 0, &quotes);
        let mut track = Track::new(rules.clone());
        track.open_on(&quotes[0]);
        let mut closed = Vec::new();
        for (at, quote) in quotes.iter().enumerate().skip(1) {
            if at == cut {
                track = Track::resume(rules.clone(), track.open_qty(), track.legs_done(), track.extreme(), track.stop());
            }
            let before = track.stop().map(|(stop, _)| stop);
            for Fill { leg, qty, reason, price, .. } in track.on_quote(quote, at as i64, Gate::OPEN) {
                closed.push((at, leg, qty, reason, price, before));
            }
            if track.open_qty() == 0 {
                break;
            }
        }
        prop_assert_eq!(closed, whole);
    }

    /// Whatever the numbers, nothing panics and profit is exact.
    #[test]
    fn extreme_numbers_do_not_panic_8_17(
        side in prop_oneof![Just(Side::Long), Just(Side::Short)],
        entry in any::<i64>(), sl in any::<Option<i64>>(), tp in any::<Option<i64>>(), points in any::<i64>(), bps in any::<i64>(),
        even in any::<(i64, i64)>(), least in any::<i64>(), prices in prop::collection::vec((1..=i64::MAX, 1..=i64::MAX), 1..6),
    ) {
        for distance in [Distance::Points(points), Distance::Bps(bps)] {
            let rules = Rules {
                sl,
                tp,
                trail: Some(Trail { distance, activation: None, step: least }),
                break_even: Some(BreakEven { trigger: even.0, offset: even.1 }),
                ..Rules::new(side, i64::MAX, entry)
            };
            let _ = rules.check();
            let mut book = Book::new(2);
            book.put(Held { id: 1, version: 1, armed: (i64::MIN, i64::MIN), seen: i64::MIN, track: Track::new(rules.clone()) });
            for (at, (a, b)) in prices.iter().enumerate() {
                let quote = Quote { ts_ms: at as i64, seq: at as i64, bid: *a.min(b), ask: *a.max(b) };
                book.on_quote(&step(at, &quote));
                let _ = rules.pnl_points(quote.bid, i64::MAX);
                let _ = windlass_market::guard::Guard::default().judge(&quote, i64::MIN, &Limits::DEFAULT, Gate::OPEN);
            }
            let _ = book.nearest(1, i64::MAX, 5);
        }
    }
}

/// Leads a position, opened before the first quote, over (bid, ask) pairs and spells what closes.
#[track_caller]
fn check(rules: &Rules, quotes: &[(i64, i64)], expected: &str) {
    rules.check().unwrap();
    let mut track = Track::new(rules.clone());
    let mut told = Vec::new();
    for (at, (bid, ask)) in quotes.iter().enumerate() {
        let quote = Quote { ts_ms: 0, seq: 0, bid: *bid, ask: *ask };
        for Fill { leg, qty, reason, price, .. } in track.on_quote(&quote, at as i64, Gate::OPEN) {
            told.push(format!("{at}:{}@{price}x{qty}/{leg}", reason.as_str()));
        }
    }
    assert_eq!(told.join(" "), expected);
}

fn long(entry: i64) -> Rules {
    Rules::new(Side::Long, 10, entry)
}

fn short(entry: i64) -> Rules {
    Rules::new(Side::Short, 10, entry)
}

#[test]
fn a_long_is_tested_on_the_bid_and_a_short_on_the_ask_8_4() {
    check(&Rules { sl: Some(90), ..long(100) }, &[(91, 92), (91, 200), (90, 91)], "2:SL@90x10/0");
    check(&Rules { sl: Some(110), ..short(100) }, &[(109, 109), (50, 109), (50, 110)], "2:SL@110x10/0");
    check(&Rules { tp: Some(90), ..short(100) }, &[(90, 91), (89, 90)], "1:TP@90x10/0");
}

#[test]
fn a_gap_fills_at_the_first_quote_and_a_guaranteed_stop_at_its_level_8_5() {
    check(&Rules { sl: Some(90), ..long(100) }, &[(95, 96), (70, 71)], "1:SL@70x10/0");
    check(&Rules { sl: Some(90), guaranteed: true, ..long(100) }, &[(95, 96), (70, 71)], "1:SL@90x10/0");
    check(&Rules { tp: Some(110), ..long(100) }, &[(130, 131)], "0:TP@130x10/0");
    let mut track = Track::new(Rules { tp: Some(110), ..long(100) });
    let gate = Gate { target_at_level: true, ..Gate::OPEN };
    let fills = track.on_quote(&Quote { ts_ms: 0, seq: 0, bid: 130, ask: 131 }, 0, gate);
    assert_eq!(fills[0].price, 110);
}

#[test]
fn a_moved_stop_counts_from_the_next_quote_r6() {
    let trail = Trail { distance: Distance::Points(5), activation: None, step: 1 };
    check(&Rules { trail: Some(trail), ..long(100) }, &[(100, 101), (110, 111), (105, 106)], "2:TRAIL@105x10/0");
    check(
        &Rules { trail: Some(Trail { step: 4, ..trail }), ..long(100) },
        &[(100, 101), (103, 104), (98, 99), (95, 96)],
        "3:TRAIL@95x10/0",
    );
    check(
        &Rules { trail: Some(Trail { activation: Some(105), ..trail }), ..long(100) },
        &[(104, 105), (90, 91), (105, 106), (100, 101)],
        "3:TRAIL@100x10/0",
    );
}

#[test]
fn trailing_by_bps_rounds_away_from_the_market_8_7() {
    let trail = Trail { distance: Distance::Bps(100), activation: None, step: 1 };
    let stop = |rules: Rules, bid, ask| {
        let mut track = Track::new(rules);
        track.open_on(&Quote { ts_ms: 0, seq: 0, bid, ask });
        track.stop()
    };
    assert_eq!(
        stop(Rules { trail: Some(trail), ..long(100) }, 1_050, 1_051),
        Some((1_039, Reason::Trail)),
        "1039.5 down"
    );
    assert_eq!(
        stop(Rules { trail: Some(trail), ..short(100) }, 1_049, 1_050),
        Some((1_061, Reason::Trail)),
        "1060.5 up"
    );
    assert_eq!(stop(Rules { trail: Some(trail), ..short(100) }, 999, 1_000), Some((1_010, Reason::Trail)), "exact");
}

#[test]
fn break_even_moves_once_and_only_for_the_better_8_8() {
    let even = Some(BreakEven { trigger: 10, offset: 2 });
    check(&Rules { break_even: even, sl: Some(80), ..long(100) }, &[(110, 111), (102, 103)], "1:BE@102x10/0");
    check(&Rules { break_even: even, sl: Some(80), ..long(100) }, &[(109, 110), (81, 82), (80, 81)], "2:SL@80x10/0");
    check(&Rules { break_even: even, sl: Some(105), ..long(100) }, &[(110, 111), (105, 106)], "1:SL@105x10/0");
}

#[test]
fn partial_legs_close_once_and_the_last_one_closes_8_8() {
    let leg = |leg, price, qty| Leg { leg, price, qty };
    let legs = |legs: &[Leg]| Rules { legs: legs.into(), sl: Some(90), ..long(100) };
    check(
        &legs(&[leg(1, 110, 3), leg(2, 120, 7)]),
        &[(110, 111), (112, 113), (125, 126), (80, 81)],
        "0:TP@110x3/1 2:TP@125x7/2",
    );
    check(&legs(&[leg(1, 110, 3), leg(2, 120, 3)]), &[(121, 122), (90, 91)], "0:TP@121x3/1 0:TP@121x3/2 1:SL@90x4/0");
    check(&Rules { tp: Some(120), ..legs(&[leg(5, 110, 3)]) }, &[(130, 131)], "0:TP@130x3/5 0:TP@130x7/0");
    assert!(legs(&[leg(1, 110, 6), leg(2, 120, 5)]).check().is_err(), "more than there is");
    assert!(legs(&[leg(1, 110, 1), leg(1, 120, 1)]).check().is_err(), "a leg twice");
    assert!(legs(&[leg(6, 110, 1)]).check().is_err() && legs(&[leg(0, 110, 1)]).check().is_err());
    assert!(legs(&[leg(1, 89, 1)]).check().is_err(), "behind the stop");
}

#[test]
fn the_time_stop_comes_after_stop_and_target_r7() {
    check(&Rules { expires_at: Some(1), ..long(100) }, &[(100, 101), (99, 100)], "1:TIME@99x10/0");
    check(&Rules { expires_at: Some(1), sl: Some(90), ..long(100) }, &[(100, 101), (90, 91)], "1:SL@90x10/0");
    check(&Rules { expires_at: Some(1), tp: Some(110), ..long(100) }, &[(100, 101), (110, 111)], "1:TP@110x10/0");
}

#[test]
fn rules_that_cannot_be_are_refused_by_field() {
    let check = |rules: Rules, field: &str| assert_eq!(rules.check().unwrap_err().field, field, "{rules:?}");
    check(Rules { qty: 0, ..long(100) }, "qty");
    check(long(0), "entry");
    check(Rules { sl: Some(0), ..long(100) }, "sl");
    check(Rules { sl: Some(110), tp: Some(110), ..long(100) }, "tp");
    check(Rules { sl: Some(90), tp: Some(110), ..short(100) }, "tp");
    check(Rules { guaranteed: true, ..long(100) }, "sl_guaranteed");
    let trail = |distance, step| Rules { trail: Some(Trail { distance, activation: None, step }), ..long(100) };
    check(trail(Distance::Points(0), 1), "trail_points");
    check(trail(Distance::Bps(10_000), 1), "trail_bps");
    check(trail(Distance::Bps(1), 0), "trail_step");
    check(Rules { break_even: Some(BreakEven { trigger: 0, offset: 0 }), ..long(100) }, "be_trigger");
    check(Rules { break_even: Some(BreakEven { trigger: 5, offset: 6 }), ..long(100) }, "be_offset");
}
