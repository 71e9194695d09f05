//! The part of the args that is drawn: visible bars, their times, their averages.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::sma::sma;
use super::steps;
use super::style::Style;
use crate::args::{ChartArgs, Overlay};
use crate::scene::Color;

/// An overlay, ready to draw.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) color: Color,
    /// One value for each visible bar.
    pub(super) values: Vec<Option<f64>>,
}

/// What is drawn. Columns hold the visible bars only.
pub(super) struct View<'a> {
    pub(super) args: &'a ChartArgs,
    pub(super) style: &'static Style,
    pub(super) open: &'a [f64],
    pub(super) high: &'a [f64],
    pub(super) low: &'a [f64],
    pub(super) close: &'a [f64],
    /// Present when there is a volume panel.
    pub(super) volume: Option<&'a [f64]>,
    /// When each bar opened, in the zone it is shown in.
    pub(super) times: Vec<DateTime>,
    /// When the bar ahead of the first visible one opened, or would have.
    pub(super) before: DateTime,
    /// The close ahead of the last bar's, which its change is counted from.
    pub(super) previous_close: Option<f64>,
    pub(super) lines: Vec<Line>,
    /// Decimals of a price.
    pub(super) decimals: usize,
    pub(super) notes: Vec<String>,
}

impl<'a> View<'a> {
    /// The view of args that passed [`ChartArgs::check`].
    pub(super) fn of(args: &'a ChartArgs) -> Self {
        let candles = &args.candles;
        let bars = candles.t.len();
        let first = bars - args.visible();
        let style = Style::of(args.theme);
        let zone = zone_of(args);
        let time = |ms: f64| local(ms as i64, &zone);
        let before = match first.checked_sub(1) {
            Some(index) => time(candles.t[index]),
            None => time(candles.t[0] - args.interval.length_ms() as f64),
        };
        let mut view = Self {
            args,
            style,
            open: &candles.o[first..],
            high: &candles.h[first..],
            low: &candles.l[first..],
            close: &candles.c[first..],
            volume: None,
            times: candles.t[first..].iter().map(|ms| time(*ms)).collect(),
            before,
            previous_close: bars.checked_sub(2).map(|index| candles.c[index]),
            lines: Vec::new(),
            decimals: 0,
            notes: Vec::new(),
        };
        if !args.panels.is_empty() {
            view.volume = candles.v.as_ref().map(|volumes| &volumes[first..]);
        }
        view.add_lines(first);
        view.decimals = view.price_decimals();
        view.note_missing_bars(bars);
        view
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

    /// The highest and lowest price to show, averages included.
    pub(super) fn extent(&self) -> (f64, f64) {
        let averages = self.lines.iter().flat_map(|line| line.values.iter().flatten());
        let all = self.low.iter().chain(self.high).chain(averages);
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
    }

    fn add_lines(&mut self, first: usize) {
        let (args, style) = (self.args, self.style);
        for (Overlay::Sma { period }, color) in args.overlays.iter().zip(style.series) {
            // Over all bars: an average that starts at the visible edge would be another one.
            let values = sma(&args.candles.c, *period as usize).split_off(first);
            if values.iter().all(Option::is_none) {
                let bars = args.candles.t.len();
                self.notes.push(format!("sma {period} needs {period} bars, there are {bars}"));
            }
            self.lines.push(Line { name: format!("SMA {period}"), color, values });
        }
    }

    fn price_decimals(&self) -> usize {
        if let Some(tick) = self.args.price_scale.tick_size {
            return steps::decimals_of(tick);
        }
        let prices = [self.open, self.high, self.low, self.close].concat();
        let (low, high) = self.extent();
        steps::usual_decimals(&prices, high - low)
    }

    fn note_missing_bars(&mut self, bars: usize) {
        let wanted = self.args.visible_bars.map_or(0, |visible| visible as usize);
        if wanted > bars {
            self.notes.push(format!("{wanted} bars were asked for, there are {bars}"));
        }
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
