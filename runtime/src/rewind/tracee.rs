//! Stopping another process, and setting it back to where it was stopped before.
//!
//! See `ptrace(2)`. A process is traced only while it stands still.

use crate::sys;
use rustix::io::Errno;
use std::{ffi::c_void, mem::size_of};

/// A process that stands still until this is dropped.
pub(super) struct Stopped {
    pid: i32,
}

/// What a thread has in the processor, and the signals that it blocks.
pub(super) struct Registers {
    general: libc::user_regs_struct,
    extended: Vec<u8>,
    blocked: u64,
}

/// Larger than the extended state of any processor of today.
const EXTENDED_MAX_BYTES: usize = 16 << 10;

/// `NT_X86_XSTATE` of `elf.h`.
const EXTENDED_STATE: usize = 0x202;

impl Stopped {
    /// Stops a process. If it is in a system call, that call begins again when it goes on.
    pub(super) fn stop(pid: i32) -> Result<Self, Errno> {
        request(libc::PTRACE_SEIZE, pid, 0, 0)?;
        let stopped = Self { pid };
        request(libc::PTRACE_INTERRUPT, pid, 0, 0)?;
        let status = wait(pid)?;
        if libc::WIFSTOPPED(status) && status >> 16 == libc::PTRACE_EVENT_STOP {
            Ok(stopped)
        } else {
            Err(Errno::INTR)
        }
    }

    pub(super) fn registers(&self) -> Result<Registers, Errno> {
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut general: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let mut extended = vec![0; EXTENDED_MAX_BYTES];
        let mut blocked = 0_u64;
        get(self.pid, libc::NT_PRSTATUS as usize, bytes_of(&mut general))?;
        let length = get(
            self.pid,
            EXTENDED_STATE,
            (extended.as_mut_ptr().cast(), extended.len()),
        )?;
        extended.truncate(length);
        request(
            libc::PTRACE_GETSIGMASK,
            self.pid,
            size_of::<u64>(),
            (&raw mut blocked) as usize,
        )?;
        Ok(Registers {
            general,
            extended,
            blocked,
        })
    }

    /// Sets the process back. It was stopped in a system call when `registers` were read, and
    /// makes that call again when it goes on.
    pub(super) fn set(&self, registers: &Registers) -> Result<(), Errno> {
        let mut general = registers.general;
        call_again(&mut general);
        set(self.pid, libc::NT_PRSTATUS as usize, bytes_of(&mut general))?;
        let extended = (
            registers.extended.as_ptr().cast_mut().cast(),
            registers.extended.len(),
        );
        set(self.pid, EXTENDED_STATE, extended)?;
        let mut blocked = registers.blocked;
        request(
            libc::PTRACE_SETSIGMASK,
            self.pid,
            size_of::<u64>(),
            (&raw mut blocked) as usize,
        )
    }

    /// Lets the process run code of ours, which ends at a breakpoint. `registers` are where it goes
    /// on afterwards, or anywhere else in it.
    pub(super) fn run(
        &self,
        registers: &Registers,
        code: u64,
        arguments: [u64; 2],
    ) -> Result<(), Errno> {
        let mut general = registers.general;
        go_to(&mut general, code, arguments);
        set(self.pid, libc::NT_PRSTATUS as usize, bytes_of(&mut general))?;
        request(libc::PTRACE_CONT, self.pid, 0, 0)?;
        self.until_trapped()
    }

    /// Waits until the process has come to where it was to stop.
    fn until_trapped(&self) -> Result<(), Errno> {
        let status = wait(self.pid)?;
        if libc::WIFSTOPPED(status) && status >> 8 == libc::SIGTRAP {
            Ok(())
        } else {
            Err(Errno::INTR)
        }
    }

    /// Lets the process make one system call, where `registers` were read, with other arguments.
    /// `meanwhile` is called when it has begun. Returns what it returns.
    pub(super) fn call(
        &self,
        registers: &Registers,
        number: libc::c_long,
        arguments: [u64; 6],
        meanwhile: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<u64, Errno> {
        let mut general = registers.general;
        call_again(&mut general);
        other_call(&mut general, number, arguments);
        set(self.pid, libc::NT_PRSTATUS as usize, bytes_of(&mut general))?;
        request(libc::PTRACE_SINGLESTEP, self.pid, 0, 0)?;
        meanwhile()?;
        self.until_trapped()?;
        get(self.pid, libc::NT_PRSTATUS as usize, bytes_of(&mut general))?;
        Ok(result(&general))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if request(libc::PTRACE_DETACH, self.pid, 0, 0).is_err() {
            // It is dying, and whose child it is learns of it only after its tracer.
            let _ = wait(self.pid);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn call_again(general: &mut libc::user_regs_struct) {
    const INSTRUCTION_BYTES: u64 = 2;
    general.rip -= INSTRUCTION_BYTES;
    general.rax = general.orig_rax;
    // As if it had not been stopped in a call, so that the kernel does nothing about that.
    general.orig_rax = u64::MAX;
}

#[cfg(target_arch = "x86_64")]
fn other_call(general: &mut libc::user_regs_struct, number: libc::c_long, arguments: [u64; 6]) {
    general.rax = number as u64;
    [
        general.rdi,
        general.rsi,
        general.rdx,
        general.r10,
        general.r8,
        general.r9,
    ] = arguments;
}

#[cfg(target_arch = "x86_64")]
fn go_to(general: &mut libc::user_regs_struct, code: u64, arguments: [u64; 2]) {
    general.rip = code;
    [general.r8, general.r9] = arguments;
    general.orig_rax = u64::MAX;
}

#[cfg(target_arch = "x86_64")]
fn result(general: &libc::user_regs_struct) -> u64 {
    general.rax
}

type Bytes = (*mut c_void, usize);

fn bytes_of(general: &mut libc::user_regs_struct) -> Bytes {
    (
        (&raw mut *general).cast(),
        size_of::<libc::user_regs_struct>(),
    )
}

fn get(pid: i32, set: usize, bytes: Bytes) -> Result<usize, Errno> {
    transfer(libc::PTRACE_GETREGSET, pid, set, bytes)
}

fn set(pid: i32, set: usize, bytes: Bytes) -> Result<(), Errno> {
    transfer(libc::PTRACE_SETREGSET, pid, set, bytes).map(drop)
}

fn transfer(what: u32, pid: i32, set: usize, (start, length): Bytes) -> Result<usize, Errno> {
    let mut vector = libc::iovec {
        iov_base: start,
        iov_len: length,
    };
    request(what, pid, set, (&raw mut vector) as usize)?;
    Ok(vector.iov_len)
}

fn request(what: u32, pid: i32, address: usize, data: usize) -> Result<(), Errno> {
    // SAFETY: whatever the kernel reads or writes lives through the call, as its callers see to.
    sys::check(unsafe { libc::ptrace(what, pid, address, data) }).map(drop)
}

fn wait(pid: i32) -> Result<i32, Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the number lives through the call.
        match sys::check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into()) {
            Ok(_) => return Ok(status),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
