//! Room for contents that are on their way, so that they do not come on top of a full cache.

use super::Store;
use crate::StoreError;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Room that is kept free in the cache until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    bytes: u64,
    reserved: Arc<AtomicU64>,
}

impl Reservation {
    /// How much is kept free, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Store {
    /// How much the store may take of the disk, in bytes.
    pub fn cache_size_bytes(&self) -> u64 {
        self.inner.options.cache_size_bytes
    }

    /// Keeps room free for contents that are on their way, and evicts what has to go for them.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoRoom`] if what is in use, what else was reserved by this process, and
    /// `bytes` are more than the cache may hold.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        let cache = self.cache_size_bytes();
        let reserved = self.inner.reserved.clone();
        let no_room = |in_use| StoreError::NoRoom {
            root: self.root().to_owned(),
            bytes,
            in_use_bytes: in_use,
            cache_size_bytes: cache,
        };
        let fits = |sum: u64| sum.checked_add(bytes).filter(|sum| *sum <= cache);
        let before = reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)
            .map_err(no_room)?;
        let reservation = Reservation { bytes, reserved };
        let limit = cache - (before + bytes);
        let used = {
            let _lock = self.inner.shared_lock()?;
            self.inner.usage.flush(&self.inner.layout)?;
            self.inner.usage.total(&self.inner.layout)?
        };
        if used.is_none_or(|used| used > limit) {
            let after = self.evict()?.after_bytes;
            if after > limit {
                return Err(no_room(after));
            }
        }
        Ok(reservation)
    }
}

impl super::Inner {
    /// How much contents and manifests may take, in bytes, next to what is reserved.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.options
            .cache_size_bytes
            .saturating_sub(self.reserved.load(Ordering::Acquire))
    }
}
