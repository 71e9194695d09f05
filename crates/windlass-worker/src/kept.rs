//! Ends of runs that the queue could not be told of, on the disk: they are told also when this worker
//! ends before the queue is back.
//!
//! A second telling changes nothing: each is fenced by its lease. Of a run whose lease was lost
//! meanwhile nobody wants to hear, as ever.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_broker::SharedBroker;
use windlass_jobs::command::{Exchange, Finish, MAX_EXCHANGE, Settle};
use windlass_jobs::{Lease, Queue, Ulid, new_ulid};

/// How often the folder is searched for files of workers that are gone.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// How often the queue is tried while there are some.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// What one worker keeps: a file with a line per end, which is gone once all of them are told.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: Option<PathBuf>,
    /// Held open for its lock.
    file: Option<(PathBuf, File)>,
    leases: HashSet<Lease>,
}

/// One end, as a line: a checksum in hex, a space, JSON.
#[derive(Serialize, Deserialize)]
struct Entry {
    queue: Queue,
    ulid: String,
    epoch: u32,
    settle: Settle,
}

impl Entry {
    fn to_line(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
    }

    /// `None` for a line that is torn.
    fn of_line(line: &str) -> Option<(Queue, Finish)> {
        let (sum, json) = line.trim_end_matches('\n').split_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(json.as_bytes()) {
            return None;
        }
        let Self { queue, ulid, epoch, settle } = serde_json::from_str(json).ok()?;
        let lease = Lease { ulid: Ulid::from_string(&ulid).ok()?, epoch };
        Some((queue, Finish { lease, settle }))
    }
}

impl Kept {
    /// Keeps files in this folder, which is made when it is needed; nothing for `None`.
    pub(crate) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, file: None, leases: HashSet::new() }
    }

    /// Writes down those that are not yet; they are on the disk when this returns. What the disk does
    /// not take is in memory all the same.
    pub(crate) fn keep(&mut self, queue: &Queue, finishes: &[Finish]) {
        let Some(dir) = self.dir.clone() else { return };
        let new: Vec<&Finish> = finishes.iter().filter(|finish| !self.leases.contains(&finish.lease)).collect();
        if new.is_empty() {
            return;
        }
        let entry = |finish: &&Finish| Entry {
            queue: queue.clone(),
            ulid: finish.lease.ulid.to_string(),
            epoch: finish.lease.epoch,
            settle: finish.settle.clone(),
        };
        let lines: String = new.iter().map(|finish| entry(finish).to_line()).collect();
        match self.append(&dir, &lines) {
            Ok(()) => self.leases.extend(new.iter().map(|finish| finish.lease)),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "ends of runs are not kept on the disk");
            }
        }
    }

    fn append(&mut self, dir: &Path, lines: &str) -> io::Result<()> {
        let (_, file) = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(dir)?),
        };
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }

    /// The queue has been told of these.
    pub(crate) fn told(&mut self, finishes: &[Finish]) {
        if self.leases.is_empty() {
            return;
        }
        for finish in finishes {
            self.leases.remove(&finish.lease);
        }
        if self.leases.is_empty()
            && let Some((path, _file)) = self.file.take()
        {
            // If it stays, its ends are told again, and refused.
            let _ = std::fs::remove_file(path);
        }
    }

    /// How many the queue does not know of.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

fn create(dir: &Path) -> io::Result<(PathBuf, File)> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("ends-{}.kept", new_ulid()));
    let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
    file.lock()?;
    // The name has to last as long as what is in the file.
    File::open(dir)?.sync_all()?;
    Ok((path, file))
}

/// Tells the queue what workers that are gone have kept here, now and later, until the task is aborted.
pub(crate) async fn tell(dir: PathBuf, broker: SharedBroker) {
    loop {
        let found = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || orphans(&dir)
        });
        match found.await {
            Ok(Ok(found)) => {
                for (path, file) in found {
                    tell_one(&path, file, &broker).await;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, dir = %dir.display(), "kept ends of runs cannot be read"),
            Err(_) => return,
        }
        tokio::time::sleep(SEARCH_EVERY).await;
    }
}

