//! What studies draw: lines, bands, columns, stripes.

use std::ops::Range;

use super::Painter;
use crate::args::LineStyle;
use crate::render::layout::Bars;
use crate::render::scale::Scale;
use crate::render::study::{Plot, Study};
use crate::scene::{Color, Item, Path, Point, Rect};

/// The thickness of a study's line, in layout pixels.
const LINE_PX: f32 = 1.5;

impl Painter<'_> {
    /// Draws every panel's study, and those of the price.
    pub(super) fn studies(&mut self) {
        for (panel, place) in self.view.panels.iter().zip(&self.layout.panels) {
            self.study(&panel.study, &place.scale);
        }
        for study in &self.view.overlays {
            self.study(study, &self.layout.price.scale);
        }
    }

    fn study(&mut self, study: &Study, scale: &Scale) {
        let plot = self.layout.plot;
        for drawn in &study.plots {
            match drawn {
                Plot::Stripe { low, high, color } => {
                    let (top, end) = (scale.row(*high), scale.row(*low));
                    self.scene.rect(Rect::new(plot.x, top, plot.width, end - top), *color);
                }
                Plot::Rule { value } if scale.holds(*value) => {
                    let color = self.view.style.muted.over(self.view.style.background, 0.6);
                    self.rule(scale.row(*value), (plot.x, plot.right()), LineStyle::Dashed, color);
                }
                Plot::Rule { .. } => {}
                Plot::Columns { values, colors, base } => self.histogram(values, colors, *base, scale),
                Plot::Line { .. } | Plot::Band { .. } => {}
            }
        }
        let smooth: Vec<Item> = study.plots.iter().flat_map(|drawn| self.smooth(drawn, scale)).collect();
        if !smooth.is_empty() {
            let rect = Rect::new(plot.x, scale.top, plot.width, scale.height);
            self.scene.items.push(Item::Clip { rect, items: smooth });
        }
    }

    /// A line or band as smoothed shapes, one for each stretch without a gap.
    fn smooth(&self, drawn: &Plot, scale: &Scale) -> Vec<Item> {
        let (bars, width_px) = (&self.layout.bars, LINE_PX * self.s() as f32);
        let beyond = self.view.bars() + self.view.ahead;
        match drawn {
            Plot::Line { values, color, .. } => {
                let values = &values[..values.len().min(beyond)];
                let points = runs(values).map(|run| line_points(values, run, bars, scale));
                points.map(|points| Item::Polyline { points, width_px, color: *color }).collect()
            }
            Plot::Band { upper, lower, color, flipped } => {
                let end = upper.len().min(lower.len()).min(beyond);
                band(&upper[..end], &lower[..end], (*color, *flipped), bars, scale)
            }
            _ => Vec::new(),
        }
    }

    fn histogram(&mut self, values: &[Option<f64>], colors: &[Color], base: f64, scale: &Scale) {
        let (bars, s) = (self.layout.bars, self.s());
        let mut column = |x: i32, width: i32, value: f64, color: Color| {
            if value != base {
                // What stands on the floor reaches down to it; a trade is never invisible.
                let floor = if scale.holds(base) { scale.row(base) } else { scale.bottom() - 1 };
                let row = scale.row(value);
                let (top, end) = if row <= floor { (row.min(floor + 1 - s), floor + 1) } else { (floor, row + 1) };
                self.scene.rect(Rect::new(x, top, width, (end - top).max(s)), color);
            }
        };
        if !bars.merged {
            for (bar, (value, color)) in values.iter().zip(colors).enumerate() {
                if let Some(value) = value {
                    column(bars.body_x(bar), bars.body, *value, *color);
                }
            }
            return;
        }
        let far = |a: f64, b: f64| if (b - base).abs() > (a - base).abs() { b } else { a };
        let groups = Painter::columns(self);
        let mut column = |x: i32, value: f64, color: Color| {
            let floor = if scale.holds(base) { scale.row(base) } else { scale.bottom() - 1 };
            let row = scale.row(value);
            let (top, end) = (row.min(floor + 1 - s), row.max(floor) + 1);
            self.scene.rect(Rect::new(x, top, s, end - top), color);
        };
        for (x, group) in groups {
            let most = values[group.clone()].iter().flatten().copied().reduce(far);
            if let Some(value) = most.filter(|value| *value != base) {
                column(x, value, colors[group.end - 1]);
            }
        }
    }
}

