//! The embedded Inter: which characters it has, how wide a text is, its outlines and its
//! glyphs as coverage masks. A second font may be set for what Inter lacks.
//!
//! Never looks for a font on the machine, so that the same text is the same pixels everywhere.
//! Figures are tabular (`tnum`), pairs are kerned.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{LazyLock, OnceLock};

use swash::scale::{Render, ScaleContext, Source, image::Image};
use swash::shape::ShapeContext;
use swash::zeno::{Command, PathData, Vector};
use swash::{FontRef, GlyphId};
use windlass_store::Digest;

use crate::scene::{Path, Point, Segment, Weight};

static REGULAR_FILE: &[u8] = include_bytes!("../assets/fonts/Inter-Regular.subset.ttf");
static SEMI_BOLD_FILE: &[u8] = include_bytes!("../assets/fonts/Inter-SemiBold.subset.ttf");
static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| embedded(REGULAR_FILE));
static SEMI_BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| embedded(SEMI_BOLD_FILE));

/// Height of a capital letter, in ems (1490 of 2048 units).
pub const CAP_HEIGHT_EM: f32 = 0.7275;

/// Glyph masks kept per thread; beyond it the cache starts afresh. A chart uses some 120.
const CACHED_GLYPHS: usize = 4096;

/// A glyph may stand on quarters of a pixel, so that letters are spaced evenly.
const STEPS_PER_PIXEL: f32 = 4.0;

fn embedded(bytes: &'static [u8]) -> FontRef<'static> {
    FontRef::from_index(bytes, 0).expect("the embedded font is part of the build and is valid")
}

/// What draws the characters that Inter lacks.
struct Second {
    font: FontRef<'static>,
    digest: Digest,
}

static SECOND: OnceLock<Second> = OnceLock::new();

/// Why a file does not become the second font.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecondFontError {
    /// The bytes are none.
    #[error("not a TrueType or OpenType font")]
    NotAFont,
    /// It is chosen once in the life of a process.
    #[error("another second font is set already")]
    Taken,
}

/// Sets the font that draws what Inter lacks, such as Hangul or Han, for the life of the process. Of
/// a collection the first font is taken. It has one weight, and draws from left to right only.
///
/// # Errors
/// [`SecondFontError`]. Setting the same bytes again changes nothing.
pub fn set_second(file: Vec<u8>) -> Result<(), SecondFontError> {
    FontRef::from_index(&file, 0).ok_or(SecondFontError::NotAFont)?;
    let digest = Digest::of(&file);
    let second = SECOND.get_or_init(|| Second { font: embedded(Box::leak(file.into_boxed_slice())), digest });
    if second.digest == digest { Ok(()) } else { Err(SecondFontError::Taken) }
}

/// The second font by its bytes, where one is set: what is drawn depends on it.
#[must_use]
pub fn second() -> Option<Digest> {
    SECOND.get().map(|second| second.digest)
}

/// A font that draws part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Face {
    Regular,
    SemiBold,
    Second,
}

impl Face {
    const fn of(weight: Weight) -> Self {
        match weight {
            Weight::Regular => Self::Regular,
            Weight::SemiBold => Self::SemiBold,
        }
    }

    fn font(self) -> FontRef<'static> {
        match (self, SECOND.get()) {
            (Self::SemiBold, _) => *SEMI_BOLD,
            (Self::Second, Some(second)) => second.font,
            _ => *REGULAR,
        }
    }
}

/// Which font has a character: Inter wherever it can. Both weights of it have the same.
fn face_for(c: char, weight: Weight) -> Option<Face> {
    let second = || SECOND.get().is_some_and(|second| second.font.charmap().map(c) != 0 && !is_right_to_left(c));
    if REGULAR.charmap().map(c) != 0 { Some(Face::of(weight)) } else { second().then_some(Face::Second) }
}

/// Letters of scripts that run from right to left, which are not set here.
///
/// *Source*: Unicode 16, DerivedBidiClass: the ranges whose default class is R or AL.
const fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}'
        | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

/// The embedded font as a TrueType file, for a document that embeds it again.
#[must_use]
pub const fn file(weight: Weight) -> &'static [u8] {
    match weight {
        Weight::Regular => REGULAR_FILE,
        Weight::SemiBold => SEMI_BOLD_FILE,
    }
}

/// The characters of `text` that the embedded font cannot draw: each once, in order of
/// first appearance. Both weights have the same characters.
#[must_use]
pub fn missing_glyphs(text: &str) -> Vec<char> {
    let charmap = REGULAR.charmap();
    let mut missing = Vec::new();
    for c in text.chars() {
        if charmap.map(c) == 0 && !missing.contains(&c) {
            missing.push(c);
        }
    }
    missing
}

/// The characters of `text` that neither Inter nor the second font can draw, likewise.
#[must_use]
pub fn undrawable(text: &str) -> Vec<char> {
    let missing = missing_glyphs(text);
    missing.into_iter().filter(|c| face_for(*c, Weight::Regular).is_none()).collect()
}

/// How wide `text` is at `size_px`, in pixels.
#[must_use]
pub fn width_px(text: &str, size_px: f32, weight: Weight) -> f32 {
    shaped(text, size_px, weight).1
}

/// The contours of `text`, its left end at `x`, standing on `baseline_y`: for large
/// letters, and for letters that are turned.
#[must_use]
pub fn outline(text: &str, size_px: f32, weight: Weight, x: f32, baseline_y: f32) -> Path {
    let (glyphs, _) = shaped(text, size_px, weight);
    let mut path = Path::new();
    CONTEXT.with_borrow_mut(|context| {
        for glyph in glyphs {
            let mut scaler = context.scale.builder(glyph.face.font()).size(size_px).build();
            if let Some(outline) = scaler.scale_outline(glyph.id) {
                append(&mut path, outline.path().commands(), x + glyph.x, baseline_y - glyph.y);
            }
        }
    });
    path
}

