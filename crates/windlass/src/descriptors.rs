//! How many files this process may have open: connections take no more than leave some for Redis,
//! children and files, so that one without end never meets the other.

use rustix::process::{Resource, getrlimit, setrlimit};
use windlass_api::ApiOptions;

/// Kept for everything but connections, where there are enough.
const RESERVE: u64 = 128;

/// Raises the soft limit to what the system allows: it stands low for programs that use `select`.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused only where somebody forbids even that; the limit as it is does then.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Connections the API may have open at once; further ones wait in the kernel's queue.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(ApiOptions::CONNECTIONS, of_limit).min(ApiOptions::CONNECTIONS)
}

/// With few descriptors a third is for connections: an idle process with a worker has about 30.
fn of_limit(limit: u64) -> usize {
    let left = if limit >= 4 * RESERVE { limit - RESERVE } else { limit / 3 };
    usize::try_from(left.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::of_limit;

    #[test]
    fn f52_connections_leave_descriptors_for_the_rest() {
        assert_eq!((of_limit(64), of_limit(256), of_limit(1024)), (21, 85, 896));
    }
}
