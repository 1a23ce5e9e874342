//! Forks that are used again.
//!
//! A fork of an interpreter is cheap until it runs: a test that does next to nothing writes to a
//! thousand pages, each of which the kernel copies, and takes apart afterwards. So a fork that has
//! run a test is not thrown away if nothing of the test is left but what it has written to its
//! memory: the slot has it copy the original contents back ([`store`]), sets the processor's
//! registers to what they were, and the process is again where it stood before the test, in a
//! container that is as it was. To itself it has never run anything.
//!
//! Nothing else may be left, and that is not looked for afterwards but known: from the start on
//! the kernel reports every system call that could leave something ([`rules`]), and a process that
//! has made one is not used again. Its test goes on undisturbed.
//!
//! The original contents come from the template, which shares with its fork all that neither has
//! written to. It stands still meanwhile.

mod files;
mod memory;
mod rules;
mod store;
mod tracee;
mod tracker;

use crate::{
    sys::{Doing, Failure},
    trace::{self, Notification},
};
use maelstrom_spec::JobStatus;
use memory::Memory;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    fs::{Mode, OFlags},
    io::Errno,
    process::{Pid, PidfdFlags},
};
use store::Store;
use tracee::{Registers, Stopped};
use tracker::Tracker;

/// The filter for forks that can be rewound, as hexadecimal digits; empty where none can.
pub(crate) fn filter() -> String {
    let mut digits = String::new();
    for instruction in rules::program() {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&instruction.code.to_ne_bytes());
        bytes[2..4].copy_from_slice(&[instruction.jt, instruction.jf]);
        bytes[4..].copy_from_slice(&instruction.k.to_ne_bytes());
        for byte in bytes {
            digits.push_str(&format!("{byte:02x}"));
        }
    }
    digits
}

/// A fork that may be rewound.
pub(crate) struct Fork {
    listener: OwnedFd,
    /// The fork's `userfaultfd`, until its memory is remembered.
    faults: Option<OwnedFd>,
    /// Known from its first call on.
    process: Option<Process>,
    beginning: Option<Beginning>,
    /// Whether it has left, or may have left, something besides memory.
    is_spoilt: bool,
    /// Whether it has changed files in the container's own file systems in memory.
    has_written: bool,
    /// Whether its call that says that its job has ended waits for an answer.
    has_ended: bool,
    rewound: u32,
}

struct Process {
    pid: i32,
    /// Ready for reading when it has ended.
    pidfd: OwnedFd,
    /// `/proc/PID`.
    directory: OwnedFd,
}

/// What a fork is set back to.
struct Beginning {
    registers: Registers,
    memory: Memory,
    descriptors: Vec<String>,
    /// Keeps the template as it is.
    _template: Stopped,
}

impl Fork {
    /// `listener` is where the kernel reports the fork's calls, and `faults` a `userfaultfd` of
    /// the fork's.
    pub(crate) fn new(listener: OwnedFd, faults: OwnedFd) -> Self {
        Self {
            listener,
            faults: Some(faults),
            process: None,
            beginning: None,
            is_spoilt: false,
            has_written: false,
            has_ended: false,
            rewound: 0,
        }
    }

