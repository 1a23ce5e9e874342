//! Starting the program of a job.

use crate::{
    container::Blame,
    job::ContainerJob,
    launcher::socket_pair,
    slot_process::Surroundings,
    sys::{self, Doing, Failure},
    trace::{self, Traced},
};
use rustix::{
    fd::{AsRawFd, OwnedFd},
    io::Errno,
    process::Pid,
};
use std::{
    cell::UnsafeCell,
    ffi::{CString, c_char, c_int, c_void},
    mem::MaybeUninit,
    path::Path,
    ptr,
};

/// Everything that the new process needs, laid out so that it neither allocates nor locks: it
/// shares its memory with its parent until it executes the program.
struct Plan<'a> {
    candidates: &'a [CString],
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    stdin: c_int,
    stdout: c_int,
    stderr: c_int,
    terminal: Option<c_int>,
    leads_session: bool,
    background: bool,
    /// Where the listener of a watched program is sent to.
    watcher: Option<OwnedFd>,
    /// A descriptor that the program gets besides its streams, and under which number.
    handed_over: Option<(c_int, c_int)>,
    failed: Option<(Step, c_int)>,
}

#[derive(Clone, Copy)]
enum Step {
    Session,
    Scheduling,
    Streams,
    Terminal,
    Watch,
    Execute,
}

/// A program that has been started.
pub(crate) struct Started {
    pub(crate) program: Pid,
    pub(crate) traced: Option<Traced>,
}

/// The stack of a new process until it is the program. It takes no memory before it is used, nor
/// time to allocate.
struct Stack(UnsafeCell<[MaybeUninit<u128>; 4096]>);

// SAFETY: only `spawn` uses it, in a process with a single thread.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(UnsafeCell::new([MaybeUninit::uninit(); 4096]));

/// Starts the program. The working directory and everything else around it is in place.
pub(crate) fn spawn(
    job: &ContainerJob,
    environment: &[CString],
    around: &Surroundings<'_>,
) -> Result<Started, Blame> {
    let strings = Strings::of(job, environment).map_err(Blame::job)?;
    let mut plan = strings.plan(job, around);
    if job.trace_missing {
        return spawn_watched(job, plan);
    }
    // SAFETY: the child runs on a stack of its own, which nobody else uses, while this thread is
    // suspended; `child` keeps to calls that are safe there.
    let pid = unsafe {
        libc::clone(
            child,
            (*STACK.0.get()).as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut plan).cast(),
        )
    };
    // SAFETY: the child has executed the program or ended; its writes are visible here.
    let failed = unsafe { ptr::read_volatile(&raw const plan.failed) };
    match (failed, Pid::from_raw(pid.max(0))) {
        (Some((step, errno)), _) => Err(explain(job, step, Errno::from_raw_os_error(errno))),
        (None, Some(program)) => Ok(Started {
            program,
            traced: None,
        }),
        (None, None) => Err(Blame::Machine(format!(
            "starting a process in the container: {}",
            std::io::Error::last_os_error()
        ))),
    }
}

/// Becomes the program, with one more descriptor under a number of its own. Returns only if that
/// fails.
pub(crate) fn replace(
    job: &ContainerJob,
    around: &Surroundings<'_>,
    descriptor: &OwnedFd,
    number: c_int,
) -> Blame {
    let environment = match environment(job) {
        Ok(environment) => environment,
        Err(failure) => return Blame::job(failure),
    };
    let strings = match Strings::of(job, &environment) {
        Ok(strings) => strings,
        Err(failure) => return Blame::job(failure),
    };
    let plan = Plan {
        handed_over: Some((descriptor.as_raw_fd(), number)),
        ..strings.plan(job, around)
    };
    let (step, errno) = become_program(&plan);
    explain(job, step, Errno::from_raw_os_error(errno))
}

/// The strings that a [`Plan`] points at.
struct Strings<'a> {
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: &'a [CString],
}

/// The environment of a job as a program gets it. The error is one of the job's.
pub(crate) type Environment = Result<Vec<CString>, Failure>;

/// Makes the environment of a job.
pub(crate) fn environment(job: &ContainerJob) -> Environment {
    let variables = job.environment.iter();
    variables
        .map(|(name, value)| sys::c_string("an environment variable", format!("{name}={value}")))
        .collect()
}

impl<'a> Strings<'a> {
    fn of(job: &ContainerJob, environment: &'a [CString]) -> Result<Self, Failure> {
        let arguments = std::iter::once(&job.program).chain(&job.arguments);
        Ok(Self {
            candidates: candidates(job, environment)?,
            arguments: arguments
                .map(|argument| sys::c_string("an argument", argument.as_str()))
                .collect::<Result<_, _>>()?,
            environment,
        })
    }

