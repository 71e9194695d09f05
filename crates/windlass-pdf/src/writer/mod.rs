//! Turns pictures, texts and paths on pages into a PDF file, behind the small [`SheetWriter`]
//! trait.
//!
//! [`PrintpdfWriter`] is built on printpdf. It holds each picture's coded bytes once and writes
//! them straight into the file, so a job needs about its output in memory (`docs/performance.md`);
//! a backend that streams can take its place.

mod content;
mod document;
mod fonts;

use thiserror::Error;

use crate::font::{Face, Shaped};

pub(crate) use document::PRODUCER;
pub use document::PrintpdfWriter;

/// `[a b c d e f]`: (x, y) becomes (ax + cy + e, bx + dy + f).
pub type Matrix = [f64; 6];

/// Applies `first`, then `second`.
#[must_use]
pub fn then(first: Matrix, second: Matrix) -> Matrix {
    let [a, b, c, d, e, f] = first;
    let [g, h, i, j, k, l] = second;
    [a * g + b * i, a * h + b * j, c * g + d * i, c * h + d * j, e * g + f * i + k, e * h + f * j + l]
}

/// What a document says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Its title; empty: none is written.
    pub title: String,
    /// Its author; empty: none is written.
    pub author: String,
    /// Its language, such as `en-GB`; empty: none is written.
    pub language: String,
    /// How printers should turn the sheet; `None`: one-sided.
    pub duplex: Option<Duplex>,
    /// Whether printers are asked to keep the size of the page.
    pub exact_size: bool,
}

/// Which edge a sheet is turned about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplex {
    /// The longer one.
    LongEdge,
    /// The shorter one.
    ShortEdge,
}

/// A rectangle on a page in points, from the bottom left corner, y upwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RectPt {
    /// Left edge.
    pub x: f64,
    /// Bottom edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// The colours of a stored picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Colors {
    /// One channel.
    Grey,
    /// Three channels.
    Rgb,
    /// Four channels; `inverted` as Adobe writes them.
    Cmyk {
        /// 255 is no ink.
        inverted: bool,
    },
    /// One channel that names an entry of a palette.
    Palette {
        /// Red, green and blue of each entry.
        rgb: Vec<u8>,
    },
}

/// How the bytes of a stored picture are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// A whole JPEG file.
    Jpeg,
    /// The zlib stream of a PNG file: rows with a filter byte each.
    Png,
    /// Pixels; they are packed on the way into the file.
    Raw,
}

/// A picture as it is stored in the document: 8 bits a channel, no alpha.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its colours.
    pub colors: Colors,
    /// The colour profile, when the source carries one for these colours.
    pub icc: Option<Vec<u8>>,
    /// How `data` is coded.
    pub coding: Coding,
    /// The coded pixels.
    pub data: Vec<u8>,
}

/// A colour on paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Color {
    /// Red, green, blue.
    pub rgb: [u8; 3],
    /// 255 covers what lies below.
    pub alpha: u8,
}

impl Color {
    /// Black ink.
    pub const BLACK: Self = Self::rgb(0);

    /// An opaque colour from `0xRRGGBB`.
    #[must_use]
    pub const fn rgb(hex: u32) -> Self {
        let [_, r, g, b] = hex.to_be_bytes();
        Self { rgb: [r, g, b], alpha: 255 }
    }
}

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PathStep {
    /// Starts a contour.
    Move(f64, f64),
    /// A straight line.
    Line(f64, f64),
    /// A cubic curve: two control points, then the end.
    Curve([f64; 6]),
    /// Back to the start of the contour.
    Close,
}

