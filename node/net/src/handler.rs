//! One connection: its streams, what is read and written, and when it ends.
//!
//! All of it runs in the connection's own task: a message that is sent wakes that task, which
//! writes it, and at the other end the task that reads it puts it into the inbox.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::io::AsyncRead;
use libp2p::Stream;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError, SubstreamProtocol,
};
use maelstrom_gossip::NodeId;
use tokio::time::Sleep;

use crate::Channel;
use crate::channel::CHANNELS;
use crate::control::{Control, MAX_CONTROL_BYTES};
use crate::frames::{Reader, Writer};
use crate::lane::{AnyLane, Lane, OneLane};
use crate::state::Shared;

/// How much is read at once.
const READ_BYTES: usize = 32 << 10;
/// How much of a channel is taken from its queue at once.
const TAKE_BYTES: usize = 128 << 10;
/// After this many reads other tasks get a turn.
const READS_AT_ONCE: usize = 32;

/// Why a connection ends.
enum End {
    /// As connections end.
    Plain(&'static str),
    /// The peer broke the rules.
    Violation(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has been asked.
    New,
    /// It is not known yet whether this connection will be used.
    Greeting,
    /// This is the used connection.
    Used,
    /// It is used, but nothing is sent while closing it is discussed.
    Closing,
    /// The driver has been told to close it.
    Ended,
}

/// A stream on which this node sends.
enum Outgoing {
    None,
    Opening,
    Open(Stream, Writer),
    /// The peer doesn't know the channel.
    Unknown,
}

pub(crate) struct Handler {
    shared: Arc<Shared>,
    node: NodeId,
    connection: ConnectionId,
    address: SocketAddr,
    dialled: bool,
    phase: Phase,
    control: Option<(Stream, Reader, Writer)>,
    /// To be sent once there is a control stream.
    greeting: Option<Control>,
    incoming: [Option<(Stream, Reader)>; CHANNELS],
    outgoing: [Outgoing; CHANNELS],
    /// What is moved from the queues to the streams; empty between polls.
    moved: [Vec<Bytes>; CHANNELS],
    buffer: Box<[u8]>,
    tick: Pin<Box<Sleep>>,
    opened: Instant,
    /// When a message was last sent or received.
    sent: Instant,
    received: Instant,
    /// When something was first sent that needs a sign of life, which has not come.
    waiting_since: Option<Instant>,
    pinged: bool,
    /// The peer wants to know when all that it has sent has been read.
    owes_flushed: bool,
    /// The peer has been asked for that.
    asked_flush: bool,
}

impl Handler {
    pub(crate) fn new(
        shared: Arc<Shared>,
        node: NodeId,
        connection: ConnectionId,
        address: SocketAddr,
        dialled: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            tick: Box::pin(tokio::time::sleep(shared.timing.tick)),
            shared,
            node,
            connection,
            address,
            dialled,
            phase: Phase::New,
            control: None,
            greeting: None,
            incoming: Default::default(),
            outgoing: [const { Outgoing::None }; CHANNELS],
            moved: Default::default(),
            buffer: vec![0; READ_BYTES].into(),
            opened: now,
            sent: now,
            received: now,
            waiting_since: None,
            pinged: false,
            owes_flushed: false,
            asked_flush: false,
        }
    }

    fn end(&mut self, end: End) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        match end {
            End::Plain(reason) => {
                tracing::debug!(peer = %self.node, address = %self.address, "connection ends: {reason}");
                self.shared.close(self.connection);
            }
            End::Violation(what) => {
                tracing::warn!(peer = %self.node, address = %self.address, "peer refused: it {what}");
                self.shared.close(self.connection);
                self.shared.ban(self.node, &format!("it {what}"));
            }
        }
    }

    /// Does what can be done; returns a stream to open.
    fn drive(&mut self, context: &mut Context<'_>) -> Result<Option<Lane>, End> {
        while self.tick.as_mut().poll(context).is_ready() {
            let next = tokio::time::Instant::now() + self.shared.timing.tick;
            self.tick.as_mut().reset(next);
            self.look_at_the_clock()?;
        }
        if self.phase == Phase::New {
            self.phase = Phase::Greeting;
            if self.dialled {
                let Some(hello) = self.shared.dialled(self.node, self.connection) else {
                    return Err(End::Plain("another connection is used"));
                };
                self.greeting = Some(Control::Hello(hello));
                return Ok(Some(Lane::Control));
            }
        }
        self.read_control(context)?;
        let mut open = None;
        if matches!(self.phase, Phase::Used | Phase::Closing) {
            self.read_messages(context)?;
        }
        if self.phase == Phase::Used {
            open = self.write_messages(context)?;
        }
        self.write_control(context)?;
        Ok(open)
    }

