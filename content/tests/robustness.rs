//! What must not happen to a store, whatever happens around it.

use maelstrom_content::{LayerId, Store, StoreError, StoreOptions};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Set for the processes that these tests start: which helper they are to run.
const HELPER: &str = "MAELSTROM_CONTENT_TEST_HELPER";

fn open(root: &Path) -> Store {
    Store::open(root, StoreOptions::default()).unwrap()
}

fn open_small(root: &Path, cache_size_bytes: u64) -> Store {
    Store::open(root, StoreOptions { cache_size_bytes }).unwrap()
}

/// A project of `files` files, the same for the same `seed`.
fn project(root: &Path, files: usize, seed: u64) -> PathBuf {
    let root = root.join(format!("project-{seed}"));
    for index in 0..files {
        let dir = root.join(format!("d{}", index % 7));
        fs::create_dir_all(&dir).unwrap();
        let length = if index == 3 { 2_000_000 } else { 100 + index };
        fs::write(
            dir.join(format!("f{index}")),
            vec![(seed as u8) ^ (index as u8); length],
        )
        .unwrap();
    }
    symlink("f0", root.join("d0/link")).unwrap();
    root
}

/// Every path with its mode and contents.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let contents = if metadata.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let relative = path.strip_prefix(root).unwrap().to_owned();
            seen.insert(relative, (metadata.mode(), contents));
        }
    }
    seen
}

fn content(cache: &Path, part: &str) -> PathBuf {
    cache.join("content-1").join(part)
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// How many contents are kept.
fn kept_files(cache: &Path) -> usize {
    fs::read_dir(content(cache, "files"))
        .unwrap()
        .map(|directory| count(&directory.unwrap().path()))
        .sum()
}

/// Runs one of the helpers below in a process of its own.
fn helper(name: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "helpers", "--nocapture"])
        .env(HELPER, name)
        .env("ARGUMENT", argument)
        .stdin(Stdio::null());
    command
}

#[test]
fn helpers() {
    let Ok(name) = std::env::var(HELPER) else {
        return;
    };
    let dir = PathBuf::from(std::env::var_os("ARGUMENT").unwrap());
    let cache = dir.join("cache");
    match name.as_str() {
        "churn" => loop {
            // Builds, unpacks and evicts without end.
            let store = open_small(&cache, 3_000_000);
            for seed in 0..3 {
                let source = dir.join(format!("project-{seed}"));
                let id = store.layer().add_tree("/", source).finish().unwrap();
                drop(store.tree(id).unwrap());
                store.release(id);
                store.evict().unwrap();
            }
        },
        "build" => {
            let store = open(&cache);
            let source = dir.join("project-0");
            let id = store.layer().add_tree("/", &source).finish().unwrap();
            let tree = store.tree(id).unwrap();
            assert_eq!(snapshot(tree.path()), snapshot(&source));
        }
        "exit" => exit_early(&dir),
        "modes" => odd_modes(&dir),
        "full" => full_disk(&dir),
        "read-only" => {
            let error = Store::open(&cache, StoreOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(cache.to_str().unwrap()), "{text}");
            assert!(
                text.contains("check its owner") || text.contains("choose another"),
                "{text}"
            );
        }
        _ => panic!("no helper {name}"),
    }
    println!("helper done");
}

/// Runs a helper to its end.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("helper done"),
        "{text}\n{errors}"
    );
}

#[test]
fn killed_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cache = dir.join("cache");
    let sources: Vec<_> = (0..3).map(|seed| project(dir, 60, seed)).collect();
    let expected: Vec<_> = sources.iter().map(|source| snapshot(source)).collect();
    for round in 0..12u64 {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                helper("churn", dir)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        // Not a wait for anything: any moment is a good one to be killed at.
        std::thread::sleep(Duration::from_millis(20 + round * 37 % 200));
        for child in &mut children {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = open(&cache);
        for (source, expected) in sources.iter().zip(&expected) {
            let id = store.layer().add_tree("/", source).finish().unwrap();
            let tree = store.tree(id).unwrap();
            assert_eq!(snapshot(tree.path()), *expected, "round {round}");
            store.verify(id).unwrap();
        }
        assert_eq!(count(&content(&cache, "tmp")), 1, "only our own");
        assert_eq!(count(&content(&cache, "processes")), 1, "only our own");
    }
    assert_eq!(count(&content(&cache, "tmp")), 0);
}

