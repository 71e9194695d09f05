//! The kind `pdf.card_sheet`: reads pictures, lays pages, writes one PDF.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::metadata::Orientation;
use serde_json::{Value, json};
use windlass_jobs::{ArtifactFile, Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext};

use crate::args::{CardSheetArgs, Sides};
use crate::layout::{LineMm, MARK_WIDTH_PT, PT_PER_MM};
use crate::picture::{self, MAX_FILE_BYTES, Refusal};
use crate::place;
use crate::plan::{PagePlan, Placed, Plan, Side};
use crate::writer::{Info, Page, PageOp, PrintpdfWriter, SheetWriter, WriteError};

/// Most bytes of all stored pictures of one PDF; they are held in memory until it is written.
const MAX_STORED_BYTES: u64 = 1024 * 1024 * 1024;
/// What decoding and re-encoding the largest picture takes, in bytes, with the process
/// around it: coefficients and pixels of a progressive JPEG of 64 Mpx are 6 + 3 bytes a pixel.
const DECODE_PEAK_BYTES: u64 = 640 * 1024 * 1024;
/// The file a run leaves behind.
const FILE_NAME: &str = "cards.pdf";
/// Progress up to which pages are laid; the rest is writing the file.
const LAID_PERCENT: f32 = 95.0;

/// Lays cards on sheets, ready to print and cut. Args: [`CardSheetArgs`].
///
/// *Result*: `{pages, sheets, cards, slots_per_sheet, template, layout_set, pictures,
/// bytes, warnings: [{code, message}], ms: {decode, write}}`; `slots_per_sheet` counts
/// places that are not skipped, `pictures` the distinct ones. One artifact, `cards.pdf`.
///
/// *Errors*, all permanent unless said otherwise: `args_invalid`, `blob_missing`,
/// `image_unreadable`, `unsupported_image`, `image_too_large`, `output_too_large`;
/// `storage` is retried.
///
/// Equal args give equal bytes, so a run that is repeated overwrites a file with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardSheet;

impl IsolatedKind for CardSheet {
    type Args = CardSheetArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            timeout: Duration::from_secs(300),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            version: 1,
            ..KindSpec::new("pdf.card_sheet", "lays card pictures on printable sheets, as one PDF")
        }
    }

    fn check(&self, args: &CardSheetArgs) -> Vec<Violation> {
        args.violations()
    }

    fn inputs(&self, args: &CardSheetArgs) -> Inputs {
        let blobs: Vec<String> = args.digests().into_iter().map(str::to_owned).collect();
        let stored = (blobs.len() as u64).saturating_mul(MAX_FILE_BYTES).min(MAX_STORED_BYTES);
        Inputs { blobs, peak_memory_bytes: DECODE_PEAK_BYTES + stored }
    }

    fn run(&self, args: CardSheetArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        let Some(plan) = Plan::new(&args) else {
            let found = args.violations();
            let message = found.first().map_or("", |v| v.message.as_str());
            return Outcome::fatal("args_invalid", message);
        };
        match print(&args, &plan, dir, ctx) {
            Ok(done) => Outcome::Done(done),
            Err(outcome) => outcome,
        }
    }
}

/// Writes the file under another name and renames it, so that a file of that name is whole.
fn print(args: &CardSheetArgs, plan: &Plan<'_>, dir: &Path, ctx: &dyn RunContext) -> Result<Done, Outcome> {
    let out = dir.join("out");
    let part = out.join(format!("{FILE_NAME}.part"));
    fs::create_dir_all(&out).map_err(|e| storage("making the out directory", &e))?;
    let file = File::create(&part).map_err(|e| storage("making the file", &e))?;
    let printed = Press::new(args, plan, dir, ctx, file).and_then(Press::run).and_then(|value| {
        fs::rename(&part, out.join(FILE_NAME)).map_err(|e| storage("naming the file", &e))?;
        Ok(value)
    });
    if printed.is_err() {
        // What is left of it goes with the private directory in any case.
        let _ = fs::remove_file(&part);
    }
    let artifact = ArtifactFile {
        name: FILE_NAME.into(),
        media_type: "application/pdf".into(),
        path: PathBuf::from("out").join(FILE_NAME),
    };
    Ok(Done { value: printed?, artifacts: vec![artifact], skipped: false })
}

/// One run: what it needs and what it has done so far.
struct Press<'a> {
    args: &'a CardSheetArgs,
    plan: &'a Plan<'a>,
    blobs: PathBuf,
    ctx: &'a dyn RunContext,
    writer: PrintpdfWriter<File>,
    /// Size and orientation of each stored picture, by digest.
    stored: HashMap<&'a str, ((u32, u32), Orientation)>,
    stored_bytes: u64,
    decode: Duration,
}

impl<'a> Press<'a> {
    fn new(
        args: &'a CardSheetArgs,
        plan: &'a Plan<'a>,
        dir: &Path,
        ctx: &'a dyn RunContext,
        file: File,
    ) -> Result<Self, Outcome> {
        let mut writer = PrintpdfWriter::new(file);
        let info = Info {
            title: args.output.title.clone().unwrap_or_default(),
            author: args.output.author.clone().unwrap_or_default(),
            duplex: args.sides == Sides::Duplex,
        };
        writer.begin(info).map_err(write_failed)?;
        Ok(Self {
            args,
            plan,
            blobs: dir.join("in"),
            ctx,
            writer,
            stored: HashMap::new(),
            stored_bytes: 0,
            decode: Duration::ZERO,
        })
    }