    fn look_at_the_clock(&mut self) -> Result<(), End> {
        let timing = self.shared.timing;
        match self.phase {
            Phase::New | Phase::Greeting => {
                if self.opened.elapsed() > timing.handshake {
                    return Err(End::Plain("nobody asked for it to be used"));
                }
            }
            Phase::Used => {
                if self.dialled
                    && self.sent.elapsed() > timing.idle
                    && self.received.elapsed() > timing.idle
                {
                    self.phase = Phase::Closing;
                    self.say(Control::MayClose);
                }
            }
            Phase::Closing => {
                if !self.dialled && self.sent.elapsed() > timing.idle + timing.handshake {
                    return Err(End::Plain("idle"));
                }
            }
            Phase::Ended => {}
        }
        if let Some(since) = self.waiting_since {
            if since.elapsed() > timing.dead {
                return Err(End::Plain("no sign of life"));
            }
            if since.elapsed() > timing.ping && !self.pinged {
                self.pinged = true;
                self.say(Control::Ping);
            }
        }
        Ok(())
    }

    fn heard(&mut self) {
        self.waiting_since = None;
        self.pinged = false;
    }

    fn say(&mut self, control: Control) {
        if let Some((_, _, writer)) = &mut self.control {
            writer.add([control.encode()]);
            if !matches!(control, Control::Pong | Control::Flushed) {
                self.waiting_since.get_or_insert_with(Instant::now);
            }
        }
    }

