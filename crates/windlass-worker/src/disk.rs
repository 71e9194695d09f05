//! How much a job has written: what the kernel limits for one file only is added up here.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use windlass_jobs::{Reason, RunError};

use crate::policy::Ended;

/// How often is looked. In between a job writes what the disk takes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Files and folders a job may have: each costs the disk something, also when it is empty.
const MAX_ENTRIES: u64 = 100_000;

/// Waits until a job's directory holds more than it may; its inputs do not count.
pub(crate) async fn overrun(dir: &Path, most: u64) -> Ended {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let at = dir.to_owned();
        let Ok(used) = tokio::task::spawn_blocking(move || used(&at)).await else { continue };
        let what = if used.bytes > most {
            format!("it wrote {} bytes; {most} are allowed", used.bytes)
        } else if used.entries > MAX_ENTRIES {
            format!("it made over {MAX_ENTRIES} files")
        } else {
            continue;
        };
        return Ended::Failed { reason: Reason::Crashed, error: RunError::new("disk_limit", what), after: None };
    }
}

/// What lies below a job's directory, beside its inputs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    entries: u64,
}

/// Adds up what is there; a file that goes meanwhile is no longer there.
fn used(dir: &Path) -> Used {
    let mut used = Used::default();
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            // Not through links; blocks are of 512 bytes (stat(2)), so that holes do not count.
            let Ok(facts) = std::fs::symlink_metadata(&path) else { continue };
            if path == dir.join("in") {
                continue;
            }
            used.bytes += facts.blocks() * 512;
            used.entries += 1;
            if used.entries > MAX_ENTRIES {
                return used;
            }
            if facts.is_dir() {
                todo.push(path);
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_inputs_is_added_up() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["in", "out/deep"] {
            std::fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        let before = used(dir.path());
        std::fs::write(dir.path().join("in/blob"), vec![1; 1 << 20]).unwrap();
        assert_eq!(used(dir.path()), before, "inputs are not the job's");
        std::fs::write(dir.path().join("out/deep/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("out/link")).unwrap();
        let after = used(dir.path());
        assert_eq!(after.entries, before.entries + 2);
        assert!((1 << 20..2 << 20).contains(&(after.bytes - before.bytes)), "{after:?}");
    }

    #[tokio::test]
    async fn an_overrun_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![1; 1 << 16]).unwrap();
        let ended = overrun(dir.path(), 1 << 12).await;
        assert!(matches!(ended, Ended::Failed { error, .. } if error.code == "disk_limit"));
    }
}
