//! Prices, candles, positions: stop-loss and take-profit decided on every quote.
//!
//! The rules are pure: integers in, decisions out, no clock and no IO. Prices are integer
//! points (price × 10^digits); this crate never computes with a floating-point price, never
//! rounds a price that does not fit, and never triggers anything on a price made up for display.

#![forbid(unsafe_code)]

pub mod calendar;
pub mod callback;
pub mod calm;
pub mod candle;
mod csv;
pub mod desk;
pub mod engine;
pub mod explain;
mod feed;
pub mod guard;
pub mod index;
mod ingest;
pub mod kinds;
mod market;
pub mod positions;
pub mod price;
pub mod prices;
pub mod replay;
pub mod rollup;
pub mod rules;
pub mod sources;
mod stop;
pub mod synthetic;
pub mod wire;

pub use csv::Error as CsvError;
pub use feed::FeedOptions;
pub use ingest::{Answer, MAX_WAITING, TakeError};
pub use kinds::{QUEUE, register};
pub use market::{Counters, Market, Nearest, Watcher, Where};
