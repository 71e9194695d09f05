//! The two presses: pages of placed pictures, and pages that are pictures.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use image::{ImageFormat, RgbImage};
use windlass_jobs::Outcome;

use super::MAX_STORED_BYTES;
use super::embed::{self, Known, Look};
use super::place::{Edges, Role, Treatment};
use super::plan::{PagePlan, Placed, Side};
use super::press::{Printed, Run, storage, write_failed};
use super::raster::{self, Canvas, Ready};
use crate::args::{Bleed, CardSheetArgs, Cmyk, Format, PngStorage, Sides};
use crate::font::{self, Face};
use crate::layout::{LABEL_SIZE, LabelPlace, Layout, PT_PER_PX};
use crate::picture::{self, Header, Storage};
use crate::writer::{
    Coding, Color, Colors, Duplex, Info, Page, PageOp, PrintpdfWriter, SheetWriter, StoredImage, TextRun,
    round_rect_path,
};

/// The PDF that a run leaves behind.
const FILE_NAME: &str = "cards.pdf";
/// Input bytes past which `png: "auto"` stores JPEGs.
const AUTO_JPEG_BYTES: u64 = 64 * 1024 * 1024;
/// Scaled cards kept for their next use in mode raster, in bytes.
const MAX_READY_BYTES: usize = 64 * 1024 * 1024;

fn info(args: &CardSheetArgs, layout: &Layout) -> Info {
    let turn = if layout.is_landscape() { Duplex::LongEdge } else { Duplex::ShortEdge };
    Info {
        title: args.output.title.clone().unwrap_or_default(),
        author: args.output.author.clone().unwrap_or_default(),
        language: String::new(),
        duplex: (args.sides == Sides::Duplex).then_some(turn),
        exact_size: true,
    }
}

/// Writes a file under another name and renames it, so that a file of that name is whole.
fn whole_file(out: &Path, write: impl FnOnce(File) -> Result<(), Outcome>) -> Result<u64, Outcome> {
    let part = out.join(format!("{FILE_NAME}.part"));
    let file = File::create(&part).map_err(|e| storage("making the file", &e))?;
    write(file)?;
    let bytes = fs::metadata(&part).map_err(|e| storage("the file's size", &e))?.len();
    fs::rename(&part, out.join(FILE_NAME)).map_err(|e| storage("naming the file", &e))?;
    Ok(bytes)
}

fn reach(args: &CardSheetArgs, layout: &Layout) -> (f64, f64) {
    if args.bleed == Bleed::None { (0.0, 0.0) } else { layout.bleed() }
}

/// Mode embed.
pub(super) struct EmbedPress<'a> {
    run: Run<'a>,
    known: HashMap<&'a str, Known>,
    stored_bytes: u64,
    as_jpeg: bool,
    printed: Printed,
}

impl<'a> EmbedPress<'a> {
    pub(super) fn print(run: Run<'a>, out: &Path) -> Result<Printed, Outcome> {
        let as_jpeg = match run.args.png {
            PngStorage::Lossless => false,
            PngStorage::Jpeg => true,
            PngStorage::Auto => run.blobs.total_bytes() > AUTO_JPEG_BYTES,
        };
        let mut press = Self { run, known: HashMap::new(), stored_bytes: 0, as_jpeg, printed: Printed::default() };
        let bytes = whole_file(out, |file| press.write(file))?;
        let pictures = press.known.len();
        Ok(Printed { files: vec![FILE_NAME.to_owned()], bytes, pictures, ..press.printed })
    }

    fn write(&mut self, file: File) -> Result<(), Outcome> {
        let mut writer = PrintpdfWriter::new(file);
        let layout = self.run.plan.layout;
        writer.begin(info(self.run.args, layout)).map_err(write_failed)?;
        for (index, page) in self.run.plan.pages.iter().enumerate() {
            let ops = self.ops(page, &mut writer)?;
            let (width_pt, height_pt) = (layout.page.0 * PT_PER_PX, layout.page.1 * PT_PER_PX);
            writer.page(Page { width_pt, height_pt, ops }).map_err(write_failed)?;
            (self.run.laid)(index + 1);
        }
        let started = Instant::now();
        writer.finish().map_err(write_failed)?;
        self.printed.write = started.elapsed();
        Ok(())
    }

