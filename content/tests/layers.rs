//! Layers of every kind, by the tables of their description.

use maelstrom_content::{
    BuildContext, EntryKind, LayerError, Manifest, ModificationTimes, Store, StoreOptions,
};
use maelstrom_spec::{LayerSpec, PrefixOptions, SymlinkSpec};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
    context: BuildContext,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().canonicalize().unwrap().join("project");
        fs::create_dir(&project).unwrap();
        let options = StoreOptions::default();
        Fixture {
            store: Store::open(&dir.path().join("cache"), options).unwrap(),
            context: BuildContext {
                project_dir: project.clone(),
                current_dir: project,
                library_path: Vec::new(),
                program_path: std::env::split_paths("/usr/local/bin:/usr/bin:/bin").collect(),
            },
            dir,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.context.project_dir.join(path)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn try_build(&self, spec: LayerSpec) -> Result<Manifest, LayerError> {
        let id = self.store.build(&spec, &self.context)?;
        let manifest = self.store.manifest(id).unwrap();
        // Every layer that can be built can be unpacked.
        self.store.tree(id).unwrap();
        Ok(manifest)
    }

    fn build(&self, spec: LayerSpec) -> Manifest {
        self.try_build(spec).unwrap()
    }

    fn error(&self, spec: LayerSpec) -> String {
        self.try_build(spec).unwrap_err().to_string()
    }
}

/// All paths but those of directories that hold something.
fn leaves(manifest: &Manifest) -> Vec<String> {
    let entries = manifest.entries();
    entries
        .iter()
        .enumerate()
        .filter(|(index, entry)| {
            let next = entries.get(index + 1);
            next.is_none_or(|next| next.path.as_path().parent() != Some(entry.path.as_path()))
        })
        .map(|(_, entry)| match &entry.kind {
            EntryKind::Directory { .. } => format!("{}/", entry.path),
            EntryKind::Symlink { target } => {
                format!("{} -> {}", entry.path, String::from_utf8_lossy(&target.0))
            }
            _ => entry.path.to_string(),
        })
        .collect()
}

fn paths(paths: &[&str], prefix_options: PrefixOptions) -> LayerSpec {
    LayerSpec::Paths {
        paths: paths.iter().map(PathBuf::from).collect(),
        prefix_options,
    }
}

fn trees(trees: &[&str], prefix_options: PrefixOptions) -> LayerSpec {
    LayerSpec::Trees {
        trees: trees.iter().map(PathBuf::from).collect(),
        prefix_options,
    }
}

fn glob(glob: &str) -> LayerSpec {
    LayerSpec::Glob {
        glob: glob.into(),
        prefix_options: PrefixOptions::default(),
    }
}

fn tar(path: &str) -> LayerSpec {
    LayerSpec::Tar { path: path.into() }
}

fn stubs(stubs: &[&str]) -> LayerSpec {
    LayerSpec::Stubs {
        stubs: stubs.iter().map(ToString::to_string).collect(),
    }
}

fn plain() -> PrefixOptions {
    PrefixOptions::default()
}

#[test]
fn prefix_options() {
    let f = Fixture::new();
    f.write("a/b.bin", "x");
    f.write("ab/c", "x");
    fs::create_dir_all(f.path("var/q")).unwrap();
    f.write("var/q/f", "x");
    symlink("var/q", f.path("p")).unwrap();
    let absolute = f.write("usr/lib/l.so", "x");
    let absolute = absolute.to_str().unwrap();
    let project = f.context.project_dir.to_str().unwrap();
    let strip = |prefix: &str| PrefixOptions {
        strip_prefix: Some(prefix.into()),
        ..plain()
    };
    let prepend = |prefix: &str| PrefixOptions {
        prepend_prefix: Some(prefix.into()),
        ..plain()
    };
    let canonicalize = PrefixOptions {
        canonicalize: true,
        ..plain()
    };
    let table = [
        ("a/b.bin", plain(), "/a/b.bin".to_owned()),
        ("a/b.bin", strip("a"), "/b.bin".to_owned()),
        ("a/b.bin", strip("a/"), "/b.bin".to_owned()),
        ("ab/c", strip("a"), "/ab/c".to_owned()),
        ("a/b.bin", strip("/a"), "/a/b.bin".to_owned()),
        ("a/b.bin", prepend("x"), "/x/a/b.bin".to_owned()),
        (absolute, plain(), absolute.to_owned()),
        (absolute, prepend("/opt"), format!("/opt{absolute}")),
        (absolute, strip("usr"), absolute.to_owned()),
        (
            "a/b.bin",
            PrefixOptions {
                prepend_prefix: Some("/usr/share".into()),
                ..strip("a")
            },
            "/usr/share/b.bin".to_owned(),
        ),
        ("p/f", canonicalize.clone(), format!("{project}/var/q/f")),
        (
            "p/f",
            PrefixOptions {
                strip_prefix: Some(project.into()),
                ..canonicalize.clone()
            },
            "/var/q/f".to_owned(),
        ),
        (
            "a/b.bin",
            PrefixOptions {
                strip_prefix: Some("a".into()),
                ..canonicalize
            },
            format!("{project}/a/b.bin"),
        ),
    ];
    for (source, options, destination) in table {
        let manifest = f.build(paths(&[source], options.clone()));
        assert_eq!(leaves(&manifest), [destination], "{source} {options:?}");
    }
}

