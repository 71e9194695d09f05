//! What is computed from the bars: overlays on the price, panels below it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line or band over the price, told apart by `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Overlay {
    /// The simple moving average of the closes.
    Sma {
        /// How many bars are averaged, 1–1,000.
        period: u32,
    },
    /// The exponential moving average, seeded with the simple one.
    Ema {
        /// How many bars, 2–1,000; the newest weighs 2 / (period + 1).
        period: u32,
    },
    /// The moving average whose weights rise by one from bar to bar.
    Wma {
        /// How many bars are averaged, 2–1,000.
        period: u32,
    },
    /// Bollinger bands: the simple average and `k` population deviations around it.
    Bbands {
        /// How many bars, 2–1,000. Default 20.
        #[serde(default = "twenty")]
        period: u32,
        /// Deviations to either side, 0.1–10. Default 2.
        #[serde(default = "two")]
        k: f64,
    },
    /// The average price by volume; needs `candles.v`.
    Vwap {
        /// When it starts anew. Default `session`.
        #[serde(default)]
        anchor: VwapAnchor,
    },
    /// Ichimoku: conversion and base line, the cloud `kijun` bars ahead, the close as many back.
    Ichimoku {
        /// Bars of the conversion line, 2–1,000. Default 9.
        #[serde(default = "nine")]
        tenkan: u32,
        /// Bars of the base line and of the shift, 2–1,000. Default 26.
        #[serde(default = "twenty_six")]
        kijun: u32,
        /// Bars of the cloud's second edge, 2–1,000. Default 52.
        #[serde(default = "fifty_two")]
        senkou: u32,
    },
    /// The trailing stop of the average true range: below a rising price, above a falling one.
    Supertrend {
        /// Bars of the average true range, 2–1,000. Default 10.
        #[serde(default = "ten")]
        period: u32,
        /// Ranges between price and line, 0.1–100. Default 3.
        #[serde(default = "three")]
        multiplier: f64,
    },
    /// The highest high and lowest low, and their middle.
    Donchian {
        /// How many bars, 2–1,000. Default 20.
        #[serde(default = "twenty")]
        period: u32,
    },
    /// Keltner channels: the exponential average and `k` average true ranges around it.
    Keltner {
        /// Bars of the average, 2–1,000. Default 20.
        #[serde(default = "twenty")]
        period: u32,
        /// Bars of the average true range, 1–1,000. Default 10.
        #[serde(default = "ten")]
        atr_period: u32,
        /// Ranges to either side, 0.1–10. Default 2.
        #[serde(default = "two")]
        k: f64,
    },
}

/// When a volume-weighted average starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VwapAnchor {
    /// With every day of `time_zone`; bars of a day and longer: with every month.
    #[default]
    Session,
    /// With every calendar month.
    Month,
    /// With every year.
    Year,
    /// Never: from the first bar there is.
    Start,
}

/// A panel below the price.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Panel {
    /// What it shows.
    #[serde(flatten)]
    pub kind: PanelKind,
    /// Its share of the height; the price has 4. 0.25–4. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0.25, max = 4))]
    pub weight: f64,
}

impl From<PanelKind> for Panel {
    fn from(kind: PanelKind) -> Self {
        Self { kind, weight: one() }
    }
}

