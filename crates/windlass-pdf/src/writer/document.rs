//! The file around the pages.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};

use lopdf::{Dictionary, Document, Object, ObjectId, Stream, dictionary};
use printpdf::{Mm, PdfDocument, PdfPage, PdfSaveOptions, Pt, Rect};

use super::content::{Content, object_name};
use super::fonts::FontBook;
use super::{Coding, Colors, Duplex, Info, Page, PageOp, RectPt, SheetWriter, StoredImage, WriteError};

/// A [`SheetWriter`] on printpdf.
///
/// printpdf makes the document and its pages; pictures, fonts and the contents of pages are put
/// into its object tree by us, because it would shrink and re-encode pictures, copy their bytes,
/// embed whole fonts, write random ids and swallow I/O errors.
pub struct PrintpdfWriter<W> {
    out: W,
    document: PdfDocument,
    info: Info,
    images: BTreeMap<String, StoredImage>,
    contents: Vec<Content>,
    fonts: FontBook,
}

impl<W> std::fmt::Debug for PrintpdfWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (images, pages) = (self.images.len(), self.contents.len());
        f.debug_struct("PrintpdfWriter").field("images", &images).field("pages", &pages).finish_non_exhaustive()
    }
}

impl<W: Write> PrintpdfWriter<W> {
    /// A writer that sends the finished document to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            document: PdfDocument::new(""),
            info: Info::default(),
            images: BTreeMap::new(),
            contents: Vec::new(),
            fonts: FontBook::default(),
        }
    }
}

impl<W: Write> SheetWriter for PrintpdfWriter<W> {
    fn begin(&mut self, info: Info) -> Result<(), WriteError> {
        self.document.metadata.info.document_title.clone_from(&info.title);
        self.document.metadata.info.author.clone_from(&info.author);
        self.info = info;
        Ok(())
    }

    fn image(&mut self, id: &str, image: StoredImage) -> Result<(), WriteError> {
        self.images.insert(object_name(id), image);
        Ok(())
    }

    fn page(&mut self, page: Page) -> Result<(), WriteError> {
        let mut content = Content::default();
        for op in &page.ops {
            if let PageOp::Picture(id, _) = op
                && !self.images.contains_key(&object_name(id))
            {
                return Err(WriteError::Library(format!("there is no picture {id}")));
            }
            content.add(op, &mut self.fonts);
        }
        self.contents.push(content);
        let mut empty = PdfPage::new(Mm(0.0), Mm(0.0), Vec::new());
        let whole = Rect::from_wh(points(page.width_pt), points(page.height_pt));
        empty.media_box = whole.clone();
        empty.trim_box = whole.clone();
        empty.crop_box = whole;
        self.document.pages.push(empty);
        Ok(())
    }

    fn finish(mut self) -> Result<u64, WriteError> {
        let options = PdfSaveOptions { image_optimization: None, ..PdfSaveOptions::default() };
        let mut warnings = Vec::new();
        let mut pdf = self.document.to_lopdf_document(&options, &mut warnings);
        if let Some(warning) = warnings.first() {
            return Err(WriteError::Library(warning.msg.clone()));
        }
        // Print settings are PDF 1.7; printpdf says 1.3.
        pdf.version = "1.7".into();
        pdf.trailer.remove(b"ID");
        describe(&mut pdf, &self.info)?;

        let fonts = std::mem::take(&mut self.fonts).embed(&mut pdf)?;
        let pictures = embed_images(&mut pdf, std::mem::take(&mut self.images));
        let alphas: BTreeSet<u8> = self.contents.iter().flat_map(|c| c.alphas.iter().copied()).collect();
        let shared = pdf.add_object(dictionary! {
            "Font" => by_name(fonts.into_iter().map(|(name, id)| (name.to_owned(), id.into()))),
            "XObject" => by_name(pictures.into_iter().map(|(name, id)| (name, id.into()))),
            "ExtGState" => by_name(alphas.into_iter().map(|alpha| (format!("GS{alpha}"), opacity(alpha)))),
        });
        let pages: Vec<ObjectId> = pdf.page_iter().collect();
        for (id, content) in pages.into_iter().zip(std::mem::take(&mut self.contents)) {
            fill_page(&mut pdf, id, shared, content)?;
        }
        pdf.prune_objects();
        pdf.renumber_objects();
        pdf.compress();

        let mut out = Counted { inner: BufWriter::new(self.out), written: 0 };
        pdf.save_to(&mut out)?;
        out.flush()?;
        Ok(out.written)
    }
}

