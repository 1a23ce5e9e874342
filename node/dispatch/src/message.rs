//! What nodes say to each other about jobs.

use crate::{Incarnation, Job, LayerId, LeaseId, job::MAX_LAYERS, job::MAX_TEXT_BYTES};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The most leases in one message.
pub const MAX_LEASES: usize = 1024;
/// About how many bytes of payloads a message carries: the payload that passes it is the last.
pub const MESSAGE_BYTES: usize = 1 << 20;

/// One message, with the lives of sender and receiver it belongs to. Anything from or for an
/// earlier life is void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which life of the sender.
    pub from: Incarnation,
    /// Which life of the receiver, where the sender has heard from it before.
    pub to: Option<Incarnation>,
    /// What it says.
    pub body: Body,
}

/// The protocol between an origin O, which has jobs, and an executor E, which has slots.
///
/// E asks, O grants, E reports. One request of E is open at O at a time; its number grows with
/// each, so that a repeated request gets the grant it got before:
///
/// ```text
/// O ->[Wake(queued: 40)]                            E   there is work; lost without harm
/// E ->[Request(number: 7, slots: 2)]                O   repeated until the grant arrives
/// O ->[Grant(number: 7, leases: 12.0 13.0 14.0)]    E
/// E ->[Report(12.0 started, 13.0 started)]          O
/// E ->[Report(12.0 finished, 14.0 started)]         O   repeated until acknowledged
/// O ->[Ack(12.0)]                                   E
/// ```
///
/// While E holds leases it tells O regularly which ones, and which requests are settled: have
/// been answered, or given up. What O granted in a settled request and E doesn't hold was lost
/// on the way, and goes back to the queue. What E holds and O no longer wants is cancelled (so a
/// lost cancel is repeated here):
///
/// ```text
/// E ->[Holding(settled: 7, leases: 13.0 14.0)]      O
/// O ->[Ack()]                                       E   O is still there
/// O ->[Cancel(14.0)]                                E
/// ```
///
/// Whoever hears nothing from the other for the lease time gives up on it: O puts the jobs back
/// into its queue, E kills them. When O's queue is empty and others are idle, O asks for unstarted
/// work back:
///
/// ```text
/// O ->[Revoke(count: 3)]                            E
/// E ->[Report(17.0 returned, 18.0 returned)]        O   as many as have not started
/// O ->[Ack(17.0 18.0)]                              E
/// ```
///
/// A message for a life of the receiver that is over is answered so that the sender learns of it:
///
/// ```text
/// E ->[Holding(..) for life 1]                      O in life 2
/// O ->[Restarted]                                   E   drops what life 1 gave it
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// O to E: there is work.
    Wake(Load),
    /// O to E: the answer to a request. Without leases: nothing for you now, O will wake you.
    Grant {
        /// Of the request.
        number: u64,
        /// After the grant.
        load: Load,
        /// At most [`MAX_LEASES`].
        leases: Vec<(LeaseId, Job)>,
    },
    /// O to E: O is there and has taken note of these ends.
    Ack {
        /// Leases that E need not mention any more. At most [`MAX_LEASES`].
        ended: Vec<LeaseId>,
        /// At this moment.
        load: Load,
    },
    /// O to E: end these, started or not.
    Cancel {
        /// At most [`MAX_LEASES`].
        leases: Vec<LeaseId>,
    },
    /// O to E: give back leases that have not started, those that would start last.
    Revoke {
        /// At most how many.
        count: u32,
    },
    /// E to O: asks for work.
    Request {
        /// Greater than that of every request before, to whomever.
        number: u64,
        /// How many slots are to be filled.
        slots: u16,
        /// Whether more than that is welcome, to be run afterwards.
        prefetch: bool,
    },
    /// E to O: what has become of leases. At most [`MAX_LEASES`].
    Report(Vec<(LeaseId, Progress)>),
    /// E to O: all that E holds of O.
    Holding {
        /// Requests up to this number are settled.
        settled: u64,
        /// Which leases, and whether they have started. At most [`MAX_LEASES`].
        leases: Vec<(LeaseId, bool)>,
    },
    /// Either to either: your message was for an earlier life of mine.
    Restarted,
}

/// What has become of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// The job runs.
    Started,
    /// The job has an outcome, at most [`MAX_PAYLOAD_BYTES`](crate::job::MAX_PAYLOAD_BYTES) long.
    Finished(Bytes),
    /// This node cannot run the job, for this reason; another one may. At most
    /// [`MAX_TEXT_BYTES`].
    Failed(String),
    /// Given back without an outcome.
    Returned,
}

/// What an origin tells about itself with every answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Jobs that wait in its queue.
    pub queued: u32,
    /// Slots of the mesh that run its jobs or are about to: its share.
    pub slots_held: u32,
    /// The largest layer of the job that is next.
    pub layer: Option<LayerId>,
}

impl Body {
    /// The name of the message, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Body::Wake(_) => "Wake",
            Body::Grant { .. } => "Grant",
            Body::Ack { .. } => "Ack",
            Body::Cancel { .. } => "Cancel",
            Body::Revoke { .. } => "Revoke",
            Body::Request { .. } => "Request",
            Body::Report(_) => "Report",
            Body::Holding { .. } => "Holding",
            Body::Restarted => "Restarted",
        }
    }

    /// Whether the message keeps to its bounds.
    pub(crate) fn is_bounded(&self) -> bool {
        match self {
            Body::Grant { leases, .. } => {
                leases.len() <= MAX_LEASES
                    && leases.iter().all(|(_, job)| {
                        job.check().is_ok() && job.layers.len() <= MAX_LAYERS && !job.needs.local
                    })
            }
            Body::Ack { ended: leases, .. } | Body::Cancel { leases } => leases.len() <= MAX_LEASES,
            Body::Report(progress) => {
                progress.len() <= MAX_LEASES
                    && progress.iter().all(|(_, progress)| match progress {
                        Progress::Finished(outcome) => {
                            outcome.len() <= crate::job::MAX_PAYLOAD_BYTES
                        }
                        Progress::Failed(reason) => reason.len() <= MAX_TEXT_BYTES,
                        Progress::Started | Progress::Returned => true,
                    })
            }
            Body::Holding { leases, .. } => leases.len() <= MAX_LEASES,
            Body::Wake(_) | Body::Revoke { .. } | Body::Request { .. } | Body::Restarted => true,
        }
    }
}
