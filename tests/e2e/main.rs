//! End-to-end tests: the real binary, real servers, nothing mocked.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod away;
mod bad_input;
mod bridge;
mod cache;
mod catalogue;
mod charts;
mod cli;
mod dashboard;
mod demo;
mod doctor;
mod faults;
mod flows;
mod harness;
mod hostile;
mod http;
mod isolation;
mod keys;
mod layering;
mod liveness;
mod mapped;
mod market;
mod network;
mod observability;
mod records;
mod schedules;
mod shards;
mod sharing;
mod sheet_faults;
mod sheets;
mod soak;
mod sse;
mod ticks;
mod top;
mod topologies;
mod traces;
mod trading;
