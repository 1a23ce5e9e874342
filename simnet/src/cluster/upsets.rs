//! How things go wrong, and how the shared picture hears of it.

use rand::RngExt;

use super::{Cluster, Event, Fate, Fault, Shows, dispatch_id, handle::machine};

impl Cluster {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.calm_since = self.now();
        match fault {
            Fault::Kill(number) => self.kill(number),
            Fault::Start(number) => {
                let awake: Vec<usize> = (0..self.nodes.len())
                    .filter(|other| self.awake(*other))
                    .collect();
                let seed = if awake.is_empty() {
                    None
                } else {
                    Some(awake[self.rng.random_range(0..awake.len())])
                };
                self.start(number, seed);
                self.settle(number);
            }
            Fault::Leave(number) => {
                if self.awake(number) {
                    self.note("leaves", number as u32, None, 0);
                    let now = self.now();
                    let local = self.nodes[number].clock.at(now);
                    if let Some(membership) =
                        machine(&mut self.nodes, number, |m| m.membership.as_mut())
                    {
                        membership.leave(local);
                    }
                    self.settle_membership(number);
                    self.kill(number);
                }
            }
            Fault::Pause(number, time) => {
                if self.nodes[number].alive {
                    self.note("sleeps", number as u32, None, time.as_millis() as u64);
                    let until = self.now() + time;
                    self.nodes[number].paused_until = until.max(self.nodes[number].paused_until);
                    // Nothing has to happen at the end but that time goes on.
                    self.queue.at(until, Event::Fault(Fault::Mend(u32::MAX)));
                }
            }
            Fault::Slow(number, factor) => self.nodes[number].slowness = factor,
            Fault::Cut(id, cut) => {
                self.note("partition", id, None, 0);
                self.network.cuts.push((id, cut));
            }
            Fault::Mend(id) => {
                self.note("mended", id, None, 0);
                self.network.cuts.retain(|(cut, _)| *cut != id);
            }
            Fault::Weather { loss, late, twice } => {
                let network = &mut self.network;
                (network.loss, network.late, network.twice) = (loss, late, twice);
            }
            Fault::Owner(number, active) => {
                self.note("owner", number as u32, None, active.into());
                if self.awake(number) {
                    self.dispatch(number, |dispatcher, now, view| {
                        dispatcher.set_owner_active(now, view, active);
                    });
                    self.settle(number);
                }
            }
            Fault::KillCoordinator(back) => {
                if let Some((number, _)) = self.coordinators().first().copied() {
                    self.kill(number);
                    self.queue
                        .at(self.now() + back, Event::Fault(Fault::Start(number)));
                }
            }
        }
    }

    pub(super) fn kill(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.nodes[number];
        if !node.alive {
            return;
        }
        node.alive = false;
        node.paused_until = now;
        node.machines = None;
        node.running.clear();
        node.slots_running = 0;
        node.unreported = 0;
        node.wakes_at = None;
        let life = node.life;
        for index in std::mem::take(&mut node.submitted) {
            let job = &mut self.jobs[index as usize];
            if job.fate == Fate::Open {
                job.fate = Fate::Orphaned;
                self.open -= 1;
            }
        }
        self.note("dies", number as u32, None, life.into());
        self.drop_flows(number);
        self.show(Shows::Down(number as u32, life));
    }

    pub(super) fn shows(&mut self, news: Shows) {
        match news {
            Shows::Up(number, life) => {
                let node = &self.nodes[number as usize];
                if node.alive && node.life == life {
                    self.shared.set_up(number as usize, true);
                }
            }
            Shows::Down(number, life) => {
                if self.nodes[number as usize].life != life || self.nodes[number as usize].alive {
                    return;
                }
                self.note("shows down", number, None, life.into());
                self.shared.set_up(number as usize, false);
                for other in 0..self.nodes.len() {
                    if self.nodes[other].alive {
                        self.dispatch(other, |dispatcher, now, view| {
                            dispatcher.peer_lost(now, view, dispatch_id(number as usize));
                        });
                        self.settle(other);
                    }
                }
            }
            Shows::Load(number, slots_free, queued) => {
                if self.nodes[number as usize].alive {
                    self.shared.set_load(number as usize, slots_free, queued);
                }
            }
        }
    }
}
