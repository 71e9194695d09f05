//! Jobs on whole PDF files of others: moving their back pages, joining them.
//!
//! Nothing is rendered: pages keep their pictures, fonts and texts as they are.

mod load;
mod merge;
mod offset;

use std::fs;
use std::path::Path;

use lopdf::Document;
use windlass_jobs::{ArtifactFile, Outcome};

pub use merge::{Merge, MergeArgs};
pub use offset::{Offset, OffsetJobArgs, WhichPages};

/// Largest PDF that is taken, in bytes.
pub(crate) const MAX_PDF_BYTES: u64 = 256 * 1024 * 1024;
/// Most pages of a result.
pub(crate) const MAX_DOCUMENT_PAGES: usize = 5_000;
/// What a document takes in memory for each byte of its file, and beside that.
const MEMORY_FACTOR: u64 = 4;
const BASE_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Writes a document as `out/<name>`, under another name first. Answers its size.
fn save(mut pdf: Document, dir: &Path, name: &str) -> Result<u64, Outcome> {
    let out = dir.join("out");
    let part = out.join(format!("{name}.part"));
    let saved = fs::create_dir_all(&out)
        .and_then(|()| fs::File::create(&part))
        .and_then(|file| {
            let mut file = std::io::BufWriter::new(file);
            pdf.save_to(&mut file)?;
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_data()
        })
        .and_then(|()| fs::rename(&part, out.join(name)))
        .and_then(|()| Ok(fs::metadata(out.join(name))?.len()));
    saved.map_err(|e| {
        let _ = fs::remove_file(&part);
        Outcome::retry("storage", format!("writing {name}: {e}"))
    })
}

fn artifact(name: &str) -> ArtifactFile {
    ArtifactFile { name: name.into(), media_type: "application/pdf".into(), path: Path::new("out").join(name) }
}
