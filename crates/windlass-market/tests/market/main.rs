//! The rules, the index, the candles and the replay, held against oracles written from the text
//! of the rules alone.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod callback;
mod candles;
mod engine;
mod index;
mod mapped;
mod naive;
mod positions;
mod prices;
mod replay;
mod rollup;
mod rules;
mod sources;
mod watch;
mod workers;
