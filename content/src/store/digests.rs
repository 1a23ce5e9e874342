//! Hashes of the user's files, remembered by device, inode, size and times.
//!
//! Times have a granularity: a file that is modified right after it was hashed can look as it
//! did before. So a hash is remembered only if the file's times were clearly in the past when
//! its hashing began. Whatever is modified later gets a later time then.
//!
//! The file is a header and fixed-size records sorted by device and inode. Saving merges with
//! what other processes have saved; whatever does not look right is dropped, since all that is
//! lost is time.

use super::{layout::Layout, lock::Lock, process::Process};
use crate::{ContentHash, StoreError, stat::Stamp};
use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

const MAGIC: &[u8; 8] = b"digests1";
const CHECKSUM_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES;
const RECORD_BYTES: usize = 80;

/// How many files are remembered; the ones used last stay.
const MAX_RECORDS: usize = 128 << 10;

/// Kernels advance file times with the timer interrupt, every 10 ms at the slowest.
const GRANULARITY: Duration = Duration::from_millis(20);

/// File systems that store only (even) seconds.
const COARSE_GRANULARITY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    stamp: Stamp,
    content: ContentHash,
    /// Days since 1970 when it was last used.
    used_day: u32,
}

type Key = (u64, u64);

impl Record {
    fn key(&self) -> Key {
        (self.stamp.device, self.stamp.inode)
    }

    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.stamp.device.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stamp.inode.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stamp.size_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.stamp.modified_ns.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.stamp.changed_ns.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.used_day.to_le_bytes());
        bytes[48..].copy_from_slice(self.content.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Record {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        let mut content = [0; 32];
        content.copy_from_slice(&bytes[48..]);
        Record {
            stamp: Stamp {
                device: u64::from_le_bytes(word(0)),
                inode: u64::from_le_bytes(word(8)),
                size_bytes: u64::from_le_bytes(word(16)),
                modified_ns: i64::from_le_bytes(word(24)),
                changed_ns: i64::from_le_bytes(word(32)),
            },
            content: ContentHash::from_bytes(content),
            used_day: u64::from_le_bytes(word(40)) as u32,
        }
    }
}

/// The memory of hashes.
#[derive(Debug)]
pub(crate) struct Digests {
    layout: Layout,
    /// Sorted by key.
    saved: OnceLock<Vec<Record>>,
    fresh: RwLock<HashMap<Key, Record>>,
    dirty: AtomicBool,
    /// Someone will save soon.
    scheduled: AtomicBool,
    saver: Mutex<Saver>,
}

/// Held while saving.
#[derive(Debug, Default)]
struct Saver {
    closed: bool,
}

impl Digests {
    pub(crate) fn new(layout: Layout) -> Digests {
        Digests {
            layout,
            saved: OnceLock::new(),
            fresh: RwLock::default(),
            dirty: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            saver: Mutex::default(),
        }
    }

