//! A host: its directories, and its first process while it is up.

use crate::{
    Command, LabError, Signal, groups,
    keeper::Keeper,
    netlink::{Interface, LOOPBACK, Netlink},
    network::{self, INTERFACE},
    wire::{self, FromHost, ToHost},
};
use rustix::{
    event::{PollFd, PollFlags},
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    net::RecvFlags,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

/// A machine of the lab. Its files outlive its processes: a host that was killed and booted
/// again finds them as they were.
#[derive(Debug)]
pub struct Host {
    number: u8,
    directory: PathBuf,
    group: Option<PathBuf>,
    logs: AtomicU32,
    up: Mutex<Option<Up>>,
}

/// What there is of a host while it is up.
#[derive(Debug)]
struct Up {
    control: OwnedFd,
    first_process: OwnedFd,
}

impl Host {
    pub(crate) fn new(number: u8, lab: &Path, group: Option<&Path>) -> Result<Self, LabError> {
        let directory = lab.join(number.to_string());
        let host = Self {
            number,
            directory,
            group: group.map(Path::to_owned),
            logs: AtomicU32::new(0),
            up: Mutex::new(None),
        };
        for directory in [
            host.home(),
            host.runtime_directory(),
            host.log_directory(),
            host.tmp(),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(LabError::step(format!("making {}", directory.display())))?;
        }
        Ok(host)
    }

    /// Its number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its name: `host1`, `host2`, …
    pub fn name(&self) -> String {
        format!("host{}", self.number)
    }

    /// Its address: `10.77.0.` and its number.
    pub fn address(&self) -> IpAddr {
        self.ipv4().into()
    }

    pub(crate) fn ipv4(&self) -> Ipv4Addr {
        network::ipv4(self.number)
    }

    /// Its second address: `fd77::` and its number.
    pub fn ipv6(&self) -> Ipv6Addr {
        network::ipv6(self.number)
    }

    /// Its home directory, with `.cache`, `.config`, `.local/state` and `.local/share` where
    /// programs expect them.
    pub fn home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// `$XDG_RUNTIME_DIR` of its programs.
    pub fn runtime_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// `$TMPDIR` of its programs.
    pub fn tmp(&self) -> PathBuf {
        self.directory.join("tmp")
    }

    /// Where the output of its programs is captured.
    pub fn log_directory(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// How many control groups its programs have made. 0 where hosts have no group of their own.
    pub(crate) fn groups(&self) -> usize {
        let inside = self.group.as_deref().map(groups::groups_in);
        inside.and_then(Result::ok).map_or(0, |inside| inside.len())
    }

    /// A program to run on it.
    pub fn command(self: &Arc<Self>, program: impl Into<OsString>) -> Command {
        Command::new(self.clone(), program.into())
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.up().is_some()
    }

    fn up(&self) -> MutexGuard<'_, Option<Up>> {
        self.up.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Starts its first process and plugs it in as interface `port` of the switch.
    pub(crate) fn boot(
        &self,
        keeper: &Keeper,
        switch: &Netlink,
        port: &Interface<'_>,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), LabError> {
        let mut up = self.up();
        if up.is_some() {
            return Err(LabError::Up(self.number));
        }
        let doing = format!("booting host {}", self.number);
        let pair = wire::pair();
        let (ours, theirs) = pair.map_err(|errno| LabError::step(doing.clone())(errno.into()))?;
        let first_process = keeper.boot(&self.name(), theirs.as_fd())?;
        drop(theirs);
        if let Some(group) = &self.group {
            // Of a machine that was switched off no group is left.
            groups::remove_inside(group);
            // A host outside its group works too.
            let _ = pid_of(&first_process).and_then(|pid| groups::enter(group, pid));
        }
        let mut descriptors = match wire::receive(ours.as_fd()).map_err(LabError::step(doing))? {
            Some((FromHost::Ready, descriptors)) => descriptors.into_iter(),
            Some((FromHost::Failed(failure), _)) => return Err(LabError::unsupported(failure)),
            _ => return Err(LabError::Down(self.number)),
        };
        let (Some(netlink), Some(namespace)) = (descriptors.next(), descriptors.next()) else {
            return Err(LabError::Down(self.number));
        };
        let inside = Interface {
            index: INTERFACE,
            name: "eth0",
            hardware: Some(network::hardware(self.number)),
        };
        switch.add_pair(port, &inside, Some(namespace.as_fd()))?;
        let own = Netlink::new(netlink);
        own.set_up(LOOPBACK, true)?;
        own.set_up(INTERFACE, true)?;
        own.add_ipv4(INTERFACE, self.ipv4())?;
        // A machine without IPv6 has a lab without it.
        let _ = own.add_ipv6(INTERFACE, self.ipv6());
        own.add_route(INTERFACE, Ipv4Addr::new(224, 0, 0, 0), 4, None)?;
        if let Some(gateway) = gateway {
            own.add_neighbour(INTERFACE, gateway, network::hardware(gateway.octets()[3]))?;
            own.add_route(INTERFACE, Ipv4Addr::UNSPECIFIED, 0, Some(gateway))?;
        }
        *up = Some(Up {
            control: ours,
            first_process,
        });
        Ok(())
    }

    /// Kills all its processes, and waits until they have ended.
    pub(crate) fn kill(&self) -> Result<(), LabError> {
        let Some(up) = self.up().take() else {
            return Err(LabError::Down(self.number));
        };
        let doing = format!("killing host {}", self.number);
        let _ = rustix::process::pidfd_send_signal(&up.first_process, Signal::KILL);
        // Process 1 of a namespace ends after all others of it.
        let mut polled = [PollFd::new(&up.first_process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, None))
            .map_err(|errno| LabError::step(doing)(errno.into()))?;
        Ok(())
    }

    /// Sends a request that is answered elsewhere.
    pub(crate) fn tell(
        &self,
        request: &ToHost,
        descriptors: &[BorrowedFd<'_>],
        doing: impl Fn() -> String,
    ) -> Result<(), LabError> {
        let up = self.up();
        let up = up.as_ref().ok_or(LabError::Down(self.number))?;
        wire::send(up.control.as_fd(), request, descriptors)
            .map_err(|error| self.failed(up, doing(), error))
    }

    pub(crate) fn signal(&self, pid: i32, signal: Signal, group: bool) -> Result<(), LabError> {
        let signal = signal.as_raw();
        self.ask(&ToHost::Signal { pid, signal, group })
    }

    pub(crate) fn signal_all(&self, signal: Signal) -> Result<(), LabError> {
        let signal = signal.as_raw();
        self.ask(&ToHost::SignalAll { signal })
    }

    fn ask(&self, request: &ToHost) -> Result<(), LabError> {
        let doing = || format!("signalling on host {}", self.number);
        let up = self.up();
        let up = up.as_ref().ok_or(LabError::Down(self.number))?;
        match wire::ask(up.control.as_fd(), request, &[]) {
            Ok(Some((FromHost::Done, _))) => Ok(()),
            Ok(Some((FromHost::Failed(failure), _))) => Err(failure.into()),
            Ok(_) => Err(LabError::Down(self.number)),
            Err(error) => Err(self.failed(up, doing(), error)),
        }
    }

    /// What a broken connection to the first process means.
    fn failed(&self, up: &Up, doing: String, error: io::Error) -> LabError {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&up.control, &mut byte, flags) {
            Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => LabError::Down(self.number),
            _ => LabError::Step { doing, error },
        }
    }

    /// The file that the next program's standard output goes to.
    pub(crate) fn next_log(&self, program: &str) -> PathBuf {
        let number = self.logs.fetch_add(1, Ordering::Relaxed) + 1;
        self.log_directory().join(format!("{number}-{program}.out"))
    }

    /// The environment of a login on it.
    pub(crate) fn environment(&self) -> BTreeMap<OsString, OsString> {
        const KEPT: &[&str] = &[
            "PATH",
            "USER",
            "LOGNAME",
            "SHELL",
            "TERM",
            "LANG",
            "LC_ALL",
            "TZ",
            "RUST_LOG",
            "RUST_BACKTRACE",
            "RUSTUP_HOME",
            "RUSTUP_TOOLCHAIN",
            "CARGO_HOME",
            "GOROOT",
        ];
        let mut environment: BTreeMap<OsString, OsString> = KEPT
            .iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
            .collect();
        // Rust's tools stay where they are, although the home directory is another.
        if let Some(home) = std::env::var_os("HOME") {
            for (name, directory) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
                environment
                    .entry(name.into())
                    .or_insert_with(|| Path::new(&home).join(directory).into());
            }
        }
        let home = self.home();
        for (name, value) in [
            ("HOME", home.clone()),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("XDG_STATE_HOME", home.join(".local/state")),
            ("XDG_RUNTIME_DIR", self.runtime_directory()),
            ("TMPDIR", self.tmp()),
            ("HOSTNAME", self.name().into()),
            ("LAB_HOST", self.number.to_string().into()),
        ] {
            environment.insert(name.into(), value.into());
        }
        environment
    }
}

/// The number that this process's `/proc` has for a process.
fn pid_of(pidfd: &OwnedFd) -> io::Result<u32> {
    let information = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = information
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}
