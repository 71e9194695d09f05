//! Prices that have a box of their own on the axis: the last price, levels. Boxes never
//! overlap; where they would, they are pushed apart, and what has no room is left out.

use super::LABEL_SIZE;
use super::layout::price_text;
use super::scale::Scale;
use super::style::Style;
use super::view::View;
use crate::args::{Level, LevelKind, LineStyle};
use crate::font;
use crate::scene::{Color, Weight};

/// The height of a tag, in layout pixels.
pub(super) const TAG_PX: i32 = 20;

/// A price in a box.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tag {
    /// The row of its line.
    pub(super) row: i32,
    /// The first row of its box.
    pub(super) top: i32,
    pub(super) text: String,
    /// What stands beside it in the plot.
    pub(super) name: String,
    pub(super) color: Color,
    pub(super) line: LineStyle,
    /// Whether it is the last price.
    pub(super) is_last: bool,
}

/// The prices that should be on the axis, beside those of bars and studies.
pub(super) fn prices<'a>(view: &'a View<'_>) -> impl Iterator<Item = f64> + use<'a> {
    let args = view.args;
    let last = args.last_price.then_some(view.last_bar.close);
    let positions = args.positions.iter().flat_map(|p| [p.entry, p.stop_loss, p.take_profit]);
    let markers = args.markers.iter().filter_map(|marker| marker.price);
    last.into_iter().chain(args.levels.iter().map(|level| level.price)).chain(positions).chain(markers)
}

/// The colour of a level.
pub(super) fn color_of(level: &Level, style: &Style) -> Color {
    let usual = match level.kind {
        LevelKind::Entry | LevelKind::Line => style.series[0],
        LevelKind::StopLoss | LevelKind::Resistance => style.down,
        LevelKind::TakeProfit | LevelKind::Support => style.up,
        LevelKind::Alert => style.series[1],
    };
    level.color.map_or(usual, |hex| hex.0)
}

/// How wide a level's name is in its box; 0 without a name.
pub(super) fn chip_width(name: &str, scale: i32) -> i32 {
    let width = font::width_px(name, LABEL_SIZE * scale as f32, Weight::Regular).ceil() as i32;
    if name.is_empty() { 0 } else { width + 12 * scale }
}

/// The tags of a view that lie on the axis, the last price first.
pub(super) fn wanted(view: &View<'_>, scale: &Scale, decimals: usize) -> Vec<Tag> {
    let tag = |price: f64, name: String, color, line, is_last| {
        let row = scale.row(price);
        Tag { row, top: row, text: price_text(view, price, decimals), name, color, line, is_last }
    };
    let last = view.last_bar;
    let mut tags = Vec::new();
    if view.args.last_price && scale.holds(last.close) {
        let color = view.style.bar(last.rising());
        tags.push(tag(last.close, String::new(), color, LineStyle::Dotted, true));
    }
    for level in view.args.levels.iter().filter(|level| scale.holds(level.price)) {
        let name = level.label.clone().unwrap_or_else(|| level.kind.label().to_owned());
        let usual = if level.kind == LevelKind::Entry { LineStyle::Solid } else { LineStyle::Dashed };
        tags.push(tag(level.price, name, color_of(level, &view.style), level.line.unwrap_or(usual), false));
    }
    tags
}

/// Pushes tags apart inside the panel; drops the latest of those that have no room, and says
/// how many.
pub(super) fn arrange(tags: &mut Vec<Tag>, scale: &Scale, s: i32) -> usize {
    let height = TAG_PX * s;
    let room = (scale.height / height).max(1) as usize;
    let left_out = tags.len().saturating_sub(room);
    tags.truncate(room);
    tags.sort_by_key(|tag| (tag.row, !tag.is_last));
    let (least, most) = (scale.top, (scale.bottom() - height).max(scale.top));
    // Down from the top, then up from the bottom: each no further than it must.
    let mut next = least;
    for tag in tags.iter_mut() {
        tag.top = (tag.row - height / 2).clamp(next, most.max(next));
        next = tag.top + height;
    }
    let mut limit = most;
    for tag in tags.iter_mut().rev() {
        tag.top = tag.top.min(limit);
        limit = tag.top - height;
    }
    left_out
}

#[cfg(test)]
mod tests {
    use super::super::scale::Spacing;
    use super::*;

    /// Tops of tags 20 high whose lines are at `rows` of a panel of `height` rows.
    #[track_caller]
    fn check(rows: &[i32], height: i32, expected: &[i32], expected_left_out: usize) {
        let scale = Scale::new((0, height), (0.0, 1.0), (0, 0), Spacing::Linear);
        let tag = |row: &i32| Tag {
            row: *row,
            top: *row,
            text: String::new(),
            name: String::new(),
            color: Color::rgb(0),
            line: LineStyle::Solid,
            is_last: false,
        };
        let mut tags: Vec<Tag> = rows.iter().map(tag).collect();
        let left_out = arrange(&mut tags, &scale, 1);
        let tops: Vec<i32> = tags.iter().map(|tag| tag.top).collect();
        assert_eq!((tops.as_slice(), left_out), (expected, expected_left_out));
        assert!(tops.windows(2).all(|pair| pair[1] - pair[0] >= 20) && tops.iter().all(|top| *top >= 0));
    }

    #[test]
    fn tags_never_overlap() {
        check(&[50, 150], 200, &[40, 140], 0);
        check(&[50, 55, 60], 200, &[40, 60, 80], 0);
        check(&[199, 198], 200, &[160, 180], 0);
        check(&[0, 1], 200, &[0, 20], 0);
        check(&[5, 6, 7, 8, 9, 10], 100, &[0, 20, 40, 60, 80], 1);
    }
}
