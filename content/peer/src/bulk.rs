//! The threads that send and receive the bytes of layers.
//!
//! They encrypt, verify, read and write in place: handing each part to another thread would cost
//! as much as encrypting it. So they may wait for the disk, and nothing else runs on them.

use std::{future::Future, io};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// How many there are: some may wait for the disk while others work.
const THREADS: usize = 8;

/// Threads that run tasks.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    pub(crate) fn start() -> io::Result<Threads> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("layers")
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    /// Runs a task. To be called only before this is dropped, so there is a runtime.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => unreachable!("it is taken away only when this is dropped"),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for them is not allowed everywhere where this may be dropped.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
