//! The lines above the plot: title, symbol, the last bar's values, the averages.
//!
//! They have room of their own, so that neither a candle nor the last-price line can run
//! through them. What does not fit is left out and noted.

use super::paint::legend_values;
use super::view::View;
use super::{format, steps};
use crate::args::ChartType;
use crate::font;
use crate::scene::{Anchor, Color, Text, Weight};

/// A run of text in one colour.
struct Span {
    text: String,
    weight: Weight,
    color: Color,
}

impl Span {
    fn regular(text: impl Into<String>, color: Color) -> Self {
        Self { text: text.into(), weight: Weight::Regular, color }
    }
}

/// Spans that are never parted by a line break, side by side.
struct Chip {
    spans: Vec<Span>,
    size: f32,
    /// Starts a line of its own.
    own_line: bool,
}

/// Where the header goes, in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) left: f32,
    pub(super) right: f32,
    pub(super) top: f32,
    /// Nothing below this.
    pub(super) bottom: f32,
    /// Pixels per layout pixel.
    pub(super) scale: f32,
}

/// The header, laid out.
pub(super) struct Header {
    pub(super) texts: Vec<Text>,
    /// The end of its last line.
    pub(super) bottom: f32,
    /// Whether something did not fit.
    pub(super) shortened: bool,
}

const TITLE_SIZE: f32 = 18.0;
const SYMBOL_SIZE: f32 = 15.0;
const BODY_SIZE: f32 = 13.0;
/// The height of a line, in sizes of its text.
const LEADING: f32 = 1.6;
/// Blank between the titles and the symbol.
const BELOW_TITLE: f32 = 6.0;
const CHIP_GAP: f32 = 14.0;
const SPAN_GAP: f32 = 5.0;

/// Lays the header of `view` out.
pub(super) fn lay_out(view: &View<'_>, room: Room) -> Header {
    let mut header = Header { texts: Vec::new(), bottom: room.top, shortened: false };
    let text = view.style.text;
    let (title, subtitle) = (view.args.title.as_deref(), view.args.subtitle.as_deref());
    for (line, size, weight, color) in
        [(title, TITLE_SIZE, Weight::SemiBold, text), (subtitle, BODY_SIZE, Weight::Regular, view.style.muted)]
    {
        if let Some(line) = line.filter(|line| !line.trim().is_empty()) {
            title_line(&mut header, room, Span { text: line.to_owned(), weight, color }, size);
        }
    }
    if header.bottom > room.top {
        header.bottom += BELOW_TITLE * room.scale;
    }
    flow(&mut header, room, groups(view));
    header
}

fn title_line(header: &mut Header, room: Room, span: Span, size: f32) {
    let (size, width) = (size * room.scale, room.right - room.left);
    let line = fitting(&span.text, size, span.weight, width);
    let end = header.bottom + size * LEADING;
    if end > room.bottom {
        header.shortened = true;
        return;
    }
    header.shortened |= line != span.text;
    let center = header.bottom + size * LEADING / 2.0;
    let span = Span { text: line, ..span };
    header.texts.push(placed(span, room.left, center, size));
    header.bottom = end;
}

/// `text`, or as much of its beginning as fits, with an ellipsis.
fn fitting(text: &str, size: f32, weight: Weight, width: f32) -> String {
    if font::width_px(text, size, weight) <= width {
        return text.to_owned();
    }
    let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
    let cut = |chars: usize| format!("{}…", text[..starts[chars]].trim_end());
    // The widths rise with the length, so the longest that fits is found by halving.
    let counts: Vec<usize> = (0..starts.len()).collect();
    let fit = counts.partition_point(|&chars| font::width_px(&cut(chars), size, weight) <= width);
    cut(fit.saturating_sub(1))
}

fn placed(span: Span, x: f32, center_y: f32, size_px: f32) -> Text {
    let baseline_y = (center_y + size_px * font::CAP_HEIGHT_EM / 2.0).round();
    let Span { text, weight, color } = span;
    Text { text, x, baseline_y, size_px, weight, anchor: Anchor::Start, color }
}

/// Where the next chip goes.
#[derive(Clone, Copy)]
struct Cursor {
    x: f32,
    /// The top of its line.
    top: f32,
    line_height: f32,
}

