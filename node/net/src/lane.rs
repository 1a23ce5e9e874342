//! The streams of a connection, and how two nodes agree on their names.

use std::convert::Infallible;
use std::future::{Ready, ready};

use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};

use crate::Channel;
use crate::channel::CHANNELS;

/// What a stream carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    /// What the two nodes say about the connection.
    Control,
    /// Messages, from whoever opened the stream.
    Channel(Channel),
}

/// The lane's name and version, sent when a stream is opened.
impl AsRef<str> for Lane {
    fn as_ref(&self) -> &str {
        match self {
            Self::Control => "/maelstrom/control/1",
            Self::Channel(channel) => channel.protocol(),
        }
    }
}

/// All lanes may be opened.
pub(crate) struct AnyLane;

impl UpgradeInfo for AnyLane {
    type Info = Lane;
    type InfoIter = Lanes;

    fn protocol_info(&self) -> Lanes {
        let channels = Channel::ALL
            .into_iter()
            .map(Lane::Channel as fn(Channel) -> Lane);
        std::iter::once(Lane::Control).chain(channels)
    }
}

type Lanes = std::iter::Chain<
    std::iter::Once<Lane>,
    std::iter::Map<std::array::IntoIter<Channel, CHANNELS>, fn(Channel) -> Lane>,
>;

impl<S> InboundUpgrade<S> for AnyLane {
    type Output = (Lane, S);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: S, lane: Lane) -> Self::Future {
        ready(Ok((lane, stream)))
    }
}

/// Opens this lane.
pub(crate) struct OneLane(pub(crate) Lane);

impl UpgradeInfo for OneLane {
    type Info = Lane;
    type InfoIter = std::iter::Once<Lane>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.0)
    }
}

impl<S> OutboundUpgrade<S> for OneLane {
    type Output = S;
    type Error = Infallible;
    type Future = Ready<Result<S, Infallible>>;

    fn upgrade_outbound(self, stream: S, _: Lane) -> Self::Future {
        ready(Ok(stream))
    }
}
