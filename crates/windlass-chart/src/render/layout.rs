//! Where everything stands: panels, axes, bars, tags. All in device pixels.

use super::header::Room;
use super::scale::{self, Labels, Scale, Spacing};
use super::steps;
use super::study::{Figures, Plot, Study};
use super::tags::{self, Tag};
use super::view::{View, span};
use super::{LABEL_SIZE, format};
use crate::args::{PriceMode, Side};
use crate::font;
use crate::scene::{Rect, Weight};

/// At most one label in so many layout pixels; the next round step makes it some 50.
const PRICE_LABEL_EVERY_PX: i32 = 42;
const STUDY_LABEL_EVERY_PX: i32 = 34;
/// The weight of the price among the panels, which have 1 each.
const PRICE_WEIGHT: f64 = 4.0;
/// Blank above and below the prices, as a share of their range.
const PRICE_MARGIN: f64 = 0.06;
/// Prices beyond so many times the range of the bars do not stretch the axis.
const MOST_STRETCH: f64 = 3.0;
/// Bars stand no further apart than this, in layout pixels.
const MAX_STEP_PX: f64 = 120.0;
/// Bodies are no wider than this, in layout pixels: odd, as a body is.
const MAX_BODY_PX: i32 = 41;
/// Below so many layout pixels a bar, bars are merged.
const MERGE_BELOW_PX: f64 = 2.0;
/// Below this height, in layout pixels, a panel has no legend.
const LEGEND_PANEL_PX: i32 = 52;
/// The height of a legend inside a panel, in layout pixels.
const LEGEND_PX: i32 = 24;
/// A panel that would be lower than this, in layout pixels, is left out.
const MIN_PANEL_PX: i32 = 18;

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

    /// Nothing but the bars.
    const BARE: Self = Self { pad: 2, top: 2, below_header: 0, header_share: 0.0, time_axis: 2, label_pad: 0 };
}

/// A panel, laid out.
pub(super) struct PanelBox {
    pub(super) scale: Scale,
    pub(super) labels: Labels,
    /// Whether it has room for its legend.
    pub(super) legend: bool,
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
        (self.center(bar as f64) - f64::from(self.wick) / 2.0).round() as i32
    }

    /// The first column of a bar's body.
    pub(super) fn body_x(&self, bar: usize) -> i32 {
        self.wick_x(bar) - (self.body - self.wick) / 2
    }

    /// The middle of a bar's wick, as drawn.
    pub(super) fn drawn_center(&self, bar: usize) -> f32 {
        self.wick_x(bar) as f32 + self.wick as f32 / 2.0
    }

    /// The middle of a place in bars, which may have fractions and lie outside.
    pub(super) fn center(&self, place: f64) -> f64 {
        self.origin + place * self.step
    }

    /// Bars on `plot`, with blank for the names of levels at its left or right end.
    fn of(plot: Rect, bars: usize, ahead: usize, scale: i32, names: (i32, i32)) -> Self {
        let s = f64::from(scale);
        let width = f64::from(plot.width);
        // Blank towards the axis; less in a small image.
        let before = (2.0 * s).max(f64::from(names.0));
        let after = (10.0 * s).min(width / 12.0).max(f64::from(names.1));
        let step = ((width - before - after) / (bars + ahead) as f64).min(MAX_STEP_PX * s);
        // Right-aligned: the newest bar always stands beside the axis.
        let origin = f64::from(plot.right()) - after - step * ((bars + ahead) as f64 - 0.5);
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
    /// All panels, without axes.
    pub(super) plot: Rect,
    /// The columns of the price axis; width 0 when its labels do not fit.
    pub(super) axis: Rect,
    pub(super) price: PanelBox,
    /// Those of the view's panels that fit, in order.
    pub(super) panels: Vec<PanelBox>,
    pub(super) bars: Bars,
    /// Prices on the axis in boxes of their own: the last price, levels.
    pub(super) tags: Vec<Tag>,
    /// Prices outside the axis, which are not drawn.
    pub(super) outside: Vec<f64>,
    /// Tags that had no room.
    pub(super) tags_left_out: usize,
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
        Self::with(view, header_bottom, Sizes::of(view.args.width_px, view.args.height_px))
    }

    /// Bars alone on the whole image.
    pub(super) fn bare(view: &View<'_>) -> Self {
        let mut layout = Self::with(view, 0.0, Sizes::BARE);
        let plot = layout.plot;
        layout.plot = Rect::new(0, plot.y, plot.width + layout.axis.width, plot.height);
        layout.axis = Rect::new(layout.plot.right(), plot.y, 0, plot.height);
        layout.bars = Bars::of(layout.plot, view.bars(), view.ahead, layout.scale, (0, 0));
        layout
    }

    fn with(view: &View<'_>, header_bottom: f32, sizes: Sizes) -> Self {
        let args = view.args;
        let scale = args.scale as i32;
        let (width, height) = (args.width_px as i32 * scale, args.height_px as i32 * scale);
        let top = header_bottom.ceil() as i32 + sizes.below_header * scale;
        let total = height - sizes.time_axis * scale - top;
        let heights = panel_heights(view, total, scale);
        let price_height = total - heights.iter().sum::<i32>();
        let (price, outside) = price_box(view, top, price_height);
        let decimals = match args.price_scale.tick_size {
            Some(_) => view.decimals,
            None => view.decimals.max(price.labels.decimals),
        };
        let mut next = top + price_height;
        let mut panels = Vec::new();
        for (panel, height) in view.panels.iter().zip(heights) {
            panels.push(study_box(view, &panel.study, next, height));
            next += height;
        }
        let mut tags = tags::wanted(view, &price.scale, decimals);
        let axis_width = axis_width(view, &price, &panels, &tags, sizes);
        let axis_width = if axis_width > width * 45 / 100 { 0 } else { axis_width };
        let (plot_x, axis_x) = match args.price_scale.side {
            Side::Right => (0, width - axis_width),
            Side::Left => (axis_width, 0),
        };
        let plot = Rect::new(plot_x, top, width - axis_width, total);
        let names = names_width(&tags, scale);
        let names = if names > plot.width / 4 { 0 } else { names };
        let names = if args.price_scale.side == Side::Right { (0, names) } else { (names, 0) };
        let tags_left_out = tags::arrange(&mut tags, &price.scale, scale);
        Self {
            scale,
            sizes,
            plot,
            axis: Rect::new(axis_x, top, axis_width, total),
            bars: Bars::of(plot, view.bars(), view.ahead, scale, names),
            price,
            panels,
            tags,
            outside,
            tags_left_out,
        }
    }
}

