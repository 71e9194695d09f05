//! F34: what plans mean, instant by instant, where clocks are changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use windlass_jobs::Timestamp;
use windlass_scheduler::{ClockChange, Plan, Zone};

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

/// The ticks after an instant are these, in order.
#[track_caller]
fn check(zone: &str, text: &str, after: &str, expected: &[&str]) {
    check_rule(ClockChange::Once, zone, text, after, expected);
}

#[track_caller]
fn check_rule(rule: ClockChange, zone: &str, text: &str, after: &str, expected: &[&str]) {
    let plan = Plan::new(text, Zone::new(zone).unwrap(), rule, None).unwrap();
    let mut now = at(after);
    for (index, expected) in expected.iter().enumerate() {
        let next = plan.next_after(now).unwrap_or_else(|| panic!("{zone} {text}: no tick after {now}"));
        assert_eq!(next, at(expected), "{zone} {text}, tick {index} after {after}");
        assert_eq!(plan.last_within(now, next), Some(next), "{zone} {text}");
        assert_eq!(plan.count_within(now, next, 10), (1, true), "{zone} {text}");
        now = next;
    }
    let all = u64::try_from(expected.len()).unwrap();
    assert_eq!(plan.count_within(at(after), now, 1_000), (all, true), "{zone} {text}");
    assert_eq!(plan.last_within(at(after), now), Some(now), "{zone} {text}");
}

