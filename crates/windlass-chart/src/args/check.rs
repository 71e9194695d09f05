//! Everything that can be wrong with well-formed args.
//!
//! Of a fault that runs through a column only the first bar is named: 50,000 nulls are one
//! violation.

use windlass_jobs::Violation;

use super::{Candles, ChartArgs, Column, Overlay, Panel};
use crate::font::missing_glyphs;

/// The largest price, and the negative of the smallest. Beyond it the steps of a 64-bit
/// number are coarser than any tick.
pub const MAX_PRICE: f64 = 1e15;
const MAX_VOLUME: f64 = 1e18;
const MAX_OVERLAYS: usize = 10;
const MAX_PANELS: usize = 6;
const MAX_PERIOD: u32 = 1_000;
const MAX_SYMBOL_CHARS: usize = 32;
const MAX_TITLE_CHARS: usize = 128;
const MAX_ZONE_CHARS: usize = 64;

impl ChartArgs {
    /// Everything wrong with the args, in document order; empty when they are right.
    ///
    /// *Codes*, each stable: `symbol_invalid`; for bars `empty`, `too_many_bars`,
    /// `unequal_lengths`, `not_finite`, `out_of_range`, `time_invalid`, `not_rising`,
    /// `low_above_body`, `high_below_body`, `negative_volume`; for numbers `out_of_range`,
    /// `too_many`, `too_many_pixels`; for panels `duplicate_panel`, `volume_missing`; for
    /// titles `too_long`, `control_character`, `glyph_missing`; `unknown_time_zone`.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        check_symbol(&self.symbol, &mut found);
        check_candles(&self.candles, &mut found);
        let most = Self::MAX_VISIBLE_BARS;
        if let Some(bars) = self.visible_bars {
            in_range("/visible_bars", bars, 2, most, &mut found);
        }
        check_overlays(&self.overlays, &mut found);
        self.check_panels(&mut found);
        check_title("/title", self.title.as_deref(), &mut found);
        check_title("/subtitle", self.subtitle.as_deref(), &mut found);
        check_time_zone(&self.time_zone, &mut found);
        if let Some(tick) = self.price_scale.tick_size
            && !(1e-12..=1e12).contains(&tick)
        {
            let message = format!("{tick} is not between 1e-12 and 1e12");
            found.push(Violation::new("/price_scale/tick_size", "out_of_range", message));
        }
        in_range("/width_px", self.width_px, 160, 4096, &mut found);
        in_range("/height_px", self.height_px, 120, 4096, &mut found);
        in_range("/scale", self.scale, 1, 3, &mut found);
        if self.pixels() > Self::MAX_PIXELS {
            let message =
                format!("width_px × height_px × scale² is {}, at most {} are allowed", self.pixels(), Self::MAX_PIXELS);
            found.push(Violation::new("/scale", "too_many_pixels", message));
        }
        found
    }

    fn check_panels(&self, found: &mut Vec<Violation>) {
        at_most("/panels", self.panels.len(), MAX_PANELS, found);
        for (index, Panel::Volume {}) in self.panels.iter().enumerate() {
            let path = format!("/panels/{index}");
            if index > 0 {
                let message = "there is a volume panel already";
                found.push(Violation::new(path, "duplicate_panel", message));
            } else if self.candles.v.is_none() {
                let message = "the volume panel needs the column candles.v";
                found.push(Violation::new(path, "volume_missing", message));
            }
        }
    }
}

fn in_range(path: &str, value: u32, least: u32, most: u32, found: &mut Vec<Violation>) {
    if !(least..=most).contains(&value) {
        let message = format!("{value} is not between {least} and {most}");
        found.push(Violation::new(path, "out_of_range", message));
    }
}

fn at_most(path: &str, count: usize, most: usize, found: &mut Vec<Violation>) {
    if count > most {
        let message = format!("{count} entries, at most {most} are allowed");
        found.push(Violation::new(path, "too_many", message));
    }
}

fn check_symbol(symbol: &str, found: &mut Vec<Violation>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:^=/&- ".contains(c);
    let blank = symbol.trim().is_empty();
    if blank || symbol.chars().count() > MAX_SYMBOL_CHARS || !symbol.chars().all(allowed) {
        let message = "a symbol is 1 to 32 of A-Z a-z 0-9 . _ : ^ = / & - and blank";
        found.push(Violation::new("/symbol", "symbol_invalid", message));
    }
}

fn check_overlays(overlays: &[Overlay], found: &mut Vec<Violation>) {
    at_most("/overlays", overlays.len(), MAX_OVERLAYS, found);
    for (index, Overlay::Sma { period }) in overlays.iter().enumerate().take(MAX_OVERLAYS) {
        in_range(&format!("/overlays/{index}/period"), *period, 1, MAX_PERIOD, found);
    }
}

