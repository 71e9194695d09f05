//! Where the next thing goes: pages, the place on them, and what was drawn.

use windlass_worker::RunContext;

use super::args::{Align, Line, ReportArgs};
use super::text::{Lines, Style, Words, break_lines};
use super::{MAX_REPORT_PAGES, Stop, points, template};
use crate::font::Face;
use crate::writer::{Color, Page, PageOp};

/// Size of headers and footers, in points.
const LINE_SIZE: f64 = 8.0;
const LINE_COLOR: Color = Color::rgb(0x55_5c_66);

/// The pages of a report while it is set. Lengths are points, y down from the top of the page.
pub(super) struct Flow<'a> {
    args: &'a ReportArgs,
    ctx: &'a dyn RunContext,
    pub(super) words: Words,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    y: f64,
    pages: Vec<Vec<PageOp>>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(args: &'a ReportArgs, ctx: &'a dyn RunContext) -> Self {
        let (width, height) = args.page.size_mm();
        let margins = args.page.margins_mm;
        let (width, height) = (points(width), points(height));
        Self {
            args,
            ctx,
            words: Words::default(),
            width,
            height,
            left: points(margins.left),
            right: width - points(margins.right),
            top: points(margins.top),
            bottom: height - points(margins.bottom),
            y: points(margins.top),
            pages: vec![Vec::new()],
        }
    }

    /// A text with its names filled in.
    pub(super) fn fill(&self, text: &str) -> Result<String, Stop> {
        template::fill(text, &self.args.data).map_err(|message| Stop::Refused("unknown_name", message))
    }

    pub(super) fn body_width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn body_height(&self) -> f64 {
        self.bottom - self.top
    }

    /// The left end of the next free line.
    pub(super) fn at(&self) -> (f64, f64) {
        (self.left, self.y)
    }

    pub(super) fn is_at_top(&self) -> bool {
        self.y <= self.top
    }

    pub(super) fn fits(&self, height: f64) -> bool {
        self.y + height <= self.bottom + 0.01
    }

    /// Leaves space, if anything stands above it on the page.
    pub(super) fn gap(&mut self, height: f64) {
        if !self.is_at_top() {
            self.skip(height);
        }
    }

    pub(super) fn skip(&mut self, height: f64) {
        self.y += height;
    }

    pub(super) fn draw(&mut self, op: PageOp) {
        if let Some(page) = self.pages.last_mut() {
            page.push(op);
        }
    }

    /// Begins a page.
    pub(super) fn new_page(&mut self) -> Result<(), Stop> {
        if self.ctx.cancelled() {
            return Err(Stop::Cancelled);
        }
        if self.pages.len() >= MAX_REPORT_PAGES {
            return Err(Stop::Refused("too_many_pages", format!("more than {MAX_REPORT_PAGES} pages")));
        }
        self.pages.push(Vec::new());
        self.y = self.top;
        Ok(())
    }

    /// Begins a page unless so much fits on this one.
    pub(super) fn make_room(&mut self, height: f64) -> Result<(), Stop> {
        if !self.fits(height) && !self.is_at_top() {
            self.new_page()?;
        }
        Ok(())
    }

    /// Draws one line of broken text.
    pub(super) fn line(&mut self, lines: &Lines, index: usize, at: (f64, f64), align: Align) {
        let Some(page) = self.pages.last_mut() else { return };
        lines.draw(&mut self.words, index, at, align, page);
    }

    /// Sets lines below each other, over pages where they must.
    pub(super) fn lines(&mut self, lines: &Lines, align: Align) -> Result<(), Stop> {
        for index in 0..lines.count() {
            // Never a single line of a paragraph on a page, first or last.
            let left = lines.count() - index;
            let together = match (index, left) {
                (0, 2..) | (_, 2) => 2.0,
                _ => 1.0,
            };
            self.make_room(together * lines.leading())?;
            self.line(lines, index, self.at(), align);
            self.skip(lines.leading());
        }
        Ok(())
    }

    /// Headers and footers, now that the number of pages is known; the finished pages.
    pub(super) fn finish(mut self) -> Result<Vec<Page>, Stop> {
        let total = self.pages.len();
        let mut pages = Vec::with_capacity(total);
        for (index, drawn) in std::mem::take(&mut self.pages).into_iter().enumerate() {
            let mut ops = vec![PageOp::Transform([1.0, 0.0, 0.0, -1.0, 0.0, self.height])];
            ops.extend(drawn);
            self.margin_line(&self.args.header.clone(), self.top / 2.0 - LINE_SIZE * 0.7, (index, total), &mut ops)?;
            let below = (self.bottom + self.height) / 2.0 - LINE_SIZE * 0.7;
            self.margin_line(&self.args.footer.clone(), below, (index, total), &mut ops)?;
            pages.push(Page { width_pt: self.width, height_pt: self.height, ops });
        }
        Ok(pages)
    }

    fn margin_line(
        &mut self,
        line: &Line,
        y: f64,
        (index, total): (usize, usize),
        ops: &mut Vec<PageOp>,
    ) -> Result<(), Stop> {
        if line.is_empty() {
            return Ok(());
        }
        let aligns = [Align::Left, Align::Center, Align::Right];
        for ((_, text), align) in line.parts().into_iter().zip(aligns) {
            let Some(text) = text else { continue };
            let text = self
                .fill(text)?
                .replace("{page}", &(index + 1).to_string())
                .replace("{pages}", &total.to_string())
                .replace("{title}", self.args.title.as_deref().unwrap_or_default());
            let style = Style { color: LINE_COLOR, ..Style::plain(Face::Regular) };
            let width = self.body_width();
            let lines = break_lines(&mut self.words, &[(text, style)], LINE_SIZE, width);
            lines.draw(&mut self.words, 0, (self.left, y), align, ops);
        }
        Ok(())
    }
}
