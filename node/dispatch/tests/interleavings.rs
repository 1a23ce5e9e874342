//! Random jobs, faults and weather: no job lost, none reported twice, no node over its slots, and
//! all of them end when the faults do.

mod toy;

use maelstrom_dispatch::{
    Body, JobId, LeaseId, Lending, Load, Message, Progress, Rank, Requirements,
};
use proptest::prelude::*;
use std::sync::Arc;
use toy::{Mesh, Weather, job, layer_at, ms};

#[derive(Clone, Debug)]
enum Step {
    Submit {
        node: usize,
        run_ms: u64,
        estimate: Option<u64>,
        slots: u16,
        priority: i8,
        layer: bool,
    },
    Cancel {
        nth: usize,
    },
    Crash {
        node: usize,
    },
    Revive {
        node: usize,
    },
    Cut {
        from: usize,
        to: usize,
    },
    Heal,
    Owner {
        node: usize,
        active: bool,
    },
    Lose {
        at: usize,
        peer: usize,
    },
    Hostile {
        from: usize,
        to: usize,
        kind: u8,
        number: u64,
    },
    Wait {
        ms: u64,
    },
}

const NODES: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    prop_oneof![
        20 => (node(), 1..400_u64, prop::option::of(1..400_u64), 1..3_u16, -1..2_i8, any::<bool>())
            .prop_map(|(node, run_ms, estimate, slots, priority, layer)| Step::Submit {
                node, run_ms, estimate, slots, priority, layer
            }),
        2 => (0..100_usize).prop_map(|nth| Step::Cancel { nth }),
        1 => node().prop_map(|node| Step::Crash { node }),
        2 => node().prop_map(|node| Step::Revive { node }),
        2 => (node(), node()).prop_map(|(from, to)| Step::Cut { from, to }),
        1 => Just(Step::Heal),
        1 => (node(), any::<bool>()).prop_map(|(node, active)| Step::Owner { node, active }),
        1 => (node(), node()).prop_map(|(at, peer)| Step::Lose { at, peer }),
        2 => (node(), node(), any::<u8>(), 0..40_u64)
            .prop_map(|(from, to, kind, number)| Step::Hostile { from, to, kind, number }),
        12 => (0..300_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn weather() -> impl Strategy<Value = Weather> {
    (0.0..0.3_f64, 0.0..0.3_f64, 1..40_u64).prop_map(|(loss, duplication, slowest)| Weather {
        loss,
        duplication,
        delay_ms: 0..slowest + 1,
    })
}

/// A message that its sender has no reason to send.
fn hostile(kind: u8, number: u64) -> Body {
    let lease = LeaseId {
        job: JobId(number),
        copy: (number % 3) as u32,
    };
    match kind % 8 {
        0 => Body::Grant {
            number,
            load: Load::default(),
            leases: vec![(lease, job(ms(5)))],
        },
        1 => Body::Ack {
            ended: vec![lease],
            load: Load::default(),
        },
        2 => Body::Revoke { count: u32::MAX },
        3 => Body::Request {
            number,
            slots: u16::MAX,
            prefetch: true,
        },
        4 => Body::Report(vec![
            (lease, Progress::Returned),
            (lease, Progress::Started),
        ]),
        5 => Body::Report(vec![(lease, Progress::Failed("no".to_owned())); 2_000]),
        6 => Body::Wake(Load {
            queued: u32::MAX,
            slots_held: 0,
            layer: None,
        }),
        _ => Body::Restarted,
    }
}

fn apply(mesh: &mut Mesh, step: Step) {
    match step {
        Step::Submit {
            node,
            run_ms,
            estimate,
            slots,
            priority,
            layer,
        } => {
            if mesh.nodes[node].dispatcher.is_none() {
                return;
            }
            let mut job = job(ms(run_ms));
            job.rank = Rank {
                priority,
                estimate: estimate.map(ms),
            };
            job.needs = Arc::new(Requirements {
                slots,
                ..Default::default()
            });
            if layer {
                job.layers = Arc::from([layer_at(node, 1_000_000)]);
            }
            mesh.submit(node, job);
        }
        Step::Cancel { nth } => {
            let open = mesh.open();
            if let Some(&(node, _, id)) = open.get(nth % open.len().max(1)) {
                mesh.with(node, |dispatcher, now, view| {
                    dispatcher.cancel(now, view, id)
                });
            }
        }
        Step::Crash { node } => mesh.crash(node),
        Step::Revive { node } => mesh.revive(node),
        Step::Cut { from, to } => {
            mesh.cut.insert((from, to));
        }
        Step::Heal => mesh.cut.clear(),
        Step::Owner { node, active } => {
            mesh.with(node, |dispatcher, now, view| {
                dispatcher.set_owner_active(now, view, active);
            });
        }
        Step::Lose { at, peer } => {
            if at != peer {
                mesh.with(at, |dispatcher, now, view| {
                    dispatcher.peer_lost(now, view, toy::node(peer));
                });
            }
        }
        Step::Hostile {
            from,
            to,
            kind,
            number,
        } => {
            if from != to && mesh.nodes[from].dispatcher.is_some() {
                mesh.inject(from, to, hostile(kind, number));
            }
        }
        Step::Wait { ms: time } => mesh.run_for(ms(time)),
    }
}

fn run(steps: Vec<Step>, weather: Weather, seed: u64) {
    let mut mesh = Mesh::new(&[2, 2, 3, 4, 2], seed);
    mesh.nodes[3].lending = Lending::Idle;
    let mut mesh = mesh.boot();
    mesh.weather = weather;
    for step in steps {
        apply(&mut mesh, step);
    }
    // The faults are over.
    mesh.cut.clear();
    mesh.weather = Weather::default();
    for node in 0..NODES {
        mesh.revive(node);
        mesh.with(node, |dispatcher, now, view| {
            dispatcher.set_owner_active(now, view, false);
        });
    }
    mesh.run_until(ms(40_000), |mesh| mesh.open().is_empty());
    // What is left of cancelled, doubled and orphaned jobs ends too.
    mesh.run_until(ms(20_000), |mesh| {
        let idle = |node: &toy::Node| {
            let counts = node.dispatcher.as_ref().unwrap().counts();
            counts.leases == 0 && counts.slots_held == 0 && counts.slots_free == node.offer.slots
        };
        mesh.nodes.iter().all(idle)
    });
    for node in &mesh.nodes {
        node.dispatcher.as_ref().unwrap().check_invariants();
    }
}

proptest! {
    #[test]
    fn no_job_is_lost_or_reported_twice(
        steps in prop::collection::vec(step(), 1..120),
        weather in weather(),
        seed in any::<u64>(),
    ) {
        run(steps, weather, seed);
    }

    /// Whatever decodes as a message does no harm, however little sense it makes.
    #[test]
    fn garbage_does_no_harm(
        bytes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..40),
        kinds in prop::collection::vec(0..10_u8, 40),
    ) {
        // The sender holds no lease whose outcome it could make up.
        let mut mesh = Mesh::new(&[2, 0, 2], 0).boot();
        let kept: Vec<_> = (0..6).map(|_| mesh.submit(0, job(ms(50)))).collect();
        for (mut bytes, kind) in bytes.into_iter().zip(kinds) {
            // The life of the sender, none of the receiver, then the kind of the message.
            bytes.splice(0..0, [1, 0, kind]);
            if let Ok(message) = postcard::from_bytes::<Message>(&bytes) {
                mesh.with(0, |dispatcher, now, view| {
                    dispatcher.handle_message(now, view, toy::node(1), message);
                });
            }
            mesh.run_for(ms(3));
        }
        mesh.run_until(ms(60_000), |mesh| kept.iter().all(|key| mesh.completed.contains_key(key)));
    }
}
