//! What is kept of a schedule: its definition with where it came from, where it stands, and its
//! ledger.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windlass_jobs::{JobId, Queue, Timestamp};

use crate::schedule::Definition;

/// The space of records that schedules live in.
pub const SPACE: &str = "sched";
/// The set of definitions: name → [`Kept`].
pub const SCHEDULES: &str = "schedules";
/// The set of states: name → [`State`].
pub const STATES: &str = "states";
/// Entries of a schedule's ledger that are kept.
pub const LEDGER_KEEP: u32 = 100;

/// Where a schedule came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The program brings it.
    Builtin,
    /// The settings file.
    Settings,
    /// HTTP or the command line.
    User,
}

/// A definition as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What was written.
    pub definition: Definition,
    /// The queue of its jobs: its own, or its kind's when it was set.
    pub queue: Queue,
    /// Where it came from.
    pub origin: Origin,
    /// A built-in one that was changed by hand: the program leaves it as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Put to rest by hand. Survives a change of its definition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Ticks up to this instant are none of its: it was made, changed or resumed then.
    pub from: Timestamp,
    /// When it was last changed.
    pub changed_at: Timestamp,
}

impl Kept {
    /// Whether it fires at all.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.definition.enabled && !self.paused
    }
}

/// Where a schedule stands: written by the leader with each tick it settles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Every tick up to this one is settled.
    pub cursor: Timestamp,
    /// The last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRun>,
    /// Ticks that wait for the run before them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Timestamp>,
    /// Ticks enqueued.
    #[serde(default)]
    pub fired_total: u64,
    /// Ticks skipped because of the run before them, or refused.
    #[serde(default)]
    pub skipped_total: u64,
    /// Ticks that nobody made up for.
    #[serde(default)]
    pub missed_total: u64,
}

/// The last run of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its tick.
    pub planned_at: Timestamp,
    /// When it was enqueued.
    pub fired_at: Timestamp,
    /// Its job.
    pub job: JobId,
}

/// What was done about a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its job was enqueued.
    Fired,
    /// Its job was enqueued and the run before cancelled.
    Replaced,
    /// Skipped: the run before had not ended.
    Overlap,
    /// Waits for the run before it.
    Held,
    /// Too late, and not made up for; stands for `count` ticks.
    Missed,
    /// Its job is one that no queue takes.
    Refused,
    /// Enqueued by hand, of no tick.
    Manual,
}

impl What {
    /// The word people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Replaced => "fired, the run before cancelled",
            Self::Overlap => "skipped: the run before had not ended",
            Self::Held => "held: waits for the run before",
            Self::Missed => "skipped: missed",
            Self::Refused => "skipped: refused",
            Self::Manual => "run by hand",
        }
    }
}

/// One entry of a ledger. Short names, for there are a hundred of each schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was done.
    #[serde(rename = "d")]
    pub what: What,
    /// When it was planned, in ms.
    #[serde(rename = "p")]
    pub planned_ms: i64,
    /// When it was done, in ms.
    #[serde(rename = "a")]
    pub actual_ms: i64,
    /// Its job.
    #[serde(rename = "j", default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The last tick it stands for, in ms, and how many.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(i64, u64)>,
    /// More, for a person.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Entry {
    /// An entry about one tick.
    #[must_use]
    pub const fn new(what: What, planned: Timestamp, actual: Timestamp) -> Self {
        Self { what, planned_ms: planned.0, actual_ms: actual.0, job: None, range: None, message: None }
    }

    /// The entry as HTTP and `--json` show it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let decision = match self.what {
            What::Overlap => "skipped_overlap",
            What::Missed => "skipped_missed",
            What::Refused => "skipped_refused",
            What::Fired => "fired",
            What::Replaced => "replaced",
            What::Held => "held",
            What::Manual => "manual",
        };
        json!({
            "planned_at": Timestamp(self.planned_ms),
            "actual_at": Timestamp(self.actual_ms),
            "late_ms": self.actual_ms - self.planned_ms,
            "decision": decision,
            "task_id": self.job,
            "until": self.range.map(|(until, _)| Timestamp(until)),
            "count": self.range.map_or(1, |(_, count)| count),
            "message": self.message,
        })
    }
}
