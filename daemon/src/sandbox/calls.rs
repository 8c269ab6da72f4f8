//! Which system calls, by seccomp: what a program needs that computes with threads over files it may open.
//!
//! All others, those to come included, answer that there is no such call, which every library can live with. Among them
//! are all that make a socket, start a program or another process, reach into one, or change a file's owner or mode.

use anyhow::Context as _;
use libc::{CLONE_THREAD, O_TRUNC};
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

/// Calls with any arguments.
#[rustfmt::skip]
const FREE: &[i64] = &[
    // Memory
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mbind, libc::SYS_membarrier, libc::SYS_memfd_create, libc::SYS_mincore,
    libc::SYS_get_mempolicy, libc::SYS_set_mempolicy, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_mlockall, libc::SYS_munlock,
    libc::SYS_munlockall, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_msync, libc::SYS_munmap,
    // Files, as far as Landlock lets them be opened
    libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_fadvise64, libc::SYS_fallocate, libc::SYS_fcntl, libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_fstat,
    libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_ioctl,
    libc::SYS_lseek, libc::SYS_newfstatat, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_pwrite64,
    libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read, libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv,
    libc::SYS_statfs, libc::SYS_statx, libc::SYS_write, libc::SYS_writev,
    // Waiting, and what the daemon gave
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_eventfd2, libc::SYS_getsockname,
    libc::SYS_getsockopt, libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_recvfrom, libc::SYS_recvmsg,
    libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_shutdown,
    // Threads
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_get_robust_list, libc::SYS_getcpu, libc::SYS_getpriority,
    libc::SYS_prctl, libc::SYS_rseq, libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler, libc::SYS_sched_yield, libc::SYS_set_robust_list, libc::SYS_set_tid_address,
    libc::SYS_setpriority,
    // Signals of its own
    libc::SYS_restart_syscall, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack,
    // Time, and who and where it is
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_getegid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getrandom, libc::SYS_getrusage, libc::SYS_gettid,
    libc::SYS_gettimeofday, libc::SYS_getuid, libc::SYS_nanosleep, libc::SYS_sysinfo, libc::SYS_times, libc::SYS_uname,
];

/// Older names of calls above, which newer processors never had.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: &[i64] = &[
    libc::SYS_access, libc::SYS_arch_prctl, libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd,
    libc::SYS_getdents, libc::SYS_getrlimit, libc::SYS_lstat, libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_select,
    libc::SYS_stat, libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// `makes`: it may make files, where Landlock lets it.
pub(super) fn restrict(makes: bool) -> anyhow::Result<()> {
    let filter: BpfProgram = filter(makes)?.try_into()?;
    seccompiler::apply_filter(&filter).context("seccomp")?;
    Ok(())
}

fn filter(makes: bool) -> anyhow::Result<SeccompFilter> {
    let own = u64::from(std::process::id());
    let where_ = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, Dword, operator, value)?;
        Ok::<_, anyhow::Error>(vec![SeccompRule::new(vec![condition])?])
    };
    let bit = |bit: i32| SeccompCmpOp::MaskedEq(u64::from(bit.unsigned_abs()));
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> =
        FREE.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    // Before its third version, Landlock lets a file that may be read be opened so, and emptied by that.
    let no_emptying = |flags| if makes { Ok(Vec::new()) } else { where_(flags, bit(O_TRUNC), 0) };
    calls.insert(libc::SYS_openat, no_emptying(2)?);
    #[cfg(target_arch = "x86_64")]
    calls.insert(libc::SYS_open, no_emptying(1)?);
    // Threads and no processes. The newer `clone3` hides its flags from seccomp.
    calls.insert(
        libc::SYS_clone,
        where_(0, bit(CLONE_THREAD), u64::from(CLONE_THREAD.unsigned_abs()))?,
    );
    // What `abort` and `raise` do.
    calls.insert(libc::SYS_tgkill, where_(0, SeccompCmpOp::Eq, own)?);
    calls.insert(libc::SYS_prlimit64, where_(0, SeccompCmpOp::Eq, 0)?);
    let arch = std::env::consts::ARCH.try_into()?;
    // On Linux the error's number is the same for all that seccompiler knows.
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    Ok(SeccompFilter::new(calls, absent, SeccompAction::Allow, arch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_allows_nothing_that_leaves_the_process() {
        let filter = filter(false).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        assert!(!program.is_empty());
        for call in [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone3,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_kill,
            libc::SYS_io_uring_setup,
            libc::SYS_fchmodat,
            libc::SYS_truncate,
        ] {
            assert!(!FREE.contains(&call) && !OLD.contains(&call), "{call}");
        }
    }
}
