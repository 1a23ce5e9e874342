use super::*;
use proptest::prelude::*;

fn file(name: &str) -> Node {
    Node::File(FileSource::Stored {
        content: ContentHash::of(name.as_bytes()),
        size_bytes: 0,
        mode: 0o644,
        modified: Timestamp::NORMAL,
    })
}

fn link(target: &str) -> Node {
    Node::Symlink {
        target: target.as_bytes().into(),
        modified: Timestamp::NORMAL,
    }
}

fn directory(mode: u32) -> Node {
    Node::Directory(Directory::new(mode, Timestamp::NORMAL))
}

fn draft(nodes: Vec<(&str, Node)>) -> Draft {
    let mut draft = Draft::new();
    for (path, node) in nodes {
        draft.put(path.as_bytes(), node).unwrap();
    }
    draft
}

fn paths(draft: &Draft) -> Vec<String> {
    let describe = |entry: &Entry| match &entry.kind {
        EntryKind::Directory { .. } => format!("{}/ {:o}", entry.path, entry.mode),
        EntryKind::File { .. } => entry.path.to_string(),
        EntryKind::Symlink { target } => {
            format!("{} -> {}", entry.path, path::display(&target.0))
        }
        EntryKind::Whiteout => format!("{} gone", entry.path),
    };
    draft
        .manifest()
        .unwrap()
        .entries()
        .iter()
        .map(describe)
        .collect()
}

#[test]
fn parents_are_made() {
    let draft = draft(vec![("/a/b/c", file("x"))]);
    assert_eq!(paths(&draft), ["/a/ 755", "/a/b/ 755", "/a/b/c"]);
}

#[test]
fn later_replaces_earlier() {
    let made = draft(vec![("a", file("x")), ("a/b", file("y"))]);
    assert_eq!(paths(&made), ["/a/ 755", "/a/b"]);
    let made = draft(vec![("a/b", file("y")), ("a", file("x"))]);
    assert_eq!(paths(&made), ["/a"]);
    let made = draft(vec![("a/b", file("y")), ("a", directory(0o700))]);
    assert_eq!(paths(&made), ["/a/ 700", "/a/b"]);
}

#[test]
fn links_are_followed_inside_the_root() {
    let made = draft(vec![
        ("usr/lib", directory(0o755)),
        ("lib", link("usr/lib")),
        ("lib/x", file("x")),
        ("up", link("../../../etc")),
        ("up/y", file("y")),
        ("abs", link("/usr/./lib/../lib")),
        ("abs/z", file("z")),
    ]);
    assert_eq!(
        paths(&made),
        [
            "/abs -> /usr/./lib/../lib",
            "/etc/ 755",
            "/etc/y",
            "/lib -> usr/lib",
            "/up -> ../../../etc",
            "/usr/ 755",
            "/usr/lib/ 755",
            "/usr/lib/x",
            "/usr/lib/z",
        ]
    );
}

#[test]
fn circles_of_links() {
    let mut made = draft(vec![("a", link("b")), ("b", link("a"))]);
    let error = made.put(b"a/x", file("x")).unwrap_err();
    assert!(error.contains("too many symbolic links"), "{error}");
    let mut made = draft(vec![("a", link("a/a"))]);
    assert!(made.put(b"a/x", file("x")).is_err());
}

#[test]
fn the_root_itself() {
    let mut made = Draft::new();
    made.put(b"/", directory(0o700)).unwrap();
    made.put(b"./", directory(0o700)).unwrap();
    assert!(made.put(b"/", file("x")).is_err());
    assert!(made.put(b"a/..", link("x")).is_err());
    assert_eq!(paths(&made), [""; 0]);
}

#[test]
fn absurd_paths() {
    let mut made = Draft::new();
    let deep = "a/".repeat(1000);
    assert!(made.put(deep.as_bytes(), directory(0o755)).is_err());
    assert!(made.put("a".repeat(256).as_bytes(), file("x")).is_err());
    assert!(made.put(b"a\0b", file("x")).is_err());
    // Refused things leave nothing behind that could not be in a layer.
    made.manifest().unwrap();
}

proptest! {
    /// Whatever is put wherever: the result is a sound manifest, and putting never panics.
    #[test]
    fn always_a_manifest(
        nodes in prop::collection::vec(
            (prop::collection::vec("[a-c]|\\.\\.|\\.|", 0..5), 0..4u8, "[a-c./]{1,6}"),
            0..30,
        )
    ) {
        let mut made = Draft::new();
        for (names, kind, target) in nodes {
            let node = match kind {
                0 => directory(0o700),
                1 => file("x"),
                2 => link(&target),
                _ => Node::Whiteout,
            };
            let _ = made.put(names.join("/").as_bytes(), node);
        }
        made.manifest().unwrap();
    }
}