    /// What is ready for reading when [`Self::listen`] has something to do.
    pub(crate) fn awaited(&self) -> PollFd<'_> {
        PollFd::new(&self.listener, PollFlags::IN)
    }

    /// What is ready for reading when the process has ended, so that its template has to go on.
    pub(crate) fn end(&self) -> Option<PollFd<'_>> {
        let process = self.process.as_ref().filter(|_| self.beginning.is_some())?;
        Some(PollFd::new(&process.pidfd, PollFlags::IN))
    }

    /// How often it was rewound.
    pub(crate) fn rewound(&self) -> u32 {
        self.rewound
    }

    /// Gives up rewinding it: its template goes on.
    pub(crate) fn spoil(&mut self) {
        self.is_spoilt = true;
        self.beginning = None;
    }

    /// Whether its job may have left files in the container's file systems in memory, since it was
    /// last rewound.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// Whether its job has ended, and it has not been rewound since.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Answers one call of the fork. `payload` is for the job that it begins. Returns the status
    /// of a job that has ended, so that the fork can be rewound.
    pub(crate) fn listen(&mut self, payload: &[u8]) -> Option<JobStatus> {
        let call = trace::receive_notification(&self.listener)?;
        let [option, what, first, second, third, _] = call.data.args;
        let is_own = self
            .process
            .as_ref()
            .is_none_or(|process| process.pid == call.pid as i32);
        if is_own && libc::c_long::from(call.data.nr) == libc::SYS_prctl && option == rules::OPTION
        {
            match what {
                rules::STANDS => self.stands(&call, [first, second, third], payload),
                rules::ENDED => return self.ends(&call, first),
                _ => trace::let_go_on(&self.listener, call.id),
            }
            return None;
        }
        // Until it stands it is still being made.
        if self.process.is_some() && !self.is_spoilt && self.leaves_something(&call) {
            self.spoil();
        }
        trace::let_go_on(&self.listener, call.id);
        None
    }

    /// Whether a call leaves something besides memory and files in memory.
    fn leaves_something(&mut self, call: &Notification) -> bool {
        let (Some(process), Some(Beginning { memory, .. })) = (&self.process, &self.beginning)
        else {
            return true;
        };
        let arguments = call.data.args;
        match libc::c_long::from(call.data.nr) {
            libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_madvise | libc::SYS_mmap => {
                memory.concerns(arguments[0], arguments[1])
            }
            libc::SYS_mremap => {
                memory.concerns(arguments[0], arguments[1])
                    || arguments[3] & libc::MREMAP_FIXED as u64 != 0
                        && memory.concerns(arguments[4], arguments[2])
            }
            libc::SYS_brk => memory.shrinks_heap(arguments[0]),
            _ if files::stays_in_memory(call, &process.directory) => {
                self.has_written = true;
                false
            }
            _ => true,
        }
    }

    /// The fork stands where it can be rewound to.
    fn stands(&mut self, call: &Notification, [buffer, size, shared]: [u64; 3], payload: &[u8]) {
        if self.beginning.is_none() && !self.is_spoilt {
            // Stopping it takes its call back, and it makes it again when it goes on.
            match self.begin(call, shared) {
                Ok(()) => return,
                Err(_) => self.spoil(),
            }
        }
        let fits = payload.len() as u64 <= size;
        if fits && memory::write(call.pid as i32, buffer, payload).is_ok() {
            trace::answer(&self.listener, call.id, payload.len() as i64);
        } else {
            self.spoil();
            trace::answer(&self.listener, call.id, -1);
        }
    }

    fn begin(&mut self, call: &Notification, shared: u64) -> Result<(), Failure> {
        let process = self.process.insert(Process::open(call.pid as i32)?);
        let faults = self.faults.take().ok_or(Errno::INVAL);
        let remember = || {
            let tracker = Tracker::new(faults?)?;
            let store = Store::new()?;
            let file = trace::give_descriptor(&self.listener, call.id, store.file())?;
            Beginning::remember(process, tracker, (store, file), shared)
        };
        self.beginning = Some(remember().doing(|| "remembering a process".to_owned())?);
        Ok(())
    }

    fn ends(&mut self, call: &Notification, code: u64) -> Option<JobStatus> {
        if self.beginning.is_none() {
            trace::answer(&self.listener, call.id, 0);
            return None;
        }
        self.has_ended = true;
        Some(JobStatus::Exited(code as u8))
    }

    /// Sets a fork whose job has ended back to where it stood before.
    ///
    /// # Errors
    ///
    /// What the kernel says. Then its container is to be ended.
    pub(crate) fn rewind(&mut self) -> Result<(), Errno> {
        (self.has_ended, self.has_written) = (false, false);
        let (Some(process), Some(beginning)) = (&self.process, &mut self.beginning) else {
            return Err(Errno::INVAL);
        };
        if process.descriptors()? != beginning.descriptors {
            return Err(Errno::BADF);
        }
        let stopped = Stopped::stop(process.pid)?;
        if memory::mapped_pages(&process.directory)? != beginning.memory.mapped_pages {
            let heap_end = beginning.memory.heap_end();
            for range in beginning.memory.extra(&process.directory)? {
                let (call, arguments, expected) = if Some(range.start) == heap_end {
                    (libc::SYS_brk, [range.start, 0, 0, 0, 0, 0], range.start)
                } else {
                    let length = range.end - range.start;
                    (libc::SYS_munmap, [range.start, length, 0, 0, 0, 0], 0)
                };
                let allow = || allow_next(&self.listener);
                if stopped.call(&beginning.registers, call, arguments, allow)? != expected {
                    return Err(Errno::INVAL);
                }
            }
            if memory::mapped_pages(&process.directory)? != beginning.memory.mapped_pages {
                return Err(Errno::NOMEM);
            }
        }
        let registers = &beginning.registers;
        beginning.memory.restore(&stopped, registers)?;
        stopped.set(registers)?;
        self.rewound += 1;
        Ok(())
    }
}

