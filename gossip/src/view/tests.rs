use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Up(u8, u32),
    Down(u8, u32),
    Profile(u8, u32),
    Load(u8, u32, u16, u32),
    Forget(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..5u8, 0..12u8, 1..6u32, any::<u16>(), 0..2u32).prop_map(
        |(kind, node, version, free, queued)| match kind {
            0 => Step::Up(node, version),
            1 => Step::Down(node, version),
            2 => Step::Profile(node, version),
            3 => Step::Load(node, version, free, queued),
            _ => Step::Forget(node),
        },
    );
    proptest::collection::vec(step, 0..200)
}

/// The tag of no node in these tests.
const OTHER: Tag = 5;

fn id(node: u8) -> NodeId {
    let mut bytes = [node; 32];
    bytes[31] = 1;
    NodeId::from_bytes(bytes)
}

fn version(sequence: u32) -> Version {
    Version { boot: 1, sequence }
}

fn lending(node: u8) -> Lending {
    if node.is_multiple_of(3) {
        Lending::Never
    } else {
        Lending::Always
    }
}

/// What the view should know, kept in the plainest way.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Plain {
    up: bool,
    generation: u32,
    profile: u32,
    load: (u32, u16, u32),
}

fn apply(view: &mut View, plain: &mut BTreeMap<u8, Plain>, step: &Step) {
    match *step {
        Step::Up(node, generation) => {
            let peer = Peer {
                tag: id(node).tag(),
                generation,
            };
            view.set_up(peer);
            let known = plain.entry(node).or_default();
            (known.up, known.generation) = (true, generation);
        }
        Step::Down(node, generation) => {
            let peer = Peer {
                tag: id(node).tag(),
                generation,
            };
            view.set_down(peer, 0);
            let known = plain.entry(node).or_default();
            (known.up, known.generation) = (false, generation);
        }
        Step::Profile(node, sequence) => {
            let mut profile = Profile::new(id(node), sequence as u16);
            profile.lending = lending(node);
            let encoded = profile.encode().unwrap().into();
            let profile = VersionedProfile {
                version: version(sequence),
                profile,
                encoded,
            };
            view.set_profile(id(node).tag(), Arc::new(profile));
            if let Some(known) = plain.get_mut(&node) {
                known.profile = known.profile.max(sequence);
            }
        }
        Step::Load(node, sequence, slots_free, jobs_queued) => {
            let load = Load {
                slots_free,
                jobs_queued,
            };
            view.set_load(id(node).tag(), version(sequence), load);
            if let Some(known) = plain.get_mut(&node)
                && sequence > known.load.0
            {
                known.load = (sequence, slots_free, jobs_queued);
            }
        }
        Step::Forget(node) => {
            if plain.get(&node).is_some_and(|known| !known.up) {
                view.forget(id(node).tag());
                plain.remove(&node);
            }
        }
    }
}

#[test]
fn an_entry_stays_small() {
    assert_eq!(size_of::<Entry>(), 40);
}

proptest! {
    #[test]
    fn a_view_knows_what_a_plain_map_knows(steps in steps()) {
        let mut view = View::new(OTHER);
        let mut plain = BTreeMap::new();
        for step in &steps {
            apply(&mut view, &mut plain, step);
            let shown: Vec<u8> = plain
                .iter()
                .filter(|(_, known)| known.up && known.profile > 0)
                .map(|(node, _)| *node)
                .collect();
            prop_assert_eq!(view.len(), shown.len());
            prop_assert_eq!(view.known(), plain.len());
            prop_assert_eq!(view.up(), plain.values().filter(|known| known.up).count());
            let mut listed: Vec<NodeId> = view.iter().map(|member| member.node()).collect();
            listed.sort();
            prop_assert_eq!(listed, shown.iter().map(|node| id(*node)).collect::<Vec<_>>());
            let queueing = plain
                .iter()
                .filter(|(node, known)| shown.contains(node) && known.load.2 > 0)
                .count();
            prop_assert_eq!(view.queueing(), queueing);
            for (index, member) in view.iter().enumerate() {
                prop_assert_eq!(member.load.jobs_queued > 0, index < queueing);
                prop_assert_eq!(view.nth(index).unwrap().node(), member.node());
            }
            prop_assert!(view.nth(shown.len()).is_none());
            let lending = shown.iter().filter(|node| lending(**node) != Lending::Never);
            let slots = lending.fold(Slots::default(), |slots, node| Slots {
                total: slots.total + u64::from(plain[node].profile),
                free: slots.free + u64::from(plain[node].load.1),
            });
            prop_assert_eq!(view.slots(), slots);
            for (node, known) in &plain {
                let member = view.get(&id(*node));
                prop_assert_eq!(member.is_some(), shown.contains(node));
                if let Some(member) = member {
                    prop_assert_eq!(u32::from(member.profile.slots_total), known.profile);
                    prop_assert_eq!(member.load.slots_free, known.load.1);
                }
            }
        }
    }

    #[test]
    fn fingerprints_agree_exactly_when_knowledge_does(steps in steps(), cut in 0..200usize) {
        let (mut whole, mut part) = (View::new(OTHER), View::new(OTHER));
        let (mut plain_whole, mut plain_part) = (BTreeMap::new(), BTreeMap::new());
        for (index, step) in steps.iter().enumerate() {
            apply(&mut whole, &mut plain_whole, step);
            if index != cut {
                apply(&mut part, &mut plain_part, step);
            }
        }
        let up = |plain: BTreeMap<u8, Plain>| -> Vec<(u8, u32, u32, u32)> {
            plain
                .into_iter()
                .filter(|(_, known)| known.up)
                .map(|(node, known)| (node, known.generation, known.profile, known.load.0))
                .collect()
        };
        prop_assert_eq!(
            whole.fingerprint() == part.fingerprint(),
            up(plain_whole) == up(plain_part)
        );
    }

    #[test]
    fn the_own_node_is_held_but_not_shown(steps in steps()) {
        let mut view = View::new(id(3).tag());
        let mut plain = BTreeMap::new();
        for step in &steps {
            apply(&mut view, &mut plain, step);
            prop_assert!(view.iter().all(|member| member.node() != id(3)));
            prop_assert!(view.get(&id(3)).is_none());
            prop_assert_eq!(view.knows(id(3).tag()), plain.contains_key(&3));
        }
    }

    #[test]
    fn tags_come_in_pages(nodes in proptest::collection::btree_set(any::<u64>(), 0..60)) {
        let mut view = View::new(OTHER);
        for tag in &nodes {
            view.set_up(Peer { tag: *tag, generation: 1 });
        }
        let mut paged = Vec::new();
        let mut from = Some(0);
        while let Some(start) = from {
            let page = view.tags_from(start, 7);
            from = if page.len() == 7 { page[6].checked_add(1) } else { None };
            paged.extend(page);
        }
        prop_assert_eq!(paged, nodes.into_iter().collect::<Vec<_>>());
    }
}
