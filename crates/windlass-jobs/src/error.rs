//! Errors as a log says them.

/// An error with all its sources, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |e| e.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
