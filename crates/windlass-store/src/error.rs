//! What can go wrong with a store.

use std::path::PathBuf;

/// A store call that did not work out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not do it.
    #[error("{operation} on redis")]
    Redis {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: windlass_redis::Error,
    },
    /// A file could not be read or written.
    #[error("file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Too large to keep.
    #[error("{bytes} bytes; at most {max} are kept")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
}
