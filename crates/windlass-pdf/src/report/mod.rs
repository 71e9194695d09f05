//! The kind `pdf.report`: headings, paragraphs, tables, pictures and charts as a PDF.
//!
//! - `args` says what a report is and what can be wrong with it;
//! - `template` fills names in texts, `text` breaks lines, `table` sets tables, `chart` draws a
//!   chart's scene as vectors;
//! - `flow` knows the pages.

mod args;
mod chart;
mod flow;
mod table;
mod template;
mod text;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use windlass_jobs::{ArtifactFile, Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

pub use args::{
    Align, Block, Cell, Column, Line, MAX_BLOCKS, MAX_CELLS, MAX_CHARTS, MAX_COLUMNS, MAX_IMAGES, Margins, Orientation,
    PageArgs, PageSize, PaperName, ReportArgs, Run,
};

use crate::args::blob_digest;
use crate::font::Face;
use crate::picture::{self, MAX_FILE_BYTES, Storage};
use crate::writer::{Color, Info, PageOp, PrintpdfWriter, RectPt, SheetWriter, WriteError, then};
use flow::Flow;
use table::Table;
use text::{Style, break_lines};

/// Most pages of a report.
pub const MAX_REPORT_PAGES: usize = 2_000;

const FILE_NAME: &str = "report.pdf";
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Resolution of a picture that names no width.
const IMAGE_PPI: f64 = 150.0;
const CAPTION_SIZE: f64 = 8.5;

/// Points of so many millimetres.
fn points(mm: f64) -> f64 {
    mm * 72.0 / 25.4
}

/// Sets a report. Args: [`ReportArgs`].
///
/// *Result*: `{pages, blocks, bytes, ms: {layout, write}}`; one artifact, `report.pdf`.
///
/// *Errors*, permanent unless said otherwise: `args_invalid`, `blob_missing`, `image_unreadable`,
/// `unsupported_image`, `image_too_large`, `row_too_high`, `table_too_wide`, `too_many_pages`;
/// `storage` is retried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report;

/// Why a report is not set.
enum Stop {
    /// Code and message.
    Refused(&'static str, String),
    Storage(String),
    Cancelled,
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(e) => Self::Storage(format!("writing the pdf: {e}")),
            e @ WriteError::Library(_) => Self::Refused("pdf_library", e.to_string()),
        }
    }
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(code, message) => Self::fatal(code, message),
            Stop::Storage(message) => Self::retry("storage", message),
            Stop::Cancelled => Self::Cancel { reason: "cancelled between pages".into() },
        }
    }
}

impl IsolatedKind for Report {
    type Args = ReportArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            timeout: Duration::from_secs(120),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("pdf.report", "sets headings, texts, tables, pictures and charts as a PDF")
        }
    }

    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<ReportArgs>()
    }

    fn check(&self, args: &ReportArgs) -> Vec<Violation> {
        args.violations()
    }

    fn cache_args(&self, args: &ReportArgs) -> Option<serde_json::Value> {
        windlass_chart::font::second().map(|font| serde_json::json!({"args": args, "font": font}))
    }

    fn inputs(&self, args: &ReportArgs) -> Inputs {
        let blobs: Vec<String> = args.digests().into_iter().map(str::to_owned).collect();
        let stored = blobs.len() as u64 * MAX_FILE_BYTES;
        Inputs { blobs, peak_memory_bytes: MEMORY_BYTES + stored }
    }

    fn run(&self, args: ReportArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        match print(&args, dir, ctx) {
            Ok(done) => Outcome::Done(done),
            Err(stop) => stop.into(),
        }
    }
}

fn print(args: &ReportArgs, dir: &Path, ctx: &dyn RunContext) -> Result<Done, Stop> {
    let started = Instant::now();
    let out = dir.join("out");
    let part = out.join(format!("{FILE_NAME}.part"));
    let failed = |e: io::Error| Stop::Storage(format!("making the file: {e}"));
    fs::create_dir_all(&out).map_err(failed)?;
    let mut writer = PrintpdfWriter::new(File::create(&part).map_err(failed)?);
    writer.begin(Info {
        title: args.title.clone().unwrap_or_default(),
        author: args.author.clone().unwrap_or_default(),
        language: args.lang.clone().unwrap_or_default(),
        duplex: None,
        exact_size: false,
    })?;
    ctx.stage("set");
    let mut setter = Setter { flow: Flow::new(args, ctx), writer, dir, pictures: HashMap::new() };
    for (index, block) in args.blocks.iter().enumerate() {
        if ctx.cancelled() {
            return Err(Stop::Cancelled);
        }
        setter.block(index, block)?;
        ctx.progress(90.0 * (index + 1) as f32 / args.blocks.len() as f32, "setting");
    }
    ctx.stage("write");
    let Setter { flow, mut writer, .. } = setter;
    let pages = flow.finish()?;
    let count = pages.len();
    for page in pages {
        writer.page(page)?;
    }
    let layout = started.elapsed();
    let bytes = writer.finish()?;
    fs::rename(&part, out.join(FILE_NAME)).map_err(failed)?;
    ctx.progress(100.0, "written");
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let value = json!({
        "pages": count,
        "blocks": args.blocks.len(),
        "bytes": bytes,
        "ms": {"layout": millis(layout), "write": millis(started.elapsed().saturating_sub(layout))},
    });
    let path = PathBuf::from("out").join(FILE_NAME);
    let artifact = ArtifactFile { name: FILE_NAME.into(), media_type: "application/pdf".into(), path };
    Ok(Done { value, artifacts: vec![artifact], skipped: false })
}