fn by_name(entries: impl Iterator<Item = (String, Object)>) -> Dictionary {
    let mut all = Dictionary::new();
    entries.for_each(|(name, object)| all.set(name, object));
    all
}

fn opacity(alpha: u8) -> Object {
    let part = Object::Real(f32::from(alpha) / 255.0);
    dictionary! { "CA" => part.clone(), "ca" => part }.into()
}

fn fill_page(pdf: &mut Document, id: ObjectId, shared: ObjectId, content: Content) -> Result<(), WriteError> {
    let contents = pdf.add_object(Stream::new(Dictionary::new(), content.bytes.into_bytes()));
    let page = pdf.get_dictionary_mut(id).map_err(|e| WriteError::Library(e.to_string()))?;
    page.set("Contents", contents);
    page.set("Resources", shared);
    page.remove(b"Annots");
    if !content.links.is_empty() {
        page.set("Annots", content.links.iter().map(link).collect::<Vec<_>>());
    }
    Ok(())
}

fn link((rect, address): &(RectPt, String)) -> Object {
    let corners = [rect.x, rect.y, rect.x + rect.width, rect.y + rect.height];
    dictionary! {
        "Type" => "Annot",
        "Subtype" => "Link",
        "Rect" => corners.iter().map(|v| Object::Real(points(*v).0)).collect::<Vec<_>>(),
        "Border" => vec![0.into(), 0.into(), 0.into()],
        "A" => dictionary! { "S" => "URI", "URI" => Object::string_literal(address.as_str()) },
    }
    .into()
}

/// What made the file.
pub(crate) const PRODUCER: &str = concat!("windlass-pdf ", env!("CARGO_PKG_VERSION"));

/// What printpdf writes although we have nothing to say there: dates of 1970, a claim to
/// a PDF/X version, empty strings.
const UNSAID: [&[u8]; 7] =
    [b"CreationDate", b"ModDate", b"GTS_PDFXVersion", b"Identifier", b"Creator", b"Subject", b"Keywords"];

fn describe(pdf: &mut Document, about: &Info) -> Result<(), WriteError> {
    let untitled = about.title.is_empty().then_some(b"Title".as_slice());
    let anonymous = about.author.is_empty().then_some(b"Author".as_slice());
    if let Ok(info) = pdf.trailer.get(b"Info").and_then(Object::as_reference)
        && let Ok(info) = pdf.get_dictionary_mut(info)
    {
        for key in UNSAID.into_iter().chain(untitled).chain(anonymous) {
            info.remove(key);
        }
        // Plain letters: whoever looks for our files need not decode them.
        info.set("Producer", Object::string_literal(PRODUCER));
    }
    let catalog = pdf.catalog_mut().map_err(|e| WriteError::Library(e.to_string()))?;
    let mut wishes = Dictionary::new();
    if about.exact_size {
        // Print at 100 %, or no measure on the sheet is right.
        wishes.set("PrintScaling", "None");
    }
    match about.duplex {
        Some(Duplex::LongEdge) => wishes.set("Duplex", "DuplexFlipLongEdge"),
        Some(Duplex::ShortEdge) => wishes.set("Duplex", "DuplexFlipShortEdge"),
        None => {}
    }
    if !about.title.is_empty() {
        wishes.set("DisplayDocTitle", true);
    }
    if !wishes.is_empty() {
        catalog.set("ViewerPreferences", wishes);
    }
    if !about.language.is_empty() {
        catalog.set("Lang", Object::string_literal(about.language.as_str()));
    }
    Ok(())
}

