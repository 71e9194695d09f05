//! F34, F35: rules that hold for every plan, zone and instant.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use windlass_jobs::Timestamp;
use windlass_scheduler::{ClockChange, Plan, Zone};

const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "UTC",
    "America/Sao_Paulo",
];
const DAY_MS: i64 = 86_400_000;

fn zone() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(ZONES.to_vec())
}

/// From 1990 to 2040: before and after the zones' rules changed.
fn instant() -> impl Strategy<Value = Timestamp> {
    (631_152_000_000_i64..2_208_988_800_000).prop_map(Timestamp)
}

fn field(max: u32, min: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (min..=max).prop_map(|n| n.to_string()),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (1..=(max - min)).prop_map(|n| format!("*/{n}")),
        1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let day = prop_oneof![4 => field(28, 1), 1 => Just("L".to_owned()), 1 => Just("15W".to_owned())];
    let weekday = prop_oneof![4 => Just("*".to_owned()), 1 => field(6, 0), 1 => Just("5L".to_owned())];
    (field(59, 0), field(59, 0), field(23, 0), day, field(12, 1), weekday)
        .prop_map(|(s, m, h, d, mo, w)| format!("{s} {m} {h} {d} {mo} {w}"))
}

fn plan(text: &str, zone: &str, rule: ClockChange) -> Plan {
    Plan::new(text, Zone::new(zone).unwrap(), rule, None).unwrap()
}

/// The local date and minute of the day, by jiff alone.
fn local(at: Timestamp, zone: &str) -> (jiff::civil::Date, i32) {
    let civil = jiff::Timestamp::from_millisecond(at.0).unwrap().in_tz(zone).unwrap().datetime();
    (civil.date(), i32::from(civil.hour()) * 60 + i32::from(civil.minute()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A rule of one time a day fires once for each local date, at that time or at the end of the
    /// gap that holds it; only a date that did not exist at all shares its day with the next one.
    #[test]
    fn f34_a_fixed_time_fires_exactly_once_a_local_day(zone in zone(), from in instant(), minute in 0..1440_i32,
                                                       last in any::<bool>()) {
        let rule = if last { ClockChange::Last } else { ClockChange::Once };
        let plan = plan(&format!("{} {} * * *", minute % 60, minute / 60), zone, rule);
        let mut at = plan.next_after(from).unwrap();
        let (mut date, _) = local(at, zone);
        for _ in 0..400 {
            let next = plan.next_after(at).unwrap();
            let (day, shown) = local(next, zone);
            if day == date {
                // The only way to two in a day: the date between them was skipped whole (Apia).
                prop_assert!(zone == "Pacific/Apia" && date.to_string() == "2011-12-31", "{zone} twice on {day}");
            } else {
                let apart = date.until(day).unwrap().get_days();
                prop_assert!(apart == 1 || (zone == "Pacific/Apia" && apart == 2), "{zone}: {date} then {day}");
            }
            if shown != minute {
                // Then that time did not exist: the clock jumped to what it shows now.
                let before = local(Timestamp(next.0 - 1), zone);
                let jumped = before.0 != day || before.1 + 1 != shown;
                prop_assert!(jumped, "{zone} {day}: {shown} instead of {minute} without a gap");
            }
            (at, date) = (next, day);
        }
    }

    /// No tick twice, none before the instant asked for, and asking again changes nothing.
    #[test]
    fn f36_ticks_rise_and_are_the_same_for_everyone(zone in zone(), from in instant(), text in expression(),
                                                    rule in proptest::sample::select(vec![ClockChange::Once, ClockChange::Last, ClockChange::Wall])) {
        let plan = plan(&text, zone, rule);
        let mut at = from;
        for _ in 0..20 {
            let Some(next) = plan.next_after(at) else { break };
            prop_assert!(next > at && next.0 % 1000 == 0);
            // Whoever asks at any moment in between hears of the same tick.
            for share in [0, 1, 3, 7] {
                let between = Timestamp(at.0 + (next.0 - at.0 - 1) * share / 7);
                prop_assert_eq!(plan.next_after(between), Some(next), "{} {} {}", zone, text, between);
            }
            prop_assert_eq!(plan.last_within(at, next), Some(next));
            prop_assert_eq!(plan.last_within(at, Timestamp(next.0 - 1)), None);
            at = next;
        }
    }

    /// Sub-daily rules keep the cadence of real time: in whole-hour zones a quarter of an hour is
    /// always a quarter of an hour.
    #[test]
    fn f34_every_quarter_of_an_hour_is_evenly_spaced(zone in zone(), from in instant()) {
        let plan = plan("*/15 * * * *", zone, ClockChange::Once);
        let mut at = plan.next_after(from).unwrap();
        for _ in 0..200 {
            let next = plan.next_after(at).unwrap();
            prop_assert_eq!(next.0 - at.0, 15 * 60_000, "{} at {}", zone, at);
            at = next;
        }
    }

    /// Counting and finding the last agree with walking.
    #[test]
    fn f35_what_was_missed_is_counted_right(zone in zone(), from in instant(), text in expression(), days in 0..3_i64,
                                            ms in 0..DAY_MS) {
        let plan = plan(&text, zone, ClockChange::Once);
        let until = Timestamp(from.0 + days * DAY_MS + ms);
        let (mut at, mut walked) = (from, 0);
        while let Some(next) = plan.next_after(at).filter(|next| *next <= until) {
            (at, walked) = (next, walked + 1);
            if walked == 500 {
                break;
            }
        }
        let until = if walked == 500 { at } else { until };
        prop_assert_eq!(plan.count_within(from, until, 1_000), (walked, true));
        prop_assert_eq!(plan.last_within(from, until), Some(at).filter(|_| walked > 0));
    }

    /// B14: whatever is sent, the answer is a plan or a reason; never a panic, never a long look.
    #[test]
    fn b14_any_text_is_a_plan_or_a_reason(text in "[0-9*/,L#W?@a-zA-Z -]{0,40}", zone in zone(), from in instant()) {
        if let Ok(plan) = Plan::new(&text, Zone::new(zone).unwrap(), ClockChange::Once, None) {
            let _ = plan.next_after(from);
        }
    }
}