/// The columns that the names of levels need beside the axis; 0 when there is none.
fn names_width(tags: &[Tag], scale: i32) -> i32 {
    let widest = tags.iter().map(|tag| tags::chip_width(&tag.name, scale)).max().unwrap_or(0);
    if widest > 0 { widest + 8 * scale } else { 0 }
}

/// The heights of the panels, as many as have room: those that would be too low go, last first.
fn panel_heights(view: &View<'_>, total: i32, scale: i32) -> Vec<i32> {
    let weights: Vec<f64> = view.panels.iter().map(|panel| panel.weight).collect();
    for count in (1..=weights.len()).rev() {
        let whole = PRICE_WEIGHT + weights[..count].iter().sum::<f64>();
        let height = |weight: &f64| (f64::from(total) * weight / whole).round() as i32;
        let heights: Vec<i32> = weights[..count].iter().map(height).collect();
        if heights.iter().all(|height| *height >= MIN_PANEL_PX * scale) {
            return heights;
        }
    }
    Vec::new()
}

/// The range of the price axis, and the wanted prices that lie too far away for it.
fn price_range(view: &View<'_>) -> ((f64, f64), Vec<f64>) {
    let (mut low, mut high) = view.extent();
    let log = view.args.price_scale.mode == PriceMode::Log;
    let place = |value: f64| if log { value.max(f64::MIN_POSITIVE).ln() } else { value };
    let bars = place(high) - place(low);
    let mut outside = Vec::new();
    // Lines first, marks after: neither may flatten the bars beyond reading.
    let studies = view.overlays.iter().flat_map(Study::drawn);
    for (value, told) in studies.map(|value| (value, false)).chain(tags::prices(view).map(|value| (value, true))) {
        let (least, most) = (low.min(value), high.max(value));
        let fits = bars <= 0.0 || place(most) - place(least) <= bars * MOST_STRETCH;
        if fits && (!log || value > 0.0) {
            (low, high) = (least, most);
        } else if told {
            outside.push(value);
        }
    }
    let middle = low / 2.0 + high / 2.0;
    // A range no wider than the error of its own numbers is no range.
    if high - low <= middle.abs() * 1e-12 {
        let tick = view.args.price_scale.tick_size.unwrap_or(0.0);
        let pad = if middle == 0.0 { tick.max(1.0) } else { tick.max(middle.abs() * 0.01) };
        (low, high) = if log { (low / 1.01, high * 1.01) } else { (low - pad, high + pad) };
    }
    ((low, high), outside)
}

