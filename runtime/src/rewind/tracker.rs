//! Which pages of a process have been written to.
//!
//! The kernel protects pages from being written to and takes the protection away at the first
//! write, without telling anybody: see `UFFD_FEATURE_WP_ASYNC` in `ioctl_userfaultfd(2)` and
//! `PAGEMAP_SCAN` in `ioctl_pagemap_scan(2)` (Linux 6.7).

use super::memory::PAGE_BYTES;
use crate::sys;
use rustix::{
    fd::{AsRawFd, OwnedFd},
    io::Errno,
};
use std::ops::Range;

/// A `userfaultfd` of the process.
pub(super) struct Tracker {
    descriptor: OwnedFd,
}

const UFFD_API: u64 = 0xaa;
const WP_ASYNC: u64 = 1 << 15;
const REGISTER_WP: u64 = 1 << 1;

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

const WP_MATCHING: u64 = 1 << 0;
const CHECK_WP_ASYNC: u64 = 1 << 1;
const WRITTEN: u64 = 1 << 1;

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of_mask: u64,
    return_mask: u64,
}

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// How many regions the kernel tells of at a time.
const REGIONS: usize = 512;

/// The number of an ioctl that reads and writes a structure.
const fn read_write<T>(kind: u32, number: u32) -> libc::Ioctl {
    (3 << 30 | (size_of::<T>() as u32) << 16 | kind << 8 | number) as libc::Ioctl
}

impl Tracker {
    /// `descriptor` is a `userfaultfd` that the process has made.
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let mut api = Api {
            api: UFFD_API,
            features: WP_ASYNC,
            ioctls: 0,
        };
        ioctl(&descriptor, read_write::<Api>(0xaa, 0x3f), &mut api)?;
        Ok(Self { descriptor })
    }

    /// Makes a range of addresses one that can be watched.
    pub(super) fn include(&self, range: &Range<u64>) -> Result<(), Errno> {
        let mut register = Register {
            start: range.start,
            length: range.end - range.start,
            mode: REGISTER_WP,
            ioctls: 0,
        };
        ioctl(
            &self.descriptor,
            read_write::<Register>(0xaa, 0),
            &mut register,
        )
        .map(drop)
    }

    /// From now on what is written to in a range counts as written.
    pub(super) fn watch(&self, pagemap: &OwnedFd, range: &Range<u64>) -> Result<(), Errno> {
        let mut scan = Scan {
            flags: WP_MATCHING | CHECK_WP_ASYNC,
            ..Scan::of(range)
        };
        ioctl(pagemap, SCAN, &mut scan).map(drop)
    }

    /// The addresses in a range whose pages have been written to, in order.
    pub(super) fn written(
        &self,
        pagemap: &OwnedFd,
        range: &Range<u64>,
    ) -> Result<impl Iterator<Item = Range<u64>> + use<>, Errno> {
        let mut found = Vec::new();
        let mut rest = range.clone();
        while !rest.is_empty() {
            let mut regions = [Region::default(); REGIONS];
            let mut scan = Scan {
                flags: CHECK_WP_ASYNC,
                regions: regions.as_mut_ptr() as u64,
                regions_len: REGIONS as u64,
                ..Scan::of(&rest)
            };
            let count = ioctl(pagemap, SCAN, &mut scan)?;
            if scan.walk_end <= rest.start {
                return Err(Errno::FAULT);
            }
            found.extend_from_slice(&regions[..count.min(REGIONS)]);
            rest.start = scan.walk_end;
        }
        Ok(found.into_iter().map(|region| region.start..region.end))
    }
}

const SCAN: libc::Ioctl = read_write::<Scan>(0x66, 16);

impl Scan {
    fn of(range: &Range<u64>) -> Self {
        debug_assert!(range.start.is_multiple_of(PAGE_BYTES));
        Self {
            size: size_of::<Self>() as u64,
            start: range.start,
            end: range.end,
            category_mask: WRITTEN,
            return_mask: WRITTEN,
            ..Self::default()
        }
    }
}

fn ioctl<T>(descriptor: &OwnedFd, number: libc::Ioctl, argument: &mut T) -> Result<usize, Errno> {
    // SAFETY: the argument lives through the call, and the number has the size of its type in it.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), number, &raw mut *argument) };
    sys::check(result.into()).map(|result| result as usize)
}
