//! What waits to be sent on a session, with a thread that sends it.

use std::{
    collections::VecDeque,
    io::Write as _,
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How many bytes are handed to the kernel at a time, unless one frame is longer.
const BATCH_BYTES: usize = 128 << 10;

/// Frames on their way out. Clones are the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Mutex<Queue>,
    changed: Condvar,
    stream: UnixStream,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Nothing more is taken; what is there is sent.
    closing: bool,
    /// A batch is on its way to the kernel.
    sending: bool,
    /// Nothing more is sent.
    closed: bool,
}

impl Outgoing {
    /// A queue of at most `max_bytes`, or one frame if that is longer.
    pub(crate) fn start(
        stream: UnixStream,
        max_bytes: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let outgoing = Self(Arc::new(Inner {
            queue: Mutex::default(),
            changed: Condvar::new(),
            stream,
            max_bytes,
        }));
        let sender = outgoing.clone();
        let thread = std::thread::Builder::new()
            .name("session sender".to_owned())
            .stack_size(128 << 10)
            .spawn(move || sender.send())?;
        Ok((outgoing, thread))
    }

    /// Queues a frame. If the other end has read nothing for so long that the queue is full, the
    /// session is closed: `false`.
    pub(crate) fn push(&self, frame: Vec<u8>) -> bool {
        let mut queue = self.lock();
        if queue.closing || queue.closed {
            return false;
        }
        if queue.bytes + frame.len() > self.0.max_bytes && !queue.frames.is_empty() {
            drop(queue);
            self.close_now();
            return false;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.0.changed.notify_all();
        true
    }

    /// Sends what is there, and then no more. The other end sees the end of the stream.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.0.changed.notify_all();
    }

    /// Waits until what is there has been sent, for at most so long.
    pub(crate) fn drain(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        let mut queue = self.lock();
        while !queue.closed && (queue.sending || !queue.frames.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the session at once, in both directions.
    pub(crate) fn close_now(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.frames.clear();
        drop(queue);
        let _ = self.0.stream.shutdown(Shutdown::Both);
        self.0.changed.notify_all();
    }

    fn send(&self) {
        while let Some(batch) = self.next_batch() {
            if (&self.0.stream).write_all(&batch).is_err() {
                self.lock().closed = true;
                self.0.changed.notify_all();
                break;
            }
        }
        let _ = self.0.stream.shutdown(Shutdown::Both);
    }

    /// Waits for something to send. `None`: there will be nothing more.
    fn next_batch(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        if queue.sending {
            queue.sending = false;
            self.0.changed.notify_all();
        }
        loop {
            if queue.closed {
                return None;
            }
            if let Some(mut batch) = queue.frames.pop_front() {
                while let Some(next) = queue.frames.front()
                    && batch.len() + next.len() <= BATCH_BYTES
                {
                    let next = queue.frames.pop_front();
                    batch.extend(next.into_iter().flatten());
                }
                queue.bytes -= batch.len();
                queue.sending = true;
                return Some(batch);
            }
            if queue.closing {
                return None;
            }
            queue = self
                .0
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn everything_is_sent_in_order_before_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (outgoing, thread) = Outgoing::start(ours, 1 << 20).unwrap();
        for byte in 0..200_u8 {
            assert!(outgoing.push(vec![byte; 1000]));
        }
        outgoing.close();
        outgoing.drain(Duration::from_millis(1));
        assert!(!outgoing.push(vec![1]));
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        let sent: Vec<u8> = (0..200_u8).flat_map(|byte| vec![byte; 1000]).collect();
        assert_eq!(got, sent);
        thread.join().unwrap();
    }

    #[test]
    fn whoever_never_reads_is_cut_off() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (outgoing, thread) = Outgoing::start(ours, 1 << 20).unwrap();
        let pushed = (0..100_000)
            .take_while(|_| outgoing.push(vec![0; 10_000]))
            .count();
        // What the kernel takes, and the bound.
        assert!((50..2000).contains(&pushed), "{pushed}");
        thread.join().unwrap();
        drop(theirs);
    }
}
