//! The attempts of a job: who ran it, from when to when, and how each run ended.
//!
//! What a job's record says of its last run is kept nowhere else: a job that succeeds at once has no
//! ledger. Only a run that is followed by another one leaves an entry, beside the error of the job: the
//! first line is that error, each further line an entry, newest first, as
//! `<run> <attempt> <started ms> <ended ms> <end> <worker> <error>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::job::{JobRecord, Reason, State};
use crate::outcome::RunError;
use crate::time::Timestamp;

/// Attempts of a job that are known at most, the last one included.
pub const MAX_ATTEMPTS_KEPT: usize = 20;
/// Entries kept: all but the last attempt, which the record tells.
const MAX_ENTRIES: usize = MAX_ATTEMPTS_KEPT - 1;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It failed, and the job was to be tried again.
    Retried,
    /// Its lease ended without a word of its worker.
    Lost,
    /// It failed, and the job with it; somebody had it start anew.
    Failed(Reason),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retried => f.write_str("retried"),
            Self::Lost => f.write_str("lost"),
            Self::Failed(reason) => reason.fmt(f),
        }
    }
}

impl FromStr for End {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "retried" => Ok(Self::Retried),
            "lost" => Ok(Self::Lost),
            reason => reason.parse().map(Self::Failed),
        }
    }
}

/// An attempt that was followed by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which claim of the job it was, from 1. Claims that were put off or given back are no attempts,
    /// so that there may be gaps.
    pub run: u32,
    /// Which attempt it was, from 1. One that was lost spends none: the next has the same number.
    pub attempt: u32,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended, by the broker's clock.
    pub ended_at: Timestamp,
    /// How.
    pub end: End,
    /// Who ran it.
    pub worker: String,
    /// Its error, if it left one.
    pub error: Option<RunError>,
}

impl Entry {
    /// The line it is kept as.
    fn line(&self) -> String {
        let Self { run, attempt, started_at, ended_at, end, worker, error } = self;
        let error = error.as_ref().and_then(|error| serde_json::to_string(error).ok()).unwrap_or_default();
        format!("{run} {attempt} {} {} {end} {worker} {error}", started_at.0, ended_at.0)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        Some(Self {
            run: words.next()?.parse().ok()?,
            attempt: words.next()?.parse().ok()?,
            started_at: Timestamp(words.next()?.parse().ok()?),
            ended_at: Timestamp(words.next()?.parse().ok()?),
            end: words.next()?.parse().ok()?,
            worker: words.next()?.to_owned(),
            error: words.next().and_then(|error| serde_json::from_str(error).ok()),
        })
    }
}

/// Adds an entry to those of a job, which are newest first; the oldest goes where there are too many.
pub fn push(entries: &mut Vec<Entry>, entry: Entry) {
    entries.insert(0, entry);
    entries.truncate(MAX_ENTRIES);
}

/// What is kept beside a job: its error, and its entries, newest first.
#[must_use]
pub fn read(text: &str) -> (Option<RunError>, Vec<Entry>) {
    let mut lines = text.split('\n');
    let error = lines.next().and_then(|error| serde_json::from_str(error).ok());
    (error, lines.filter_map(Entry::read).collect())
}

/// The same text with another error, as JSON text.
#[must_use]
pub fn with_error(text: &str, error: &str) -> String {
    let entries = text.find('\n').map_or("", |at| &text[at..]);
    format!("{error}{entries}")
}

/// The same text with one entry more.
#[must_use]
pub fn with_entry(text: &str, entry: Entry) -> String {
    let error = text.split('\n').next().unwrap_or_default();
    let (_, mut entries) = read(text);
    push(&mut entries, entry);
    let mut all = error.to_owned();
    for entry in &entries {
        all.push('\n');
        all.push_str(&entry.line());
    }
    all
}

