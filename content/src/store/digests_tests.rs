use super::*;
use proptest::prelude::*;

fn stamp(inode: u64, changed: SystemTime) -> Stamp {
    let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Stamp {
        device: 1,
        inode,
        size_bytes: 10,
        // Never a whole second.
        modified_ns: since.as_nanos() as i64 / 10 * 10 + 1,
        changed_ns: since.as_nanos() as i64 / 10 * 10 + 1,
    }
}

fn old() -> SystemTime {
    SystemTime::now() - Duration::from_secs(100)
}

fn setup() -> (std::path::PathBuf, Layout, Process, impl Drop) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    for directory in layout.directories() {
        fs::create_dir_all(directory).unwrap();
    }
    let process = Process::start(&layout).unwrap();
    (layout.digests(), layout, process, dir)
}

#[test]
fn remembered_by_the_whole_stamp() {
    let (_, layout, process, _dir) = setup();
    let known = stamp(1, old());
    let digests = Digests::new(layout.clone());
    digests.insert(&known, ContentHash::of(b"a"), SystemTime::now());
    digests.save(&process).unwrap();
    for digests in [digests, Digests::new(layout)] {
        assert_eq!(digests.get(&known), Some(ContentHash::of(b"a")));
        for other in [
            Stamp { device: 2, ..known },
            Stamp { inode: 2, ..known },
            Stamp {
                size_bytes: 11,
                ..known
            },
            Stamp {
                modified_ns: 0,
                ..known
            },
            Stamp {
                changed_ns: 0,
                ..known
            },
        ] {
            assert_eq!(digests.get(&other), None, "{other:?}");
        }
    }
}

#[test]
fn files_changed_just_now_are_not_trusted() {
    let now = SystemTime::now();
    let millis = Duration::from_millis;
    assert!(is_settled(&stamp(1, now - millis(50)), now));
    assert!(!is_settled(&stamp(1, now - millis(5)), now));
    assert!(!is_settled(&stamp(1, now), now));
    assert!(!is_settled(&stamp(1, now + millis(1000)), now));
    // Set back by its owner; but the time of change tells.
    let mut set_back = stamp(1, now);
    set_back.modified_ns = 1;
    assert!(!is_settled(&set_back, now));
    // Where only seconds are kept, one second is not enough.
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let coarse = |ago: i64| Stamp {
        changed_ns: (seconds - ago) * 1_000_000_000,
        modified_ns: (seconds - ago) * 1_000_000_000,
        ..stamp(1, now)
    };
    assert!(!is_settled(&coarse(1), now));
    assert!(is_settled(&coarse(4), now));
}

#[test]
fn processes_merge() {
    let (_, layout, process, _dir) = setup();
    let (one, two) = (Digests::new(layout.clone()), Digests::new(layout.clone()));
    assert_eq!(one.get(&stamp(9, old())), None, "both have loaded nothing");
    assert_eq!(two.get(&stamp(9, old())), None);
    let (a, b) = (stamp(1, old()), stamp(2, old()));
    one.insert(&a, ContentHash::of(b"a"), SystemTime::now());
    two.insert(&b, ContentHash::of(b"b"), SystemTime::now());
    one.save(&process).unwrap();
    two.save(&process).unwrap();
    let three = Digests::new(layout);
    assert_eq!(three.get(&a), Some(ContentHash::of(b"a")));
    assert_eq!(three.get(&b), Some(ContentHash::of(b"b")));
    three.forget(&a);
    assert_eq!(three.get(&a), None);
}

#[test]
fn damage_is_ignored() {
    let (path, layout, process, _dir) = setup();
    let known = stamp(1, old());
    let digests = Digests::new(layout.clone());
    digests.insert(&known, ContentHash::of(b"a"), SystemTime::now());
    digests.save(&process).unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(decode(&bad).is_none(), "byte {at}");
    }
    for length in 0..good.len() {
        assert!(decode(&good[..length]).is_none(), "length {length}");
    }
    fs::write(&path, b"nonsense").unwrap();
    let digests = Digests::new(layout.clone());
    assert_eq!(digests.get(&known), None);
    digests.insert(&known, ContentHash::of(b"a"), SystemTime::now());
    digests.save(&process).unwrap();
    assert_eq!(
        Digests::new(layout).get(&known),
        Some(ContentHash::of(b"a"))
    );
}

#[test]
fn bounded_by_use() {
    let record = |inode: u64, used_day| Record {
        stamp: Stamp {
            inode,
            ..stamp(0, old())
        },
        content: ContentHash::of(b""),
        used_day,
    };
    let mut records: Vec<_> = (0..MAX_RECORDS as u64)
        .map(|inode| record(inode, 5))
        .collect();
    records.extend((0..100).map(|index| record(1 << 40 | index, 4)));
    records.push(record(1 << 50, 6));
    let kept = decode(&encode(records)).unwrap();
    assert_eq!(kept.len(), MAX_RECORDS);
    assert!(kept.iter().all(|record| record.used_day >= 5));
    assert!(kept.iter().any(|record| record.used_day == 6));
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }
}
