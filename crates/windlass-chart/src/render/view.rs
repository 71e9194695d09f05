//! The part of the args that is drawn: visible bars, their times, their studies.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use windlass_jobs::Violation;

use super::steps;
use super::study::{Figures, Source, Study};
use super::style::Style;
use crate::args::{Candles, ChartArgs, ChartType, PriceMode};
use crate::indicator;
use crate::pattern;
use crate::renko::{self, Bricks};

/// A panel below the price.
pub(super) struct PanelView {
    pub(super) study: Study,
    pub(super) weight: f64,
}

/// The newest real bar, which the header and the last-price line tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastBar {
    pub(super) open: f64,
    pub(super) high: f64,
    pub(super) low: f64,
    pub(super) close: f64,
    /// The close ahead of it, which its change is counted from.
    pub(super) previous_close: Option<f64>,
    pub(super) at: DateTime,
}

impl LastBar {
    pub(super) fn rising(&self) -> bool {
        self.close >= self.open
    }
}

/// A candlestick pattern that was found.
pub(super) struct Found {
    /// The visible bar at which it ends.
    pub(super) bar: usize,
    pub(super) rising: bool,
    pub(super) label: &'static str,
}

/// What is drawn. Columns hold the visible bars only.
pub(super) struct View<'a> {
    pub(super) args: &'a ChartArgs,
    pub(super) style: Style,
    pub(super) open: Vec<f64>,
    pub(super) high: Vec<f64>,
    pub(super) low: Vec<f64>,
    pub(super) close: Vec<f64>,
    /// When each bar opened, in ms UTC.
    pub(super) stamps: Vec<f64>,
    /// When each bar opened, in the zone it is shown in.
    pub(super) times: Vec<DateTime>,
    /// When the bar ahead of the first visible one opened, or would have.
    pub(super) before: DateTime,
    /// The close of the bar ahead of the first visible one.
    pub(super) close_before: Option<f64>,
    pub(super) last_bar: LastBar,
    pub(super) overlays: Vec<Study>,
    pub(super) panels: Vec<PanelView>,
    pub(super) patterns: Vec<Found>,
    /// Bars of blank beyond the last one, for what is drawn ahead.
    pub(super) ahead: usize,
    /// How high a renko brick is.
    pub(super) brick: Option<f64>,
    /// Decimals of a price.
    pub(super) decimals: usize,
    pub(super) notes: Vec<String>,
}

/// No more blank ahead than this share of the bars.
const MOST_AHEAD: usize = 4;
/// Patterns drawn at most, the newest.
const MAX_PATTERNS: usize = 200;

impl<'a> View<'a> {
    /// The view of args that passed [`ChartArgs::check`].
    ///
    /// # Errors
    /// When there are more renko bricks than can be drawn.
    pub(super) fn of(args: &'a ChartArgs) -> Result<Self, Vec<Violation>> {
        let (candles, brick) = drawn_bars(args)?;
        let zone = zone_of(args);
        let times: Vec<DateTime> = candles.t.iter().map(|ms| local(*ms as i64, &zone)).collect();
        let bars = candles.t.len();
        let first = bars - args.visible_of(bars);
        let style = Style::for_args(args);
        let source = Source { candles: &candles, times: &times, intraday: args.interval.is_intraday(), style: &style };
        let mut notes = Vec::new();
        let mut overlays: Vec<Study> = args.overlays.iter().enumerate().map(|(i, o)| source.overlay(o, i)).collect();
        let panel = |asked: &crate::args::Panel| PanelView { study: source.panel(&asked.kind), weight: asked.weight };
        let mut panels: Vec<PanelView> = args.panels.iter().map(panel).collect();
        for study in overlays.iter_mut().chain(panels.iter_mut().map(|panel| &mut panel.study)) {
            if study.is_empty() {
                notes.push(format!("{} needs more bars than the {bars} there are", study.name));
            }
            study.keep_from(first);
        }
        let before = match first.checked_sub(1) {
            Some(index) => times[index],
            None => local((candles.t[0] - args.interval.length_ms() as f64) as i64, &zone),
        };
        let ahead = overlays.iter().map(|study| study.ahead).max().unwrap_or(0).min((bars - first) / MOST_AHEAD);
        let [open, high, low, close] = columns(args, &candles, first);
        let mut view = Self {
            args,
            open,
            high,
            low,
            close,
            stamps: candles.t[first..].to_vec(),
            before,
            close_before: first.checked_sub(1).map(|index| candles.c[index]),
            last_bar: last_bar(args, &zone),
            overlays,
            panels,
            patterns: Vec::new(),
            ahead,
            brick,
            decimals: 0,
            notes,
            times: times[first..].to_vec(),
            style,
        };
        view.find_patterns(&candles, first);
        view.decimals = view.price_decimals();
        view.note_missing_bars(bars);
        Ok(view)
    }

    pub(super) fn bars(&self) -> usize {
        self.close.len()
    }

    /// The index of the newest bar. There is at least one: an empty chart is refused.
    pub(super) fn last(&self) -> usize {
        self.bars() - 1
    }

    pub(super) fn rising(&self, bar: usize) -> bool {
        self.close[bar] >= self.open[bar]
    }

    /// The close of the bar before, which a hollow candle's colour is told from.
    pub(super) fn closed_before(&self, bar: usize) -> f64 {
        let before = bar.checked_sub(1).map(|bar| self.close[bar]).or(self.close_before);
        before.unwrap_or(self.open[bar])
    }

    /// Whether only the closes are drawn.
    pub(super) fn is_line(&self) -> bool {
        matches!(self.args.chart_type, ChartType::Line | ChartType::Area | ChartType::Baseline)
    }

