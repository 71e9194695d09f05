//! Puts the parts of a laid-out chart into a scene, from the ground up: grid, borders, zones,
//! studies, bars, lines, marks, axes, header.

mod bars;
mod marks;
mod plots;

use super::header::Header;
use super::layout::{Layout, PanelBox};
use super::tags::{self, TAG_PX, Tag};
use super::time_axis::{self, Label};
use super::view::View;
use super::{LABEL_SIZE, format};
use crate::args::{LineStyle, Side};
use crate::font;
use crate::render::study::{Figures, Study};
use crate::render::style::Style;
use crate::scene::{Anchor, Color, Item, Rect, Scene, Text, Weight};

/// The least blank between two labels of the time axis, in layout pixels.
const TIME_GAP_PX: f32 = 24.0;

/// The whole chart, and what could not be drawn.
pub(super) fn scene(view: &View<'_>, layout: &Layout, header: Header) -> (Scene, Vec<String>) {
    let mut painter = Painter::new(view, layout);
    let times = painter.time_labels();
    if view.args.grid {
        painter.grid(&times);
    }
    painter.watermark();
    painter.borders();
    painter.reserve_chips();
    painter.zones();
    painter.studies();
    painter.tag_lines();
    painter.price();
    painter.trend_lines();
    painter.markers();
    painter.axes();
    painter.tags();
    painter.write_times(times);
    painter.legends();
    painter.scene.items.extend(header.texts.into_iter().map(Item::Text));
    (painter.scene, painter.notes)
}

/// The bars and lines alone, for a picture too small for words.
pub(super) fn bare(view: &View<'_>, layout: &Layout) -> Scene {
    let mut painter = Painter::new(view, layout);
    painter.studies();
    painter.price();
    painter.scene
}

pub(super) struct Painter<'a> {
    view: &'a View<'a>,
    layout: &'a Layout,
    scene: Scene,
    notes: Vec<String>,
    /// Boxes in the plot that hold words, which other words keep clear of.
    taken: Vec<Rect>,
}

impl<'a> Painter<'a> {
    fn new(view: &'a View<'a>, layout: &'a Layout) -> Self {
        let scale = view.args.scale;
        let (width, height) = (view.args.width_px * scale, view.args.height_px * scale);
        let scene = Scene::new(width, height, view.style.background);
        Self { view, layout, scene, notes: Vec::new(), taken: Vec::new() }
    }

    fn s(&self) -> i32 {
        self.layout.scale
    }

    fn label_px(&self) -> f32 {
        LABEL_SIZE * self.s() as f32
    }

    /// The price panel, without its axis.
    fn price_rect(&self) -> Rect {
        let (plot, scale) = (self.layout.plot, &self.layout.price.scale);
        Rect::new(plot.x, scale.top, plot.width, scale.height)
    }

    fn boxes(&self) -> impl Iterator<Item = &'a PanelBox> + use<'a> {
        std::iter::once(&self.layout.price).chain(&self.layout.panels)
    }

