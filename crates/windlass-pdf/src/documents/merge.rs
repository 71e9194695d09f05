//! The kind `pdf.merge`: joins PDFs, page after page.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lopdf::{Dictionary, Document, Object, ObjectId, dictionary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use windlass_jobs::{Done, Outcome, Violation};
use windlass_worker::{Inputs, IsolatedKind, KindSpec, RunContext, schema_of};

use super::load::{inherited, load};
use super::{BASE_MEMORY_BYTES, MAX_DOCUMENT_PAGES, MAX_PDF_BYTES, MEMORY_FACTOR, artifact, save};
use crate::args::{BLOB_PATTERN, blob_digest, check_blob, check_text};
use crate::writer::PRODUCER;

const FILE_NAME: &str = "merged.pdf";
/// Most PDFs of one job.
const MAX_PARTS: usize = 200;
/// Attributes of a page that may stand above it in the tree of pages.
const INHERITED: [&[u8]; 4] = [b"Resources", b"MediaBox", b"CropBox", b"Rotate"];

/// What to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeArgs {
    /// The PDFs in order, 1–200; one may be named more than once.
    #[schemars(length(min = 1, max = MAX_PARTS), inner(regex(pattern = BLOB_PATTERN)))]
    pub pdfs: Vec<String>,
    /// Title of the result, at most 100 characters. Default none.
    #[serde(default)]
    pub title: Option<String>,
    /// Author of the result, likewise. Default none.
    #[serde(default)]
    pub author: Option<String>,
    /// Whether a part with an odd number of pages is followed by an empty page, so that each
    /// begins on the front of a sheet. Default false.
    #[serde(default)]
    pub start_on_front: bool,
}

/// Joins PDFs. Args: [`MergeArgs`].
///
/// Pages keep everything that belongs to them; outlines, forms and attachments of the parts are
/// left out, with a warning.
///
/// *Result*: `{pages, parts, bytes, warnings: [{code, message}]}`; one artifact, `merged.pdf`.
///
/// *Errors*: as of `pdf.offset`, each naming the part.
#[derive(Debug, Clone, Copy, Default)]
pub struct Merge;

impl IsolatedKind for Merge {
    type Args = MergeArgs;

    fn spec(&self) -> KindSpec {
        KindSpec {
            queue: "pdf",
            timeout: Duration::from_secs(120),
            cache_ttl: Some(KindSpec::CACHE_TTL),
            ..KindSpec::new("pdf.merge", "joins PDFs, page after page")
        }
    }

    fn schema(&self) -> Option<serde_json::Value> {
        schema_of::<MergeArgs>()
    }

    fn check(&self, args: &MergeArgs) -> Vec<Violation> {
        let mut found = Vec::new();
        if args.pdfs.is_empty() || args.pdfs.len() > MAX_PARTS {
            let message = format!("{} PDFs; allowed: 1 to {MAX_PARTS}", args.pdfs.len());
            found.push(Violation::new("/pdfs", "out_of_range", message));
        }
        for (i, name) in args.pdfs.iter().take(MAX_PARTS).enumerate() {
            check_blob(&format!("/pdfs/{i}"), name, &mut found);
        }
        check_text("/title", args.title.as_deref(), &mut found);
        check_text("/author", args.author.as_deref(), &mut found);
        found
    }

    fn inputs(&self, args: &MergeArgs) -> Inputs {
        let mut blobs: Vec<String> = Vec::new();
        for digest in args.pdfs.iter().filter_map(|name| blob_digest(name)) {
            if !blobs.iter().any(|known| known == digest) {
                blobs.push(digest.to_owned());
            }
        }
        let parts = (args.pdfs.len() as u64).min(4);
        Inputs { blobs, peak_memory_bytes: BASE_MEMORY_BYTES + parts * MEMORY_FACTOR * MAX_PDF_BYTES }
    }

    fn run(&self, args: MergeArgs, dir: &Path, ctx: &dyn RunContext) -> Outcome {
        match merged(&args, dir, ctx) {
            Ok(done) => Outcome::Done(done),
            Err(outcome) => outcome,
        }
    }
}

/// The result while it grows.
struct Whole {
    pdf: Document,
    tree: ObjectId,
    kids: Vec<Object>,
    /// What parts had that is left out.
    left_out: BTreeMap<&'static str, usize>,
}

