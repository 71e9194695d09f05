//! Tables: columns as wide as what they hold asks for, rows that are never split.

use super::Stop;
use super::args::{Cell, Column};
use super::flow::Flow;
use super::text::{Lines, Style, break_lines};
use crate::font::Face;
use crate::writer::{Color, PageOp, RectPt};

/// Space around the text of a cell, in points.
const PAD_X: f64 = 4.0;
const PAD_Y: f64 = 2.5;
const HEADER_TINT: Color = Color::rgb(0xe4_e8_ee);
const STRIPE_TINT: Color = Color::rgb(0xf5_f7_f9);
const RULE: Color = Color::rgb(0xb8_c0_ca);
/// Rows that are looked at to find the width of a column.
const SAMPLED_ROWS: usize = 500;
/// The least a column is narrowed to, in points, padding included.
const MIN_WIDTH: f64 = 24.0;

/// A table of a report.
pub(super) struct Table<'a> {
    pub(super) path: String,
    pub(super) columns: &'a [Column],
    pub(super) rows: &'a [Vec<Cell>],
    pub(super) size: f64,
    pub(super) stripes: bool,
}

/// A row that has been broken into lines.
struct Row {
    cells: Vec<Lines>,
    height: f64,
}

impl Table<'_> {
    /// Sets the table, page after page.
    pub(super) fn set(&self, flow: &mut Flow<'_>) -> Result<(), Stop> {
        let widths = self.widths(flow)?;
        let header: Result<Vec<(String, Style)>, Stop> =
            self.columns.iter().map(|c| Ok((flow.fill(&c.header)?, Style::plain(Face::Bold)))).collect();
        let header = self.row(flow, &widths, &header?);
        let body = flow.body_height();
        let mut first = true;
        for (index, cells) in self.rows.iter().enumerate() {
            let cells: Result<Vec<(String, Style)>, Stop> = cells
                .iter()
                .map(|cell| {
                    let run = cell.run();
                    Ok((flow.fill(&run.text)?, Style::of(&run)))
                })
                .collect();
            let row = self.row(flow, &widths, &cells?);
            if header.height + row.height > body {
                let message = format!("{}/rows/{index}: the row is higher than a page", self.path);
                return Err(Stop::Refused("row_too_high", message));
            }
            let needed = if first { header.height + row.height } else { row.height };
            if first || !flow.fits(needed) {
                if !flow.fits(needed) {
                    flow.new_page()?;
                }
                self.draw(flow, &header, &widths, Some(HEADER_TINT));
                first = false;
            }
            let tint = (self.stripes && index % 2 == 1).then_some(STRIPE_TINT);
            self.draw(flow, &row, &widths, tint);
        }
        if first {
            flow.make_room(header.height)?;
            self.draw(flow, &header, &widths, Some(HEADER_TINT));
        }
        flow.skip(6.0);
        Ok(())
    }

    fn row(&self, flow: &mut Flow<'_>, widths: &[f64], cells: &[(String, Style)]) -> Row {
        let mut broken = Vec::with_capacity(cells.len());
        for ((text, style), width) in cells.iter().zip(widths) {
            let run = [(text.clone(), style.clone())];
            broken.push(break_lines(&mut flow.words, &run, self.size, (width - 2.0 * PAD_X).max(1.0)));
        }
        let height = broken.iter().map(Lines::height).fold(0.0, f64::max) + 2.0 * PAD_Y;
        Row { cells: broken, height }
    }

    fn draw(&self, flow: &mut Flow<'_>, row: &Row, widths: &[f64], tint: Option<Color>) {
        let (left, top) = flow.at();
        let width: f64 = widths.iter().sum();
        if let Some(tint) = tint {
            flow.draw(PageOp::fill_rect(RectPt { x: left, y: top, width, height: row.height }, tint));
            // A tint that a viewer rounds up to whole pixels covers the rule above it.
            flow.draw(PageOp::fill_rect(RectPt { x: left, y: top - 0.4, width, height: 0.4 }, RULE));
        }
        let rule = RectPt { x: left, y: top + row.height - 0.4, width, height: 0.4 };
        flow.draw(PageOp::fill_rect(rule, RULE));
        let mut x = left;
        for ((lines, column), width) in row.cells.iter().zip(self.columns).zip(widths) {
            for index in 0..lines.count() {
                let y = top + PAD_Y + index as f64 * lines.leading();
                flow.line(lines, index, (x + PAD_X, y), column.align);
            }
            x += width;
        }
        flow.skip(row.height);
    }

    /// Widths as asked for; the others share what is left, by what they hold.
    fn widths(&self, flow: &mut Flow<'_>) -> Result<Vec<f64>, Stop> {
        let whole = flow.body_width();
        let fixed: Vec<Option<f64>> = self.columns.iter().map(|c| c.width_mm.map(super::points)).collect();
        let asked: f64 = fixed.iter().flatten().sum();
        let free = fixed.iter().filter(|width| width.is_none()).count();
        if asked + free as f64 * MIN_WIDTH > whole + 0.01 {
            let message = format!(
                "{}/columns: they are wider than the page by {:.0} pt",
                self.path,
                asked + free as f64 * MIN_WIDTH - whole
            );
            return Err(Stop::Refused("table_too_wide", message));
        }
        let mut natural = vec![0.0; self.columns.len()];
        for (i, column) in self.columns.iter().enumerate().filter(|(i, _)| fixed[*i].is_none()) {
            let header = flow.fill(&column.header)?;
            natural[i] = flow.words.width(&header, Face::Bold, self.size) + 2.0 * PAD_X + 0.5;
            for row in self.rows.iter().take(SAMPLED_ROWS) {
                let run = row.get(i).map(Cell::run).unwrap_or_default();
                let face = if run.bold { Face::Bold } else { Face::Regular };
                let text = flow.fill(&run.text)?;
                let widest = text.split('\n').map(|line| flow.words.width(line, face, self.size)).fold(0.0, f64::max);
                natural[i] = natural[i].max(widest + 2.0 * PAD_X + 0.5);
            }
        }
        Ok(share(&fixed, &natural, whole))
    }
}

