//! The kind `pdf.card_sheet`: reads pictures, lays pages, writes one PDF or a picture per page.

mod embed;
mod pages;
mod place;
mod plan;
mod press;
mod raster;

use std::path::Path;
use std::time::Duration;

use windlass_jobs::{Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

use crate::args::{CacheUse, CardSheetArgs, Mode};
use crate::picture::MAX_FILE_BYTES;
pub(crate) use place::upright;
use plan::Plan;

/// Most bytes of all stored pictures of one PDF; they are held in memory until it is written.
const MAX_STORED_BYTES: u64 = 1024 * 1024 * 1024;
/// What decoding and re-encoding the largest picture takes, in bytes, with the process
/// around it: coefficients and pixels of a progressive JPEG of 64 Mpx are 6 + 3 bytes a pixel.
const DECODE_PEAK_BYTES: u64 = 640 * 1024 * 1024;
/// Pages of mode raster that are in memory at once: the one that is drawn, a moved copy, and the
/// coded bytes of those before it.
const PAGES_IN_MEMORY: u64 = 3;
/// The largest page there is (Arch B), in px300.
const LARGEST_PAGE_PX: u64 = 5_400 * 3_600;

/// Lays cards on sheets, ready to print and cut. Args: [`CardSheetArgs`].
///
/// *Result*: `{pages, sheets, cards, slots_per_sheet, template, layout_set, mode, pictures,
/// bytes, warnings: [{code, message}], ms: {decode, write}}`; `slots_per_sheet` counts places
/// that are not skipped, `pictures` the distinct ones. One artifact, `cards.pdf`; or `page1.png`
/// and so on, one a page.
///
/// *Errors*, all permanent unless said otherwise: `args_invalid`, `blob_missing`,
/// `image_unreadable`, `unsupported_image`, `image_too_large`, `output_too_large`;
/// `storage` is retried. Every picture that is refused by its header is named in one error.
///
/// Equal args give equal bytes, so a run that is repeated overwrites a file with itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardSheet;

impl IsolatedKind for CardSheet {
    type Args = CardSheetArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            aliases: &["pdf_generation", "pdf_generation_task"],
            timeout: Duration::from_secs(300),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            version: crate::args::RENDERER_VERSION,
            ..KindSpec::new("pdf.card_sheet", "lays card pictures on printable sheets, as PDF or page pictures")
        }
    }

    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<CardSheetArgs>()
    }

    fn check(&self, args: &CardSheetArgs) -> Vec<Violation> {
        args.violations()
    }

    fn inputs(&self, args: &CardSheetArgs) -> Inputs {
        let blobs: Vec<String> = args.digests().into_iter().map(str::to_owned).collect();
        let stored = (blobs.len() as u64).saturating_mul(MAX_FILE_BYTES).min(MAX_STORED_BYTES);
        let ppi = u64::try_from(args.ppi).unwrap_or(0);
        let pages = match args.mode {
            Mode::Embed => 0,
            Mode::Raster => PAGES_IN_MEMORY * LARGEST_PAGE_PX * 3 * ppi.saturating_mul(ppi) / 90_000,
        };
        Inputs { blobs, peak_memory_bytes: DECODE_PEAK_BYTES + stored + pages }
    }

    fn cache_args(&self, args: &CardSheetArgs) -> Option<serde_json::Value> {
        Some(args.canonical())
    }

    fn takes_cached(&self, args: &CardSheetArgs) -> bool {
        args.cache == CacheUse::Use
    }

    fn run(&self, args: CardSheetArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        let Some(plan) = Plan::new(&args) else {
            let found = args.violations();
            let message: Vec<String> = found.iter().map(|v| format!("{}: {}", v.path, v.message)).collect();
            return Outcome::fatal("args_invalid", message.join("; "));
        };
        match press::print(&args, &plan, dir, ctx) {
            Ok(done) => Outcome::Done(done),
            Err(outcome) => outcome,
        }
    }
}
