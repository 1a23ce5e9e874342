//! How far downloads are, for whoever shows it.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// At most so often is said how far a download is.
const INTERVAL: Duration = Duration::from_millis(50);

/// Shows how far downloads are. Called from several threads.
pub trait Progress: Send + Sync + fmt::Debug {
    /// So many bytes of an image have come. Numbers of downloads that go on at the same time in
    /// this process differ.
    fn downloading(&self, number: u64, image: &str, bytes: u64, total_bytes: u64);

    /// A download is over.
    fn downloaded(&self, number: u64);
}

/// Shows nothing.
impl Progress for () {
    fn downloading(&self, _: u64, _: &str, _: u64, _: u64) {}

    fn downloaded(&self, _: u64) {}
}

/// One image on its way.
pub(crate) struct Download<'a> {
    progress: &'a dyn Progress,
    number: u64,
    image: &'a str,
    bytes: AtomicU64,
    total_bytes: u64,
    said: Mutex<Option<Instant>>,
}

impl<'a> Download<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, image: &'a str, total_bytes: u64) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Download {
            progress,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            image,
            bytes: AtomicU64::new(0),
            total_bytes,
            said: Mutex::default(),
        }
    }

    /// Of one of its layers there were `before` bytes, and are `now`.
    pub(crate) fn moved(&self, before: u64, now: u64) {
        self.bytes
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= INTERVAL) {
            *said = Some(Instant::now());
            let bytes = self.bytes.load(Ordering::Relaxed);
            self.progress
                .downloading(self.number, self.image, bytes, self.total_bytes);
        }
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        self.progress.downloaded(self.number);
    }
}
