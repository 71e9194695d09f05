//! Reads a PDF that somebody sent, under limits.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use lopdf::{Dictionary, Document, LoadOptions, Object, ObjectId};
use windlass_jobs::Outcome;

use super::{MAX_DOCUMENT_PAGES, MAX_PDF_BYTES};

/// Most bytes that one packed table of a file may unpack to: a bomb is smaller than its fuse.
const MAX_UNPACKED_BYTES: usize = 64 * 1024 * 1024;
/// How far up the tree of pages an attribute is looked for.
const MAX_DEPTH: usize = 64;

/// Reads the blob `digest`, which the args name at `path`.
///
/// # Errors
/// `blob_missing`, `pdf_too_large`, `pdf_unreadable`, `pdf_encrypted`, `pdf_empty`,
/// `too_many_pages`, all permanent; `storage`.
pub(super) fn load(dir: &Path, digest: &str, path: &str) -> Result<Document, Outcome> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Outcome::fatal("blob_missing", format!("{path}: there is no blob sha256:{digest}")),
        _ => Outcome::retry("storage", format!("reading {path}: {e}")),
    };
    let file = dir.join("in").join(digest);
    let length = fs::metadata(&file).map_err(failed)?.len();
    if length > MAX_PDF_BYTES {
        let message = format!("{path}: {length} bytes; at most {MAX_PDF_BYTES} are allowed");
        return Err(Outcome::fatal("pdf_too_large", message));
    }
    let bytes = fs::read(&file).map_err(failed)?;
    let unreadable = |why: String| Outcome::fatal("pdf_unreadable", format!("{path}: {why}"));
    if !bytes[..bytes.len().min(1024)].windows(5).any(|w| w == b"%PDF-") {
        return Err(unreadable("it is no PDF file".into()));
    }
    let options = LoadOptions { max_decompressed_size: Some(MAX_UNPACKED_BYTES), ..LoadOptions::default() };
    // The parser reads what strangers send: a panic in it is a bad file, not a bad worker.
    let parsed = catch_unwind(AssertUnwindSafe(|| Document::load_mem_with_options(&bytes, options)));
    let document = parsed.map_err(|_| unreadable("the parser gave up on it".into()))?;
    let mut document = document.map_err(|e| match e {
        lopdf::Error::InvalidPassword => encrypted(path),
        e => unreadable(e.to_string()),
    })?;
    if document.is_encrypted() || document.was_encrypted() {
        return Err(encrypted(path));
    }
    match document.page_iter().take(MAX_DOCUMENT_PAGES + 1).count() {
        0 => Err(Outcome::fatal("pdf_empty", format!("{path}: it has no page"))),
        n if n > MAX_DOCUMENT_PAGES => {
            Err(Outcome::fatal("too_many_pages", format!("{path}: at most {MAX_DOCUMENT_PAGES} pages are allowed")))
        }
        _ => {
            own_pages(&mut document);
            Ok(document)
        }
    }
}

/// Gives a page that stands in the tree more than once an object for each place, so that one of
/// them can be changed.
fn own_pages(pdf: &mut Document) {
    let nodes: Vec<ObjectId> =
        pdf.objects.iter().filter(|(_, o)| o.type_name().is_ok_and(|t| t == b"Pages")).map(|(id, _)| *id).collect();
    let mut seen = HashSet::new();
    for node in nodes {
        let Ok(kids) = pdf.get_dictionary(node).and_then(|entries| entries.get(b"Kids")).and_then(Object::as_array)
        else {
            continue;
        };
        let mut kids = kids.clone();
        for kid in &mut kids {
            let Ok(id) = kid.as_reference() else { continue };
            let is_page = pdf.get_object(id).and_then(Object::type_name).is_ok_and(|t| t == b"Page");
            if is_page
                && !seen.insert(id)
                && let Ok(page) = pdf.get_object(id).cloned()
            {
                *kid = pdf.add_object(page).into();
            }
        }
        if let Ok(entries) = pdf.get_dictionary_mut(node) {
            entries.set("Kids", kids);
        }
    }
}

fn encrypted(path: &str) -> Outcome {
    Outcome::fatal("pdf_encrypted", format!("{path}: it is encrypted; save it without a password first"))
}

/// An attribute of a page, which may stand at a node above it.
pub(super) fn inherited(pdf: &Document, page: ObjectId, key: &[u8]) -> Option<Object> {
    let mut node: &Dictionary = pdf.get_dictionary(page).ok()?;
    for _ in 0..MAX_DEPTH {
        if let Ok(value) = node.get(key) {
            return Some(value.clone());
        }
        node = pdf.get_dictionary(node.get(b"Parent").ok()?.as_reference().ok()?).ok()?;
    }
    None
}

/// Four numbers, wherever they are kept.
pub(super) fn rectangle(pdf: &Document, value: &Object) -> Option<[f64; 4]> {
    let (_, value) = pdf.dereference(value).ok()?;
    let numbers: Vec<f64> = value.as_array().ok()?.iter().filter_map(|n| number(pdf, n)).collect();
    numbers.try_into().ok()
}

/// A number, wherever it is kept.
pub(super) fn number(pdf: &Document, value: &Object) -> Option<f64> {
    let (_, value) = pdf.dereference(value).ok()?;
    value.as_float().ok().map(f64::from)
}