/// The stretches of a series that have values.
pub(super) fn runs(values: &[Option<f64>]) -> impl Iterator<Item = Range<usize>> + use<'_> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + values[from..].iter().position(Option::is_some)?;
        let length = values[start..].iter().position(Option::is_none).unwrap_or(values.len() - start);
        from = start + length;
        Some(start..from)
    })
}

/// A stretch of a line. Of values that share a column of pixels the first, least, greatest
/// and last are kept (M4: Jugel and others, VLDB 2014), which draws the same picture.
pub(super) fn line_points(values: &[Option<f64>], run: Range<usize>, bars: &Bars, scale: &Scale) -> Vec<Point> {
    let known = run.filter_map(|bar| Some((bar, values[bar]?)));
    let mut points: Vec<Point> =
        known.map(|(bar, value)| Point::new(bars.drawn_center(bar), scale.y(value) as f32 + 0.5)).collect();
    if bars.merged {
        points = thinned(&points);
    }
    // A line of one value would not be seen.
    if let [only] = points[..] {
        points = vec![Point::new(only.x - 0.5, only.y), Point::new(only.x + 0.5, only.y)];
    }
    points
}

fn thinned(points: &[Point]) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::with_capacity(points.len());
    for column in points.chunk_by(|a, b| a.x.floor() == b.x.floor()) {
        let by_y = |index: &usize| column[*index].y;
        let extreme = |order: fn(f32, f32) -> bool| {
            (0..column.len()).reduce(|best, i| if order(by_y(&i), by_y(&best)) { i } else { best })
        };
        let mut wanted = [Some(0), extreme(|a, b| a < b), extreme(|a, b| a > b), column.len().checked_sub(1)];
        wanted.sort_unstable();
        let mut last = None;
        for index in wanted.into_iter().flatten() {
            if last != Some(index) {
                kept.push(column[index]);
                last = Some(index);
            }
        }
    }
    kept
}

/// The area between two lines, parted where they cross.
fn band(
    upper: &[Option<f64>],
    lower: &[Option<f64>],
    (color, flipped): (Color, Color),
    bars: &Bars,
    scale: &Scale,
) -> Vec<Item> {
    let both: Vec<Option<f64>> = upper.iter().zip(lower).map(|(a, b)| a.and(*b)).collect();
    let mut items = Vec::new();
    for run in runs(&both) {
        let point = |bar: usize, value: f64| Point::new(bars.drawn_center(bar), scale.y(value) as f32 + 0.5);
        let pairs: Vec<(Point, Point)> =
            run.filter_map(|bar| Some((point(bar, upper[bar]?), point(bar, lower[bar]?)))).collect();
        if color == flipped {
            items.extend(closed(&pairs, color));
            continue;
        }
        let mut part: Vec<(Point, Point)> = Vec::new();
        for pair in pairs {
            if let Some(&(a, b)) = part.last()
                && (a.y - b.y) * (pair.0.y - pair.1.y) < 0.0
            {
                let gap = (a.y - b.y) / ((a.y - b.y) - (pair.0.y - pair.1.y));
                let cross = Point::new(a.x + (pair.0.x - a.x) * gap, a.y + (pair.0.y - a.y) * gap);
                part.push((cross, cross));
                items.extend(closed(&part, side(&part, color, flipped)));
                part = vec![(cross, cross)];
            }
            part.push(pair);
        }
        items.extend(closed(&part, side(&part, color, flipped)));
    }
    items
}

/// The colour of a part: that of its upper line while that lies above.
fn side(part: &[(Point, Point)], color: Color, flipped: Color) -> Color {
    let below: f32 = part.iter().map(|(a, b)| a.y - b.y).sum();
    if below > 0.0 { flipped } else { color }
}

fn closed(pairs: &[(Point, Point)], color: Color) -> Option<Item> {
    let first = pairs.first().filter(|_| pairs.len() > 1)?;
    let there =
        pairs[1..].iter().fold(Path::new().move_to(first.0.x, first.0.y), |path, (a, _)| path.line_to(a.x, a.y));
    let path = pairs.iter().rev().fold(there, |path, (_, b)| path.line_to(b.x, b.y)).close();
    Some(Item::Fill { path, color })
}