    /// The hash of the file with this stamp, if it is known.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<ContentHash> {
        let key = (stamp.device, stamp.inode);
        {
            let fresh = self.fresh.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(record) = fresh.get(&key) {
                return (record.stamp == *stamp).then_some(record.content);
            }
        }
        let saved = self.saved.get_or_init(|| load(&self.layout.digests()));
        let index = saved.binary_search_by_key(&key, Record::key).ok()?;
        let record = &saved[index];
        if record.stamp != *stamp {
            return None;
        }
        if record.used_day != today() {
            // Worth saving only together with something new.
            let record = Record {
                used_day: today(),
                ..*record
            };
            let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
            fresh.insert(key, record);
        }
        Some(record.content)
    }

    /// Remembers the hash of a file whose stamp was taken at `hashed` or later, before its
    /// contents were read. Does nothing if the file could still change unnoticed.
    pub(crate) fn insert(&self, stamp: &Stamp, content: ContentHash, hashed: SystemTime) {
        if !is_settled(stamp, hashed) {
            return;
        }
        let record = Record {
            stamp: *stamp,
            content,
            used_day: today(),
        };
        let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
        fresh.insert(record.key(), record);
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// Drops what is known of a file; it turned out to be wrong.
    pub(crate) fn forget(&self, stamp: &Stamp) {
        let gone = Record {
            stamp: Stamp {
                size_bytes: u64::MAX,
                ..*stamp
            },
            content: ContentHash::from_bytes([0; 32]),
            used_day: 0,
        };
        let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
        fresh.insert(gone.key(), gone);
        self.dirty.store(true, Ordering::Relaxed);
    }

    /// Whether something is to be saved and nobody else will. Whoever is told so has to.
    pub(crate) fn wants_saving(&self) -> bool {
        self.dirty.load(Ordering::Relaxed) && !self.scheduled.swap(true, Ordering::AcqRel)
    }

    /// Saves what is new, merged with what other processes have saved meanwhile.
    pub(crate) fn save(&self, process: &Process) -> Result<(), StoreError> {
        let saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner);
        self.save_as(&saver, process)
    }

    /// Saves, unless the store was closed meanwhile.
    pub(crate) fn save_unless_closed(&self, process: &Weak<Process>) -> Result<(), StoreError> {
        self.scheduled.store(false, Ordering::Release);
        let saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner);
        match process.upgrade() {
            Some(process) if !saver.closed => self.save_as(&saver, &process),
            _ => Ok(()),
        }
    }

    /// Saves for the last time.
    pub(crate) fn close(&self, process: &Process) -> Result<(), StoreError> {
        let mut saver = self.saver.lock().unwrap_or_else(PoisonError::into_inner);
        saver.closed = true;
        self.save_as(&saver, process)
    }

    fn save_as(&self, _saver: &Saver, process: &Process) -> Result<(), StoreError> {
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let _lock = Lock::exclusive(&self.layout.digests_lock())?;
        let path = self.layout.digests();
        let mut records: HashMap<Key, Record> = load(&path)
            .into_iter()
            .map(|record| (record.key(), record))
            .collect();
        {
            let fresh = self.fresh.read().unwrap_or_else(PoisonError::into_inner);
            records.extend(fresh.iter().map(|(key, record)| (*key, *record)));
        }
        let bytes = encode(records.into_values().collect());
        let tmp = process.tmp_path();
        fs::write(&tmp, bytes).map_err(StoreError::io("write", &tmp))?;
        fs::rename(&tmp, &path).map_err(StoreError::io("replace", path))
    }
}

/// Whether all changes made from `hashed` on must show in the stamp.
fn is_settled(stamp: &Stamp, hashed: SystemTime) -> bool {
    let Ok(now) = hashed.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let whole_seconds = stamp.changed_ns % 1_000_000_000 == 0;
    let granularity = if whole_seconds {
        COARSE_GRANULARITY
    } else {
        GRANULARITY
    };
    let latest = stamp.changed_ns.max(stamp.modified_ns);
    i128::from(latest) + (granularity.as_nanos() as i128) < now.as_nanos() as i128
}

fn today() -> u32 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_secs() / 86_400) as u32
}

/// What is saved; nothing if it cannot be read or is damaged.
fn load(path: &Path) -> Vec<Record> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(
                    "cannot read {}: {error}; files will be hashed again",
                    path.display()
                );
            }
            return Vec::new();
        }
    };
    decode(&bytes).unwrap_or_else(|| {
        tracing::warn!(
            "{} is damaged and is ignored; files will be hashed again",
            path.display()
        );
        Vec::new()
    })
}

fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, checksum) = header.split_at(MAGIC.len());
    if magic != MAGIC || blake3::hash(body).as_bytes() != checksum {
        return None;
    }
    let (records, rest) = body.as_chunks::<RECORD_BYTES>();
    let records: Vec<Record> = records.iter().map(Record::from_bytes).collect();
    let sorted = records.is_sorted_by(|a, b| a.key() < b.key());
    (rest.is_empty() && sorted && records.len() <= MAX_RECORDS).then_some(records)
}

fn encode(mut records: Vec<Record>) -> Vec<u8> {
    records.retain(|record| record.stamp.size_bytes != u64::MAX);
    if records.len() > MAX_RECORDS {
        records
            .select_nth_unstable_by_key(MAX_RECORDS, |record| std::cmp::Reverse(record.used_day));
        records.truncate(MAX_RECORDS);
    }
    records.sort_unstable_by_key(Record::key);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + records.len() * RECORD_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    for record in records {
        bytes.extend_from_slice(&record.to_bytes());
    }
    let checksum = blake3::hash(&bytes[HEADER_BYTES..]);
    bytes[MAGIC.len()..HEADER_BYTES].copy_from_slice(checksum.as_bytes());
    bytes
}

#[cfg(test)]
#[path = "digests_tests.rs"]
mod tests;