    fn ops(&mut self, page: &PagePlan<'a>, writer: &mut impl SheetWriter) -> Result<Vec<PageOp>, Outcome> {
        let (args, layout) = (self.run.args, self.run.plan.layout);
        let mut ops = vec![PageOp::Transform(embed::page_map(layout.page.1))];
        if page.side == Side::Back && !args.offset.is_nothing() {
            ops.push(PageOp::Transform(embed::offset_map(&args.offset, layout.page)));
        }
        if args.marks {
            ops.push(embed::marks(&layout.marks(args.pattern())));
        }
        let look = Look { bleed: args.bleed, reach: reach(args, layout) };
        let turned = page.side == Side::Back;
        for placed in &page.placed {
            self.run.check_cancelled()?;
            self.prepare(placed, page.side, writer)?;
            let Some(known) = self.known.get(placed.digest) else { continue };
            known.draw(placed.digest, &look, layout.slot(placed.slot), turned, placed.role, &mut ops);
        }
        if args.outline {
            ops.extend(page.placed.iter().map(|placed| outline(layout, placed.slot)));
        }
        if page.side == Side::Front && args.label.show {
            let text = self.run.label(page.sheet);
            match layout.label(font::width(&text, Face::Regular, LABEL_SIZE), args.pattern()) {
                Some(place) => ops.push(label(&text, place)),
                None => self.printed.unlabelled += 1,
            }
        }
        Ok(ops)
    }

    /// Brings a picture into the document on its first use in a role.
    fn prepare(&mut self, placed: &Placed<'a>, side: Side, writer: &mut impl SheetWriter) -> Result<(), Outcome> {
        let known = self.known.entry(placed.digest).or_default();
        if known.has(placed.role) {
            return Ok(());
        }
        let started = Instant::now();
        let (args, card) = (self.run.args, self.run.plan.layout.card_size);
        let refused = |refusal| self.run.blobs.refused(&refusal, placed, side);
        let (bytes, header) = self.run.blobs.open(placed, side)?;
        let decoded = picture::decode(&bytes, &header).map_err(refused)?;
        let cut = Treatment::of(args, placed.role).cut(header.upright(), card);
        let wants_edges = args.bleed == Bleed::Edge || (args.bleed == Bleed::None && cut.inset > 0.0);
        let edges = wants_edges.then(|| Edges::of(&decoded, &header, &cut));
        if !known.is_stored() {
            let how = Storage {
                as_jpeg: self.as_jpeg,
                keep_cmyk: args.cmyk == Cmyk::Keep,
                scale: too_fine(args, &header, placed.role, card),
            };
            let image = picture::store(&bytes, &header, decoded, &how).map_err(refused)?;
            self.stored_bytes += image.data.len() as u64;
            if self.stored_bytes > MAX_STORED_BYTES {
                let message = format!("the pictures take more than {MAX_STORED_BYTES} bytes, make it several jobs");
                return Err(Outcome::fatal("output_too_large", message));
            }
            writer.image(placed.digest, image).map_err(write_failed)?;
            known.stored(header.orientation);
        }
        known.add(placed.digest, placed.role, cut, edges, writer).map_err(write_failed)?;
        self.printed.decode += started.elapsed();
        Ok(())
    }
}

/// A picture is not scaled to more than this part: it would lose detail and its own bytes for nothing.
const WORTH_SCALING: f64 = 0.9;

/// The part to which a picture is scaled when it is clearly finer on paper than `max_source_ppi`.
fn too_fine(args: &CardSheetArgs, header: &Header, role: Role, card: (f64, f64)) -> Option<f64> {
    let (_, _, width, height) = Treatment::of(args, role).filling(header.upright(), card);
    let ppi = (width / card.0).min(height / card.1) * 300.0;
    let scale = args.max_source_ppi as f64 / ppi;
    (scale < WORTH_SCALING).then_some(scale)
}

fn outline(layout: &Layout, slot: usize) -> PageOp {
    let path = round_rect_path(embed::area(layout.slot(slot)), layout.radius);
    PageOp::Stroke { path, width_pt: 1.0, color: Color::BLACK, round: false }
}

fn label(text: &str, place: LabelPlace) -> PageOp {
    // Letters stand upright on a page whose y goes down; upwards: turned by a quarter to the left.
    let matrix = match place.upwards {
        false => [1.0, 0.0, 0.0, -1.0, place.x, place.y],
        true => [0.0, -1.0, -1.0, 0.0, place.x, place.y],
    };
    let shaped = font::shape(text, Face::Regular);
    PageOp::Text(TextRun { shaped, face: Face::Regular, size_pt: LABEL_SIZE, matrix, color: Color::BLACK })
}

