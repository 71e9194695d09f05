//! Servers that the tests of a process share, each with a key prefix of its own. None of them is
//! flushed, frozen, killed or restarted; all are gone, with their files, when the process ends.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Certificates, RedisCluster, RedisSentinels, RedisServer};

/// One that speaks TLS alone, with its certificates.
///
/// # Panics
/// As [`RedisServerBuilder::start`](crate::RedisServerBuilder::start).
pub fn shared_tls_redis() -> &'static (RedisServer, Certificates) {
    static SHARED: OnceLock<(RedisServer, Certificates)> = OnceLock::new();
    SHARED.get_or_init(|| {
        let certificates = Certificates::new();
        let server = RedisServer::builder().tls(&certificates).start();
        remove_at_exit(server.dir().to_owned());
        remove_at_exit(certificates.dir().to_owned());
        (server, certificates)
    })
}

/// A primary with a replica and three sentinels.
///
/// # Panics
/// As [`RedisSentinels::start`].
pub fn shared_sentinels() -> &'static RedisSentinels {
    static SHARED: OnceLock<RedisSentinels> = OnceLock::new();
    SHARED.get_or_init(|| {
        let set = RedisSentinels::start(1);
        set.dirs().for_each(remove_at_exit);
        set
    })
}

/// A cluster of three primaries.
///
/// # Panics
/// As [`RedisCluster::start`].
pub fn shared_cluster() -> &'static RedisCluster {
    static SHARED: OnceLock<RedisCluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = RedisCluster::start(3, 0);
        cluster.nodes().iter().for_each(|node| remove_at_exit(node.dir().to_owned()));
        cluster
    })
}

/// Removes a folder when the process ends: statics are not dropped.
fn remove_at_exit(dir: PathBuf) {
    static DIRS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    extern "C" fn remove() {
        for dir in DIRS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // What a server writes meanwhile goes with it or stays in the temporary directory.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
    let mut dirs = DIRS.lock().unwrap_or_else(PoisonError::into_inner);
    if dirs.is_empty() {
        // SAFETY: the function is of this program, takes nothing and does not unwind.
        unsafe { libc::atexit(remove) };
    }
    dirs.push(dir);
}
