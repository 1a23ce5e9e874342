//! How messages between memberships look, byte by byte.
//!
//! Everything is little-endian. The first byte of a message names its kind:
//!
//! ```text
//! 1 Swim           a packet of foca's, see `Swim`
//! 2 RosterRequest  from u64; with 0 the asker's own items, each behind its length as u16
//! 3 Roster         0 | 1, summary of the asker; more u8; for each: summary, profile, load
//! 4 Sync           one u32 for each of the 128 buckets, claim or nothing
//! 5 Summary        count u8, buckets, summaries
//! 6 ItemRequest    tags
//! 7 Items          items, each behind its length as u16
//!
//! peer     tag u64, generation u32
//! summary  peer, up u8, version of the profile, version of the load
//! version  boot u32, sequence u32
//! item     0, tag, version, profile | 1, tag, version, free u16, queued u32 | 2, claim
//! ```

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, State};

use crate::{
    advert::{Claim, Item, Load, Version},
    id::{NodeId, Peer, Tag},
};

/// The largest message in bytes that is ever sent or accepted.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1_024;

/// What cannot be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the message ends early or holds an impossible value")]
pub struct Malformed;

pub(crate) const SWIM: u8 = 1;
pub(crate) const ROSTER_REQUEST: u8 = 2;
pub(crate) const ROSTER: u8 = 3;
pub(crate) const SYNC: u8 = 4;
pub(crate) const SUMMARY: u8 = 5;
pub(crate) const ITEM_REQUEST: u8 = 6;
pub(crate) const ITEMS: u8 = 7;

const PEER_BYTES: usize = 12;
const MEMBER_BYTES: usize = PEER_BYTES + 3;
pub(crate) const SUMMARY_BYTES: usize = PEER_BYTES + 1 + 16;
/// The length of an encoded load item.
pub(crate) const LOAD_BYTES: usize = 1 + 8 + 8 + 6;

/// Reads from a slice without ever reading past its end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16_le().map_err(|_| Malformed)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(|_| Malformed)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(|_| Malformed)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    /// Bytes behind their length.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn node(&mut self) -> Result<NodeId, Malformed> {
        let bytes = self.take(32)?;
        Ok(NodeId::from_bytes(bytes.try_into().map_err(|_| Malformed)?))
    }

    pub(crate) fn peer(&mut self) -> Result<Peer, Malformed> {
        Ok(Peer {
            tag: self.u64()?,
            generation: self.u32()?,
        })
    }

    fn version(&mut self) -> Result<Version, Malformed> {
        Ok(Version {
            boot: self.u32()?,
            sequence: self.u32()?,
        })
    }

    pub(crate) fn claim(&mut self) -> Result<Claim, Malformed> {
        Ok(Claim {
            term: self.u64()?,
            coordinator: self.node()?,
        })
    }

    /// Reads one item that fills the rest of the slice.
    pub(crate) fn item(mut self) -> Result<Item<'a>, Malformed> {
        let item = match self.u8()? {
            0 => Item::Profile {
                tag: self.u64()?,
                version: self.version()?,
                encoded: std::mem::take(&mut self.0),
            },
            1 => Item::Load {
                tag: self.u64()?,
                version: self.version()?,
                load: Load {
                    slots_free: self.u16()?,
                    jobs_queued: self.u32()?,
                },
            },
            2 => Item::Claim(self.claim()?),
            _ => return Err(Malformed),
        };
        self.end()?;
        Ok(item)
    }

    pub(crate) fn summary(&mut self) -> Result<Summary, Malformed> {
        Ok(Summary {
            peer: self.peer()?,
            active: match self.u8()? {
                0 => false,
                1 => true,
                _ => return Err(Malformed),
            },
            profile: self.version()?,
            load: self.version()?,
        })
    }
}

fn put_peer(buffer: &mut impl BufMut, peer: Peer) {
    buffer.put_u64_le(peer.tag);
    buffer.put_u32_le(peer.generation);
}

fn put_version(buffer: &mut Vec<u8>, version: Version) {
    buffer.put_u32_le(version.boot);
    buffer.put_u32_le(version.sequence);
}

pub(crate) fn put_claim(buffer: &mut Vec<u8>, claim: Claim) {
    buffer.put_u64_le(claim.term);
    buffer.put_slice(claim.coordinator.as_bytes());
}