/// Characters that turn the direction of text (Unicode UAX #9), so that a title reads as
/// something else than it says.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check_title(path: &str, title: Option<&str>, found: &mut Vec<Violation>) {
    let Some(title) = title else { return };
    let chars = title.chars().count();
    if chars > MAX_TITLE_CHARS {
        let message = format!("{chars} characters, at most {MAX_TITLE_CHARS} are allowed");
        found.push(Violation::new(path, "too_long", message));
        return;
    }
    let control = title.chars().find(|&c| c.is_control() || is_bidi_control(c));
    if let Some(c) = control {
        let message = format!("holds the control character U+{:04X}", u32::from(c));
        found.push(Violation::new(path, "control_character", message));
        return;
    }
    let missing = missing_glyphs(title);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().take(8).map(|&c| format!("{c} (U+{:04X})", u32::from(c))).collect();
        let message = format!("the font has no glyph for {}", names.join(", "));
        found.push(Violation::new(path, "glyph_missing", message));
    }
}

fn check_time_zone(name: &str, found: &mut Vec<Violation>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    let well_formed = name.len() <= MAX_ZONE_CHARS && name.chars().all(allowed);
    if !well_formed || jiff::tz::TimeZone::get(name).is_err() {
        let message = "not the IANA name of a time zone, such as America/New_York";
        found.push(Violation::new("/time_zone", "unknown_time_zone", message));
    }
}

fn check_candles(candles: &Candles, found: &mut Vec<Violation>) {
    let bars = candles.t.len();
    if bars == 0 {
        found.push(Violation::new("/candles/t", "empty", "there is no bar"));
        return;
    }
    if bars > ChartArgs::MAX_BARS {
        let message = format!("more than {} bars", ChartArgs::MAX_BARS);
        found.push(Violation::new("/candles", "too_many_bars", message));
        return;
    }
    let columns = [
        ("t", Some(&candles.t)),
        ("o", Some(&candles.o)),
        ("h", Some(&candles.h)),
        ("l", Some(&candles.l)),
        ("c", Some(&candles.c)),
        ("v", candles.v.as_ref()),
    ];
    let columns = columns.into_iter().filter_map(|(name, column)| Some((name, column?)));
    let before = found.len();
    for (name, column) in columns {
        check_column(name, column, bars, found);
    }
    check_times(&candles.t, found);
    if found.len() == before {
        check_bodies(candles, found);
    }
}

fn check_column(name: &str, column: &Column, bars: usize, found: &mut Vec<Violation>) {
    if column.len() != bars {
        let message = format!("{} entries, but t has {bars}", column.len());
        found.push(Violation::new(format!("/candles/{name}"), "unequal_lengths", message));
    }
    if let Some((index, what)) = column.fault() {
        let message = format!("candles.{name}[{index}] is {what}, not a finite number");
        found.push(Violation::new(format!("/candles/{name}/{index}"), "not_finite", message));
        return;
    }
    let most = match name {
        "t" => f64::INFINITY,
        "v" => MAX_VOLUME,
        _ => MAX_PRICE,
    };
    if let Some(index) = column.iter().position(|value| value.abs() > most) {
        let message = format!("candles.{name}[{index}] is {:e}, beyond {most:e}", column[index]);
        found.push(Violation::new(format!("/candles/{name}/{index}"), "out_of_range", message));
    }
    let negative = column.iter().position(|value| name == "v" && *value < 0.0);
    if let Some(index) = negative {
        let message = format!("candles.v[{index}] is {}", column[index]);
        found.push(Violation::new(format!("/candles/v/{index}"), "negative_volume", message));
    }
}

fn check_times(times: &Column, found: &mut Vec<Violation>) {
    if times.fault().is_some() {
        return;
    }
    // Years 1 to 9999, with a month to spare for zones and for the bar before the first.
    const EARLIEST_MS: f64 = -62_132_400_000_000.0;
    const LATEST_MS: f64 = 253_399_000_000_000.0;
    let is_time = |t: &f64| t.fract() == 0.0 && (EARLIEST_MS..=LATEST_MS).contains(t);
    if let Some(index) = times.iter().position(|t| !is_time(t)) {
        let message = format!("candles.t[{index}] is {}, not whole ms UTC", times[index]);
        found.push(Violation::new(format!("/candles/t/{index}"), "time_invalid", message));
        return;
    }
    if let Some(index) = times.windows(2).position(|pair| pair[0] >= pair[1]) {
        let index = index + 1;
        let message = format!("candles.t[{index}] is not after the bar before it");
        found.push(Violation::new(format!("/candles/t/{index}"), "not_rising", message));
    }
}

fn check_bodies(candles: &Candles, found: &mut Vec<Violation>) {
    let Candles { o, h, l, c, .. } = candles;
    let too_high = (0..o.len()).find(|&i| l[i] > o[i].min(c[i]));
    if let Some(i) = too_high {
        let message = format!("candles.l[{i}] is {}, above the open or the close", l[i]);
        found.push(Violation::new(format!("/candles/l/{i}"), "low_above_body", message));
    }
    let too_low = (0..o.len()).find(|&i| h[i] < o[i].max(c[i]));
    if let Some(i) = too_low {
        let message = format!("candles.h[{i}] is {}, below the open or the close", h[i]);
        found.push(Violation::new(format!("/candles/h/{i}"), "high_below_body", message));
    }
}