/// Mode raster.
pub(super) struct RasterPress<'a> {
    run: Run<'a>,
    /// Cards that will be used again, and how often, by picture, role and side.
    ready: HashMap<(&'a str, Role, bool), Ready>,
    uses: HashMap<(&'a str, Role, bool), usize>,
    ready_bytes: usize,
    printed: Printed,
}

/// What makes two pages without a label equal.
type Sameness<'a> = Vec<(usize, &'a str, Role)>;

impl<'a> RasterPress<'a> {
    pub(super) fn print(run: Run<'a>, out: &Path) -> Result<Printed, Outcome> {
        let mut uses = HashMap::new();
        for page in &run.plan.pages {
            for placed in &page.placed {
                *uses.entry((placed.digest, placed.role, page.side == Side::Back)).or_insert(0) += 1;
            }
        }
        let printed = Printed { pictures: run.args.digests().len(), ..Printed::default() };
        let mut press = Self { run, ready: HashMap::new(), uses, ready_bytes: 0, printed };
        if run.args.output.format == Format::Pdf {
            press.printed.bytes = whole_file(out, |file| press.write_pdf(file))?;
            press.printed.files = vec![FILE_NAME.to_owned()];
        } else {
            press.write_images(out)?;
        }
        Ok(press.printed)
    }

    fn write_pdf(&mut self, file: File) -> Result<(), Outcome> {
        let mut writer = PrintpdfWriter::new(file);
        let layout = self.run.plan.layout;
        writer.begin(info(self.run.args, layout)).map_err(write_failed)?;
        let (width_pt, height_pt) = (layout.page.0 * PT_PER_PX, layout.page.1 * PT_PER_PX);
        let mut backs: HashMap<Sameness<'a>, String> = HashMap::new();
        let mut stored_bytes = 0;
        for (index, page) in self.run.plan.pages.iter().enumerate() {
            let sameness: Option<Sameness<'a>> = (page.side == Side::Back)
                .then(|| page.placed.iter().map(|placed| (placed.slot, placed.digest, placed.role)).collect());
            let known = sameness.as_ref().and_then(|same| backs.get(same)).cloned();
            let id = match known {
                Some(id) => id,
                None => {
                    let pixels = self.draw(page)?;
                    let data = jpeg(&pixels, self.run.args.quality)?;
                    stored_bytes += data.len() as u64;
                    if stored_bytes > MAX_STORED_BYTES {
                        let message =
                            format!("the pages take more than {MAX_STORED_BYTES} bytes, make it several jobs");
                        return Err(Outcome::fatal("output_too_large", message));
                    }
                    let id = format!("page{index}");
                    let (width, height) = pixels.dimensions();
                    let image =
                        StoredImage { width, height, colors: Colors::Rgb, icc: None, coding: Coding::Jpeg, data };
                    writer.image(&id, image).map_err(write_failed)?;
                    if let Some(same) = sameness {
                        backs.insert(same, id.clone());
                    }
                    id
                }
            };
            let ops = vec![PageOp::Picture(id, [width_pt, 0.0, 0.0, height_pt, 0.0, 0.0])];
            writer.page(Page { width_pt, height_pt, ops }).map_err(write_failed)?;
            (self.run.laid)(index + 1);
        }
        let started = Instant::now();
        writer.finish().map_err(write_failed)?;
        self.printed.write = started.elapsed();
        Ok(())
    }

    /// `page1.png` and so on, as the peer names them.
    fn write_images(&mut self, out: &Path) -> Result<(), Outcome> {
        let extension = match self.run.args.output.format {
            Format::Jpg => "jpg",
            Format::Webp => "webp",
            Format::Png | Format::Pdf => "png",
        };
        for (index, page) in self.run.plan.pages.iter().enumerate() {
            let pixels = self.draw(page)?;
            let started = Instant::now();
            let bytes = match self.run.args.output.format {
                Format::Jpg => jpeg(&pixels, self.run.args.quality)?,
                Format::Webp => encoded(&pixels, ImageFormat::WebP)?,
                Format::Png | Format::Pdf => encoded(&pixels, ImageFormat::Png)?,
            };
            let name = format!("page{}.{extension}", index + 1);
            let written = File::create(out.join(&name)).and_then(|mut file| file.write_all(&bytes));
            written.map_err(|e| storage("writing a page", &e))?;
            self.printed.write += started.elapsed();
            self.printed.bytes += bytes.len() as u64;
            self.printed.files.push(name);
            (self.run.laid)(index + 1);
        }
        Ok(())
    }

