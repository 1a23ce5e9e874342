//! Which of several connections between two nodes is used.
//!
//! Both may dial at once, and each may notice at another time that a connection is dead. So the
//! dialler of a connection asks for it to be used ([`Hello`]), and the other side accepts
//! ([`Accept`]) or closes it:
//!
//! - A node asks only while it knows of no used connection, and on one connection at a time.
//! - When both ask at once, the question of the node with the lower id stands.
//! - Who is asked while a connection is used replaces that one: the asker has lost it. But a
//!   question that was under way while the connection came to be used is void. Questions are
//!   numbered, and an `Accept` names the last question of the accepting side, which is thereby
//!   withdrawn with all before it.
//!
//! So both sides come to use the same connection, messages stay in order, and none is lost with
//! a superfluous connection, since none travels before the agreement.

/// Asks for a connection to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// Random for each start of the asking node, so that its numbers may start again.
    pub(crate) life: u64,
    /// Grows with each question.
    pub(crate) number: u64,
}

/// Agrees to a [`Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Accept {
    /// The last question that the accepting node asked, which is withdrawn.
    pub(crate) withdrawn: Hello,
}

/// What one node knows of its connections to one other node. `C` names a connection.
#[derive(Debug)]
pub(crate) struct Agreement<C> {
    used: Option<C>,
    asked: Option<C>,
    /// The last question asked.
    last: Hello,
    /// The other node's last question that it has withdrawn or that was answered.
    void: Option<Hello>,
}

/// What to do about a [`Hello`].
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Answer<C> {
    /// Use the connection, and close the one that it replaces.
    Accept { accept: Accept, close: Option<C> },
    /// Close the connection on which it came.
    Refuse,
}

impl<C: Copy + PartialEq> Agreement<C> {
    /// For a node in its given life.
    pub(crate) fn new(life: u64) -> Self {
        Self {
            used: None,
            asked: None,
            last: Hello { life, number: 0 },
            void: None,
        }
    }

    pub(crate) fn used(&self) -> Option<C> {
        self.used
    }

    /// Whether there is, or is about to be, a used connection.
    pub(crate) fn is_settling(&self) -> bool {
        self.used.is_some() || self.asked.is_some()
    }

    /// This node has dialled the other: the question to ask, or nothing where the connection
    /// isn't needed and is to be closed.
    pub(crate) fn dialled(&mut self, connection: C) -> Option<Hello> {
        if self.is_settling() {
            return None;
        }
        self.asked = Some(connection);
        self.last.number += 1;
        Some(self.last)
    }

    /// The other node asks. `lower` says whether this node's id is the lower one.
    pub(crate) fn hello(&mut self, connection: C, hello: Hello, lower: bool) -> Answer<C> {
        let is_void = |void: Hello| void.life == hello.life && hello.number <= void.number;
        if self.void.is_some_and(is_void) || (self.asked.is_some() && lower) {
            return Answer::Refuse;
        }
        let close = self.asked.take().or(self.used);
        self.used = Some(connection);
        self.void = Some(hello);
        let accept = Accept {
            withdrawn: self.last,
        };
        Answer::Accept { accept, close }
    }

    /// The other node accepts. False where this is not what was asked: close the connection.
    pub(crate) fn accepted(&mut self, connection: C, accept: Accept) -> bool {
        if self.asked != Some(connection) {
            return false;
        }
        self.asked = None;
        self.used = Some(connection);
        self.void = Some(accept.withdrawn);
        true
    }