#[test]
fn several_processes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), 200, 0);
    let children: Vec<_> = (0..4)
        .map(|_| {
            helper("build", dir.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }
    assert_eq!(count(&content(&dir.path().join("cache"), "trees")), 1);
}

#[test]
fn many_threads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let source = project(dir.path(), 100, 0);
    let store = open(&dir.path().join("cache"));
    let ids: Vec<LayerId> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let id = store.layer().add_tree("/", &source).finish().unwrap();
                    let tree = store.tree(id).unwrap();
                    assert_eq!(snapshot(tree.path()), snapshot(&source));
                    id
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
}

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

#[test]
fn damage_is_noticed_and_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let source = project(dir.path(), 20, 0);
    let id = open(&cache)
        .layer()
        .add_tree("/", &source)
        .finish()
        .unwrap();
    let tree = content(&cache, "trees").join(id.to_string());
    let victim = tree.join("d1/f1");
    let file = || {
        // The kept contents of the victim.
        let inode = fs::metadata(&victim).unwrap().ino();
        let directories = fs::read_dir(content(&cache, "files")).unwrap();
        directories
            .flat_map(|directory| fs::read_dir(directory.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .find(|file| fs::metadata(file).unwrap().ino() == inode)
            .unwrap()
    };
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let damages: Vec<Damage<'_>> = vec![
        (
            "a file removed from the tree",
            Box::new(|| fs::remove_file(&victim).unwrap()),
        ),
        (
            "a file added to the tree",
            Box::new(|| fs::write(tree.join("d1/more"), "x").unwrap()),
        ),
        (
            "a file added at its root",
            Box::new(|| fs::write(tree.join("more"), "x").unwrap()),
        ),
        (
            "a directory removed",
            Box::new(|| fs::remove_dir_all(tree.join("d2")).unwrap()),
        ),
        (
            "the tree removed",
            Box::new(|| fs::remove_dir_all(&tree).unwrap()),
        ),
        (
            "a link redirected",
            Box::new(|| {
                fs::remove_file(tree.join("d0/link")).unwrap();
                symlink("elsewhere", tree.join("d0/link")).unwrap();
            }),
        ),
        (
            "a mode changed",
            Box::new(|| {
                fs::set_permissions(&victim, PermissionsExt::from_mode(0o777)).unwrap();
            }),
        ),
        (
            "contents changed",
            Box::new(|| fs::write(&victim, "other").unwrap()),
        ),
        (
            "contents cut to nothing, as after a power cut",
            Box::new(|| {
                let file = fs::File::options().write(true).open(&victim).unwrap();
                file.set_len(0).unwrap();
            }),
        ),
        (
            "contents removed with the tree",
            Box::new(|| {
                fs::remove_file(file()).unwrap();
                fs::remove_dir_all(&tree).unwrap();
            }),
        ),
        (
            "all contents removed",
            Box::new(|| {
                fs::remove_dir_all(content(&cache, "files")).unwrap();
                fs::remove_dir_all(&tree).unwrap();
                fs::create_dir(content(&cache, "files")).unwrap();
            }),
        ),
        (
            "the manifest damaged",
            Box::new(|| {
                fs::write(content(&cache, "manifests").join(id.to_string()), "x").unwrap();
            }),
        ),
        (
            "the manifest removed",
            Box::new(|| {
                fs::remove_file(content(&cache, "manifests").join(id.to_string())).unwrap();
            }),
        ),
        (
            "the hashes of files damaged",
            Box::new(|| {
                fs::write(content(&cache, "digests"), "x").unwrap();
            }),
        ),
        (
            "the usage damaged",
            Box::new(|| fs::write(content(&cache, "usage"), "x").unwrap()),
        ),
    ];
    for (what, damage) in damages {
        open(&cache).tree(id).unwrap();
        damage();
        let store = open(&cache);
        // Without the source, what cannot be put right is a clear error …
        match store.tree(id) {
            Ok(tree) => assert_eq!(snapshot(tree.path()), snapshot(&source), "{what}"),
            Err(StoreError::Damaged { .. } | StoreError::UnknownLayer { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        drop(store);
        // … and with it, nobody notices.
        let store = open(&cache);
        assert_eq!(
            store.layer().add_tree("/", &source).finish().unwrap(),
            id,
            "{what}"
        );
        let tree = store.tree(id).unwrap();
        assert_eq!(snapshot(tree.path()), snapshot(&source), "{what}");
    }
}

#[test]
fn bit_rot_is_found_by_reading_everything() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let source = project(dir.path(), 5, 0);
    let store = open(&cache);
    let id = store.layer().add_tree("/", &source).finish().unwrap();
    let path = store.tree(id).unwrap().path().join("d1/f1");
    store.verify(id).unwrap();
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let length = fs::read(&path).unwrap().len();
    fs::write(&path, vec![0xaa; length]).unwrap();
    fs::File::open(&path).unwrap().set_modified(before).unwrap();
    let error = store.verify(id).unwrap_err();
    assert!(error.to_string().contains("was damaged"), "{error}");
    store.layer().add_tree("/", &source).finish().unwrap();
    store.verify(id).unwrap();
    assert_eq!(snapshot(store.tree(id).unwrap().path()), snapshot(&source));
}

#[test]
fn unchanged_means_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let source = project(dir.path(), 50, 0);
    let build = || {
        let store = open(&cache);
        let id = store.layer().add_tree("/", &source).finish().unwrap();
        let tree = store.tree(id).unwrap();
        let metadata = fs::metadata(tree.path()).unwrap();
        (id, metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    let first = build();
    assert_eq!(build(), first, "the same directory, not another one");
    fs::write(source.join("d1/f1"), "changed").unwrap();
    let (changed, ..) = build();
    assert_ne!(changed, first.0);
    // All but the one file are shared.
    let trees = content(&cache, "trees");
    let inode = |id: LayerId, path: &str| {
        fs::metadata(trees.join(id.to_string()).join(path))
            .unwrap()
            .ino()
    };
    assert_eq!(inode(first.0, "d2/f2"), inode(changed, "d2/f2"));
    assert_ne!(inode(first.0, "d1/f1"), inode(changed, "d1/f1"));
}

/// A file changed right after it was hashed, with its size and modification time put back.
#[test]
fn changes_that_hide_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("file");
    let store = open(&dir.path().join("cache"));
    for round in 0..20u8 {
        fs::write(&source, [round; 8]).unwrap();
        let modified = fs::metadata(&source).unwrap().modified().unwrap();
        let id = store.layer().add_file("f", &source).finish().unwrap();
        fs::write(&source, [round + 100; 8]).unwrap();
        fs::File::open(&source)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let other = store.layer().add_file("f", &source).finish().unwrap();
        assert_ne!(id, other);
        let tree = store.tree(other).unwrap();
        assert_eq!(fs::read(tree.path().join("f")).unwrap(), [round + 100; 8]);
    }
}

#[test]
fn a_stack_of_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("cache"));
    let layer =
        |path: &str, text: &str| store.layer().add_bytes(path, text, 0o644).finish().unwrap();
    let ids: Vec<LayerId> = (0..20)
        .map(|index| layer(&format!("d/{}", index % 15), &index.to_string()))
        .collect();
    let few = [ids[0], ids[0], ids[1], ids[0]];
    let stack = store.stack(&few).unwrap();
    assert_eq!(stack.directories().len(), 3);
    assert_eq!(stack.directories()[0], stack.directories()[2]);
    assert_eq!(stack.directories()[1], store.tree(ids[1]).unwrap().path());

    let stack = store.stack(&ids).unwrap();
    assert_eq!(stack.directories().len(), 8);
    for index in 0..15usize {
        let expected = if index < 5 { index + 15 } else { index };
        let found = stack.find(Path::new(&format!("/d/{index}"))).unwrap();
        assert_eq!(fs::read_to_string(found).unwrap(), expected.to_string());
    }
    assert_eq!(
        store.stack(&ids).unwrap().directories(),
        stack.directories()
    );
    assert!(store.stack(&[LayerId::of(b"?")]).is_err());
    assert!(store.stack(&[]).unwrap().directories().is_empty());
}

