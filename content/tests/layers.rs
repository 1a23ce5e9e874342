//! Layers of every kind but tar files, by the tables of their description.

mod fixture;

use fixture::spec::{Fixture, glob, leaves, paths, plain, stubs, trees};
use maelstrom_content::ModificationTimes;
use maelstrom_spec::{LayerSpec, PrefixOptions, SymlinkSpec};
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
};

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
