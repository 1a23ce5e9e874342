use crate::wire::Failure;
use std::{io, path::PathBuf, time::Duration};

/// Why the lab could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// This machine does not allow what the lab is made of: user namespaces, and mounting `/proc`
    /// and making network interfaces inside them. Tests skip on this, aloud.
    #[error(
        "this machine cannot run the lab: {doing}: {error}\n\
         Unprivileged user namespaces are needed: see user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, \
         and, in a container, its seccomp filter and masked parts of /proc."
    )]
    Unsupported {
        /// The step that failed.
        doing: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A step failed.
    #[error("{doing}: {error}")]
    Step {
        /// In the form "making the bridge".
        doing: String,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A host of this number does not exist.
    #[error("there is no host {0}: hosts are numbered from 1 to {1}")]
    NoHost(u8, u8),
    /// The host has been killed and not booted again.
    #[error("host {0} is down: boot it first")]
    Down(u8),
    /// The host is up already.
    #[error("host {0} is up already")]
    Up(u8),
    /// A program did not end in time.
    #[error("host {host}: {program} has not ended after {bound:?}; its output is in {}", output.display())]
    Late {
        /// The host it runs on.
        host: u8,
        /// The program.
        program: String,
        /// How long it was waited for.
        bound: Duration,
        /// Its standard output; standard error is beside it.
        output: PathBuf,
    },
    /// The lab's processes have ended, for example by a signal from outside.
    #[error("the lab's processes have gone")]
    Gone,
}

impl LabError {
    /// A failed step.
    pub(crate) fn step(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Step { doing, error }
    }

    pub(crate) fn unsupported(failure: Failure) -> Self {
        Self::Unsupported {
            doing: failure.doing,
            error: io::Error::from_raw_os_error(failure.errno),
        }
    }
}

impl From<Failure> for LabError {
    fn from(failure: Failure) -> Self {
        Self::Step {
            doing: failure.doing,
            error: io::Error::from_raw_os_error(failure.errno),
        }
    }
}
