//! Addresses to join: resolved, dialled, and tried again until one attempt has succeeded.

use std::net::SocketAddr;
use std::time::Instant;

use libp2p::swarm::ConnectionId;

use crate::address::parse_target;
use crate::timing::{Timing, pause};

/// The most addresses of one name that are dialled.
pub(crate) const MAX_RESOLVED: usize = 4;

/// What a join is doing.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Waiting for the next attempt.
    Pausing(Instant),
    Resolving,
    /// Connections that are being made.
    Dialling(Vec<ConnectionId>),
}

/// One address to join.
pub(crate) struct Join {
    /// Tells attempts apart whose answers come late.
    pub(crate) number: u64,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) stage: Stage,
    failures: u32,
    /// Of this attempt, and as last reported.
    reason: String,
    reported: String,
}

impl Join {
    /// # Errors
    ///
    /// What is wrong with the target, for people.
    pub(crate) fn new(number: u64, target: &str) -> Result<Self, String> {
        let (host, port) = parse_target(target)?;
        Ok(Self {
            number,
            target: target.to_owned(),
            host,
            port,
            stage: Stage::Pausing(Instant::now()),
            failures: 0,
            reason: String::new(),
            reported: String::new(),
        })
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Pausing(until) => Some(until),
            _ => None,
        }
    }

    /// One of the dials has failed. The reason to report, if it was the last and there is news.
    pub(crate) fn dial_failed(
        &mut self,
        connection: ConnectionId,
        reason: &str,
        timing: &Timing,
    ) -> Option<String> {
        if !self.reason.contains(reason) {
            let separator = if self.reason.is_empty() { "" } else { "; " };
            self.reason += &format!("{separator}{reason}");
        }
        let Stage::Dialling(connections) = &mut self.stage else {
            return None;
        };
        connections.retain(|dialling| *dialling != connection);
        if connections.is_empty() {
            let reason = std::mem::take(&mut self.reason);
            return self.failed(reason, timing);
        }
        None
    }

    /// One of the dials led to a node that did not use the connection. That is news only if it
    /// happens again: most likely it has dialled this node at the same time.
    pub(crate) fn dial_unused(
        &mut self,
        connection: ConnectionId,
        timing: &Timing,
    ) -> Option<String> {
        let reason = "it closed the connection without using it";
        let news = self.dial_failed(connection, reason, timing);
        if self.failures > 1 {
            return news;
        }
        self.reported.clear();
        None
    }

    /// The attempt has failed. The reason to report, if it is news.
    pub(crate) fn failed(&mut self, reason: String, timing: &Timing) -> Option<String> {
        self.failures += 1;
        let pause = pause(timing.rejoin, timing.rejoin_most, self.failures);
        self.stage = Stage::Pausing(Instant::now() + pause);
        if reason == self.reported {
            return None;
        }
        self.reported.clone_from(&reason);
        Some(reason)
    }
}

/// Looks up a name.
pub(crate) async fn resolve(host: String, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let mut addresses: Vec<SocketAddr> = match found {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(format!("cannot look up the host {host:?}: {error}")),
    };
    addresses.dedup();
    addresses.truncate(MAX_RESOLVED);
    if addresses.is_empty() {
        return Err(format!("the host {host:?} has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_reported_once_all_dials_have_failed_and_when_it_is_news() {
        let timing = Timing::default();
        let mut join = Join::new(1, "host:7").unwrap();
        let connections: Vec<_> = (0..3).map(ConnectionId::new_unchecked).collect();
        for round in 0..3 {
            join.stage = Stage::Dialling(connections[..2].to_vec());
            assert_eq!(join.dial_failed(connections[0], "refused", &timing), None);
            assert!(join.due().is_none());
            let news = join.dial_failed(connections[1], "slow", &timing);
            assert_eq!(news.as_deref(), (round == 0).then_some("refused; slow"));
            assert!(join.due().is_some());
        }
        assert_eq!(
            join.failed("other".into(), &timing).as_deref(),
            Some("other")
        );
    }

    #[test]
    fn an_unused_connection_is_reported_the_second_time() {
        let timing = Timing::default();
        let mut join = Join::new(1, "host:7").unwrap();
        let connection = ConnectionId::new_unchecked(1);
        for reported in [false, true, false] {
            join.stage = Stage::Dialling(vec![connection]);
            let news = join.dial_unused(connection, &timing);
            assert_eq!(news.is_some(), reported);
            assert!(join.due().is_some());
        }
    }
}
