//! The two roles of a node behind one door.

use crate::{
    Action, Body, Capabilities, Config, Held, Ignored, IgnoredCounts, Incarnation, Job, JobId,
    JobRefused, Lending, Message, NodeId, View,
    context::{Context, Shared},
    executor::Executor,
    origin::{Origin, Request},
};
use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

/// What this node offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How many jobs of one slot it runs at a time.
    pub slots: u16,
    /// Its processor architecture as Rust names it.
    pub architecture: Box<str>,
    /// Its labels.
    pub labels: Vec<Box<str>>,
}

impl Offer {
    /// The same, borrowed.
    pub fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            slots: self.slots,
            architecture: &self.architecture,
            labels: &self.labels,
        }
    }
}

/// Counts that a node tells the mesh and its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots of this node that run nothing.
    pub slots_free: u16,
    /// Jobs of this node that nobody runs yet.
    pub queued: usize,
    /// Jobs of this node that have not been reported.
    pub unfinished: usize,
    /// Slots of the mesh that this node's jobs hold, its own included.
    pub slots_held: usize,
    /// Those of other nodes among them.
    pub slots_elsewhere: usize,
    /// Leases that this node holds, of whomever, with those whose end is not acknowledged yet.
    pub leases: usize,
}

/// Decides which job runs where and when, for one node: as origin for the jobs submitted here, as
/// executor for the jobs that run here. Never blocks, reads no clock, does no I/O.
///
/// # Driving it
///
/// 1. Call one method that takes `now`: [`submit`](Self::submit), [`cancel`](Self::cancel),
///    [`handle_message`](Self::handle_message), [`handle_timeout`](Self::handle_timeout), or what
///    an [`Action`] asks for. `now` never goes back.
/// 2. Send every message of [`poll_transmit`](Self::poll_transmit). Messages may be lost,
///    duplicated, delayed and reordered; they must not be altered or come from someone else.
/// 3. Do every action of [`poll_action`](Self::poll_action), in order.
/// 4. Set one timer for [`poll_timeout`](Self::poll_timeout) and call
///    [`handle_timeout`](Self::handle_timeout) then.
///
/// When a member is declared dead, call [`peer_lost`](Self::peer_lost); the [`View`] shows
/// everything else. A node that comes back from a crash makes a new dispatcher with a greater
/// [`Incarnation`].
#[derive(Debug)]
pub struct Dispatcher {
    origin: Origin,
    executor: Executor,
    shared: Shared,
}

impl Dispatcher {
    /// A node without jobs. Two with the same seed and the same calls do the same.
    pub fn new(
        me: NodeId,
        incarnation: Incarnation,
        offer: Offer,
        lending: Lending,
        config: Config,
        seed: u64,
    ) -> Self {
        Dispatcher {
            origin: Origin::default(),
            executor: Executor::new(lending, config.poll_first),
            shared: Shared {
                me,
                incarnation,
                offer,
                config,
                rng: ChaCha8Rng::seed_from_u64(seed),
                lives: BTreeMap::new(),
                transmits: VecDeque::new(),
                loopback: VecDeque::new(),
                actions: VecDeque::new(),
                ignored: IgnoredCounts::default(),
            },
        }
    }

    /// Puts a job into the queue of this node.
    ///
    /// # Errors
    /// Where the job passes a bound, or the queue is full.
    pub fn submit(&mut self, now: Instant, view: &dyn View, job: Job) -> Result<JobId, JobRefused> {
        self.event(now, view, |this, cx| this.0.submit(cx, job))
    }

    /// Ends a job of this node, wherever it is, with [`JobFailed::Cancelled`]. Whether it was
    /// unfinished.
    ///
    /// [`JobFailed::Cancelled`]: crate::JobFailed::Cancelled
    pub fn cancel(&mut self, now: Instant, view: &dyn View, job: JobId) -> bool {
        self.event(now, view, |this, cx| this.0.cancel(cx, job))
    }