#[test]
fn f34_berlin_loses_an_hour_in_march_and_repeats_one_in_october() {
    let zone = "Europe/Berlin";
    // 2026-03-29: 02:00 becomes 03:00.
    check(
        zone,
        "30 2 * * *",
        "2026-03-27T12:00:00Z",
        &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    );
    check(zone, "0 3 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]);
    check(
        zone,
        "*/15 * * * *",
        "2026-03-29T00:30:00Z",
        &["2026-03-29T00:45:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z"],
    );
    check(
        zone,
        "0,30 1-3 * * *",
        "2026-03-29T00:00:00Z",
        &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T23:00:00Z"],
    );
    // 2026-10-25: 03:00 becomes 02:00.
    check(zone, "30 2 * * *", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    check(
        zone,
        "30 * * * *",
        "2026-10-24T23:45:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"],
    );
    check(
        zone,
        "*/30 2 * * *",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"],
    );
    check(zone, "0 */2 * * *", "2026-03-28T23:30:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
}

#[test]
fn f34_the_rule_for_clock_changes_is_chosen_per_schedule() {
    let zone = "Europe/Berlin";
    let (gap, fold) = ("2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z");
    check_rule(ClockChange::Last, zone, "30 2 * * *", fold, &["2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]);
    check_rule(ClockChange::Last, zone, "30 2 * * *", "2026-10-25T00:45:00Z", &["2026-10-25T01:30:00Z"]);
    check_rule(ClockChange::Last, zone, "30 2 * * *", gap, &["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    check_rule(ClockChange::Wall, zone, "30 2 * * *", gap, &["2026-03-30T00:30:00Z"]);
    check_rule(
        ClockChange::Wall,
        zone,
        "30 2 * * *",
        fold,
        &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"],
    );
}

#[test]
fn f34_new_york() {
    let zone = "America/New_York";
    // 2026-03-08: 02:00 becomes 03:00. 2026-11-01: 02:00 becomes 01:00.
    check(zone, "30 2 * * *", "2026-03-07T12:00:00Z", &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
    check(zone, "30 1 * * *", "2026-10-31T12:00:00Z", &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    check(
        zone,
        "30 * * * *",
        "2026-11-01T05:00:00Z",
        &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z"],
    );
    check(zone, "30 9 * * MON-FRI", "2026-03-06T20:00:00Z", &["2026-03-09T13:30:00Z", "2026-03-10T13:30:00Z"]);
    check(zone, "*/15 * * * *", "2026-03-08T06:50:00Z", &["2026-03-08T07:00:00Z", "2026-03-08T07:15:00Z"]);
}

#[test]
fn f34_cairo_has_no_midnight_on_one_day_and_two_on_another() {
    let zone = "Africa/Cairo";
    // 2026-04-24: 00:00 becomes 01:00. 2026-10-30: 00:00 becomes 23:00 of the 29th.
    check(
        zone,
        "@daily",
        "2026-04-22T12:00:00Z",
        &["2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"],
    );
    check(zone, "30 0 * * *", "2026-04-23T12:00:00Z", &["2026-04-23T22:00:00Z", "2026-04-24T21:30:00Z"]);
    check(zone, "@daily", "2026-10-28T12:00:00Z", &["2026-10-28T21:00:00Z", "2026-10-29T22:00:00Z"]);
    check(zone, "30 23 * * *", "2026-10-29T12:00:00Z", &["2026-10-29T20:30:00Z", "2026-10-30T21:30:00Z"]);
    check(
        zone,
        "@hourly",
        "2026-04-23T20:30:00Z",
        &["2026-04-23T21:00:00Z", "2026-04-23T22:00:00Z", "2026-04-23T23:00:00Z"],
    );
}

#[test]
fn f34_lord_howe_moves_by_half_an_hour() {
    let zone = "Australia/Lord_Howe";
    // 2026-10-04: 02:00 becomes 02:30. 2026-04-05: 02:00 becomes 01:30.
    check(zone, "15 2 * * *", "2026-10-03T00:00:00Z", &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"]);
    check(zone, "45 1 * * *", "2026-04-04T00:00:00Z", &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]);
    check(
        zone,
        "*/15 * * * *",
        "2026-10-03T15:10:00Z",
        &["2026-10-03T15:15:00Z", "2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z"],
    );
    check(zone, "0 * * * *", "2026-10-03T14:00:00Z", &["2026-10-03T14:30:00Z", "2026-10-03T16:00:00Z"]);
    check(
        zone,
        "*/15 * * * *",
        "2026-04-04T14:40:00Z",
        &["2026-04-04T14:45:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:15:00Z", "2026-04-04T15:30:00Z"],
    );
}

#[test]
fn f34_kathmandu_and_utc_never_change() {
    check("Asia/Kathmandu", "0 9 * * *", "2026-03-29T00:00:00Z", &["2026-03-29T03:15:00Z", "2026-03-30T03:15:00Z"]);
    check("Asia/Kathmandu", "0 0 1 * *", "2026-03-29T00:00:00Z", &["2026-03-31T18:15:00Z", "2026-04-30T18:15:00Z"]);
    check("UTC", "30 2 * * *", "2026-03-28T12:00:00Z", &["2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"]);
    check("UTC", "0 0 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]);
}

#[test]
fn f34_apia_lost_a_day() {
    let zone = "Pacific/Apia";
    // 2011-12-30 did not happen: after the 29th came the 31st.
    check(
        zone,
        "0 9 * * *",
        "2011-12-28T00:00:00Z",
        &["2011-12-28T19:00:00Z", "2011-12-29T19:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"],
    );
    check(zone, "@daily", "2011-12-29T00:00:00Z", &["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"]);
    check(zone, "@hourly", "2011-12-30T08:30:00Z", &["2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z"]);
}

#[test]
fn f34_sao_paulo_changed_its_clocks_until_2019() {
    let zone = "America/Sao_Paulo";
    // 2018-11-04: 00:00 became 01:00. 2019-02-17: 00:00 became 23:00 of the 16th.
    check(
        zone,
        "@daily",
        "2018-11-03T00:00:00Z",
        &["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"],
    );
    check(zone, "30 23 * * *", "2019-02-16T00:00:00Z", &["2019-02-16T01:30:00Z", "2019-02-17T01:30:00Z"]);
    check(zone, "@daily", "2019-11-02T12:00:00Z", &["2019-11-03T03:00:00Z", "2019-11-04T03:00:00Z"]);
}

#[test]
fn days_are_read_as_unix_crons_do() {
    let check = |text: &str, after: &str, expected: &[&str]| check("UTC", text, after, expected);
    // The last day, three before it, the last workday, the workday nearest to the 15th and the 1st.
    check("0 0 L * *", "2026-01-31T00:00:00Z", &["2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"]);
    check("0 0 L-3 * *", "2026-02-01T00:00:00Z", &["2026-02-25T00:00:00Z", "2026-03-28T00:00:00Z"]);
    check("0 0 LW * *", "2026-05-01T00:00:00Z", &["2026-05-29T00:00:00Z", "2026-06-30T00:00:00Z"]);
    check("0 0 15W * *", "2026-02-01T00:00:00Z", &["2026-02-16T00:00:00Z", "2026-03-16T00:00:00Z"]);
    check("0 0 1W * *", "2026-07-15T00:00:00Z", &["2026-08-03T00:00:00Z", "2026-09-01T00:00:00Z"]);
    // The second and fifth Friday, the last Monday, Sunday as 0, 7 and a name.
    check("0 0 * * 5#2", "2026-01-01T00:00:00Z", &["2026-01-09T00:00:00Z", "2026-02-13T00:00:00Z"]);
    check("0 0 * * FRI#5", "2026-01-31T00:00:00Z", &["2026-05-29T00:00:00Z", "2026-07-31T00:00:00Z"]);
    check("0 0 * * MONL", "2026-01-01T00:00:00Z", &["2026-01-26T00:00:00Z", "2026-02-23T00:00:00Z"]);
    for sunday in ["0", "7", "sun", "7-7"] {
        check(&format!("0 0 * * {sunday}"), "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z"]);
    }
    check(
        "0 0 * * SAT-SUN",
        "2026-01-01T00:00:00Z",
        &["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-10T00:00:00Z"],
    );
    // A day of either.
    check(
        "0 0 13 * FRI",
        "2026-01-01T00:00:00Z",
        &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"],
    );
    check("0 12 ? JAN,dec *", "2026-01-31T00:00:00Z", &["2026-01-31T12:00:00Z", "2026-12-01T12:00:00Z"]);
    check("*/20 30 8-18/5 1 * *", "2026-01-01T08:30:30Z", &["2026-01-01T08:30:40Z", "2026-01-01T13:30:00Z"]);
}

#[test]
fn intervals_keep_their_phase_and_one_shots_fire_once() {
    check("UTC", "@every 5s", "2026-01-01T00:00:01Z", &["2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z"]);
    check("UTC", "@every 1h30m", "2026-01-01T00:00:00Z", &["2026-01-01T01:30:00Z", "2026-01-01T03:00:00Z"]);
    let anchor = at("2026-01-01T00:00:02Z");
    let plan = Plan::new("@every 5s", Zone::utc(), ClockChange::Once, Some(anchor)).unwrap();
    assert_eq!(plan.next_after(at("2025-01-01T00:00:00Z")), Some(anchor), "not before its start");
    assert_eq!(plan.next_after(anchor), Some(at("2026-01-01T00:00:07Z")));
    assert_eq!(plan.last_within(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z")), None);
    assert_eq!(plan.count_within(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:12Z"), 1), (3, true));

    check("Europe/Berlin", "@at 2026-12-24T18:00", "2026-01-01T00:00:00Z", &["2026-12-24T17:00:00Z"]);
    check("Europe/Berlin", "@at 2026-12-24T18:00:00-05:00", "2026-01-01T00:00:00Z", &["2026-12-24T23:00:00Z"]);
    check("Europe/Berlin", "@at 2026-03-29T02:30", "2026-01-01T00:00:00Z", &["2026-03-29T01:00:00Z"]);
    let plan = Plan::new("@at 2026-12-24T18:00", Zone::utc(), ClockChange::Once, None).unwrap();
    assert_eq!(plan.next_after(at("2026-12-24T18:00:00Z")), None);
}

/// B14: refused with the reason.
#[test]
fn b14_bad_plans_and_zones_are_refused_with_the_reason() {
    let check = |text: &str, code: &str, part: &str| {
        let error = Plan::new(text, Zone::utc(), ClockChange::Once, None).unwrap_err();
        assert!(error.code == code && error.message.contains(part), "{text}: {error:?}");
    };
    check("", "plan_invalid", "0 fields");
    check("* * * *", "plan_invalid", "4 fields");
    check("0 0 0 1 1 ? 2026", "plan_invalid", "7 fields");
    check("60 * * * *", "plan_invalid", "minute: \"60\" is not 0 to 59");
    check("0 24 * * *", "plan_invalid", "hour");
    check("0 0 0 * *", "plan_invalid", "day of month");
    check("0 0 * 13 *", "plan_invalid", "month: \"13\" is not 1 to 12, JAN");
    check("0 0 * * 8", "plan_invalid", "day of week");
    check("0 0 * * L", "plan_invalid", "5L");
    check("0 0 * * 5#6", "plan_invalid", "#5");
    check("*/0 * * * *", "plan_invalid", "step");
    check("*/90 * * * *", "plan_invalid", "step \"90\" is not 1 to 59");
    check("0 22-2 * * *", "plan_invalid", "22-23,0-2");
    check("1,,2 * * * *", "plan_invalid", "minute");
    check("+5 * * * *", "plan_invalid", "minute");
    check("٣ * * * *", "plan_invalid", "minute");
    check("@reboot", "plan_invalid", "@daily");
    check("@daily 5", "plan_invalid", "nothing");
    check("@every", "plan_invalid", "interval");
    check("@every 5", "plan_invalid", "interval");
    check("@every -5s", "plan_invalid", "interval");
    check("@every 500ms", "interval_out_of_range", "1 s");
    check("@every 1500ms", "interval_out_of_range", "whole seconds");
    check("@every 367d", "interval_out_of_range", "366 d");
    check("@every 99999999999999999999s", "plan_invalid", "interval");
    check("@at soon", "plan_invalid", "instant");
    check("@at 2026-02-30T00:00", "plan_invalid", "instant");
    check(&"*,".repeat(5_120), "plan_too_long", "10240 bytes; at most 256");

    for zone in ["Mars/Phobos", "", "Europe/Berlin\n", "../../etc/passwd", "Etc/Unknown", &"x".repeat(10_000)] {
        let error = Zone::new(zone).unwrap_err();
        assert_eq!(error.code, "zone_unknown", "{zone:.20}");
        assert!(error.message.len() < 200);
    }
    assert_eq!(Zone::new("europe/berlin").unwrap().name(), "Europe/Berlin");
}

#[test]
fn b14_what_never_fires_has_no_next_tick() {
    for text in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31W 2 *", "0 0 L-30 2 *"] {
        let plan = Plan::new(text, Zone::utc(), ClockChange::Once, None).unwrap();
        assert_eq!(plan.next_after(at("2026-01-01T00:00:00Z")), None, "{text}");
    }
}