/// Adds the pictures, and each distinct colour profile once; their names and objects.
fn embed_images(pdf: &mut Document, images: BTreeMap<String, StoredImage>) -> Vec<(String, ObjectId)> {
    let mut profiles: BTreeMap<Vec<u8>, ObjectId> = BTreeMap::new();
    let mut placed = Vec::with_capacity(images.len());
    for (name, image) in images {
        let profile = image.icc.as_ref().map(|icc| match profiles.get(icc) {
            Some(id) => *id,
            None => {
                let base = match image.colors {
                    Colors::Grey => 1,
                    Colors::Rgb | Colors::Palette { .. } => 3,
                    Colors::Cmyk { .. } => 4,
                };
                let entries = dictionary! { "N" => base, "Alternate" => device_space(&image.colors) };
                let id = pdf.add_object(Stream::new(entries, icc.clone()));
                profiles.insert(icc.clone(), id);
                id
            }
        });
        let mut entries = dictionary! {
            "Type" => "XObject",
            "Subtype" => "Image",
            "Width" => i64::from(image.width),
            "Height" => i64::from(image.height),
            "BitsPerComponent" => 8,
            "ColorSpace" => color_space(&image.colors, profile),
        };
        if image.colors == (Colors::Cmyk { inverted: true }) {
            entries.set("Decode", [1, 0].repeat(4).into_iter().map(Object::from).collect::<Vec<_>>());
        }
        match image.coding {
            Coding::Jpeg => entries.set("Filter", "DCTDecode"),
            Coding::Png => {
                entries.set("Filter", "FlateDecode");
                let parms = dictionary! {
                    "Predictor" => 15,
                    "Colors" => channels(&image.colors),
                    "BitsPerComponent" => 8,
                    "Columns" => i64::from(image.width),
                };
                entries.set("DecodeParms", parms);
            }
            Coding::Raw => {}
        }
        let stream = Stream::new(entries, image.data).with_compression(image.coding == Coding::Raw);
        placed.push((name, pdf.add_object(stream)));
    }
    placed
}

/// Samples a pixel has in the file.
fn channels(colors: &Colors) -> i64 {
    match colors {
        Colors::Grey | Colors::Palette { .. } => 1,
        Colors::Rgb => 3,
        Colors::Cmyk { .. } => 4,
    }
}

/// The name of the device colour space behind these colours.
fn device_space(colors: &Colors) -> &'static str {
    match colors {
        Colors::Grey => "DeviceGray",
        Colors::Rgb | Colors::Palette { .. } => "DeviceRGB",
        Colors::Cmyk { .. } => "DeviceCMYK",
    }
}

fn color_space(colors: &Colors, profile: Option<ObjectId>) -> Object {
    let base = match profile {
        Some(id) => vec!["ICCBased".into(), id.into()].into(),
        None => device_space(colors).into(),
    };
    let Colors::Palette { rgb } = colors else { return base };
    let last = (rgb.len() / 3) as i64 - 1;
    let table = Object::String(rgb.clone(), lopdf::StringFormat::Hexadecimal);
    vec!["Indexed".into(), base, last.into(), table].into()
}

fn points(value: f64) -> Pt {
    Pt(((value * 10_000.0).round() / 10_000.0) as f32)
}

/// Counts what goes through.
struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Takes `left` bytes, then fails as a full disk does.
    struct Full {
        left: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn image() -> StoredImage {
        let data = vec![7; 50_000];
        StoredImage { width: 1, height: 1, colors: Colors::Grey, icc: None, coding: Coding::Jpeg, data }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_fills_up() {
        for left in [0, 100, 20_000, 50_100] {
            let mut writer = PrintpdfWriter::new(Full { left });
            writer.begin(Info::default()).unwrap();
            writer.image("x", image()).unwrap();
            let op = PageOp::Picture("x".into(), [1.0; 6]);
            writer.page(Page { ops: vec![op], ..Page::default() }).unwrap();
            match writer.finish() {
                Err(WriteError::Io(e)) => assert_eq!(e.kind(), io::ErrorKind::StorageFull),
                other => panic!("{left}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_page_cannot_name_a_picture_that_is_not_there() {
        let mut writer = PrintpdfWriter::new(Vec::new());
        let op = PageOp::Picture("x".into(), [1.0; 6]);
        let page = Page { ops: vec![op], ..Page::default() };
        assert!(matches!(writer.page(page), Err(WriteError::Library(_))));
    }
}