    /// The job of this origin that this node starts next, as far as is known here: so that what it
    /// needs can be made ready while another runs.
    pub fn peek_next(&self, origin: NodeId) -> Option<(JobId, &Job)> {
        let ready = self.executor.peek_ready(origin);
        // Of itself a node asks for nothing in advance.
        let queued = || (origin == self.shared.me).then(|| self.origin.peek_queued())?;
        ready.or_else(queued)
    }

    /// The layers of a lease are there: answers [`Action::FetchLayers`].
    pub fn layers_ready(&mut self, now: Instant, view: &dyn View, held: Held) {
        self.event(now, view, |this, cx| this.1.layers_ready(cx, held));
    }

    /// The layers of a lease cannot be had: answers [`Action::FetchLayers`]. Another node may
    /// run the job.
    pub fn layers_failed(&mut self, now: Instant, view: &dyn View, held: Held, reason: &str) {
        self.event(now, view, |this, cx| this.1.layers_failed(cx, held, reason));
    }

    /// A job that was started here is over: answers [`Action::Start`] and [`Action::Kill`], once
    /// for both. With `Err`, this node could not run it, and another may; whatever the job itself
    /// did wrong belongs into the outcome.
    pub fn job_ended(
        &mut self,
        now: Instant,
        view: &dyn View,
        held: Held,
        result: Result<Bytes, String>,
    ) {
        self.event(now, view, |this, cx| this.1.job_ended(cx, held, result));
    }

    /// Changes when jobs of others run here. Without [`Lending::Always`], gives back those that
    /// are here unless it is idle.
    pub fn set_lending(&mut self, now: Instant, view: &dyn View, lending: Lending) {
        self.event(now, view, |this, cx| this.1.set_lending(cx, lending));
    }

    /// Before this node stops: takes no more jobs of others and gives back those that have not
    /// started. Those that run go on.
    pub fn drain(&mut self, now: Instant, view: &dyn View) {
        self.event(now, view, |this, cx| this.1.drain(cx));
    }

    /// The owner came back or went away. With [`Lending::Idle`], coming back hands all jobs of
    /// others back, started or not.
    pub fn set_owner_active(&mut self, now: Instant, view: &dyn View, active: bool) {
        self.event(now, view, |this, cx| this.1.set_owner_active(cx, active));
    }

    /// A member was declared dead, or has left, or has started a new life. Its leases go back
    /// into the queue; its jobs end here.
    pub fn peer_lost(&mut self, now: Instant, view: &dyn View, node: NodeId) {
        self.event(now, view, |this, cx| {
            cx.shared.lives.remove(&node);
            this.0.peer_lost(cx, node);
            this.1.origin_lost(cx, node);
        });
    }

    /// A message arrived. `from` is whom the transport has authenticated. A message that makes no
    /// sense is counted in [`ignored`](Self::ignored) and does no harm.
    pub fn handle_message(
        &mut self,
        now: Instant,
        view: &dyn View,
        from: NodeId,
        message: Message,
    ) {
        self.event(now, view, |this, cx| {
            if let Err(reason) = this.admit(cx, from, &message) {
                cx.ignore(reason);
                if reason == Ignored::ForEarlierLife && message.body != Body::Restarted {
                    cx.send(from, Body::Restarted);
                }
                return;
            }
            this.deliver(cx, from, message.body);
        });
    }

