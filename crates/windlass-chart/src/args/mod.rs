//! The args of the job kind `chart.render`, as a type.
//!
//! Never holds an option that is parsed and then ignored: an unknown field, kind, type or
//! format is refused by serde, a wrong value by [`ChartArgs::check`].

mod check;
mod check_marks;
mod column;
mod interval;
mod look;
mod marks;
mod study;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::encode::Effort;
pub use check::MAX_PRICE;
pub(crate) use check::check_text;
pub use column::Column;
pub use interval::{Interval, UnknownInterval};
pub use look::{
    Brick, ChartType, Colors, Format, Hex, Locale, Palette, PriceMode, PriceScale, Renko, Return, Side, Store, Theme,
};
pub use marks::{Level, LevelKind, Line, LineStyle, Marker, MarkerAt, Position, PositionSide, Shape, Spot, Zone};
pub use study::{Overlay, Panel, PanelKind, VwapAnchor};

/// What to draw.
///
/// *Shape*: a JSON object; `symbol`, `interval` and either `candles` or `source` are required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChartArgs {
    /// A label: 1–32 of `A-Z a-z 0-9 . _ : ^ = / & -` and blank.
    #[schemars(length(min = 1, max = 32))]
    pub symbol: String,
    /// The time one bar covers: `1m 3m 5m 15m 30m 1h 2h 4h 6h 12h 1d 1w 1mo`.
    pub interval: Interval,
    /// The bars, oldest first: 1–50,000. Either these or a `source`.
    #[serde(default)]
    pub candles: Candles,
    /// Where the bars are, when they do not come with the args.
    #[serde(default)]
    pub source: Option<Source>,
    /// How many of the newest bars are drawn, 2–5,000; older ones only feed the studies.
    /// Default: all but those the slowest study needs before its first value.
    #[serde(default)]
    #[schemars(range(min = 2, max = ChartArgs::MAX_VISIBLE_BARS))]
    pub visible_bars: Option<u32>,
    /// How bars are drawn. Default `candle`.
    #[serde(default, rename = "type")]
    pub chart_type: ChartType,
    /// How high bricks are, with the type `renko` only. Default: the range of 14 bars.
    #[serde(default)]
    pub renko: Option<Renko>,
    /// Lines over the price, at most 10. Default none.
    #[serde(default)]
    #[schemars(length(max = 10))]
    pub overlays: Vec<Overlay>,
    /// Panels below the price, at most 6, each kind once. Default none.
    #[serde(default)]
    #[schemars(length(max = 6))]
    pub panels: Vec<Panel>,
    /// Prices that matter, at most 20. Default none.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub levels: Vec<Level>,
    /// Positions with risk and reward, at most 20. Default none.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub positions: Vec<Position>,
    /// Straight lines, at most 20. Default none.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub lines: Vec<Line>,
    /// Shaded ranges of prices, at most 20. Default none.
    #[serde(default)]
    #[schemars(length(max = 20))]
    pub zones: Vec<Zone>,
    /// Signs at bars, at most 200. Default none.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub markers: Vec<Marker>,
    /// Candlestick patterns to look for, by the names of TA-Lib in any case, with or without
    /// `CDL` and underscores: `hammer`, `morning_star`, `CDLENGULFING`. Default none.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// A line above everything, at most 128 characters. Default none.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub title: Option<String>,
    /// A smaller line below the title, at most 128 characters. Default none.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub subtitle: Option<String>,
    /// Pale letters behind the price, at most 64 characters. Default none.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub watermark: Option<String>,
    /// The ground. Default `light`.
    #[serde(default)]
    pub theme: Theme,
    /// Which colours say up and down. Default `classic`.
    #[serde(default)]
    pub palette: Palette,
    /// Single colours instead of the theme's. Default none.
    #[serde(default)]
    pub colors: Colors,
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
    #[schemars(range(min = 160, max = 4_096))]
    pub width_px: u32,
    /// 120–4096. Default 800.
    #[serde(default = "default_height_px")]
    #[schemars(range(min = 120, max = 4_096))]
    pub height_px: u32,
    /// Pixels of the image per pixel of layout, 1–3: 2 and 3 are for dense screens and
    /// print. `width_px` × `height_px` × `scale`² is at most 16.8 million. Default 1.
    #[serde(default = "default_scale")]
    #[schemars(range(min = 1, max = 3))]
    pub scale: u32,
    /// The file format. Default `png`.
    #[serde(default)]
    pub format: Format,
    /// With `png` only: what to spend on a small file. Default `balanced`.
    #[serde(default)]
    pub effort: Option<Effort>,
    /// With `jpeg` and lossy `webp` only: 1–100. Default 85.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub quality: Option<u8>,
    /// With `webp` only: whether a smaller file may blur thin lines. Default false.
    #[serde(default)]
    pub lossy: bool,
    /// How the image is kept.
    #[serde(default)]
    pub store: Store,
    /// What the result holds. Default `ref`.
    #[serde(default, rename = "return")]
    pub returns: Return,
}

/// Where bars are that do not come with the args.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An uploaded blob, `sha256:` and 64 lower-case hex digits: the JSON of `candles`, or CSV
    /// with the header `time,open,high,low,close,volume`.
    CandlesBlob(String),
    /// Candles that the platform keeps: a symbol, a colon and a timeframe, such as `EURUSD:1h`. The
    /// newest are drawn: `visible_bars` (default 200) and what studies need to warm up.
    CandlesKey(String),
}

impl Source {
    /// The blob it is.
    pub(crate) fn blob(&self) -> Option<windlass_store::Digest> {
        match self {
            Self::CandlesBlob(name) => name.parse().ok(),
            Self::CandlesKey(_) => None,
        }
    }
}

/// Bars drawn of those that are kept, unless the job says.
const DEFAULT_KEPT_BARS: u32 = 200;
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
            source: None,
            chart_type: ChartType::default(),
            renko: None,
            overlays: Vec::new(),
            panels: Vec::new(),
            levels: Vec::new(),
            positions: Vec::new(),
            lines: Vec::new(),
            zones: Vec::new(),
            markers: Vec::new(),
            patterns: Vec::new(),
            title: None,
            subtitle: None,
            watermark: None,
            theme: Theme::default(),
            palette: Palette::default(),
            colors: Colors::default(),
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
            effort: None,
            quality: None,
            lossy: false,
            store: Store::default(),
            returns: Return::default(),
        }
    }

    /// How many bars are asked for where they are kept.
    #[must_use]
    pub fn wanted_bars(&self) -> usize {
        let visible = self.visible_bars.unwrap_or(DEFAULT_KEPT_BARS);
        (visible as usize).saturating_add(self.warm_up()).min(Self::MAX_BARS)
    }

    /// Bars that the slowest study needs before its first value.
    fn warm_up(&self) -> usize {
        let overlays = self.overlays.iter().map(Overlay::warm_up);
        overlays.chain(self.panels.iter().map(|panel| panel.kind.warm_up())).max().unwrap_or(0)
    }

    /// How many of `bars` bars are drawn: [`ChartArgs::visible_bars`] or its default, and never
    /// more than there are.
    #[must_use]
    pub fn visible_of(&self, bars: usize) -> usize {
        let beyond_warm_up = bars.saturating_sub(self.warm_up());
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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

impl Candles {
    /// Whether there is nothing in any column.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let volumes = self.v.as_ref().map_or(0, |v| v.len());
        [&self.t, &self.o, &self.h, &self.l, &self.c].into_iter().all(|column| column.is_empty()) && volumes == 0
    }
}
