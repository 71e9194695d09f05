//! Breaks runs of text into lines.

use std::collections::HashMap;

use super::args::{Align, Run, color};
use crate::font::{self, Face, SLANT, Shaped};
use crate::writer::{Color, PageOp, RectPt, TextRun};

/// Colour of a link that names none.
const LINK: u32 = 0x1a_56_b0;

/// How a piece of text looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Style {
    pub(super) face: Face,
    pub(super) italic: bool,
    pub(super) color: Color,
    pub(super) link: Option<String>,
}

impl Style {
    /// Of a run without a style of its own.
    pub(super) fn plain(face: Face) -> Self {
        Self { face, italic: false, color: Color::BLACK, link: None }
    }

    pub(super) fn of(run: &Run) -> Self {
        let default = if run.link.is_some() { LINK } else { 0 };
        Self {
            face: if run.bold { Face::Bold } else { Face::Regular },
            italic: run.italic,
            color: Color::rgb(run.color.as_deref().and_then(color).unwrap_or(default)),
            link: run.link.clone(),
        }
    }
}

/// Shaped words: a report says the same ones often.
#[derive(Default)]
pub(super) struct Words {
    known: HashMap<Face, HashMap<String, Shaped>>,
}

impl Words {
    pub(super) fn shape(&mut self, text: &str, face: Face) -> &Shaped {
        let known = self.known.entry(face).or_default();
        if !known.contains_key(text) {
            known.insert(text.to_owned(), font::shape(text, face));
        }
        &known[text]
    }

    pub(super) fn width(&mut self, text: &str, face: Face, size: f64) -> f64 {
        self.shape(text, face).width_em * size
    }
}

/// A piece of a line: words of one style that stand together.
#[derive(Debug, Clone)]
struct Piece {
    text: String,
    style: usize,
    width: f64,
    /// Width of the space before it; 0 where none is.
    space: f64,
}

/// A line that has been broken.
#[derive(Debug, Default, Clone)]
struct Broken {
    pieces: Vec<Piece>,
    width: f64,
    /// It ends a paragraph: it is never stretched.
    is_last: bool,
}

/// Text broken into lines of a width.
pub(super) struct Lines {
    lines: Vec<Broken>,
    styles: Vec<Style>,
    size: f64,
    leading: f64,
    width: f64,
}

/// Breaks `runs` into lines at most `width` wide.
pub(super) fn break_lines(words: &mut Words, runs: &[(String, Style)], size: f64, width: f64) -> Lines {
    let mut breaker = Breaker { words, size, width, lines: Vec::new(), line: Broken::default(), glue: false };
    for (index, (text, style)) in runs.iter().enumerate() {
        for (i, part) in text.split('\n').enumerate() {
            if i > 0 {
                breaker.end_line(true);
            }
            breaker.run(part, index, style.face);
        }
    }
    breaker.end_line(true);
    let lines = breaker.lines;
    let styles = runs.iter().map(|(_, style)| style.clone()).collect();
    Lines { lines, styles, size, leading: size * 1.35, width }
}

struct Breaker<'a> {
    words: &'a mut Words,
    size: f64,
    width: f64,
    lines: Vec<Broken>,
    line: Broken,
    /// A space was seen that the next word stands behind.
    glue: bool,
}

impl Breaker<'_> {
    fn run(&mut self, text: &str, style: usize, face: Face) {
        for (i, word) in text.split(' ').enumerate() {
            self.glue |= i > 0;
            if !word.is_empty() {
                self.word(word, style, face);
            }
        }
    }

    fn word(&mut self, word: &str, style: usize, face: Face) {
        let width = self.words.width(word, face, self.size);
        let glued = self.glue && !self.line.pieces.is_empty();
        let space = if glued { self.words.width(" ", face, self.size) } else { 0.0 };
        if self.line.width + space + width <= self.width || (self.line.pieces.is_empty() && width <= self.width) {
            return self.push(word.to_owned(), style, width, space);
        }
        if !self.line.pieces.is_empty() && glued {
            self.end_line(false);
            return self.word(word, style, face);
        }
        // Longer than a line, or joined to what stands before: broken where it must be.
        let mut part = String::new();
        for c in word.chars() {
            part.push(c);
            let wide = self.line.width + self.words.width(&part, face, self.size) > self.width;
            if wide && (part.chars().count() > 1 || !self.line.pieces.is_empty()) {
                part.pop();
                if !part.is_empty() {
                    let width = self.words.width(&part, face, self.size);
                    self.push(std::mem::take(&mut part), style, width, 0.0);
                }
                self.end_line(false);
                part.push(c);
            }
        }
        let width = self.words.width(&part, face, self.size);
        self.push(part, style, width, 0.0);
    }

    fn push(&mut self, text: String, style: usize, width: f64, space: f64) {
        self.line.width += space + width;
        self.line.pieces.push(Piece { text, style, width, space });
        self.glue = false;
    }

    fn end_line(&mut self, is_last: bool) {
        let line = std::mem::take(&mut self.line);
        self.lines.push(Broken { is_last, ..line });
        self.glue = false;
    }
}

