//! Rules and arithmetic of paths inside layers.

use std::{cmp::Ordering, fmt};

/// The longest path of an entry and the longest link target, in bytes: what Linux takes.
pub(crate) const MAX_PATH_BYTES: usize = 4095;

/// The longest component of a path, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// How many components a path may have: layers are handled with recursion on small stacks.
pub(crate) const MAX_DEPTH: usize = 128;

/// Why bytes are not the path of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathProblem {
    /// No bytes at all.
    Empty,
    /// More than 4,095 bytes.
    TooLong,
    /// A component of more than 255 bytes.
    NameTooLong,
    /// More than 128 components.
    TooDeep,
    /// A leading slash.
    Absolute,
    /// An empty component: a doubled or trailing slash.
    EmptyComponent,
    /// A component `.` or `..`.
    Dots,
    /// A zero byte.
    ZeroByte,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathProblem::Empty => "it is empty",
            PathProblem::TooLong => "it is longer than 4,095 bytes",
            PathProblem::NameTooLong => "it has a component longer than 255 bytes",
            PathProblem::TooDeep => "it has more than 128 components",
            PathProblem::Absolute => "it is absolute",
            PathProblem::EmptyComponent => "it has an empty component",
            PathProblem::Dots => "it has a component `.` or `..`",
            PathProblem::ZeroByte => "it has a zero byte",
        })
    }
}

/// Whether `path` may be the path of an entry.
pub(crate) fn check(path: &[u8]) -> Result<(), PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(PathProblem::TooLong);
    }
    if path[0] == b'/' {
        return Err(PathProblem::Absolute);
    }
    if path.contains(&0) {
        return Err(PathProblem::ZeroByte);
    }
    for (depth, name) in path.split(|byte| *byte == b'/').enumerate() {
        if depth >= MAX_DEPTH {
            return Err(PathProblem::TooDeep);
        }
        match name {
            b"" => return Err(PathProblem::EmptyComponent),
            b"." | b".." => return Err(PathProblem::Dots),
            name if name.len() > MAX_NAME_BYTES => return Err(PathProblem::NameTooLong),
            _ => {}
        }
    }
    Ok(())
}

/// What stands before the last slash.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some(&path[..slash])
}

/// Compares component by component.
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // The slash sorts before every byte that a name can have.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// The path for people: without control characters, and cut when it is absurdly long.
pub(crate) fn display(path: &[u8]) -> String {
    const MOST: usize = 300;
    let cut = &path[..path.len().min(MOST)];
    let mut text = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if path.len() > MOST {
        text.push('…');
    }
    text
}

/// The components of a destination, resolved by their text alone: empty ones and `.` are left
/// out, `..` takes one back and stays at the root, as the root directory's own `..` does.
pub(crate) fn components(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keeps_directories_together() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/c", b"a.b", b"a", b"a/b/c", b"a/b", b"b"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(
            paths,
            [
                b"a".as_slice(),
                b"a/b",
                b"a/b/c",
                b"a/c",
                b"a-b",
                b"a.b",
                b"b"
            ]
        );
    }

    #[test]
    fn paths_that_may_not_be() {
        use PathProblem::*;
        for (path, problem) in [
            ("", Empty),
            ("/a", Absolute),
            ("a//b", EmptyComponent),
            ("a/", EmptyComponent),
            (".", Dots),
            ("a/..", Dots),
            ("../a", Dots),
            ("a\0", ZeroByte),
        ] {
            assert_eq!(check(path.as_bytes()), Err(problem), "{path:?}");
        }
        assert_eq!(check(&[b'a'; 256]), Err(NameTooLong));
        assert_eq!(check(&b"a/".repeat(3000)), Err(TooLong));
        assert_eq!(check(&[b"a".as_slice(); 129].join(&b'/')), Err(TooDeep));
        assert_eq!(check(&[b"a".as_slice(); 128].join(&b'/')), Ok(()));
        for path in ["a", "a/b", "...", "a/..b", " "] {
            assert_eq!(check(path.as_bytes()), Ok(()), "{path:?}");
        }
    }

    #[test]
    fn unprintable_names_are_shown() {
        assert_eq!(display(b"a\xffb\n"), "a\\xffb\\n");
        assert_eq!(display("ü".as_bytes()), "ü");
    }

    #[test]
    fn dots_resolve_inside_the_root() {
        let join = |path: &str| {
            String::from_utf8(components(path.as_bytes()).join(b"/".as_slice())).unwrap()
        };
        assert_eq!(join("/a/./b//c/"), "a/b/c");
        assert_eq!(join("a/../b"), "b");
        assert_eq!(join("../../a"), "a");
        assert_eq!(join("/"), "");
    }
}
