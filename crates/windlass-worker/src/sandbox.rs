//! What a child gives up before it sees a job: files outside its directory, the network, other
//! processes, new programs.
//!
//! Landlock confines files, seccomp confines system calls; a kernel without one of them leaves
//! the other, and the child says which. Neither can be taken back.

use std::fmt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

use crate::syscalls;

/// The newest landlock this code was tested with; an older kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V7;
/// Public data a library may read: the time zones.
const READABLE: &[&str] = &["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];

/// How well the children are confined on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The landlock version enforced on files and signals; 0: none.
    pub landlock_abi: u32,
    /// True when everything asked of landlock is enforced.
    pub landlock_full: bool,
    /// True when system calls are filtered: no sockets, processes, programs.
    pub seccomp: bool,
    /// True when no program can give more rights than these.
    pub no_new_privs: bool,
}

impl Sandbox {
    /// What this machine does not give, for people; empty when the sandbox is complete.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let landlock = match (self.landlock_abi, self.landlock_full) {
            (_, true) => None,
            (0, false) => Some("landlock (a child can read and write the worker's files; Linux 5.13 or later has it)"),
            _ => Some("parts of landlock (an older kernel; Linux 6.15 or later has all)"),
        };
        let seccomp = (!self.seccomp).then_some("seccomp (a child can open sockets and start programs)");
        let privs = (!self.no_new_privs).then_some("no-new-privileges");
        [landlock, seccomp, privs].into_iter().flatten().collect()
    }

    /// True when nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().is_empty()
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.landlock_abi {
            0 => f.write_str("no landlock")?,
            abi => write!(f, "landlock {abi}")?,
        }
        f.write_str(if self.seccomp { ", seccomp" } else { ", no seccomp" })
    }
}

/// Confines this process, which must have one thread, to a directory. What the kernel lacks is
/// left out.
pub(crate) fn confine(dir: &Path) -> Sandbox {
    let no_new_privs = rustix::thread::set_no_new_privs(true).is_ok();
    // A failure in the middle enforces nothing, and is told as such.
    let (landlock_abi, landlock_full) = confine_files(dir).unwrap_or((0, false));
    // Last: landlock's own calls are not among the allowed ones.
    let seccomp = syscalls::filter().is_ok();
    Sandbox { landlock_abi, landlock_full, seccomp, no_new_privs }
}

/// The landlock version, and whether all of it is enforced.
fn confine_files(dir: &Path) -> Result<(u32, bool), Box<dyn std::error::Error>> {
    // Links to elsewhere, device files and pipes are nobody's artifact.
    let special = AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::MakeSym
        | AccessFs::IoctlDev
        | AccessFs::Execute;
    let own = AccessFs::from_all(LANDLOCK) & !special;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(dir)?, own))?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            effective_abi as u32
        }
        _ => 0,
    };
    Ok((abi, status.ruleset == RulesetStatus::FullyEnforced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let check = |landlock_abi, landlock_full, seccomp, expected: &[&str]| {
            let sandbox = Sandbox { landlock_abi, landlock_full, seccomp, no_new_privs: true };
            let missing = sandbox.missing();
            assert_eq!(missing.len(), expected.len(), "{missing:?}");
            assert!(missing.iter().zip(expected).all(|(m, e)| m.starts_with(e)), "{missing:?}");
        };
        check(7, true, true, &[]);
        check(3, false, true, &["parts of landlock"]);
        check(0, false, true, &["landlock"]);
        check(0, false, false, &["landlock", "seccomp"]);
    }
}