impl Lines {
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// The height of all lines.
    pub(super) fn height(&self) -> f64 {
        self.lines.len() as f64 * self.leading
    }

    pub(super) fn leading(&self) -> f64 {
        self.leading
    }

    /// Draws line `index` with its top at `y`, y down.
    pub(super) fn draw(
        &self,
        words: &mut Words,
        index: usize,
        (x, y): (f64, f64),
        align: Align,
        ops: &mut Vec<PageOp>,
    ) {
        let line = &self.lines[index];
        let spare = (self.width - line.width).max(0.0);
        let gaps = line.pieces.iter().filter(|piece| piece.space > 0.0).count();
        let (mut at, stretch) = match align {
            Align::Left => (x, 0.0),
            Align::Center => (x + spare / 2.0, 0.0),
            Align::Right => (x + spare, 0.0),
            Align::Justify if line.is_last || gaps == 0 => (x, 0.0),
            Align::Justify => (x, spare / gaps as f64),
        };
        // Letters stand a little below the middle of their line.
        let baseline = y + self.leading / 2.0 + self.size * 0.36;
        let mut piece = 0;
        while piece < line.pieces.len() {
            let style = line.pieces[piece].style;
            let mut next = piece + 1;
            if stretch == 0.0 {
                while next < line.pieces.len() && line.pieces[next].style == style {
                    next += 1;
                }
            }
            let group = &line.pieces[piece..next];
            at += if group[0].space > 0.0 { group[0].space + stretch } else { 0.0 };
            let width: f64 =
                group.iter().map(|p| p.width).sum::<f64>() + group[1..].iter().map(|p| p.space).sum::<f64>();
            self.piece(words, group, (at, baseline), width, ops);
            at += width;
            piece = next;
        }
    }

    /// Words of one style as one text, so that readers and copiers see their spaces.
    fn piece(&self, words: &mut Words, group: &[Piece], (x, y): (f64, f64), width: f64, ops: &mut Vec<PageOp>) {
        let style = &self.styles[group[0].style];
        let mut shaped = Shaped::default();
        for (i, piece) in group.iter().enumerate() {
            if i > 0 && piece.space > 0.0 {
                shaped.append(words.shape(" ", style.face));
            }
            shaped.append(words.shape(&piece.text, style.face));
        }
        let lean = if style.italic { SLANT } else { 0.0 };
        let matrix = [1.0, 0.0, lean, -1.0, x, y];
        ops.push(PageOp::Text(TextRun { shaped, face: style.face, size_pt: self.size, matrix, color: style.color }));
        if let Some(link) = &style.link {
            let rule = RectPt { x, y: y + self.size * 0.12, width, height: self.size * 0.05 };
            ops.push(PageOp::fill_rect(rule, style.color));
            let place = RectPt { x, y: y - self.size, width, height: self.size * 1.25 };
            ops.push(PageOp::Link(place, link.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, width: f64) -> Vec<String> {
        let mut words = Words::default();
        let broken = break_lines(&mut words, &[(text.to_owned(), Style::plain(Face::Regular))], 10.0, width);
        let line = |line: &Broken| {
            let piece = |p: &Piece| if p.space > 0.0 { format!(" {}", p.text) } else { p.text.clone() };
            line.pieces.iter().map(piece).collect::<String>()
        };
        assert!(broken.lines.iter().all(|line| line.width <= width + 1e-9 || line.pieces.len() == 1));
        broken.lines.iter().map(line).collect()
    }

    #[test]
    fn lines_break_at_spaces_and_at_line_breaks() {
        assert_eq!(lines("one two three", 1000.0), ["one two three"]);
        assert_eq!(lines("one two three", 40.0), ["one two", "three"]);
        assert_eq!(lines("one\n\ntwo", 1000.0), ["one", "", "two"]);
        assert_eq!(lines("  a   b  ", 1000.0), ["a b"]);
    }

    #[test]
    fn a_word_that_is_too_long_is_broken_and_nothing_of_it_is_lost() {
        let word = "Donaudampfschifffahrtsgesellschaft";
        assert_eq!(lines(word, 50.0).concat(), word);
        assert_eq!(lines("MMM", 1.0).concat(), "MMM");
    }
}
