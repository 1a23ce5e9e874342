//! The memory of a process that is rewound: what it was like at the beginning, and what of it is
//! no longer shared with the process that it was forked from.

use super::tracker::Tracker;
use crate::sys;
use rustix::{
    fd::OwnedFd,
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags},
};
use std::{ffi::c_void, io::Read, ops::Range, ptr::NonNull};

pub(super) const PAGE_BYTES: u64 = 4096;

/// No more is kept of one process. A test that writes to more than this is not worth rewinding.
const KEPT_MAX_PAGES: usize = 16 << 10;

/// What the kernel takes in one call (`UIO_MAXIOV`).
const PIECES_MAX: usize = 1024;

/// Of `/proc/PID/pagemap`: not in memory, but on a disk.
const SWAPPED: u64 = 1 << 62;
/// In memory.
const PRESENT: u64 = 1 << 63;
/// Nobody else has it: a copy, made when it was written to.
const EXCLUSIVE: u64 = 1 << 56;

/// A line of `/proc/PID/maps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    is_written: bool,
    is_shared: bool,
    is_heap: bool,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let rights = fields.next()?.as_bytes();
        let name = fields.nth(3).unwrap_or_default();
        Some(Self {
            range: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
            is_written: rights.get(1) == Some(&b'w'),
            is_shared: rights.get(3) == Some(&b's'),
            is_heap: name == "[heap]",
        })
    }
}

/// The mappings of a process, in order.
pub(super) fn mappings(process: &OwnedFd) -> Result<Vec<Mapping>, Errno> {
    let text = read_text(process, "maps")?;
    text.lines()
        .map(|line| Mapping::parse(line).ok_or(Errno::INVAL))
        .collect()
}

/// How many pages are mapped.
pub(super) fn mapped_pages(process: &OwnedFd) -> Result<u64, Errno> {
    let text = read_text(process, "statm")?;
    let first = text.split_ascii_whitespace().next();
    first
        .and_then(|pages| pages.parse().ok())
        .ok_or(Errno::INVAL)
}

