//! What a store promises, through its public face.

use maelstrom_content::{LayerId, Store, StoreError, StoreOptions};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

fn open(root: &Path) -> Store {
    Store::open(root, StoreOptions::default()).unwrap()
}

fn write(path: &Path, bytes: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn project(root: &Path) {
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
    project(&source);
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
    project(&one);
    project(&two);
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
