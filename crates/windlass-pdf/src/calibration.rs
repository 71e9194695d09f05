//! The kind `pdf.calibration`: a sheet that shows how far a printer's backs are off.
//!
//! Squares of 25 px300 stand every 100 px300 around the middle of the front. On the back each is
//! displaced by one px300 more than its neighbour, so the pair that meets when the sheet is held
//! against the light names the offset that makes up for it: the number above its column is `x`,
//! the number beside its row is `y`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_jobs::{ArtifactFile, Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

use crate::font::{self, Face};
use crate::layout::{LAYOUTS, PT_PER_PX};
use crate::writer::{Color, Duplex, Info, Page, PageOp, PrintpdfWriter, RectPt, SheetWriter, TextRun, WriteError};

const FILE_NAME: &str = "calibration.pdf";
/// Side of a square and the way to the next, in px300, as the peer draws them.
const SQUARE: f64 = 25.0;
const STEP: f64 = 100.0;
/// Kept clear at the edges of the page, in px300: home printers do not print there.
const MARGIN: f64 = 200.0;
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// For which paper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CalibrationArgs {
    /// `"letter"`, `"tabloid"`, `"a4"`, `"a3"` or `"archb"`. Default `"letter"`.
    pub paper: String,
}

impl Default for CalibrationArgs {
    fn default() -> Self {
        Self { paper: "letter".into() }
    }
}

/// Draws a calibration sheet. Args: [`CalibrationArgs`].
///
/// *Result*: `{pages, paper, unit_mm, columns, rows, bytes}`; one artifact, `calibration.pdf`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calibration;

/// The page of a paper of set v1.
fn page_of(paper: &str) -> Option<(f64, f64)> {
    LAYOUTS.iter().find(|l| l.set == "v1" && l.paper == paper).map(|l| l.page)
}

impl IsolatedKind for Calibration {
    type Args = CalibrationArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            timeout: Duration::from_secs(30),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("pdf.calibration", "draws a sheet that shows how far a printer's backs are off")
        }
    }

    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<CalibrationArgs>()
    }

    fn check(&self, args: &CalibrationArgs) -> Vec<Violation> {
        if page_of(&args.paper).is_some() {
            return Vec::new();
        }
        let mut papers: Vec<&str> = LAYOUTS.iter().filter(|l| l.set == "v1").map(|l| l.paper.as_str()).collect();
        papers.dedup();
        let shown: String = args.paper.chars().take(100).collect();
        let message = format!("paper is {shown:?}; allowed: {}", papers.join(", "));
        vec![Violation::new("/paper", "unknown_layout", message)]
    }

    fn inputs(&self, _args: &CalibrationArgs) -> Inputs {
        Inputs { blobs: Vec::new(), peak_memory_bytes: MEMORY_BYTES }
    }

    fn run(&self, args: CalibrationArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        let Some(page) = page_of(&args.paper) else {
            return Outcome::fatal("args_invalid", "/paper: unknown");
        };
        ctx.stage("write");
        let out = dir.join("out");
        let file = fs::create_dir_all(&out).and_then(|()| File::create(out.join(FILE_NAME)));
        let written = file.map_err(WriteError::Io).and_then(|file| write(page, file));
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(WriteError::Io(e)) => return Outcome::retry("storage", format!("writing the pdf: {e}")),
            Err(e @ WriteError::Library(_)) => return Outcome::fatal("pdf_library", e.to_string()),
        };
        ctx.progress(100.0, "written");
        let (columns, rows) = (reach(page.0), reach(page.1));
        let value = json!({
            "pages": 2, "paper": args.paper, "unit_mm": 25.4 / 300.0,
            "columns": 2 * columns + 1, "rows": 2 * rows + 1, "bytes": bytes,
        });
        let path = PathBuf::from("out").join(FILE_NAME);
        let artifact = ArtifactFile { name: FILE_NAME.into(), media_type: "application/pdf".into(), path };
        Outcome::Done(Done { value, artifacts: vec![artifact], skipped: false })
    }
}

/// How many squares stand on each side of the middle one.
fn reach(length: f64) -> i32 {
    ((length / 2.0 - MARGIN) / STEP).floor() as i32
}

fn write(page: (f64, f64), file: File) -> Result<u64, WriteError> {
    let mut writer = PrintpdfWriter::new(file);
    let turn = if page.0 >= page.1 { Duplex::LongEdge } else { Duplex::ShortEdge };
    let title = "Calibration sheet".to_owned();
    writer.begin(Info { title, duplex: Some(turn), exact_size: true, ..Info::default() })?;
    for back in [false, true] {
        let (width_pt, height_pt) = (page.0 * PT_PER_PX, page.1 * PT_PER_PX);
        writer.page(Page { width_pt, height_pt, ops: ops(page, back) })?;
    }
    writer.finish()
}

fn ops(page: (f64, f64), back: bool) -> Vec<PageOp> {
    let mut ops = vec![PageOp::Transform([PT_PER_PX, 0.0, 0.0, -PT_PER_PX, 0.0, page.1 * PT_PER_PX])];
    let (columns, rows) = (reach(page.0), reach(page.1));
    let at = |middle: f64, i: i32| middle + f64::from(i) * if back { STEP + 1.0 } else { STEP };
    let color = if back { Color::BLACK } else { Color::rgb(0x9a_9a_9a) };
    for row in -rows..=rows {
        for column in -columns..=columns {
            let (x, y) = (at(page.0 / 2.0, column), at(page.1 / 2.0, row));
            let rect = RectPt { x: x - SQUARE / 2.0, y: y - SQUARE / 2.0, width: SQUARE, height: SQUARE };
            ops.push(PageOp::fill_rect(rect, color));
        }
    }
    if !back {
        // A back that is printed d to the right shows its column −d behind the front's, and −d is
        // the offset that brings it back.
        let mut number = |text: String, x: f64, y: f64| {
            let width = font::width(&text, Face::Regular, 30.0);
            let shaped = font::shape(&text, Face::Regular);
            let matrix = [1.0, 0.0, 0.0, -1.0, x - width / 2.0, y];
            ops.push(PageOp::Text(TextRun { shaped, face: Face::Regular, size_pt: 30.0, matrix, color: Color::BLACK }));
        };
        let (left, top) = (at(page.0 / 2.0, -columns), at(page.1 / 2.0, -rows));
        (-columns..=columns).for_each(|i| number(i.to_string(), at(page.0 / 2.0, i), top - 40.0));
        // The back is read upside down, so rows count upwards.
        (-rows..=rows).for_each(|i| number((-i).to_string(), left - 60.0, at(page.1 / 2.0, i) + 10.0));
    }
    ops
}
