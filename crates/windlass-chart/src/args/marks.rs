//! What a trader puts on the chart: levels, positions, lines, zones, markers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::look::Hex;

/// A price that matters, as a line across the plot with a tag on the axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// What it stands for; sets the default name, colour and line.
    pub kind: LevelKind,
    /// Where.
    pub price: f64,
    /// What it is called on the chart, at most 32 characters. Default: after its kind.
    #[serde(default)]
    pub label: Option<String>,
    /// How the line is drawn. Default: solid for an entry, dashed for the others.
    #[serde(default)]
    pub line: Option<LineStyle>,
    /// Its colour. Default: after its kind.
    #[serde(default)]
    pub color: Option<Hex>,
}

/// What a level stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LevelKind {
    /// Where a position was or will be opened.
    Entry,
    /// Where it is given up.
    StopLoss,
    /// Where its profit is taken.
    TakeProfit,
    /// A price from which it is thought to rise.
    Support,
    /// A price from which it is thought to fall.
    Resistance,
    /// Where somebody wants to be told.
    Alert,
    /// Anything else.
    Line,
}

impl LevelKind {
    /// What it is called on the chart.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Entry => "Entry",
            Self::StopLoss => "Stop loss",
            Self::TakeProfit => "Take profit",
            Self::Support => "Support",
            Self::Resistance => "Resistance",
            Self::Alert => "Alert",
            Self::Line => "",
        }
    }
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineStyle {
    /// Without gaps.
    Solid,
    /// In dashes.
    Dashed,
    /// In dots.
    Dotted,
}

/// A position with its risk and its reward, as two boxes that meet at the entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which way it earns.
    pub side: PositionSide,
    /// Where it was opened.
    pub entry: f64,
    /// Where it is given up: below the entry of a long one, above that of a short one.
    pub stop_loss: f64,
    /// Where its profit is taken: on the other side of the entry.
    pub take_profit: f64,
    /// When it was opened, in ms UTC. Default: the first visible bar.
    #[serde(default)]
    pub from: Option<f64>,
    /// When it was closed, in ms UTC, after `from`. Default: still open.
    #[serde(default)]
    pub to: Option<f64>,
}

/// Which way a position earns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositionSide {
    /// When the price rises.
    Long,
    /// When it falls.
    Short,
}

/// A place on the chart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// When, in ms UTC.
    pub t: f64,
    /// At which price.
    pub price: f64,
}

/// A straight line between two places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Where it begins.
    pub from: Spot,
    /// Where it ends, not before it begins.
    pub to: Spot,
    /// How it is drawn. Default solid.
    #[serde(default = "solid")]
    pub line: LineStyle,
    /// Its colour. Default blue.
    #[serde(default)]
    pub color: Option<Hex>,
}

const fn solid() -> LineStyle {
    LineStyle::Solid
}

/// A range of prices, shaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its lower edge.
    pub low: f64,
    /// Its upper edge, above the lower one.
    pub high: f64,
    /// When it begins, in ms UTC. Default: at the left edge.
    #[serde(default)]
    pub from: Option<f64>,
    /// When it ends, in ms UTC, after `from`. Default: at the right edge.
    #[serde(default)]
    pub to: Option<f64>,
    /// What it is called on the chart, at most 32 characters. Default: nothing.
    #[serde(default)]
    pub label: Option<String>,
    /// Its colour, drawn at 12 %. Default blue.
    #[serde(default)]
    pub color: Option<Hex>,
}

/// A sign at a bar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// When, in ms UTC: the bar that covers it.
    pub t: f64,
    /// What it looks like. Default `circle`.
    #[serde(default)]
    pub shape: Shape,
    /// Where it stands. Default `above`.
    #[serde(default)]
    pub at: MarkerAt,
    /// With `"at": "price"`: at which.
    #[serde(default)]
    pub price: Option<f64>,
    /// What it says, at most 32 characters. Default nothing.
    #[serde(default)]
    pub text: Option<String>,
    /// Its colour. Default: up or down for arrows, blue for the others.
    #[serde(default)]
    pub color: Option<Hex>,
}

/// What a marker looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A disc.
    #[default]
    Circle,
    /// A square.
    Square,
    /// An arrow that points up.
    ArrowUp,
    /// An arrow that points down.
    ArrowDown,
}

/// Where a marker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MarkerAt {
    /// Above its bar.
    #[default]
    Above,
    /// Below its bar.
    Below,
    /// In the middle of its bar.
    InBar,
    /// At a price of its own.
    Price,
}