    fn grid(&mut self, times: &[Label]) {
        let (s, plot, grid) = (self.s(), self.layout.plot, self.view.style.grid);
        for label in times {
            let x = self.layout.bars.wick_x(label.bar);
            self.scene.rect(Rect::new(x, plot.y, s, plot.height), grid);
        }
        for panel in self.boxes() {
            for (value, _) in &panel.labels.ticks {
                let y = panel.scale.row(*value) - s / 2;
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
        for panel in &self.layout.panels {
            self.scene.rect(Rect::new(0, panel.scale.top, width, s), border);
        }
    }

    /// A line of one row from `x` to `end`, whole or in pieces.
    fn rule(&mut self, row: i32, (x, end): (i32, i32), style: LineStyle, color: Color) {
        let s = self.s();
        let (on, off) = match style {
            LineStyle::Solid => (end - x, 0),
            LineStyle::Dashed => (6 * s, 4 * s),
            LineStyle::Dotted => (2 * s, 2 * s),
        };
        if on <= 0 {
            return;
        }
        for from in (x..end).step_by((on + off).max(1) as usize) {
            self.scene.rect(Rect::new(from, row - s / 2, on.min(end - from), s), color);
        }
    }

    /// The lines of the last price and of levels.
    fn tag_lines(&mut self) {
        let plot = self.layout.plot;
        for tag in &self.layout.tags {
            self.rule(tag.row, (plot.x, plot.right()), tag.line, tag.color);
        }
    }

    /// The boxes on the axis, and the names of levels beside them.
    fn tags(&mut self) {
        let (s, axis, plot) = (self.s(), self.layout.axis, self.layout.plot);
        for tag in &self.layout.tags {
            if axis.width > 0 {
                self.scene.rect(Rect::new(axis.x, tag.top, axis.width, TAG_PX * s), tag.color);
                let middle = tag.top as f32 + (TAG_PX * s) as f32 / 2.0;
                self.axis_text(tag.text.clone(), middle, Weight::SemiBold, Style::on(tag.color));
            }
            let Some(chip) = self.chip_of(tag) else { continue };
            let at_right = self.view.args.price_scale.side == Side::Right;
            let x = if at_right { plot.right() - chip.width } else { plot.x };
            self.chip(Rect::new(x, tag.top, chip.width, chip.height), &tag.name, tag.color);
        }
    }

    /// The size of a level's name beside the axis, if it has one and there is room.
    fn chip_of(&self, tag: &Tag) -> Option<Rect> {
        let s = self.s();
        let width = tags::chip_width(&tag.name, s);
        let fits = !tag.name.is_empty() && width <= self.layout.plot.width / 2;
        fits.then(|| Rect::new(0, 0, width, TAG_PX * s))
    }

    /// Words in the middle of a filled box.
    fn chip(&mut self, place: Rect, words: &str, color: Color) {
        self.scene.rect(place, color);
        self.taken.push(place);
        let size_px = self.label_px();
        self.scene.items.push(Item::Text(Text {
            text: words.to_owned(),
            x: place.x as f32 + place.width as f32 / 2.0,
            baseline_y: baseline(place.y as f32 + place.height as f32 / 2.0, size_px),
            size_px,
            weight: Weight::Regular,
            anchor: Anchor::Middle,
            color: Style::on(color),
        }));
    }

    fn axes(&mut self) {
        for (index, panel) in self.boxes().enumerate() {
            self.axis_labels(panel, index == 0);
        }
    }

    /// Labels a panel's axis. A label that would touch a tag, an edge of the panel or the one
    /// before it is left out; its grid line stays.
    fn axis_labels(&mut self, panel: &PanelBox, has_tags: bool) {
        if self.layout.axis.width == 0 {
            return;
        }
        let (half, s) = (self.label_px() * 0.6, self.s());
        let (top, bottom) = (panel.scale.top as f32, panel.scale.bottom() as f32);
        let mut free_below = bottom;
        for (value, text) in &panel.labels.ticks {
            let middle = panel.scale.row(*value) as f32 + 0.5;
            let inside = middle - half >= top && middle + half <= free_below;
            let clear = |tag: &Tag| middle + half <= tag.top as f32 || middle - half >= (tag.top + TAG_PX * s) as f32;
            if inside && (!has_tags || self.layout.tags.iter().all(clear)) {
                self.axis_text(text.clone(), middle, Weight::Regular, self.view.style.text);
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

    /// Names the panels, with their last values.
    fn legends(&mut self) {
        for (panel, place) in self.view.panels.iter().zip(&self.layout.panels) {
            if place.legend {
                self.legend(&panel.study, place.scale.top);
            }
        }
    }

    fn legend(&mut self, study: &Study, top: i32) {
        let (s, size_px, plot) = (self.s() as f32, self.label_px(), self.layout.plot);
        let mut x = plot.x as f32 + self.layout.sizes.pad as f32 * s;
        let name = (study.name.clone(), self.view.style.muted);
        for (text, color) in std::iter::once(name).chain(legend_values(self.view, study)) {
            let text = Text {
                text,
                x,
                baseline_y: baseline(top as f32 + 14.0 * s, size_px),
                size_px,
                weight: Weight::Regular,
                anchor: Anchor::Start,
                color,
            };
            let end = x + text.width_px();
            if end > plot.right() as f32 {
                break;
            }
            x = end + 6.0 * s;
            self.scene.items.push(Item::Text(text));
        }
    }
}

/// The values that a legend shows, each in its colour.
pub(super) fn legend_values<'a>(
    view: &'a View<'_>,
    study: &'a Study,
) -> impl Iterator<Item = (String, Color)> + use<'a> {
    let last = view.last();
    study.legend.iter().map(move |(index, color)| {
        let value = study.series.get(*index).and_then(|(_, values)| values.get(last).copied().flatten());
        let text = value.map_or_else(
            || "–".to_owned(),
            |value| match view.figures(study.figures) {
                Figures::Volume => format::volume(value, None),
                Figures::Decimals(decimals) => format::number(value, decimals),
                Figures::Price => format::number(value, view.decimals),
            },
        );
        (text, *color)
    })
}

fn weight(bold: bool) -> Weight {
    if bold { Weight::SemiBold } else { Weight::Regular }
}

/// The baseline of figures and capitals whose middle is at `middle`.
fn baseline(middle: f32, size_px: f32) -> f32 {
    (middle + size_px * font::CAP_HEIGHT_EM / 2.0).round()
}
