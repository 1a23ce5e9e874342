//! A client that starts when it is first needed.

use crate::client::{Client, ClientConfig};
use maelstrom_runtime::{Launcher, StartError};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A client that starts when it is first needed: listing tests needs none as a rule.
pub struct LazyClient {
    parts: Mutex<Option<(Result<Launcher, StartError>, ClientConfig)>>,
    client: OnceLock<Result<Client, String>>,
}

impl LazyClient {
    /// A client that is not yet started.
    pub fn new(launcher: Result<Launcher, StartError>, config: ClientConfig) -> LazyClient {
        LazyClient {
            parts: Mutex::new(Some((launcher, config))),
            client: OnceLock::new(),
        }
    }

    /// Starts the client, or waits until another thread has.
    ///
    /// # Errors
    /// Why it could not start; the same every time.
    pub fn get(&self) -> anyhow::Result<&Client> {
        self.client
            .get_or_init(|| {
                let parts = self
                    .parts
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                let (launcher, config) = parts.ok_or("the client was started already")?;
                let launcher = launcher.map_err(|error| error.to_string())?;
                Client::start(launcher, config).map_err(|error| error.to_string())
            })
            .as_ref()
            .map_err(|message| anyhow::anyhow!("{message}"))
    }

    /// The client, if it has started.
    pub fn started(&self) -> Option<&Client> {
        self.client.get()?.as_ref().ok()
    }

    /// Whether it could not start.
    pub fn failed(&self) -> bool {
        matches!(self.client.get(), Some(Err(_)))
    }
}