fn merged(args: &MergeArgs, dir: &Path, ctx: &dyn RunContext) -> Result<Done, Outcome> {
    ctx.stage("merge");
    let mut pdf = Document::with_version("1.7");
    let tree = pdf.new_object_id();
    let mut whole = Whole { pdf, tree, kids: Vec::new(), left_out: BTreeMap::new() };
    for (i, name) in args.pdfs.iter().enumerate() {
        if ctx.cancelled() {
            return Err(Outcome::Cancel { reason: "cancelled between files".into() });
        }
        let path = format!("/pdfs/{i}");
        let digest = blob_digest(name).ok_or_else(|| Outcome::fatal("args_invalid", format!("{path}: not a blob")))?;
        let part = load(dir, digest, &path)?;
        whole
            .add(part, args.start_on_front && i + 1 < args.pdfs.len())
            .map_err(|e| Outcome::fatal("pdf_unreadable", format!("{path}: {e}")))?;
        if whole.kids.len() > MAX_DOCUMENT_PAGES {
            let message = format!("{} pages; at most {MAX_DOCUMENT_PAGES} are allowed", whole.kids.len());
            return Err(Outcome::fatal("too_many_pages", message));
        }
        ctx.progress(90.0 * (i + 1) as f32 / args.pdfs.len() as f32, &format!("file {} of {}", i + 1, args.pdfs.len()));
    }
    let warnings: Vec<_> = whole
        .left_out
        .iter()
        .map(|(what, parts)| json!({"code": "left_out", "message": format!("{what} of {parts} files are left out")}))
        .collect();
    ctx.stage("write");
    let pages = whole.kids.len();
    let bytes = save(whole.finish(args), dir, FILE_NAME)?;
    ctx.progress(100.0, "written");
    let value = json!({"pages": pages, "parts": args.pdfs.len(), "bytes": bytes, "warnings": warnings});
    Ok(Done { value, artifacts: vec![artifact(FILE_NAME)], skipped: false })
}

impl Whole {
    fn add(&mut self, mut part: Document, to_even: bool) -> lopdf::Result<()> {
        part.renumber_objects_with(self.pdf.max_id + 1);
        let catalog = part.catalog()?;
        for (key, what) in [(b"Outlines".as_slice(), "outlines"), (b"AcroForm", "forms"), (b"Names", "names")] {
            if catalog.has(key) {
                *self.left_out.entry(what).or_insert(0) += 1;
            }
        }
        let pages: Vec<ObjectId> = part.page_iter().collect();
        for page in &pages {
            let missing: Vec<(&[u8], Object)> = INHERITED
                .iter()
                .filter(|key| !part.get_dictionary(*page).is_ok_and(|entries| entries.has(key)))
                .filter_map(|key| Some((*key, inherited(&part, *page, key)?)))
                .collect();
            let entries = part.get_dictionary_mut(*page)?;
            missing.into_iter().for_each(|(key, value)| entries.set(key, value));
            entries.set("Parent", self.tree);
            self.kids.push((*page).into());
        }
        self.pdf.max_id = self.pdf.max_id.max(part.max_id);
        self.pdf.objects.append(&mut part.objects);
        if to_even
            && self.kids.len() % 2 == 1
            && let Some(last) = pages.last()
        {
            let media = inherited(&self.pdf, *last, b"MediaBox")
                .unwrap_or_else(|| vec![0.into(), 0.into(), 612.into(), 792.into()].into());
            let empty = dictionary! {
                "Type" => "Page",
                "Parent" => self.tree,
                "MediaBox" => media,
                "Resources" => Dictionary::new(),
            };
            let empty = self.pdf.add_object(empty);
            self.kids.push(empty.into());
        }
        Ok(())
    }

    fn finish(self, args: &MergeArgs) -> Document {
        let Self { mut pdf, tree, kids, .. } = self;
        let count = kids.len() as i64;
        pdf.set_object(tree, dictionary! { "Type" => "Pages", "Count" => count, "Kids" => kids });
        let catalog = pdf.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
        let mut info = dictionary! { "Producer" => Object::string_literal(PRODUCER) };
        for (key, text) in [("Title", &args.title), ("Author", &args.author)] {
            if let Some(text) = text {
                info.set(key, lopdf::text_string(text));
            }
        }
        let info = pdf.add_object(info);
        pdf.trailer.set("Root", catalog);
        pdf.trailer.set("Info", info);
        pdf.prune_objects();
        pdf.renumber_objects();
        pdf.compress();
        pdf
    }
}