#[test]
fn paths_are_taken_as_what_they_are() {
    let f = Fixture::new();
    f.write("d/inside", "x");
    f.write("f", "x");
    symlink("f", f.path("to-file")).unwrap();
    symlink("d", f.path("to-dir")).unwrap();
    symlink("nowhere", f.path("dangling")).unwrap();
    let all = ["d", "f", "to-file", "to-dir"];
    assert_eq!(
        leaves(&f.build(paths(&all, plain()))),
        ["/d/", "/f", "/to-dir -> d", "/to-file -> f"]
    );
    let follow = PrefixOptions {
        follow_symlinks: true,
        ..plain()
    };
    assert_eq!(
        leaves(&f.build(paths(&all, follow.clone()))),
        ["/d/", "/f", "/to-dir/", "/to-file"]
    );
    assert_eq!(
        leaves(&f.build(paths(&["dangling"], plain()))),
        ["/dangling -> nowhere"]
    );
    let error = f.error(paths(&["dangling"], follow));
    assert!(
        error.contains("cannot follow the link") && error.contains("dangling"),
        "{error}"
    );
    // A path below a link is where the link leads.
    assert_eq!(
        leaves(&f.build(paths(&["to-dir", "to-dir/inside"], plain()))),
        ["/d/inside", "/to-dir -> d"]
    );
}

#[test]
fn paths_that_cannot_be() {
    let f = Fixture::new();
    let error = f.error(paths(&["not/there"], plain()));
    assert!(
        error.contains("not/there") && error.contains("No such file"),
        "{error}"
    );
    let _socket = UnixListener::bind(f.path("socket")).unwrap();
    let error = f.error(paths(&["socket"], plain()));
    assert!(error.contains("socket is a socket"), "{error}");
    let made = std::process::Command::new("mkfifo")
        .arg(f.path("pipe"))
        .status();
    if made.is_ok_and(|status| status.success()) {
        let error = f.error(paths(&["pipe"], plain()));
        assert!(error.contains("pipe is a named pipe"), "{error}");
        let error = f.error(trees(&["."], plain()));
        assert!(
            error.contains("is a named pipe") || error.contains("is a socket"),
            "{error}"
        );
        let error = f
            .store
            .layer()
            .add_file("x", f.path("pipe"))
            .finish()
            .unwrap_err();
        assert!(
            error.to_string().contains("pipe is a named pipe"),
            "{error}"
        );
    }
    let error = f.error(paths(&["/dev/null"], plain()));
    assert!(error.contains("/dev/null is a character device"), "{error}");
}

#[test]
fn globs() {
    let f = Fixture::new();
    f.write("src/a.rs", "x");
    f.write("src/deep/b.rs", "x");
    f.write("src/deep/c.txt", "x");
    f.write("top.rs", "x");
    symlink("a.rs", f.path("src/link.rs")).unwrap();
    symlink("src", f.path("linked")).unwrap();
    let table: [(&str, &[&str]); 13] = [
        (
            "*.rs",
            &[
                "/src/a.rs",
                "/src/deep/b.rs",
                "/src/link.rs -> a.rs",
                "/top.rs",
            ],
        ),
        (
            "src/*.rs",
            &["/src/a.rs", "/src/deep/b.rs", "/src/link.rs -> a.rs"],
        ),
        ("src/?.rs", &["/src/a.rs"]),
        ("src/deep", &["/src/deep/"]),
        ("src/deep/**", &["/src/deep/b.rs", "/src/deep/c.txt"]),
        ("**/c.txt", &["/src/deep/c.txt"]),
        ("{top,src/a}.rs", &["/src/a.rs", "/top.rs"]),
        ("src/[ab].rs", &["/src/a.rs"]),
        ("linked/**", &[]),
        ("linked", &["/linked -> src"]),
        ("nothing/**", &[]),
        ("top.rs/**", &[]),
        ("/src/*.rs", &[]),
    ];
    for (pattern, expected) in table {
        assert_eq!(leaves(&f.build(glob(pattern))), expected, "{pattern}");
    }
    let error = f.error(glob("a{b"));
    assert!(error.contains("`a{b` is malformed"), "{error}");
}

