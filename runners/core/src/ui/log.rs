//! Log lines on their way to the screen.

use super::{UiSender, sender::Event};
use std::io::{self, Write};

/// Takes log lines to the screen while the UI runs, and to standard output afterwards. For
/// `tracing_subscriber`'s `with_writer(move || sender.log_writer())`.
///
/// The lines of one `write` stay together.
#[derive(Clone, Debug)]
pub struct LogWriter {
    pub(super) sender: UiSender,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.sender.send(Event::Log(bytes.to_vec())) {
            io::stdout().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
