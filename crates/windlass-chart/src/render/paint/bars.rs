//! The price itself: candles, bars, lines, bricks.

use std::ops::Range;

use super::Painter;
use super::plots::{line_points, runs};
use crate::args::ChartType;
use crate::render::style::Style;
use crate::scene::{Color, Item, Path, Point, Rect};

/// The thickness of a price line, in layout pixels.
const PRICE_LINE_PX: f32 = 2.0;

impl Painter<'_> {
    /// Draws the bars as the args ask for them.
    pub(super) fn price(&mut self) {
        let merged = self.layout.bars.merged;
        match self.view.args.chart_type {
            ChartType::Line => self.line(),
            ChartType::Area => self.area(),
            ChartType::Baseline => self.baseline(),
            _ if merged => self.merged_bars(),
            ChartType::Candle | ChartType::HeikinAshi => self.candles(),
            ChartType::HollowCandle => self.hollow_candles(),
            ChartType::Ohlc => self.ohlc(),
            ChartType::Renko => self.bricks(),
        }
    }

    /// A box from one price to another; a doji is one pixel high, not nothing.
    fn span(&mut self, x: i32, width: i32, from: f64, to: f64, color: Color) {
        let scale = &self.layout.price.scale;
        let (top, end) = (scale.row(from.max(to)), scale.row(from.min(to)) + 1);
        let height = (end - top).max(self.s());
        self.scene.rect(Rect::new(x, top, width, height), color);
    }

    fn candles(&mut self) {
        let (view, bars) = (self.view, self.layout.bars);
        for bar in 0..view.bars() {
            let color = view.style.bar(view.rising(bar));
            self.span(bars.wick_x(bar), bars.wick, view.high[bar], view.low[bar], color);
            if bars.body > bars.wick {
                self.span(bars.body_x(bar), bars.body, view.open[bar], view.close[bar], color);
            }
        }
    }

    /// Empty when the bar rose; green or red by the close before. Too narrow to be empty, a
    /// body is drawn whole.
    fn hollow_candles(&mut self) {
        let (view, bars, s) = (self.view, self.layout.bars, self.s());
        for bar in 0..view.bars() {
            let color = view.style.bar(view.close[bar] >= view.closed_before(bar));
            let (open, close) = (view.open[bar], view.close[bar]);
            if bars.body <= 2 * s {
                self.span(bars.wick_x(bar), bars.wick, view.high[bar], view.low[bar], color);
                continue;
            }
            // The wick ends at the body, which is seen through.
            self.span(bars.wick_x(bar), bars.wick, view.high[bar], open.max(close), color);
            self.span(bars.wick_x(bar), bars.wick, open.min(close), view.low[bar], color);
            self.span(bars.body_x(bar), bars.body, open, close, color);
            let scale = &self.layout.price.scale;
            let (top, end) = (scale.row(open.max(close)) + s, scale.row(open.min(close)) + 1 - s);
            if view.rising(bar) && end > top {
                let inside = Rect::new(bars.body_x(bar) + s, top, bars.body - 2 * s, end - top);
                self.scene.rect(inside, view.style.background);
            }
        }
    }

    fn ohlc(&mut self) {
        let (view, bars, s) = (self.view, self.layout.bars, self.s());
        let scale = &self.layout.price.scale;
        // Thicker stems where there is room for them.
        let stem = if bars.body >= 9 * s { 2 * s } else { s };
        for bar in 0..view.bars() {
            let color = view.style.bar(view.rising(bar));
            let x = bars.wick_x(bar) - (stem - s) / 2;
            self.span(x, stem, view.high[bar], view.low[bar], color);
            let arm = (bars.body - s) / 2;
            let row = |price: f64| scale.row(price) - stem / 2 + s / 2;
            if arm > 0 {
                self.scene.rect(Rect::new(x - arm, row(view.open[bar]), arm, stem), color);
                self.scene.rect(Rect::new(x + stem, row(view.close[bar]), arm, stem), color);
            }
        }
    }

    /// Bricks side by side: each as wide as its place, but for a column of blank.
    fn bricks(&mut self) {
        let (view, bars, s) = (self.view, self.layout.bars, self.s());
        let edge = |bar: usize| bars.center(bar as f64 - 0.5).round() as i32;
        for bar in 0..view.bars() {
            let color = view.style.bar(view.rising(bar));
            let (open, close) = (view.open[bar], view.close[bar]);
            let (x, width) = (edge(bar), (edge(bar + 1) - edge(bar) - s).max(s));
            self.span(x, width, open, close, color);
            let scale = &self.layout.price.scale;
            let (top, end) = (scale.row(open.max(close)), scale.row(open.min(close)) + 1);
            if width >= 6 * s && end - top >= 6 * s {
                // A darker rim keeps bricks of one colour apart.
                let inside = Rect::new(x + s, top + s, width - 2 * s, end - top - 2 * s);
                self.scene.rect(inside, color.over(view.style.background, 0.72));
            }
        }
    }

    /// Bars that share a column of pixels, from their lowest to their highest price.
    fn merged_bars(&mut self) {
        let (view, s) = (self.view, self.s());
        for (x, group) in self.columns() {
            let high = view.high[group.clone()].iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let low = view.low[group.clone()].iter().copied().fold(f64::INFINITY, f64::min);
            let rising = view.close[group.end - 1] >= view.open[group.start];
            self.span(x, s, high, low, view.style.bar(rising));
        }
    }

    /// Bars that share a column of pixels, oldest first: the column's x and the bars.
    pub(super) fn columns(&self) -> Vec<(i32, Range<usize>)> {
        let s = self.layout.scale;
        let mut columns: Vec<(i32, Range<usize>)> = Vec::new();
        for bar in 0..self.view.bars() {
            let x = self.layout.bars.wick_x(bar).div_euclid(s) * s;
            match columns.last_mut() {
                Some((last, group)) if *last == x => group.end = bar + 1,
                _ => columns.push((x, bar..bar + 1)),
            }
        }
        columns
    }

    /// The closes as points; a single one becomes a short stroke.
    fn close_points(&self) -> Vec<Point> {
        let values: Vec<Option<f64>> = self.view.close.iter().map(|close| Some(*close)).collect();
        let run = runs(&values).next().unwrap_or(0..0);
        let mut points = line_points(&values, run, &self.layout.bars, &self.layout.price.scale);
        if let [only] = points[..] {
            let half = self.layout.bars.body as f32 / 2.0;
            points = vec![Point::new(only.x - half, only.y), Point::new(only.x + half, only.y)];
        }
        points
    }

    fn line(&mut self) {
        let (points, color) = (self.close_points(), self.view.style.series[0]);
        self.clipped(vec![self.price_line(points, color)]);
    }

    fn price_line(&self, points: Vec<Point>, color: Color) -> Item {
        Item::Polyline { points, width_px: PRICE_LINE_PX * self.s() as f32, color }
    }

    fn clipped(&mut self, items: Vec<Item>) {
        let rect = self.price_rect();
        self.scene.items.push(Item::Clip { rect, items });
    }

    fn area(&mut self) {
        let (points, color) = (self.close_points(), self.view.style.series[0]);
        let floor = self.layout.price.scale.bottom() as f32;
        let fill = Item::Fill { path: under(&points, floor), color: Style::pale(color, 40) };
        let line = self.price_line(points, color);
        self.clipped(vec![fill, line]);
    }

    /// Two colours, above and below the first close.
    fn baseline(&mut self) {
        let (view, plot) = (self.view, self.price_rect());
        let points = self.close_points();
        let row = self.layout.price.scale.row(view.close[0]);
        self.rule(row, (plot.x, plot.right()), crate::args::LineStyle::Dashed, view.style.muted);
        let middle = row as f32 + 0.5;
        let halves = [
            (Rect::new(plot.x, plot.y, plot.width, row - plot.y), view.style.up),
            (Rect::new(plot.x, row, plot.width, plot.bottom() - row), view.style.down),
        ];
        for (rect, color) in halves {
            let fill = Item::Fill { path: under(&points, middle), color: Style::pale(color, 46) };
            let line = self.price_line(points.clone(), color);
            self.scene.items.push(Item::Clip { rect, items: vec![fill, line] });
        }
    }
}

/// The area between a line and a row.
fn under(points: &[Point], row: f32) -> Path {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Path::new() };
    let path = Path::new().move_to(first.x, row);
    let path = points.iter().fold(path, |path, point| path.line_to(point.x, point.y));
    path.line_to(last.x, row).close()
}