/// What a panel shows, told apart by `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PanelKind {
    /// One column a bar; needs `candles.v`.
    // Braces, because serde lets unknown fields of a unit variant pass.
    Volume {},
    /// The relative strength index by Wilder.
    Rsi {
        /// How many bars, 2–1,000. Default 14.
        #[serde(default = "fourteen")]
        period: u32,
        /// Two dashed lines, each 0–100, the lower first. Default 30 and 70.
        #[serde(default = "rsi_bands")]
        bands: [f64; 2],
    },
    /// The difference of two exponential averages, its signal line and their difference.
    Macd {
        /// Bars of the fast average, 2–1,000, below `slow`. Default 12.
        #[serde(default = "twelve")]
        fast: u32,
        /// Bars of the slow average, 2–1,000. Default 26.
        #[serde(default = "twenty_six")]
        slow: u32,
        /// Bars of the signal line, 1–1,000. Default 9.
        #[serde(default = "nine")]
        signal: u32,
    },
    /// The slow stochastic: where the close lies between the low and the high.
    Stoch {
        /// Bars of %K, 1–1,000. Default 14.
        #[serde(default = "fourteen")]
        k: u32,
        /// Bars that smooth %K, 1–1,000. Default 3.
        #[serde(default = "three_bars")]
        smooth: u32,
        /// Bars of %D, 1–1,000. Default 3.
        #[serde(default = "three_bars")]
        d: u32,
        /// Two dashed lines, each 0–100, the lower first. Default 20 and 80.
        #[serde(default = "stoch_bands")]
        bands: [f64; 2],
    },
    /// The average true range by Wilder.
    Atr {
        /// How many bars, 1–1,000. Default 14.
        #[serde(default = "fourteen")]
        period: u32,
    },
    /// On-balance volume; needs `candles.v`.
    Obv {},
    /// The average directional index by Wilder.
    Adx {
        /// How many bars, 2–1,000. Default 14.
        #[serde(default = "fourteen")]
        period: u32,
    },
    /// The commodity channel index.
    Cci {
        /// How many bars, 2–1,000. Default 20.
        #[serde(default = "twenty")]
        period: u32,
    },
    /// The money flow index; needs `candles.v`.
    Mfi {
        /// How many bars, 2–1,000. Default 14.
        #[serde(default = "fourteen")]
        period: u32,
        /// Two dashed lines, each 0–100, the lower first. Default 20 and 80.
        #[serde(default = "stoch_bands")]
        bands: [f64; 2],
    },
}

/// Constants as functions, which is what serde asks for.
macro_rules! defaults {
    ($($name:ident: $kind:ty = $value:expr;)*) => { $(const fn $name() -> $kind { $value })* };
}

defaults! {
    one: f64 = 1.0;
    two: f64 = 2.0;
    three: f64 = 3.0;
    three_bars: u32 = 3;
    nine: u32 = 9;
    ten: u32 = 10;
    twelve: u32 = 12;
    fourteen: u32 = 14;
    twenty: u32 = 20;
    twenty_six: u32 = 26;
    fifty_two: u32 = 52;
    rsi_bands: [f64; 2] = [30.0, 70.0];
    stoch_bands: [f64; 2] = [20.0, 80.0];
}

impl Overlay {
    /// Bars before its first value.
    #[must_use]
    pub fn warm_up(&self) -> usize {
        let bars = match *self {
            Self::Sma { period } | Self::Ema { period } | Self::Wma { period } => period - 1,
            Self::Bbands { period, .. } | Self::Donchian { period } => period - 1,
            Self::Vwap { .. } => 0,
            Self::Ichimoku { senkou, kijun, tenkan } => senkou.max(kijun).max(tenkan) - 1,
            Self::Supertrend { period, .. } => period,
            Self::Keltner { period, atr_period, .. } => period.max(atr_period + 1) - 1,
        };
        bars as usize
    }

    /// Whether it cannot be computed without volumes.
    #[must_use]
    pub const fn needs_volume(&self) -> bool {
        matches!(self, Self::Vwap { .. })
    }
}

impl PanelKind {
    /// Bars before its first value.
    #[must_use]
    pub fn warm_up(&self) -> usize {
        let bars = match *self {
            Self::Volume {} | Self::Obv {} => 0,
            Self::Rsi { period, .. } | Self::Atr { period } | Self::Mfi { period, .. } => period,
            Self::Macd { fast, slow, signal } => slow.max(fast) + signal - 2,
            Self::Stoch { k, smooth, d, .. } => k + smooth + d - 3,
            Self::Adx { period } => 2 * period - 1,
            Self::Cci { period } => period - 1,
        };
        bars as usize
    }

    /// Whether it cannot be computed without volumes.
    #[must_use]
    pub const fn needs_volume(&self) -> bool {
        matches!(self, Self::Volume {} | Self::Obv {} | Self::Mfi { .. })
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Volume {} => "volume",
            Self::Rsi { .. } => "rsi",
            Self::Macd { .. } => "macd",
            Self::Stoch { .. } => "stoch",
            Self::Atr { .. } => "atr",
            Self::Obv {} => "obv",
            Self::Adx { .. } => "adx",
            Self::Cci { .. } => "cci",
            Self::Mfi { .. } => "mfi",
        }
    }
}