    /// A connection is gone. Says whether it was the used one.
    pub(crate) fn closed(&mut self, connection: C) -> bool {
        if self.asked == Some(connection) {
            self.asked = None;
        }
        let was_used = self.used == Some(connection);
        if was_used {
            self.used = None;
        }
        was_used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// What travels on a connection, or happens to it at one end.
    #[derive(Clone, Copy, Debug)]
    enum Packet {
        Established,
        Hello(Hello),
        Accept(Accept),
        Closed,
    }

    /// Two nodes; node 0 has the lower id. Each connection keeps its packets in order in each
    /// direction; which packet arrives next is chosen by the test.
    struct World {
        nodes: [Agreement<usize>; 2],
        /// Who dialled, and what is on the way to each node.
        connections: Vec<(usize, [VecDeque<Packet>; 2])>,
        lives: u64,
    }

    impl World {
        fn new() -> Self {
            Self {
                nodes: [Agreement::new(1), Agreement::new(2)],
                connections: Vec::new(),
                lives: 2,
            }
        }

        fn dial(&mut self, from: usize) {
            if self.nodes[from].is_settling() || self.connections.len() > 60 {
                return;
            }
            let mut queues = [VecDeque::new(), VecDeque::new()];
            queues[from].push_back(Packet::Established);
            self.connections.push((from, queues));
        }

        fn restart(&mut self, node: usize) {
            self.lives += 1;
            self.nodes[node] = Agreement::new(self.lives);
            for (_, queues) in &mut self.connections {
                queues[node].clear();
                queues[1 - node].push_back(Packet::Closed);
            }
        }

        /// One end notices that a connection is dead; the other end will learn.
        fn close(&mut self, node: usize, connection: usize) {
            self.nodes[node].closed(connection);
            let queues = &mut self.connections[connection].1;
            queues[node].clear();
            queues[1 - node].push_back(Packet::Closed);
        }

        fn deliver(&mut self, node: usize, connection: usize) -> bool {
            let Some(packet) = self.connections[connection].1[node].pop_front() else {
                return false;
            };
            let other = 1 - node;
            let agreement = &mut self.nodes[node];
            match packet {
                Packet::Established => match agreement.dialled(connection) {
                    Some(hello) => {
                        self.connections[connection].1[other].push_back(Packet::Hello(hello));
                    }
                    None => self.close(node, connection),
                },
                Packet::Hello(hello) => match agreement.hello(connection, hello, node == 0) {
                    Answer::Accept { accept, close } => {
                        self.connections[connection].1[other].push_back(Packet::Accept(accept));
                        if let Some(old) = close.filter(|old| *old != connection) {
                            self.close(node, old);
                        }
                    }
                    Answer::Refuse => self.close(node, connection),
                },
                Packet::Accept(accept) => {
                    if !agreement.accepted(connection, accept) {
                        self.close(node, connection);
                    }
                }
                Packet::Closed => {
                    agreement.closed(connection);
                    self.connections[connection].1[node].clear();
                }
            }
            true
        }

        fn settle(&mut self) {
            loop {
                let mut moved = false;
                for connection in 0..self.connections.len() {
                    for node in 0..2 {
                        while self.deliver(node, connection) {
                            moved = true;
                        }
                    }
                }
                if !moved {
                    return;
                }
            }
        }
    }

    #[test]
    fn simultaneous_dials_end_in_the_lower_nodes_connection() {
        let mut world = World::new();
        world.dial(1);
        world.dial(0);
        for (node, connection) in [(0, 1), (1, 0)] {
            assert!(world.deliver(node, connection));
        }
        world.settle();
        assert_eq!(world.nodes[0].used(), Some(1));
        assert_eq!(world.nodes[1].used(), Some(1));
    }

    #[test]
    fn a_question_that_was_under_way_does_not_replace_a_used_connection() {
        let mut world = World::new();
        world.dial(1);
        world.dial(0);
        // Node 0 asks, node 1 asks, node 1 accepts, node 0 hears that, and only then the
        // question of node 1.
        for (node, connection) in [(1, 0), (0, 1), (1, 1), (0, 1)] {
            assert!(world.deliver(node, connection));
        }
        assert_eq!(world.nodes[0].used(), Some(1));
        world.settle();
        assert_eq!(world.nodes[0].used(), Some(1));
        assert_eq!(world.nodes[1].used(), Some(1));
    }

    #[test]
    fn who_has_lost_a_connection_replaces_it_even_after_a_restart() {
        for restarts in [false, true] {
            let mut world = World::new();
            world.dial(0);
            world.settle();
            // Node 1 no longer has it, and node 0 doesn't notice.
            if restarts {
                world.restart(1);
            } else {
                world.close(1, 0);
            }
            world.connections[0].1[0].clear();
            world.dial(1);
            world.settle();
            assert_eq!(world.nodes[0].used(), Some(1));
            assert_eq!(world.nodes[1].used(), Some(1));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Whatever happens in whatever order: once it ends and whoever has no connection dials,
        /// both use the same one.
        #[test]
        fn both_come_to_use_one_connection(steps in proptest::collection::vec((0..10u8, any::<prop::sample::Index>(), 0..2usize), 0..80)) {
            let mut world = World::new();
            for (kind, index, node) in steps {
                let count = world.connections.len();
                match kind {
                    0 | 1 => world.dial(node),
                    2 if count > 0 => world.close(node, index.index(count)),
                    3 if kind == index.index(12) as u8 => world.restart(node),
                    _ if count > 0 => { world.deliver(node, index.index(count)); }
                    _ => {}
                }
            }
            world.settle();
            for round in 0..4 {
                world.dial(round % 2);
                world.settle();
            }
            let used = world.nodes[0].used();
            prop_assert!(used.is_some());
            prop_assert_eq!(used, world.nodes[1].used());
        }
    }
}
