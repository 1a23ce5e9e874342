//! Copies of pages of a process, which the process itself can read, and the code with which it
//! copies them back.
//!
//! Only the process can do that at the speed of its memory. To write to another's, the kernel looks
//! up every single page, which takes as long as copying it.

use super::{
    memory::PAGE_BYTES,
    tracee::{Registers, Stopped},
};
use crate::sys;
use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
};
use std::{ffi::c_void, ptr::NonNull};

/// No more is kept of one process. A test that writes to more than this is not worth rewinding.
const PAGES_MAX: usize = 16 << 10;

/// What the kernel takes in one call (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Copies pages: `r8` points to pairs of addresses, where to and where from, and `r9` says how many
/// there are. Touches neither the stack nor any flag that a program relies on.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[
    0xfc, // cld
    0x49, 0x8b, 0x38, // again: mov rdi, [r8]
    0x49, 0x8b, 0x70, 0x08, // mov rsi, [r8 + 8]
    0xb9, 0x00, 0x02, 0x00, 0x00, // mov ecx, 512
    0xf3, 0x48, 0xa5, // rep movsq
    0x49, 0x83, 0xc0, 0x10, // add r8, 16
    0x49, 0xff, 0xc9, // dec r9
    0x75, 0xe8, // jnz again
    0xcc, // int3
];

/// What the code is told of one page.
#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
}

/// Offsets: the code is at the start, then comes what it is to copy, then the pages.
const COPIES: usize = PAGE_BYTES as usize;
const PAGES: usize = COPIES + PAGES_MAX * size_of::<Copy>();
const BYTES: usize = PAGES + PAGES_MAX * PAGE_BYTES as usize;

/// A file in memory that the process has mapped, too.
pub(super) struct Store {
    file: OwnedFd,
    start: NonNull<u8>,
    /// Where the process has mapped it.
    start_there: u64,
    /// Where the pages belong.
    pages: Vec<u64>,
}

impl Store {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("rewind", flags)?;
        rustix::fs::ftruncate(&file, BYTES as u64)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let nowhere = std::ptr::null_mut();
        // SAFETY: fresh memory, which nobody else knows of.
        let start =
            unsafe { rustix::mm::mmap(nowhere, BYTES, rights, MapFlags::SHARED, &file, 0)? };
        let store = Self {
            file,
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            start_there: 0,
            pages: Vec::new(),
        };
        // Others may read it.
        let seals = SealFlags::FUTURE_WRITE | SealFlags::SHRINK | SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&store.file, seals)?;
        // The processes that this one forks have no use for it.
        // SAFETY: it is this memory, and no child reads it.
        unsafe { rustix::mm::madvise(start, BYTES, Advice::LinuxDontFork)? };
        // SAFETY: it begins with a page for the code.
        unsafe { store.start.copy_from_nonoverlapping(code(), CODE.len()) };
        Ok(store)
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Has the process map it. `number` is the file's in the process, which is closed.
    pub(super) fn attach(
        &mut self,
        stopped: &Stopped,
        registers: &Registers,
        number: u32,
    ) -> Result<(), Errno> {
        let rights = libc::PROT_READ | libc::PROT_EXEC;
        let number = number.into();
        let arguments = [
            0,
            BYTES as u64,
            rights as u64,
            libc::MAP_SHARED as u64,
            number,
            0,
        ];
        let unreported = || Ok(());
        let start = stopped.call(registers, libc::SYS_mmap, arguments, unreported)?;
        let file = [number, 0, 0, 0, 0, 0];
        let closed = stopped.call(registers, libc::SYS_close, file, unreported)?;
        if !start.is_multiple_of(PAGE_BYTES) || closed != 0 {
            // The kernel's errors are no multiples of anything.
            return Err(Errno::NOMEM);
        }
        self.start_there = start;
        Ok(())
    }

    /// How many pages have a place.
    pub(super) fn len(&self) -> u32 {
        self.pages.len() as u32
    }

    /// The place of a page that is to be fetched.
    pub(super) fn add(&mut self, address: u64) -> u32 {
        self.pages.push(address);
        self.len() - 1
    }

    /// Copies pages from a process.
    ///
    /// # Errors
    ///
    /// There is no room for them, or they cannot be read.
    pub(super) fn fetch(&mut self, places: &[u32], pid: i32) -> Result<(), Errno> {
        if self.pages.len() > PAGES_MAX {
            return Err(Errno::NOMEM);
        }
        for places in places.chunks(PIECES_MAX) {
            let (mut here, mut there) = (Vec::new(), Vec::new());
            for &place in places {
                // SAFETY: `PAGES_MAX` bounds the number of places.
                let page = unsafe { self.start.add(PAGES + offset(place)) };
                extend(&mut here, page.as_ptr().cast());
                extend(&mut there, self.pages[place as usize] as *mut _);
            }
            let count = |pieces: &[libc::iovec]| pieces.len() as libc::c_ulong;
            // SAFETY: what is written to is the store's own, and large enough.
            let moved = sys::check(unsafe {
                let (to, from) = (here.as_ptr(), there.as_ptr());
                libc::process_vm_readv(pid, to, count(&here), from, count(&there), 0)
            } as libc::c_long)?;
            if moved as usize != places.len() * PAGE_BYTES as usize {
                return Err(Errno::FAULT);
            }
        }
        Ok(())
    }

    /// Has the process copy pages back.
    pub(super) fn put_back(
        &mut self,
        places: &[u32],
        stopped: &Stopped,
        registers: &Registers,
    ) -> Result<(), Errno> {
        if places.is_empty() {
            return Ok(());
        }
        if places.len() > PAGES_MAX {
            return Err(Errno::NOMEM);
        }
        // SAFETY: there is room for this many, aligned as pages are, and all bytes are zero or
        // have been written here. The process stands still.
        let copies = unsafe {
            let copies = self.start.add(COPIES).cast::<Copy>();
            std::slice::from_raw_parts_mut(copies.as_ptr(), places.len())
        };
        for (copy, &place) in copies.iter_mut().zip(places) {
            *copy = Copy {
                to: self.pages[place as usize],
                from: self.start_there + (PAGES + offset(place)) as u64,
            };
        }
        let arguments = [self.start_there + COPIES as u64, places.len() as u64];
        stopped.run(registers, self.start_there, arguments)
    }
}

fn code() -> NonNull<u8> {
    NonNull::from(CODE).cast()
}

/// Where a page is among the pages, in bytes.
fn offset(place: u32) -> usize {
    place as usize * PAGE_BYTES as usize
}

/// Adds a page to pieces of memory.
fn extend(pieces: &mut Vec<libc::iovec>, page: *mut c_void) {
    match pieces.last_mut() {
        Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == page => {
            last.iov_len += PAGE_BYTES as usize;
        }
        _ => pieces.push(libc::iovec {
            iov_base: page,
            iov_len: PAGE_BYTES as usize,
        }),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), BYTES) };
    }
}