    fn draw(&mut self, page: &PagePlan<'a>) -> Result<RgbImage, Outcome> {
        let (args, layout) = (self.run.args, self.run.plan.layout);
        let marks = if args.marks { layout.marks(args.pattern()) } else { Vec::new() };
        let mut canvas = Canvas::new(layout, args.ppi, &marks);
        let bleed = reach(args, layout);
        for placed in &page.placed {
            self.run.check_cancelled()?;
            self.card(placed, page.side, bleed, &mut canvas)?;
        }
        if args.outline {
            page.placed.iter().for_each(|placed| canvas.outline(layout.slot(placed.slot), layout.radius));
        }
        if page.side == Side::Front && args.label.show {
            let text = self.run.label(page.sheet);
            match layout.label(font::width(&text, Face::Regular, LABEL_SIZE), args.pattern()) {
                Some(place) => canvas.label(&text, place),
                None => self.printed.unlabelled += 1,
            }
        }
        if page.side == Side::Back {
            canvas.offset(&args.offset);
        }
        Ok(canvas.pixels)
    }

    /// Draws a card; keeps what it was made into when it is used again.
    fn card(&mut self, placed: &Placed<'a>, side: Side, bleed: (f64, f64), canvas: &mut Canvas) -> Result<(), Outcome> {
        let key = (placed.digest, placed.role, side == Side::Back);
        let slot = self.run.plan.layout.slot(placed.slot);
        let left = self.uses.get_mut(&key).map_or(0, |left| {
            *left = left.saturating_sub(1);
            *left
        });
        if let Some(ready) = self.ready.get(&key) {
            canvas.card(ready, slot, bleed);
            if left == 0 {
                self.ready_bytes -= self.ready.remove(&key).map_or(0, |ready| ready.bytes());
            }
            return Ok(());
        }
        let started = Instant::now();
        let ready = self.make_ready(placed, side)?;
        self.printed.decode += started.elapsed();
        canvas.card(&ready, slot, bleed);
        if left > 0 && self.ready_bytes + ready.bytes() <= MAX_READY_BYTES {
            self.ready_bytes += ready.bytes();
            self.ready.insert(key, ready);
        }
        Ok(())
    }

    fn make_ready(&self, placed: &Placed<'a>, side: Side) -> Result<Ready, Outcome> {
        let (args, layout) = (self.run.args, self.run.plan.layout);
        let refused = |refusal| self.run.blobs.refused(&refusal, placed, side);
        let (bytes, header) = self.run.blobs.open(placed, side)?;
        let mut decoded = picture::decode(&bytes, &header).map_err(refused)?;
        drop(bytes);
        decoded.apply_orientation(header.orientation);
        let flat = picture::flat_rgb(decoded);
        raster::ready(&flat, &Treatment::of(args, placed.role), layout, args.ppi, side == Side::Back).map_err(refused)
    }
}

/// A page as JPEG.
fn jpeg(pixels: &RgbImage, quality: i64) -> Result<Vec<u8>, Outcome> {
    let quality = u8::try_from(quality).unwrap_or(100);
    picture::jpeg_file(pixels, quality).map_err(|e| Outcome::fatal("page_not_encoded", e.to_string()))
}

fn encoded(pixels: &RgbImage, format: ImageFormat) -> Result<Vec<u8>, Outcome> {
    let mut out = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut out, format).map_err(|e| Outcome::fatal("page_not_encoded", e.to_string()))?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_finer_than_asked_is_scaled_down() {
        let args = CardSheetArgs::default();
        let header = |w, h| picture::tests_header((w, h), image::metadata::Orientation::NoTransforms);
        let card = (742.0, 1036.0);
        assert_eq!(too_fine(&args, &header(742, 1036), Role::Own, card), None);
        assert_eq!(too_fine(&args, &header(1484, 2072), Role::Own, card), None);
        let scale = too_fine(&args, &header(2968, 4144), Role::Own, card).unwrap();
        assert!((scale - 0.5).abs() < 1e-9);
    }
}
