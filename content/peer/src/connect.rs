//! Connections to those who are asked: a few for each, which take one request at a time.

use crate::{Inner, error::Short, lock, stream::Stream};
use maelstrom_gossip::NodeId;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// When the next address of a node is tried although the ones before have not failed yet.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How many connections there are to one node at a time.
const CONNECTIONS_EACH: usize = 4;

/// A connection that was not used for so long is not used again. The other side keeps it longer.
const USED_WITHIN: Duration = Duration::from_secs(20);

/// What a connection for layers begins with: whoever lacks the mesh key cannot know it.
pub type Opening = [u8; 16];

/// The connections that this node opened.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    nodes: Mutex<HashMap<NodeId, Arc<Pool>>>,
}

/// Those to one node.
#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<(Stream, Instant)>>,
    turns: Arc<Semaphore>,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(CONNECTIONS_EACH)),
        }
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) stream: Stream,
    pool: Arc<Pool>,
    _turn: OwnedSemaphorePermit,
}

impl Leased {
    /// Nothing more comes of the request: the connection can take another one. It is closed if
    /// this is not called.
    pub(crate) fn answered(self) {
        lock(&self.pool.idle).push((self.stream, Instant::now()));
    }
}

impl Connections {
    /// Closes what is open to a node and not in use.
    pub(crate) fn close(&self, node: NodeId) {
        lock(&self.nodes).remove(&node);
    }

    /// Closes what has not been used for a while.
    pub(crate) fn clean(&self) {
        let mut nodes = lock(&self.nodes);
        nodes.retain(|_, pool| {
            let mut idle = lock(&pool.idle);
            idle.retain(|(_, used)| used.elapsed() < USED_WITHIN);
            !idle.is_empty() || pool.turns.available_permits() < CONNECTIONS_EACH
        });
    }
}

impl Inner {
    /// A connection to a member, opened if need be; waits if as many as there may be are in use.
    pub(crate) async fn connection(&self, node: NodeId) -> Result<Leased, String> {
        let pool = lock(&self.connections.nodes)
            .entry(node)
            .or_default()
            .clone();
        let turn = pool.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|error| error.to_string())?;
        let stream = loop {
            let idle = lock(&pool.idle).pop();
            match idle {
                Some((stream, used)) if used.elapsed() < USED_WITHIN && stream.is_quiet() => {
                    break stream;
                }
                Some(_) => {}
                None => break self.connect(node).await?,
            }
        };
        Ok(Leased {
            stream,
            pool,
            _turn: turn,
        })
    }

    async fn connect(&self, node: NodeId) -> Result<Stream, String> {
        let Some(addresses) = self.members.addresses(node) else {
            return Err(format!("{} is no member", Short(node)));
        };
        let connecting = self.dial(node, addresses);
        match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("cannot connect to {}: {error}", Short(node))),
            Err(_) => {
                let seconds = CONNECT_WITHIN.as_secs();
                Err(format!("{} did not answer for {seconds} s", Short(node)))
            }
        }
    }

    async fn dial(&self, node: NodeId, addresses: Vec<SocketAddr>) -> io::Result<Stream> {
        let mut socket = first_to_answer(addresses).await?;
        socket.set_nodelay(true)?;
        socket.write_all(&self.opening).await?;
        let stream = Stream::dialled(socket, &self.tls).await?;
        if stream.node() != Some(node) {
            return Err(io::Error::other("another node answered"));
        }
        Ok(stream)
    }
}

/// Connects to the address that answers first.
async fn first_to_answer(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new();
    for (place, address) in addresses.into_iter().enumerate() {
        let after = NEXT_ADDRESS_AFTER * place as u32;
        tries.spawn(async move {
            tokio::time::sleep(after).await;
            let failed = |error| io::Error::other(format!("{address}: {error}"));
            TcpStream::connect(address).await.map_err(failed)
        });
    }
    let mut problem = io::Error::other("none of its addresses is known");
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => problem = error,
            Err(error) => problem = io::Error::other(error),
        }
    }
    Err(problem)
}
