//! Everything that can be wrong with well-formed args.
//!
//! Of a fault that runs through a column only the first bar is named: 50,000 nulls are one
//! violation.

use windlass_jobs::Violation;

use super::{Brick, Candles, ChartArgs, ChartType, Column, Format, Overlay, PanelKind, PriceMode, Source, check_marks};
use crate::renko;
use crate::{font, kept};

/// Longest `candles_key`: the longest symbol, a colon and a timeframe.
const MAX_KEY_BYTES: usize = 40;
/// The largest price, and the negative of the smallest. Beyond it the steps of a 64-bit
/// number are coarser than any tick.
pub const MAX_PRICE: f64 = 1e15;
const MAX_VOLUME: f64 = 1e18;
const MAX_OVERLAYS: usize = 10;
const MAX_PANELS: usize = 6;
const MAX_PERIOD: u32 = 1_000;
const MAX_SYMBOL_CHARS: usize = 32;
const MAX_TITLE_CHARS: usize = 128;
const MAX_WATERMARK_CHARS: usize = 64;
const MAX_ZONE_CHARS: usize = 64;

impl ChartArgs {
    /// Everything wrong with the args, in document order; empty when they are right.
    ///
    /// *Codes*, each stable: `symbol_invalid`; for bars `empty`, `too_many_bars`,
    /// `unequal_lengths`, `not_finite`, `out_of_range`, `time_invalid`, `not_rising`,
    /// `low_above_body`, `high_below_body`, `negative_volume`, `not_positive` (logarithmic axis);
    /// `candles_missing`, `candles_twice`, `blob_invalid`, `key_invalid` for their source; for numbers
    /// `out_of_range`, `too_many`, `too_many_pixels`; for studies `duplicate_panel`,
    /// `volume_missing`; `renko_unused`, `brick_too_small`; for marks `position_invalid`,
    /// `price_missing`, `price_unused`, `unknown_pattern`; for texts `too_long`,
    /// `control_character`, `glyph_missing`; `unknown_time_zone`; for the file `effort_unused`,
    /// `quality_unused`, `lossy_unused`.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        check_symbol(&self.symbol, &mut found);
        self.check_source(&mut found);
        let most = Self::MAX_VISIBLE_BARS;
        if let Some(bars) = self.visible_bars {
            in_range("/visible_bars", bars, 2, most, &mut found);
        }
        self.check_renko(&mut found);
        self.check_overlays(&mut found);
        self.check_panels(&mut found);
        check_marks::check(self, &mut found);
        check_text("/title", self.title.as_deref(), MAX_TITLE_CHARS, &mut found);
        check_text("/subtitle", self.subtitle.as_deref(), MAX_TITLE_CHARS, &mut found);
        check_text("/watermark", self.watermark.as_deref(), MAX_WATERMARK_CHARS, &mut found);
        check_time_zone(&self.time_zone, &mut found);
        if let Some(tick) = self.price_scale.tick_size
            && !(1e-12..=1e12).contains(&tick)
        {
            let message = format!("{tick} is not between 1e-12 and 1e12");
            found.push(Violation::new("/price_scale/tick_size", "out_of_range", message));
        }
        self.check_size(&mut found);
        self.check_file(&mut found);
        found
    }

    fn check_size(&self, found: &mut Vec<Violation>) {
        in_range("/width_px", self.width_px, 160, 4096, found);
        in_range("/height_px", self.height_px, 120, 4096, found);
        in_range("/scale", self.scale, 1, 3, found);
        if self.pixels() > Self::MAX_PIXELS {
            let message =
                format!("width_px × height_px × scale² is {}, at most {} are allowed", self.pixels(), Self::MAX_PIXELS);
            found.push(Violation::new("/scale", "too_many_pixels", message));
        }
    }

    /// Options of one format with another: refused, for they would be ignored.
    fn check_file(&self, found: &mut Vec<Violation>) {
        let name = self.format.name();
        if self.effort.is_some() && self.format != Format::Png {
            found.push(Violation::new("/effort", "effort_unused", format!("{name} has no effort, only png has")));
        }
        if self.lossy && self.format != Format::Webp {
            found.push(Violation::new("/lossy", "lossy_unused", format!("{name} cannot be lossy, only webp can")));
        }
        if let Some(quality) = self.quality {
            in_range("/quality", u32::from(quality), 1, 100, found);
            let used = self.format == Format::Jpeg || self.format == Format::Webp && self.lossy;
            if !used {
                let message = format!("{name} is exact and has no quality; jpeg has, and webp with lossy: true");
                found.push(Violation::new("/quality", "quality_unused", message));
            }
        }
        if let Some(hours) = self.store.max_age_hours
            && !(0.01..=8760.0).contains(&hours)
        {
            let message = format!("{hours} is not between 0.01 and 8760");
            found.push(Violation::new("/store/max_age_hours", "out_of_range", message));
        }
        if let Some(width) = self.store.thumbnail_width_px {
            in_range("/store/thumbnail_width_px", width, 64, 640, found);
        }
    }

    fn check_source(&self, found: &mut Vec<Violation>) {
        match (&self.source, self.candles.is_empty()) {
            (None, true) if self.candles == Candles::default() => {
                let message = "either candles or a source is needed";
                found.push(Violation::new("/candles", "candles_missing", message));
            }
            (None, _) => check_candles(self, found),
            (Some(_), false) => {
                let message = "candles and a source: one of them is needed, not both";
                found.push(Violation::new("/source", "candles_twice", message));
            }
            (Some(source @ Source::CandlesBlob(_)), true) => {
                if source.blob().is_none() {
                    let message = "not sha256: and 64 lower-case hex digits";
                    found.push(Violation::new("/source/candles_blob", "blob_invalid", message));
                }
            }
            (Some(Source::CandlesKey(key)), true) => {
                if key.len() > MAX_KEY_BYTES || kept::split(key).is_none() {
                    let message = "not a symbol, a colon and a timeframe, such as EURUSD:1h";
                    found.push(Violation::new("/source/candles_key", "key_invalid", message));
                }
            }
        }
    }

    fn check_renko(&self, found: &mut Vec<Violation>) {
        let Some(asked) = self.renko else {
            return;
        };
        if self.chart_type != ChartType::Renko {
            found.push(Violation::new("/renko", "renko_unused", "only the type renko has bricks"));
        }
        let fits = match asked.brick {
            Brick::Fixed(height) => (1e-12..=MAX_PRICE).contains(&height),
            Brick::Atr(bars) => (2..=MAX_PERIOD).contains(&bars),
        };
        if !fits {
            let message = "a brick is 1e-12 to 1e15 high, or atr:2 to atr:1000";
            found.push(Violation::new("/renko/brick", "out_of_range", message));
        } else if found.is_empty() && !self.candles.is_empty() && renko::bricks(self).is_none() {
            let message = format!("bricks this small are more than {}", renko::MAX_BRICKS);
            found.push(Violation::new("/renko/brick", "brick_too_small", message));
        }
    }

    fn has_volume(&self) -> bool {
        self.candles.v.is_some() || self.candles.is_empty()
    }

    fn check_overlays(&self, found: &mut Vec<Violation>) {
        at_most("/overlays", self.overlays.len(), MAX_OVERLAYS, found);
        for (index, overlay) in self.overlays.iter().enumerate().take(MAX_OVERLAYS) {
            check_overlay(&format!("/overlays/{index}"), overlay, found);
            if overlay.needs_volume() && !self.has_volume() {
                let message = "the overlay vwap needs the column candles.v";
                found.push(Violation::new(format!("/overlays/{index}"), "volume_missing", message));
            }
        }
    }

    fn check_panels(&self, found: &mut Vec<Violation>) {
        at_most("/panels", self.panels.len(), MAX_PANELS, found);
        for (index, panel) in self.panels.iter().enumerate().take(MAX_PANELS) {
            let (path, name) = (format!("/panels/{index}"), panel.kind.name());
            if self.panels[..index].iter().any(|other| other.kind.name() == name) {
                let message = format!("there is a panel {name} already");
                found.push(Violation::new(path.clone(), "duplicate_panel", message));
            }
            if panel.kind.needs_volume() && !self.has_volume() {
                let message = format!("the panel {name} needs the column candles.v");
                found.push(Violation::new(path.clone(), "volume_missing", message));
            }
            in_span(&format!("{path}/weight"), panel.weight, 0.25, 4.0, found);
            check_panel(&path, &panel.kind, found);
        }
    }
}

