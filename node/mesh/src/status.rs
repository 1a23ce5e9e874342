//! The mesh as one node sees it, for people and for programs.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The mesh as one node sees it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub this: MemberStatus,
    /// The other members, by name.
    pub members: Vec<MemberStatus>,
    /// The id of the coordinator, if one is known.
    pub coordinator: Option<String>,
    /// Whether this node runs jobs of others at this moment.
    pub lends: bool,
    /// The jobs that run on this node's slots.
    pub running: Vec<RunningJob>,
    /// How many slots of other nodes run jobs of this one, by their name.
    pub slots_held: u64,
    /// Jobs of this node that have not ended.
    pub jobs_unfinished: u64,
    /// Layers that this node holds and serves.
    pub layers: u64,
    /// Layers that are being pulled.
    pub pulls: Vec<PullStatus>,
    /// What layers arrive with, in bytes per second.
    pub received_bytes_per_second: u64,
    /// What layers are sent with, in bytes per second.
    pub sent_bytes_per_second: u64,
    /// Who was turned away, and why.
    pub refused: Vec<RefusalStatus>,
}

/// A node, as it tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its public key in hexadecimal digits.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// How many of these slots others can have now.
    pub slots_free: u16,
    /// Its jobs that wait.
    pub jobs_queued: u32,
    /// Its processor architecture.
    pub architecture: String,
    /// What jobs can ask for.
    pub labels: Vec<String>,
    /// `always`, `idle` or `never`.
    pub lending: String,
    /// The version of its program.
    pub version: String,
    /// Where it listens for control.
    pub addresses: Vec<SocketAddr>,
}

/// A job on a slot of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// The id of the node whose job it is.
    pub origin: String,
    /// The name of that node, empty if it is not known.
    pub origin_name: String,
    /// Which of that node's jobs.
    pub job: u64,
    /// The program.
    pub program: String,
    /// Since how many milliseconds.
    pub for_ms: u64,
}

/// A layer that is on its way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PullStatus {
    /// Its id in hexadecimal digits.
    pub layer: String,
    /// What has come and is verified.
    pub bytes_done: u64,
    /// All of it, once that is known.
    pub bytes_total: u64,
    /// From how many nodes.
    pub providers: u64,
}

/// Somebody who was turned away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefusalStatus {
    /// An address, or the id of a node.
    pub who: String,
    /// Why.
    pub reason: String,
    /// How many times.
    pub times: u64,
}

use crate::node::{Shared, State};
use maelstrom_cores::gossip_id;
use maelstrom_gossip::{Lending, Load, Profile};

/// What a node tells of itself.
fn member(profile: &Profile, load: Load) -> MemberStatus {
    MemberStatus {
        id: profile.node.to_string(),
        name: profile.name.to_string(),
        slots: profile.slots_total,
        slots_free: load.slots_free,
        jobs_queued: load.jobs_queued,
        architecture: profile.architecture.to_string(),
        labels: profile
            .labels
            .iter()
            .map(|label| label.to_string())
            .collect(),
        lending: match profile.lending {
            Lending::Always => "always",
            Lending::Idle => "idle",
            Lending::Never => "never",
        }
        .to_owned(),
        version: profile.version.to_string(),
        addresses: crate::peers::told(&profile.addresses),
    }
}

/// The mesh as this node sees it.
pub(crate) fn status(shared: &Shared, state: &State) -> Status {
    let counts = state.cores.dispatcher().counts();
    let view = state.cores.view();
    let this = member(
        &state.profile,
        Load {
            slots_free: counts.slots_free,
            jobs_queued: u32::try_from(counts.queued).unwrap_or(u32::MAX),
        },
    );
    let mut members: Vec<MemberStatus> = view
        .iter()
        .map(|other| member(other.profile, other.load))
        .collect();
    members.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    let name = |id: crate::NodeId| {
        if id == shared.id {
            return state.profile.name.to_string();
        }
        view.get(&id)
            .map_or(String::new(), |member| member.profile.name.to_string())
    };
    let now = shared.clock.now();
    let mut running: Vec<RunningJob> = state
        .here
        .iter()
        .map(|(held, here)| {
            let origin = gossip_id(held.origin);
            RunningJob {
                origin: origin.to_string(),
                origin_name: name(origin),
                job: held.lease.job.0,
                program: here.program.clone(),
                for_ms: now.saturating_duration_since(here.since).as_millis() as u64,
            }
        })
        .collect();
    running.sort_by(|a, b| (&a.origin_name, a.job).cmp(&(&b.origin_name, b.job)));
    let transfers = shared.layers.stats();
    let pulls = transfers.pulls.into_iter().map(|pull| PullStatus {
        layer: pull.layer.to_string(),
        bytes_done: pull.done_bytes,
        bytes_total: pull.total_bytes,
        providers: pull.providers as u64,
    });
    Status {
        this,
        members,
        coordinator: state
            .cores
            .coordinator()
            .map(|claim| claim.coordinator.to_string()),
        lends: state.cores.dispatcher().lends(),
        running,
        slots_held: counts.slots_elsewhere as u64,
        jobs_unfinished: counts.unfinished as u64,
        layers: shared.layers.held().len() as u64,
        pulls: pulls.collect(),
        received_bytes_per_second: transfers.received_bytes_per_second as u64,
        sent_bytes_per_second: transfers.sent_bytes_per_second as u64,
        refused: refusals(shared),
    }
}

/// Who was turned away, the latest first.
pub(crate) fn refusals(shared: &Shared) -> Vec<RefusalStatus> {
    let stats = shared.net.stats();
    let bans = stats.bans.into_iter().map(|ban| RefusalStatus {
        who: ban.peer.to_string(),
        reason: ban.reason,
        times: 1,
    });
    let refusals = stats.refusals.into_iter().map(|refusal| RefusalStatus {
        who: refusal.address.to_string(),
        reason: refusal.reason,
        times: refusal.times,
    });
    bans.chain(refusals).collect()
}
