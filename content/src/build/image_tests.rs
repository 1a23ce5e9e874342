use super::*;
use crate::{EntryKind, StoreOptions};
use tar::{Builder, EntryType, Header};

/// A tar file of entries written as `dir/`, `file=text`, `link->target`, `hard=>target`, each with
/// a mode in front where it matters: `1777 tmp/`.
fn tar(entries: &[&str]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let (mode, entry) = match entry.split_once(' ') {
            Some((mode, entry)) => (u32::from_str_radix(mode, 8).unwrap(), entry),
            None => (0o644, *entry),
        };
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(1_000_000);
        if let Some((name, target)) = entry.split_once("=>") {
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        } else if let Some((name, target)) = entry.split_once("->") {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        } else if let Some((name, text)) = entry.split_once('=') {
            header.set_size(text.len() as u64);
            builder
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        } else {
            header.set_size(0);
            header.set_entry_type(if entry.ends_with('/') {
                EntryType::Directory
            } else if entry.ends_with('|') {
                EntryType::Fifo
            } else {
                EntryType::Regular
            });
            builder
                .append_data(&mut header, entry, io::empty())
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

struct Fixture {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), StoreOptions::default()).unwrap();
        Fixture {
            _directory: directory,
            store,
        }
    }

    fn try_layer(&self, below: &[LayerId], tar: &[u8]) -> Result<LayerId, LayerError> {
        let diff_id = blake3::hash(tar).to_string();
        self.store
            .build_image_layer(&diff_id, below, Path::new("l.tar"), tar)
    }

    fn layer(&self, below: &[LayerId], entries: &[&str]) -> LayerId {
        self.try_layer(below, &tar(entries)).unwrap()
    }

    /// The entries of a layer as text.
    fn show(&self, id: LayerId) -> Vec<String> {
        let manifest = self.store.manifest(id).unwrap();
        let show = |entry: &crate::Entry| {
            let path = entry.path.as_path().display();
            match &entry.kind {
                EntryKind::Directory { opaque: false } => format!("{:o} {path}/", entry.mode),
                EntryKind::Directory { opaque: true } => format!("{:o} {path}/ opaque", entry.mode),
                EntryKind::File { size_bytes, .. } => format!("{path} {size_bytes}"),
                EntryKind::Symlink { target } => {
                    format!("{path}->{}", String::from_utf8_lossy(&target.0))
                }
                EntryKind::Whiteout => format!("{path} hidden"),
            }
        };
        manifest.entries().iter().map(show).collect()
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
    let fixture = Fixture::new();
    for entries in [
        [
            "755 a/", "a/.wh.x=", "a/.wh.d=", "755 a/d/", "a/d/f=1", "a/.wh.f=", "a/f=22",
        ],
        [
            "755 a/", "755 a/d/", "a/d/f=1", "a/f=22", "a/.wh.f=", "a/.wh.d=", "a/.wh.x=",
        ],
    ] {
        let id = fixture.layer(&[], &entries);
        assert_eq!(
            fixture.show(id),
            [
                "755 a/",
                "755 a/d/ opaque",
                "a/d/f 1",
                "a/f 2",
                "a/x hidden"
            ],
        );
    }
}

#[test]
fn opaque_directories_hide_all_that_is_below_in_them() {
    let fixture = Fixture::new();
    let id = fixture.layer(
        &[],
        &["700 a/", "a/f=1", "a/.wh..wh..opq=", "b/.wh..wh..opq="],
    );
    assert_eq!(
        fixture.show(id),
        ["700 a/ opaque", "a/f 1", "755 b/ opaque"]
    );
    let id = fixture.layer(
        &[],
        &["a/.wh..wh..opq=", "700 a/", "a/f=1", ".wh..wh.plnk/1.2=x"],
    );
    assert_eq!(fixture.show(id), ["700 a/ opaque", "a/f 1"]);
}

#[test]
fn an_opaque_root_hides_every_name_below() {
    let fixture = Fixture::new();
    let below = fixture.layer(&[], &["755 a/", "a/f=1", "b=1", "c=1"]);
    let id = fixture.layer(&[below], &[".wh..wh..opq=", "700 a/", "c=22"]);
    assert_eq!(fixture.show(id), ["700 a/ opaque", "b hidden", "c 2"]);
}

