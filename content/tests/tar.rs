//! Layers of tar files, good and bad.

mod fixture;

use fixture::spec::{Fixture, leaves, tar};
use maelstrom_content::EntryKind;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

enum Member<'a> {
    File(&'a str, u32, &'a [u8]),
    Directory(&'a str, u32),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Type(&'a str, u8),
}

/// A tar file that also has what the library refuses to write.
fn tar_bytes(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut header = tar::Header::new_gnu();
        let (name, contents): (&str, &[u8]) = match member {
            Member::File(name, mode, contents) => {
                header.set_mode(*mode);
                (name, contents)
            }
            Member::Directory(name, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                (name, b"")
            }
            Member::Symlink(name, target) | Member::Hardlink(name, target) => {
                header.set_entry_type(match member {
                    Member::Symlink(..) => tar::EntryType::Symlink,
                    _ => tar::EntryType::Link,
                });
                header.set_mode(0o777);
                header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
                (name, b"")
            }
            Member::Type(name, code) => {
                header.set_entry_type(tar::EntryType::new(*code));
                header.set_mode(0o644);
                (name, b"")
            }
        };
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_mtime(1_600_000_000);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn tar_files() {
    let f = Fixture::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let mut builder = tar::Builder::new(tar_bytes(&[
        Member::Directory("./", 0o700),
        Member::Directory("./d/", 0o2755),
        Member::File("./d/prog", 0o755, b"#!/bin/sh\n"),
        Member::File("/absolute", 0o600, b"x"),
        Member::Symlink("link", "/d/prog"),
        Member::Hardlink("hard", "./d/prog"),
        Member::File("d/prog2", 0o644, &[7; 300_000]),
        Member::Symlink("lib", "usr/lib"),
        Member::File("lib/x", 0o644, b"x"),
        Member::Type("dev/null", b'3'),
    ]));
    // Drop the end mark, so that more can follow.
    let length = builder.get_ref().len() - 1024;
    builder.get_mut().truncate(length);
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, &long, b"long".as_slice())
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    f.write("plain.tar", &bytes);
    let id = f.store.build(&tar("plain.tar"), &f.context).unwrap();
    let manifest = f.store.manifest(id).unwrap();
    assert_eq!(
        leaves(&manifest),
        [
            "/absolute".to_owned(),
            "/d/prog".into(),
            "/d/prog2".into(),
            format!("/{long}"),
            "/dev/null".into(),
            "/hard".into(),
            "/lib -> usr/lib".into(),
            "/link -> /d/prog".into(),
            "/usr/lib/x".into(),
        ]
    );
    assert_eq!(manifest.get("d").unwrap().mode, 0o2755);
    assert_eq!(
        manifest.get("d/prog").unwrap().modified.seconds,
        1_600_000_000
    );
    let tree = f.store.tree(id).unwrap();
    assert_eq!(fs::read(tree.path().join("d/prog2")).unwrap(), [7; 300_000]);
    assert_eq!(fs::read(tree.path().join("hard")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read(tree.path().join(&long)).unwrap(), b"long");

    // However it is packed.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &bytes).unwrap();
    f.write("packed.tar.gz", packed.finish().unwrap());
    f.write(
        "packed.tar.zst",
        zstd::encode_all(bytes.as_slice(), 1).unwrap(),
    );
    for name in ["packed.tar.gz", "packed.tar.zst"] {
        assert_eq!(f.store.build(&tar(name), &f.context).unwrap(), id, "{name}");
    }

    // Unchanged: remembered. Changed: noticed.
    assert_eq!(f.store.build(&tar("plain.tar"), &f.context).unwrap(), id);
    f.write("plain.tar", tar_bytes(&[]));
    assert!(leaves(&f.build(tar("plain.tar"))).is_empty());
}

#[test]
fn tar_files_are_looked_for_here_first() {
    let mut f = Fixture::new();
    f.write("x.tar", tar_bytes(&[Member::File("project", 0o644, b"")]));
    f.context.current_dir = f.path("sub");
    fs::create_dir(&f.context.current_dir).unwrap();
    assert_eq!(leaves(&f.build(tar("x.tar"))), ["/project"]);
    f.write("sub/x.tar", tar_bytes(&[Member::File("here", 0o644, b"")]));
    assert_eq!(leaves(&f.build(tar("x.tar"))), ["/here"]);
}

#[test]
fn broken_tar_files() {
    let f = Fixture::new();
    let good = tar_bytes(&[Member::File("name", 0o644, &[1; 2000])]);
    let mut damaged = good.clone();
    damaged[100] ^= 0xff;
    let file = |name| tar_bytes(&[Member::File(name, 0o644, b"x")]);
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("noise", vec![b'x'; 5000], "is no tar file"),
        ("damaged", damaged, "is no tar file"),
        ("cut-header", good[..100].to_vec(), "is no tar file"),
        ("cut", good[..1500].to_vec(), "entry `name`: is cut off"),
        (
            "escape",
            file("a/../../etc/passwd"),
            "entry `a/../../etc/passwd`: its path leads out",
        ),
        ("escape2", file("../x"), "entry `../x`: its path leads out"),
        (
            "fifo",
            tar_bytes(&[Member::Type("p", b'6')]),
            "entry `p`: is a named pipe",
        ),
        (
            "odd",
            tar_bytes(&[Member::Type("o", b'Q')]),
            "entry `o`: is of type 'Q'",
        ),
        (
            "hard",
            tar_bytes(&[Member::Hardlink("h", "gone")]),
            "entry `h`: is a hard link to `gone`, which does not stand before it",
        ),
        (
            "hard-out",
            tar_bytes(&[Member::Hardlink("h", "../../etc/shadow")]),
            "is a hard link out of the root directory",
        ),
        (
            "nowhere",
            tar_bytes(&[Member::Symlink("s", "")]),
            "entry `s`: is a symbolic link to nowhere",
        ),
        (
            "circle",
            tar_bytes(&[
                Member::Symlink("a", "b"),
                Member::Symlink("b", "a"),
                Member::File("a/x", 0o644, b""),
            ]),
            "too many symbolic links",
        ),
        ("xz", b"\xfd7zXZ\0 more".to_vec(), "is packed by xz"),
        (
            "gz",
            vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3],
            "is no tar file",
        ),
        (
            "zst",
            vec![0x28, 0xb5, 0x2f, 0xfd, 9, 9, 9],
            "is no tar file",
        ),
    ];
    for (name, bytes, expected) in table {
        let file = f.write(&format!("{name}.tar"), bytes);
        let error = f.error(tar(&format!("{name}.tar")));
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.contains(file.to_str().unwrap()), "{name}: {error}");
    }
    let error = f.error(tar("missing.tar"));
    assert!(
        error.contains("missing.tar") && error.contains("No such file"),
        "{error}"
    );
    // Nothing half-made stays.
    let leftovers = |dir: &Path| fs::read_dir(dir).unwrap().count();
    for process in fs::read_dir(f.dir.path().join("cache/content-1/tmp")).unwrap() {
        assert_eq!(leftovers(&process.unwrap().path()), 0);
    }
}

