//! Driving the puller: its messages, its actions, its timer.

use crate::{Inner, Outgoing, Rubbish, fetch::Event, lock};
use maelstrom_content::LayerId;
use maelstrom_gossip::NodeId;
use maelstrom_pull::{Action, Body, Message, Puller};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// The longest message of a puller that is read, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

impl Inner {
    /// Calls the puller and does what it wants done.
    pub(crate) fn with_puller<T>(
        self: &Arc<Self>,
        call: impl FnOnce(&mut Puller<NodeId>, Instant) -> T,
    ) -> T {
        let mut puller = lock(&self.puller);
        let result = call(&mut puller, Instant::now());
        // Under the lock, so that messages stay in order.
        while let Some((to, message)) = puller.poll_transmit() {
            self.transmit(to, &message);
        }
        let mut actions = Vec::new();
        while let Some(action) = puller.poll_action() {
            actions.push(action);
        }
        let due = puller.poll_timeout();
        let mut armed = lock(&self.due);
        if *armed != due {
            *armed = due;
            self.wake.notify_one();
        }
        drop(armed);
        drop(puller);
        for action in actions {
            self.act(action);
        }
        result
    }

    fn transmit(&self, to: NodeId, message: &Message<NodeId>) {
        if !self.members.contains(to) {
            return;
        }
        let Ok(bytes) = postcard::to_stdvec(message) else {
            return;
        };
        let message = bytes.into();
        if self.outgoing.try_send(Outgoing { to, message }).is_err() {
            // As if the network had lost it.
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn act(self: &Arc<Self>, action: Action<NodeId>) {
        match action {
            Action::Fetch {
                ticket,
                from,
                bundle,
                ranges,
                ..
            } => {
                let layer = LayerId::from_bytes(bundle.0);
                // The task removes itself, and must not come before it was put there.
                let mut fetches = lock(&self.fetches);
                let task = self.clone().fetch_piece(ticket, from, layer, ranges);
                fetches.insert(ticket, self.bulk.spawn(task).abort_handle());
            }
            Action::Abort { ticket } => {
                if let Some(fetch) = lock(&self.fetches).remove(&ticket) {
                    fetch.abort();
                }
            }
            Action::Complete { bundle } => self.tell(bundle.0, Event::Complete),
            Action::NoProvider { bundle } => self.tell(bundle.0, Event::NoProvider),
        }
    }

    pub(crate) fn tell(&self, layer: [u8; 32], event: Event) {
        let layer = LayerId::from_bytes(layer);
        if let Some(pull) = lock(&self.pulls).get(&layer) {
            pull.tell(event);
        }
    }

    pub(crate) fn handle_message(
        self: &Arc<Self>,
        from: NodeId,
        message: &[u8],
    ) -> Result<(), Rubbish> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(Rubbish(format!("{} bytes are too many", message.len())));
        }
        let (mut message, rest) = postcard::take_from_bytes::<Message<NodeId>>(message)
            .map_err(|error| Rubbish(error.to_string()))?;
        if !rest.is_empty() {
            return Err(Rubbish(format!("{} bytes follow its end", rest.len())));
        }
        if !self.members.contains(from) {
            return Ok(());
        }
        if let Body::Hello { peers, .. } = &mut message.body {
            // Others are never reached, and would only be waited for.
            peers.retain(|peer| self.members.contains(*peer));
        }
        let layer = LayerId::from_bytes(message.bundle.0);
        if !self.postpone(layer, from, &message) {
            self.with_puller(|puller, now| puller.handle_message(now, from, message));
        }
        Ok(())
    }
}

/// Calls the puller whenever something is due.
pub(crate) async fn run_timer(inner: Arc<Inner>) {
    loop {
        let due = *lock(&inner.due);
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.wake.notified() => {}
            () = sleep => inner.with_puller(|puller, now| puller.handle_timeout(now)),
        }
    }
}
