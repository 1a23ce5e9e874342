//! The system call filter of containers.
//!
//! It is installed once, in the launcher, and inherited by everything below it, so a job pays
//! nothing for it. It refuses what no test needs and what reaches past namespaces: kernel
//! modules, kexec, swap, clocks, key rings (which are not namespaced), performance counters of
//! other processes, and handles to files by number.

use crate::sys;
use rustix::io::Errno;

/// Refused with "operation not permitted".
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_syslog,
    libc::SYS_open_by_handle_at,
    libc::SYS_lookup_dcookie,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_move_pages,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

#[cfg(target_arch = "x86_64")]
pub(crate) const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(crate) const AUDIT_ARCH: u32 = 0xc000_00b7;

/// Numbers from here on are the x32 interface of x86-64, which is refused as a whole.
#[cfg(target_arch = "x86_64")]
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

pub(crate) const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

pub(crate) const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub(crate) const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
pub(crate) const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// A program that returns `verdict` for the listed calls of this architecture and lets all
/// others pass. Calls of other architectures (32-bit programs) pass too: what the list protects
/// is also guarded by missing capabilities.
pub(crate) fn program(calls: &[libc::c_long], verdict: u32) -> Vec<libc::sock_filter> {
    let mut program = vec![
        // offsetof(struct seccomp_data, arch)
        statement(LOAD, 4),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        // offsetof(struct seccomp_data, nr)
        statement(LOAD, 0),
    ];
    for &call in calls {
        program.push(jump(EQUAL, call as u32, 0, 1));
        program.push(statement(RETURN, verdict));
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

/// Installs a program for this thread and all its descendants. Returns what the kernel returns:
/// a listener's descriptor if the flags ask for one.
pub(crate) fn load(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<i32, Errno> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program lives through the call, and the kernel only reads it.
    sys::check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
    .map(|result| result as i32)
}

/// Installs the filter for this process and everything that it will start.
pub(crate) fn install() -> Result<(), Errno> {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    #[allow(unused_mut)]
    let mut filter = program(FORBIDDEN, refuse);
    #[cfg(target_arch = "x86_64")]
    filter.splice(
        4..4,
        [
            jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32_BIT, 0, 1),
            statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        ],
    );
    load(&filter, 0).map(|_| ())
}