fn price_box(view: &View<'_>, top: i32, height: i32) -> (PanelBox, Vec<f64>) {
    let s = view.args.scale as i32;
    let (range, outside) = price_range(view);
    let log = view.args.price_scale.mode == PriceMode::Log;
    let blank = (f64::from(height) * PRICE_MARGIN / (1.0 + 2.0 * PRICE_MARGIN)).round() as i32;
    let spacing = if log { Spacing::Log } else { Spacing::Linear };
    let scale = Scale::new((top, height), range, (blank, blank), spacing);
    let wanted = (height / (PRICE_LABEL_EVERY_PX * s)).max(2) as usize;
    let tick = view.args.price_scale.tick_size;
    let decades = log.then(|| scale::decades(&scale, f64::from(LABEL_SIZE) * 1.6 * f64::from(s))).flatten();
    let labels = decades.unwrap_or_else(|| match view.percent_base() {
        Some(base) => percent_labels(&scale, base, wanted),
        None => {
            let mut labels = scale::even(scale.values(), wanted, tick, |value, _| value.to_string());
            let decimals = if tick.is_some() { view.decimals } else { view.decimals.max(labels.decimals) };
            labels.ticks.iter_mut().for_each(|(value, text)| *text = format::number(*value, decimals));
            labels
        }
    });
    (PanelBox { scale, labels, legend: true }, outside)
}

/// Labels at round changes from `base`.
fn percent_labels(scale: &Scale, base: f64, wanted: usize) -> Labels {
    let percent = |value: f64| (value / base - 1.0) * 100.0;
    let (low, high) = scale.values();
    let (a, b) = (percent(low), percent(high));
    let mut labels = scale::even((a.min(b), a.max(b)), wanted, None, |value, decimals| {
        format!("{}%", format::signed(value, decimals.max(2)))
    });
    labels.ticks.iter_mut().for_each(|(value, _)| *value = base * (1.0 + *value / 100.0));
    labels.ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    labels.decimals = 0;
    labels
}

fn study_box(view: &View<'_>, study: &Study, top: i32, height: i32) -> PanelBox {
    let s = view.args.scale as i32;
    let legend = view.args.legend && height >= LEGEND_PANEL_PX * s;
    let above = if legend { LEGEND_PX * s } else { 4 * s };
    let on_base = study.plots.iter().any(|plot| matches!(plot, Plot::Columns { .. }));
    let stripes = study.plots.iter().filter_map(|plot| match plot {
        Plot::Stripe { low, high, .. } => Some([*low, *high]),
        _ => None,
    });
    let (mut low, mut high) = study.range.unwrap_or_else(|| span(study.drawn().chain(stripes.flatten())));
    if on_base {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    let nothing = high.partial_cmp(&low) != Some(std::cmp::Ordering::Greater);
    if nothing && on_base {
        // Nothing was traded: an empty panel, in which 0 stands at the bottom.
        (low, high) = (0.0, 1.0);
    } else if nothing {
        let middle = if low.is_finite() { low } else { 0.0 };
        let pad = if middle == 0.0 { 1.0 } else { middle.abs() * 0.01 };
        (low, high) = (middle - pad, middle + pad);
    }
    // Room for half a label below the lowest value.
    let below = if on_base && low >= 0.0 { 0 } else { 8 * s };
    let scale = Scale::new((top, height), (low, high), (below, above), Spacing::Linear);
    let wanted = (height / (STUDY_LABEL_EVERY_PX * s)).max(3) as usize;
    let figures = view.figures(study.figures);
    let mut labels = scale::even((low, high), wanted, None, format::number);
    if figures == Figures::Volume {
        let values: Vec<f64> = labels.ticks.iter().map(|(value, _)| *value).collect();
        labels.ticks = values.iter().copied().zip(format::volume_ticks(&values)).collect();
    }
    if study.range.is_some() {
        // The two lines that matter, rather than round numbers.
        labels.ticks.clear();
        let rules = study.plots.iter().filter_map(|plot| match plot {
            Plot::Rule { value } => Some(*value),
            _ => None,
        });
        labels.ticks.extend(rules.map(|value| (value, format::number(value, steps::decimals_of(value).min(2)))));
    }
    if on_base && low >= 0.0 {
        labels.ticks.retain(|(value, _)| *value > 0.0 && !nothing);
    }
    PanelBox { scale, labels, legend }
}

fn axis_width(view: &View<'_>, price: &PanelBox, panels: &[PanelBox], tags: &[Tag], sizes: Sizes) -> i32 {
    let scale = view.args.scale as f32;
    let width = |text: &str, weight| font::width_px(text, LABEL_SIZE * scale, weight);
    let boxes = std::iter::once(price).chain(panels);
    let ticks = boxes.flat_map(|panel| &panel.labels.ticks).map(|(_, text)| width(text, Weight::Regular));
    let tags = tags.iter().map(|tag| width(&tag.text, Weight::SemiBold));
    let widest = ticks.chain(tags).fold(0.0, f32::max);
    widest.ceil() as i32 + 2 * sizes.label_pad * view.args.scale as i32
}

/// A price as the axis writes it.
pub(super) fn price_text(view: &View<'_>, price: f64, decimals: usize) -> String {
    match view.percent_base() {
        Some(base) => format!("{}%", format::signed((price / base - 1.0) * 100.0, 2)),
        None => format::number(price, decimals.min(steps::MAX_DECIMALS)),
    }
}