impl Item<'_> {
    /// Whether this is part of the node's own advert.
    pub(crate) fn is_about(&self, node: Tag) -> bool {
        match self {
            Item::Profile { tag, .. } | Item::Load { tag, .. } => *tag == node,
            Item::Claim(_) => false,
        }
    }

    pub(crate) fn put(&self, buffer: &mut Vec<u8>) {
        match self {
            Item::Profile {
                tag,
                version,
                encoded,
            } => {
                buffer.put_u8(0);
                buffer.put_u64_le(*tag);
                put_version(buffer, *version);
                buffer.put_slice(encoded);
            }
            Item::Load { tag, version, load } => {
                buffer.put_u8(1);
                buffer.put_u64_le(*tag);
                put_version(buffer, *version);
                buffer.put_u16_le(load.slots_free);
                buffer.put_u32_le(load.jobs_queued);
            }
            Item::Claim(claim) => {
                buffer.put_u8(2);
                put_claim(buffer, *claim);
            }
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        self.put(&mut buffer);
        buffer
    }

    /// Appends the item behind its length.
    pub(crate) fn put_sized(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.put_u16_le(0);
        self.put(buffer);
        let length = u16::try_from(buffer.len() - start - 2).expect("items are small");
        buffer[start..start + 2].copy_from_slice(&length.to_le_bytes());
    }
}

/// What one node knows of a member, without the adverts themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Summary {
    pub(crate) peer: Peer,
    pub(crate) active: bool,
    pub(crate) profile: Version,
    pub(crate) load: Version,
}

impl Summary {
    pub(crate) fn put(&self, buffer: &mut Vec<u8>) {
        put_peer(buffer, self.peer);
        buffer.put_u8(self.active.into());
        put_version(buffer, self.profile);
        put_version(buffer, self.load);
    }

    /// The same as foca says it.
    pub(crate) fn member(&self) -> Member<Peer> {
        let state = if self.active {
            State::Alive
        } else {
            State::Down
        };
        Member::new(self.peer, 0, state)
    }
}

/// Foca's packets, without the adverts behind them.
pub(crate) struct SwimParts<'a> {
    pub(crate) source: Peer,
    /// Header and updates: what foca is to handle.
    pub(crate) packet: &'a [u8],
    /// The members that the updates are about, at most one packet full.
    pub(crate) updated: Vec<Peer>,
    /// Items, each behind its length as foca writes it: big-endian.
    pub(crate) items: &'a [u8],
}

/// Takes one of foca's packets apart, so that nothing reaches foca unchecked.
pub(crate) fn split_swim(packet: &[u8]) -> Result<SwimParts<'_>, Malformed> {
    let mut rest = packet;
    let header = Codec.decode_header(&mut rest)?;
    let mut updated = Vec::new();
    let carries_updates = !matches!(
        header.message,
        Message::Announce | Message::TurnUndead | Message::Broadcast
    );
    if carries_updates && !rest.is_empty() {
        let count = rest.try_get_u16().map_err(|_| Malformed)?;
        if usize::from(count) * MEMBER_BYTES > rest.len() {
            return Err(Malformed);
        }
        updated.reserve(count.into());
        for _ in 0..count {
            updated.push(*Codec.decode_member(&mut rest)?.id());
        }
    } else if !carries_updates && !rest.is_empty() && header.message != Message::Broadcast {
        return Err(Malformed);
    }
    let packet_length = packet.len() - rest.len();
    Ok(SwimParts {
        source: header.src,
        packet: &packet[..packet_length],
        updated,
        items: rest,
    })
}

/// Foca's packets in a fixed layout: 12 bytes a peer, 15 an update.
pub(crate) struct Codec;

use foca::Codec as _;

impl foca::Codec<Peer> for Codec {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Peer>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        if buffer.remaining_mut() < 2 * PEER_BYTES + 2 + 1 + 1 + PEER_BYTES {
            return Err(Malformed);
        }
        put_peer(&mut buffer, header.src);
        buffer.put_u16_le(header.src_incarnation);
        put_peer(&mut buffer, header.dst);
        let (kind, number, peer) = match &header.message {
            Message::Ping(number) => (0, Some(*number), None),
            Message::Ack(number) => (1, Some(*number), None),
            Message::PingReq {
                target,
                probe_number,
            } => (2, Some(*probe_number), Some(*target)),
            Message::IndirectPing {
                origin,
                probe_number,
            } => (3, Some(*probe_number), Some(*origin)),
            Message::IndirectAck {
                target,
                probe_number,
            } => (4, Some(*probe_number), Some(*target)),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => (5, Some(*probe_number), Some(*origin)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        buffer.put_u8(kind);
        if let Some(number) = number {
            buffer.put_u8(number);
        }
        if let Some(peer) = peer {
            put_peer(&mut buffer, peer);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<Header<Peer>, Malformed> {
        let mut reader = Reader(buffer.chunk());
        let src = reader.peer()?;
        let src_incarnation = reader.u16()?;
        let dst = reader.peer()?;
        let message = match reader.u8()? {
            0 => Message::Ping(reader.u8()?),
            1 => Message::Ack(reader.u8()?),
            2 => Message::PingReq {
                probe_number: reader.u8()?,
                target: reader.peer()?,
            },
            3 => Message::IndirectPing {
                probe_number: reader.u8()?,
                origin: reader.peer()?,
            },
            4 => Message::IndirectAck {
                probe_number: reader.u8()?,
                target: reader.peer()?,
            },
            5 => Message::ForwardedAck {
                probe_number: reader.u8()?,
                origin: reader.peer()?,
            },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            _ => return Err(Malformed),
        };
        let left = reader.0.len();
        buffer.advance(buffer.remaining() - left);
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Peer>,
        mut buffer: impl BufMut,
    ) -> Result<(), Malformed> {
        if buffer.remaining_mut() < MEMBER_BYTES {
            return Err(Malformed);
        }
        put_peer(&mut buffer, *member.id());
        buffer.put_u16_le(member.incarnation());
        buffer.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buffer: impl Buf) -> Result<Member<Peer>, Malformed> {
        let mut reader = Reader(buffer.chunk());
        let peer = reader.peer()?;
        let incarnation = reader.u16()?;
        let state = match reader.u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed),
        };
        buffer.advance(MEMBER_BYTES);
        Ok(Member::new(peer, incarnation, state))
    }
}

/// Tells foca what a broadcast is about; everything else about it is decided before foca
/// sees it.
pub(crate) struct Broadcasts;

/// What a broadcast is about: a newer one about the same replaces it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Topic {
    Profile(Tag),
    Load(Tag),
    Claim,
}

