//! Things to do outside a lock, in the order in which they were decided inside it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A queue that is filled under some other lock and emptied outside it, by one thread at a time.
#[derive(Debug)]
pub(crate) struct Outbox<T>(Mutex<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<T>,
    /// Whether a thread empties it at this moment.
    emptying: bool,
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner {
            waiting: VecDeque::new(),
            emptying: false,
        }))
    }

    /// To be done by the next [`empty`](Self::empty).
    pub(crate) fn push(&self, item: T) {
        self.lock().waiting.push_back(item);
    }

    /// Does everything that waits, unless another thread is at it: that one does it then.
    pub(crate) fn empty(&self, mut act: impl FnMut(T)) {
        let mut inner = self.lock();
        if inner.emptying {
            return;
        }
        inner.emptying = true;
        while let Some(item) = inner.waiting.pop_front() {
            drop(inner);
            let panicking = Panicking(self);
            act(item);
            std::mem::forget(panicking);
            inner = self.lock();
        }
        inner.emptying = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets another thread go on where `act` panicked.
struct Panicking<'a, T>(&'a Outbox<T>);

impl<T> Drop for Panicking<'_, T> {
    fn drop(&mut self) {
        self.0.lock().emptying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_up_meanwhile_is_done_last() {
        let outbox = Outbox::new();
        outbox.push(1);
        outbox.push(2);
        let mut done = Vec::new();
        outbox.empty(|item| {
            done.push(item);
            if item == 1 {
                outbox.push(3);
                outbox.empty(|_| unreachable!("the outer call does it"));
            }
        });
        assert_eq!(done, [1, 2, 3]);
    }
}