fn check_overlay(path: &str, overlay: &Overlay, found: &mut Vec<Violation>) {
    let mut bars = |name: &str, value: u32, least: u32| {
        in_range(&format!("{path}/{name}"), value, least, MAX_PERIOD, found);
    };
    let factor = match *overlay {
        Overlay::Sma { period } => {
            bars("period", period, 1);
            None
        }
        Overlay::Ema { period } | Overlay::Wma { period } | Overlay::Donchian { period } => {
            bars("period", period, 2);
            None
        }
        Overlay::Vwap { .. } => None,
        Overlay::Bbands { period, k } => {
            bars("period", period, 2);
            Some(("k", k, 10.0))
        }
        Overlay::Ichimoku { tenkan, kijun, senkou } => {
            bars("tenkan", tenkan, 2);
            bars("kijun", kijun, 2);
            bars("senkou", senkou, 2);
            None
        }
        Overlay::Supertrend { period, multiplier } => {
            bars("period", period, 2);
            Some(("multiplier", multiplier, 100.0))
        }
        Overlay::Keltner { period, atr_period, k } => {
            bars("period", period, 2);
            bars("atr_period", atr_period, 1);
            Some(("k", k, 10.0))
        }
    };
    if let Some((name, value, most)) = factor {
        in_span(&format!("{path}/{name}"), value, 0.1, most, found);
    }
}