    fn run(mut self) -> Result<Value, Outcome> {
        let total = self.plan.pages.len();
        for (index, page) in self.plan.pages.iter().enumerate() {
            let ops = self.page_ops(page)?;
            let (width, height) = (self.plan.layout.paper_width_mm, self.plan.layout.paper_height_mm);
            let page = Page { width_pt: width * PT_PER_MM, height_pt: height * PT_PER_MM, ops };
            self.writer.page(page).map_err(write_failed)?;
            let percent = LAID_PERCENT * (index + 1) as f32 / total as f32;
            self.ctx.progress(percent, &format!("page {} of {total}", index + 1));
        }
        let mut value = json!({
            "pages": total,
            "sheets": self.plan.sheets,
            "cards": self.plan.cards,
            "slots_per_sheet": self.plan.slots_per_sheet,
            "template": self.plan.layout.template,
            "layout_set": self.plan.layout.set,
            "pictures": self.stored.len(),
            "warnings": warnings(self.plan),
        });
        let started = Instant::now();
        let bytes = self.writer.finish().map_err(write_failed)?;
        value["bytes"] = json!(bytes);
        value["ms"] = json!({"decode": millis(self.decode), "write": millis(started.elapsed())});
        self.ctx.progress(100.0, "written");
        Ok(value)
    }

    fn page_ops(&mut self, page: &PagePlan<'a>) -> Result<Vec<PageOp>, Outcome> {
        let layout = self.plan.layout;
        let mut ops = Vec::new();
        if self.args.marks {
            let height = layout.paper_height_mm;
            ops.extend(layout.marks().iter().map(|mark| mark_op(mark, height)));
        }
        for placed in &page.placed {
            if self.ctx.cancelled() {
                return Err(Outcome::Cancel { reason: "cancelled while laying cards".into() });
            }
            let (size, orientation) = self.picture(placed, page.side)?;
            let rect = place::to_page(layout, layout.slot_rect(placed.slot));
            let turned = page.side == Side::Back;
            ops.push(place::picture(placed.digest, size, orientation, self.args.fit, rect, turned));
        }
        Ok(ops)
    }

    /// Stores a picture on first use.
    fn picture(&mut self, placed: &Placed<'a>, side: Side) -> Result<((u32, u32), Orientation), Outcome> {
        if let Some(known) = self.stored.get(placed.digest) {
            return Ok(*known);
        }
        let started = Instant::now();
        let bytes = self.read(placed, side)?;
        let prepared = picture::prepare(&bytes).map_err(|refusal| self.refused(&refusal, placed, side))?;
        drop(bytes);
        self.stored_bytes += prepared.image.data.len() as u64;
        if self.stored_bytes > MAX_STORED_BYTES {
            let message = format!("the pictures take more than {MAX_STORED_BYTES} bytes, make it several jobs");
            return Err(Outcome::fatal("output_too_large", message));
        }
        let known = ((prepared.image.width, prepared.image.height), prepared.orientation);
        self.writer.image(placed.digest, prepared.image).map_err(write_failed)?;
        self.stored.insert(placed.digest, known);
        self.decode += started.elapsed();
        Ok(known)
    }

    fn read(&self, placed: &Placed<'_>, side: Side) -> Result<Vec<u8>, Outcome> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("{}: there is no blob sha256:{}", self.name(placed, side), placed.digest);
                Outcome::fatal("blob_missing", message)
            }
            _ => storage("reading a picture", &e),
        };
        let mut file = File::open(self.blobs.join(placed.digest)).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        picture::check_file_size(length).map_err(|refusal| self.refused(&refusal, placed, side))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn refused(&self, refusal: &Refusal, placed: &Placed<'_>, side: Side) -> Outcome {
        Outcome::fatal(refusal.code(), format!("{}: {}", self.name(placed, side), refusal.message()))
    }

    /// Which picture it is, for a person (counted from 1) and for a program (a JSON pointer).
    fn name(&self, placed: &Placed<'_>, side: Side) -> String {
        let card = placed.card;
        let common = side == Side::Back && self.args.cards[card].back.is_none();
        match common {
            true => "the common back (/back)".into(),
            false => format!("{} of card {} (/cards/{card}/{0})", side.name(), card + 1),
        }
    }
}

fn mark_op(mark: &LineMm, paper_height_mm: f64) -> PageOp {
    let end = |(x, y): (f64, f64)| (x * PT_PER_MM, (paper_height_mm - y) * PT_PER_MM);
    PageOp::Line { from: end(mark.from), to: end(mark.to), width_pt: MARK_WIDTH_PT }
}

fn warnings(plan: &Plan<'_>) -> Vec<Value> {
    let mut warnings = Vec::new();
    if plan.without_back > 0 {
        let message = format!("{} of {} cards have no back", plan.without_back, plan.cards);
        warnings.push(json!({"code": "no_back", "message": message}));
    }
    warnings
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn storage(doing: &str, error: &io::Error) -> Outcome {
    Outcome::retry("storage", format!("{doing}: {error}"))
}

fn write_failed(error: WriteError) -> Outcome {
    match error {
        WriteError::Io(e) => storage("writing the pdf", &e),
        e @ WriteError::Library(_) => Outcome::fatal("pdf_library", e.to_string()),
    }
}