impl foca::Invalidates for Topic {
    fn invalidates(&self, other: &Self) -> bool {
        self == other
    }
}

impl foca::BroadcastHandler<Peer> for Broadcasts {
    type Key = Topic;
    type Error = Malformed;

    fn receive_item(
        &mut self,
        data: &[u8],
        _sender: Option<&Peer>,
    ) -> Result<Option<Topic>, Malformed> {
        Ok(Some(match Reader(data).item()? {
            Item::Profile { tag, .. } => Topic::Profile(tag),
            Item::Load { tag, .. } => Topic::Load(tag),
            Item::Claim(_) => Topic::Claim,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peers() -> impl Strategy<Value = Peer> {
        (any::<u64>(), any::<u32>()).prop_map(|(tag, generation)| Peer { tag, generation })
    }

    fn versions() -> impl Strategy<Value = Version> {
        (any::<u32>(), any::<u32>()).prop_map(|(boot, sequence)| Version { boot, sequence })
    }

    fn swim_messages() -> impl Strategy<Value = Message<Peer>> {
        (0..11u8, any::<u8>(), peers()).prop_map(|(kind, probe_number, peer)| match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq {
                target: peer,
                probe_number,
            },
            3 => Message::IndirectPing {
                origin: peer,
                probe_number,
            },
            4 => Message::IndirectAck {
                target: peer,
                probe_number,
            },
            5 => Message::ForwardedAck {
                origin: peer,
                probe_number,
            },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            _ => Message::TurnUndead,
        })
    }

    proptest! {
        #[test]
        fn headers_and_members_come_back(
            src in peers(), src_incarnation: u16, dst in peers(), message in swim_messages(),
            member in peers(), incarnation: u16, state in 0..3u8,
        ) {
            let header = Header { src, src_incarnation, dst, message };
            let mut bytes = Vec::new();
            Codec.encode_header(&header, &mut bytes).unwrap();
            let mut rest = &bytes[..];
            prop_assert_eq!(Codec.decode_header(&mut rest).unwrap(), header);
            prop_assert!(rest.is_empty());

            let state = [State::Alive, State::Suspect, State::Down][usize::from(state)];
            let member = Member::new(member, incarnation, state);
            let mut bytes = Vec::new();
            Codec.encode_member(&member, &mut bytes).unwrap();
            let mut rest = &bytes[..];
            prop_assert_eq!(Codec.decode_member(&mut rest).unwrap(), member);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn items_and_summaries_come_back(
            peer in peers(), active: bool, profile in versions(), load in versions(),
            slots_free: u16, jobs_queued: u32, encoded: Vec<u8>, term: u64, node: [u8; 32],
        ) {
            let summary = Summary { peer, active, profile, load };
            let mut bytes = Vec::new();
            summary.put(&mut bytes);
            prop_assert_eq!(bytes.len(), SUMMARY_BYTES);
            prop_assert_eq!(Reader(&bytes).summary().unwrap(), summary);

            let tag = peer.tag;
            let claim = Claim { term, coordinator: NodeId::from_bytes(node) };
            for item in [
                Item::Profile { tag, version: profile, encoded: &encoded },
                Item::Load { tag, version: load, load: Load { slots_free, jobs_queued } },
                Item::Claim(claim),
            ] {
                let mut bytes = Vec::new();
                item.put_sized(&mut bytes);
                prop_assert_eq!(&Reader(Reader(&bytes).sized().unwrap()).item().unwrap(), &item);
            }
        }

        #[test]
        fn hostile_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = split_swim(&bytes);
            let _ = Reader(&bytes).item();
            let _ = Reader(&bytes).summary();
        }
    }

    #[test]
    fn a_load_item_is_as_long_as_stated() {
        let item = Item::Load {
            tag: 1,
            version: Version::default(),
            load: Load::default(),
        };
        assert_eq!(item.to_vec().len(), LOAD_BYTES);
    }
}
