//! A shell on a host, for a person at a terminal or a script on standard input.

use crate::{Exit, Lab, LabError, Process};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    pty::OpenptFlags,
    termios::{OptionalActions, Termios},
};
use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, IsTerminal},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What the shell knows besides its host's environment.
const FUNCTIONS: &str = r#"
[ -r /etc/bash.bashrc ] && [ -n "$PS1" ] && . /etc/bash.bashrc
PS1='[\h] \w\$ '
_lab_hosts() { local n; for n; do [[ $n =~ ^[0-9]+$ && $n -ge 1 && $n -le $LAB_HOSTS ]] || return 1; done; [[ $# -gt 0 ]]; }
lab() { "$LAB_PROGRAM" "$@"; }
on() { lab exec "$@"; }
all() { local n; for ((n = 1; n <= LAB_HOSTS; n++)); do lab exec "$n" "$@"; done; }
cut() { if _lab_hosts "$@"; then lab cut "$@"; else command cut "$@"; fi; }
kill() { if _lab_hosts "$@"; then lab kill "$@"; else builtin kill "$@"; fi; }
heal() { lab heal "$@"; }
boot() { lab boot "$@"; }
pause() { lab pause "$@"; }
resume() { lab resume "$@"; }
partition() { lab partition "$@"; }
slow() { lab slow "$@"; }
status() { lab status; }
"#;

/// Runs a program on a host, or a shell if none is given, until it ends. Returns the exit code.
pub(super) fn run(lab: &Arc<Lab>, host: u8, program: &[OsString]) -> Result<u8, LabError> {
    let rc = lab.directory().join("bashrc");
    fs::write(&rc, FUNCTIONS).map_err(LabError::step(format!("writing {}", rc.display())))?;
    let own = std::env::current_exe().map_err(LabError::step("finding the lab's own program"))?;
    let (first, rest) = match program.split_first() {
        Some((first, rest)) => (first.clone(), rest.to_vec()),
        None => shell(&rc),
    };
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut command = lab
        .host(host)?
        .command(first)
        .args(rest)
        .env("LAB_DIRECTORY", lab.directory())
        .env("LAB_PROGRAM", &own)
        .env("LAB_HOSTS", lab.hosts().len().to_string())
        .env("BASH_ENV", &rc)
        .env("PATH", path_with(own.parent()));
    if let Ok(directory) = std::env::current_dir() {
        command = command.current_dir(directory);
    }
    if !terminal {
        let failed = LabError::step("sharing the standard streams");
        return match streams() {
            Ok(streams) => ended(&command.streams(streams).spawn()?),
            Err(error) => Err(failed(error)),
        };
    }
    let failed = |errno: Errno| LabError::step("opening a terminal for the shell")(errno.into());
    let (master, slave) = open_terminal().map_err(failed)?;
    copy_window_size(&master);
    let slaves = [&slave, &slave, &slave].map(rustix::io::dup);
    let [Ok(input), Ok(output), Ok(errors)] = slaves else {
        return Err(failed(Errno::MFILE));
    };
    let process = command
        .streams([input, output, errors])
        .terminal()
        .spawn()?;
    drop(slave);
    let raw = Raw::enter().map_err(failed)?;
    let done = converse(&master, &raw);
    drop(raw);
    done.map_err(LabError::step("passing on what the shell writes"))?;
    ended(&process)
}

/// The shell that shows most of what it is: bash if there is one.
fn shell(rc: &Path) -> (OsString, Vec<OsString>) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let bash = std::env::split_paths(&path).any(|directory| directory.join("bash").is_file());
    match (bash, io::stdin().is_terminal()) {
        (true, true) => (
            "bash".into(),
            vec!["--rcfile".into(), rc.into(), "-i".into()],
        ),
        (true, false) => ("bash".into(), Vec::new()),
        (false, _) => ("sh".into(), Vec::new()),
    }
}

/// The search path, with the programs that were built beside this one first.
fn path_with(own: Option<&Path>) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = own.map(PathBuf::from).into_iter();
    std::env::join_paths(all.chain(std::env::split_paths(&path))).unwrap_or(path)
}

fn streams() -> io::Result<[OwnedFd; 3]> {
    Ok([
        rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?,
        rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?,
        rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?,
    ])
}

fn ended(process: &Process) -> Result<u8, LabError> {
    loop {
        match process.wait(Duration::from_secs(3600)) {
            Ok(Exit::Code(code)) => return Ok(code as u8),
            Ok(Exit::Signal(signal)) => return Ok(128_u8.wrapping_add(signal as u8)),
            Ok(Exit::HostDown) => return Ok(137),
            Err(LabError::Late { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn open_terminal() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(OsStr::from_bytes(name.as_bytes()))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok((master, slave.into()))
}

fn copy_window_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(io::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// The terminal as the shell's own, until dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Result<Self, Errno> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Passes on keys and output until the shell's side of its terminal is closed.
fn converse(master: &OwnedFd, raw: &Raw) -> io::Result<()> {
    let keys = rustix::io::dup(master)?;
    std::thread::spawn(move || copy(io::stdin(), &keys));
    let window = rustix::io::dup(master)?;
    let mut signals = signal_hook::iterator::Signals::new([SIGWINCH, SIGTERM, SIGHUP])?;
    let before = raw.before.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGWINCH {
                copy_window_size(&window);
            } else {
                // The keeper takes the lab down.
                let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
                std::process::exit(128 + signal);
            }
        }
    });
    copy(master, io::stdout());
    Ok(())
}

/// Copies until either side is closed.
fn copy(from: impl rustix::fd::AsFd, to: impl rustix::fd::AsFd) {
    let mut buffer = [0; 4096];
    loop {
        let count = match rustix::io::read(&from, &mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(_) => return,
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match rustix::io::write(&to, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}
