//! What systemd is told when it started this process as `Type=notify` (sd_notify(3)): ready,
//! stopping, and, for the watchdog, that the worker still proves that it can fetch.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use windlass_worker::{Condition, Health};

/// How often the state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tells until it is dropped, and then that the process stops.
pub(crate) struct Told(Option<JoinHandle<()>>);

/// Starts to tell; does nothing when nobody listens.
///
/// With a worker, ready is when its canary has come back for the first time, and the watchdog is
/// fed while the worker is alive. Without one, ready is now.
pub(crate) fn tell(worker: Option<Health>) -> Told {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Told(None);
    }
    // Half of what is allowed, as sd_watchdog_enabled(3) advises.
    let watchdog = sd_notify::watchdog_enabled().map(|span| span / 2);
    Told(Some(tokio::spawn(keep_telling(worker, watchdog))))
}

impl Told {
    /// The process was told to stop: systemd waits `TimeoutStopSec` for its end.
    pub(crate) fn stopping(&self) {
        if self.0.is_some() {
            say(&[NotifyState::Stopping, NotifyState::Status("stopping: no new jobs, running ones are finished")]);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.take().iter().for_each(JoinHandle::abort);
    }
}

async fn keep_telling(worker: Option<Health>, watchdog: Option<Duration>) {
    let every = watchdog.map_or(LOOK_EVERY, |span| span.min(LOOK_EVERY)).max(Duration::from_millis(10));
    let mut ticks = tokio::time::interval(every);
    let mut ready = false;
    let mut status = String::new();
    let mut fed = tokio::time::Instant::now();
    loop {
        let now = ticks.tick().await;
        let condition = worker.as_ref().map_or(Condition::Ready, Health::condition);
        if !ready && condition == Condition::Ready {
            ready = true;
            say(&[NotifyState::Ready]);
        }
        let current = worker.as_ref().map_or_else(|| "serving".to_owned(), describe);
        if current != status {
            say(&[NotifyState::Status(&current)]);
            status = current;
        }
        if let Some(span) = watchdog
            && condition != Condition::Dead
            && now.duration_since(fed) + every > span
        {
            fed = now;
            say(&[NotifyState::Watchdog]);
        }
    }
}

/// One line for `systemctl status`; it changes only when something does.
fn describe(worker: &Health) -> String {
    match worker.condition() {
        Condition::Starting => "waiting for the queue".to_owned(),
        Condition::Ready => "ready".to_owned(),
        Condition::Draining => "draining".to_owned(),
        Condition::CutOff => "cut off from the queue".to_owned(),
        Condition::Dead => "dead: cut off from the queue for too long".to_owned(),
    }
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}
