//! Jobs and outcomes as they travel between nodes.
//!
//! A job that came from a peer is as hostile as its sender: whatever it says, it runs in a
//! container that shows nothing of this machine but its processor. What would reach out of the
//! container is refused here.

use maelstrom_dispatch::{Rank, job::MAX_PAYLOAD_BYTES};
use maelstrom_node::{Container, Job};
use maelstrom_runtime::Template;
use maelstrom_spec::{JobError, JobOutcome};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// The longest output limit that a job of a peer may have: two streams of it, and the job's other
/// results, must fit into a message.
const MAX_INLINE_LIMIT_BYTES: u64 = (MAX_PAYLOAD_BYTES / 4) as u64;

/// The most arguments, variables or mounts of a job.
const MAX_ENTRIES: usize = 65_536;

/// A job as bytes. See [`encode_job`].
#[derive(Serialize, Deserialize)]
struct WireJob<'a> {
    container: Cow<'a, Container>,
    program: Cow<'a, str>,
    arguments: Cow<'a, [String]>,
    timeout: Option<Duration>,
    inline_limit_bytes: u64,
    outputs: Cow<'a, [String]>,
    template: Cow<'a, Option<Template>>,
}

/// Why a job that a peer sent is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobRefused {
    /// It isn't one.
    #[error("the job cannot be read: {0}")]
    Malformed(postcard::Error),
    /// It wants something that only the machine it comes from may give.
    #[error("the job asks for {0}, which only the machine that it was submitted on may give it")]
    Local(&'static str),
    /// It passes a bound.
    #[error("the job has too many or too long {0}")]
    TooLarge(&'static str),
}

/// The job as bytes, for [`decode_job`]. For jobs that do not
/// [need this machine](Job::needs_this_machine). What does not fit into a message of dispatch is
/// refused there.
pub fn encode_job(job: &Job) -> Vec<u8> {
    let wire = WireJob {
        container: Cow::Borrowed(&job.container),
        program: Cow::Borrowed(&job.program),
        arguments: Cow::Borrowed(&job.arguments),
        timeout: job.timeout,
        inline_limit_bytes: job.inline_limit_bytes.min(MAX_INLINE_LIMIT_BYTES),
        outputs: Cow::Borrowed(&job.outputs),
        template: Cow::Borrowed(&job.template),
    };
    postcard::to_stdvec(&wire).unwrap_or_default()
}

/// Reads a job that a peer sent.
///
/// # Errors
///
/// If it is none, passes a bound, or wants something of this machine.
pub fn decode_job(bytes: &[u8]) -> Result<Job, JobRefused> {
    let wire: WireJob<'_> = postcard::from_bytes(bytes).map_err(JobRefused::Malformed)?;
    if let Some(what) = wire.container.needs_this_machine() {
        return Err(JobRefused::Local(what));
    }
    let container = wire.container.into_owned();
    for (what, entries) in [
        ("arguments", wire.arguments.len()),
        ("environment variables", container.environment.len()),
        ("mounts", container.mounts.len()),
        ("layers", container.layers.len()),
        ("output patterns", wire.outputs.len()),
    ] {
        if entries > MAX_ENTRIES {
            return Err(JobRefused::TooLarge(what));
        }
    }
    if wire.inline_limit_bytes > MAX_INLINE_LIMIT_BYTES {
        return Err(JobRefused::TooLarge("output streams"));
    }
    Ok(Job {
        container: Arc::new(container),
        program: wire.program.into_owned(),
        arguments: wire.arguments.into_owned(),
        timeout: wire.timeout,
        inline_limit_bytes: wire.inline_limit_bytes,
        rank: Rank::default(),
        outputs: wire.outputs.into_owned().into(),
        trace_missing: false,
        background: true,
        terminal: None,
        hold: None,
        template: wire.template.into_owned(),
    })
}

/// How a job ended, as bytes for [`decode_result`]; `Err`: it could not be run here, and another
/// node may.
pub fn encode_result(result: &Result<JobOutcome, JobError>) -> Result<Vec<u8>, String> {
    match result {
        Err(JobError::System(message)) => Err(message.clone()),
        Err(JobError::Cancelled) => Err("the node stopped the job".to_owned()),
        other => {
            postcard::to_stdvec(other).map_err(|error| format!("encoding the outcome: {error}"))
        }
    }
}

/// Reads what [`encode_result`] wrote. Rubbish becomes a system error that says so.
pub fn decode_result(bytes: &[u8]) -> Result<JobOutcome, JobError> {
    postcard::from_bytes(bytes).unwrap_or_else(|error| {
        Err(JobError::System(format!(
            "the node that ran the job answered with an outcome that cannot be read: {error}"
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_content::LayerId;
    use maelstrom_runtime::{ContainerMount, JobNetwork, Privileges, Root};
    use maelstrom_spec::{JobEffects, JobStatus};

    fn job() -> Job {
        let container = Container {
            layers: vec![LayerId::from_bytes([3; 32])],
            environment: vec![("HOME".into(), "/root".into())],
            working_directory: "/".into(),
            root: Root::Discard,
            mounts: vec![ContainerMount::Proc {
                mount_point: "/proc".into(),
            }],
            network: JobNetwork::Loopback,
            user: 0,
            group: 0,
            privileges: Privileges::Files,
            leads_session: false,
        };
        Job {
            container: Arc::new(container),
            program: "/bin/true".into(),
            arguments: vec!["--exact".into(), "a::b".into()],
            timeout: Some(Duration::from_secs(3)),
            inline_limit_bytes: 1_000_000,
            rank: Rank::default(),
            outputs: vec!["*.xml".to_owned()].into(),
            trace_missing: false,
            background: true,
            terminal: None,
            hold: None,
            template: None,
        }
    }

    fn changed(change: impl FnOnce(&mut Container)) -> Job {
        let mut job = job();
        change(Arc::make_mut(&mut job.container));
        job
    }

    #[test]
    fn jobs_come_back_as_they_were() {
        let there = decode_job(&encode_job(&job())).expect("a good job");
        assert_eq!(format!("{there:?}"), format!("{:?}", job()));
    }

    #[test]
    fn whatever_reaches_out_of_the_container_stays_on_its_machine() {
        let bind = ContainerMount::Bind {
            mount_point: "/mnt".into(),
            source: "/etc".into(),
            read_only: true,
        };
        let capture = Root::Capture {
            upper: "/a".into(),
            work: "/b".into(),
        };
        for job in [
            changed(|container| container.mounts.push(bind)),
            changed(|container| container.network = JobNetwork::Local),
            changed(|container| container.root = capture),
        ] {
            assert!(job.needs_this_machine().is_some());
            let refused = decode_job(&encode_job(&job)).expect_err("it is refused");
            assert!(matches!(refused, JobRefused::Local(_)), "{refused}");
        }
        assert_eq!(job().needs_this_machine(), None);
    }

    #[test]
    fn rubbish_is_refused() {
        let good = encode_job(&job());
        assert!(decode_job(&[]).is_err());
        assert!(decode_job(&[255; 64]).is_err());
        for end in 0..good.len() {
            assert!(decode_job(&good[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn results_come_back_unless_another_node_may_do_better() {
        let outcome = JobOutcome {
            status: JobStatus::Exited(3),
            effects: JobEffects::default(),
        };
        for result in [
            Ok(outcome),
            Err(JobError::Execution("no such program".into())),
            Err(JobError::Remote("no such layer".into())),
        ] {
            let bytes = encode_result(&result).expect("an outcome");
            assert_eq!(decode_result(&bytes), result);
        }
        assert!(encode_result(&Err(JobError::System("disk full".into()))).is_err());
        assert!(encode_result(&Err(JobError::Cancelled)).is_err());
        assert!(matches!(decode_result(&[200, 1]), Err(JobError::System(_))));
    }
}
