//! Ending like the job did.

use crate::report::Ending;
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};
use signal_hook::low_level::emulate_default_handler;
use std::process;

/// Ends the process.
pub(crate) fn end(ending: Ending) -> ! {
    match ending {
        Ending::Code(code) => process::exit(code.into()),
        Ending::Signal(signal) => die_by(signal.into()),
    }
}

/// Ends the process by a signal, so that whoever waits for it sees that; by SIGKILL where the
/// signal does not end processes.
pub(crate) fn die_by(signal: i32) -> ! {
    // The job's core is of interest, ours is not.
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, no_core);
    let _ = emulate_default_handler(signal);
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = kill_process(getpid(), signal);
    }
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}
