//! A local copy of a space, from which an empty store is seeded again.
//!
//! One JSON file, replaced as a whole: `{"generation", "version", "sets": {set: {name: json}},
//! "logs": {log: [json]}}`.
//! A space that was restored has the generation of the copy, so that other and older copies leave
//! it alone. What was written between the loss and the restoration stays.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Batch, MAX_WRITES, Meta, Records, Write, Written};
use crate::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Image {
    generation: String,
    version: u64,
    sets: BTreeMap<String, BTreeMap<String, String>>,
    /// Newest first.
    #[serde(default)]
    logs: BTreeMap<String, Vec<String>>,
}

/// Most entries of a log that a copy holds.
const MAX_ENTRIES: usize = 10_000;
/// How often a space is copied although nobody said that it changed.
pub const COPY_ALL_EVERY: Duration = Duration::from_secs(30);
/// How often [`keep_copy`] looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A space's copy, in memory and in a file.
#[derive(Debug)]
pub struct Snapshot {
    space: &'static str,
    sets: &'static [&'static str],
    logs: &'static [&'static str],
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
        Self { space, sets, logs: &[], path: path.to_owned(), image: Mutex::new(image) }
    }

    /// Also copies these logs.
    #[must_use]
    pub fn with_logs(self, logs: &'static [&'static str]) -> Self {
        Self { logs, ..self }
    }

    /// The documents of a set as the copy has them.
    pub async fn documents(&self, set: &str) -> Vec<String> {
        let image = self.image.lock().await;
        let documents = image.as_ref().and_then(|image| image.sets.get(set));
        documents.map(|documents| documents.values().cloned().collect()).unwrap_or_default()
    }

    /// Seeds a space that lost everything, or copies one that changed; what the space is like then.
    /// A copy that cannot be written is said in the log, and stops nothing. `copied_at` is when all
    /// was copied last.
    ///
    /// # Errors
    /// [`Error`](crate::Error) of the records.
    pub async fn look_after(&self, records: &dyn Records, meta: Meta, copied_at: &mut Option<Instant>) -> Result<Meta> {
        if self.restore(records, &meta).await? {
            return records.meta(self.space).await;
        }
        let now = copied_at.is_none_or(|at| at.elapsed() >= COPY_ALL_EVERY);
        match self.keep(records, &meta, now).await {
            Ok(_) if now => *copied_at = Some(Instant::now()),
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(error = %crate::error::chain(&e), "snapshot_not_written");
                *copied_at = Some(Instant::now());
            }
        }
        Ok(meta)
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
        // Last, so that a restoration that was cut short is begun again; and the logs once, however
        // many restore.
        let extend =
            |(log, entries): (&String, &Vec<String>)| Write::Extend { log: log.clone(), entries: entries.clone() };
        let writes = image.logs.iter().map(extend).collect();
        let generation = Some(image.generation.clone());
        let last = Batch { notify: true, generation, writes, ..Batch::default() };
        if records.write(self.space, &last).await? == Written::Conflict(0) {
            return Ok(true);
        }
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
        for log in self.logs {
            image.logs.insert((*log).to_owned(), records.log(self.space, log, 0, MAX_ENTRIES).await?);
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

/// Looks after a snapshot until the handle is aborted.
#[must_use]
pub fn keep_copy(records: Arc<dyn Records>, snapshot: Snapshot) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut copied_at = None;
        loop {
            let looked = async {
                let meta = records.meta(snapshot.space).await?;
                snapshot.look_after(records.as_ref(), meta, &mut copied_at).await
            };
            if let Err(e) = looked.await {
                tracing::debug!(space = snapshot.space, error = %crate::error::chain(&e), "records not copied");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
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
