//! Who is idle in this process, and waking them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use windlass_jobs::{Lease, Queue};

use crate::Wake;

/// The idle workers of this process.
///
/// The invariant: while a queue has jobs that wait and a worker of it is idle, a wake-up is
/// under way. A claim registers its worker before it lets go of the writer, so that a job
/// accepted later finds it here; other processes are told by the file's version.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    senders: HashMap<String, UnboundedSender<Wake>>,
    idle: HashMap<Queue, BTreeSet<String>>,
    /// Runs that [`Wakes::cancel`] spoke of, while they go on.
    told: HashSet<Lease>,
    watcher: Option<JoinHandle<()>>,
}

impl Wakes {
    /// The stream of a worker's wake-ups, in place of an earlier one.
    pub(super) fn register(&self, worker: &str) -> UnboundedReceiver<Wake> {
        let (sender, receiver) = unbounded_channel();
        self.lock().senders.insert(worker.to_owned(), sender);
        receiver
    }

    /// Notes that a worker found fewer jobs than it asked for.
    pub(super) fn idle(&self, queue: &Queue, worker: &str) {
        self.lock().idle.entry(queue.clone()).or_default().insert(worker.to_owned());
    }

    /// Wakes one idle worker of the queue, if there is one.
    pub(super) fn wake_one(&self, queue: &Queue) {
        let mut state = self.lock();
        let State { senders, idle, .. } = &mut *state;
        let Some(workers) = idle.get_mut(queue) else { return };
        while let Some(worker) = workers.pop_first() {
            if senders.get(&worker).is_some_and(|sender| sender.send(Wake::Queue(queue.clone())).is_ok()) {
                break;
            }
        }
        if workers.is_empty() {
            idle.remove(queue);
        }
    }

    /// Wakes every idle worker: another process wrote something.
    pub(super) fn wake_all(&self) {
        let mut state = self.lock();
        let names: HashSet<String> = state.idle.drain().flat_map(|(_, workers)| workers).collect();
        for name in names {
            if let Some(sender) = state.senders.get(&name) {
                // A receiver that is gone belongs to a worker that is.
                let _ = sender.send(Wake::All);
            }
        }
    }

    /// Says something to one worker of this process.
    pub(super) fn send(&self, worker: &str, wake: Wake) {
        if let Some(sender) = self.lock().senders.get(worker) {
            // As above.
            let _ = sender.send(wake);
        }
    }

    /// Tells the workers of this process which of their runs are to be stopped: of all such
    /// runs of the file, those that were not told here before.
    pub(super) fn cancel(&self, requested: Vec<(String, Queue, Lease)>) {
        let mut state = self.lock();
        let still: HashSet<Lease> = requested.iter().map(|(_, _, lease)| *lease).collect();
        state.told.retain(|lease| still.contains(lease));
        for (worker, queue, lease) in requested {
            let State { senders, told, .. } = &mut *state;
            let Some(sender) = senders.get(&worker).filter(|_| !told.contains(&lease)) else { continue };
            if sender.send(Wake::Cancel(queue, lease)).is_ok() {
                told.insert(lease);
            }
        }
    }

    /// Forgets a worker that stops.
    pub(super) fn retire(&self, worker: &str) {
        self.lock().idle.retain(|_, workers| {
            workers.remove(worker);
            !workers.is_empty()
        });
    }

    /// Starts the watcher of the file's version, unless one runs.
    pub(super) fn watch(&self, start: impl FnOnce() -> JoinHandle<()>) {
        let mut state = self.lock();
        if state.watcher.as_ref().is_none_or(JoinHandle::is_finished) {
            state.watcher = Some(start());
        }
    }

    /// False when nobody listens any more; the watcher then ends. `is_watched`: jobs are.
    pub(super) fn is_listened(&self, is_watched: impl FnOnce() -> bool) -> bool {
        let mut state = self.lock();
        state.senders.retain(|_, sender| !sender.is_closed());
        if state.senders.is_empty() && !is_watched() {
            // Under the lock: who registers after this starts a watcher of his own.
            state.watcher = None;
            return false;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
