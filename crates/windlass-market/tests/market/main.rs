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

/// Waits for what should happen soon, as long as it may take on a busy machine.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
