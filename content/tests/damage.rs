//! What happens when someone else changes what is kept, and when sources change.

mod fixture;

use fixture::{content, open, project, snapshot};
use maelstrom_content::StoreError;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

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