fn append(path: &mut Path, commands: impl Iterator<Item = Command>, x: f32, y: f32) {
    let at = |p: Vector| Point::new(x + p.x, y - p.y);
    let mut last = Point::new(x, y);
    for command in commands {
        let segment = match command {
            Command::MoveTo(p) => Segment::MoveTo(at(p)),
            Command::LineTo(p) => Segment::LineTo(at(p)),
            Command::CurveTo(a, b, p) => Segment::CubicTo(at(a), at(b), at(p)),
            Command::QuadTo(c, p) => {
                let (control, end) = (at(c), at(p));
                let towards = |from: Point| {
                    let part = |f: f32, c: f32| f + (c - f) * 2.0 / 3.0;
                    Point::new(part(from.x, control.x), part(from.y, control.y))
                };
                Segment::CubicTo(towards(last), towards(end), end)
            }
            Command::Close => Segment::Close,
        };
        if let Segment::MoveTo(p) | Segment::LineTo(p) | Segment::CubicTo(_, _, p) = segment {
            last = p;
        }
        path.segments.push(segment);
    }
}

/// A glyph of a shaped text.
struct Placed {
    face: Face,
    id: GlyphId,
    /// From the left end of the text.
    x: f32,
    /// Above the baseline.
    y: f32,
}

/// The coverage of one glyph at one size and fraction of a pixel.
pub(crate) struct Mask {
    /// From the glyph's whole pixel to the mask's first column.
    pub(crate) left: i32,
    /// From the baseline up to the mask's first row.
    pub(crate) top: i32,
    /// Columns.
    pub(crate) width: usize,
    /// Row by row, 0–255.
    pub(crate) coverage: Vec<u8>,
}

#[derive(PartialEq, Eq, Hash)]
struct MaskKey {
    face: Face,
    id: GlyphId,
    size_bits: u32,
    quarter: u8,
}

#[derive(Default)]
struct Context {
    shape: ShapeContext,
    scale: ScaleContext,
    masks: HashMap<MaskKey, Option<Rc<Mask>>>,
}

thread_local! {
    static CONTEXT: RefCell<Context> = RefCell::default();
}

fn shaped(text: &str, size_px: f32, weight: Weight) -> (Vec<Placed>, f32) {
    CONTEXT.with_borrow_mut(|context| {
        let (mut glyphs, mut pen) = (Vec::with_capacity(text.len()), 0.0);
        for (part, face) in parts(text, weight) {
            let mut shaper = context.shape.builder(face.font()).size(size_px).features([("tnum", 1_u16)]).build();
            shaper.add_str(part);
            shaper.shape_with(|cluster| {
                for glyph in cluster.glyphs {
                    if glyph.id != 0 {
                        glyphs.push(Placed { face, id: glyph.id, x: pen + glyph.x, y: glyph.y });
                        pen += glyph.advance;
                    }
                }
            });
        }
        (glyphs, pen)
    })
}

/// A text in parts of one font each.
fn parts(text: &str, weight: Weight) -> Vec<(&str, Face)> {
    if SECOND.get().is_none() {
        return vec![(text, Face::of(weight))];
    }
    let mut parts: Vec<(std::ops::Range<usize>, Face)> = Vec::new();
    for (at, c) in text.char_indices() {
        let face = face_for(c, weight).unwrap_or(Face::of(weight));
        let end = at + c.len_utf8();
        match parts.last_mut() {
            Some((range, last)) if *last == face => range.end = end,
            _ => parts.push((at..end, face)),
        }
    }
    parts.into_iter().map(|(range, face)| (&text[range], face)).collect()
}

/// Hands every glyph of a text to `draw` as (column, baseline row, mask). The text starts
/// at `x` and stands on row `baseline`.
pub(crate) fn for_each_mask(
    text: &str,
    size_px: f32,
    weight: Weight,
    (x, baseline): (f32, i32),
    mut draw: impl FnMut(i32, i32, &Mask),
) {
    let (glyphs, _) = shaped(text, size_px, weight);
    for glyph in glyphs {
        let steps = ((x + glyph.x) * STEPS_PER_PIXEL).round() as i32;
        let per_pixel = STEPS_PER_PIXEL as i32;
        let quarter = steps.rem_euclid(per_pixel) as u8;
        let key = MaskKey { face: glyph.face, id: glyph.id, size_bits: size_px.to_bits(), quarter };
        if let Some(mask) = CONTEXT.with_borrow_mut(|context| cached(context, key, size_px)) {
            draw(steps.div_euclid(per_pixel), baseline - glyph.y.round() as i32, &mask);
        }
    }
}

fn cached(context: &mut Context, key: MaskKey, size_px: f32) -> Option<Rc<Mask>> {
    if context.masks.len() >= CACHED_GLYPHS {
        context.masks.clear();
    }
    let scale = &mut context.scale;
    let offset = Vector::new(f32::from(key.quarter) / STEPS_PER_PIXEL, 0.0);
    let (font, id) = (key.face.font(), key.id);
    let mask = context.masks.entry(key).or_insert_with(|| {
        let mut scaler = scale.builder(font).size(size_px).build();
        let image = Render::new(&[Source::Outline]).offset(offset).render(&mut scaler, id)?;
        mask_of(image).map(Rc::new)
    });
    mask.clone()
}

/// A blank has no mask.
fn mask_of(image: Image) -> Option<Mask> {
    let (place, coverage) = (image.placement, image.data);
    if place.width == 0 || place.height == 0 {
        return None;
    }
    Some(Mask { left: place.left, top: place.top, width: place.width as usize, coverage })
}