/// One attempt of a job, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// As [`Entry::run`].
    pub run: u32,
    /// As [`Entry::attempt`].
    pub attempt: u32,
    /// Who ran it.
    pub worker: Option<String>,
    /// When it was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<Timestamp>,
    /// From the one to the other, in ms.
    pub duration_ms: Option<u64>,
    /// `running`, `success`, `failure`, `cancelled`, `retried` (it failed, and there was another one) or
    /// `lost` (its lease ended without a word of its worker).
    pub outcome: String,
    /// Why it failed, where the job failed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

impl JobRecord {
    /// The attempts of a job, the first one first, [`MAX_ATTEMPTS_KEPT`] at most.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        let earlier = self.earlier.iter().rev().map(|entry| {
            let reason = if let End::Failed(reason) = entry.end { Some(reason) } else { None };
            Attempt {
                run: entry.run,
                attempt: entry.attempt,
                worker: Some(entry.worker.clone()),
                started_at: Some(entry.started_at),
                ended_at: Some(entry.ended_at),
                duration_ms: Some(ms_between(entry.started_at, entry.ended_at)),
                outcome: if reason.is_some() { State::Failure.to_string() } else { entry.end.to_string() },
                reason,
                error: entry.error.clone(),
            }
        });
        earlier.chain(self.last_attempt()).collect()
    }

    /// The attempt that the record itself tells of: the one that runs, or that ended the job.
    fn last_attempt(&self) -> Option<Attempt> {
        let is_told = self.state == State::Running || self.state.is_terminal();
        let started_at = self.started_at.filter(|_| is_told && self.epoch > 0)?;
        if self.earlier.first().is_some_and(|entry| entry.run == self.epoch) {
            return None;
        }
        let spent = self.state == State::Failure && self.reason != Some(Reason::Poisoned);
        Some(Attempt {
            run: self.epoch,
            attempt: if spent { self.failures.max(1) } else { self.failures + 1 },
            worker: self.worker.clone(),
            started_at: Some(started_at),
            ended_at: self.finished_at,
            duration_ms: self.finished_at.map(|at| ms_between(started_at, at)),
            outcome: self.state.to_string(),
            reason: self.reason,
            error: self.error.clone().filter(|_| matches!(self.state, State::Failure | State::Cancelled)),
        })
    }

    /// The entry that the attempt which the record tells of leaves when it ends and another follows.
    #[must_use]
    pub fn entry(&self, end: End, ended_at: Timestamp) -> Option<Entry> {
        let error = self.error.clone().filter(|_| end != End::Lost);
        // What was lost, or stopped for being lost, has spent none.
        let attempt = match end {
            End::Lost | End::Failed(Reason::Poisoned) => self.failures + 1,
            _ => self.failures,
        };
        let (started_at, worker) = (self.started_at?, self.worker.clone()?);
        Some(Entry { run: self.epoch, attempt, started_at, ended_at, end, worker, error })
    }
}

fn ms_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(run: u32) -> Entry {
        let error = Some(RunError::new("boom", "a\nb \u{2028} c"));
        let (started_at, ended_at) = (Timestamp(1_000), Timestamp(1_500));
        Entry { run, attempt: run, started_at, ended_at, end: End::Retried, worker: "w-1".into(), error }
    }

    #[test]
    fn the_newest_entries_are_kept_beside_the_error() {
        let mut text = r#"{"code":"first","message":""}"#.to_owned();
        for run in 1..=40 {
            text = with_entry(&text, entry(run));
        }
        text = with_error(&text, r#"{"code":"last","message":""}"#);
        let (error, entries) = read(&text);
        assert_eq!(error.unwrap().code, "last");
        assert_eq!(entries.len(), MAX_ENTRIES);
        assert_eq!(entries.first(), Some(&entry(40)));
        assert_eq!(entries.last(), Some(&entry(22)));
        assert_eq!(read(&with_entry("", entry(1))), (None, vec![entry(1)]));
        assert_eq!(read(""), (None, Vec::new()));
    }

    #[test]
    fn every_end_round_trips() {
        for end in [End::Retried, End::Lost].into_iter().chain(Reason::ALL.map(End::Failed)) {
            assert_eq!(end.to_string().parse(), Ok(end));
        }
    }
}
