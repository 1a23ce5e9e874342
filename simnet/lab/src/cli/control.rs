//! How programs in the lab ask for changes of it: a socket in the lab's directory.

use crate::{Capture, Direction, Exit, Lab, LabError, Process, Shape, Signal, wire};
use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fmt::Write,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The socket's name in the lab's directory.
const SOCKET: &str = "control";

/// What may be asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Comes with three standard streams. Answered when the program has ended.
    Execute {
        host: u8,
        program: Vec<Vec<u8>>,
        directory: Vec<u8>,
    },
    /// To the program that this connection executes.
    Signal(i32),
    Cut(u8),
    Heal(u8),
    Kill(u8),
    Boot(u8),
    Pause(u8),
    Resume(u8),
    Block(u8, u8),
    Unblock(u8, u8),
    Partition(Vec<Vec<u8>>),
    Shape {
        host: u8,
        toward: bool,
        from: bool,
        rate: Option<u64>,
        latency: Duration,
        loss: f64,
    },
    Multicast(bool),
    /// To this file; `None` ends it.
    Capture(Option<PathBuf>),
    Status,
}

/// What comes of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done(String),
    Failed(String),
    /// With this exit code, as shells count.
    Ended(u8),
}

/// The lab that orders are carried out on.
#[derive(Debug)]
struct Served {
    lab: Arc<Lab>,
    capture: Mutex<Option<Capture>>,
}

/// Carries out what is asked for by the socket, in threads that run until the process ends.
pub(super) fn serve(lab: &Arc<Lab>) -> Result<(), LabError> {
    let path = lab.directory().join(SOCKET);
    let failed = |error| LabError::step(format!("listening on {}", path.display()))(error);
    let listener = listen(&path).map_err(|errno| failed(errno.into()))?;
    let served = Arc::new(Served {
        lab: lab.clone(),
        capture: Mutex::new(None),
    });
    std::thread::Builder::new()
        .name("lab-control".to_owned())
        .spawn(move || {
            while let Ok(connection) = accept(&listener) {
                let served = served.clone();
                // One that finds no thread is closed, which its client reports.
                let _ = std::thread::Builder::new().spawn(move || served.connection(&connection));
            }
        })
        .map_err(failed)?;
    Ok(())
}

fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let listener = socket()?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&listener, 16)?;
    Ok(listener)
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))
}

impl Served {
    fn connection(&self, connection: &OwnedFd) {
        while let Ok(Some((order, descriptors))) = wire::receive::<Order>(connection.as_fd()) {
            let answer = match order {
                Order::Execute {
                    host,
                    program,
                    directory,
                } => match self.execute(host, program, directory, descriptors) {
                    Ok(process) => attend(&process, connection),
                    Err(error) => Answer::Failed(error.to_string()),
                },
                order => match self.carry_out(order) {
                    Ok(text) => Answer::Done(text),
                    Err(error) => Answer::Failed(error.to_string()),
                },
            };
            if wire::send(connection.as_fd(), &answer, &[]).is_err() {
                return;
            }
        }
    }

