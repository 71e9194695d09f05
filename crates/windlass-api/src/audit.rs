//! The audit log: who administered what, and who was refused for want of a scope.
//!
//! Entries lie in the records, the newest [`KEEP`]; each is also a line of the log. They are written
//! behind the answer: a store that is away delays them, and what does not fit meanwhile is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use windlass_jobs::Timestamp;
use windlass_store::records::{Batch, Records, Write};

use crate::keys::SPACE;
use crate::problem::chain;

/// The name of the log.
pub const LOG: &str = "audit";
/// Entries kept.
pub const KEEP: u32 = 2_000;
/// Entries that may wait to be written.
const WAITING: usize = 1_000;
/// Entries written at once, and the pause after it: an attacker cannot keep the store busy.
const SLICE: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// The pause after the store did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// One entry.
///
/// *Shape as JSON*: its members; those that are absent are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the clock of the process that did it.
    pub at: Timestamp,
    /// Who: a key's id, `settings` for a key of the settings, `loopback`, or `cli`.
    pub who: String,
    /// The name of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was asked for, such as `POST /api/keys` or `keys create`.
    pub action: String,
    /// About what: the path as it was asked for, or an id.
    pub target: String,
    /// The HTTP status of the answer; 0 on the command line.
    #[serde(default)]
    pub status: u16,
    /// The request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Entry {
    /// An entry of the command line.
    #[must_use]
    pub fn of_cli(action: &str, target: &str) -> Self {
        Self {
            at: Timestamp::now(),
            who: "cli".to_owned(),
            name: None,
            action: action.to_owned(),
            target: target.to_owned(),
            status: 0,
            request_id: None,
        }
    }

    fn say(&self) {
        tracing::info!(
            event = "audit",
            who = self.who,
            name = self.name,
            action = self.action,
            target = self.target,
            status = self.status,
            "audit"
        );
    }
}

fn append(entry: &Entry) -> Write {
    Write::Append { log: LOG.to_owned(), json: serde_json::to_string(entry).unwrap_or_default(), keep: KEEP }
}

/// Writes an entry at once: for the command line.
///
/// # Errors
/// The store's.
pub async fn write(records: &dyn Records, entry: &Entry) -> Result<(), windlass_store::Error> {
    entry.say();
    records.write(SPACE, &Batch { notify: true, writes: vec![append(entry)], ..Batch::default() }).await?;
    Ok(())
}

/// Entries, newest first, from this one on.
///
/// # Errors
/// The store's.
pub async fn read(records: &dyn Records, from: usize, limit: usize) -> Result<Vec<Entry>, windlass_store::Error> {
    let entries = records.log(SPACE, LOG, from, limit).await?;
    Ok(entries.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
}

/// Takes entries from requests.
#[derive(Debug)]
pub(crate) struct Auditor {
    sender: mpsc::Sender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl Auditor {
    /// An auditor, and the work of writing what it takes: it ends after the last auditor.
    pub(crate) fn new(records: Arc<dyn Records>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { sender, dropped: Arc::clone(&dropped) }, write_all(records, receiver, dropped))
    }

    pub(crate) fn take(&self, entry: Entry) {
        entry.say();
        if self.sender.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write_all(records: Arc<dyn Records>, mut receiver: mpsc::Receiver<Entry>, dropped: Arc<AtomicU64>) {
    let mut entries = Vec::with_capacity(SLICE);
    while receiver.recv_many(&mut entries, SLICE).await > 0 {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lost, "audit entries did not fit while others waited to be written");
            entries.push(Entry::of_cli("audit entries lost", &lost.to_string()));
        }
        let batch = Batch { notify: true, writes: entries.iter().map(append).collect(), ..Batch::default() };
        while let Err(error) = records.write(SPACE, &batch).await {
            tracing::debug!(error = %chain(&error), waiting = entries.len(), "audit entries wait for the store");
            tokio::time::sleep(RETRY).await;
        }
        entries.clear();
        tokio::time::sleep(PAUSE).await;
    }
}
