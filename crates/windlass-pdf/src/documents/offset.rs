//! The kind `pdf.offset`: moves the back pages of a PDF, to make up for a printer that is off.

use std::path::Path;
use std::time::Duration;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

use super::load::{inherited, load, number, rectangle};
use super::{BASE_MEMORY_BYTES, MAX_PDF_BYTES, MEMORY_FACTOR, artifact, save};
use crate::args::{BLOB_PATTERN, OffsetArgs, Unit, blob_digest, check_blob, check_offset};
use crate::layout::PT_PER_PX;
use crate::writer::{Matrix, then};

const FILE_NAME: &str = "cards_offset.pdf";

/// What to move, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OffsetJobArgs {
    /// The PDF, `"sha256:"` and 64 lower-case hex digits.
    #[schemars(regex(pattern = BLOB_PATTERN))]
    pub pdf: String,
    /// To the right, at most 1,000 px300 either way. Default 0.
    #[serde(default)]
    pub x: f64,
    /// Downwards, likewise. Default 0.
    #[serde(default)]
    pub y: f64,
    /// Clockwise around the middle of the page, at most 5 degrees either way. Default 0.
    #[serde(default)]
    pub angle: f64,
    /// Of `x` and `y`. Default `"px300"`.
    #[serde(default)]
    pub unit: Unit,
    /// Which pages. Default `"backs"`.
    #[serde(default)]
    pub pages: WhichPages,
}

/// Which pages are moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhichPages {
    /// Every second one, from the second on; none of a file that says it is printed on one side.
    #[default]
    Backs,
    /// Every second one, from the first on.
    Fronts,
    /// All.
    All,
}

impl OffsetJobArgs {
    fn offset(&self) -> OffsetArgs {
        OffsetArgs { x: self.x, y: self.y, angle: self.angle, unit: self.unit }
    }
}

/// Moves pages of a PDF. Args: [`OffsetJobArgs`].
///
/// The map is put around the content of a page; nothing is drawn anew, and what leaves the page
/// does not come in at the other edge. Links move with it.
///
/// *Result*: `{pages, moved, bytes, warnings: [{code, message}]}`; one artifact,
/// `cards_offset.pdf`.
///
/// *Errors*: `blob_missing`, `pdf_unreadable`, `pdf_encrypted`, `pdf_empty`, `pdf_too_large`,
/// `too_many_pages`, permanent; `storage`, retried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offset;

impl IsolatedKind for Offset {
    type Args = OffsetJobArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            aliases: &["pdf_offset", "pdf_offset_task"],
            timeout: Duration::from_secs(120),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("pdf.offset", "moves the back pages of a PDF, without rendering it")
        }
    }

    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<OffsetJobArgs>()
    }

    fn check(&self, args: &OffsetJobArgs) -> Vec<Violation> {
        let mut found = Vec::new();
        check_blob("/pdf", &args.pdf, &mut found);
        check_offset("", &args.offset(), &mut found);
        found
    }

    fn inputs(&self, args: &OffsetJobArgs) -> Inputs {
        let blobs = blob_digest(&args.pdf).map(str::to_owned).into_iter().collect();
        Inputs { blobs, peak_memory_bytes: BASE_MEMORY_BYTES + MEMORY_FACTOR * MAX_PDF_BYTES }
    }

    fn run(&self, args: OffsetJobArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        let Some(digest) = blob_digest(&args.pdf) else {
            return Outcome::fatal("args_invalid", "/pdf: not a blob");
        };
        match moved(&args, digest, dir, ctx) {
            Ok(done) => Outcome::Done(done),
            Err(outcome) => outcome,
        }
    }
}

fn moved(args: &OffsetJobArgs, digest: &str, dir: &Path, ctx: &dyn RunContext) -> Result<Done, Outcome> {
    ctx.stage("read");
    let mut pdf = load(dir, digest, "/pdf")?;
    ctx.stage("move");
    ctx.progress(30.0, "read");
    let pages: Vec<ObjectId> = pdf.page_iter().collect();
    let one_sided = args.pages == WhichPages::Backs && is_one_sided(&pdf);
    let chosen: Vec<ObjectId> = match args.pages {
        _ if one_sided || args.offset().is_nothing() => Vec::new(),
        WhichPages::Backs => pages.iter().copied().skip(1).step_by(2).collect(),
        WhichPages::Fronts => pages.iter().copied().step_by(2).collect(),
        WhichPages::All => pages.clone(),
    };
    let before = pdf.add_object(Stream::new(Dictionary::new(), b"Q\n".to_vec()));
    for (index, page) in chosen.iter().enumerate() {
        if ctx.cancelled() {
            return Err(Outcome::Cancel { reason: "cancelled between pages".into() });
        }
        let failed = |e: lopdf::Error| Outcome::fatal("pdf_unreadable", format!("/pdf: page {}: {e}", index + 1));
        move_page(&mut pdf, *page, before, &args.offset()).map_err(failed)?;
        ctx.progress(30.0 + 50.0 * (index + 1) as f32 / chosen.len() as f32, "moving");
    }
    ctx.stage("write");
    let bytes = save(pdf, dir, FILE_NAME)?;
    let mut warnings = Vec::new();
    if one_sided {
        let message = "the file is printed on one side: it has no back pages, and nothing was moved";
        warnings.push(json!({"code": "no_backs", "message": message}));
    }
    ctx.progress(100.0, "written");
    let value = json!({"pages": pages.len(), "moved": chosen.len(), "bytes": bytes, "warnings": warnings});
    Ok(Done { value, artifacts: vec![artifact(FILE_NAME)], skipped: false })
}

