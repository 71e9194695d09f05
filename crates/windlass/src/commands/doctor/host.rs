//! What this machine gives: folders, room on its disks, and what confines children.

use std::path::Path;

use windlass_worker::{Isolation, Sandbox};

use super::Finding;

/// Less than this is soon used up, in bytes.
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
/// With less than this nothing works for long, in bytes.
const NO_ROOM: u64 = 64 * 1024 * 1024;

/// A file can be written there.
pub(super) fn writable(name: &'static str, dir: &Path) -> Finding {
    let probe = dir.join(format!(".windlass-doctor-{}", std::process::id()));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&probe, b"windlass"));
    let _ = std::fs::remove_file(&probe);
    match written {
        Ok(()) => Finding::ok(name, format!("{} can be written", dir.display())),
        Err(e) => Finding::fail(name, format!("{}: {e}", dir.display())),
    }
}

/// How much its file system still takes.
pub(super) fn room(name: &'static str, dir: &Path) -> Finding {
    let Ok(found) = rustix::fs::statvfs(dir) else {
        return Finding::warn(name, format!("{}: its file system does not say how much room it has", dir.display()));
    };
    let (free, all) = (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize));
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let said = format!("{}: {} of {} MiB free", dir.display(), mib(free), mib(all));
    match free {
        ..NO_ROOM => Finding::fail(name, format!("{said}; make room")),
        NO_ROOM..LITTLE_ROOM => Finding::warn(name, format!("{said}; make room soon")),
        _ if free < all / 20 => Finding::warn(name, format!("{said}; make room soon")),
        _ => Finding::ok(name, said),
    }
}

/// Starts a child and hears what confines it.
pub(super) async fn sandbox(isolation: &Isolation) -> (Option<Sandbox>, Finding) {
    match isolation.try_out().await {
        Ok(sandbox) => {
            let missing = sandbox.missing();
            let finding = if missing.is_empty() {
                Finding::ok("sandbox", sandbox.to_string())
            } else {
                Finding::warn("sandbox", format!("{sandbox}; without {}", missing.join("; ")))
            };
            (Some(sandbox), finding)
        }
        Err(e) => {
            let program = isolation.program.display();
            (None, Finding::fail("sandbox", format!("no child can be started: {program}: {e}")))
        }
    }
}