    fn read_control(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        for _ in 0..READS_AT_ONCE {
            let Some((stream, reader, _)) = &mut self.control else {
                return Ok(());
            };
            let mut buffer = [0; 256];
            let bytes = match Pin::new(stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(End::Plain("the peer has closed it")),
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(_)) => return Err(End::Plain("it is broken")),
            };
            let mut input = &buffer[..bytes];
            let mut said = Vec::new();
            while !input.is_empty() {
                let frame = reader.feed(&mut input, MAX_CONTROL_BYTES).map_err(|long| {
                    let bytes = long.announced;
                    End::Violation(format!("announced a control message of {bytes} bytes"))
                })?;
                let Some(frame) = frame else { break };
                said.push(Control::decode(&frame).ok_or_else(|| {
                    End::Violation("sent a control message that makes no sense".into())
                })?);
            }
            self.heard();
            for control in said {
                self.hear(control)?;
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn hear(&mut self, control: Control) -> Result<(), End> {
        match control {
            Control::Hello(hello) if self.phase == Phase::Greeting && !self.dialled => {
                let shared = &self.shared;
                let accept = shared.hello(self.node, self.connection, hello, self.address);
                let accept = accept.ok_or(End::Plain("another connection is used"))?;
                self.phase = Phase::Used;
                self.say(Control::Accept(accept));
            }
            Control::Accept(accept) if self.phase == Phase::Greeting && self.dialled => {
                let shared = &self.shared;
                if !shared.accepted(self.node, self.connection, accept, self.address) {
                    return Err(End::Plain("another connection is used"));
                }
                self.phase = Phase::Used;
            }
            Control::Flush => self.owes_flushed = true,
            Control::Flushed => self.shared.flushed(self.node),
            Control::Ping => self.say(Control::Pong),
            Control::Pong => {}
            Control::MayClose if self.phase == Phase::Used && !self.dialled => {
                if self.sent.elapsed() < self.shared.timing.consent {
                    self.say(Control::Stay);
                } else {
                    self.phase = Phase::Closing;
                    self.say(Control::Close);
                }
            }
            Control::Close if self.phase == Phase::Closing && self.dialled => {
                return Err(End::Plain("idle"));
            }
            Control::Stay if self.phase == Phase::Closing && self.dialled => {
                self.phase = Phase::Used;
                self.received = Instant::now();
            }
            _ => {
                let what = format!("said {control:?} where it makes no sense");
                return Err(End::Violation(what));
            }
        }
        Ok(())
    }

    fn write_control(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let Some((stream, _, writer)) = &mut self.control else {
            return Ok(());
        };
        match writer.poll_write(stream, context) {
            Poll::Ready(Err(_)) => Err(End::Plain("it is broken")),
            _ => Ok(()),
        }
    }

    fn read_messages(&mut self, context: &mut Context<'_>) -> Result<(), End> {
        let mut heard = false;
        let mut is_drained = true;
        for channel in Channel::ALL {
            let Some((stream, reader)) = &mut self.incoming[channel.index()] else {
                continue;
            };
            let most = channel.max_message_bytes();
            for reads in 0.. {
                if !self.shared.has_room(self.node, context.waker()) {
                    is_drained = false;
                    break;
                }
                if reads == READS_AT_ONCE {
                    is_drained = false;
                    context.waker().wake_by_ref();
                    break;
                }
                let bytes = match Pin::new(&mut *stream).poll_read(context, &mut self.buffer) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => return Err(End::Plain("the peer has closed it")),
                    Poll::Ready(Ok(bytes)) => bytes,
                    Poll::Ready(Err(_)) => return Err(End::Plain("it is broken")),
                };
                heard = true;
                let mut input = &self.buffer[..bytes];
                while !input.is_empty() {
                    let message = reader.feed(&mut input, most).map_err(|long| {
                        End::Violation(format!(
                            "announced a message of {} bytes on channel {}, which takes {most}",
                            long.announced,
                            channel.name(),
                        ))
                    })?;
                    if let Some(message) = message {
                        let shared = &self.shared;
                        if !shared.deliver(self.node, self.connection, channel, message) {
                            return Err(End::Plain("another connection is used"));
                        }
                    }
                }
            }
        }
        if heard {
            self.heard();
            self.received = Instant::now();
        }
        if self.owes_flushed && is_drained {
            // Everything in the connection before the question has reached the streams.
            self.owes_flushed = false;
            self.say(Control::Flushed);
        }
        Ok(())
    }

    fn write_messages(&mut self, context: &mut Context<'_>) -> Result<Option<Lane>, End> {
        loop {
            let ready = std::array::from_fn(
                |index| matches!(&self.outgoing[index], Outgoing::Open(_, writer) if writer.is_empty()),
            );
            let waiting = self.shared.take_outgoing(
                self.node,
                self.connection,
                ready,
                TAKE_BYTES,
                context.waker(),
                &mut self.moved,
            );
            let mut progress = false;
            for channel in Channel::ALL {
                let index = channel.index();
                match &mut self.outgoing[index] {
                    Outgoing::None if waiting[index] => {
                        self.outgoing[index] = Outgoing::Opening;
                        return Ok(Some(Lane::Channel(channel)));
                    }
                    Outgoing::Unknown if waiting[index] => {
                        self.shared.drop_channel(self.node, channel);
                    }
                    Outgoing::Open(stream, writer) => {
                        if !self.moved[index].is_empty() {
                            let now = Instant::now();
                            self.sent = now;
                            self.waiting_since.get_or_insert(now);
                            writer.add(self.moved[index].drain(..));
                        }
                        if !writer.is_empty() {
                            match writer.poll_write(stream, context) {
                                Poll::Ready(Ok(())) => progress = true,
                                Poll::Ready(Err(_)) => return Err(End::Plain("it is broken")),
                                Poll::Pending => {}
                            }
                        }
                    }
                    _ => {}
                }
            }
            if !progress {
                let is_written = |outgoing: &Outgoing| match outgoing {
                    Outgoing::Open(_, writer) => writer.is_empty(),
                    Outgoing::Opening => false,
                    Outgoing::None | Outgoing::Unknown => true,
                };
                if !self.asked_flush
                    && self.shared.is_stopping()
                    && self.outgoing.iter().all(is_written)
                {
                    self.asked_flush = true;
                    self.say(Control::Flush);
                }
                return Ok(None);
            }
        }
    }

    fn opened_by_peer(&mut self, lane: Lane, stream: Stream) -> Result<(), End> {
        let is_second = match lane {
            // Whoever has dialled opens it.
            Lane::Control if self.dialled => true,
            Lane::Control => {
                let parts = (stream, Reader::default(), Writer::default());
                self.control.replace(parts).is_some()
            }
            Lane::Channel(channel) => {
                let parts = (stream, Reader::default());
                self.incoming[channel.index()].replace(parts).is_some()
            }
        };
        if is_second {
            let what = format!("opened the stream {} a second time", lane.as_ref());
            return Err(End::Violation(what));
        }
        Ok(())
    }

    fn opened_by_us(&mut self, lane: Lane, stream: Stream) {
        match lane {
            Lane::Control => {
                self.control = Some((stream, Reader::default(), Writer::default()));
                if let Some(greeting) = self.greeting.take() {
                    self.say(greeting);
                }
            }
            Lane::Channel(channel) => {
                self.outgoing[channel.index()] = Outgoing::Open(stream, Writer::default());
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyLane;
    type OutboundProtocol = OneLane;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyLane, ()> {
        SubstreamProtocol::new(AnyLane, ()).with_timeout(self.shared.timing.handshake)
    }

    /// This handler ends connections itself.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OneLane, Lane, Infallible>> {
        if self.phase == Phase::Ended {
            return Poll::Pending;
        }
        match self.drive(context) {
            Ok(None) => Poll::Pending,
            Ok(Some(lane)) => {
                let protocol = SubstreamProtocol::new(OneLane(lane), lane)
                    .with_timeout(self.shared.timing.handshake);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            Err(end) => {
                self.end(end);
                Poll::Pending
            }
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyLane, OneLane, (), Lane>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (lane, stream),
                info: (),
            }) => {
                if let Err(end) = self.opened_by_peer(lane, stream) {
                    self.end(end);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: lane,
            }) => self.opened_by_us(lane, stream),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: lane, error }) => {
                match (lane, error) {
                    (Lane::Channel(channel), StreamUpgradeError::NegotiationFailed) => {
                        let (peer, name) = (self.node, channel.protocol());
                        tracing::warn!(%peer, "the peer doesn't speak {name}: another version?");
                        self.outgoing[channel.index()] = Outgoing::Unknown;
                    }
                    (Lane::Control, StreamUpgradeError::NegotiationFailed) => {
                        let what = "it doesn't speak this version's control protocol: \
                                    run the same version of maelstrom on both machines";
                        self.shared.refused(self.address, what);
                        self.end(End::Plain("another version"));
                    }
                    _ => self.end(End::Plain("a stream could not be opened")),
                }
            }
            _ => {}
        }
    }
}
