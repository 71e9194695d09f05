//! The args of the job kind `chart.render`, as a type.
//!
//! Never holds an option that is parsed and then ignored: an unknown field, kind, type or
//! format is refused by serde, a wrong value by [`ChartArgs::check`].

mod check;
mod column;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::encode::Effort;
pub use check::MAX_PRICE;
pub use column::Column;

/// What to draw.
///
/// *Shape*: a JSON object; `symbol`, `interval` and `candles` are required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartArgs {
    /// A label: 1–32 of `A-Z a-z 0-9 . _ : ^ = / & -` and blank.
    pub symbol: String,
    /// The time one bar covers: `1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d 1w 1mo`.
    pub interval: Interval,
    /// The bars, oldest first: 1–50,000.
    pub candles: Candles,
    /// How many of the newest bars are drawn, 2–5,000; older ones only feed the averages.
    /// Default: all but those the longest average needs before its first value.
    #[serde(default)]
    pub visible_bars: Option<u32>,
    /// How bars are drawn. Default `candle`.
    #[serde(default, rename = "type")]
    pub chart_type: ChartType,
    /// Lines over the price, at most 10. Default none.
    #[serde(default)]
    pub overlays: Vec<Overlay>,
    /// Panels below the price, at most 6, each kind once. Default none.
    #[serde(default)]
    pub panels: Vec<Panel>,
    /// A line above everything, at most 128 characters. Default none.
    #[serde(default)]
    pub title: Option<String>,
    /// A smaller line below the title, at most 128 characters. Default none.
    #[serde(default)]
    pub subtitle: Option<String>,
    /// The colours. Default `light`.
    #[serde(default)]
    pub theme: Theme,
    /// The language of month names and figures. Default and only value `en`.
    #[serde(default)]
    pub locale: Locale,
    /// The IANA name of the zone in which intraday times are shown. Default `UTC`. Days,
    /// weeks and months are dates and are never shifted.
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
    /// The price axis.
    #[serde(default)]
    pub price_scale: PriceScale,
    /// Whether the last close has a dotted line and a tag on the axis. Default true.
    #[serde(default = "yes")]
    pub last_price: bool,
    /// Whether overlays and panels are named, with their last value. Default true.
    #[serde(default = "yes")]
    pub legend: bool,
    /// Whether the grid is drawn. Default true.
    #[serde(default = "yes")]
    pub grid: bool,
    /// 160–4096. Default 1200.
    #[serde(default = "default_width_px")]
    pub width_px: u32,
    /// 120–4096. Default 800.
    #[serde(default = "default_height_px")]
    pub height_px: u32,
    /// Pixels of the image per pixel of layout, 1–3: 2 and 3 are for dense screens and
    /// print. `width_px` × `height_px` × `scale`² is at most 16.8 million. Default 1.
    #[serde(default = "default_scale")]
    pub scale: u32,
    /// The file format. Default and only value `png`.
    #[serde(default)]
    pub format: Format,
    /// What to spend on a small file. Default `balanced`.
    #[serde(default)]
    pub effort: Effort,
}

const DEFAULT_WIDTH_PX: u32 = 1200;
const DEFAULT_HEIGHT_PX: u32 = 800;
const DEFAULT_SCALE: u32 = 1;
const DEFAULT_TIME_ZONE: &str = "UTC";

const fn default_width_px() -> u32 {
    DEFAULT_WIDTH_PX
}

const fn default_height_px() -> u32 {
    DEFAULT_HEIGHT_PX
}

const fn default_scale() -> u32 {
    DEFAULT_SCALE
}

fn default_time_zone() -> String {
    DEFAULT_TIME_ZONE.to_owned()
}

const fn yes() -> bool {
    true
}

impl ChartArgs {
    /// The most bars a job may carry.
    pub const MAX_BARS: usize = 50_000;
    /// The most bars that are drawn.
    pub const MAX_VISIBLE_BARS: u32 = 5_000;
    /// The most pixels of an image: 16.8 million.
    pub const MAX_PIXELS: u64 = 16_800_000;

    /// A chart of `candles` with every default.
    #[must_use]
    pub fn new(symbol: impl Into<String>, interval: Interval, candles: Candles) -> Self {
        Self {
            symbol: symbol.into(),
            interval,
            candles,
            visible_bars: None,
            chart_type: ChartType::default(),
            overlays: Vec::new(),
            panels: Vec::new(),
            title: None,
            subtitle: None,
            theme: Theme::default(),
            locale: Locale::default(),
            time_zone: default_time_zone(),
            price_scale: PriceScale::default(),
            last_price: true,
            legend: true,
            grid: true,
            width_px: DEFAULT_WIDTH_PX,
            height_px: DEFAULT_HEIGHT_PX,
            scale: DEFAULT_SCALE,
            format: Format::default(),
            effort: Effort::default(),
        }
    }

    /// How many bars are drawn: [`ChartArgs::visible_bars`] or its default, and never more
    /// than there are.
    #[must_use]
    pub fn visible(&self) -> usize {
        let bars = self.candles.t.len();
        let longest = self.overlays.iter().map(|Overlay::Sma { period }| *period as usize).max();
        let beyond_warm_up = bars.saturating_sub(longest.unwrap_or(1).saturating_sub(1));
        let wanted = match self.visible_bars {
            Some(visible) => visible as usize,
            None if beyond_warm_up >= 2 => beyond_warm_up,
            None => bars,
        };
        wanted.min(bars).min(Self::MAX_VISIBLE_BARS as usize)
    }

