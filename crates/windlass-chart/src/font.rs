//! The embedded Inter: which characters it has, how wide a text is, its outlines and its
//! glyphs as coverage masks.
//!
//! Never reads a font of the machine, so that the same text is the same pixels everywhere.
//! Figures are tabular (`tnum`), pairs are kerned.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::LazyLock;

use swash::scale::{Render, ScaleContext, Source, image::Image};
use swash::shape::ShapeContext;
use swash::zeno::{Command, PathData, Vector};
use swash::{FontRef, GlyphId};

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

fn font(weight: Weight) -> FontRef<'static> {
    match weight {
        Weight::Regular => *REGULAR,
        Weight::SemiBold => *SEMI_BOLD,
    }
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
        let mut scaler = context.scale.builder(font(weight)).size(size_px).build();
        for glyph in glyphs {
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
    weight: Weight,
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
        let mut shaper = context.shape.builder(font(weight)).size(size_px).features([("tnum", 1_u16)]).build();
        shaper.add_str(text);
        let (mut glyphs, mut pen) = (Vec::with_capacity(text.len()), 0.0);
        shaper.shape_with(|cluster| {
            for glyph in cluster.glyphs {
                if glyph.id != 0 {
                    glyphs.push(Placed { id: glyph.id, x: pen + glyph.x, y: glyph.y });
                    pen += glyph.advance;
                }
            }
        });
        (glyphs, pen)
    })
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
        let key = MaskKey { weight, id: glyph.id, size_bits: size_px.to_bits(), quarter };
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
    let (font, id) = (font(key.weight), key.id);
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
