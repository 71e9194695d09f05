//! Overlays and panels, computed: what each draws, says and answers.

use jiff::civil::DateTime;

use super::style::Style;
use crate::args::{Candles, Overlay, PanelKind, VwapAnchor};
use crate::indicator::{self as ta, Series};
use crate::scene::Color;

/// How a number of a study is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figures {
    /// As a price.
    Price,
    /// As a volume, `2.18M`.
    Volume,
    /// With so many decimals.
    Decimals(usize),
}

/// One thing a study draws. Every series has a value for each bar of the whole job at first
/// ([`Study::keep_from`] cuts it to the visible ones) and may reach beyond the last bar.
#[derive(Debug, Clone)]
pub(super) enum Plot {
    /// A line; it breaks where there is no value.
    Line { values: Series, color: Color },
    /// The area between two lines. `flipped` is its colour where `upper` lies below `lower`.
    Band { upper: Series, lower: Series, color: Color, flipped: Color },
    /// Columns that stand on `base`, each in its colour.
    Columns { values: Series, colors: Vec<Color>, base: f64 },
    /// The area between two values, over the whole width.
    Stripe { low: f64, high: f64, color: Color },
    /// A dashed line over the whole width.
    Rule { value: f64 },
}

/// A study, ready to draw.
#[derive(Debug, Clone)]
pub(super) struct Study {
    /// What the legend calls it.
    pub(super) name: String,
    /// Each value the legend shows, as an index into `series`, and its colour.
    pub(super) legend: Vec<(usize, Color)>,
    pub(super) plots: Vec<Plot>,
    /// The computed columns, by name, unshifted.
    pub(super) series: Vec<(String, Series)>,
    pub(super) figures: Figures,
    /// A fixed range of values, for a panel that has one.
    pub(super) range: Option<(f64, f64)>,
    /// Bars it reaches beyond the last one.
    pub(super) ahead: usize,
}

impl Study {
    fn new(name: String, figures: Figures) -> Self {
        Self { name, legend: Vec::new(), plots: Vec::new(), series: Vec::new(), figures, range: None, ahead: 0 }
    }

    /// Adds a column, its line, and its value in the legend.
    fn line(mut self, name: impl Into<String>, values: Series, color: Color) -> Self {
        self.legend.push((self.series.len(), color));
        self.series.push((name.into(), values.clone()));
        self.plots.push(Plot::Line { values, color });
        self
    }

    /// Two dashed lines and the stripe between them.
    fn bands(mut self, [low, high]: [f64; 2], color: Color) -> Self {
        self.plots.push(Plot::Stripe { low, high, color: Style::pale(color, 18) });
        self.plots.extend([low, high].map(|value| Plot::Rule { value }));
        self.range = Some((0.0, 100.0));
        self
    }

    /// Whether it has no value at all.
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|(_, values)| values.iter().all(Option::is_none))
    }

    /// Drops everything before bar `first`.
    pub(super) fn keep_from(&mut self, first: usize) {
        let cut = |values: &mut Series| drop(values.drain(..first.min(values.len())));
        for plot in &mut self.plots {
            match plot {
                Plot::Line { values, .. } => cut(values),
                Plot::Band { upper, lower, .. } => [upper, lower].into_iter().for_each(cut),
                Plot::Columns { values, colors, .. } => {
                    cut(values);
                    colors.drain(..first.min(colors.len()));
                }
                Plot::Stripe { .. } | Plot::Rule { .. } => {}
            }
        }
        self.series.iter_mut().for_each(|(_, values)| cut(values));
    }

    /// Every value it draws as a line or a band's edge.
    pub(super) fn drawn(&self) -> impl Iterator<Item = f64> {
        self.plots
            .iter()
            .flat_map(|plot| match plot {
                Plot::Line { values, .. } | Plot::Columns { values, .. } => [values.as_slice(), &[]],
                Plot::Band { upper, lower, .. } => [upper.as_slice(), lower.as_slice()],
                Plot::Stripe { .. } | Plot::Rule { .. } => [&[] as &[_], &[]],
            })
            .flatten()
            .flatten()
            .copied()
    }
}

/// The bars a study is computed from.
pub(super) struct Source<'a> {
    pub(super) candles: &'a Candles,
    /// When each bar opened, in the zone it is shown in.
    pub(super) times: &'a [DateTime],
    pub(super) intraday: bool,
    pub(super) style: &'a Style,
}

/// A number as a name shows it: `2`, `2.5`.
fn plain(value: f64) -> String {
    value.to_string()
}

