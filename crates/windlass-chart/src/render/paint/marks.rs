//! What a trader put on the chart: zones, positions, lines, markers, patterns, a watermark.

use super::Painter;
use crate::args::{LineStyle, MarkerAt, Position, PositionSide, Shape};
use crate::font;
use crate::render::style::Style;
use crate::scene::{Anchor, Color, Item, Path, Point, Rect, Text, Weight};

/// The size of a marker's words, in layout pixels.
const MARK_TEXT: f32 = 11.0;
/// The width of a marker, in layout pixels.
const MARK_PX: f32 = 10.0;
/// Blank between a bar and its marker, in layout pixels.
const MARK_GAP: f32 = 5.0;
/// The share of the plot a watermark is wide at most.
const WATERMARK_SHARE: f32 = 0.7;

/// A marker of any origin.
struct Mark<'a> {
    bar: usize,
    shape: Shape,
    at: MarkerAt,
    price: f64,
    text: &'a str,
    color: Color,
}

impl Painter<'_> {
    /// Pale letters in the middle of the price panel.
    pub(super) fn watermark(&mut self) {
        let Some(text) = self.view.args.watermark.as_deref().filter(|text| !text.trim().is_empty()) else { return };
        let place = self.price_rect();
        let wide = font::width_px(text, 100.0, Weight::SemiBold).max(1.0);
        let size = (place.width as f32 * WATERMARK_SHARE / wide * 100.0).min(place.height as f32 * 0.3);
        let size_px = size.min(96.0 * self.s() as f32).floor();
        if size_px < 8.0 {
            return;
        }
        let middle = place.y as f32 + place.height as f32 / 2.0;
        self.scene.items.push(Item::Text(Text {
            text: text.to_owned(),
            x: place.x as f32 + place.width as f32 / 2.0,
            baseline_y: super::baseline(middle, size_px),
            size_px,
            weight: Weight::SemiBold,
            anchor: Anchor::Middle,
            color: self.view.style.text.over(self.view.style.background, 0.08),
        }));
    }

    /// Columns from one time to another; the plot's edges where there is none.
    fn columns_between(&self, from: Option<f64>, to: Option<f64>) -> (i32, i32) {
        let plot = self.layout.plot;
        let x = |t: f64, shift: f64| {
            let place = self.layout.bars.center(self.view.place_of(t) + shift);
            place.clamp(f64::from(plot.x), f64::from(plot.right())).round() as i32
        };
        (from.map_or(plot.x, |t| x(t, -0.5)), to.map_or(plot.right(), |t| x(t, 0.5)))
    }

    /// A shaded box between two prices; `None` when nothing of it can be seen.
    fn shade(&mut self, (x, end): (i32, i32), (low, high): (f64, f64), color: Color) -> Option<Rect> {
        let scale = &self.layout.price.scale;
        let (least, most) = scale.values();
        if high < least || low > most || end <= x {
            return None;
        }
        let (top, bottom) = (scale.row(high), scale.row(low) + 1);
        let place = Rect::new(x, top, end - x, bottom - top);
        self.scene.rect(place, color);
        Some(place)
    }

    /// Zones and positions, below everything else.
    pub(super) fn zones(&mut self) {
        let view = self.view;
        for zone in &view.args.zones {
            let color = zone.color.map_or(view.style.series[0], |hex| hex.0);
            let columns = self.columns_between(zone.from, zone.to);
            let place = self.shade(columns, (zone.low, zone.high), Style::pale(color, 31));
            if let (Some(place), Some(label)) = (place, zone.label.as_deref()) {
                self.words_in(place, label, color);
            }
        }
        for position in &view.args.positions {
            self.position(position);
        }
    }

    fn position(&mut self, position: &Position) {
        let style = &self.view.style;
        let (good, bad) = (style.up, style.down);
        let Position { side, entry, stop_loss, take_profit, from, to } = *position;
        let columns = self.columns_between(from, to);
        let span = |a: f64, b: f64| (a.min(b), a.max(b));
        let reward = self.shade(columns, span(entry, take_profit), Style::pale(good, 36));
        self.shade(columns, span(entry, stop_loss), Style::pale(bad, 36));
        if self.layout.price.scale.holds(entry) {
            let row = self.layout.price.scale.row(entry);
            self.rule(row, columns, LineStyle::Solid, self.view.style.muted);
        }
        let ratio = (take_profit - entry).abs() / (entry - stop_loss).abs();
        let name = match side {
            PositionSide::Long => "Long",
            PositionSide::Short => "Short",
        };
        if let Some(place) = reward {
            self.words_in(place, &format!("{name}, reward/risk {ratio:.2}"), good);
        }
    }

    /// Words in a corner of a box, clear of bars if one is; none where nothing is free.
    fn words_in(&mut self, place: Rect, words: &str, color: Color) {
        let (s, size_px) = (self.s(), MARK_TEXT * self.s() as f32);
        let width = font::width_px(words, size_px, Weight::Regular).ceil() as i32;
        let height = (size_px * 1.2) as i32;
        let (left, right) = (place.x + 6 * s, place.right() - 6 * s - width);
        let (top, bottom) = (place.y + 3 * s, place.bottom() - 3 * s - height);
        if left > right || top > bottom {
            return;
        }
        let corners = [(left, top), (left, bottom), (right, top), (right, bottom)];
        let boxes = corners.map(|(x, y)| Rect::new(x, y, width, height));
        if let Some(words_box) = self.clearest(&boxes) {
            self.write(words, words_box, color);
        }
    }

    /// The first of some boxes that is free of words and bars; else the first free of words.
    fn clearest(&self, boxes: &[Rect]) -> Option<Rect> {
        let free = || boxes.iter().filter(|place| self.is_free(**place));
        free().find(|place| self.is_clear_of_bars(**place)).or_else(|| free().next()).copied()
    }

    fn is_clear_of_bars(&self, place: Rect) -> bool {
        let (view, bars, scale) = (self.view, self.layout.bars, &self.layout.price.scale);
        // Bars stand evenly, so those in question are found without looking at the others.
        let step = (bars.center(1.0) - bars.center(0.0)).max(1e-6);
        let bar = |x: i32| ((f64::from(x) - bars.center(0.0)) / step).round().clamp(0.0, view.last() as f64) as usize;
        let (from, to) = (bar(place.x), bar(place.right()));
        (from..=to).all(|bar| {
            let (x, width) = (bars.body_x(bar), bars.body);
            let (top, bottom) = (scale.row(view.high[bar]), scale.row(view.low[bar]));
            x >= place.right() || x + width <= place.x || bottom < place.y || top >= place.bottom()
        })
    }

    fn is_free(&self, place: Rect) -> bool {
        let clear = |other: &Rect| {
            place.right() <= other.x
                || other.right() <= place.x
                || place.bottom() <= other.y
                || other.bottom() <= place.y
        };
        self.taken.iter().all(clear)
    }

    /// Words in a box of their size.
    fn write(&mut self, words: &str, place: Rect, color: Color) {
        self.taken.push(place);
        let size_px = MARK_TEXT * self.s() as f32;
        self.scene.items.push(Item::Text(Text {
            text: words.to_owned(),
            x: place.x as f32,
            baseline_y: super::baseline(place.y as f32 + place.height as f32 / 2.0, size_px),
            size_px,
            weight: Weight::Regular,
            anchor: Anchor::Start,
            color,
        }));
    }

    /// Straight lines from place to place.
    pub(super) fn trend_lines(&mut self) {
        let (view, s) = (self.view, self.s() as f32);
        let scale = &self.layout.price.scale;
        let spot = |t: f64, price: f64| {
            Point::new(self.layout.bars.center(view.place_of(t)) as f32, scale.y(price) as f32 + 0.5)
        };
        let mut items = Vec::new();
        for line in &view.args.lines {
            let color = line.color.map_or(view.style.series[0], |hex| hex.0);
            let ends = (spot(line.from.t, line.from.price), spot(line.to.t, line.to.price));
            let Some((from, to)) = within(ends, self.price_rect()) else { continue };
            items.extend(dashes(from, to, line.line, s).into_iter().map(|points| Item::Polyline {
                points,
                width_px: 1.6 * s,
                color,
            }));
        }
        if !items.is_empty() {
            let rect = self.price_rect();
            self.scene.items.push(Item::Clip { rect, items });
        }
    }

    /// The markers, and the patterns that were found.
    pub(super) fn markers(&mut self) {
        let view = self.view;
        let style = &view.style;
        let mut hidden = 0;
        for marker in &view.args.markers {
            let Some(bar) = view.bar_at(marker.t) else {
                hidden += 1;
                continue;
            };
            let usual = match marker.shape {
                Shape::ArrowUp => style.up,
                Shape::ArrowDown => style.down,
                Shape::Circle | Shape::Square => style.series[0],
            };
            let price = marker.price.unwrap_or((view.high[bar] + view.low[bar]) / 2.0);
            let color = marker.color.map_or(usual, |hex| hex.0);
            let text = marker.text.as_deref().unwrap_or("");
            self.mark(&Mark { bar, shape: marker.shape, at: marker.at, price, text, color });
        }
        if hidden > 0 {
            self.notes.push(format!("{hidden} markers lie before the first visible bar"));
        }
        for found in &view.patterns {
            let (shape, at, color) = if found.rising {
                (Shape::ArrowUp, MarkerAt::Below, style.up)
            } else {
                (Shape::ArrowDown, MarkerAt::Above, style.down)
            };
            self.mark(&Mark { bar: found.bar, shape, at, price: 0.0, text: found.label, color });
        }
    }

    /// Keeps the places of levels' names, which are drawn last, free of other words.
    pub(super) fn reserve_chips(&mut self) {
        let plot = self.layout.plot;
        let at_right = self.view.args.price_scale.side == crate::args::Side::Right;
        for tag in &self.layout.tags {
            if let Some(chip) = self.chip_of(tag) {
                let x = if at_right { plot.right() - chip.width } else { plot.x };
                self.taken.push(Rect::new(x, tag.top, chip.width, chip.height));
            }
        }
    }

    fn mark(&mut self, mark: &Mark<'_>) {
        let (s, view, scale) = (self.s() as f32, self.view, &self.layout.price.scale);
        let (x, size) = (self.layout.bars.drawn_center(mark.bar), MARK_PX * s);
        let (gap, half) = (MARK_GAP * s, size / 2.0);
        let above = scale.y(view.high[mark.bar]) as f32 - gap - half;
        let below = scale.y(view.low[mark.bar]) as f32 + gap + half;
        let y = match mark.at {
            MarkerAt::Above => above,
            MarkerAt::Below => below,
            MarkerAt::InBar | MarkerAt::Price => scale.y(mark.price) as f32 + 0.5,
        };
        let (top, bottom) = (scale.top as f32 + half, scale.bottom() as f32 - half);
        if mark.at == MarkerAt::Price && !(top - half..=bottom + half).contains(&y) {
            return;
        }
        // A second marker at one bar stands beyond the first.
        let away = if mark.at == MarkerAt::Below { size + 2.0 * s } else { -(size + 2.0 * s) };
        let body = |y: f32| Rect::new((x - half) as i32, (y - half) as i32, size as i32, size as i32);
        let mut y = y.clamp(top, bottom.max(top));
        for _ in 0..8 {
            let next = y + away;
            if self.is_free(body(y)) || next < top || next > bottom {
                break;
            }
            y = next;
        }
        self.taken.push(body(y));
        self.scene.fill(shape(mark.shape, x, y, size), mark.color);
        if !mark.text.is_empty() {
            self.mark_text(mark, x, y);
        }
    }

    /// A marker's words beyond it or beside it; nowhere if all places are taken.
    fn mark_text(&mut self, mark: &Mark<'_>, x: f32, y: f32) {
        let s = self.s() as f32;
        let (size, plot) = (MARK_TEXT * s, self.price_rect());
        let width = font::width_px(mark.text, size, Weight::Regular).ceil();
        let (height, half) = (size * 1.2, MARK_PX * s / 2.0);
        let beyond = if mark.at == MarkerAt::Below { y + half + s } else { y - half - s - height };
        let further = if mark.at == MarkerAt::Below { beyond + height } else { beyond - height };
        let side = y - height / 2.0;
        let places = [
            (x - width / 2.0, beyond),
            (x + half + 3.0 * s, side),
            (x - half - 3.0 * s - width, side),
            (x - half, beyond),
            (x + half - width, beyond),
            (x - width / 2.0, further),
        ];
        let boxes = places.map(|(left, top)| Rect::new(left as i32, top as i32, width as i32 + 1, height as i32));
        let inside = |place: &Rect| {
            place.x >= plot.x && place.right() <= plot.right() && place.y >= plot.y && place.bottom() <= plot.bottom()
        };
        let boxes: Vec<Rect> = boxes.into_iter().filter(inside).collect();
        if let Some(place) = self.clearest(&boxes) {
            self.write(mark.text, place, mark.color);
        }
    }
}

