//! Puts the parts of a laid-out chart into a scene, from the ground up: grid, borders,
//! volume, last-price line, bars, averages, axes, header.

use super::layout::{Layout, Panel};
use super::time_axis::{self, Label};
use super::view::View;
use super::{LABEL_SIZE, format};
use crate::args::Side;
use crate::font;
use crate::scene::{Anchor, Color, Item, Point, Rect, Scene, Text, Weight};

/// The thickness of an average, in layout pixels.
const LINE_PX: f32 = 1.5;
/// The least blank between two labels of the time axis, in layout pixels.
const TIME_GAP_PX: f32 = 24.0;
/// The height of the last-price tag, in layout pixels.
const TAG_PX: i32 = 20;
/// The last-price line: so many layout pixels drawn, as many left out.
const DOT_PX: i32 = 2;

/// The whole chart.
pub(super) fn scene(view: &View<'_>, layout: &Layout, header: Vec<Text>) -> Scene {
    let scale = view.args.scale;
    let (width, height) = (view.args.width_px * scale, view.args.height_px * scale);
    let scene = Scene::new(width, height, view.style.background);
    let mut painter = Painter { view, layout, scene };
    let times = painter.time_labels();
    if view.args.grid {
        painter.grid(&times);
    }
    painter.borders();
    painter.volume();
    let tag = painter.last_price_line();
    if layout.bars.merged {
        painter.merged_bars();
    } else {
        painter.candles();
    }
    painter.averages();
    painter.axis_labels(&layout.price, tag, |value| format::number(value, layout.decimals));
    if let Some(volume) = &layout.volume {
        painter.axis_labels(volume, None, format::volume_tick);
    }
    painter.tag(tag);
    painter.write_times(times);
    painter.volume_legend();
    painter.scene.items.extend(header.into_iter().map(Item::Text));
    painter.scene
}

struct Painter<'a> {
    view: &'a View<'a>,
    layout: &'a Layout,
    scene: Scene,
}

