//! What a store promises, through its public face.

mod fixture;

use fixture::{content, open, project, snapshot};
use maelstrom_content::{LayerId, StoreError};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

fn write(path: &Path, bytes: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn small_project(root: &Path) {
    write(&root.join("a"), "contents of a");
    write(&root.join("d/b"), "contents of b");
    write(&root.join("d/e/c"), "");
    fs::set_permissions(root.join("d/b"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../a", root.join("d/link")).unwrap();
}

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("project");
    small_project(&source);
    let store = open(&dir.path().join("cache"));
    let id = store.layer().add_tree("/top", &source).finish().unwrap();
    let tree = store.tree(id).unwrap();
    let top = tree.path().join("top");
    assert_eq!(fs::read_to_string(top.join("a")).unwrap(), "contents of a");
    assert_eq!(
        fs::read_to_string(top.join("d/link")).unwrap(),
        "contents of a"
    );
    assert_eq!(
        fs::metadata(top.join("d/b")).unwrap().mode() & 0o7777,
        0o755
    );
    assert_eq!(
        fs::metadata(top.join("d/b")).unwrap().mtime(),
        1_704_931_200
    );
    let tag = fs::read_to_string(dir.path().join("cache/CACHEDIR.TAG")).unwrap();
    assert_eq!(tag.lines().next().unwrap().len(), 43);
}

#[test]
fn same_input_same_id() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    small_project(&one);
    small_project(&two);
    let a = open(&dir.path().join("cache-a"));
    let b = open(&dir.path().join("cache-b"));
    let id = a.layer().add_tree("/", &one).finish().unwrap();
    assert_eq!(id, b.layer().add_tree("/", &two).finish().unwrap());
    write(&two.join("d/b"), "other");
    assert_ne!(id, b.layer().add_tree("/", &two).finish().unwrap());
}

#[test]
fn unknown_layer() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path()).tree(LayerId::of(b"none")).unwrap_err();
    assert!(matches!(error, StoreError::UnknownLayer { .. }), "{error}");
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

/// One file cannot have any number of links; beyond that, there are copies.
#[test]
fn more_equal_files_than_links() {
    const FILES: usize = 66_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("cache"));
    let mut layer = store.layer();
    for index in 0..FILES {
        layer.add_bytes(format!("d{}/f{index}", index % 100), "same", 0o640);
    }
    let id = layer.finish().unwrap();
    let tree = store.tree(id).unwrap();
    for index in [0, 1, FILES / 2, FILES - 1] {
        let path = tree.path().join(format!("d{}/f{index}", index % 100));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::read(path).unwrap(), b"same");
    }
}