/// A marker of `size` around a place.
fn shape(shape: Shape, x: f32, y: f32, size: f32) -> Path {
    let half = size / 2.0;
    // An arrow with a short stem; `way` is −1 for up.
    let arrow = |way: f32| {
        let (tip, neck, foot) = (y + way * half, y + way * half * 0.05, y - way * half);
        Path::new()
            .move_to(x, tip)
            .line_to(x + half, neck)
            .line_to(x + half * 0.38, neck)
            .line_to(x + half * 0.38, foot)
            .line_to(x - half * 0.38, foot)
            .line_to(x - half * 0.38, neck)
            .line_to(x - half, neck)
            .close()
    };
    match shape {
        Shape::Circle => Path::circle(x, y, half * 0.9),
        Shape::Square => Path::round_rect(x - half * 0.85, y - half * 0.85, half * 1.7, half * 1.7, half * 0.2),
        Shape::ArrowUp => arrow(-1.0),
        Shape::ArrowDown => arrow(1.0),
    }
}

/// The part of a line inside a box, a little beyond its edges (Liang and Barsky); `None` when
/// there is none. Coordinates of a far end would not fit a rasteriser.
fn within((from, to): (Point, Point), place: Rect) -> Option<(Point, Point)> {
    const BEYOND: f32 = 8.0;
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let (left, right) = (place.x as f32 - BEYOND, place.right() as f32 + BEYOND);
    let (top, bottom) = (place.y as f32 - BEYOND, place.bottom() as f32 + BEYOND);
    let (mut enter, mut leave) = (0.0_f32, 1.0_f32);
    for (way, room) in [(-dx, from.x - left), (dx, right - from.x), (-dy, from.y - top), (dy, bottom - from.y)] {
        if way == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if way < 0.0 {
            enter = enter.max(room / way);
        } else {
            leave = leave.min(room / way);
        }
    }
    let at = |part: f32| Point::new(from.x + dx * part, from.y + dy * part);
    (enter < leave).then(|| (at(enter), at(leave)))
}

/// A line in pieces.
fn dashes(from: Point, to: Point, style: LineStyle, s: f32) -> Vec<Vec<Point>> {
    let (on, off) = match style {
        LineStyle::Solid => return vec![vec![from, to]],
        LineStyle::Dashed => (7.0 * s, 5.0 * s),
        LineStyle::Dotted => (0.5 * s, 4.0 * s),
    };
    let length = (to.x - from.x).hypot(to.y - from.y);
    let at = |way: f32| {
        let part = way / length;
        Point::new(from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part)
    };
    let pieces = (length / (on + off)).ceil() as usize;
    let starts = (0..pieces).map(|index| index as f32 * (on + off));
    starts.map(|start| vec![at(start), at((start + on).min(length))]).collect()
}