fn check_panel(path: &str, panel: &PanelKind, found: &mut Vec<Violation>) {
    let mut bars = |name: &str, value: u32, least: u32| {
        in_range(&format!("{path}/{name}"), value, least, MAX_PERIOD, found);
    };
    let bands = match *panel {
        PanelKind::Volume {} | PanelKind::Obv {} => None,
        PanelKind::Rsi { period, bands } | PanelKind::Mfi { period, bands } => {
            bars("period", period, 2);
            Some(bands)
        }
        PanelKind::Macd { fast, slow, signal } => {
            bars("fast", fast, 2);
            bars("slow", slow, 2);
            bars("signal", signal, 1);
            if fast >= slow {
                let message = format!("{fast} bars are not fewer than the {slow} of slow");
                found.push(Violation::new(format!("{path}/fast"), "out_of_range", message));
            }
            None
        }
        PanelKind::Stoch { k, smooth, d, bands } => {
            bars("k", k, 1);
            bars("smooth", smooth, 1);
            bars("d", d, 1);
            Some(bands)
        }
        PanelKind::Atr { period } => {
            bars("period", period, 1);
            None
        }
        PanelKind::Adx { period } | PanelKind::Cci { period } => {
            bars("period", period, 2);
            None
        }
    };
    if let Some([low, high]) = bands
        && !(0.0 <= low && low < high && high <= 100.0)
    {
        let message = format!("{low} and {high} are not two rising numbers from 0 to 100");
        found.push(Violation::new(format!("{path}/bands"), "out_of_range", message));
    }
}

/// Refuses what is not a number from `least` to `most`.
fn in_span(path: &str, value: f64, least: f64, most: f64, found: &mut Vec<Violation>) {
    if !(least..=most).contains(&value) {
        let message = format!("{value} is not between {least} and {most}");
        found.push(Violation::new(path, "out_of_range", message));
    }
}

fn in_range(path: &str, value: u32, least: u32, most: u32, found: &mut Vec<Violation>) {
    if !(least..=most).contains(&value) {
        let message = format!("{value} is not between {least} and {most}");
        found.push(Violation::new(path, "out_of_range", message));
    }
}

/// Refuses a list of more than `most` entries.
pub(super) fn at_most(path: &str, count: usize, most: usize, found: &mut Vec<Violation>) {
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

/// Characters that turn the direction of text (Unicode UAX #9), so that a title reads as
/// something else than it says.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Refuses a text that is too long, turns the direction of writing, or cannot be drawn.
pub(crate) fn check_text(path: &str, title: Option<&str>, most: usize, found: &mut Vec<Violation>) {
    let Some(title) = title else { return };
    let chars = title.chars().count();
    if chars > most {
        let message = format!("{chars} characters, at most {most} are allowed");
        found.push(Violation::new(path, "too_long", message));
        return;
    }
    let control = title.chars().find(|&c| c.is_control() || is_bidi_control(c));
    if let Some(c) = control {
        let message = format!("holds the control character U+{:04X}", u32::from(c));
        found.push(Violation::new(path, "control_character", message));
        return;
    }
    let missing = font::undrawable(title);
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

fn check_candles(args: &ChartArgs, found: &mut Vec<Violation>) {
    let candles = &args.candles;
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
        let lowest = candles.l.iter().position(|low| *low <= 0.0);
        if let Some(i) = lowest.filter(|_| args.price_scale.mode == PriceMode::Log) {
            let message = format!("candles.l[{i}] is {}, which has no place on a logarithmic axis", candles.l[i]);
            found.push(Violation::new(format!("/candles/l/{i}"), "not_positive", message));
        }
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
