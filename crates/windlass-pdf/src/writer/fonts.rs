//! The embedded fonts as objects of a PDF: only the glyphs in use, with the characters they
//! stand for, so that text can be searched and copied.
//!
//! *Source*: ISO 32000-1, 9.7 (composite fonts), 9.10.3 (ToUnicode).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream, dictionary};
use sha2::{Digest, Sha256};
use subsetter::GlyphRemapper;

use super::WriteError;
use crate::font::{Face, Glyph};

/// The glyphs of each font that a document uses.
#[derive(Default)]
pub(super) struct FontBook {
    faces: BTreeMap<Face, Used>,
}

#[derive(Default)]
struct Used {
    remapper: GlyphRemapper,
    /// Width in thousandths and text by the glyph's number in the subset.
    glyphs: BTreeMap<u16, (f64, String)>,
}

impl FontBook {
    /// The name of a font in the resources of every page.
    pub(super) fn resource(face: Face) -> &'static str {
        match face {
            Face::Regular => "F0",
            Face::Bold => "F1",
        }
    }

    /// The code of a glyph in this document, and the width that viewers give it, in thousandths.
    pub(super) fn code(&mut self, face: Face, glyph: &Glyph) -> (u16, f64) {
        let used = self.faces.entry(face).or_default();
        let code = used.remapper.remap(glyph.id);
        let (width, text) = used.glyphs.entry(code).or_insert_with(|| {
            let font = face.font();
            let advance = font.glyph_metrics(&[]).scale(1000.0).advance_width(glyph.id);
            (f64::from(advance).round(), String::new())
        });
        if text.is_empty() {
            text.clone_from(&glyph.text);
        }
        (code, *width)
    }

    /// Adds the fonts in use to a document; their names and objects.
    pub(super) fn embed(self, pdf: &mut Document) -> Result<Vec<(&'static str, ObjectId)>, WriteError> {
        self.faces.into_iter().map(|(face, used)| Ok((Self::resource(face), used.embed(face, pdf)?))).collect()
    }
}

impl Used {
    fn embed(self, face: Face, pdf: &mut Document) -> Result<ObjectId, WriteError> {
        let subset = subsetter::subset(face.file(), 0, &self.remapper)
            .map_err(|e| WriteError::Library(format!("the font {}: {e}", face.name())))?;
        let base = format!("{}+{}", tag(&subset), face.name());
        let length = subset.len() as i64;
        let file = pdf.add_object(Stream::new(dictionary! { "Length1" => length }, subset));
        let descriptor = pdf.add_object(descriptor(face, &base, file));
        let widths: Vec<Object> = self.glyphs.values().map(|(width, _)| Object::Integer(*width as i64)).collect();
        // Codes are given out from 1 without a gap; 0 is the glyph for what is missing.
        let first = self.glyphs.keys().next().copied().unwrap_or(1);
        let descendant = pdf.add_object(dictionary! {
            "Type" => "Font",
            "Subtype" => "CIDFontType2",
            "BaseFont" => Object::Name(base.clone().into_bytes()),
            "CIDSystemInfo" => dictionary! {
                "Registry" => Object::string_literal("Adobe"),
                "Ordering" => Object::string_literal("Identity"),
                "Supplement" => 0,
            },
            "FontDescriptor" => descriptor,
            "CIDToGIDMap" => "Identity",
            "DW" => 0,
            "W" => vec![Object::Integer(first.into()), widths.into()],
        });
        let to_unicode = pdf.add_object(Stream::new(Dictionary::new(), self.to_unicode().into_bytes()));
        Ok(pdf.add_object(dictionary! {
            "Type" => "Font",
            "Subtype" => "Type0",
            "BaseFont" => Object::Name(base.into_bytes()),
            "Encoding" => "Identity-H",
            "DescendantFonts" => vec![descendant.into()],
            "ToUnicode" => to_unicode,
        }))
    }

    fn to_unicode(&self) -> String {
        let mut map = String::from(
            "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n\
             /CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n\
             /CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n\
             1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n",
        );
        let known: Vec<(&u16, &String)> =
            self.glyphs.iter().map(|(code, (_, text))| (code, text)).filter(|(_, text)| !text.is_empty()).collect();
        // A block holds at most 100 entries.
        for block in known.chunks(100) {
            let _ = writeln!(map, "{} beginbfchar", block.len());
            for (code, text) in block {
                let _ = write!(map, "<{code:04X}> <");
                text.encode_utf16().for_each(|unit| {
                    let _ = write!(map, "{unit:04X}");
                });
                map.push_str(">\n");
            }
            map.push_str("endbfchar\n");
        }
        map.push_str("endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n");
        map
    }
}

fn descriptor(face: Face, base: &str, file: ObjectId) -> Dictionary {
    /// Nonsymbolic.
    const FLAGS: i64 = 1 << 5;
    let metrics = face.font().metrics(&[]).scale(1000.0);
    let round = |value: f32| Object::Integer(value.round() as i64);
    dictionary! {
        "Type" => "FontDescriptor",
        "FontName" => Object::Name(base.as_bytes().to_vec()),
        "Flags" => FLAGS,
        "FontBBox" => vec![
            Object::Integer(-800), round(-metrics.descent - 200.0), Object::Integer(2600), round(metrics.ascent + 200.0),
        ],
        "ItalicAngle" => 0,
        "Ascent" => round(metrics.ascent),
        "Descent" => round(-metrics.descent),
        "CapHeight" => round(metrics.cap_height),
        "StemV" => if face == Face::Bold { 130 } else { 90 },
        "FontFile2" => file,
    }
}

/// Six capitals that name the subset, made from its bytes.
fn tag(subset: &[u8]) -> String {
    Sha256::digest(subset).iter().take(6).map(|byte| char::from(b'A' + byte % 26)).collect()
}
