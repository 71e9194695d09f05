//! Leads as files: who runs a job of which there may be equal ones.
//!
//! `<dir>/leads/<key>` holds the leader's token and since when; its time of change is when the
//! lead ends. Whoever reads or writes one holds `<dir>/leads/.lock`, so that processes which share
//! the directory take turns.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Lead;

/// Takes or renews the lead; true beside it when it was taken anew.
pub(super) fn lead(dir: &Path, key: &str, token: &str, ttl: Duration) -> io::Result<(Lead, bool)> {
    let _lock = locked(dir)?;
    let path = dir.join(key);
    let now = SystemTime::now();
    let held = fs::read_to_string(&path).ok().and_then(|text| {
        let (since_ms, holder) = text.split_once(' ')?;
        let since = UNIX_EPOCH + Duration::from_millis(since_ms.parse().ok()?);
        let ends = fs::metadata(&path).ok()?.modified().ok()?;
        (ends > now).then(|| (since, holder.to_owned()))
    });
    let ends = now + ttl;
    match held {
        Some((since, holder)) if holder != token => {
            Ok((Lead::Other { age: now.duration_since(since).unwrap_or_default() }, false))
        }
        Some(_) => {
            File::options().write(true).open(&path)?.set_modified(ends)?;
            Ok((Lead::Mine, false))
        }
        None => {
            let since_ms = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            fs::write(&path, format!("{since_ms} {token}"))?;
            File::options().write(true).open(&path)?.set_modified(ends)?;
            Ok((Lead::Mine, true))
        }
    }
}

/// Ends a lead, if it is this token's.
pub(super) fn let_go(dir: &Path, key: &str, token: &str) -> io::Result<()> {
    let _lock = locked(dir)?;
    let path = dir.join(key);
    let is_ours = fs::read_to_string(&path).is_ok_and(|text| text.split_once(' ').is_some_and(|(_, t)| t == token));
    if is_ours { fs::remove_file(path) } else { Ok(()) }
}

fn locked(dir: &Path) -> io::Result<File> {
    super::file::private_dir(dir)?;
    let lock = File::options().create(true).append(true).open(dir.join(".lock"))?;
    lock.lock()?;
    Ok(lock)
}
