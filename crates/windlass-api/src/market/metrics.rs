//! What the market of this process has done, in the Prometheus text format.

use std::fmt::Write as _;

use windlass_market::{Counters, Market};

/// Reasons and guards are words of this program: they need no escaping. Each is there with 0 from the
/// start, so that nothing begins with a gap.
const REASONS: [&str; 14] = [
    "unknown_symbol",
    "not_a_number",
    "surplus_digits",
    "too_large",
    "not_positive",
    "crossed",
    "negative_volume",
    "negative_seq",
    "future",
    "duplicate",
    "late",
    "unknown_source",
    "standby",
    "contradicted",
];
const GUARDS: [&str; 4] = ["stale", "future", "jump", "late"];

pub(crate) fn render(market: &Market) -> String {
    let counters = market.counters();
    let Counters {
        quotes_accepted,
        quotes_rejected,
        passes,
        closed,
        lost_race,
        refused,
        held,
        skipped,
        frozen,
        asked,
        asked_failed,
    } = &counters;
    let cache = market.prices().map(|prices| prices.stats()).unwrap_or_default();
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, kind, help, value) in [
        ("windlass_market_quotes_accepted_total", "counter", "Quotes kept that may decide.", quotes_accepted),
        ("windlass_market_passes_total", "counter", "Times that open positions were held against new quotes.", passes),
        ("windlass_market_closings_total", "counter", "Closings written.", closed),
        ("windlass_market_lost_races_total", "counter", "Decisions that another write had made needless.", lost_race),
        (
            "windlass_market_closings_refused_total",
            "counter",
            "Closings that an application's tables refused.",
            refused,
        ),
        ("windlass_market_skipped_total", "counter", "Passes that found the tables away.", skipped),
        ("windlass_market_frozen_symbols", "gauge", "Symbols with open positions of which no quote comes.", frozen),
        (
            "windlass_market_callbacks_waiting",
            "gauge",
            "Closings that an application was asked for, unanswered.",
            asked,
        ),
        ("windlass_market_callbacks_failed", "gauge", "Closings that an application did not carry out.", asked_failed),
        ("windlass_market_cache_dropped_total", "counter", "Quotes that Redis was not told of.", &cache.dropped),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    for (name, label, help, words, counts) in [
        (
            "windlass_market_quotes_rejected_total",
            "code",
            "Quotes that were not accepted.",
            &REASONS[..],
            quotes_rejected,
        ),
        ("windlass_market_quotes_held_total", "guard", "Quotes that decided nothing.", &GUARDS[..], held),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for word in words {
            let _ = writeln!(text, "{name}{{{label}=\"{word}\"}} {}", counts.get(word).copied().unwrap_or(0));
        }
    }
    text
}