#[test]
fn whiteouts_and_opaque_directories() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("cache"));
    let mut low = store.layer();
    low.add_bytes("a", "a", 0o644)
        .add_bytes("d/x", "x", 0o644)
        .add_bytes("e/y", "y", 0o644);
    let low = low.finish().unwrap();
    let mut high = store.layer();
    high.add_whiteout("a")
        .add_opaque_directory("d", 0o700)
        .add_bytes("d/z", "z", 0o644);
    let high = high.finish().unwrap();
    // Merged by us, since there are more than eight layers.
    let fillers: Vec<_> = (0..8)
        .map(|index| {
            store
                .layer()
                .add_bytes(format!("filler-{index}"), "", 0o644)
                .finish()
                .unwrap()
        })
        .collect();
    let stack = store.stack(&[&[low, high][..], &fillers].concat()).unwrap();
    let lowest = snapshot(&stack.directories()[0]);
    let names: Vec<&str> = lowest.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, ["d", "d/z", "e", "e/y", "filler-0"]);
    match store.tree(high) {
        Ok(tree) => {
            use std::os::unix::fs::FileTypeExt;
            let metadata = fs::symlink_metadata(tree.path().join("a")).unwrap();
            assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0);
        }
        Err(error) => assert!(error.to_string().contains("not supported"), "{error}"),
    }
}

