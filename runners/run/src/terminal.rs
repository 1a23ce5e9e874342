//! The user's terminal, and the pseudo-terminal of a job.

use anyhow::{Context as _, Result};
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{OFlags, fcntl_setfl},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{
        OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
    },
};

/// The user's terminal, passing on every byte as it is typed. Restored when dropped.
pub(crate) struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    original: Termios,
}

impl<'a> RawMode<'a> {
    pub(crate) fn enter(terminal: BorrowedFd<'a>) -> Result<Self> {
        let original = tcgetattr(terminal).context("reading the settings of the terminal")?;
        let mode = RawMode { terminal, original };
        mode.reenter()?;
        Ok(mode)
    }

    /// Enters raw mode again after [`RawMode::leave`].
    pub(crate) fn reenter(&self) -> Result<()> {
        let mut raw = self.original.clone();
        raw.make_raw();
        tcsetattr(self.terminal, OptionalActions::Drain, &raw)
            .context("changing the settings of the terminal")
    }

    /// Restores the terminal for a while.
    pub(crate) fn leave(&self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.original);
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The size of a terminal.
pub(crate) fn size_of(terminal: BorrowedFd<'_>) -> Result<Winsize> {
    tcgetwinsize(terminal).context("reading the size of the terminal")
}

/// Gives a job's pseudo-terminal a new size, which the job is told by SIGWINCH.
pub(crate) fn resize(ours: &OwnedFd, size: Winsize) -> Result<()> {
    tcsetwinsize(ours, size).context("changing the size of the job's terminal")
}

/// Opens a pseudo-terminal of the given size: our end, which never blocks, and the job's.
pub(crate) fn open_pty(size: Winsize) -> Result<(OwnedFd, OwnedFd)> {
    let open = || {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        tcsetwinsize(&ours, size)?;
        fcntl_setfl(ours.as_fd(), OFlags::RDWR | OFlags::NONBLOCK)?;
        rustix::io::Result::Ok((ours, theirs))
    };
    open().context("opening a pseudo-terminal")
}
