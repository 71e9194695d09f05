//! What ends with the runs that this process claimed: it says so with their ends, and spares Redis a look
//! into each job. An end of another process' run says nothing, and the script looks it up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use windlass_jobs::Lease;
use windlass_jobs::command::Finish;

/// Runs that are remembered; those that end nowhere, as their leases are lost, are forgotten with all others.
const MOST: usize = 100_000;

/// What a run holds: its ordering, concurrency and unique key with tabs between, or nothing.
pub(super) type Held = (Lease, Box<str>);

/// What runs hold. Those of queues without lanes, limits and unique keys are not here.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_run: Mutex<HashMap<Lease, Box<str>>>,
}

impl Holds {
    /// Remembers what ends with these runs.
    pub(super) fn note(&self, holds: Vec<Held>) {
        if holds.is_empty() {
            return;
        }
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if by_run.len() + holds.len() > MOST {
            by_run.clear();
        }
        by_run.extend(holds);
    }

    /// What ends with each of these runs, as far as it is known; it is forgotten.
    pub(super) fn take(&self, finishes: &[Finish]) -> Vec<Option<Box<str>>> {
        let mut by_run = self.by_run.lock().unwrap_or_else(PoisonError::into_inner);
        if by_run.is_empty() {
            return Vec::new();
        }
        finishes.iter().map(|finish| by_run.remove(&finish.lease)).collect()
    }
}
