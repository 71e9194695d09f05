//! Writes what is drawn on a page in the operators of PDF (ISO 32000-1, Annex A).

use std::fmt::Write as _;

use super::fonts::FontBook;
use super::{Color, Matrix, PageOp, PathStep, RectPt, TextRun, then};

/// The content of a page, and what it refers to.
#[derive(Default)]
pub(super) struct Content {
    pub(super) bytes: String,
    /// Opacities used, as `GS<alpha>`.
    pub(super) alphas: Vec<u8>,
    /// Places that open an address, in points of the page.
    pub(super) links: Vec<(RectPt, String)>,
    /// Where the current map leads; links are not drawn, so they are mapped here.
    maps: Vec<Matrix>,
}

const IDENTITY: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

impl Content {
    /// Adds what `op` draws.
    pub(super) fn add(&mut self, op: &PageOp, fonts: &mut FontBook) {
        match op {
            PageOp::Save => {
                self.maps.push(self.map());
                self.bytes.push_str("q\n");
            }
            PageOp::Restore => {
                self.maps.pop();
                self.bytes.push_str("Q\n");
            }
            PageOp::Transform(matrix) => {
                let map = then(*matrix, self.map());
                match self.maps.last_mut() {
                    Some(last) => *last = map,
                    None => self.maps.push(map),
                }
                self.numbers(matrix);
                self.bytes.push_str("cm\n");
            }
            PageOp::Clip(rect) => {
                self.numbers(&[rect.x, rect.y, rect.width, rect.height]);
                self.bytes.push_str("re W n\n");
            }
            PageOp::Picture(id, matrix) => {
                self.bytes.push_str("q ");
                self.numbers(matrix);
                let _ = writeln!(self.bytes, "cm /{} Do Q", object_name(id));
            }
            PageOp::Fill(path, color) => {
                self.color(*color, "rg");
                self.path(path);
                self.bytes.push_str("f\n");
            }
            PageOp::Stroke { path, width_pt, color, round } => {
                self.color(*color, "RG");
                self.numbers(&[*width_pt]);
                self.bytes.push_str(if *round { "w 1 J 1 j " } else { "w 0 J 0 j " });
                self.path(path);
                self.bytes.push_str("S\n");
            }
            PageOp::Text(run) => self.text(run, fonts),
            PageOp::Link(rect, address) => {
                let at = |x: f64, y: f64| {
                    let [a, b, c, d, e, f] = self.map();
                    (a * x + c * y + e, b * x + d * y + f)
                };
                let (x0, y0) = at(rect.x, rect.y);
                let (x1, y1) = at(rect.x + rect.width, rect.y + rect.height);
                let place = RectPt { x: x0.min(x1), y: y0.min(y1), width: (x1 - x0).abs(), height: (y1 - y0).abs() };
                self.links.push((place, address.clone()));
            }
        }
    }

    fn map(&self) -> Matrix {
        self.maps.last().copied().unwrap_or(IDENTITY)
    }

    fn numbers(&mut self, values: &[f64]) {
        for value in values {
            number(&mut self.bytes, *value);
            self.bytes.push(' ');
        }
    }

    /// Sets the opacity and the colour that `operator` names.
    fn color(&mut self, color: Color, operator: &str) {
        if !self.alphas.contains(&color.alpha) {
            self.alphas.push(color.alpha);
        }
        let _ = write!(self.bytes, "/GS{} gs ", color.alpha);
        self.numbers(&color.rgb.map(|c| f64::from(c) / 255.0));
        self.bytes.push_str(operator);
        self.bytes.push(' ');
    }

    fn path(&mut self, path: &[PathStep]) {
        for step in path {
            match step {
                PathStep::Move(x, y) => {
                    self.numbers(&[*x, *y]);
                    self.bytes.push_str("m ");
                }
                PathStep::Line(x, y) => {
                    self.numbers(&[*x, *y]);
                    self.bytes.push_str("l ");
                }
                PathStep::Curve(points) => {
                    self.numbers(points);
                    self.bytes.push_str("c ");
                }
                PathStep::Close => self.bytes.push_str("h "),
            }
        }
    }

    fn text(&mut self, run: &TextRun, fonts: &mut FontBook) {
        if run.shaped.glyphs.is_empty() {
            return;
        }
        self.color(run.color, "rg");
        let _ = write!(self.bytes, "BT /{} ", FontBook::resource(run.face));
        self.numbers(&[run.size_pt]);
        self.bytes.push_str("Tf ");
        self.numbers(&run.matrix);
        self.bytes.push_str("Tm [<");
        for glyph in &run.shaped.glyphs {
            let (code, width) = fonts.code(run.face, glyph);
            let _ = write!(self.bytes, "{code:04X}");
            // What the font's own width says too much, in thousandths; kerning mostly.
            let excess = width - f64::from(glyph.advance_em) * 1000.0;
            if excess.abs() >= 0.5 {
                self.bytes.push_str("> ");
                number(&mut self.bytes, excess.round());
                self.bytes.push_str(" <");
            }
        }
        self.bytes.push_str(">] TJ ET\n");
    }
}

/// The name that a picture's object has in the resources of a page.
pub(super) fn object_name(id: &str) -> String {
    format!("Im{id}")
}

/// A ten-thousandth of a point is 35 nm; more digits only make the file longer.
fn number(out: &mut String, value: f64) {
    let rounded = (value * 10_000.0).round() / 10_000.0;
    // Not "-0".
    let _ = write!(out, "{}", if rounded == 0.0 { 0.0 } else { rounded });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_in_powers_of_ten() {
        let shown = |value: f64| {
            let mut out = String::new();
            number(&mut out, value);
            out
        };
        assert_eq!(shown(1.0), "1");
        assert_eq!(shown(-0.000_01), "0");
        assert_eq!(shown(0.000_12), "0.0001");
        assert_eq!(shown(123_456.789_01), "123456.789");
    }

    #[test]
    fn links_follow_the_map_they_stand_in() {
        let mut content = Content::default();
        let mut fonts = FontBook::default();
        let rect = RectPt { x: 1.0, y: 2.0, width: 3.0, height: 4.0 };
        let ops = [
            PageOp::Save,
            PageOp::Transform([2.0, 0.0, 0.0, 2.0, 10.0, 0.0]),
            PageOp::Link(rect, "a".into()),
            PageOp::Restore,
            PageOp::Link(rect, "b".into()),
        ];
        ops.iter().for_each(|op| content.add(op, &mut fonts));
        assert_eq!(content.links[0].0, RectPt { x: 12.0, y: 4.0, width: 6.0, height: 8.0 });
        assert_eq!(content.links[1].0, rect);
    }
}