    /// Something is due. Early calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant, view: &dyn View) {
        self.event(now, view, |this, cx| {
            this.0.handle_timeout(cx);
            this.1.handle_timeout(cx);
        });
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Message)> {
        self.shared.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.origin
            .poll_timeout()
            .into_iter()
            .chain(self.executor.poll_timeout())
            .min()
    }

    /// What the node has to tell of itself at this moment.
    pub fn counts(&self) -> Counts {
        let load = self.origin.load();
        Counts {
            slots_free: self.executor.slots_free(self.shared.offer.slots),
            queued: load.queued as usize,
            unfinished: self.origin.unfinished(),
            slots_held: load.slots_held as usize,
            slots_elsewhere: self.origin.slots_elsewhere(self.shared.me),
            leases: self.executor.held(),
        }
    }

    /// Whether the node runs jobs of others at this moment.
    pub fn lends(&self) -> bool {
        self.executor.lends(self.shared.me)
    }

    /// Messages that were ignored, by reason.
    pub fn ignored(&self) -> &IgnoredCounts {
        &self.shared.ignored
    }

    /// Panics where counts contradict each other. Takes constant time, for use after every event.
    pub fn check_counts(&self) {
        self.origin.check_counts();
        self.executor.check_counts(self.shared.offer.slots);
    }

    /// Panics where any two parts of the state contradict each other. Takes time linear in the
    /// jobs and leases.
    pub fn check_invariants(&self) {
        self.origin.check_invariants();
        self.executor.check_invariants(self.shared.offer.slots);
        assert!(self.shared.loopback.is_empty());
    }

    /// Handles one event, and then whatever the roles say to each other.
    fn event<T>(
        &mut self,
        now: Instant,
        view: &dyn View,
        handle: impl FnOnce(&mut Roles<'_>, &mut Context<'_>) -> T,
    ) -> T {
        let mut roles = Roles(&mut self.origin, &mut self.executor);
        let mut cx = Context {
            now,
            view,
            shared: &mut self.shared,
        };
        let result = handle(&mut roles, &mut cx);
        let me = cx.me();
        let mut rounds = 0;
        while let Some(body) = cx.shared.loopback.pop_front() {
            rounds += 1;
            debug_assert!(rounds < 1_000_000, "{} goes round in circles", body.name());
            roles.deliver(&mut cx, me, body);
        }
        if cfg!(debug_assertions) {
            self.check_counts();
        }
        result
    }
}

/// Both halves, borrowed for one event.
struct Roles<'a>(&'a mut Origin, &'a mut Executor);

impl Roles<'_> {
    fn deliver(&mut self, cx: &mut Context<'_>, from: NodeId, body: Body) {
        let Roles(origin, executor) = self;
        match body {
            Body::Wake(load) => executor.handle_wake(cx, from, load),
            Body::Grant {
                number,
                load,
                leases,
            } => {
                executor.handle_grant(cx, from, number, load, leases);
            }
            Body::Ack { ended, load } => executor.handle_ack(cx, from, &ended, load),
            Body::Cancel { leases } => executor.handle_cancel(cx, from, &leases),
            Body::Revoke { count } => executor.handle_revoke(cx, from, count),
            Body::Request {
                number,
                slots,
                prefetch,
            } => {
                origin.handle_request(
                    cx,
                    from,
                    Request {
                        number,
                        slots,
                        prefetch,
                    },
                );
            }
            Body::Report(progress) => origin.handle_report(cx, from, progress),
            Body::Holding { settled, leases } => origin.handle_holding(cx, from, settled, leases),
            // Its sender's life has been taken note of already.
            Body::Restarted => {}
        }
    }

    /// Whether a message may be heard. What an earlier life of its sender left is dropped first.
    fn admit(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        message: &Message,
    ) -> Result<(), Ignored> {
        if from == cx.me() {
            return Err(Ignored::FromMyself);
        }
        if cx.view.member(from).is_none() {
            return Err(Ignored::NotAMember);
        }
        if !message.body.is_bounded() {
            return Err(Ignored::TooLarge);
        }
        let known = cx.shared.lives.insert(from, message.from);
        if let Some(known) = known.filter(|known| message.from < *known) {
            cx.shared.lives.insert(from, known);
            return Err(Ignored::EarlierLife);
        }
        if known.is_some_and(|known| message.from > known) {
            self.0.peer_lost(cx, from);
            self.1.origin_lost(cx, from);
        }
        if message.to.is_some_and(|to| to != cx.shared.incarnation) {
            return Err(Ignored::ForEarlierLife);
        }
        Ok(())
    }
}