    fn carry_out(&self, order: Order) -> Result<String, LabError> {
        let lab = &self.lab;
        match order {
            Order::Execute { .. } | Order::Signal(_) => {}
            Order::Cut(host) => lab.cut(host)?,
            Order::Heal(host) => {
                lab.heal(host)?;
                lab.shape(host, Direction::Both, Shape::default())?;
            }
            Order::Kill(host) => lab.kill(host)?,
            Order::Boot(host) => lab.boot(host)?,
            Order::Pause(host) => lab.pause(host)?,
            Order::Resume(host) => lab.resume(host)?,
            Order::Block(from, to) => lab.block(from, to)?,
            Order::Unblock(from, to) => lab.unblock(from, to)?,
            Order::Partition(groups) => {
                lab.partition(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            }
            Order::Shape {
                host,
                toward,
                from,
                rate,
                latency,
                loss,
            } => {
                let direction = match (toward, from) {
                    (true, false) => Direction::ToHost,
                    (false, true) => Direction::FromHost,
                    _ => Direction::Both,
                };
                let shape = Shape {
                    rate,
                    latency,
                    loss,
                };
                lab.shape(host, direction, shape)?;
            }
            Order::Multicast(on) => lab.set_multicast(on)?,
            Order::Capture(file) => return self.capture(file),
            Order::Status => return Ok(status(lab)),
        }
        Ok(String::new())
    }

    fn capture(&self, file: Option<PathBuf>) -> Result<String, LabError> {
        let mut capture = self.capture.lock().unwrap_or_else(|e| e.into_inner());
        let mut text = String::new();
        if let Some(capture) = capture.take() {
            let captured = capture.finish()?;
            let (count, lost) = (captured.count(), captured.lost());
            let _ = writeln!(text, "{count} packets captured, {lost} missed");
            for outsider in captured.outsiders() {
                let _ = writeln!(text, "leaves the lab: {outsider}");
            }
        }
        if let Some(file) = file {
            *capture = Some(self.lab.capture(&file, None)?);
        }
        Ok(text)
    }

    fn execute(
        &self,
        host: u8,
        program: Vec<Vec<u8>>,
        directory: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Process, LabError> {
        let mut words = program.into_iter().map(OsString::from_vec);
        let mut command = self
            .lab
            .host(host)?
            .command(words.next().unwrap_or_default())
            .args(words);
        // The caller's directory means the same everywhere, unless it is its host's own.
        let directory = PathBuf::from(OsString::from_vec(directory));
        if !directory.starts_with(self.lab.directory()) {
            command = command.current_dir(directory);
        }
        if let Ok(streams) = <[OwnedFd; 3]>::try_from(descriptors) {
            command = command.streams(streams);
        }
        command.spawn()
    }
}

/// Waits for a program's end, and passes on the signals that its client sends meanwhile.
fn attend(process: &Process, connection: &OwnedFd) -> Answer {
    loop {
        if let Ok(exit) = process.wait(Duration::from_millis(20)) {
            return Answer::Ended(match exit {
                Exit::Code(code) => code as u8,
                Exit::Signal(signal) => 128_u8.wrapping_add(signal as u8),
                Exit::HostDown => 137,
            });
        }
        let nothing = rustix::event::Timespec::default();
        let mut polled = [rustix::event::PollFd::new(
            connection,
            rustix::event::PollFlags::IN,
        )];
        if rustix::event::poll(&mut polled, Some(&nothing)).is_ok_and(|ready| ready > 0) {
            let signal = match wire::receive::<Order>(connection.as_fd()) {
                Ok(Some((Order::Signal(signal), _))) => Signal::from_named_raw(signal),
                Ok(Some(_)) => None,
                // Its client has gone.
                _ => {
                    let _ = process.signal_group(Signal::HUP);
                    return Answer::Done(String::new());
                }
            };
            if let Some(signal) = signal {
                let _ = process.signal_group(signal);
            }
        }
    }
}

fn status(lab: &Lab) -> String {
    let mut text = String::new();
    for host in lab.hosts() {
        let state = if host.is_up() { "up" } else { "down" };
        let link = lab.describe_link(host.number()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:>3}  {:<12} {state:<5} {link}",
            host.number(),
            host.address().to_string()
        );
    }
    text
}

/// A connection to a lab.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: OwnedFd,
}

impl Client {
    /// To the lab whose directory this is.
    pub(super) fn connect(directory: &Path) -> Result<Self, LabError> {
        let path = directory.join(SOCKET);
        let connect = || {
            let socket = socket()?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        };
        match connect() {
            Ok(connection) => Ok(Self { connection }),
            Err(errno) => {
                let errno: Errno = errno;
                let doing = format!("connecting to the lab at {}", path.display());
                Err(LabError::step(doing)(errno.into()))
            }
        }
    }

    pub(super) fn ask(&self, order: &Order) -> Result<Answer, LabError> {
        match wire::ask(self.connection.as_fd(), order, &[]) {
            Ok(Some((answer, _))) => Ok(answer),
            _ => Err(LabError::Gone),
        }
    }

    /// Executes a program with the caller's standard streams.
    pub(super) fn execute(&self, host: u8, program: Vec<OsString>) -> Result<Answer, LabError> {
        let directory = std::env::current_dir().unwrap_or_default();
        let order = Order::Execute {
            host,
            program: program.into_iter().map(OsString::into_vec).collect(),
            directory: directory.as_os_str().as_bytes().to_vec(),
        };
        let streams = (io::stdin(), io::stdout(), io::stderr());
        let streams = [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()];
        match wire::ask(self.connection.as_fd(), &order, &streams) {
            Ok(Some((answer, _))) => Ok(answer),
            _ => Err(LabError::Gone),
        }
    }
}
