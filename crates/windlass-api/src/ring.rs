//! The keys in memory: what every request is held against.
//!
//! A copy of the records, renewed within a second of a change. While they do not answer, the last
//! copy counts, at a start the one of the local snapshot. A store that lost everything is seeded
//! again before it is believed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_jobs::Timestamp;
use windlass_store::records::{Batch, Expect, Meta, Records, Snapshot, Write};

use crate::keys::{self, KEYS, Key, KeyHash, SETTINGS, SPACE, USES};
use crate::paging::Signer;
use crate::problem::chain;

/// The sets of a copy of the API's records.
pub(crate) const SETS: &[&str] = &[KEYS, USES, SETTINGS];
/// The logs of a copy.
pub(crate) const LOGS: &[&str] = &[crate::audit::LOG];
/// How often the records are asked whether they changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The name of the secret of cursors.
const CURSORS: &str = "cursor-secret";
/// How often last uses are written.
const WRITE_USES_EVERY: Duration = Duration::from_secs(30);

/// The keys of this process.
pub struct Ring {
    records: Arc<dyn Records>,
    snapshot: Option<Snapshot>,
    state: RwLock<Arc<State>>,
    /// Last uses that are not written yet, by id.
    used: Mutex<HashMap<String, Timestamp>>,
}

#[derive(Debug)]
struct State {
    /// Signs cursors: this process' own until the installation's is read.
    signer: Signer,
    keys: HashMap<String, Key>,
    seen: Option<(Option<String>, u64)>,
    /// The store's clock less this process', in ms.
    ahead_ms: i64,
}

impl Default for State {
    fn default() -> Self {
        Self { signer: Signer::new(), keys: HashMap::new(), seen: None, ahead_ms: 0 }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} keys)", self.state().keys.len())
    }
}

impl Ring {
    /// The keys in these records, with a snapshot in this file if they may be lost. Nothing is read
    /// yet but the file.
    #[must_use]
    pub fn new(records: Arc<dyn Records>, snapshot: Option<&std::path::Path>) -> Self {
        let snapshot = snapshot.map(|file| Snapshot::open(file, SPACE, SETS).with_logs(LOGS));
        Self { records, snapshot, state: RwLock::default(), used: Mutex::default() }
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn used(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key with this id and hash, if it is live. The same work is done whatever is wrong.
    pub(crate) fn find(&self, id: Option<&str>, hash: KeyHash) -> Option<Key> {
        let state = self.state();
        let now = Timestamp(Timestamp::now().0 + state.ahead_ms);
        let key = id.and_then(|id| state.keys.get(id));
        let nothing = KeyHash([0; 32]);
        let mut hashes: Vec<KeyHash> = key.iter().flat_map(|key| key.live_secrets(now)).map(|s| s.hash).collect();
        // There are never more than two; an unknown key is compared as often.
        hashes.resize(2, nothing);
        let known = hashes.iter().fold(subtle::Choice::from(0), |known, kept| known | kept.0.ct_eq(&hash.0));
        let key = key.filter(|_| bool::from(known))?;
        self.used().insert(key.id.clone(), now);
        Some(key.clone())
    }

    /// Reads the keys anew if they changed.
    ///
    /// # Errors
    /// The store's; the keys are then as before.
    pub async fn refresh(&self) -> Result<(), windlass_store::Error> {
        let meta = self.records.meta(SPACE).await?;
        self.read(&meta).await
    }

    async fn read(&self, meta: &Meta) -> Result<(), windlass_store::Error> {
        let seen = (meta.generation.clone(), meta.version);
        if self.state().seen.as_ref() == Some(&seen) {
            return Ok(());
        }
        let records = self.records.all(SPACE, KEYS).await?;
        let keys = records.iter().filter_map(|r| keys::read(&r.json)).map(|key| (key.id.clone(), key)).collect();
        let kept = self.records.get(SPACE, SETTINGS, CURSORS).await?;
        let signer = kept.and_then(|record| Signer::from_json(&record.json)).unwrap_or_else(|| self.signer());
        let ahead_ms = meta.now.0 - Timestamp::now().0;
        self.replace(State { signer, keys, seen: Some(seen), ahead_ms });
        Ok(())
    }

    fn replace(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// Starts with what the snapshot holds, until the records have answered.
    pub(crate) async fn begin(&self) {
        if let Some(snapshot) = &self.snapshot {
            let documents = snapshot.documents(KEYS).await;
            let keys = documents.iter().filter_map(|json| keys::read(json)).map(|key| (key.id.clone(), key)).collect();
            self.replace(State { keys, ..State::default() });
        }
        if let Err(error) = self.tend(&mut None).await {
            tracing::warn!(error = %chain(&error), "the store of API keys does not answer yet");
        }
    }

    /// Keeps the ring and its snapshot up to date until it is stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut copied_at, mut silent) = (None, false);
        let mut written_at = Instant::now();
        loop {
            match self.tend(&mut copied_at).await {
                Ok(()) if std::mem::take(&mut silent) => tracing::info!("the store of API keys answers again"),
                Ok(()) => {}
                Err(error) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(error = %chain(&error), "the store of API keys does not answer: those of before count");
                    }
                }
            }
            if written_at.elapsed() >= WRITE_USES_EVERY {
                written_at = Instant::now();
                self.write_uses().await;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => break,
            }
        }
        self.write_uses().await;
    }

    async fn tend(&self, copied_at: &mut Option<Instant>) -> Result<(), windlass_store::Error> {
        let mut meta = self.records.meta(SPACE).await?;
        if let Some(snapshot) = &self.snapshot {
            meta = snapshot.look_after(self.records.as_ref(), meta, copied_at).await?;
        }
        if self.records.get(SPACE, SETTINGS, CURSORS).await?.is_none() {
            let (name, json) = (CURSORS.to_owned(), self.signer().to_json());
            let writes = vec![Write::Put { set: SETTINGS, name, json, expect: Expect::Absent }];
            self.records.write(SPACE, &Batch { notify: true, writes, ..Batch::default() }).await?;
            meta = self.records.meta(SPACE).await?;
        }
        self.read(&meta).await
    }

    /// What signs cursors.
    pub(crate) fn signer(&self) -> Signer {
        self.state().signer
    }

    /// Writes when keys were last used. What cannot be written is written later.
    async fn write_uses(&self) {
        let used: Vec<(String, Timestamp)> = std::mem::take(&mut *self.used()).into_iter().collect();
        for slice in used.chunks(windlass_store::records::MAX_WRITES) {
            let put = |(id, at): &(String, Timestamp)| Write::Put {
                set: USES,
                name: id.clone(),
                json: serde_json::to_string(at).unwrap_or_default(),
                expect: Expect::Any,
            };
            let batch = Batch { writes: slice.iter().map(put).collect(), ..Batch::default() };
            if let Err(error) = self.records.write(SPACE, &batch).await {
                tracing::debug!(error = %chain(&error), "last uses of keys are written later");
                let mut used = self.used();
                for (id, at) in slice {
                    used.entry(id.clone()).or_insert(*at);
                }
            }
        }
    }

    /// When a key was last used by this process, if that is not written yet.
    pub(crate) fn used_at(&self, id: &str) -> Option<Timestamp> {
        self.used().get(id).copied()
    }
}

/// Keeps a copy of the API's records for a process that serves no API, and seeds an empty store from
/// it, until the handle is aborted.
#[must_use]
pub fn keep_copy(records: Arc<dyn Records>, file: &std::path::Path) -> tokio::task::JoinHandle<()> {
    windlass_store::records::keep_copy(records, Snapshot::open(file, SPACE, SETS).with_logs(LOGS))
}
