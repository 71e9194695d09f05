//! What a chart looks like, what kind of file it is, and where it goes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::scene::Color;

/// How bars are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChartType {
    /// Filled bodies with wicks.
    #[default]
    Candle,
    /// Bodies that are empty when the bar rose, coloured by the change from the close before.
    HollowCandle,
    /// A stem from low to high, the open to its left, the close to its right.
    Ohlc,
    /// The closes, joined.
    Line,
    /// The closes, joined, and shaded below.
    Area,
    /// The closes against the first visible one: green above, red below.
    Baseline,
    /// Candles of averaged prices. Studies, header and last price keep to the real ones.
    HeikinAshi,
    /// Bricks of one height in the direction of the price, without time.
    Renko,
}

/// The height of a renko brick.
///
/// *Shape*: a positive number, or `"atr:N"` for the average true range of N bars (2–1,000) at
/// the last bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Brick {
    /// So much.
    Fixed(f64),
    /// The average true range of so many bars.
    Atr(u32),
}

impl Default for Brick {
    fn default() -> Self {
        Self::Atr(14)
    }
}

impl Serialize for Brick {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(height) => serializer.serialize_f64(*height),
            Self::Atr(bars) => serializer.collect_str(&format_args!("atr:{bars}")),
        }
    }
}

impl<'de> Deserialize<'de> for Brick {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BrickVisitor;

        impl Visitor<'_> for BrickVisitor {
            type Value = Brick;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a positive number or \"atr:14\"")
            }

            fn visit_f64<E: de::Error>(self, height: f64) -> Result<Brick, E> {
                Ok(Brick::Fixed(height))
            }

            fn visit_u64<E: de::Error>(self, height: u64) -> Result<Brick, E> {
                Ok(Brick::Fixed(height as f64))
            }

            fn visit_i64<E: de::Error>(self, height: i64) -> Result<Brick, E> {
                Ok(Brick::Fixed(height as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Brick, E> {
                let bars = text.strip_prefix("atr:").and_then(|bars| bars.parse().ok());
                bars.map(Brick::Atr).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(BrickVisitor)
    }
}

impl JsonSchema for Brick {
    fn schema_name() -> Cow<'static, str> {
        "Brick".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A positive number, or \"atr:N\" for the average true range of N bars (2–1,000).",
            "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^atr:[0-9]{1,4}$"}],
        })
    }
}

/// How renko bricks are made.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renko {
    /// How high a brick is. Default `"atr:14"`.
    #[serde(default)]
    pub brick: Brick,
}

/// The ground of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on near-black.
    Dark,
}

/// Which colours say up and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Palette {
    /// Green up, red down.
    #[default]
    Classic,
    /// Blue up, orange down: told apart with every common colour blindness (Okabe and Ito).
    ColorBlind,
    /// Red up, green down, as in China, Japan and Korea.
    EastAsian,
}

/// An opaque colour, `"#rrggbb"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex(pub Color);

impl FromStr for Hex {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        let hex = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let fail = || format!("{:?} is no colour such as \"#089981\"", text.chars().take(20).collect::<String>());
        hex.map(|hex| Self(Color::rgb(hex))).ok_or_else(fail)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Color { r, g, b, .. } = self.0;
        serializer.collect_str(&format_args!("#{r:02x}{g:02x}{b:02x}"))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Hex {
    fn schema_name() -> Cow<'static, str> {
        "Hex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "An opaque colour.", "type": "string", "pattern": "^#[0-9A-Fa-f]{6}$"})
    }
}

/// Single colours instead of the theme's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Colors {
    /// Bars that close at or above their open.
    #[serde(default)]
    pub up: Option<Hex>,
    /// Bars that close below their open.
    #[serde(default)]
    pub down: Option<Hex>,
    /// Behind everything.
    #[serde(default)]
    pub background: Option<Hex>,
    /// Symbol, title, labels.
    #[serde(default)]
    pub text: Option<Hex>,
    /// Grid lines.
    #[serde(default)]
    pub grid: Option<Hex>,
}

/// The language of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Locale {
    /// English: `Feb`, `1,234.50`.
    #[default]
    En,
}

/// The file format of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// PNG: exact lines and the smallest file a chart has; the right choice.
    #[default]
    Png,
    /// JPEG, always with full colour resolution; larger than PNG and worse.
    Jpeg,
    /// WebP, lossless unless `lossy` is set.
    Webp,
    /// SVG: vectors and text.
    Svg,
}

impl Format {
    /// Its name, also the ending of a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
            Self::Svg => "svg",
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
            Self::Svg => "image/svg+xml",
        }
    }
}

/// The price axis.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceScale {
    /// How prices are spaced and named. Default `linear`.
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

/// How prices are spaced and named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PriceMode {
    /// Evenly.
    #[default]
    Linear,
    /// Equal ratios at equal distances; every price must be positive.
    Log,
    /// Evenly, named by their change from the first visible close.
    Percent,
}

/// A side of the chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The left.
    Left,
    /// The right.
    #[default]
    Right,
}

/// How the image is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Hours until it goes, 0.01–8,760, never beyond the store's own limit. Default: that limit.
    #[serde(default)]
    pub max_age_hours: Option<f64>,
    /// Whether an equal chart that is still kept is answered without drawing. Default true.
    #[serde(default = "yes")]
    pub dedupe: bool,
    /// The width of a small picture drawn beside it, 64–640; its height keeps the shape.
    /// Default 320; null for none.
    #[serde(default = "thumbnail_width_px")]
    #[schemars(range(min = 64, max = 640))]
    pub thumbnail_width_px: Option<u32>,
}

const fn yes() -> bool {
    true
}

const fn thumbnail_width_px() -> Option<u32> {
    Some(320)
}

impl Default for Store {
    fn default() -> Self {
        Self { max_age_hours: None, dedupe: true, thumbnail_width_px: thumbnail_width_px() }
    }
}

/// What the result holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Return {
    /// The name of the stored image and facts about it.
    #[default]
    Ref,
    /// The same, and the file as base64 when it has at most 1 MiB.
    Inline,
    /// The same, and the drawn bars and series as numbers.
    Values,
}