impl Painter<'_> {
    fn s(&self) -> i32 {
        self.layout.scale
    }

    fn label_px(&self) -> f32 {
        LABEL_SIZE * self.s() as f32
    }

    fn grid(&mut self, times: &[Label]) {
        let (s, plot, grid) = (self.s(), self.layout.plot, self.view.style.grid);
        for label in times {
            let x = self.layout.bars.wick_x(label.bar);
            self.scene.rect(Rect::new(x, plot.y, s, plot.height), grid);
        }
        for panel in std::iter::once(&self.layout.price).chain(&self.layout.volume) {
            for &value in &panel.ticks.values {
                let y = panel.row(value) - s / 2;
                self.scene.rect(Rect::new(plot.x, y, plot.width, s), grid);
            }
        }
    }

    fn borders(&mut self) {
        let (s, plot, axis) = (self.s(), self.layout.plot, self.layout.axis);
        let (border, width) = (self.view.style.border, plot.width + axis.width);
        let axis_x = match self.view.args.price_scale.side {
            Side::Right => axis.x,
            Side::Left => axis.right() - s,
        };
        if axis.width > 0 {
            self.scene.rect(Rect::new(axis_x, axis.y, s, axis.height), border);
        }
        self.scene.rect(Rect::new(0, plot.bottom(), width, s), border);
        if let Some(volume) = &self.layout.volume {
            self.scene.rect(Rect::new(0, volume.top, width, s), border);
        }
    }

    fn volume(&mut self) {
        let (Some(panel), Some(volumes)) = (&self.layout.volume, self.view.volume) else {
            return;
        };
        let (bars, s) = (self.layout.bars, self.s());
        let mut column = |x: i32, width: i32, volume: f64, rising: bool| {
            if volume > 0.0 {
                // A trade is never invisible: at least one row.
                let top = panel.row(volume).min(panel.bottom() - s);
                let rect = Rect::new(x, top, width, panel.bottom() - top);
                self.scene.rect(rect, self.view.style.volume(rising));
            }
        };
        if bars.merged {
            for (x, group) in columns(self.view, self.layout) {
                let most = volumes[group.clone()].iter().copied().fold(0.0, f64::max);
                column(x, s, most, rising(self.view, &group));
            }
        } else {
            for (bar, &volume) in volumes.iter().enumerate() {
                column(bars.body_x(bar), bars.body, volume, self.view.rising(bar));
            }
        }
    }

    fn candles(&mut self) {
        let (view, panel, bars, s) = (self.view, &self.layout.price, self.layout.bars, self.s());
        for bar in 0..view.bars() {
            let color = view.style.bar(view.rising(bar));
            let mut span = |x: i32, width: i32, from: f64, to: f64| {
                let (top, end) = (panel.row(from), panel.row(to) + 1);
                // A doji is one pixel high, not nothing.
                self.scene.rect(Rect::new(x, top, width, (end - top).max(s)), color);
            };
            let (open, close) = (view.open[bar], view.close[bar]);
            span(bars.wick_x(bar), bars.wick, view.high[bar], view.low[bar]);
            if bars.body > bars.wick {
                span(bars.body_x(bar), bars.body, open.max(close), open.min(close));
            }
        }
    }

    fn merged_bars(&mut self) {
        let (view, panel, s) = (self.view, &self.layout.price, self.s());
        for (x, group) in columns(view, self.layout) {
            let high = view.high[group.clone()].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let low = view.low[group.clone()].iter().copied().fold(f64::INFINITY, f64::min);
            let (top, end) = (panel.row(high), panel.row(low) + 1);
            let color = view.style.bar(rising(view, &group));
            self.scene.rect(Rect::new(x, top, s, (end - top).max(s)), color);
        }
    }

    fn averages(&mut self) {
        let (panel, bars) = (&self.layout.price, self.layout.bars);
        let width_px = LINE_PX * self.s() as f32;
        let clip = Rect::new(self.layout.plot.x, panel.top, self.layout.plot.width, panel.height);
        let lines = self.view.lines.iter().map(|line| {
            let known = line.values.iter().enumerate().filter_map(|(bar, v)| Some((bar, (*v)?)));
            let point = |(bar, v)| Point::new(bars.drawn_center(bar), panel.y(v) as f32 + 0.5);
            Item::Polyline { points: known.map(point).collect(), width_px, color: line.color }
        });
        let items: Vec<_> = lines.collect();
        if !items.is_empty() {
            self.scene.items.push(Item::Clip { rect: clip, items });
        }
    }

    /// Draws the dotted line of the last close; returns where its tag goes.
    fn last_price_line(&mut self) -> Option<Rect> {
        if !self.view.args.last_price {
            return None;
        }
        let (s, plot, panel) = (self.s(), self.layout.plot, &self.layout.price);
        let row = panel.row(self.view.close[self.view.last()]);
        let color = self.last_color();
        for x in (plot.x..plot.right()).step_by(2 * DOT_PX as usize * s as usize) {
            let width = (DOT_PX * s).min(plot.right() - x);
            self.scene.rect(Rect::new(x, row - s / 2, width, s), color);
        }
        let height = TAG_PX * s;
        let most = (panel.bottom() - height).max(panel.top);
        let top = (row - height / 2).clamp(panel.top, most);
        let axis = self.layout.axis;
        (axis.width > 0).then(|| Rect::new(axis.x, top, axis.width, height))
    }

    fn last_color(&self) -> Color {
        self.view.style.bar(self.view.rising(self.view.last()))
    }

    fn tag(&mut self, tag: Option<Rect>) {
        let Some(tag) = tag else { return };
        self.scene.rect(tag, self.last_color());
        let price = self.view.close[self.view.last()];
        let text = format::number(price, self.layout.decimals);
        let middle = tag.y as f32 + tag.height as f32 / 2.0;
        self.axis_text(text, middle, Weight::SemiBold, self.view.style.on_tag);
    }

    /// Labels a panel's axis. A label that would touch the tag, an edge of the panel or
    /// the one before it is left out; its grid line stays.
    fn axis_labels(&mut self, panel: &Panel, tag: Option<Rect>, text: impl Fn(f64) -> String) {
        if self.layout.axis.width == 0 {
            return;
        }
        let half = self.label_px() * 0.6;
        let (top, bottom) = (panel.top as f32, panel.bottom() as f32);
        let mut free_below = bottom;
        for &value in &panel.ticks.values {
            let middle = panel.row(value) as f32 + 0.5;
            let inside = middle - half >= top && middle + half <= free_below;
            let beside_tag =
                tag.is_none_or(|tag| middle + half <= tag.y as f32 || middle - half >= tag.bottom() as f32);
            if inside && beside_tag {
                self.axis_text(text(value), middle, Weight::Regular, self.view.style.text);
                free_below = middle - half;
            }
        }
    }

    fn axis_text(&mut self, text: String, middle: f32, weight: Weight, color: Color) {
        let (axis, size_px) = (self.layout.axis, self.label_px());
        let pad = self.layout.sizes.label_pad * self.s();
        let x = (axis.right() - pad) as f32;
        let baseline_y = baseline(middle, size_px);
        let anchor = Anchor::End;
        let text = Text { text, x, baseline_y, size_px, weight, anchor, color };
        self.scene.items.push(Item::Text(text));
    }

    fn time_labels(&self) -> Vec<Label> {
        let (s, size) = (self.s() as f32, self.label_px());
        let image_width = self.layout.plot.width + self.layout.axis.width;
        let room = time_axis::Room {
            bar_x: |bar| self.layout.bars.drawn_center(bar),
            width: |text: &str, bold| font::width_px(text, size, weight(bold)),
            left: 2.0 * s,
            right: image_width as f32 - 2.0 * s,
            gap: TIME_GAP_PX * s,
        };
        time_axis::labels(&self.view.times, self.view.before, &room)
    }

    fn write_times(&mut self, labels: Vec<Label>) {
        let size_px = self.label_px();
        let height = self.layout.sizes.time_axis * self.s();
        let middle = self.layout.plot.bottom() as f32 + height as f32 / 2.0;
        for label in labels {
            self.scene.items.push(Item::Text(Text {
                text: label.text,
                x: label.left,
                baseline_y: baseline(middle, size_px),
                size_px,
                weight: weight(label.is_year),
                anchor: Anchor::Start,
                color: self.view.style.text,
            }));
        }
    }

    fn volume_legend(&mut self) {
        let (Some(panel), Some(volumes)) = (&self.layout.volume, self.view.volume) else {
            return;
        };
        if !self.layout.volume_legend {
            return;
        }
        let (s, size_px, last) = (self.s() as f32, self.label_px(), self.view.last());
        let style = self.view.style;
        let mut x = self.layout.plot.x as f32 + self.layout.sizes.pad as f32 * s;
        let value = format::volume(volumes[last], None);
        let color = style.bar(self.view.rising(last));
        for (text, color) in [("Volume".to_owned(), style.muted), (value, color)] {
            let text = Text {
                text,
                x,
                baseline_y: baseline(panel.top as f32 + 14.0 * s, size_px),
                size_px,
                weight: Weight::Regular,
                anchor: Anchor::Start,
                color,
            };
            x += text.width_px() + 5.0 * s;
            self.scene.items.push(Item::Text(text));
        }
    }
}

fn weight(bold: bool) -> Weight {
    if bold { Weight::SemiBold } else { Weight::Regular }
}

/// The baseline of figures and capitals whose middle is at `middle`.
fn baseline(middle: f32, size_px: f32) -> f32 {
    (middle + size_px * font::CAP_HEIGHT_EM / 2.0).round()
}

/// Bars that share a column of pixels, oldest first: the column's x and the bars.
fn columns(view: &View<'_>, layout: &Layout) -> Vec<(i32, std::ops::Range<usize>)> {
    let s = layout.scale;
    let column = |bar: usize| layout.bars.wick_x(bar).div_euclid(s) * s;
    let mut columns: Vec<(i32, std::ops::Range<usize>)> = Vec::new();
    for bar in 0..view.bars() {
        let x = column(bar);
        match columns.last_mut() {
            Some((last, group)) if *last == x => group.end = bar + 1,
            _ => columns.push((x, bar..bar + 1)),
        }
    }
    columns
}

/// Whether merged bars end above where they began.
fn rising(view: &View<'_>, group: &std::ops::Range<usize>) -> bool {
    view.close[group.end - 1] >= view.open[group.start]
}