/// One thing drawn on a page, in points.
#[derive(Debug, Clone, PartialEq)]
pub enum PageOp {
    /// Remembers clip and map until [`PageOp::Restore`].
    Save,
    /// Forgets them.
    Restore,
    /// Maps everything after it.
    Transform(Matrix),
    /// Only what lies inside shows from here on.
    Clip(RectPt),
    /// A picture that was handed to [`SheetWriter::image`] under this id, its unit square mapped.
    Picture(String, Matrix),
    /// The inside of a path.
    Fill(Vec<PathStep>, Color),
    /// The line along a path.
    Stroke {
        /// The path.
        path: Vec<PathStep>,
        /// How thick.
        width_pt: f64,
        /// In which colour.
        color: Color,
        /// Whether ends and joins are round.
        round: bool,
    },
    /// A line of text.
    Text(TextRun),
    /// A place that opens an address.
    Link(RectPt, String),
}

/// A line of text on a page.
#[derive(Debug, Clone, PartialEq)]
pub struct TextRun {
    /// What it says.
    pub shaped: Shaped,
    /// In which font.
    pub face: Face,
    /// How large.
    pub size_pt: f64,
    /// Maps a text at the origin to its place.
    pub matrix: Matrix,
    /// In which colour.
    pub color: Color,
}

impl PageOp {
    /// A filled rectangle.
    #[must_use]
    pub fn fill_rect(rect: RectPt, color: Color) -> Self {
        Self::Fill(rect_path(rect), color)
    }
}

/// The outline of a rectangle.
#[must_use]
pub fn rect_path(RectPt { x, y, width, height }: RectPt) -> Vec<PathStep> {
    use PathStep::{Close, Line, Move};
    vec![Move(x, y), Line(x + width, y), Line(x + width, y + height), Line(x, y + height), Close]
}

/// The outline of a rectangle with round corners.
#[must_use]
pub fn round_rect_path(RectPt { x, y, width, height }: RectPt, radius: f64) -> Vec<PathStep> {
    use PathStep::{Close, Curve, Line, Move};
    /// How far the control points of a quarter circle of radius 1 stand from its ends.
    const QUARTER: f64 = 0.552_284_75;
    let (right, top, r, k) = (x + width, y + height, radius, radius * (1.0 - QUARTER));
    vec![
        Move(x + r, y),
        Line(right - r, y),
        Curve([right - k, y, right, y + k, right, y + r]),
        Line(right, top - r),
        Curve([right, top - k, right - k, top, right - r, top]),
        Line(x + r, top),
        Curve([x + k, top, x, top - k, x, top - r]),
        Line(x, y + r),
        Curve([x, y + k, x + k, y, x + r, y]),
        Close,
    ]
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Its width in points.
    pub width_pt: f64,
    /// Its height in points.
    pub height_pt: f64,
    /// What is drawn, from the bottom up.
    pub ops: Vec<PageOp>,
}

/// Why a document could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file could not be written.
    #[error("writing the pdf")]
    Io(#[from] std::io::Error),
    /// The library refused or doubted something we asked for: a bug on our side.
    #[error("the pdf library refused a page: {0}")]
    Library(String),
}

/// Writes one document: `begin`, then pictures and pages in any order, then `finish`.
///
/// Equal calls give equal bytes, in one process and across processes.
pub trait SheetWriter {
    /// Starts the document.
    ///
    /// # Errors
    /// [`WriteError::Io`] when nothing can be written.
    fn begin(&mut self, info: Info) -> Result<(), WriteError>;

    /// Stores a picture under an id that pages name it by. Once per id.
    ///
    /// # Errors
    /// [`WriteError::Io`] when it cannot be written.
    fn image(&mut self, id: &str, image: StoredImage) -> Result<(), WriteError>;

    /// Adds a page. Its pictures have been stored before.
    ///
    /// # Errors
    /// [`WriteError::Io`] when it cannot be written, [`WriteError::Library`] for an unknown picture.
    fn page(&mut self, page: Page) -> Result<(), WriteError>;

    /// Completes the file and answers its size in bytes.
    ///
    /// # Errors
    /// [`WriteError`] when the file is not complete; it is useless then.
    fn finish(self) -> Result<u64, WriteError>;
}
