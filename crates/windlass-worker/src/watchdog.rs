//! Notices handlers that block the runtime: an inline handler shares its threads with everything
//! else the worker does, and none of it goes on while one computes or sleeps in place.
//!
//! Leases do not depend on it: the pump has a thread of its own. This says who is to blame, from
//! another thread.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use windlass_jobs::Lease;

/// A thread that a handler holds for longer than this is reported.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// How often is looked. With [`BLOCKED_AFTER`] a report comes within 1.5 s.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The handlers that run now.
#[derive(Debug)]
pub(crate) struct Watchdog {
    origin: Instant,
    watched: Mutex<HashMap<u64, Arc<Watched>>>,
    next: AtomicU64,
    /// When the runtime last did what it was asked, in milliseconds since `origin`.
    tick_ms: AtomicU64,
}

/// One handler's future.
#[derive(Debug)]
struct Watched {
    kind: &'static str,
    lease: Lease,
    /// Since when it holds a thread, in milliseconds since the watchdog's origin, plus one;
    /// 0: it waits.
    held_since: AtomicU64,
}

impl Watchdog {
    /// Starts its thread and a task on this runtime; both end when it is dropped.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let dog = Arc::new(Self {
            origin: Instant::now(),
            watched: Mutex::default(),
            next: AtomicU64::new(0),
            tick_ms: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&dog);
        std::thread::Builder::new().name("windlass-watch".into()).spawn(move || look(&weak))?;
        let weak = Arc::downgrade(&dog);
        tokio::spawn(async move {
            while let Some(dog) = weak.upgrade() {
                dog.tick_ms.store(dog.now_ms(), Ordering::Relaxed);
                drop(dog);
                tokio::time::sleep(LOOK_EVERY / 2).await;
            }
        });
        Ok(dog)
    }

    /// Runs a handler's future and notes when it holds its thread.
    pub(crate) async fn watch<F: Future>(&self, kind: &'static str, lease: Lease, work: F) -> F::Output {
        let watched = Arc::new(Watched { kind, lease, held_since: AtomicU64::new(0) });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Arc::clone(&watched));
        let _forget = Forget { dog: self, number };
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| {
            watched.held_since.store(self.now_ms() + 1, Ordering::Relaxed);
            let polled = work.as_mut().poll(context);
            watched.held_since.store(0, Ordering::Relaxed);
            polled
        })
        .await
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Watched>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a future off the list however it ends.
struct Forget<'a> {
    dog: &'a Watchdog,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.dog.lock().remove(&self.number);
    }
}

/// Looks until the watchdog is gone; each block is reported once.
fn look(dog: &Weak<Watchdog>) {
    let mut reported = HashMap::new();
    let mut stalled = false;
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(dog) = dog.upgrade() else { return };
        let now_ms = dog.now_ms();
        let mut held = HashMap::new();
        for (number, watched) in dog.lock().iter() {
            let since = watched.held_since.load(Ordering::Relaxed);
            if since > 0 && is_blocked(since - 1, now_ms) {
                held.insert(*number, (since, Arc::clone(watched)));
            }
        }
        for (number, (since, watched)) in &held {
            if reported.get(number) != Some(since) {
                let (held_ms, kind, job) = (now_ms - (since - 1), watched.kind, watched.lease.ulid);
                tracing::warn!(kind, %job, held_ms, "runtime blocked");
            }
        }
        reported = held.into_iter().map(|(number, (since, _))| (number, since)).collect();
        let still = is_blocked(dog.tick_ms.load(Ordering::Relaxed), now_ms);
        if still && !stalled && reported.is_empty() {
            tracing::warn!("runtime blocked: no thread of it answers, and no handler holds one");
        }
        stalled = still;
    }
}

fn is_blocked(since_ms: u64, now_ms: u64) -> bool {
    Duration::from_millis(now_ms.saturating_sub(since_ms)) >= BLOCKED_AFTER
}
