//! Ends of runs that the queue could not be told of, on the disk: they are told also when this worker
//! ends before the queue is back.
//!
//! A second telling changes nothing: each is fenced by its lease. Of a run whose lease was lost
//! meanwhile nobody wants to hear, as ever.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass_broker::SharedBroker;
use windlass_jobs::command::{Exchange, Finish, MAX_EXCHANGE, Settle};
use windlass_jobs::{Lease, Queue, Ulid, chain, new_ulid};

/// How often the folder is searched for files of workers that are gone.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// How often the queue is tried while there are some.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// The ending of a file's name, and before it is locked.
const KEPT: &str = "kept";
const NEW: &str = "new";

/// What one worker keeps: a file with a line per end, which is gone once all of them are told.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: Option<PathBuf>,
    file: Option<Open>,
    leases: HashSet<Lease>,
    /// The disk did not take the last ones.
    failing: bool,
}

/// The file that is written, held open for its lock.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Up to where it is whole, in bytes.
    whole: u64,
}

/// One end, as a line: a checksum in hex, a space, JSON. The line break comes first, so that a line never
/// joins a torn one before it.
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
        format!("\n{:08x} {json}", crc32fast::hash(json.as_bytes()))
    }

    /// `None` for a line that is torn.
    fn of_line(line: &[u8]) -> Option<(Queue, Finish)> {
        let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
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
        Self { dir, file: None, leases: HashSet::new(), failing: false }
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
            Ok(()) => {
                self.leases.extend(new.iter().map(|finish| finish.lease));
                if std::mem::take(&mut self.failing) {
                    tracing::info!(dir = %dir.display(), "ends of runs are kept on the disk again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, dir = %dir.display(), "ends of runs are not kept on the disk");
                }
            }
        }
    }

    fn append(&mut self, dir: &Path, lines: &str) -> io::Result<()> {
        let open = match &mut self.file {
            Some(open) => open,
            none => none.insert(Open::create(dir)?),
        };
        open.append(lines.as_bytes())
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
            && let Some(open) = self.file.take()
        {
            // If it stays, its ends are told again, and refused.
            let _ = std::fs::remove_file(open.path);
        }
    }

    /// How many the queue does not know of.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}

impl Open {
    /// A new file in the folder. It has its name once it is locked: before, another would take it for that
    /// of a worker that is gone.
    fn create(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(format!("ends-{}.{KEPT}", new_ulid()));
        let nameless = path.with_extension(NEW);
        let file = OpenOptions::new().append(true).create_new(true).open(&nameless)?;
        file.lock()?;
        std::fs::rename(&nameless, &path)?;
        // The name has to last as long as what is in the file.
        File::open(dir)?.sync_all()?;
        Ok(Self { path, file, whole: 0 })
    }

    /// All of it, on the disk, or nothing as far as the disk allows.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.whole += lines.len() as u64,
            // What stays of it is a torn line, which is passed over.
            Err(_) => drop(self.file.set_len(self.whole)),
        }
        written
    }
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
                for orphan in found {
                    orphan.tell(&broker).await;
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, dir = %dir.display(), "kept ends of runs cannot be read"),
            Err(_) => return,
        }
        tokio::time::sleep(SEARCH_EVERY).await;
    }
}

/// The file of a worker that is gone, now held by this process.
struct Orphan {
    path: PathBuf,
    /// Held open for its lock.
    _file: File,
    ends: BTreeMap<Queue, Vec<Finish>>,
    /// Lines that are no end.
    torn: usize,
}

/// The files that no process holds, each now held by this one.
fn orphans(dir: &Path) -> io::Result<Vec<Orphan>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let ending = path.extension().unwrap_or_default();
        if ending == NEW && is_old(&path) {
            // Its worker was killed before it wrote anything.
            let _ = std::fs::remove_file(&path);
        }
        if ending != KEPT {
            continue;
        }
        match Orphan::open(path.clone()) {
            Ok(orphan) => found.extend(orphan),
            // Its worker has just told it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, file = %path.display(), "kept ends of runs cannot be read"),
        }
    }
    Ok(found)
}

/// Whether nobody has touched it for a minute.
fn is_old(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|about| about.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
}

impl Orphan {
    /// `None` when its worker lives.
    fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let mut file = File::open(&path)?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut ends: BTreeMap<Queue, Vec<Finish>> = BTreeMap::new();
        let mut torn = 0;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match Entry::of_line(line) {
                Some((queue, finish)) => ends.entry(queue).or_default().push(finish),
                None => torn += 1,
            }
        }
        Ok(Some(Self { path, _file: file, ends, torn }))
    }

    async fn tell(self, broker: &SharedBroker) {
        let file = self.path.display();
        if self.torn > 0 {
            tracing::warn!(torn = self.torn, %file, "kept ends of runs are torn: those jobs run again when their leases end");
        }
        let (mut told, mut refused) = (0, false);
        for (queue, finishes) in &self.ends {
            for slice in finishes.chunks(MAX_EXCHANGE) {
                match tell_slice(broker, queue, slice).await {
                    Ok(()) => told += slice.len(),
                    Err(error) => {
                        tracing::error!(error = %chain(&error), %queue, %file, "kept ends of runs are not taken");
                        refused = true;
                    }
                }
            }
        }
        tracing::info!(told, %file, "ends of runs of a worker before this one are told");
        if !refused {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn tell_slice(broker: &SharedBroker, queue: &Queue, slice: &[Finish]) -> windlass_broker::Result<()> {
    let exchange = Exchange { finishes: slice.to_vec(), claim: None };
    loop {
        match broker.exchange(queue, &exchange).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_retryable() => tokio::time::sleep(RETRY_EVERY).await,
            Err(error) => return Err(error),
        }
    }
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
        let Open { path, file, .. } = kept.file.take().unwrap();
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3, "each once");
        // Torn in the middle and at the end, by bytes that are no text.
        let second = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0;
        let torn = [&text[..second], b"\n00000000 {\xff\xfe", &text[second..], b"\n0000"].concat();
        std::fs::write(&path, torn).unwrap();
        drop(file);
        assert_eq!(orphans(&folder).unwrap()[0].torn, 2);

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

    /// A disk that takes half a line and nothing more for a while: that end is kept once it takes it, and the
    /// torn line costs no other.
    #[test]
    fn half_a_line_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let lease = || Lease { ulid: new_ulid(), epoch: 1 };
        let finish = || Finish { lease: lease(), settle: Settle::Release };
        let queue = Queue::new("q").unwrap();
        let mut kept = Kept::new(Some(dir.path().to_owned()));
        kept.keep(&queue, &[finish()]);
        let open = kept.file.as_mut().unwrap();
        let written = open.file.try_clone().unwrap();
        // Half a line, then a file that cannot be written: nor can it be cut.
        open.file.write_all(b"\n1234 {").unwrap();
        open.file = File::open(&open.path).unwrap();
        kept.keep(&queue, &[finish()]);
        assert_eq!((kept.len(), kept.failing), (1, true));
        kept.file.as_mut().unwrap().file = written;
        kept.keep(&queue, &[finish(), finish()]);
        assert_eq!((kept.len(), kept.failing), (3, false));
        drop(kept);
        let found = orphans(dir.path()).unwrap();
        assert_eq!((found[0].ends[&queue].len(), found[0].torn), (3, 1));
    }
}
