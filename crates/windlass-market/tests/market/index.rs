//! What the index adds to the rules: arming, confirmation, gates, the way to the next trigger.

use windlass_market::index::{Book, Held, Step};
use windlass_market::rules::{Gate, Quote, Rules, Side, Track};

fn held(id: i64, armed: (i64, i64), rules: Rules) -> Held {
    Held { id, version: 1, armed, seen: i64::MIN, track: Track::new(rules) }
}

fn stop(side: Side, sl: i64) -> Rules {
    Rules { sl: Some(sl), ..Rules::new(side, 1, 100) }
}

fn quote(seq: i64, bid: i64) -> Quote {
    Quote { ts_ms: seq * 10, seq, bid, ask: bid + 2 }
}

fn step(quote: Quote, gate: Gate) -> Step {
    Step { quote, now: quote.ts_ms, gate }
}

fn ids(book: &mut Book, step: &Step) -> Vec<i64> {
    book.on_quote(step).iter().map(|decision| decision.id).collect()
}

#[test]
fn quotes_up_to_the_arming_trigger_nothing_8_3() {
    let mut book = Book::default();
    book.put(held(1, (20, 2), stop(Side::Long, 90)));
    for (seq, expected) in [(1, vec![]), (2, vec![]), (3, vec![1])] {
        assert_eq!(ids(&mut book, &step(quote(seq, 80), Gate::OPEN)), expected, "quote {seq}");
    }
    assert!(book.is_empty());
}

#[test]
fn a_spike_before_the_stop_was_moved_does_not_close_and_one_between_sweeps_does_8_3() {
    let mut book = Book::default();
    book.put(held(1, (0, 0), stop(Side::Long, 50)));
    // The stop is moved after quote 2, above the spike that went before.
    let run: Vec<Step> = [(1, 100), (2, 60), (3, 100), (4, 100)].map(|(s, b)| step(quote(s, b), Gate::OPEN)).into();
    assert!(book.sweep(&run[..2]).is_empty());
    book.put(held(1, (25, 2), stop(Side::Long, 70)));
    assert!(book.sweep(&run).is_empty());
    let run: Vec<Step> = [(5, 100), (6, 69), (7, 100)].map(|(s, b)| step(quote(s, b), Gate::OPEN)).into();
    let closed = book.sweep(&run);
    assert_eq!((closed[0].quote.seq, closed[0].fill.price), (6, 69));
}

#[test]
fn a_level_must_be_reached_by_as_many_quotes_in_a_row_as_asked() {
    for every in [1, 2, 5] {
        let mut book = Book::new(2);
        book.put(held(1, (0, 0), stop(Side::Long, 90)));
        let bids = [90, 91, 90, 95, 89, 88];
        let run: Vec<Step> = bids.iter().zip(1..).map(|(bid, seq)| step(quote(seq, *bid), Gate::OPEN)).collect();
        let closed: Vec<i64> = run.chunks(every).flat_map(|run| book.sweep(run)).map(|d| d.quote.seq).collect();
        assert_eq!(closed, [6], "in runs of {every}");
    }
}

#[test]
fn waiting_stops_let_targets_go_on_g2() {
    let gate = Gate { stops: false, ..Gate::OPEN };
    let mut book = Book::default();
    book.put(held(1, (0, 0), stop(Side::Long, 90)));
    book.put(held(2, (0, 0), Rules { tp: Some(85), ..Rules::new(Side::Short, 1, 100) }));
    assert_eq!(ids(&mut book, &step(quote(1, 80), gate)), [2]);
    assert_eq!(ids(&mut book, &step(quote(2, 80), Gate::OPEN)), [1]);
}

#[test]
fn positions_come_change_and_go() {
    let mut book = Book::default();
    book.put(held(1, (0, 0), stop(Side::Long, 90)));
    book.put(held(1, (0, 0), stop(Side::Short, 120)));
    assert_eq!(book.len(), 1);
    assert!(ids(&mut book, &step(quote(1, 80), Gate::OPEN)).is_empty(), "the old stop is gone");
    assert_eq!(book.remove(1).unwrap().id, 1);
    assert!(book.remove(1).is_none() && book.get(1).is_none());
    assert!(ids(&mut book, &step(quote(2, 500), Gate::OPEN)).is_empty());
    book.put(held(2, (0, 0), stop(Side::Long, 90)));
    assert_eq!(ids(&mut book, &step(quote(3, 90), Gate::OPEN)), [2], "a slot is used again");
}

#[test]
fn the_nearest_triggers_come_first() {
    let mut book = Book::default();
    book.put(held(1, (0, 0), stop(Side::Long, 90)));
    book.put(held(2, (0, 0), stop(Side::Short, 105)));
    book.put(held(3, (0, 0), Rules { tp: Some(101), ..Rules::new(Side::Long, 1, 100) }));
    let near: Vec<_> =
        book.nearest(100, 102, 2).iter().map(|near| (near.id, near.level, near.distance, near.is_stop)).collect();
    assert_eq!(near, [(3, 101, 1, false), (2, 105, 3, true)]);
}