/// The files that no process holds, each now held by this one.
fn orphans(dir: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "kept") {
            continue;
        }
        match File::open(&path) {
            Ok(file) if file.try_lock().is_ok() => found.push((path, file)),
            Ok(_) => {}
            // Its worker has just told it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

async fn tell_one(path: &Path, file: File, broker: &SharedBroker) {
    let mut by_queue: BTreeMap<Queue, Vec<Finish>> = BTreeMap::new();
    for line in BufReader::new(&file).lines().map_while(Result::ok) {
        if let Some((queue, finish)) = Entry::of_line(&line) {
            by_queue.entry(queue).or_default().push(finish);
        }
    }
    let mut told = 0;
    for (queue, finishes) in by_queue {
        for slice in finishes.chunks(MAX_EXCHANGE) {
            let exchange = Exchange { finishes: slice.to_vec(), claim: None };
            loop {
                match broker.exchange(&queue, &exchange).await {
                    Ok(_) => break,
                    Err(error) if error.is_retryable() => tokio::time::sleep(RETRY_EVERY).await,
                    Err(error) => {
                        tracing::error!(%error, %queue, file = %path.display(), "kept ends of runs are not taken");
                        return;
                    }
                }
            }
            told += slice.len();
        }
    }
    tracing::info!(told, file = %path.display(), "ends of runs of a worker before this one are told");
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use windlass_broker::{Enqueue as _, Inspect as _, Leases as _};
    use windlass_jobs::command::Claim;
    use windlass_jobs::{JobId, NewJob, Reason, State};
    use windlass_testkit::ModelBroker;

    use super::*;

    /// Kept by one worker, told by the next; a torn line is passed over, and nothing stays behind.
    #[tokio::test]
    async fn what_one_worker_kept_the_next_tells() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new("q").unwrap();
        let broker = Arc::new(ModelBroker::default());
        let jobs: Vec<NewJob> = (0..3).map(|n| NewJob::new("noop", &n).unwrap()).collect();
        broker.enqueue(&queue, &jobs).await.unwrap();
        let lease = Duration::from_secs(60);
        let claim = Claim { worker: "w".into(), max: 3, lease, grace: false, sent_at: None, quotas: None };
        let claimed =
            broker.exchange(&queue, &Exchange { finishes: vec![], claim: Some(claim) }).await.unwrap().claimed;
        let error = r#"{"code":"x","message":"y"}"#.to_owned();
        let settles = [
            Settle::Success { result: Some("{\"value\":\"é\\n\"}".into()), skipped: false },
            Settle::Failure { reason: Reason::Error, failures: 1, error: error.clone() },
            Settle::Retry { delay: Duration::from_millis(60_500), failures: 1, error },
        ];
        let finishes: Vec<Finish> =
            claimed.iter().zip(settles).map(|(job, settle)| Finish { lease: job.lease, settle }).collect();

        let folder = dir.path().join("a/b");
        let mut kept = Kept::new(Some(folder.clone()));
        kept.keep(&queue, &finishes[..1]);
        kept.keep(&queue, &finishes);
        assert_eq!(kept.len(), 3);
        assert!(orphans(&folder).unwrap().is_empty(), "its worker lives");
        let (path, mut file) = kept.file.take().unwrap();
        file.write_all(b"00000000 {torn").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4, "each once");
        drop(file);

        let shared: SharedBroker = broker.clone();
        let telling = tokio::spawn(tell(folder.clone(), shared));
        let state = async |n: usize| {
            broker.get(&JobId::new(claimed[n].lease.ulid, queue.clone())).await.unwrap().unwrap().state
        };
        windlass_testkit::wait_until(Duration::from_secs(10), "the file is gone", async || !path.exists()).await;
        assert_eq!([state(0).await, state(1).await, state(2).await], [State::Success, State::Failure, State::Retrying]);
        telling.abort();

        // Told by the worker itself: nothing is left, and nothing is written where there is no folder.
        let mut kept = Kept::new(Some(folder.clone()));
        kept.keep(&queue, &finishes);
        kept.told(&finishes[..2]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        kept.told(&finishes);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let mut nowhere = Kept::new(None);
        nowhere.keep(&queue, &finishes);
        assert_eq!(nowhere.len(), 0);
    }
}