/// Sets groups of chips side by side, breaking lines where they are full. A group that
/// does not fit is left out whole: an open without its close would mislead.
fn flow(header: &mut Header, room: Room, groups: Vec<Vec<Chip>>) {
    let mut cursor = Cursor { x: room.left, top: header.bottom, line_height: 0.0 };
    for group in groups {
        match set(group, cursor, room) {
            Some((texts, next)) => {
                header.texts.extend(texts);
                cursor = next;
            }
            None => header.shortened = true,
        }
    }
    header.bottom = cursor.top + cursor.line_height;
}

fn set(group: Vec<Chip>, mut cursor: Cursor, room: Room) -> Option<(Vec<Text>, Cursor)> {
    let (scale, mut texts) = (room.scale, Vec::new());
    for chip in group {
        let size = chip.size * scale;
        let width = chip_width(&chip, scale);
        if chip.own_line || cursor.x + width > room.right {
            let top = cursor.top + cursor.line_height;
            cursor = Cursor { x: room.left, top, line_height: 0.0 };
        }
        cursor.line_height = cursor.line_height.max(size * LEADING);
        if cursor.x + width > room.right || cursor.top + cursor.line_height > room.bottom {
            return None;
        }
        let center = cursor.top + cursor.line_height / 2.0;
        for span in chip.spans {
            let width = font::width_px(&span.text, size, span.weight);
            texts.push(placed(span, cursor.x, center, size));
            cursor.x += width + SPAN_GAP * scale;
        }
        cursor.x += (CHIP_GAP - SPAN_GAP) * scale;
    }
    Some((texts, cursor))
}

fn chip_width(chip: &Chip, scale: f32) -> f32 {
    let width = |span: &Span| font::width_px(&span.text, chip.size * scale, span.weight);
    let gaps = chip.spans.len().saturating_sub(1) as f32 * SPAN_GAP * scale;
    chip.spans.iter().map(width).sum::<f32>() + gaps
}

fn groups(view: &View<'_>) -> Vec<Vec<Chip>> {
    let (style, last) = (&view.style, view.last_bar);
    let name = |text: &str| Span::regular(text, style.muted);
    let symbol = Span { text: view.args.symbol.trim().to_owned(), weight: Weight::SemiBold, color: style.text };
    let interval = Span { weight: Weight::SemiBold, ..name(view.args.interval.label()) };
    let chip = |spans| Chip { spans, size: BODY_SIZE, own_line: false };
    let color = style.bar(last.rising());
    let price = |value: f64| Span::regular(format::number(value, view.decimals), color);
    let columns = [("O", last.open), ("H", last.high), ("L", last.low), ("C", last.close)];
    let prices = columns.map(|(letter, value)| chip(vec![name(letter), price(value)]));
    let mut groups = vec![vec![Chip { spans: vec![symbol, interval], size: SYMBOL_SIZE, own_line: true }]];
    groups.extend(kind_of(view).map(|words| vec![chip(vec![name(&words)])]));
    groups.push(vec![chip(vec![name(&when(view))])]);
    groups.push(prices.into_iter().chain([chip(vec![change(view)])]).collect());
    if view.args.legend {
        for (index, study) in view.overlays.iter().enumerate() {
            let values = legend_values(view, study).map(|(text, color)| Span::regular(text, color));
            let spans = std::iter::once(name(&study.name)).chain(values).collect();
            groups.push(vec![Chip { spans, size: BODY_SIZE, own_line: index == 0 }]);
        }
    }
    groups
}

/// What kind of bars these are, when they are not what the header's prices are.
fn kind_of(view: &View<'_>) -> Option<String> {
    match view.args.chart_type {
        ChartType::HeikinAshi => Some("Heikin-Ashi".to_owned()),
        ChartType::Renko => {
            let height = view.brick.unwrap_or_default();
            Some(format!("Renko {}", format::number(height, view.decimals.max(steps::decimals_of(height).min(4)))))
        }
        _ => None,
    }
}

/// When the last bar opened, and in which zone.
fn when(view: &View<'_>) -> String {
    let at = view.last_bar.at;
    if view.args.interval.is_intraday() {
        let (date, clock) = (format::date(at.date()), format::clock(at));
        format!("{date} {clock} {}", view.args.time_zone)
    } else {
        format::date(at.date())
    }
}

/// What the last close is above the one before it; above its own open when it is the first.
fn change(view: &View<'_>) -> Span {
    let last = view.last_bar;
    let from = last.previous_close.unwrap_or(last.open);
    let change = last.close - from;
    let mut text = format::signed(change, view.decimals);
    if from != 0.0 {
        text.push_str(&format!(" ({}%)", format::signed(change / from.abs() * 100.0, 2)));
    }
    Span::regular(text, view.style.bar(change >= 0.0))
}
