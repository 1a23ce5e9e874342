use super::*;
use crate::LayerId;
use proptest::prelude::*;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::new(path.as_bytes()).unwrap(),
        mode: match kind {
            EntryKind::Symlink { .. } => 0o777,
            EntryKind::Whiteout => 0,
            _ => 0o755,
        },
        modified: Timestamp::NORMAL,
        kind,
    }
}

fn file(path: &str) -> Entry {
    entry(
        path,
        EntryKind::File {
            content: ContentHash::of(path.as_bytes()),
            size_bytes: 3,
        },
    )
}

fn directory(path: &str) -> Entry {
    entry(path, EntryKind::Directory { opaque: false })
}

fn link(path: &str, target: &[u8]) -> Entry {
    let target = Bytes(target.into());
    entry(path, EntryKind::Symlink { target })
}

/// The encoding of entries that no one has checked.
fn unchecked(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(postcard::to_stdvec(entries).unwrap());
    bytes
}

/// Ids are the same on every machine and stay the same: layers are shared between versions.
#[test]
fn ids_are_fixed() {
    let manifest = Manifest::new(vec![
        directory("d"),
        file("d/f"),
        link("d/l", b"f"),
        entry("w", EntryKind::Whiteout),
    ])
    .unwrap();
    assert_eq!(
        Manifest::default().id(),
        LayerId::of(&[1, 0]),
        "the empty layer"
    );
    assert_eq!(
        manifest.id().to_string(),
        "f7b2b8da035199a08561379b46ee0d175babf220edf1db8de82b790200cf3c36"
    );
}

#[test]
fn order_of_entries_makes_no_difference() {
    let a = Manifest::new(vec![directory("d"), file("d/f"), file("e")]).unwrap();
    let b = Manifest::new(vec![file("e"), file("d/f"), directory("d")]).unwrap();
    assert_eq!(a.id(), b.id());
}

#[test]
fn malformed_manifests() {
    let problem = |entries: &[Entry]| Manifest::decode(&unchecked(entries)).unwrap_err();
    use ManifestError::*;
    assert!(matches!(problem(&[file("b"), file("a")]), Order(_)));
    assert!(matches!(problem(&[file("a"), file("a")]), Order(_)));
    assert!(matches!(problem(&[file("a/b")]), Parent(_)));
    assert!(matches!(problem(&[file("a"), file("a/b")]), Parent(_)));
    assert!(matches!(
        problem(&[link("a", b"/"), file("a/b")]),
        Parent(_)
    ));
    assert!(matches!(
        problem(&[directory("a"), file("a-b"), file("a/c")]),
        Order(_)
    ));
    assert!(matches!(problem(&[link("a", b"")]), Attribute { .. }));
    assert!(matches!(problem(&[link("a", b"\0")]), Attribute { .. }));
    assert!(matches!(
        problem(&[link("a", &[b'x'; 4096])]),
        Attribute { .. }
    ));
    let mut strange = file("a");
    strange.mode = 0o100_644;
    assert!(matches!(problem(&[strange]), Attribute { .. }));
    let mut strange = link("a", b"b");
    strange.mode = 0o755;
    assert!(matches!(problem(&[strange]), Attribute { .. }));
    let mut strange = file("a");
    strange.modified.nanoseconds = 1_000_000_000;
    assert!(matches!(problem(&[strange]), Attribute { .. }));
}

#[test]
fn paths_that_escape() {
    for path in [
        "..",
        "../a",
        "a/../../b",
        "/etc",
        "a//b",
        "",
        "a/",
        "./a",
        "a\0b",
    ] {
        let mut bytes = vec![VERSION, 1];
        bytes.push(path.len() as u8);
        bytes.extend_from_slice(path.as_bytes());
        bytes.extend(postcard::to_stdvec(&(0o755u32, Timestamp::NORMAL)).unwrap());
        bytes.extend(postcard::to_stdvec(&EntryKind::Whiteout).unwrap());
        let error = Manifest::decode(&bytes).unwrap_err();
        assert!(
            matches!(error, ManifestError::Malformed(_)),
            "{path}: {error}"
        );
    }
}

#[test]
fn absurd_counts_cost_nothing() {
    let mut bytes = vec![VERSION];
    bytes.extend([0xff; 9]);
    bytes.push(0x01);
    assert!(Manifest::decode(&bytes).is_err());
}

#[test]
fn other_versions_and_trailing_bytes() {
    let good = Manifest::new(vec![file("a")]).unwrap().encode();
    assert!(Manifest::decode(&good).is_ok());
    assert_eq!(
        Manifest::decode(&[]).unwrap_err(),
        ManifestError::Version(None)
    );
    let mut other = good.clone();
    other[0] = 2;
    assert_eq!(
        Manifest::decode(&other).unwrap_err(),
        ManifestError::Version(Some(2))
    );
    let mut longer = good.clone();
    longer.push(0);
    assert!(Manifest::decode(&longer).is_err());
    // The same number of entries, written in two bytes.
    let mut padded = vec![VERSION, 0x81, 0x00];
    padded.extend_from_slice(&good[2..]);
    assert!(Manifest::decode(&padded).is_err());
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop_oneof!["[a-c]", "[a-c.-]{2}", Just("\u{fc}".to_owned())];
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    prop::collection::vec((path, 0..4u8, 0..0o10000u32), 0..20).prop_map(|list| {
        let mut entries: Vec<Entry> = list
            .into_iter()
            .filter_map(|(path, kind, mode)| {
                EntryPath::new(path.as_bytes()).ok()?;
                let mut entry = match kind {
                    0 => directory(&path),
                    1 => file(&path),
                    2 => link(&path, b"x"),
                    _ => entry(&path, EntryKind::Whiteout),
                };
                if kind < 2 {
                    entry.mode = mode;
                }
                Some(entry)
            })
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    })
}

proptest! {
    #[test]
    fn decoding_noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode(&bytes);
        let mut versioned = vec![VERSION];
        versioned.extend(bytes);
        let _ = Manifest::decode(&versioned);
    }

    #[test]
    fn decoding_damage_never_panics(
        entries in entries(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = unchecked(&entries);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }

    /// The slow, obvious rules.
    #[test]
    fn what_is_accepted_is_sound(entries in entries()) {
        let sound = entries.iter().enumerate().all(|(index, entry)| {
            let twice = entries[..index].iter().any(|other| other.path == entry.path);
            let parent = entry.path.as_path().parent().unwrap();
            let housed = parent.as_os_str().is_empty() || entries.iter().any(|other| {
                other.path.as_path() == parent
                    && matches!(other.kind, EntryKind::Directory { .. })
            });
            !twice && housed
        });
        let bytes = unchecked(&entries);
        match Manifest::decode(&bytes) {
            Ok(manifest) => {
                prop_assert!(sound);
                prop_assert_eq!(manifest.encode(), bytes);
                for entry in manifest.entries() {
                    prop_assert_eq!(manifest.get(entry.path.as_path()), Some(entry));
                }
            }
            Err(error) => prop_assert!(!sound, "{}", error),
        }
    }
}