#[test]
fn contents_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let source = project(dir.path(), 10, 0);
    let here = open(&dir.path().join("here"));
    let there = open(&dir.path().join("there"));
    let id = here.layer().add_tree("/", &source).finish().unwrap();
    let manifest = here.manifest(id).unwrap();
    let encoded = manifest.encode();

    assert!(there.import(LayerId::of(b"?"), &encoded).is_err());
    assert!(there.import(LayerId::of(b"junk"), b"junk").is_err());
    let import = there.import(id, &encoded).unwrap();
    assert_eq!(import.missing(), manifest.contents());
    let error = import.finish().unwrap_err();
    assert!(error.to_string().contains("have not come"), "{error}");
    assert!(!there.contains(id));

    let mut import = there.import(id, &encoded).unwrap();
    for entry in manifest.entries() {
        let (Some(path), maelstrom_content::EntryKind::File { content, .. }) =
            (here.file_path(entry), &entry.kind)
        else {
            continue;
        };
        let bytes = fs::read(path).unwrap();
        assert!(import.add_bytes(*content, b"something else").is_err());
        let moved = dir.path().join("moved");
        fs::write(&moved, "something else").unwrap();
        assert!(import.add_file(*content, &moved).is_err());
        fs::write(&moved, &bytes).unwrap();
        if bytes.len() > 1000 {
            import.add_file(*content, &moved).unwrap();
        } else {
            import.add_bytes(*content, &bytes).unwrap();
        }
    }
    assert!(import.missing().is_empty());
    assert_eq!(import.finish().unwrap(), id);
    assert_eq!(snapshot(there.tree(id).unwrap().path()), snapshot(&source));
    there.verify(id).unwrap();
    assert!(there.import(id, &encoded).unwrap().missing().is_empty());
}

/// A process that exits without dropping its store has its work remembered all the same.
#[test]
fn exits_without_ceremony() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path(), 50, 0);
    let cache = dir.path().join("cache");
    let status = helper("exit", dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(count(&content(&cache, "processes")), 1);
    let digests = fs::metadata(content(&cache, "digests")).unwrap();
    assert!(digests.len() > 50 * 80);
    let _store = open(&cache);
    assert_eq!(
        count(&content(&cache, "processes")),
        1,
        "its own took the other's place"
    );
}

fn exit_early(dir: &Path) -> ! {
    let store = open(&dir.join("cache"));
    // Hashes of files that changed just now are not remembered.
    let newest = fs::metadata(dir.join("project-0/d0/link"))
        .unwrap()
        .modified()
        .unwrap();
    while newest.elapsed().unwrap() < Duration::from_millis(200) {
        std::thread::sleep(Duration::from_millis(10));
    }
    store
        .layer()
        .add_tree("/", dir.join("project-0"))
        .finish()
        .unwrap();
    let digests = content(&dir.join("cache"), "digests");
    while !digests.exists() {
        std::thread::yield_now();
    }
    std::process::exit(7);
}