/// Lets a call go on that is about to be reported.
fn allow_next(listener: &OwnedFd) -> Result<(), Errno> {
    let mut awaited = [PollFd::new(listener, PollFlags::IN)];
    let limit = crate::watch::timespec(std::time::Duration::from_secs(5));
    match poll(&mut awaited, Some(&limit)) {
        Ok(1) => {}
        Ok(_) => return Err(Errno::TIMEDOUT),
        Err(errno) => return Err(errno),
    }
    let call = trace::receive_notification(listener).ok_or(Errno::SRCH)?;
    trace::let_go_on(listener, call.id);
    Ok(())
}

impl Process {
    fn open(pid: i32) -> Result<Self, Failure> {
        let number = Pid::from_raw(pid).ok_or(Errno::SRCH);
        let pidfd = number
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .doing(|| "opening a process descriptor".to_owned())?;
        let directory = format!("/proc/{pid}");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&directory, flags, Mode::empty())
            .doing(|| format!("opening {directory}"))?;
        Ok(Self {
            pid,
            pidfd,
            directory,
        })
    }

    fn parent(&self) -> Result<i32, Errno> {
        let status = memory::read_text(&self.directory, "stat")?;
        // After the name, which may hold anything.
        let rest = status.rsplit_once(')').ok_or(Errno::INVAL)?.1;
        let parent = rest.split_ascii_whitespace().nth(1);
        parent
            .and_then(|parent| parent.parse().ok())
            .ok_or(Errno::INVAL)
    }

    /// Its working directory, and what descriptors it has, what they refer to, and their positions
    /// and flags.
    fn descriptors(&self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        let directory = memory::open(&self.directory, "fd")?;
        for entry in rustix::fs::Dir::new(directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name.parse::<u32>().is_ok()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        let directory = rustix::fs::readlinkat(&self.directory, "cwd", Vec::new())?;
        let mut described = vec![directory.to_string_lossy().into_owned()];
        for name in names {
            let link = format!("fd/{name}");
            let what = rustix::fs::readlinkat(&self.directory, &link, Vec::new())?;
            let state = memory::read_text(&self.directory, &format!("fdinfo/{name}"))?;
            described.push(format!("{name} {} {state}", what.to_string_lossy()));
        }
        Ok(described)
    }
}

impl Beginning {
    /// `file` is the number of the store's file in the process.
    fn remember(
        process: &Process,
        tracker: Tracker,
        (mut store, file): (Store, u32),
        shared: u64,
    ) -> Result<Self, Errno> {
        let origin = process.parent()?;
        // Before its memory is looked at, since it may not have come to rest.
        let template = Stopped::stop(origin)?;
        let stopped = Stopped::stop(process.pid)?;
        let registers = stopped.registers()?;
        let attached = store.attach(&stopped, &registers, file);
        stopped.set(&registers)?;
        attached?;
        let pids = [process.pid, origin];
        Ok(Self {
            registers,
            memory: Memory::remember(&process.directory, pids, tracker, store, shared)?,
            descriptors: process.descriptors()?,
            _template: template,
        })
    }
}