    /// Pixels of the image.
    #[must_use]
    pub fn pixels(&self) -> u64 {
        let scale = u64::from(self.scale);
        let area = u64::from(self.width_px).saturating_mul(u64::from(self.height_px));
        area.saturating_mul(scale).saturating_mul(scale)
    }
}

/// The bars, as columns of equal length, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candles {
    /// When each bar opened: milliseconds since 1970 UTC, rising.
    pub t: Column,
    /// Opening prices.
    pub o: Column,
    /// Highest prices.
    pub h: Column,
    /// Lowest prices.
    pub l: Column,
    /// Closing prices.
    pub c: Column,
    /// Volumes, not negative; may be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v: Option<Column>,
}

/// The time one bar covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interval {
    /// One minute.
    #[serde(rename = "1m")]
    Minutes1,
    /// Three minutes.
    #[serde(rename = "3m")]
    Minutes3,
    /// Five minutes.
    #[serde(rename = "5m")]
    Minutes5,
    /// A quarter of an hour.
    #[serde(rename = "15m")]
    Minutes15,
    /// Half an hour.
    #[serde(rename = "30m")]
    Minutes30,
    /// One hour.
    #[serde(rename = "1h")]
    Hours1,
    /// Two hours.
    #[serde(rename = "2h")]
    Hours2,
    /// Four hours.
    #[serde(rename = "4h")]
    Hours4,
    /// Six hours.
    #[serde(rename = "6h")]
    Hours6,
    /// Half a day.
    #[serde(rename = "12h")]
    Hours12,
    /// One day.
    #[serde(rename = "1d")]
    Day,
    /// One week.
    #[serde(rename = "1w")]
    Week,
    /// One month.
    #[serde(rename = "1mo")]
    Month,
}

impl Interval {
    const MINUTE_MS: i64 = 60_000;
    const HOUR_MS: i64 = 60 * Self::MINUTE_MS;
    const DAY_MS: i64 = 24 * Self::HOUR_MS;

    /// Every interval, shortest first, with its name on the wire, its label on the chart
    /// and its length in milliseconds (a month counts 30 days).
    const ALL: [(Self, &'static str, &'static str, i64); 13] = [
        (Self::Minutes1, "1m", "1m", Self::MINUTE_MS),
        (Self::Minutes3, "3m", "3m", 3 * Self::MINUTE_MS),
        (Self::Minutes5, "5m", "5m", 5 * Self::MINUTE_MS),
        (Self::Minutes15, "15m", "15m", 15 * Self::MINUTE_MS),
        (Self::Minutes30, "30m", "30m", 30 * Self::MINUTE_MS),
        (Self::Hours1, "1h", "1h", Self::HOUR_MS),
        (Self::Hours2, "2h", "2h", 2 * Self::HOUR_MS),
        (Self::Hours4, "4h", "4h", 4 * Self::HOUR_MS),
        (Self::Hours6, "6h", "6h", 6 * Self::HOUR_MS),
        (Self::Hours12, "12h", "12h", 12 * Self::HOUR_MS),
        (Self::Day, "1d", "1D", Self::DAY_MS),
        (Self::Week, "1w", "1W", 7 * Self::DAY_MS),
        (Self::Month, "1mo", "1M", 30 * Self::DAY_MS),
    ];

    fn row(self) -> (Self, &'static str, &'static str, i64) {
        Self::ALL[self as usize]
    }

    /// What the chart calls it: `1D` for `1d`.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().2
    }

    /// How long it is; a month counts 30 days.
    #[must_use]
    pub fn length_ms(self) -> i64 {
        self.row().3
    }

    /// Whether bars are stamped with a time of day rather than a date.
    #[must_use]
    pub fn is_intraday(self) -> bool {
        self.length_ms() < Self::DAY_MS
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

/// A name that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown interval {found:?}, expected one of 1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d 1w 1mo")]
pub struct UnknownInterval {
    /// What was found.
    pub found: String,
}

impl FromStr for Interval {
    type Err = UnknownInterval;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|row| row.1 == name);
        found.map(|row| row.0).ok_or_else(|| UnknownInterval { found: name.to_owned() })
    }
}

/// How bars are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChartType {
    /// Filled bodies with wicks.
    #[default]
    Candle,
}

/// A line over the price, told apart by `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Overlay {
    /// The simple moving average of the closes.
    Sma {
        /// How many bars are averaged, 1–1,000.
        period: u32,
    },
}

/// A panel below the price, told apart by `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Panel {
    /// One column a bar; needs `candles.v`.
    // Braces, because serde lets unknown fields of a unit variant pass.
    Volume {},
}

/// The colours of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on near-black.
    Dark,
}

/// The language of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locale {
    /// English: `Feb`, `1,234.50`.
    #[default]
    En,
}

/// The file format of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// PNG.
    #[default]
    Png,
}

/// The price axis.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceScale {
    /// How prices are spaced. Default `linear`.
    #[serde(default)]
    pub mode: PriceMode,
    /// Where the axis stands. Default `right`.
    #[serde(default)]
    pub side: Side,
    /// The smallest step of a price, 1e-12 to 1e12: sets the decimals of every price, and
    /// grid lines stand on whole ticks. Default: told from the prices.
    #[serde(default)]
    pub tick_size: Option<f64>,
}

/// How prices are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceMode {
    /// Evenly.
    #[default]
    Linear,
}

/// A side of the chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The left.
    Left,
    /// The right.
    #[default]
    Right,
}
