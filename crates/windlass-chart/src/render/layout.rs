//! Where everything stands: panels, axes, bars. All in device pixels.

use super::header::Room;
use super::steps::{self, Ticks};
use super::view::View;
use super::{LABEL_SIZE, format};
use crate::args::Side;
use crate::font;
use crate::scene::{Rect, Weight};

/// At most one label in so many layout pixels; the next round step makes it some 50.
const PRICE_LABEL_EVERY_PX: i32 = 42;
const VOLUME_LABEL_EVERY_PX: i32 = 34;
/// The share of the panels' height that goes to volume.
const VOLUME_SHARE: f64 = 0.2;
/// Blank above and below the prices, as a share of their range.
const PRICE_MARGIN: f64 = 0.06;
/// Bars stand no further apart than this, in layout pixels.
const MAX_STEP_PX: f64 = 120.0;
/// Bodies are no wider than this, in layout pixels: odd, as a body is.
const MAX_BODY_PX: i32 = 41;
/// Below so many layout pixels a bar, bars are merged.
const MERGE_BELOW_PX: f64 = 2.0;
/// Below this height, in layout pixels, a volume panel has no legend.
const LEGEND_PANEL_PX: i32 = 52;
/// The height of a legend inside a panel, in layout pixels.
const LEGEND_PX: i32 = 24;

/// Blank and sizes that shrink with small images, in layout pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) pad: i32,
    pub(super) top: i32,
    pub(super) below_header: i32,
    /// The share of the height a header may take.
    pub(super) header_share: f32,
    pub(super) time_axis: i32,
    /// Between the plot and a label of the price axis, and beyond it.
    pub(super) label_pad: i32,
}

impl Sizes {
    fn of(width_px: u32, height_px: u32) -> Self {
        if width_px < 420 || height_px < 260 {
            Self { pad: 6, top: 3, below_header: 3, header_share: 0.28, time_axis: 20, label_pad: 5 }
        } else {
            Self { pad: 16, top: 11, below_header: 9, header_share: 0.4, time_axis: 32, label_pad: 10 }
        }
    }
}

/// A panel's rows and the values they stand for.
#[derive(Debug, Clone)]
pub(super) struct Panel {
    pub(super) top: i32,
    pub(super) height: i32,
    low: f64,
    high: f64,
    pub(super) ticks: Ticks,
}

impl Panel {
    pub(super) const fn bottom(&self) -> i32 {
        self.top + self.height
    }

    /// The place of `value`, the middle of its row being .0.
    pub(super) fn y(&self, value: f64) -> f64 {
        let part = (self.high - value) / (self.high - self.low);
        f64::from(self.top) + part * f64::from(self.height - 1)
    }

    /// The row of `value`, inside the panel.
    pub(super) fn row(&self, value: f64) -> i32 {
        (self.y(value).round() as i32).clamp(self.top, self.bottom() - 1)
    }
}

/// Where bars stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bars {
    /// The centre of the first bar.
    origin: f64,
    /// From one bar's centre to the next.
    step: f64,
    /// Columns of a wick.
    pub(super) wick: i32,
    /// Columns of a body; odd when the wick is, so that it stands in the middle.
    pub(super) body: i32,
    /// Whether bars are too many to be told apart.
    pub(super) merged: bool,
}

impl Bars {
    /// The first column of a bar's wick.
    pub(super) fn wick_x(&self, bar: usize) -> i32 {
        (self.center(bar) - f64::from(self.wick) / 2.0).round() as i32
    }

    /// The first column of a bar's body.
    pub(super) fn body_x(&self, bar: usize) -> i32 {
        self.wick_x(bar) - (self.body - self.wick) / 2
    }

    /// The middle of a bar's wick, as drawn.
    pub(super) fn drawn_center(&self, bar: usize) -> f32 {
        self.wick_x(bar) as f32 + self.wick as f32 / 2.0
    }

    fn center(&self, bar: usize) -> f64 {
        self.origin + bar as f64 * self.step
    }

    fn of(plot: Rect, bars: usize, scale: i32) -> Self {
        let s = f64::from(scale);
        let width = f64::from(plot.width);
        // Blank towards the axis; less in a small image.
        let (before, after) = (2.0 * s, (10.0 * s).min(width / 12.0));
        let step = ((width - before - after) / bars as f64).min(MAX_STEP_PX * s);
        // Right-aligned: the newest bar always stands beside the axis.
        let origin = f64::from(plot.right()) - after - step * (bars as f64 - 0.5);
        let merged = step < MERGE_BELOW_PX * s;
        Self { origin, step, wick: scale, body: body_width(step / s, scale), merged }
    }
}

/// How wide a body is for bars `spacing` layout pixels apart: nearly all of a narrow bar,
/// four fifths of a wide one (the rule of lightweight-charts, `optimalCandlestickWidth`).
fn body_width(spacing: f64, scale: i32) -> i32 {
    let s = f64::from(scale);
    if (2.5..=4.0).contains(&spacing) {
        return 3 * scale;
    }
    let part = 1.0 - 0.2 * (spacing.max(4.0) - 4.0).atan() / std::f64::consts::FRAC_PI_2;
    let body = ((spacing * part * s).floor() as i32).clamp(scale, MAX_BODY_PX * scale);
    if (body - scale) % 2 == 0 { body } else { (body - 1).max(scale) }
}

