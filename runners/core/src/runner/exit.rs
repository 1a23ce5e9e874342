//! How a run ends for whoever started it.

use maelstrom_spec::{JobError, JobOutcome, JobStatus};
use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitCode, ExitStatus},
};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// It was told to end by this signal.
    Signal(i32),
}

impl Exit {
    /// All went well.
    pub const SUCCESS: Exit = Exit::Code(0);
    /// A fatal error, or a test that did not end by itself.
    pub const FAILURE: Exit = Exit::Code(1);

    /// Ends like a build tool did: with its code, or 128 and the number of its signal.
    pub fn of_tool(status: ExitStatus) -> Exit {
        let code = status
            .code()
            .or_else(|| Some(128 + status.signal()?))
            .unwrap_or(1);
        Exit::Code(u8::try_from(code).unwrap_or(1))
    }

    /// What a test's end means for the run: nothing if it passed, its own code if it exited with
    /// one, else 1.
    pub fn of_test(result: &Result<JobOutcome, JobError>) -> Option<Exit> {
        match result {
            Ok(outcome) => match outcome.status {
                JobStatus::Exited(0) => None,
                JobStatus::Exited(code) => Some(Exit::Code(code)),
                _ => Some(Exit::FAILURE),
            },
            Err(_) => Some(Exit::FAILURE),
        }
    }

    /// Ends this process. For a signal, by that signal, so that a shell sees what happened.
    pub fn exit(self) -> ExitCode {
        match self {
            Exit::Code(code) => ExitCode::from(code),
            Exit::Signal(signal) => {
                // Returns only for signals whose default is not to end the process.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_spec::JobEffects;

    #[test]
    fn tests_give_their_own_code() {
        let ended = |status| {
            Ok(JobOutcome {
                status,
                effects: JobEffects::default(),
            })
        };
        for (result, expected) in [
            (ended(JobStatus::Exited(0)), None),
            (ended(JobStatus::Exited(101)), Some(Exit::Code(101))),
            (ended(JobStatus::Signaled(6)), Some(Exit::FAILURE)),
            (ended(JobStatus::TimedOut), Some(Exit::FAILURE)),
            (Err(JobError::System("x".into())), Some(Exit::FAILURE)),
        ] {
            assert_eq!(Exit::of_test(&result), expected, "{result:?}");
        }
    }

    #[test]
    fn tools_give_theirs() {
        assert_eq!(
            Exit::of_tool(ExitStatus::from_raw(101 << 8)),
            Exit::Code(101)
        );
        assert_eq!(Exit::of_tool(ExitStatus::from_raw(9)), Exit::Code(137));
    }
}