#[test]
fn glob_with_prefix_options() {
    let f = Fixture::new();
    f.write("src/a.rs", "x");
    let manifest = f.build(LayerSpec::Glob {
        glob: "src/**".into(),
        prefix_options: PrefixOptions {
            strip_prefix: Some("src".into()),
            prepend_prefix: Some("/opt".into()),
            ..plain()
        },
    });
    assert_eq!(leaves(&manifest), ["/opt/a.rs"]);
}

#[test]
fn whole_trees() {
    let f = Fixture::new();
    f.write("t/a", "x");
    f.write("t/d/b", "x");
    fs::create_dir(f.path("t/empty")).unwrap();
    symlink("d", f.path("t/link")).unwrap();
    symlink("t", f.path("to-t")).unwrap();
    assert_eq!(
        leaves(&f.build(trees(&["t"], plain()))),
        ["/t/a", "/t/d/b", "/t/empty/", "/t/link -> d"]
    );
    let follow = PrefixOptions {
        follow_symlinks: true,
        strip_prefix: Some("t".into()),
        ..plain()
    };
    assert_eq!(
        leaves(&f.build(trees(&["t"], follow.clone()))),
        ["/a", "/d/b", "/empty/", "/link/b"]
    );
    assert_eq!(
        leaves(&f.build(trees(&["to-t"], plain()))),
        ["/to-t/a", "/to-t/d/b", "/to-t/empty/", "/to-t/link -> d"]
    );
    symlink("..", f.path("t/d/up")).unwrap();
    f.build(trees(&["t"], plain()));
    let error = f.error(trees(&["t"], follow));
    assert!(
        error.contains("/up is a link") && error.contains("it stands in"),
        "{error}"
    );
    let error = f.error(trees(&["t/a"], plain()));
    assert!(
        error.contains("t/a is not a directory; `trees` takes"),
        "{error}"
    );
}

#[test]
fn stubs_and_symlinks() {
    let f = Fixture::new();
    let manifest = f.build(stubs(&["/dev/{null,zero,}", "{proc,tmp}/", "x/y", "/"]));
    assert_eq!(
        leaves(&manifest),
        ["/dev/null", "/dev/zero", "/proc/", "/tmp/", "/x/y"]
    );
    assert_eq!(manifest.get("dev/null").unwrap().mode, 0o444);
    assert_eq!(manifest.get("tmp").unwrap().mode, 0o555);
    assert_eq!(
        manifest.get("dev/null").unwrap().modified.seconds,
        1_704_931_200
    );
    let error = f.error(stubs(&["/dev/{null"]));
    assert!(error.contains("`/dev/{null` is malformed"), "{error}");

    let manifest = f.build(LayerSpec::Symlinks {
        symlinks: vec![SymlinkSpec {
            link: "/a/b".into(),
            target: "../not//there".into(),
        }],
    });
    assert_eq!(leaves(&manifest), ["/a/b -> ../not//there"]);
}

#[test]
fn times_are_kept_only_when_asked() {
    let f = Fixture::new();
    let file = f.write("f", "x");
    let then = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5000);
    fs::File::open(&file).unwrap().set_modified(then).unwrap();
    let spec = paths(&["f"], plain());
    let normal = f.store.build(&spec, &f.context).unwrap();
    let kept = f
        .store
        .build_with(&spec, &f.context, ModificationTimes::Keep)
        .unwrap();
    assert_ne!(normal, kept);
    let tree = f.store.tree(kept).unwrap();
    let metadata = fs::metadata(tree.path().join("f")).unwrap();
    assert_eq!(metadata.modified().unwrap(), then);
}

#[test]
fn names_that_are_not_text() {
    let f = Fixture::new();
    let name = OsStr::from_bytes(b"caf\xe9\n");
    fs::write(f.context.project_dir.join(name), "x").unwrap();
    let id = f.store.build(&trees(&["."], plain()), &f.context).unwrap();
    let tree = f.store.tree(id).unwrap();
    assert_eq!(fs::read_to_string(tree.path().join(name)).unwrap(), "x");
    assert_eq!(leaves(&f.store.manifest(id).unwrap()), ["/caf\\xe9\\n"]);
    assert_eq!(leaves(&f.build(glob("caf*"))), ["/caf\\xe9\\n"]);
}

#[test]
fn a_layer_that_exists_already() {
    let f = Fixture::new();
    let id = f.store.build(&stubs(&["a"]), &f.context).unwrap();
    let built = LayerSpec::Built { id: *id.as_bytes() };
    assert_eq!(f.store.build(&built, &f.context).unwrap(), id);
    let error = f.error(LayerSpec::Built { id: [7; 32] });
    assert!(error.contains("has no layer 0707"), "{error}");
    let error = f.error(LayerSpec::Command {
        program: "make".into(),
        arguments: vec![],
    });
    assert!(error.contains("`make`"), "{error}");
}

// Tar files.

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
