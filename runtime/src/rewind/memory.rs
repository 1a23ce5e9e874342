//! The memory of a process that is rewound: what it was like at the beginning, and what of it is
//! no longer shared with the process that it was forked from.

use super::{
    store::Store,
    tracee::{Registers, Stopped},
    tracker::Tracker,
};
use crate::sys;
use rustix::{fd::OwnedFd, io::Errno};
use std::{io::Read, ops::Range};

pub(super) const PAGE_BYTES: u64 = 4096;

/// Noticing the first write to a page takes as long as copying this many pages.
const FAULT_COST: usize = 2;

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
    /// How many pages were copied when it was restored for the first time after all were watched.
    needed: Option<usize>,
    /// How many more than that were copied since, in total.
    needless: usize,
}

impl Memory {
    /// Remembers the memory of a process that stands still. `origin` is the process that it was
    /// forked from, which stands still as long as this lives. At `shared` there may be a page that
    /// both may write to; processes that share more are refused. The process has mapped `store`.
    pub(super) fn remember(
        process: &OwnedFd,
        [pid, origin]: [i32; 2],
        tracker: Tracker,
        store: Store,
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
            store,
            needed: None,
            needless: 0,
        };
        // What it has written to already is nowhere else.
        memory.keep_own()?;
        for stretch in &memory.stretches {
            memory.tracker.include(&stretch.range)?;
        }
        memory.watch()?;
        Ok(memory)
    }

    /// Makes the memory what it was.
    ///
    /// What is written to stays open for writing, and is copied each time, until copying what need
    /// not be copied has cost about as much as noticing the first writes to all pages once more.
    pub(super) fn restore(
        &mut self,
        stopped: &Stopped,
        registers: &Registers,
    ) -> Result<(), Errno> {
        let first = self.store.len();
        let mut changed = Vec::new();
        for stretch in &mut self.stretches {
            let written = self.tracker.written(&self.pagemap, &stretch.range)?;
            for address in written.flat_map(|region| region.step_by(PAGE_BYTES as usize)) {
                let index = (address - stretch.range.start) / PAGE_BYTES;
                let place = &mut stretch.places[index as usize];
                changed.push(*place.get_or_insert_with(|| self.store.add(address)));
            }
        }
        // These are written to for the first time.
        let new: Vec<u32> = (first..self.store.len()).collect();
        self.store.fetch(&new, self.origin)?;
        self.store.put_back(&changed, stopped, registers)?;
        let needed = *self.needed.get_or_insert(changed.len());
        self.needless += changed.len().saturating_sub(needed);
        if self.needless >= FAULT_COST * needed {
            self.needed = None;
            self.needless = 0;
            self.watch()?;
        }
        Ok(())
    }

    /// From now on, what is written to is noticed.
    fn watch(&self) -> Result<(), Errno> {
        self.stretches
            .iter()
            .try_for_each(|stretch| self.tracker.watch(&self.pagemap, &stretch.range))
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
        let all: Vec<u32> = (0..self.store.len()).collect();
        self.store.fetch(&all, self.pid)
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
