//! Enqueues periodic jobs at their times, one leader among any number of replicas.
//!
//! It never runs a job, never knows a kind, and never takes a local clock's word for what time it
//! is: the store says so. What a plan means ([`Plan`]), what is due and what was missed
//! ([`Schedule::settle`]) is pure; only the [`Book`] and the [`Runner`] touch a store.

#![forbid(unsafe_code)]

mod book;
mod counters;
mod due;
mod lease;
mod plan;
mod recent;
mod round;
mod runner;
mod schedule;
mod state;

pub use book::{BUILTIN_PREFIX, Book, Error, MAX_SCHEDULES, OVERDUE_AFTER, Synced, View};
pub use counters::Counters;
pub use due::{Decision, Due, MissedRange};
pub use lease::keep_copy;
pub use plan::{BadPlan, ClockChange, MAX_INTERVAL, MAX_PLAN_BYTES, MIN_INTERVAL, Plan, Zone};
pub use runner::{Runner, RunnerOptions};
pub use schedule::{
    Definition, GRACE, Kinds, LABEL, MAX_ARGS_BYTES, MAX_CATCH_UP, MAX_GRACE, MAX_HELD, MAX_JITTER, MAX_WINDOW, Missed,
    Overlap, Schedule, is_name,
};
pub use state::{Entry, Kept, LEDGER_KEEP, LastRun, Origin, SCHEDULES, SPACE, STATES, State, What};
