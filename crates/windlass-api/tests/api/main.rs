//! The API as its callers see it, over a broker that is the model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod blobs;
mod cache;
mod caching;
mod control;
mod cross;
mod document;
mod enqueue;
mod errors;
mod events;
mod health;
mod images;
mod market;
mod results;
mod schedules;
mod support;
mod tasks;
mod wire;
