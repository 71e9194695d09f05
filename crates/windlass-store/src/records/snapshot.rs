//! A local copy of a space, from which an empty store is seeded again.
//!
//! One JSON file, replaced as a whole: `{"generation", "version", "sets": {set: {name: json}}}`.
//! A space that was restored has the generation of the copy, so that other and older copies leave
//! it alone. What was written between the loss and the restoration stays.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{Batch, MAX_WRITES, Meta, Records, Write};
use crate::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Image {
    generation: String,
    version: u64,
    sets: BTreeMap<String, BTreeMap<String, String>>,
}

/// A space's copy, in memory and in a file.
#[derive(Debug)]
pub struct Snapshot {
    space: &'static str,
    sets: &'static [&'static str],
    path: PathBuf,
    image: Mutex<Option<Image>>,
}

impl Snapshot {
    /// A copy of these sets of a space, begun with what the file holds. A file that cannot be read
    /// is said in the log, and replaced.
    #[must_use]
    pub fn open(path: &Path, space: &'static str, sets: &'static [&'static str]) -> Self {
        let image = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|e| tracing::warn!(file = %path.display(), error = %e, "snapshot_unreadable"))
                .ok(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!(file = %path.display(), error = %e, "snapshot_unreadable");
                None
            }
        };
        Self { space, sets, path: path.to_owned(), image: Mutex::new(image) }
    }

    /// Seeds the space when it is not the one this is a copy of; true when it did.
    ///
    /// # Errors
    /// [`Error`](crate::Error); asked again, it goes on.
    pub async fn restore(&self, records: &dyn Records, meta: &Meta) -> Result<bool> {
        let image = self.image.lock().await;
        let Some(image) = image.as_ref().filter(|image| meta.generation.as_ref() != Some(&image.generation)) else {
            return Ok(false);
        };
        let mut writes = Vec::new();
        for (set, documents) in &image.sets {
            let seed = |(name, json): (&String, &String)| Write::Seed {
                set: set.clone(),
                name: name.clone(),
                json: json.clone(),
            };
            writes.extend(documents.iter().map(seed));
        }
        let documents = writes.len();
        for slice in writes.chunks(MAX_WRITES) {
            records.write(self.space, &Batch { writes: slice.to_vec(), ..Batch::default() }).await?;
        }
        // Last, so that a restoration that was cut short is begun again.
        let generation = Some(image.generation.clone());
        records.write(self.space, &Batch { notify: true, generation, ..Batch::default() }).await?;
        tracing::error!(space = self.space, documents, "records_lost: restored from the local snapshot");
        Ok(true)
    }

    /// Copies the space when it changed, or in any case when `now`; true when it did.
    ///
    /// # Errors
    /// [`Error`](crate::Error). The copy in memory may then be newer than the file.
    pub async fn keep(&self, records: &dyn Records, meta: &Meta, now: bool) -> Result<bool> {
        let Some(generation) = &meta.generation else { return Ok(false) };
        let mut kept = self.image.lock().await;
        let same = |image: &Image| image.generation == *generation;
        if kept.as_ref().is_some_and(|image| !same(image) || (image.version == meta.version && !now)) {
            return Ok(false);
        }
        let mut image = Image { generation: generation.clone(), version: meta.version, ..Image::default() };
        for set in self.sets {
            let documents = records.all(self.space, set).await?;
            image.sets.insert((*set).to_owned(), documents.into_iter().map(|doc| (doc.name, doc.json)).collect());
        }
        // Lost while it was read: what is kept is worth more.
        if records.meta(self.space).await?.generation.as_ref() != Some(generation) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(&image).unwrap_or_default();
        *kept = Some(image);
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || write_whole(&path, &bytes)).await.unwrap_or(Ok(()))?;
        Ok(true)
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let fail = |source| Error::File { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let temporary = path.with_extension(format!("{}.tmp", windlass_jobs::new_ulid()));
    let mut options = std::fs::OpenOptions::new();
    let written = options.write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    renamed.map_err(fail)
}