impl Source<'_> {
    /// The study of an overlay, the `index`-th.
    pub(super) fn overlay(&self, overlay: &Overlay, index: usize) -> Study {
        let (candles, color) = (self.candles, self.style.series[index % self.style.series.len()]);
        let close: &[f64] = &candles.c;
        let average = |letters: &str, period: u32, values| {
            let key = format!("{}_{period}", letters.to_lowercase());
            Study::new(format!("{letters} {period}"), Figures::Price).line(key, values, color)
        };
        match *overlay {
            Overlay::Sma { period } => average("SMA", period, ta::sma(close, period as usize)),
            Overlay::Ema { period } => average("EMA", period, ta::ema(close, period)),
            Overlay::Wma { period } => average("WMA", period, ta::wma(close, period)),
            Overlay::Bbands { period, k } => {
                let bands = ta::bbands(close, period, k);
                self.channel(format!("BB {period} {}", plain(k)), &format!("bb_{period}"), bands, color)
            }
            Overlay::Donchian { period } => {
                let bands = ta::donchian(candles, period);
                self.channel(format!("Donchian {period}"), &format!("donchian_{period}"), bands, color)
            }
            Overlay::Keltner { period, atr_period, k } => {
                let bands = ta::keltner(candles, period, atr_period, k);
                self.channel(format!("Keltner {period} {}", plain(k)), &format!("keltner_{period}"), bands, color)
            }
            Overlay::Vwap { anchor } => {
                let values = ta::vwap(candles, |bar| self.anchored(anchor, bar));
                Study::new("VWAP".to_owned(), Figures::Price).line("vwap", values, color)
            }
            Overlay::Ichimoku { tenkan, kijun, senkou } => self.ichimoku(tenkan, kijun, senkou),
            Overlay::Supertrend { period, multiplier } => self.supertrend(period, multiplier),
        }
    }

    /// Whether a volume-weighted average starts anew at a bar.
    fn anchored(&self, anchor: VwapAnchor, bar: usize) -> bool {
        let (before, at) = (self.times[bar - 1], self.times[bar]);
        let month = (before.year(), before.month()) != (at.year(), at.month());
        match anchor {
            VwapAnchor::Session if self.intraday => before.date() != at.date(),
            VwapAnchor::Session | VwapAnchor::Month => month,
            VwapAnchor::Year => before.year() != at.year(),
            VwapAnchor::Start => false,
        }
    }

    fn channel(&self, name: String, key: &str, [upper, middle, lower]: [Series; 3], color: Color) -> Study {
        let fill = Style::pale(color, 16);
        let mut study = Study::new(name, Figures::Price);
        study.plots.push(Plot::Band { upper: upper.clone(), lower: lower.clone(), color: fill, flipped: fill });
        let edge = color.over(self.style.background, 0.7);
        let study = study.line(format!("{key}_upper"), upper, edge);
        let study = study.line(format!("{key}_middle"), middle, color);
        study.line(format!("{key}_lower"), lower, edge)
    }

    fn ichimoku(&self, tenkan: u32, kijun: u32, senkou: u32) -> Study {
        let [conversion, base, span_a, span_b] = ta::ichimoku(self.candles, tenkan, kijun, senkou);
        let (style, shift) = (self.style, kijun as usize);
        let ahead = |values: &Series| vec![None; shift].into_iter().chain(values.iter().copied()).collect::<Series>();
        let (a, b) = (ahead(&span_a), ahead(&span_b));
        let closes = self.candles.c.iter().skip(shift).map(|close| Some(*close));
        let lagging: Series = closes.chain(std::iter::repeat_n(None, shift)).take(self.candles.c.len()).collect();
        let (up, down) = (style.up, style.down);
        let mut study = Study::new(format!("Ichimoku {tenkan} {kijun} {senkou}"), Figures::Price);
        study.plots.push(Plot::Band {
            upper: a.clone(),
            lower: b.clone(),
            color: Style::pale(up, 34),
            flipped: Style::pale(down, 34),
        });
        let pale = |color: Color| color.over(style.background, 0.55);
        study.plots.push(Plot::Line { values: a, color: pale(up) });
        study.plots.push(Plot::Line { values: b, color: pale(down) });
        study.plots.push(Plot::Line { values: lagging, color: style.muted });
        let study = study.line("ichimoku_conversion", conversion, style.series[0]);
        let mut study = study.line("ichimoku_base", base, style.series[1]);
        study.series.push(("ichimoku_span_a".to_owned(), span_a));
        study.series.push(("ichimoku_span_b".to_owned(), span_b));
        study.ahead = shift;
        study
    }

    fn supertrend(&self, period: u32, multiplier: f64) -> Study {
        let (line, rising) = ta::supertrend(self.candles, period, multiplier);
        let side = |wanted: bool| -> Series {
            line.iter().zip(&rising).map(|(value, up)| value.filter(|_| *up == wanted)).collect()
        };
        let (up, down) = (self.style.up, self.style.down);
        let mut study = Study::new(format!("SuperTrend {period} {}", plain(multiplier)), Figures::Price);
        study.plots.push(Plot::Line { values: side(true), color: up });
        study.plots.push(Plot::Line { values: side(false), color: down });
        let now = if rising.last() == Some(&true) { up } else { down };
        study.legend.push((0, now));
        study.series.push((format!("supertrend_{period}"), line));
        study
    }

    /// The study of a panel.
    pub(super) fn panel(&self, panel: &PanelKind) -> Study {
        let (candles, colors) = (self.candles, &self.style.series);
        match *panel {
            PanelKind::Volume {} => self.volume(),
            PanelKind::Rsi { period, bands } => Study::new(format!("RSI {period}"), Figures::Decimals(2))
                .bands(bands, colors[2])
                .line(format!("rsi_{period}"), ta::rsi(&candles.c, period), colors[2]),
            PanelKind::Macd { fast, slow, signal } => self.macd(fast, slow, signal),
            PanelKind::Stoch { k, smooth, d, bands } => {
                let [slow_k, slow_d] = ta::stoch(candles, k, smooth, d);
                Study::new(format!("Stoch {k} {smooth} {d}"), Figures::Decimals(2))
                    .bands(bands, colors[0])
                    .line("stoch_k", slow_k, colors[0])
                    .line("stoch_d", slow_d, colors[1])
            }
            PanelKind::Atr { period } => Study::new(format!("ATR {period}"), Figures::Price).line(
                format!("atr_{period}"),
                ta::atr(candles, period),
                colors[4],
            ),
            PanelKind::Obv {} => Study::new("OBV".to_owned(), Figures::Volume).line("obv", ta::obv(candles), colors[0]),
            PanelKind::Adx { period } => {
                let mut study = Study::new(format!("ADX {period}"), Figures::Decimals(2)).line(
                    format!("adx_{period}"),
                    ta::adx(candles, period),
                    colors[4],
                );
                study.plots.insert(0, Plot::Rule { value: 25.0 });
                study
            }
            PanelKind::Cci { period } => {
                let mut study = Study::new(format!("CCI {period}"), Figures::Decimals(2)).line(
                    format!("cci_{period}"),
                    ta::cci(candles, period),
                    colors[0],
                );
                let stripe = Plot::Stripe { low: -100.0, high: 100.0, color: Style::pale(colors[0], 18) };
                study.plots.splice(0..0, [stripe, Plot::Rule { value: -100.0 }, Plot::Rule { value: 100.0 }]);
                study
            }
            PanelKind::Mfi { period, bands } => Study::new(format!("MFI {period}"), Figures::Decimals(2))
                .bands(bands, colors[3])
                .line(format!("mfi_{period}"), ta::mfi(candles, period), colors[3]),
        }
    }

    fn volume(&self) -> Study {
        let candles = self.candles;
        let volumes = candles.v.as_deref().unwrap_or_default();
        let values: Series = volumes.iter().map(|volume| Some(*volume)).collect();
        let rising = |bar: usize| candles.c[bar] >= candles.o[bar];
        let colors = (0..values.len()).map(|bar| self.style.volume(rising(bar))).collect();
        let last = candles.c.len().checked_sub(1).is_some_and(rising);
        let mut study = Study::new("Volume".to_owned(), Figures::Volume);
        study.legend.push((0, self.style.bar(last)));
        study.series.push(("volume".to_owned(), values.clone()));
        study.plots.push(Plot::Columns { values, colors, base: 0.0 });
        study
    }

    fn macd(&self, fast: u32, slow: u32, signal: u32) -> Study {
        let [line, average, histogram] = ta::macd(&self.candles.c, fast, slow, signal);
        let (style, ground) = (self.style, self.style.background);
        // Full colour while it grows away from nothing, paler while it comes back.
        let color = |bar: usize| {
            let value = histogram[bar].unwrap_or(0.0);
            let before = bar.checked_sub(1).and_then(|bar| histogram[bar]).unwrap_or(0.0);
            let grows = if value >= 0.0 { value >= before } else { value <= before };
            style.bar(value >= 0.0).over(ground, if grows { 0.75 } else { 0.38 })
        };
        let colors = (0..histogram.len()).map(color).collect();
        let mut study = Study::new(format!("MACD {fast} {slow} {signal}"), Figures::Price);
        study.plots.push(Plot::Columns { values: histogram.clone(), colors, base: 0.0 });
        let study = study.line("macd", line, style.series[0]);
        let mut study = study.line("macd_signal", average, style.series[1]);
        let last = histogram.last().copied().flatten().unwrap_or(0.0);
        study.legend.insert(0, (study.series.len(), style.bar(last >= 0.0)));
        study.series.push(("macd_histogram".to_owned(), histogram));
        study
    }
}