/// A picture in the document: width and height upright, and the map that turns it.
type Placed = ((f64, f64), crate::writer::Matrix);

struct Setter<'a> {
    flow: Flow<'a>,
    writer: PrintpdfWriter<File>,
    dir: &'a Path,
    pictures: HashMap<&'a str, Placed>,
}

impl<'a> Setter<'a> {
    fn block(&mut self, index: usize, block: &'a Block) -> Result<(), Stop> {
        let path = format!("/blocks/{index}");
        match block {
            Block::Heading { level, text } => self.heading(*level, text),
            Block::Paragraph { text, runs, align, size_pt } => {
                let plain = text.as_ref().map(|text| (text, Style::plain(Face::Regular)));
                let styled = runs.iter().map(|run| (&run.text, Style::of(run)));
                let runs: Result<Vec<(String, Style)>, Stop> =
                    plain.into_iter().chain(styled).map(|(text, style)| Ok((self.flow.fill(text)?, style))).collect();
                let size = size_pt.unwrap_or(10.0);
                let width = self.flow.body_width();
                let lines = break_lines(&mut self.flow.words, &runs?, size, width);
                self.flow.lines(&lines, *align)?;
                self.flow.skip(size * 0.6);
                Ok(())
            }
            Block::Table { columns, rows, size_pt, stripes } => {
                let table = Table { path, columns, rows, size: size_pt.unwrap_or(9.0), stripes: *stripes };
                table.set(&mut self.flow)
            }
            Block::Image { blob, width_mm, align, caption } => {
                self.image(&path, blob, *width_mm, *align, caption.as_ref())
            }
            Block::Chart { chart, width_mm, caption } => self.chart(&path, chart, *width_mm, caption.as_ref()),
            Block::Spacer { height_mm } => {
                let height = points(*height_mm);
                self.flow.make_room(height)?;
                // More than a page of nothing is a page of nothing.
                self.flow.skip(height);
                Ok(())
            }
            Block::Rule {} => {
                self.flow.make_room(8.0)?;
                let (x, y) = self.flow.at();
                let rule = RectPt { x, y: y + 3.75, width: self.flow.body_width(), height: 0.5 };
                self.flow.draw(PageOp::fill_rect(rule, Color::rgb(0x8a_93_9e)));
                self.flow.skip(8.0);
                Ok(())
            }
            Block::PageBreak {} => self.flow.new_page(),
        }
    }

    fn heading(&mut self, level: i64, text: &str) -> Result<(), Stop> {
        let (size, above, below) = match level {
            1 => (18.0, 12.0, 6.0),
            2 => (13.5, 10.0, 4.0),
            _ => (11.0, 8.0, 3.0),
        };
        self.flow.gap(above);
        let run = [(self.flow.fill(text)?, Style::plain(Face::Bold))];
        let width = self.flow.body_width();
        let lines = break_lines(&mut self.flow.words, &run, size, width);
        // With some lines of what follows.
        self.flow.make_room(lines.height() + below + 36.0)?;
        self.flow.lines(&lines, Align::Left)?;
        self.flow.skip(below);
        Ok(())
    }

    fn caption(&mut self, caption: Option<&String>, align: Align) -> Result<(), Stop> {
        let Some(caption) = caption else { return Ok(()) };
        let style = Style { color: Color::rgb(0x55_5c_66), italic: true, ..Style::plain(Face::Regular) };
        let run = [(self.flow.fill(caption)?, style)];
        let width = self.flow.body_width();
        let lines = break_lines(&mut self.flow.words, &run, CAPTION_SIZE, width);
        self.flow.lines(&lines, align)
    }

    /// Height of a caption, so that it stays with what it is of.
    fn caption_room(&self, caption: Option<&String>) -> f64 {
        if caption.is_some() { CAPTION_SIZE * 1.35 + 2.0 } else { 0.0 }
    }

