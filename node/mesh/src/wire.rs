//! Jobs and outcomes as they travel between nodes.
//!
//! A job that came from a peer is as hostile as its sender: whatever it says, it runs in a
//! container that shows nothing of this machine but its processor. What would reach out of the
//! container is refused here.

use bytes::Bytes;
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

/// What follows the container in the bytes of a job. See [`encode_job`].
#[derive(Serialize, Deserialize)]
struct WireJob<'a> {
    program: Cow<'a, str>,
    arguments: Cow<'a, [String]>,
    timeout: Option<Duration>,
    inline_limit_bytes: u64,
    outputs: Cow<'a, [String]>,
    template: Cow<'a, Option<Template>>,
}

/// The container of a job that a peer sent, with the bytes that it was read from. Jobs that begin
/// with the same bytes have the same container.
#[derive(Debug)]
pub struct LentContainer {
    bytes: Bytes,
    container: Arc<Container>,
}

impl LentContainer {
    /// Whether this is the container of a job that was sent as these bytes.
    pub fn is_of(&self, job: &[u8]) -> bool {
        job.starts_with(&self.bytes)
    }

    /// Reads and checks the container that a job's bytes begin with.
    fn read(job: &Bytes) -> Result<Self, JobRefused> {
        let (container, rest) =
            postcard::take_from_bytes::<Container>(job).map_err(JobRefused::Malformed)?;
        if let Some(what) = container.needs_this_machine() {
            return Err(JobRefused::Local(what));
        }
        bound("environment variables", container.environment.len())?;
        bound("mounts", container.mounts.len())?;
        bound("layers", container.layers.len())?;
        Ok(Self {
            bytes: job.slice(..job.len() - rest.len()),
            container: Arc::new(container),
        })
    }
}

fn bound(what: &'static str, entries: usize) -> Result<(), JobRefused> {
    if entries > MAX_ENTRIES {
        return Err(JobRefused::TooLarge(what));
    }
    Ok(())
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
        program: Cow::Borrowed(&job.program),
        arguments: Cow::Borrowed(&job.arguments),
        timeout: job.timeout,
        inline_limit_bytes: job.inline_limit_bytes.min(MAX_INLINE_LIMIT_BYTES),
        outputs: Cow::Borrowed(&job.outputs),
        template: Cow::Borrowed(&job.template),
    };
    postcard::to_stdvec(&(&*job.container, wire)).unwrap_or_default()
}

/// Reads a job that a peer sent. `known` is the container of the job that was read last, and
/// afterwards that of this one.
///
/// # Errors
///
/// If it is none, passes a bound, or wants something of this machine.
pub fn decode_job(bytes: &Bytes, known: &mut Option<LentContainer>) -> Result<Job, JobRefused> {
    let lent = match known.take().filter(|known| known.is_of(bytes)) {
        Some(known) => known,
        None => LentContainer::read(bytes)?,
    };
    let lent = known.insert(lent);
    let wire: WireJob<'_> =
        postcard::from_bytes(&bytes[lent.bytes.len()..]).map_err(JobRefused::Malformed)?;
    bound("arguments", wire.arguments.len())?;
    bound("output patterns", wire.outputs.len())?;
    if wire.inline_limit_bytes > MAX_INLINE_LIMIT_BYTES {
        return Err(JobRefused::TooLarge("output streams"));
    }
    Ok(Job {
        container: lent.container.clone(),
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

    fn decode(bytes: &[u8]) -> Result<Job, JobRefused> {
        decode_job(&Bytes::copy_from_slice(bytes), &mut None)
    }

    #[test]
    fn jobs_come_back_as_they_were() {
        let there = decode(&encode_job(&job())).expect("a good job");
        assert_eq!(format!("{there:?}"), format!("{:?}", job()));
    }

    #[test]
    fn jobs_of_one_container_share_it() {
        let mut other = job();
        other.program = "/bin/false".into();
        let elsewhere = changed(|container| container.user = 7);
        let [first, second, third] =
            [&job(), &other, &elsewhere].map(|job| Bytes::from(encode_job(job)));
        let mut known = None;
        let mut decode = |bytes: &Bytes| {
            let job = decode_job(bytes, &mut known).expect("a good job");
            let [like_second, like_third] =
                [&second, &third].map(|next| known.as_ref().is_some_and(|k| k.is_of(next)));
            (job, like_second, like_third)
        };
        let (one, like_second, like_third) = decode(&first);
        assert!(like_second && !like_third);
        let (two, ..) = decode(&second);
        assert!(Arc::ptr_eq(&one.container, &two.container));
        assert_eq!(two.program, "/bin/false");
        let (three, like_second, like_third) = decode(&third);
        assert!(!like_second && like_third);
        assert_eq!(three.container.user, 7);
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
            let refused = decode(&encode_job(&job)).expect_err("it is refused");
            assert!(matches!(refused, JobRefused::Local(_)), "{refused}");
        }
        assert_eq!(job().needs_this_machine(), None);
    }

    #[test]
    fn rubbish_is_refused() {
        let good = encode_job(&job());
        assert!(decode(&[]).is_err());
        assert!(decode(&[255; 64]).is_err());
        for end in 0..good.len() {
            assert!(decode(&good[..end]).is_err(), "cut at {end}");
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
