//! Which system calls leave a trace that outlives the memory of their process.
//!
//! A process whose memory is rewound is as fresh as one that has just been forked only if the
//! kernel remembers nothing of what it did. So every call that is not known to be harmless is
//! reported to the slot before it happens: everything that creates processes, threads, files or
//! names, changes limits, credentials, signal handlers, timers, mounts or directories, and every
//! socket that can be reached. Files in memory are made as new ([`super::files`]). What passes unreported reads, waits, or works on descriptors
//! that are compared, or closed, when the process is rewound.

use crate::seccomp::{AUDIT_ARCH, EQUAL, LOAD, RETURN, X32_BIT, jump, statement};
use rustix::fs::OFlags;

/// First argument of `prctl` of a call that is meant for the slot. No option of the kernel's.
pub(super) const OPTION: u64 = 0x4d53_4d52;

/// Second argument: the process can be rewound to here. The third and fourth are a buffer and its
/// size; the call returns how much the slot has written to it. The fifth is the address of a page
/// that the process and its template both write to, or 0.
pub(super) const STANDS: u64 = 0;

/// Second argument: the job has ended, and the third is the exit code that it would have. The
/// call returns when the process has to exit.
pub(super) const ENDED: u64 = 1;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REPORT: u32 = libc::SECCOMP_RET_USER_NOTIF;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;

/// Calls that leave nothing behind.
const HARMLESS: &[libc::c_long] = &[
    // Descriptors, of which all but those at the beginning are closed, and those compared.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_pipe2,
    libc::SYS_memfd_create,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Looking at files.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    // Looking at oneself and at the machine.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getpriority,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_capget,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getitimer,
    libc::SYS_rt_sigpending,
    // The directory is compared.
    libc::SYS_chdir,
    libc::SYS_fchdir,
    // The mask of signals is set back.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    // Waiting.
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // The end.
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const HARMLESS_HERE: &[libc::c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const HARMLESS_HERE: &[libc::c_long] = &[];

/// `TCGETS`, `TIOCGWINSZ`, `FIONREAD`, `FIONBIO`, `FIONCLEX`, `FIOCLEX`: what they change of the
/// descriptors at the beginning is compared.
const IOCTLS: &[u32] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];

const FCNTLS: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    // What locks the descriptors at the beginning have is compared.
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

const PRCTLS: &[libc::c_int] = &[
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NAME,
    libc::PR_GET_NO_NEW_PRIVS,
];

/// What opening a file for writing or creating one has among its flags.
const WRITES: u32 = OFlags::WRONLY.bits()
    | OFlags::RDWR.bits()
    | OFlags::CREATE.bits()
    | OFlags::TRUNC.bits()
    | OFlags::APPEND.bits();

/// A file without a name, which goes when it is closed. A name can be given to it only by a call
/// that is reported.
const NAMELESS: u32 = OFlags::TMPFILE.bits() & !OFlags::DIRECTORY.bits();

/// Offset of the lower half of an argument in `struct seccomp_data`.
const fn low(argument: u32) -> u32 {
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    16 + 8 * argument + half
}

const fn high(argument: u32) -> u32 {
    let half = if cfg!(target_endian = "big") { 0 } else { 4 };
    16 + 8 * argument + half
}

type Code = Vec<libc::sock_filter>;

/// Passes the call if an argument is one of some values.
fn one_of(argument: u32, values: impl Iterator<Item = u32>) -> Code {
    let mut code = vec![statement(LOAD, low(argument))];
    for value in values {
        code.extend([jump(EQUAL, value, 0, 1), statement(RETURN, ALLOW)]);
    }
    code.push(statement(RETURN, REPORT));
    code
}

/// Passes the call if a pointer is null, so that nothing is set.
fn null(argument: u32) -> Code {
    vec![
        statement(LOAD, low(argument)),
        jump(EQUAL, 0, 0, 3),
        statement(LOAD, high(argument)),
        jump(EQUAL, 0, 0, 1),
        statement(RETURN, ALLOW),
        statement(RETURN, REPORT),
    ]
}

/// Passes the call if none of some flags is given.
fn without(argument: u32, flags: u32) -> Code {
    vec![
        statement(LOAD, low(argument)),
        jump(ANY_BIT, flags, 1, 0),
        statement(RETURN, ALLOW),
        statement(RETURN, REPORT),
    ]
}

fn opens(flags: u32) -> Code {
    vec![
        statement(LOAD, low(flags)),
        jump(ANY_BIT, WRITES, 0, 1),
        jump(ANY_BIT, NAMELESS, 0, 1),
        statement(RETURN, ALLOW),
        statement(RETURN, REPORT),
    ]
}

/// Passes the call if it replaces no descriptor but a standard stream.
fn onto_standard_stream(argument: u32) -> Code {
    vec![
        statement(LOAD, low(argument)),
        jump(GREATER, 2, 1, 0),
        statement(RETURN, ALLOW),
        statement(RETURN, REPORT),
    ]
}

/// Calls that depend on their arguments.
fn conditional() -> Vec<(libc::c_long, Code)> {
    vec![
        (libc::SYS_openat, opens(2)),
        (libc::SYS_mmap, without(3, libc::MAP_FIXED as u32)),
        (
            libc::SYS_fcntl,
            one_of(1, FCNTLS.iter().map(|&value| value as u32)),
        ),
        (libc::SYS_ioctl, one_of(1, IOCTLS.iter().copied())),
        (
            libc::SYS_prctl,
            one_of(0, PRCTLS.iter().map(|&value| value as u32)),
        ),
        (libc::SYS_rt_sigaction, null(1)),
        (libc::SYS_prlimit64, null(2)),
        (libc::SYS_close_range, one_of(2, [0].into_iter())),
        (
            libc::SYS_socketpair,
            one_of(0, [libc::AF_UNIX as u32].into_iter()),
        ),
        // Nobody can connect to it until it is bound.
        (
            libc::SYS_socket,
            one_of(0, [libc::AF_UNIX as u32].into_iter()),
        ),
        (libc::SYS_dup3, onto_standard_stream(1)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_dup2, onto_standard_stream(1)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, opens(1)),
    ]
}

/// The filter, as the kernel takes it.
pub(super) fn program() -> Code {
    let mut program = vec![
        // offsetof(struct seccomp_data, arch)
        statement(LOAD, 4),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        statement(RETURN, REPORT),
        // offsetof(struct seccomp_data, nr)
        statement(LOAD, 0),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([jump(AT_LEAST, X32_BIT, 0, 1), statement(RETURN, REPORT)]);
    for (call, code) in conditional() {
        program.push(jump(EQUAL, call as u32, 0, code.len() as u8));
        program.extend(code);
    }
    for &call in HARMLESS.iter().chain(HARMLESS_HERE) {
        program.extend([jump(EQUAL, call as u32, 0, 1), statement(RETURN, ALLOW)]);
    }
    program.push(statement(RETURN, REPORT));
    program
}