#[test]
fn absurd_sizes_in_tar_files() {
    let f = Fixture::new();
    let mut bytes = tar_bytes(&[Member::File("big", 0o644, b"x")]);
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_size(1 << 60);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    f.write("big.tar", &bytes);
    let error = f.error(tar("big.tar"));
    assert!(error.contains("entry `big`: is cut off"), "{error}");

    let mut header = tar::Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 60);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(512 * 3, 0);
    f.write("sparse.tar", &bytes);
    let error = f.error(tar("sparse.tar"));
    assert!(error.contains("sparse.tar"), "{error}");
}

#[test]
fn tar_files_of_the_system() {
    let f = Fixture::new();
    f.write("t/a", "x");
    f.write("t/holes", "");
    let holes = fs::File::options()
        .write(true)
        .open(f.path("t/holes"))
        .unwrap();
    holes.set_len(1 << 20).unwrap();
    fs::set_permissions(f.path("t/a"), PermissionsExt::from_mode(0o4755)).unwrap();
    for (format, sparse, works) in [
        ("gnu", true, true),
        ("pax", false, true),
        ("ustar", false, true),
        ("pax", true, false),
    ] {
        let mut command = std::process::Command::new("tar");
        command
            .arg("-C")
            .arg(&f.context.project_dir)
            .arg(format!("--format={format}"));
        if sparse {
            command.arg("--sparse");
        }
        let made = command.arg("-cf").arg(f.path("x.tar")).arg("t").output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no GNU tar here");
            return;
        }
        if works {
            let manifest = f.build(tar("x.tar"));
            assert_eq!(leaves(&manifest), ["/t/a", "/t/holes"]);
            assert_eq!(manifest.get("t/a").unwrap().mode, 0o4755);
            assert!(matches!(
                manifest.get("t/holes").unwrap().kind,
                EntryKind::File {
                    size_bytes: 1_048_576,
                    ..
                }
            ));
        } else {
            let error = f.error(tar("x.tar"));
            assert!(
                error.contains("/holes`") && error.contains("--format=gnu"),
                "{error}"
            );
        }
    }
}
