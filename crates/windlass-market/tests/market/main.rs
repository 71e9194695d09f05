//! The rules, the index, the candles and the replay, held against oracles written from the text
//! of the rules alone.

mod candles;
mod index;
mod naive;
mod replay;
mod rules;