/// Reads a file below `/proc/PID`.
pub(super) fn read_text(process: &OwnedFd, name: &str) -> Result<String, Errno> {
    let file = open(process, name)?;
    let mut text = String::with_capacity(32 << 10);
    std::fs::File::from(file)
        .read_to_string(&mut text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

pub(super) fn open(process: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags, openat};
    openat(
        process,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// A stretch of memory that the process may write to.
struct Stretch {
    range: Range<u64>,
    /// For each page, where in the store it is kept.
    places: Vec<Option<u32>>,
}

/// The beginning of a process.
pub(super) struct Memory {
    pid: i32,
    /// Where what the process has not written to is as it was.
    origin: i32,
    pagemap: OwnedFd,
    tracker: Tracker,
    /// All that was mapped, in order, neighbours joined.
    mapped: Vec<Range<u64>>,
    pub(super) mapped_pages: u64,
    heap_end: Option<u64>,
    stretches: Vec<Stretch>,
    store: Store,
    /// How often it has been restored.
    restored: u32,
}

impl Memory {
    /// Remembers the memory of a process that stands still. `origin` is the process that it was
    /// forked from, which stands still as long as this lives. At `shared` there may be a page that
    /// both may write to; processes that share more are refused.
    pub(super) fn remember(
        process: &OwnedFd,
        [pid, origin]: [i32; 2],
        tracker: Tracker,
        shared: u64,
    ) -> Result<Self, Errno> {
        let mappings = mappings(process)?;
        let own = shared..shared.saturating_add(PAGE_BYTES);
        if mappings
            .iter()
            .any(|mapping| mapping.is_shared && mapping.is_written && mapping.range != own)
        {
            return Err(Errno::NOTSUP);
        }
        let mut mapped: Vec<Range<u64>> = Vec::new();
        for mapping in &mappings {
            match mapped.last_mut() {
                Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
                _ => mapped.push(mapping.range.clone()),
            }
        }
        let stretches = mappings
            .iter()
            .filter(|mapping| mapping.is_written && !mapping.is_shared)
            .map(|mapping| Stretch {
                range: mapping.range.clone(),
                places: vec![None; pages(&mapping.range)],
            });
        let heap = mappings.iter().rfind(|mapping| mapping.is_heap);
        let mut memory = Self {
            pid,
            origin,
            pagemap: open(process, "pagemap")?,
            tracker,
            mapped,
            mapped_pages: mapped_pages(process)?,
            heap_end: heap.map(|heap| heap.range.end),
            stretches: stretches.collect(),
            store: Store::new()?,
            restored: 0,
        };
        // What it has written to already is nowhere else.
        memory.keep_own()?;
        for stretch in &memory.stretches {
            memory.tracker.include(&stretch.range)?;
        }
        for stretch in &memory.stretches {
            memory.tracker.watch(&memory.pagemap, &stretch.range)?;
        }
        Ok(memory)
    }

    /// Makes the memory what it was.
    pub(super) fn restore(&mut self) -> Result<(), Errno> {
        self.restored += 1;
        let first = self.store.pages.len();
        let mut changed = Vec::new();
        // Stretches between pages that are written to all the time.
        let mut watched: Vec<Range<u64>> = Vec::new();
        for stretch in &mut self.stretches {
            let mut joins = false;
            let written = self.tracker.written(&self.pagemap, &stretch.range)?;
            for address in written.flat_map(|region| region.step_by(PAGE_BYTES as usize)) {
                let index = (address - stretch.range.start) / PAGE_BYTES;
                let place = &mut stretch.places[index as usize];
                let place = *place.get_or_insert_with(|| self.store.add(address));
                changed.push(place);
                let page = &mut self.store.pages[place as usize];
                page.writes += 1;
                let is_hot = self.restored > 1 && 2 * page.writes >= self.restored;
                let end = address + PAGE_BYTES;
                match watched.last_mut() {
                    _ if is_hot => {}
                    Some(last) if joins => last.end = end,
                    _ => watched.push(address..end),
                }
                joins = !is_hot;
            }
        }
        if self.store.pages.len() > KEPT_MAX_PAGES {
            return Err(Errno::NOMEM);
        }
        // These are written to for the first time.
        let new: Vec<u32> = (first as u32..self.store.pages.len() as u32).collect();
        self.store.transfer(&new, self.origin, Direction::In)?;
        self.store.transfer(&changed, self.pid, Direction::Out)?;
        watched
            .iter()
            .try_for_each(|range| self.tracker.watch(&self.pagemap, range))
    }

    /// Whether anything in a range of addresses was there at the beginning.
    pub(super) fn concerns(&self, start: u64, length: u64) -> bool {
        let end = start.saturating_add(length.div_ceil(PAGE_BYTES).saturating_mul(PAGE_BYTES));
        let next = self.mapped.partition_point(|range| range.end <= start);
        self.mapped.get(next).is_some_and(|range| range.start < end)
    }

    /// Whether the heap would be made smaller than it was.
    pub(super) fn shrinks_heap(&self, end: u64) -> bool {
        end != 0 && self.heap_end.is_none_or(|heap_end| end < heap_end)
    }

    /// The end of the heap at the beginning.
    pub(super) fn heap_end(&self) -> Option<u64> {
        self.heap_end
    }

    /// What is mapped now and was not at the beginning.
    pub(super) fn extra(&self, process: &OwnedFd) -> Result<Vec<Range<u64>>, Errno> {
        let mut extra = Vec::new();
        for mapping in mappings(process)? {
            let mut start = mapping.range.start;
            let first = self.mapped.partition_point(|range| range.end <= start);
            for old in &self.mapped[first..] {
                if old.start >= mapping.range.end {
                    break;
                }
                if start < old.start {
                    extra.push(start..old.start);
                }
                start = old.end;
            }
            if start < mapping.range.end {
                extra.push(start..mapping.range.end);
            }
        }
        Ok(extra)
    }

    /// Keeps the pages that the process has of its own, as they are.
    fn keep_own(&mut self) -> Result<(), Errno> {
        let mut entries = Vec::new();
        for stretch in &mut self.stretches {
            entries.resize(stretch.places.len(), 0);
            read_entries(&self.pagemap, &stretch.range, &mut entries)?;
            for (index, entry) in entries.iter().enumerate() {
                let is_own = PRESENT | EXCLUSIVE;
                if entry & SWAPPED != 0 || entry & is_own == is_own {
                    let address = stretch.range.start + index as u64 * PAGE_BYTES;
                    stretch.places[index] = Some(self.store.add(address));
                }
            }
        }
        if self.store.pages.len() > KEPT_MAX_PAGES {
            return Err(Errno::NOMEM);
        }
        let all: Vec<u32> = (0..self.store.pages.len() as u32).collect();
        self.store.transfer(&all, self.pid, Direction::In)
    }
}

fn pages(range: &Range<u64>) -> usize {
    ((range.end - range.start) / PAGE_BYTES) as usize
}

fn read_entries(pagemap: &OwnedFd, range: &Range<u64>, entries: &mut [u64]) -> Result<(), Errno> {
    let mut offset = range.start / PAGE_BYTES * 8;
    // SAFETY: any bytes are valid numbers.
    let (_, mut bytes, _) = unsafe { entries.align_to_mut::<u8>() };
    while !bytes.is_empty() {
        let read = rustix::io::pread(pagemap, &mut *bytes, offset)?;
        if read == 0 {
            return Err(Errno::FAULT);
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    /// From the process.
    In,
    /// To the process.
    Out,
}

/// Copies of pages, one after another.
struct Store {
    start: NonNull<u8>,
    pages: Vec<Page>,
}

struct Page {
    /// Where it belongs.
    address: u64,
    /// How often it had to be restored. Pages that nearly every test writes to are left open for
    /// writing: copying them for nothing now and then costs less than noticing every time.
    writes: u32,
}

impl Store {
    const BYTES: usize = KEPT_MAX_PAGES * PAGE_BYTES as usize;

    fn new() -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: fresh memory, which nobody else knows of.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), Self::BYTES, rights, flags)?
        };
        let store = Self {
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            pages: Vec::new(),
        };
        // The processes that this one forks have no use for it.
        // SAFETY: it is this memory, and no child reads it.
        unsafe { rustix::mm::madvise(start, Self::BYTES, Advice::LinuxDontFork)? };
        Ok(store)
    }

    /// The place of a page that is to be copied here, if there is room.
    fn add(&mut self, address: u64) -> u32 {
        self.pages.push(Page { address, writes: 0 });
        self.pages.len() as u32 - 1
    }

    /// Copies pages between the store and a process.
    fn transfer(&self, places: &[u32], pid: i32, direction: Direction) -> Result<(), Errno> {
        let mut places = places.iter().peekable();
        while places.peek().is_some() {
            let (mut local, mut remote) = (Vec::new(), Vec::new());
            let mut length = 0;
            while let Some(&&place) = places.peek() {
                if local.len() == PIECES_MAX || remote.len() == PIECES_MAX {
                    break;
                }
                // SAFETY: `KEPT_MAX_PAGES` bounds the number of places.
                let here = unsafe { self.start.add(place as usize * PAGE_BYTES as usize) };
                extend(&mut local, here.as_ptr().cast());
                extend(&mut remote, self.pages[place as usize].address as *mut _);
                length += PAGE_BYTES as usize;
                places.next();
            }
            let count = |pieces: &[libc::iovec]| pieces.len() as libc::c_ulong;
            // SAFETY: the local memory is the store's own, and long enough.
            let moved = sys::check(unsafe {
                let (ours, theirs) = (local.as_ptr(), remote.as_ptr());
                let (our_count, their_count) = (count(&local), count(&remote));
                match direction {
                    Direction::In => {
                        libc::process_vm_readv(pid, ours, our_count, theirs, their_count, 0)
                    }
                    Direction::Out => {
                        libc::process_vm_writev(pid, ours, our_count, theirs, their_count, 0)
                    }
                }
            } as libc::c_long)?;
            if moved as usize != length {
                return Err(Errno::FAULT);
            }
        }
        Ok(())
    }
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
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), Self::BYTES) };
    }
}

/// Writes to the memory of a process.
pub(super) fn write(pid: i32, address: u64, bytes: &[u8]) -> Result<(), Errno> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut _,
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads the local buffer.
    let written = sys::check(unsafe {
        libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0)
    } as libc::c_long)?;
    if written as usize == bytes.len() {
        Ok(())
    } else {
        Err(Errno::FAULT)
    }
}