    /// What the price axis counts percent from.
    pub(super) fn percent_base(&self) -> Option<f64> {
        let base = self.close[0];
        (self.args.price_scale.mode == PriceMode::Percent && base != 0.0).then_some(base)
    }

    /// The highest and lowest price of the bars.
    pub(super) fn extent(&self) -> (f64, f64) {
        let (low, high) = if self.is_line() { (&self.close, &self.close) } else { (&self.low, &self.high) };
        span(low.iter().chain(high).copied())
    }

    /// Which visible bar covers a time; `None` before the first. Bars after the last are the
    /// last.
    pub(super) fn bar_at(&self, t: f64) -> Option<usize> {
        self.stamps.partition_point(|stamp| *stamp <= t).checked_sub(1)
    }

    /// The place of a time in bars, with fractions; before the first and after the last bar by
    /// the interval's length.
    pub(super) fn place_of(&self, t: f64) -> f64 {
        let length = self.args.interval.length_ms() as f64;
        let Some(bar) = self.bar_at(t) else { return (t - self.stamps[0]) / length };
        let from = self.stamps[bar];
        let to = self.stamps.get(bar + 1).copied().unwrap_or(from + length);
        bar as f64 + if to > from { (t - from) / (to - from) } else { 0.0 }
    }

    fn find_patterns(&mut self, candles: &Candles, first: usize) {
        let wanted = self.args.patterns.iter().filter_map(|name| pattern::find(name));
        let mut found: Vec<Found> = Vec::new();
        for pattern in wanted {
            let bars = pattern.bars(candles).into_iter().filter(|(bar, _)| *bar >= first);
            found.extend(bars.map(|(bar, rising)| Found { bar: bar - first, rising, label: pattern.label }));
        }
        found.sort_by_key(|found| found.bar);
        if found.len() > MAX_PATTERNS {
            self.notes.push(format!("{} patterns were found, the newest {MAX_PATTERNS} are drawn", found.len()));
            found.drain(..found.len() - MAX_PATTERNS);
        }
        if found.is_empty() && !self.args.patterns.is_empty() {
            self.notes.push("none of the patterns was found in the visible bars".to_owned());
        }
        self.patterns = found;
    }

    fn price_decimals(&self) -> usize {
        if let Some(tick) = self.args.price_scale.tick_size {
            return steps::decimals_of(tick);
        }
        // The real prices: averaged ones have more decimals than anybody trades.
        let candles = &self.args.candles;
        let first = candles.c.len() - self.args.visible_of(candles.c.len());
        let columns = [&candles.o, &candles.h, &candles.l, &candles.c];
        let prices: Vec<f64> = columns.iter().flat_map(|column| &column[first..]).copied().collect();
        let (low, high) = span(prices.iter().copied());
        steps::usual_decimals(&prices, high - low)
    }

    /// The decimals a number of a study is written with.
    pub(super) fn figures(&self, figures: Figures) -> Figures {
        match figures {
            Figures::Price => Figures::Decimals(self.decimals),
            other => other,
        }
    }

    fn note_missing_bars(&mut self, bars: usize) {
        let wanted = self.args.visible_bars.map_or(0, |visible| visible as usize);
        if wanted > bars {
            let what = if self.brick.is_some() { "bricks" } else { "bars" };
            self.notes.push(format!("{wanted} {what} were asked for, there are {bars}"));
        }
        if self.args.price_scale.mode == PriceMode::Percent && self.close[0] == 0.0 {
            self.notes.push("the first close is 0: prices are shown instead of percent".to_owned());
        }
    }
}

/// The least and the greatest of some values.
pub(super) fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// The bars that are drawn and studied, and the height of a brick.
fn drawn_bars(args: &ChartArgs) -> Result<(Cow<'_, Candles>, Option<f64>), Vec<Violation>> {
    if args.chart_type != ChartType::Renko {
        return Ok((Cow::Borrowed(&args.candles), None));
    }
    let fail = || {
        let message = format!("bricks this small are more than {}", renko::MAX_BRICKS);
        vec![Violation::new("/renko/brick", "brick_too_small", message)]
    };
    let Bricks { height, candles } = renko::bricks(args).ok_or_else(fail)?;
    Ok((Cow::Owned(candles), Some(height)))
}

/// Opens, highs, lows and closes as they are drawn.
fn columns(args: &ChartArgs, candles: &Candles, first: usize) -> [Vec<f64>; 4] {
    if args.chart_type == ChartType::HeikinAshi {
        return indicator::heikin_ashi(candles).map(|column| column[first..].to_vec());
    }
    [&candles.o, &candles.h, &candles.l, &candles.c].map(|column| column[first..].to_vec())
}

fn last_bar(args: &ChartArgs, zone: &TimeZone) -> LastBar {
    let Candles { t, o, h, l, c, .. } = &args.candles;
    let last = t.len() - 1;
    LastBar {
        open: o[last],
        high: h[last],
        low: l[last],
        close: c[last],
        previous_close: last.checked_sub(1).map(|index| c[index]),
        at: local(t[last] as i64, zone),
    }
}

/// Dates are dates everywhere: only a time of day is shifted by a zone.
fn zone_of(args: &ChartArgs) -> TimeZone {
    let zone = args.interval.is_intraday().then(|| TimeZone::get(&args.time_zone).ok());
    zone.flatten().unwrap_or(TimeZone::UTC)
}

fn local(ms: i64, zone: &TimeZone) -> DateTime {
    let instant = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    zone.to_datetime(instant)
}