    fn plan(&self, job: &ContainerJob, around: &Surroundings<'_>) -> Plan<'_> {
        let terminal = around.terminal.map(AsRawFd::as_raw_fd);
        Plan {
            candidates: &self.candidates,
            argv: pointers(&self.arguments),
            envp: pointers(self.environment),
            stdin: terminal.unwrap_or(around.null.as_raw_fd()),
            stdout: terminal.unwrap_or(around.stdout.as_raw_fd()),
            stderr: terminal.unwrap_or(around.stderr.as_raw_fd()),
            terminal,
            leads_session: job.leads_session || terminal.is_some(),
            background: job.background,
            watcher: None,
            handed_over: None,
            failed: None,
        }
    }
}

/// Starts a program whose file system calls this process will answer. This process must not be
/// suspended meanwhile, so the two share no memory, and a failure to execute is known from the
/// way the child ends.
fn spawn_watched(job: &ContainerJob, mut plan: Plan<'_>) -> Result<Started, Blame> {
    let (ours, theirs) = socket_pair().doing(|| "creating a socket".to_owned())?;
    plan.watcher = Some(theirs);
    // SAFETY: this process has a single thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child((&raw mut plan).cast());
    }
    let program = Pid::from_raw(pid.max(0)).ok_or_else(|| {
        Blame::Machine(format!(
            "starting {} in the container: {}",
            job.program,
            std::io::Error::last_os_error()
        ))
    })?;
    drop(plan);
    Ok(Started {
        program,
        traced: Some(Traced::receive(program, &ours)?),
    })
}

/// What to try to execute, in order.
fn candidates(job: &ContainerJob, environment: &[CString]) -> Result<Vec<CString>, Failure> {
    let path = environment
        .iter()
        .find_map(|variable| variable.to_str().ok()?.strip_prefix("PATH="));
    let mut candidates = Vec::new();
    if let Some(path) = path
        && !job.program.contains('/')
    {
        for directory in path.split(':').filter(|directory| !directory.is_empty()) {
            candidates.push(format!("{directory}/{}", job.program));
        }
    }
    candidates.push(job.program.clone());
    candidates
        .into_iter()
        .map(|candidate| sys::c_string("the program's name", candidate))
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The new process, until it is the program.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a plan that outlives this process's use of it.
    let plan = unsafe { &mut *plan.cast::<Plan<'_>>() };
    let (step, errno) = become_program(plan);
    plan.failed = Some((step, errno));
    // SAFETY: ends this process without running the handlers of its parent.
    unsafe { libc::_exit(127) }
}

fn become_program(plan: &Plan<'_>) -> (Step, c_int) {
    // SAFETY: reads this thread's error number.
    let errno = || unsafe { *libc::__errno_location() };
    // SAFETY: plain system calls on values that `spawn` laid out.
    unsafe {
        if plan.leads_session && libc::setsid() < 0 {
            return (Step::Session, errno());
        }
        let parameters = libc::sched_param { sched_priority: 0 };
        if plan.background
            && libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) < 0
        {
            return (Step::Scheduling, errno());
        }
        for (from, to) in [(plan.stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
            // Descriptors below 3 were closed or replaced by the slot; these are all above.
            if libc::dup2(from, to) < 0 {
                return (Step::Streams, errno());
            }
        }
        if let Some((from, to)) = plan.handed_over {
            let failed = if from == to {
                libc::fcntl(to, libc::F_SETFD, 0) < 0
            } else {
                libc::dup2(from, to) < 0
            };
            if failed {
                return (Step::Streams, errno());
            }
        }
        if let Some(terminal) = plan.terminal
            && libc::ioctl(terminal, libc::TIOCSCTTY, 0) < 0
        {
            return (Step::Terminal, errno());
        }
        // Rust programs ignore this one, and a child would inherit that.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if let Some(watcher) = &plan.watcher
            && let Err(errno) = trace::submit(watcher)
        {
            return (Step::Watch, errno.raw_os_error());
        }
        let mut denied = false;
        let last = plan.candidates.len() - 1;
        for (index, candidate) in plan.candidates.iter().enumerate() {
            if index < last && libc::access(candidate.as_ptr(), libc::X_OK) < 0 {
                denied |= errno() == libc::EACCES;
                continue;
            }
            if index < last && is_directory(candidate.as_ptr()) {
                continue;
            }
            libc::execve(candidate.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr());
            let failure = errno();
            let failure = if denied && failure == libc::ENOENT {
                libc::EACCES
            } else {
                failure
            };
            return (Step::Execute, failure);
        }
        (Step::Execute, libc::ENOENT)
    }
}

fn is_directory(path: *const c_char) -> bool {
    // SAFETY: `path` is a C string, and `stat` is written to before it is read.
    unsafe {
        let mut stat = std::mem::zeroed::<libc::stat>();
        libc::stat(path, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// What to tell a person about a program that could not be started.
fn explain(job: &ContainerJob, step: Step, errno: Errno) -> Blame {
    let doing = match step {
        Step::Session => "creating a session",
        Step::Scheduling => "entering the lowest scheduling class",
        Step::Streams => "connecting the standard streams",
        Step::Terminal => "taking control of the terminal",
        Step::Watch => "watching the program's file system calls",
        Step::Execute => {
            return Blame::Job(format!(
                "executing {}: {}{}",
                job.program,
                sys::describe(errno),
                reason(job, errno)
            ));
        }
    };
    Blame::Machine(format!("{doing}: {}", sys::describe(errno)))
}

/// More than the kernel's words, where they mislead.
fn reason(job: &ContainerJob, errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT if job.program.contains('/') && Path::new(&job.program).exists() => {
            " (the program is there, but the loader or interpreter that it names is not in the \
             container)"
        }
        Errno::NOEXEC => " (not a program for this kind of machine)",
        _ => "",
    }
}
