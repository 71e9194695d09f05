//! One run: pictures in, file out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_jobs::{ArtifactFile, Done, Outcome};
use windlass_worker::RunContext;

use super::pages::{EmbedPress, RasterPress};
use super::place::Role;
use super::plan::{Placed, Plan, Side};
use crate::args::{CardSheetArgs, Format, Mode};
use crate::picture::{self, Header, Refusal};
use crate::writer::WriteError;

/// Progress up to which pages are laid; the rest is writing the file.
const LAID_PERCENT: f32 = 95.0;
/// Most refused pictures that an error names one by one.
const MAX_NAMED: usize = 20;

/// Prints the plan into `dir/out`. A file of its final name is whole.
pub(super) fn print(args: &CardSheetArgs, plan: &Plan<'_>, dir: &Path, ctx: &dyn RunContext) -> Result<Done, Outcome> {
    let out = dir.join("out");
    fs::create_dir_all(&out).map_err(|e| storage("making the out directory", &e))?;
    let blobs = Blobs { args, dir: dir.join("in") };
    ctx.stage("survey");
    blobs.survey(plan)?;
    ctx.stage("print");
    let total = plan.pages.len();
    let laid = |done: usize| {
        let percent = LAID_PERCENT * done as f32 / total as f32;
        ctx.progress(percent, &format!("page {done} of {total}"));
    };
    let run = Run { args, plan, blobs: &blobs, ctx, laid: &laid };
    let printed = match args.mode {
        Mode::Embed => EmbedPress::print(run, &out),
        Mode::Raster => RasterPress::print(run, &out),
    };
    if printed.is_err() {
        // What is left of it goes with the private directory in any case.
        let _ = fs::remove_dir_all(&out).and_then(|()| fs::create_dir_all(&out));
    }
    let printed = printed?;
    ctx.progress(100.0, "written");
    let media_type = match args.output.format {
        Format::Pdf => "application/pdf",
        Format::Png => "image/png",
        Format::Jpg => "image/jpeg",
        Format::Webp => "image/webp",
    };
    let artifact = |name: &String| ArtifactFile {
        name: name.clone(),
        media_type: media_type.into(),
        path: PathBuf::from("out").join(name),
    };
    let artifacts = printed.files.iter().map(artifact).collect();
    Ok(Done { value: result(args, plan, &printed), artifacts, skipped: false })
}

/// What a press needs.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) args: &'a CardSheetArgs,
    pub(super) plan: &'a Plan<'a>,
    pub(super) blobs: &'a Blobs<'a>,
    pub(super) ctx: &'a dyn RunContext,
    /// Says how many pages are laid.
    pub(super) laid: &'a dyn Fn(usize),
}

impl Run<'_> {
    /// Asked between two cards.
    pub(super) fn check_cancelled(&self) -> Result<(), Outcome> {
        if self.ctx.cancelled() {
            return Err(Outcome::Cancel { reason: "cancelled while laying cards".into() });
        }
        Ok(())
    }

    pub(super) fn label(&self, sheet: usize) -> String {
        let line = format!("sheet: {sheet}, template: {}", self.plan.layout.template);
        match &self.args.label.name {
            Some(name) => format!("name: {name}, {line}"),
            None => line,
        }
    }
}

/// What a press made.
#[derive(Debug, Default)]
pub(super) struct Printed {
    /// Names below `out/`, in order.
    pub(super) files: Vec<String>,
    pub(super) bytes: u64,
    /// Distinct pictures in use.
    pub(super) pictures: usize,
    /// Sheets whose label found no room.
    pub(super) unlabelled: usize,
    pub(super) decode: Duration,
    pub(super) write: Duration,
}

