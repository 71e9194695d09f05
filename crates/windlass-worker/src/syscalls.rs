//! The system calls a child may make: those of a program that computes, allocates, and reads and
//! writes files it can reach.
//!
//! A list of what is allowed, so that a call nobody thought of is refused. Most refused calls
//! answer EPERM; those that reach into other processes or the kernel kill the child.

use std::collections::BTreeMap;

use libc::{
    CLONE_THREAD, ENOSYS, EPERM, PR_SET_NAME, PROT_EXEC, SYS_clone, SYS_clone3, SYS_ioctl, SYS_mmap, SYS_mprotect,
    SYS_prctl, SYS_prlimit64, SYS_tgkill, TCGETS, c_long,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Error = Box<dyn std::error::Error>;

/// Names an anonymous mapping; glibc and allocators do it (linux/prctl.h).
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Allowed with any arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // memory
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mremap, libc::SYS_munmap, libc::SYS_membarrier,
    // open files
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_lseek, libc::SYS_close, libc::SYS_fstat, libc::SYS_fcntl,
    libc::SYS_dup, libc::SYS_dup3, libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_flock, libc::SYS_ftruncate,
    libc::SYS_fallocate, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_copy_file_range, libc::SYS_sendfile,
    libc::SYS_fadvise64,
    // names below what landlock leaves
    libc::SYS_openat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_chdir, libc::SYS_getcwd, libc::SYS_truncate,
    // threads and signals of its own
    libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_rseq, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_gettid, libc::SYS_getpid, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack, libc::SYS_restart_syscall,
    libc::SYS_set_tid_address,
    // time, chance, limits
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_getrandom, libc::SYS_getrusage, libc::SYS_sysinfo, libc::SYS_uname,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid,
];

/// The older names of the same calls, which not every processor has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_mkdir,
    libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename, libc::SYS_dup2, libc::SYS_pipe, libc::SYS_poll,
    libc::SYS_time, libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Nothing honest comes near these.
#[rustfmt::skip]
const DEADLY: &[c_long] = &[
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_bpf, libc::SYS_mount,
    libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_setns, libc::SYS_unshare,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_reboot,
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_keyctl,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_open_by_handle_at, libc::SYS_pidfd_getfd,
];

/// Filters this thread's calls, and those of the threads it starts, for good.
///
/// # Errors
/// When this processor or kernel has no filters, or the process may not set them.
pub(crate) fn filter() -> Result<(), Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let program = |rules, mismatch, matching| -> Result<BpfProgram, Error> {
        Ok(SeccompFilter::new(rules, mismatch, matching, arch)?.try_into()?)
    };
    let number = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    // All are built before the first is applied. Of several filters the strictest answer counts.
    let deadly = program(plain(DEADLY), SeccompAction::Allow, SeccompAction::KillProcess)?;
    // Its flags lie in memory, where no filter sees them: libraries then fall back to clone.
    let clone3 = program(plain(&[SYS_clone3]), SeccompAction::Allow, number(ENOSYS))?;
    let allowed = program(allowed()?, number(EPERM), SeccompAction::Allow)?;
    for program in [deadly, clone3, allowed] {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn plain(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn allowed() -> Result<Rules, Error> {
    let mut rules = plain(ALLOWED);
    rules.extend(plain(ALLOWED_HERE));
    rules.insert(SYS_clone3, Vec::new());
    let no_code = bits(2, PROT_EXEC.unsigned_abs().into(), 0)?;
    rules.insert(SYS_mmap, vec![no_code.clone()]);
    rules.insert(SYS_mprotect, vec![no_code]);
    let thread = u64::from(CLONE_THREAD.unsigned_abs());
    rules.insert(SYS_clone, vec![bits(0, thread, thread)?]);
    // abort() and raise(): a signal to itself.
    rules.insert(SYS_tgkill, vec![equal(0, std::process::id().into())?]);
    // Its own limits; the hard ones hold.
    rules.insert(SYS_prlimit64, vec![equal(0, 0)?]);
    rules.insert(SYS_prctl, vec![equal(0, PR_SET_NAME.unsigned_abs().into())?, equal(0, PR_SET_VMA)?]);
    // "Is this a terminal?"
    rules.insert(SYS_ioctl, vec![equal(1, TCGETS)?]);
    Ok(rules)
}

fn equal(arg: u8, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

/// The bits of `mask` in an argument are those of `value`.
fn bits(arg: u8, mask: u64, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(arg, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_deadly() {
        let both = DEADLY.iter().find(|call| ALLOWED.contains(call) || ALLOWED_HERE.contains(call));
        assert_eq!(both, None);
    }

    #[test]
    fn nothing_that_starts_processes_or_reaches_the_network_is_allowed() {
        let rules = allowed().unwrap();
        for call in [libc::SYS_socket, libc::SYS_execve, libc::SYS_execveat, libc::SYS_kill, libc::SYS_symlinkat] {
            assert!(!rules.contains_key(&call), "{call}");
        }
    }
}