#[test]
fn parents_that_are_left_out_are_as_below() {
    let fixture = Fixture::new();
    let below = fixture.layer(
        &[],
        &["1777 tmp/", "755 usr/", "700 usr/bin/", "bin->usr/bin"],
    );
    let id = fixture.layer(&[below], &["tmp/x=1", "bin/y=2", "bin/.wh.z="]);
    assert_eq!(
        fixture.show(id),
        [
            "1777 tmp/",
            "tmp/x 1",
            "755 usr/",
            "700 usr/bin/",
            "usr/bin/y 1",
            "usr/bin/z hidden"
        ],
    );
    // Not if the link below is hidden.
    let id = fixture.layer(&[below], &[".wh.bin=", "bin/y=2"]);
    assert_eq!(fixture.show(id), ["755 bin/ opaque", "bin/y 1"]);
}

#[test]
fn hard_links_may_lead_below() {
    let fixture = Fixture::new();
    let below = fixture.layer(&[], &["755 a/", "a/f=12345"]);
    let id = fixture.layer(&[below], &["755 b/", "b/g=>a/f", "b/h=>b/g"]);
    assert_eq!(fixture.show(id), ["755 b/", "b/g 5", "b/h 5"]);
    let error = fixture.try_layer(&[], &tar(&["g=>a/f"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tar file l.tar, entry `g`: is a hard link to `a/f`, which does not stand before it"
    );
}

#[test]
fn what_depends_on_the_layers_below_is_remembered_with_them() {
    let fixture = Fixture::new();
    let find = |tar: &[u8], below: &[LayerId]| {
        let diff_id = blake3::hash(tar).to_string();
        fixture.store.find_image_layer(&diff_id, below).unwrap()
    };
    let one = fixture.layer(&[], &["700 a/"]);
    let two = fixture.layer(&[], &["750 a/"]);
    let alone = tar(&["755 a/", "a/f=1"]);
    let dependent = tar(&["a/f=1"]);
    assert_eq!(find(&alone, &[]), None);
    let id = fixture.try_layer(&[one], &alone).unwrap();
    assert_eq!(find(&alone, &[]), Some(id));
    assert_eq!(find(&alone, &[two]), Some(id));
    let id = fixture.try_layer(&[one], &dependent).unwrap();
    assert_eq!(find(&dependent, &[one]), Some(id));
    assert_eq!(find(&dependent, &[two]), None);
    assert_ne!(fixture.try_layer(&[two], &dependent).unwrap(), id);
    fixture.try_layer(&[], &dependent).unwrap();
    assert_eq!(find(&dependent, &[two, one]), None);
}

#[test]
fn named_pipes_are_left_out() {
    let fixture = Fixture::new();
    let id = fixture.layer(&[], &["755 a/", "a/p|", "a/f=1"]);
    assert_eq!(fixture.show(id), ["755 a/", "a/f 1"]);
}

#[test]
fn paths_stay_in_the_root() {
    let fixture = Fixture::new();
    // The crate that writes them refuses such paths.
    let mut bytes = tar(&["xx/.wh.a=", "xx/aa=1"]);
    for at in [0, 512] {
        bytes[at..at + 2].copy_from_slice(b"..");
        let header = Header::from_byte_slice(&bytes[at..at + 512]);
        let mut header = header.clone();
        header.set_cksum();
        bytes[at..at + 512].copy_from_slice(header.as_bytes());
        let error = fixture
            .try_layer(&[], &bytes[at..])
            .unwrap_err()
            .to_string();
        assert!(error.contains("leads out of the root"), "{error}");
    }
    let id = fixture.layer(&[], &["l->../../../etc", "l/f=1"]);
    assert_eq!(fixture.show(id), ["755 etc/", "etc/f 1", "l->../../../etc"]);
}

#[test]
fn a_reader_that_fails_at_its_end_leaves_nothing_remembered() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("has another digest"))
        }
    }
    let fixture = Fixture::new();
    let bytes = tar(&["a=1"]);
    let error = fixture
        .store
        .build_image_layer("d", &[], Path::new("l.tar"), bytes.chain(Fails))
        .unwrap_err();
    assert!(error.to_string().contains("has another digest"), "{error}");
    assert_eq!(fixture.store.find_image_layer("d", &[]).unwrap(), None);
}

#[test]
fn tar_files_that_are_cut_off_are_refused() {
    let fixture = Fixture::new();
    let bytes = tar(&["a=1234", "b=1"]);
    for length in [100, 511, 514, 1300] {
        let error = fixture.try_layer(&[], &bytes[..length]).unwrap_err();
        assert!(matches!(error, LayerError::Tar { .. }), "{error}");
    }
}
