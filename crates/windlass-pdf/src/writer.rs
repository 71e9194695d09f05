//! Turns pictures and pages into a PDF file, behind the small [`SheetWriter`] trait.
//!
//! [`PrintpdfWriter`] is built on printpdf, which keeps the whole document in memory. A
//! backend that streams can take its place for very large decks.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use printpdf::{
    Color, CurTransMat, DictItem, ExternalStream, ExternalXObject, Greyscale, Line, LinePoint, Mm, Op, PaintMode,
    PdfDocument, PdfPage, PdfSaveOptions, Point, Pt, Rect, XObject, XObjectId, XObjectTransform,
};
use thiserror::Error;

/// A transformation as PDF writes it: `[a b c d e f]`, x' = ax+cy+e, y' = bx+dy+f.
pub type Matrix = [f64; 6];

/// A rectangle in points; the origin is the lower left corner of the page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RectPt {
    /// Left edge.
    pub x: f64,
    /// Lower edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// What the document says about itself and its printing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Title; empty for none.
    pub title: String,
    /// Author; empty for none.
    pub author: String,
    /// True when the pages alternate front and back and the paper is flipped on its long edge.
    pub duplex: bool,
}

/// The colours of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Colors {
    /// One grey channel.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// One index into a palette.
    Palette {
        /// Three bytes an entry, at most 256 entries.
        rgb: Vec<u8>,
    },
}

/// How the bytes of a picture are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// A JPEG file.
    Jpeg,
    /// The zlib stream of a PNG file: rows with a filter byte each.
    Png,
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

/// One thing drawn on a page.
#[derive(Debug, Clone, PartialEq)]
pub enum PageOp {
    /// A picture that was handed to [`SheetWriter::image`].
    Picture {
        /// Under this id.
        id: String,
        /// Maps the unit square to its place on the page.
        matrix: Matrix,
        /// What shows of it; `None`: all.
        clip: Option<RectPt>,
    },
    /// A black line.
    Line {
        /// Start, as (x, y) in points.
        from: (f64, f64),
        /// End, as (x, y) in points.
        to: (f64, f64),
        /// Its width in points.
        width_pt: f64,
    },
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

/// A [`SheetWriter`] on printpdf.
///
/// Everything is held in memory until `finish`; picture bytes are held once (printpdf
/// itself would copy them).
#[derive(Debug)]
pub struct PrintpdfWriter<W> {
    out: W,
    document: PdfDocument,
    /// By the name their object has in the document.
    images: BTreeMap<String, StoredImage>,
    duplex: bool,
}

impl<W: Write> PrintpdfWriter<W> {
    /// A writer that sends the finished document to `out`.
    pub fn new(out: W) -> Self {
        Self { out, document: PdfDocument::new(""), images: BTreeMap::new(), duplex: false }
    }
}

impl<W: Write> SheetWriter for PrintpdfWriter<W> {
    fn begin(&mut self, info: Info) -> Result<(), WriteError> {
        self.document.metadata.info.document_title = info.title;
        self.document.metadata.info.author = info.author;
        self.document.metadata.info.producer = concat!("windlass-pdf ", env!("CARGO_PKG_VERSION")).into();
        self.duplex = info.duplex;
        Ok(())
    }

    fn image(&mut self, id: &str, image: StoredImage) -> Result<(), WriteError> {
        let name = object_name(id);
        self.document.resources.xobjects.map.insert(XObjectId(name.clone()), stub(&name, &image));
        self.images.insert(name, image);
        Ok(())
    }

    fn page(&mut self, page: Page) -> Result<(), WriteError> {
        let mut ops = Vec::new();
        for op in &page.ops {
            match op {
                PageOp::Picture { id, matrix, clip } => {
                    let name = object_name(id);
                    if !self.images.contains_key(&name) {
                        return Err(WriteError::Library(format!("there is no picture {id}")));
                    }
                    draw_picture(name, matrix, *clip, &mut ops);
                }
                PageOp::Line { from, to, width_pt } => draw_line(*from, *to, *width_pt, &mut ops),
            }
        }
        let mut pdf_page = PdfPage::new(Mm(0.0), Mm(0.0), ops);
        let whole = Rect::from_wh(points(page.width_pt), points(page.height_pt));
        pdf_page.media_box = whole.clone();
        pdf_page.trim_box = whole.clone();
        pdf_page.crop_box = whole;
        self.document.pages.push(pdf_page);
        Ok(())
    }