/// Gives free columns their natural width where there is room, and narrows the widest where not.
fn share(fixed: &[Option<f64>], natural: &[f64], whole: f64) -> Vec<f64> {
    let asked: f64 = fixed.iter().flatten().sum();
    let room = whole - asked;
    let free: Vec<usize> = (0..fixed.len()).filter(|i| fixed[*i].is_none()).collect();
    let wanted: f64 = free.iter().map(|i| natural[*i]).sum();
    let mut widths: Vec<f64> = fixed.iter().zip(natural).map(|(fixed, natural)| fixed.unwrap_or(*natural)).collect();
    if free.is_empty() {
        return widths;
    }
    if wanted <= room {
        let more = (room - wanted) / free.len() as f64;
        free.iter().for_each(|i| widths[*i] += more);
        return widths;
    }
    // A limit that all narrower columns keep below: found in few steps, for there are few columns.
    let (mut low, mut high) = (MIN_WIDTH, room);
    for _ in 0..60 {
        let limit = (low + high) / 2.0;
        let sum: f64 = free.iter().map(|i| natural[*i].clamp(MIN_WIDTH, limit.max(MIN_WIDTH))).sum();
        if sum > room { high = limit } else { low = limit }
    }
    free.iter().for_each(|i| widths[*i] = natural[*i].clamp(MIN_WIDTH, low));
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_share_the_page() {
        let sum = |widths: &[f64]| widths.iter().sum::<f64>();
        let roomy = share(&[None, Some(100.0), None], &[50.0, 0.0, 100.0], 500.0);
        assert_eq!(roomy[1], 100.0);
        assert!((sum(&roomy) - 500.0).abs() < 1e-6 && roomy[2] > roomy[0]);
        let tight = share(&[None, None], &[60.0, 900.0], 300.0);
        assert!((sum(&tight) - 300.0).abs() < 1e-3 && (tight[0] - 60.0).abs() < 1e-3, "{tight:?}");
    }
}
