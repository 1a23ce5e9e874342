//! An invitation as one word.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::MeshKey;
use crate::text::{TICKET, TextError};

/// The most addresses that a ticket holds.
pub const MAX_TICKET_ADDRESSES: usize = 8;

/// Where a node of the mesh is, and the mesh's key, as one word that starts with `maelstrom1`.
///
/// Whoever has a ticket can join the mesh: it is as secret as the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    addresses: Vec<SocketAddr>,
    mesh_key: MeshKey,
}

impl Ticket {
    /// A ticket with the first [`MAX_TICKET_ADDRESSES`] of `addresses`.
    pub fn new(addresses: &[SocketAddr], mesh_key: &MeshKey) -> Self {
        let addresses = addresses.iter().take(MAX_TICKET_ADDRESSES);
        Self {
            // What is written is an address and a port: no flow, no scope.
            addresses: addresses
                .map(|a| SocketAddr::new(a.ip(), a.port()))
                .collect(),
            mesh_key: mesh_key.clone(),
        }
    }

    /// Where the node that gave the ticket listens (TCP).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The mesh's key.
    pub fn mesh_key(&self) -> &MeshKey {
        &self.mesh_key
    }

    /// Whether a text is meant to be a ticket rather than an address: a host may well be called
    /// `maelstrom1`, but hardly with fifty letters more and no dot.
    pub fn looks_like(text: &str) -> bool {
        let text = text.trim();
        let head = text.get(..TICKET.prefix.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(TICKET.prefix))
            && text.len() >= 50
            && !text.contains(['.', ':'])
    }
}

/// The key, then for each address 4 or 6, its bytes, and the port, highest byte first.
impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.mesh_key.secret().to_vec();
        for address in &self.addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        f.write_str(&TICKET.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let bytes = TICKET.decode(text)?;
        parse(&bytes).ok_or(TextError::Damaged(TICKET.what))
    }
}

fn parse(bytes: &[u8]) -> Option<Ticket> {
    let (secret, mut rest) = bytes.split_first_chunk()?;
    let mut addresses = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        let ip: IpAddr;
        (ip, rest) = match kind {
            4 => {
                let (octets, after) = after.split_first_chunk::<4>()?;
                (Ipv4Addr::from(*octets).into(), after)
            }
            6 => {
                let (octets, after) = after.split_first_chunk::<16>()?;
                (Ipv6Addr::from(*octets).into(), after)
            }
            _ => return None,
        };
        let (port, after) = rest.split_first_chunk()?;
        rest = after;
        addresses.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
    }
    (addresses.len() <= MAX_TICKET_ADDRESSES).then(|| Ticket {
        addresses,
        mesh_key: MeshKey::from_secret(*secret),
    })
}

/// Shows the addresses and the key's fingerprint, so that a ticket in a log gives nothing away.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("addresses", &self.addresses)
            .field("mesh_key", &self.mesh_key)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            addresses in proptest::collection::vec(any::<SocketAddr>(), 0..12), secret: [u8; 32],
        ) {
            let ticket = Ticket::new(&addresses, &MeshKey::from_secret(secret));
            prop_assert!(ticket.addresses().len() <= MAX_TICKET_ADDRESSES);
            let text = ticket.to_string();
            prop_assert!(Ticket::looks_like(&text));
            prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric()));
            prop_assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(ticket) = TICKET.encode(&bytes).parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string(), TICKET.encode(&bytes));
            }
        }
    }

    #[test]
    fn nothing_secret_is_shown_in_a_log() {
        let key = MeshKey::generate();
        let ticket = Ticket::new(&["10.0.0.1:7357".parse().unwrap()], &key);
        let shown = format!("{ticket:?}");
        let secret = key.to_string();
        assert!(shown.contains("10.0.0.1:7357"), "{shown}");
        assert!(
            !shown.contains(&secret["maelstromkey1".len()..][..8]),
            "{shown}"
        );
    }

    #[test]
    fn an_address_is_no_ticket() {
        for text in [
            "",
            "host",
            "maelstrom",
            "10.0.0.1:7357",
            "maelstrom1:7357",
            "maelstrom12",
        ] {
            assert!(!Ticket::looks_like(text), "{text}");
        }
        assert_eq!(
            "maelstrom1".parse::<Ticket>().unwrap_err(),
            TextError::Damaged("a ticket"),
        );
    }
}