    fn finish(mut self) -> Result<u64, WriteError> {
        // `PdfDocument::save_writer` loses I/O errors and writes ids from a process-wide
        // counter; these steps do neither.
        let options = PdfSaveOptions { image_optimization: None, ..PdfSaveOptions::default() };
        let mut warnings = Vec::new();
        let mut pdf = self.document.to_lopdf_document(&options, &mut warnings);
        if let Some(warning) = warnings.first() {
            return Err(WriteError::Library(warning.msg.clone()));
        }
        // Print settings are PDF 1.7; printpdf says 1.3.
        pdf.version = "1.7".into();
        pdf.trailer.remove(b"ID");
        let described = &self.document.metadata.info;
        let untitled = described.document_title.is_empty().then_some(b"Title".as_slice());
        let anonymous = described.author.is_empty().then_some(b"Author".as_slice());
        if let Ok(info) = pdf.trailer.get(b"Info").and_then(|info| info.as_reference())
            && let Ok(info) = pdf.get_dictionary_mut(info)
        {
            for key in UNSAID.into_iter().chain(untitled).chain(anonymous) {
                info.remove(key);
            }
        }
        let catalog = pdf.catalog_mut().map_err(|e| WriteError::Library(e.to_string()))?;
        catalog.set("ViewerPreferences", print_settings(self.duplex).to_lopdf());

        // Profiles first, each distinct one once: pictures refer to them.
        let mut profiles: BTreeMap<&[u8], DictItem> = BTreeMap::new();
        for image in self.images.values() {
            if let Some(icc) = &image.icc {
                profiles.entry(icc).or_insert_with(|| {
                    let (obj, generation) = pdf.add_object(profile(icc, &image.colors).to_lopdf());
                    DictItem::Ref { obj, r#gen: generation }
                });
            }
        }
        let spaces: Vec<DictItem> = self.images.values().map(|i| color_space(i, &profiles)).collect();
        drop(profiles);
        let mut filled: BTreeMap<String, (StoredImage, DictItem)> = std::mem::take(&mut self.images)
            .into_iter()
            .zip(spaces)
            .map(|((name, image), space)| (name, (image, space)))
            .collect();
        for object in pdf.objects.values_mut() {
            let Ok(stream) = object.as_stream_mut() else { continue };
            let name = stream.dict.get(STUB_KEY.as_bytes()).and_then(|n| n.as_name()).ok();
            let Some((image, space)) = name.and_then(|n| std::str::from_utf8(n).ok()).and_then(|n| filled.remove(n))
            else {
                continue;
            };
            stream.dict.remove(STUB_KEY.as_bytes());
            stream.dict.set("ColorSpace", space.to_lopdf());
            stream.set_content(image.data);
        }
        pdf.compress();

        let mut out = Counted { inner: BufWriter::new(self.out), written: 0 };
        pdf.save_to(&mut out)?;
        out.flush()?;
        Ok(out.written)
    }
}

/// Marks the object of a picture until `finish` puts the bytes in. PDF 1.0 knew the key;
/// no later version minds it.
const STUB_KEY: &str = "Name";

fn object_name(id: &str) -> String {
    format!("Im{id}")
}

fn points(value: f64) -> Pt {
    // A ten-thousandth of a point is 35 nm; more digits only make the file longer.
    Pt(((value * 10_000.0).round() / 10_000.0) as f32)
}

fn name(value: &str) -> DictItem {
    DictItem::Name(value.as_bytes().to_vec())
}

fn dict<const N: usize>(entries: [(&str, DictItem); N]) -> BTreeMap<String, DictItem> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The object of a picture without its bytes and colour space.
fn stub(object_name: &str, image: &StoredImage) -> XObject {
    let mut entries = dict([
        ("Type", name("XObject")),
        ("Subtype", name("Image")),
        ("Width", DictItem::Int(image.width.into())),
        ("Height", DictItem::Int(image.height.into())),
        ("BitsPerComponent", DictItem::Int(8)),
        (STUB_KEY, name(object_name)),
    ]);
    match image.coding {
        Coding::Jpeg => {
            entries.insert("Filter".into(), name("DCTDecode"));
        }
        Coding::Png => {
            let channels = if image.colors == Colors::Rgb { 3 } else { 1 };
            let parms = dict([
                ("Predictor", DictItem::Int(15)),
                ("Colors", DictItem::Int(channels)),
                ("BitsPerComponent", DictItem::Int(8)),
                ("Columns", DictItem::Int(image.width.into())),
            ]);
            entries.insert("Filter".into(), name("FlateDecode"));
            entries.insert("DecodeParms".into(), DictItem::Dict { map: parms });
        }
    }
    let stream = ExternalStream { dict: entries, content: Vec::new(), compress: false };
    XObject::External(ExternalXObject { stream, width: None, height: None, dpi: None })
}

/// The name of the device colour space behind these colours.
fn device_space(colors: &Colors) -> &'static str {
    match colors {
        Colors::Grey => "DeviceGray",
        Colors::Rgb | Colors::Palette { .. } => "DeviceRGB",
    }
}

fn profile(icc: &[u8], colors: &Colors) -> DictItem {
    let channels = if *colors == Colors::Grey { 1 } else { 3 };
    let entries = dict([("N", DictItem::Int(channels)), ("Alternate", name(device_space(colors)))]);
    DictItem::Stream { stream: ExternalStream { dict: entries, content: icc.to_vec(), compress: true } }
}

fn color_space(image: &StoredImage, profiles: &BTreeMap<&[u8], DictItem>) -> DictItem {
    let profile = image.icc.as_ref().and_then(|icc| profiles.get(icc.as_slice()));
    let base = match profile {
        Some(reference) => DictItem::Array(vec![name("ICCBased"), reference.clone()]),
        None => name(device_space(&image.colors)),
    };
    let Colors::Palette { rgb } = &image.colors else { return base };
    let last = (rgb.len() / 3) as i64 - 1;
    DictItem::Array(vec![name("Indexed"), base, DictItem::Int(last), DictItem::Bytes(rgb.clone())])
}

/// Print at 100 %, or no measure on the sheet is right; and turn the sheet the right way.
fn print_settings(duplex: bool) -> DictItem {
    let mut entries = dict([("PrintScaling", name("None"))]);
    if duplex {
        entries.insert("Duplex".into(), name("DuplexFlipLongEdge"));
    }
    DictItem::Dict { map: entries }
}

/// What printpdf writes although we have nothing to say there: dates of 1970, a claim to
/// a PDF/X version, empty strings.
const UNSAID: [&[u8]; 7] =
    [b"CreationDate", b"ModDate", b"GTS_PDFXVersion", b"Identifier", b"Creator", b"Subject", b"Keywords"];

fn draw_picture(name: String, matrix: &Matrix, clip: Option<RectPt>, ops: &mut Vec<Op>) {
    ops.push(Op::SaveGraphicsState);
    if let Some(clip) = clip {
        let mut rectangle = Rect::from_xywh(points(clip.x), points(clip.y), points(clip.width), points(clip.height));
        rectangle.mode = Some(PaintMode::Clip);
        ops.push(Op::DrawRectangle { rectangle });
    }
    let matrix = CurTransMat::Raw(matrix.map(|v| points(v).0));
    ops.push(Op::SetTransformationMatrix { matrix });
    let transform = XObjectTransform { no_auto_scale: true, ..XObjectTransform::default() };
    ops.push(Op::UseXobject { id: XObjectId(name), transform });
    ops.push(Op::RestoreGraphicsState);
}

fn draw_line(from: (f64, f64), to: (f64, f64), width_pt: f64, ops: &mut Vec<Op>) {
    let end = |(x, y)| LinePoint { p: Point { x: points(x), y: points(y) }, bezier: false };
    let black = Color::Greyscale(Greyscale { percent: 0.0, icc_profile: None });
    ops.push(Op::SetOutlineColor { col: black });
    ops.push(Op::SetOutlineThickness { pt: points(width_pt) });
    ops.push(Op::DrawLine { line: Line { points: vec![end(from), end(to)], is_closed: false } });
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
            writer.page(Page::default()).unwrap();
            match writer.finish() {
                Err(WriteError::Io(e)) => assert_eq!(e.kind(), io::ErrorKind::StorageFull),
                other => panic!("{left}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_page_cannot_name_a_picture_that_is_not_there() {
        let mut writer = PrintpdfWriter::new(Vec::new());
        let op = PageOp::Picture { id: "x".into(), matrix: [1.0; 6], clip: None };
        let page = Page { ops: vec![op], ..Page::default() };
        assert!(matches!(writer.page(page), Err(WriteError::Library(_))));
    }
}