/// True for our own files that were made without backs: they would ask printers for duplex.
fn is_one_sided(pdf: &Document) -> bool {
    let info = pdf.trailer.get(b"Info").and_then(Object::as_reference).and_then(|id| pdf.get_dictionary(id));
    let ours = info
        .and_then(|info| info.get(b"Producer"))
        .and_then(Object::as_str)
        .is_ok_and(|producer| producer.starts_with(b"windlass-pdf"));
    let wishes = pdf.catalog().and_then(|catalog| catalog.get(b"ViewerPreferences")).and_then(Object::as_dict);
    ours && !wishes.is_ok_and(|wishes| wishes.has(b"Duplex"))
}

/// Puts the map around a page's content, and moves its annotations along.
fn move_page(pdf: &mut Document, page: ObjectId, end: ObjectId, offset: &OffsetArgs) -> lopdf::Result<()> {
    let matrix = page_matrix(pdf, page, offset);
    let start = format!("q {} cm\n", matrix.map(|v| format!("{v:.5}")).join(" "));
    let start = pdf.add_object(Stream::new(Dictionary::new(), start.into_bytes()));
    let contents = pdf.get_page_contents(page);
    let wrapped: Vec<Object> = std::iter::once(start).chain(contents).chain([end]).map(Object::from).collect();
    move_annotations(pdf, page, matrix)?;
    pdf.get_dictionary_mut(page)?.set("Contents", wrapped);
    Ok(())
}

/// The map in the page's own space: what is right and down for a reader depends on how the page
/// is turned.
fn page_matrix(pdf: &Document, page: ObjectId, offset: &OffsetArgs) -> Matrix {
    let attribute = |key: &[u8]| inherited(pdf, page, key);
    let media = attribute(b"CropBox").or_else(|| attribute(b"MediaBox"));
    let [x0, y0, x1, y1] = media.and_then(|value| rectangle(pdf, &value)).unwrap_or([0.0, 0.0, 612.0, 792.0]);
    let unit = attribute(b"UserUnit").and_then(|value| number(pdf, &value)).filter(|unit| *unit > 0.0).unwrap_or(1.0);
    let turned = attribute(b"Rotate").and_then(|value| number(pdf, &value)).unwrap_or(0.0);
    let (x, y) = offset.px();
    let (right, up) = (x * PT_PER_PX / unit, -y * PT_PER_PX / unit);
    // A page turned clockwise by a quarter: its reader's right is its own up.
    let (dx, dy) = match (turned as i64).rem_euclid(360) {
        90 => (-up, right),
        180 => (-right, -up),
        270 => (up, -right),
        _ => (right, up),
    };
    let (cx, cy) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
    // Clockwise for a reader, whichever way the page is turned.
    let (sin, cos) = (-offset.angle).to_radians().sin_cos();
    let turn = [cos, sin, -sin, cos, cx - cos * cx + sin * cy, cy - sin * cx - cos * cy];
    then(turn, [1.0, 0.0, 0.0, 1.0, dx, dy])
}

fn move_annotations(pdf: &mut Document, page: ObjectId, [a, b, c, d, e, f]: Matrix) -> lopdf::Result<()> {
    let Ok(annotations) = pdf.get_dictionary(page)?.get(b"Annots").cloned() else { return Ok(()) };
    let moved = |pdf: &Document, rect: &Object| -> Option<Object> {
        let [x0, y0, x1, y1] = rectangle(pdf, rect)?;
        let corners = [(x0, y0), (x0, y1), (x1, y0), (x1, y1)].map(|(x, y)| (a * x + c * y + e, b * x + d * y + f));
        let fold = |pick: fn(f64, f64) -> f64, of: fn(&(f64, f64)) -> f64| {
            corners.iter().map(of).reduce(pick).unwrap_or_default()
        };
        let (left, right) = (fold(f64::min, |p| p.0), fold(f64::max, |p| p.0));
        let (low, high) = (fold(f64::min, |p| p.1), fold(f64::max, |p| p.1));
        Some([left, low, right, high].iter().map(|v| Object::Real(*v as f32)).collect::<Vec<_>>().into())
    };
    let (_, list) = pdf.dereference(&annotations)?;
    let mut list = list.as_array()?.clone();
    for annotation in &mut list {
        if let Object::Dictionary(entries) = annotation {
            if let Some(rect) = entries.get(b"Rect").ok().and_then(|rect| moved(pdf, rect)) {
                entries.set("Rect", rect);
            }
        } else if let Ok(id) = annotation.as_reference() {
            let rect = pdf.get_dictionary(id).and_then(|entries| entries.get(b"Rect")).ok().cloned();
            if let Some(rect) = rect.and_then(|rect| moved(pdf, &rect)) {
                pdf.get_dictionary_mut(id)?.set("Rect", rect);
            }
        }
    }
    pdf.get_dictionary_mut(page)?.set("Annots", list);
    Ok(())
}
