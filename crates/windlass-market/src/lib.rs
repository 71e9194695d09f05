//! Prices, candles, positions: stop-loss and take-profit decided on every quote.
//!
//! The rules are pure: integers in, decisions out, no clock and no IO. Prices are integer
//! points (price × 10^digits); this crate never computes with a floating-point price, never
//! rounds a price that does not fit, and never triggers anything on a price made up for display.

#![forbid(unsafe_code)]

pub mod calendar;
pub mod candle;
mod csv;
pub mod engine;
pub mod explain;
pub mod guard;
pub mod index;
pub mod kinds;
pub mod positions;
pub mod price;
pub mod replay;
pub mod rules;
pub mod synthetic;

pub use csv::Error as CsvError;
pub use kinds::register;