/// Where everything stands.
pub(super) struct Layout {
    pub(super) scale: i32,
    pub(super) sizes: Sizes,
    /// Both panels, without axes.
    pub(super) plot: Rect,
    /// The columns of the price axis; width 0 when its labels do not fit.
    pub(super) axis: Rect,
    pub(super) price: Panel,
    pub(super) volume: Option<Panel>,
    pub(super) bars: Bars,
    /// Decimals of the price axis.
    pub(super) decimals: usize,
    /// Whether the volume panel has room for its legend.
    pub(super) volume_legend: bool,
}

impl Layout {
    /// The room a header may take.
    pub(super) fn header_room(view: &View<'_>) -> Room {
        let (args, sizes) = (view.args, Sizes::of(view.args.width_px, view.args.height_px));
        let scale = args.scale as f32;
        Room {
            left: sizes.pad as f32 * scale,
            right: (args.width_px as f32 - sizes.pad as f32) * scale,
            top: sizes.top as f32 * scale,
            bottom: args.height_px as f32 * scale * sizes.header_share,
            scale,
        }
    }

    /// Lays the chart out below a header that ends at `header_bottom`.
    pub(super) fn of(view: &View<'_>, header_bottom: f32) -> Self {
        let args = view.args;
        let sizes = Sizes::of(args.width_px, args.height_px);
        let scale = args.scale as i32;
        let (width, height) = (args.width_px as i32 * scale, args.height_px as i32 * scale);
        let top = header_bottom.ceil() as i32 + sizes.below_header * scale;
        let bottom = height - sizes.time_axis * scale;
        let total = bottom - top;
        let volume_height = (f64::from(total) * VOLUME_SHARE).round() as i32;
        let volume_height = if view.volume.is_some() { volume_height } else { 0 };
        let price = price_panel(view, top, total - volume_height, scale);
        let has_legend = args.legend && volume_height >= LEGEND_PANEL_PX * scale;
        let volume = view.volume.map(|volumes| {
            let legend = if has_legend { LEGEND_PX * scale } else { 4 * scale };
            volume_panel(volumes, price.bottom(), volume_height, legend, scale)
        });
        let decimals = match args.price_scale.tick_size {
            Some(_) => view.decimals,
            None => view.decimals.max(price.ticks.decimals),
        };
        let axis_width = axis_width(view, &price, volume.as_ref(), decimals, sizes);
        let axis_width = if axis_width > width * 45 / 100 { 0 } else { axis_width };
        let (plot_x, axis_x) = match args.price_scale.side {
            Side::Right => (0, width - axis_width),
            Side::Left => (axis_width, 0),
        };
        let plot = Rect::new(plot_x, top, width - axis_width, total);
        Self {
            scale,
            sizes,
            plot,
            axis: Rect::new(axis_x, top, axis_width, total),
            bars: Bars::of(plot, view.bars(), scale),
            price,
            volume,
            decimals,
            volume_legend: has_legend,
        }
    }
}

fn price_panel(view: &View<'_>, top: i32, height: i32, scale: i32) -> Panel {
    let (mut low, mut high) = view.extent();
    let middle = low / 2.0 + high / 2.0;
    // A range no wider than the error of its own numbers is no range.
    if high - low <= middle.abs() * 1e-12 {
        let tick = view.args.price_scale.tick_size.unwrap_or(0.0);
        let pad = if middle == 0.0 { tick.max(1.0) } else { tick.max(middle.abs() * 0.01) };
        (low, high) = (low - pad, high + pad);
    }
    let margin = (high - low) * PRICE_MARGIN;
    let (low, high) = (low - margin, high + margin);
    let wanted = (height / (PRICE_LABEL_EVERY_PX * scale)).max(2) as usize;
    let ticks = steps::ticks(low, high, wanted, view.args.price_scale.tick_size);
    Panel { top, height, low, high, ticks }
}

fn volume_panel(volumes: &[f64], top: i32, height: i32, legend: i32, scale: i32) -> Panel {
    let most = volumes.iter().copied().fold(0.0, f64::max);
    // Nothing was traded: an empty panel, in which 0 stands at the bottom.
    let most = if most > 0.0 { most } else { 1.0 };
    let bars_height = (height - legend).max(1);
    let high = most * f64::from((height - 1).max(1)) / f64::from(bars_height);
    let wanted = (height / (VOLUME_LABEL_EVERY_PX * scale)).max(2) as usize;
    let mut ticks = steps::ticks(0.0, most, wanted, None);
    ticks.values.retain(|value| *value > 0.0 && volumes.iter().any(|volume| *volume > 0.0));
    Panel { top, height, low: 0.0, high, ticks }
}

fn axis_width(view: &View<'_>, price: &Panel, volume: Option<&Panel>, decimals: usize, sizes: Sizes) -> i32 {
    let scale = view.args.scale as f32;
    let width = |text: &str, weight| font::width_px(text, LABEL_SIZE * scale, weight);
    let prices = price.ticks.values.iter().map(|value| format::number(*value, decimals));
    let volumes = volume.into_iter().flat_map(|panel| &panel.ticks.values);
    let volumes = volumes.map(|value| format::volume_tick(*value));
    let ticks = prices.chain(volumes).map(|text| width(&text, Weight::Regular));
    let tag = format::number(view.close[view.last()], decimals);
    let widest = ticks.fold(width(&tag, Weight::SemiBold), f32::max);
    widest.ceil() as i32 + 2 * sizes.label_pad * view.args.scale as i32
}
