//! Programs on a host.

use crate::{
    LabError,
    host::Host,
    wire::{self, Report, Spawn, ToHost},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fd::{AsFd, OwnedFd},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub use rustix::process::Signal;

/// A program to run on a host, put together as with [`std::process::Command`].
///
/// Its environment is that of a fresh login on the host: `PATH` and the places of Rust's tools
/// from the caller; home, cache, state and runtime directories of the host; nothing else.
#[derive(Debug)]
pub struct Command {
    host: Arc<Host>,
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    input: Option<PathBuf>,
    streams: Option<[OwnedFd; 3]>,
    terminal: bool,
}

impl Command {
    pub(crate) fn new(host: Arc<Host>, program: OsString) -> Self {
        let environment = host.environment();
        let directory = host.home();
        Self {
            host,
            program,
            arguments: Vec::new(),
            environment,
            directory,
            input: None,
            streams: None,
            terminal: false,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Takes a variable away.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.remove(name.as_ref());
        self
    }

    /// Sets the working directory. Without this it is the host's home directory.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Reads standard input from a file. Without this it is empty.
    pub fn stdin(mut self, file: impl Into<PathBuf>) -> Self {
        self.input = Some(file.into());
        self
    }

    /// Uses these as standard streams, in place of files that capture them.
    pub fn streams(mut self, streams: [OwnedFd; 3]) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Makes standard input, which must be a terminal, the one that controls the program.
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Starts the program, in a session of its own.
    ///
    /// # Errors
    ///
    /// The host is down, or the program cannot be executed.
    pub fn spawn(self) -> Result<Process, LabError> {
        let program = self.find()?;
        let name = program.file_name().unwrap_or(program.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let log = self.host.next_log(&name);
        let streams = match self.streams {
            Some(streams) => streams,
            None => {
                let input = self.input.unwrap_or_else(|| "/dev/null".into());
                [
                    open(&input, File::open(&input))?,
                    open(&log, File::create(&log))?,
                    open(&log, File::create(log.with_extension("err")))?,
                ]
            }
        };
        let mut arguments = vec![self.program.into_vec()];
        arguments.extend(self.arguments.into_iter().map(OsString::into_vec));
        let variable = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            name.into_vec()
        };
        let spawn = ToHost::Spawn(Spawn {
            program: program.as_os_str().as_bytes().to_vec(),
            arguments,
            environment: self.environment.into_iter().map(variable).collect(),
            directory: self.directory.into_os_string().into_vec(),
            terminal: self.terminal,
        });
        let doing = || format!("starting {name} on host {}", self.host.number());
        let (ours, theirs) = wire::pair().map_err(|e| LabError::step(doing())(e.into()))?;
        let descriptors = [&theirs, &streams[0], &streams[1], &streams[2]].map(AsFd::as_fd);
        self.host.tell(&spawn, &descriptors, doing)?;
        drop((theirs, streams));
        match wire::receive::<Report>(ours.as_fd()) {
            Ok(Some((Report::Started { pid }, _))) => Ok(Process {
                host: self.host,
                name,
                pid,
                report: ours,
                exit: Mutex::new(None),
                log,
                started: Instant::now(),
            }),
            Ok(Some((Report::Failed(failure), _))) => Err(LabError::Step {
                doing: format!("{}: {}", doing(), failure.doing),
                error: io::Error::from_raw_os_error(failure.errno),
            }),
            _ => Err(LabError::Down(self.host.number())),
        }
    }

    /// Starts the program and waits for its end.
    ///
    /// # Errors
    ///
    /// As [`Self::spawn`]; [`LabError::Late`] if it has not ended after `bound`. Then it runs on.
    pub fn run(self, bound: Duration) -> Result<Finished, LabError> {
        let process = self.spawn()?;
        let exit = process.wait(bound)?;
        Ok(Finished {
            exit,
            stdout: process.stdout(),
            stderr: process.stderr(),
            duration: process.started.elapsed(),
        })
    }

    /// The program's file, by the caller's `PATH`.
    fn find(&self) -> Result<PathBuf, LabError> {
        let program = Path::new(&self.program);
        let failed = |error| LabError::Step {
            doing: format!("finding the program {}", program.display()),
            error,
        };
        if self.program.as_bytes().contains(&b'/') {
            return program.canonicalize().map_err(failed);
        }
        let path = self.environment.get(OsStr::new("PATH"));
        std::env::split_paths(path.map_or(OsStr::new(""), OsString::as_os_str))
            .map(|directory| directory.join(program))
            .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
            .ok_or_else(|| failed(io::Error::from(Errno::NOENT)))
    }
}

fn open(path: &Path, file: io::Result<File>) -> Result<OwnedFd, LabError> {
    let doing = || format!("opening {}", path.display());
    file.map(OwnedFd::from)
        .map_err(|error| LabError::step(doing())(error))
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// With its host.
    HostDown,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// A program that has ended, and what it wrote.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, with what is no UTF-8 replaced.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From its start to the moment that its end was seen.
    pub duration: Duration,
}

impl Finished {
    /// Itself if the program succeeded.
    ///
    /// # Panics
    ///
    /// With all it wrote, if it did not: for tests.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(
            self.exit.success(),
            "ended with {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.exit,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A program that was started on a host. It runs on if this is dropped, until the host goes down.
#[derive(Debug)]
pub struct Process {
    host: Arc<Host>,
    name: String,
    pid: i32,
    report: OwnedFd,
    exit: Mutex<Option<Exit>>,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Its id in the process namespace of its host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The number of its host.
    pub fn host(&self) -> u8 {
        self.host.number()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The file of its standard output. That of standard error ends in `.err`.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.log)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.log.with_extension("err"))
    }

    /// Waits until it has ended, as long as `bound`.
    ///
    /// # Errors
    ///
    /// [`LabError::Late`] if it has not ended by then. It runs on.
    pub fn wait(&self, bound: Duration) -> Result<Exit, LabError> {
        let late = || LabError::Late {
            host: self.host.number(),
            program: self.name.clone(),
            bound,
            output: self.log.clone(),
        };
        let deadline = Instant::now() + bound;
        let mut exit = self.exit.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(exit) = *exit {
            return Ok(exit);
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut polled = [PollFd::new(&self.report, PollFlags::IN)];
            match rustix::event::poll(&mut polled, left.as_ref()) {
                Ok(0) => return Err(late()),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let doing = format!("waiting for {}", self.name);
                    return Err(LabError::step(doing)(errno.into()));
                }
            }
        }
        let ended = match wire::receive(self.report.as_fd()) {
            Ok(Some((Report::Ended { status }, _))) if libc::WIFEXITED(status) => {
                Exit::Code(libc::WEXITSTATUS(status))
            }
            Ok(Some((Report::Ended { status }, _))) => Exit::Signal(libc::WTERMSIG(status)),
            _ => Exit::HostDown,
        };
        Ok(*exit.insert(ended))
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Option<Exit> {
        self.wait(Duration::ZERO).ok()
    }

    /// Sends it a signal. Does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// The host is down, or the program changed its user so that it may not be signalled.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        self.host.signal(self.pid, signal, false)
    }

    /// Sends a signal to it and to what it started without a process group of its own, as a
    /// terminal does for Ctrl-C.
    ///
    /// # Errors
    ///
    /// As [`Self::signal`].
    pub fn signal_group(&self, signal: Signal) -> Result<(), LabError> {
        self.host.signal(self.pid, signal, true)
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