    /// A size at most as wide as the text and as high as a page.
    fn fitting(&self, width: f64, shape: f64, below: f64) -> (f64, f64) {
        let width = width.min(self.flow.body_width());
        let height = width * shape;
        let most = self.flow.body_height() - below;
        if height > most { (most / shape, most) } else { (width, height) }
    }

    fn left_of(&self, width: f64, align: Align) -> f64 {
        let spare = self.flow.body_width() - width;
        self.flow.at().0
            + match align {
                Align::Left | Align::Justify => 0.0,
                Align::Center => spare / 2.0,
                Align::Right => spare,
            }
    }

    fn image(
        &mut self,
        path: &str,
        blob: &'a str,
        width_mm: Option<f64>,
        align: Align,
        caption: Option<&String>,
    ) -> Result<(), Stop> {
        let Some(digest) = blob_digest(blob) else { return Ok(()) };
        let ((pixels_wide, pixels_high), upright) = self.picture(path, digest)?;
        let natural = pixels_wide / IMAGE_PPI * 72.0;
        let below = self.caption_room(caption);
        let (width, height) = self.fitting(width_mm.map_or(natural, points), pixels_high / pixels_wide, below);
        self.flow.gap(3.0);
        self.flow.make_room(height + below)?;
        let (x, y) = (self.left_of(width, align), self.flow.at().1);
        let matrix = then(upright, [width, 0.0, 0.0, -height, x, y + height]);
        self.flow.draw(PageOp::Picture(digest.to_owned(), matrix));
        self.flow.skip(height + 2.0);
        self.caption(caption, align)?;
        self.flow.skip(4.0);
        Ok(())
    }

    /// Brings a picture into the document on its first use.
    fn picture(&mut self, path: &str, digest: &'a str) -> Result<Placed, Stop> {
        if let Some(known) = self.pictures.get(digest) {
            return Ok(*known);
        }
        let file = self.dir.join("in").join(digest);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => Stop::Refused("blob_missing", format!("{path}/blob: there is no such blob")),
            _ => Stop::Storage(format!("reading {path}: {e}")),
        };
        let refused = |r: picture::Refusal| Stop::Refused(r.code(), format!("{path}/blob: {}", r.message()));
        picture::check_file_size(fs::metadata(&file).map_err(failed)?.len()).map_err(refused)?;
        let bytes = fs::read(&file).map_err(failed)?;
        let header = picture::header(&bytes).map_err(refused)?;
        let decoded = picture::decode(&bytes, &header).map_err(refused)?;
        let how = Storage { as_jpeg: false, keep_cmyk: false, scale: None };
        let image = picture::store(&bytes, &header, decoded, &how).map_err(refused)?;
        self.writer.image(digest, image)?;
        let (width, height) = header.upright();
        let placed = ((width.into(), height.into()), crate::sheet::upright(header.orientation));
        self.pictures.insert(digest, placed);
        Ok(placed)
    }

    fn chart(
        &mut self,
        path: &str,
        args: &windlass_chart::ChartArgs,
        width_mm: Option<f64>,
        caption: Option<&String>,
    ) -> Result<(), Stop> {
        let chart = windlass_chart::render::chart(args).map_err(|violations| {
            let lines: Vec<String> =
                violations.iter().map(|v| format!("{path}/chart{}: {}", v.path, v.message)).collect();
            Stop::Refused("args_invalid", lines.join("; "))
        })?;
        let (pixels_wide, pixels_high) = (f64::from(chart.scene.width_px), f64::from(chart.scene.height_px));
        let below = self.caption_room(caption);
        let body = self.flow.body_width();
        let (width, height) = self.fitting(width_mm.map_or(body, points), pixels_high / pixels_wide, below);
        self.flow.gap(3.0);
        self.flow.make_room(height + below)?;
        let (x, y) = (self.left_of(width, Align::Center), self.flow.at().1);
        let scale = width / pixels_wide;
        let mut canvas = chart::VectorCanvas::default();
        chart.scene.draw_on(&mut canvas);
        self.flow.draw(PageOp::Save);
        self.flow.draw(PageOp::Transform([scale, 0.0, 0.0, scale, x, y]));
        self.flow.draw(PageOp::Clip(RectPt { x: 0.0, y: 0.0, width: pixels_wide, height: pixels_high }));
        canvas.ops.into_iter().for_each(|op| self.flow.draw(op));
        self.flow.draw(PageOp::Restore);
        self.flow.skip(height + 2.0);
        self.caption(caption, Align::Center)?;
        self.flow.skip(4.0);
        Ok(())
    }
}
