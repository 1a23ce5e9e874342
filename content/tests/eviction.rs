//! What goes when there is too much, and what stays.

mod fixture;

use fixture::{content, count, kept_files, open, open_small, project, snapshot};
use maelstrom_content::LayerId;
use std::{fs, time::Duration};

#[test]
fn the_least_recently_used_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let sources: Vec<_> = (0..4).map(|seed| project(dir.path(), 20, seed)).collect();
    let ids: Vec<LayerId> = sources
        .iter()
        .map(|source| {
            // Each by a process of its own, as far as the store can tell.
            let store = open(&cache);
            let id = store.layer().add_tree("/", source).finish().unwrap();
            store.tree(id).unwrap();
            id
        })
        .collect();
    drop(open(&cache).tree(ids[0]).unwrap());
    let all = open(&cache).evict().unwrap();
    assert_eq!(all.layers, 0);
    let quarter = all.before_bytes / 4;

    let store = open_small(&cache, quarter * 5 / 2);
    let eviction = store.evict().unwrap();
    assert_eq!(eviction.layers, 2);
    assert!(eviction.after_bytes <= quarter * 5 / 2, "{eviction:?}");
    let left: Vec<bool> = ids.iter().map(|id| store.contains(*id)).collect();
    assert_eq!(left, [true, false, false, true]);
    // What it says is what is there.
    assert_eq!(
        open(&cache).evict().unwrap().before_bytes,
        eviction.after_bytes
    );

    // What is in use stays, whoever uses it.
    let other = open(&cache);
    let tree = other.tree(ids[0]).unwrap();
    let store = open_small(&cache, 0);
    assert_eq!(store.evict().unwrap().layers, 1);
    assert!(store.contains(ids[0]));
    assert_eq!(snapshot(tree.path()), snapshot(&sources[0]));
    drop(tree);
    let eviction = store.evict().unwrap();
    assert_eq!((eviction.layers, eviction.after_bytes), (1, 0));
    assert_eq!(kept_files(&cache), 0);
    assert_eq!(count(&content(&cache, "trees")), 0);
    assert_eq!(count(&content(&cache, "manifests")), 0);

    // What was built stays until it is released, even without a tree.
    let id = store.layer().add_tree("/", &sources[1]).finish().unwrap();
    assert_eq!(open_small(&cache, 0).evict().unwrap().layers, 0);
    drop(store.tree(id).unwrap());
    assert_eq!(open_small(&cache, 0).evict().unwrap().layers, 0);
    store.release(id);
    assert_eq!(open_small(&cache, 0).evict().unwrap().layers, 1);
}

#[test]
fn shared_contents_outlive_one_of_their_layers() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let build = |extra: &str| {
        let store = open(&cache);
        let mut layer = store.layer();
        layer.add_bytes("shared", vec![7; 50_000], 0o644);
        layer.add_bytes(extra, extra, 0o644).finish().unwrap()
    };
    // The layer that stays has a tree, or has none.
    for (stays, goes, unpack) in [("a", "b", "a"), ("a", "b", "b"), ("c", "d", "-")] {
        let (stays, goes) = (build(stays), build(goes));
        if unpack != "-" {
            open(&cache).tree(build(unpack)).unwrap();
        }
        let keeper = open(&cache);
        let pin = keeper.pin(stays).unwrap();
        open_small(&cache, 0).evict().unwrap();
        assert!(keeper.contains(stays) && !keeper.contains(goes));
        keeper.verify(stays).unwrap();
        let tree = keeper.tree(stays).unwrap();
        assert_eq!(fs::read(tree.path().join("shared")).unwrap(), [7; 50_000]);
        drop((tree, pin));
    }
}

#[test]
fn it_evicts_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let store = open_small(&cache, 1_000_000);
    let first = store
        .layer()
        .add_bytes("a", vec![1; 600_000], 0o644)
        .finish()
        .unwrap();
    store.release(first);
    let second = store
        .layer()
        .add_bytes("a", vec![2; 600_000], 0o644)
        .finish()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while store.contains(first) {
        assert!(std::time::Instant::now() < deadline, "nothing was evicted");
        std::thread::yield_now();
    }
    assert!(store.contains(second));
}