fn result(args: &CardSheetArgs, plan: &Plan<'_>, printed: &Printed) -> Value {
    let mut warnings = Vec::new();
    if plan.without_back > 0 {
        let message = format!("{} of {} cards have no back", plan.without_back, plan.cards);
        warnings.push(json!({"code": "no_back", "message": message}));
    }
    if printed.unlabelled > 0 {
        let message = format!("{} has no room for a label beside cards and marks", plan.layout.template);
        warnings.push(json!({"code": "label_left_out", "message": message}));
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "pages": plan.pages.len(),
        "sheets": plan.sheets,
        "cards": plan.cards,
        "slots_per_sheet": plan.slots_per_sheet,
        "template": plan.layout.template,
        "layout_set": plan.layout.set,
        "mode": args.mode,
        "pictures": printed.pictures,
        "bytes": printed.bytes,
        "warnings": warnings,
        "ms": {"decode": millis(printed.decode), "write": millis(printed.write)},
    })
}

/// The pictures of a job, in its private directory.
pub(super) struct Blobs<'a> {
    args: &'a CardSheetArgs,
    dir: PathBuf,
}

impl Blobs<'_> {
    /// Looks at the header of every picture before any is decoded; names all that are refused.
    fn survey(&self, plan: &Plan<'_>) -> Result<(), Outcome> {
        let mut refused: Vec<(Refusal, String)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for (placed, side) in plan.pictures() {
            if !seen.insert(placed.digest) {
                continue;
            }
            let bytes = match self.read(&placed, side)? {
                Ok(bytes) => bytes,
                Err(refusal) => {
                    refused.push((refusal, self.name(&placed, side)));
                    continue;
                }
            };
            if let Err(refusal) = picture::header(&bytes) {
                refused.push((refusal, self.name(&placed, side)));
            }
        }
        let Some((first, _)) = refused.first() else { return Ok(()) };
        let mut lines: Vec<String> =
            refused.iter().take(MAX_NAMED).map(|(refusal, name)| format!("{name}: {}", refusal.message())).collect();
        if refused.len() > MAX_NAMED {
            lines.push(format!("and {} more", refused.len() - MAX_NAMED));
        }
        Err(Outcome::fatal(first.code(), lines.join("; ")))
    }

    /// All bytes of a picture, and what its header says.
    pub(super) fn open(&self, placed: &Placed<'_>, side: Side) -> Result<(Vec<u8>, Header), Outcome> {
        let refused = |refusal: Refusal| self.refused(&refusal, placed, side);
        let bytes = self.read(placed, side)?.map_err(refused)?;
        let header = picture::header(&bytes).map_err(refused)?;
        Ok((bytes, header))
    }

    /// Bytes of all pictures together, as they were sent.
    pub(super) fn total_bytes(&self) -> u64 {
        let sizes = self.args.digests().into_iter().filter_map(|digest| fs::metadata(self.dir.join(digest)).ok());
        sizes.map(|facts| facts.len()).sum()
    }

    fn read(&self, placed: &Placed<'_>, side: Side) -> Result<Result<Vec<u8>, Refusal>, Outcome> {
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("{}: there is no blob sha256:{}", self.name(placed, side), placed.digest);
                Outcome::fatal("blob_missing", message)
            }
            _ => storage("reading a picture", &e),
        };
        let mut file = File::open(self.dir.join(placed.digest)).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if let Err(refusal) = picture::check_file_size(length) {
            return Ok(Err(refusal));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(failed)?;
        Ok(Ok(bytes))
    }

    pub(super) fn refused(&self, refusal: &Refusal, placed: &Placed<'_>, side: Side) -> Outcome {
        Outcome::fatal(refusal.code(), format!("{}: {}", self.name(placed, side), refusal.message()))
    }

    /// Which picture it is, for a person (counted from 1) and for a program (a JSON pointer).
    fn name(&self, placed: &Placed<'_>, side: Side) -> String {
        let card = placed.card;
        match placed.role {
            Role::Common => "the common back (/back)".into(),
            Role::Own => format!("{} of card {} (/cards/{card}/{0})", side.name(), card + 1),
        }
    }
}

pub(super) fn storage(doing: &str, error: &io::Error) -> Outcome {
    Outcome::retry("storage", format!("{doing}: {error}"))
}

pub(super) fn write_failed(error: WriteError) -> Outcome {
    match error {
        WriteError::Io(e) => storage("writing the pdf", &e),
        e @ WriteError::Library(_) => Outcome::fatal("pdf_library", e.to_string()),
    }
}
