//! The two embedded fonts: which characters they have, how wide a text is, its glyphs for a PDF
//! and as masks for pixels.
//!
//! Never reads a font of the machine, so that equal text gives equal bytes everywhere. Figures
//! are tabular, pairs are kerned.

use std::cell::RefCell;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use swash::scale::{Render, ScaleContext, Source};
use swash::shape::ShapeContext;
use swash::zeno::Vector;
use swash::{FontRef, GlyphId};
use windlass_chart::scene::Weight;
pub use windlass_chart::scene::missing_glyphs;

/// The fonts of charts, so that a chart in a report has the letters of the text around it.
const REGULAR_FILE: &[u8] = windlass_chart::font::file(Weight::Regular);
const BOLD_FILE: &[u8] = windlass_chart::font::file(Weight::SemiBold);

/// How far a slanted letter leans: 12 degrees.
pub(crate) const SLANT: f64 = 0.212_556_56;

static REGULAR: LazyLock<FontRef<'static>> = LazyLock::new(|| embedded(REGULAR_FILE));
static BOLD: LazyLock<FontRef<'static>> = LazyLock::new(|| embedded(BOLD_FILE));

fn embedded(bytes: &'static [u8]) -> FontRef<'static> {
    FontRef::from_index(bytes, 0).expect("the embedded font is part of the build and is valid")
}

/// One of the embedded fonts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Face {
    /// Inter Regular.
    Regular,
    /// Inter SemiBold.
    Bold,
}

impl Face {
    pub(crate) fn font(self) -> FontRef<'static> {
        match self {
            Self::Regular => *REGULAR,
            Self::Bold => *BOLD,
        }
    }

    pub(crate) fn file(self) -> &'static [u8] {
        match self {
            Self::Regular => REGULAR_FILE,
            Self::Bold => BOLD_FILE,
        }
    }

    /// Its PostScript name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Regular => "Inter-Regular",
            Self::Bold => "Inter-SemiBold",
        }
    }
}

/// A glyph of a shaped text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Glyph {
    /// Its number in the font.
    pub(crate) id: GlyphId,
    /// How far the pen moves, in ems, kerning included.
    pub(crate) advance_em: f32,
    /// The characters it stands for; empty for the second glyph of a pair.
    pub(crate) text: String,
}

/// A shaped line of text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shaped {
    /// In visual order, left to right.
    pub(crate) glyphs: Vec<Glyph>,
    /// How wide, in ems.
    pub(crate) width_em: f64,
}

impl Shaped {
    /// Adds what stands behind it.
    pub(crate) fn append(&mut self, other: &Self) {
        self.glyphs.extend_from_slice(&other.glyphs);
        self.width_em += other.width_em;
    }
}

#[derive(Default)]
struct Context {
    shape: ShapeContext,
    scale: ScaleContext,
}

thread_local! {
    static CONTEXT: RefCell<Context> = RefCell::default();
}

/// Shapes a line. Characters without a glyph draw nothing: ask [`missing_glyphs`] first.
pub(crate) fn shape(text: &str, face: Face) -> Shaped {
    CONTEXT.with_borrow_mut(|context| {
        let mut shaper =
            context.shape.builder(face.font()).size(1.0).features([("tnum", 1_u16), ("liga", 0), ("calt", 0)]).build();
        shaper.add_str(text);
        let mut shaped = Shaped::default();
        shaper.shape_with(|cluster| {
            let mut source = text.get(cluster.source.to_range()).unwrap_or_default();
            for glyph in cluster.glyphs {
                if glyph.id != 0 {
                    shaped.glyphs.push(Glyph { id: glyph.id, advance_em: glyph.advance, text: source.to_owned() });
                    shaped.width_em += f64::from(glyph.advance);
                    source = "";
                }
            }
        });
        shaped
    })
}

/// How wide a text is, in the unit of `size`.
pub(crate) fn width(text: &str, face: Face, size: f64) -> f64 {
    shape(text, face).width_em * size
}

/// Hands every covered pixel of a text to `draw` as (x, y, coverage): the text begins at `x` and
/// stands on `y`.
pub(crate) fn for_each_pixel(
    text: &str,
    face: Face,
    size_px: f32,
    (x, y): (f32, f32),
    mut draw: impl FnMut(i32, i32, u8),
) {
    let shaped = shape(text, face);
    CONTEXT.with_borrow_mut(|context| {
        let mut scaler = context.scale.builder(face.font()).size(size_px).build();
        let mut pen = x;
        for glyph in &shaped.glyphs {
            let offset = Vector::new(pen.fract(), -y.fract());
            if let Some(image) = Render::new(&[Source::Outline]).offset(offset).render(&mut scaler, glyph.id) {
                let place = image.placement;
                let (left, top) = (pen.floor() as i32 + place.left, y.floor() as i32 - place.top);
                for (i, coverage) in image.data.iter().enumerate().filter(|(_, coverage)| **coverage > 0) {
                    let (dx, dy) = (i % place.width as usize, i / place.width as usize);
                    draw(left + dx as i32, top + dy as i32, *coverage);
                }
            }
            pen += glyph.advance_em * size_px;
        }
    });
}

/// Names the fonts' bytes, for the key of a result.
pub(crate) fn data_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| {
        let both = Sha256::new().chain_update(REGULAR_FILE).chain_update(BOLD_FILE).finalize();
        hex::encode(&both[..8])
    });
    &HASH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fonts_lack_is_named() {
        assert_eq!(missing_glyphs("Łódź Ωμέγα Привет € → 1.5"), [' '; 0]);
        assert_eq!(missing_glyphs("日本 日"), ['日', '本']);
    }

    #[test]
    fn a_shaped_text_keeps_its_characters_and_its_width() {
        let shaped = shape("Łódź, 12", Face::Regular);
        let text: String = shaped.glyphs.iter().map(|g| g.text.as_str()).collect();
        assert_eq!(text, "Łódź, 12");
        let sum: f64 = shaped.glyphs.iter().map(|g| f64::from(g.advance_em)).sum();
        assert!((sum - shaped.width_em).abs() < 1e-6 && shaped.width_em > 3.0);
        // Figures are equally wide, so that columns line up.
        assert_eq!(width("1111", Face::Bold, 10.0), width("0000", Face::Bold, 10.0));
    }

    #[test]
    fn a_text_covers_pixels_where_it_stands() {
        let (mut left, mut bottom) = (i32::MAX, i32::MIN);
        for_each_pixel("H", Face::Regular, 40.0, (100.0, 200.0), |x, y, _| {
            left = left.min(x);
            bottom = bottom.max(y);
        });
        assert!((100..108).contains(&left) && (198..=200).contains(&bottom), "{left} {bottom}");
    }
}