/// Trees of all kinds under the file system that they are made for.
#[test]
fn trees_are_lower_directories_of_overlays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("cache"));
    let mut low = store.layer();
    low.add_bytes("gone", "x", 0o644)
        .add_bytes("hidden/x", "x", 0o644)
        .add_bytes("kept/x", "low", 0o600)
        .add_bytes("closed/x", "x", 0o000)
        .add_directory("closed", 0o000);
    let mut high = store.layer();
    high.add_whiteout("gone")
        .add_bytes("hidden/y", "y", 0o644)
        .add_opaque_directory("hidden", 0o755)
        .add_bytes("kept/y", "high", 0o644)
        .add_bytes("closed/y", "y", 0o644);
    let layers = [low.finish().unwrap(), high.finish().unwrap()];
    let stack = store.stack(&layers).unwrap();
    let lower: Vec<&str> = stack
        .directories()
        .iter()
        .rev()
        .map(|path| path.to_str().unwrap())
        .collect();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec"])
        .arg(
            r#"mount -t overlay -o "userxattr,lowerdir=$0" none /mnt || { echo no overlay; exit; }
            cd /mnt; find . | sort; cat kept/x kept/y closed/x hidden/y"#,
        )
        .arg(lower.join(":"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if text.contains("no overlay") || errors.contains("unshare:") {
        eprintln!("skipped: no overlays in user namespaces here: {errors}");
        return;
    }
    assert_eq!(
        text,
        ".\n./closed\n./closed/x\n./closed/y\n./hidden\n./hidden/y\n./kept\n./kept/x\n./kept/y\n\
         lowhighxy",
        "{errors}"
    );
}

/// The same as an ordinary user, for whom permissions matter.
fn odd_modes(dir: &Path) {
    let cache = dir.join("cache");
    let store = open(&cache);
    let mut layer = store.layer();
    for mode in [
        0o0000, 0o0111, 0o0200, 0o0444, 0o0555, 0o1777, 0o2755, 0o4755,
    ] {
        let directory = format!("d{mode:o}");
        layer.add_bytes(format!("{directory}/f{mode:o}"), "x", mode);
        layer.add_bytes(format!("{directory}/deeper/f"), "x", 0o644);
        layer.add_directory(format!("{directory}/deeper"), mode);
        layer.add_directory(directory, mode);
    }
    let id = layer.finish().unwrap();
    drop(layer);
    let path = store.tree(id).unwrap().path().to_owned();
    for mode in [0o0000, 0o0111, 0o0444, 0o0555, 0o1777] {
        let metadata = fs::metadata(path.join(format!("d{mode:o}"))).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode);
    }
    for mode in [0o0200, 0o4755] {
        if let Ok(metadata) = fs::metadata(path.join(format!("d0/f{mode:o}"))) {
            assert_eq!(metadata.mode() & 0o7777, mode);
        }
    }
    store.verify(id).unwrap();
    drop(store);
    // Sound when looked at again.
    let inode = fs::metadata(&path).unwrap().ino();
    let store = open(&cache);
    assert_eq!(
        fs::metadata(store.tree(id).unwrap().path()).unwrap().ino(),
        inode
    );
    drop(store);
    let eviction = open_small(&cache, 0).evict().unwrap();
    assert_eq!(eviction.layers, 1);
    assert_eq!(count(&content(&cache, "trees")), 0);
    assert_eq!(kept_files(&cache), 0);
}

#[test]
fn permissions_of_all_kinds() {
    let dir = tempfile::tempdir().unwrap();
    odd_modes(dir.path());
    let unprivileged = tempfile::tempdir().unwrap();
    if let Some(command) = as_nobody("modes", unprivileged.path()) {
        run(command);
    }
}

#[test]
fn a_cache_that_cannot_be_written_to() {
    let dir = tempfile::tempdir().unwrap();
    if let Some(command) = as_nobody("read-only", dir.path()) {
        let cache = dir.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, PermissionsExt::from_mode(0o555)).unwrap();
        run(command);
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, StoreOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("create the directory") && error.contains("file"),
        "{error}"
    );
}

/// A helper run by a user who is not root; `None` if that cannot be had.
fn as_nobody(name: &str, dir: &Path) -> Option<Command> {
    let mut command = helper(name, dir);
    if rustix::process::getuid().is_root() {
        const NOBODY: u32 = 65534;
        command.uid(NOBODY).gid(NOBODY);
        std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
        // The test itself may lie where others cannot look.
        let test = dir.join("test");
        fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
        let mut copied = Command::new(test);
        copied
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .current_dir(dir)
            .uid(NOBODY)
            .gid(NOBODY);
        return Some(copied);
    }
    Some(command)
}

fn full_disk(dir: &Path) {
    let cache = dir.join("small/cache");
    let source = dir.join("project-0");
    let store = open(&cache);
    let small = store.layer().add_bytes("a", "a", 0o644).finish().unwrap();
    for attempt in 0..3 {
        let error = store.layer().add_tree("/", &source).finish().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("No space left on device"),
            "{attempt}: {text}"
        );
        assert!(
            text.contains("make room there") && text.contains("project-0"),
            "{text}"
        );
    }
    // What was there still is, and room that is made is used.
    store.tree(small).unwrap();
    store.verify(small).unwrap();
    fs::write(source.join("d3/f3"), "smaller").unwrap();
    let id = store.layer().add_tree("/", &source).finish().unwrap();
    assert_eq!(snapshot(store.tree(id).unwrap().path()), snapshot(&source));
}

#[test]
fn a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    project(dir, 20, 0);
    fs::create_dir(dir.join("small")).unwrap();
    let inner = helper("full", dir);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"")
        .arg(dir.join("small"))
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare:") || errors.contains("mount:") {
        eprintln!("skipped: no mounts in user namespaces here: {errors}");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("helper done"),
        "{text}{errors}"
    );
}
