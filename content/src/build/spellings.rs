//! Directories that have several names.
//!
//! Where `/bin` is a link to `/usr/bin`, a program has two paths, and both are in use. A layer
//! that had the link would hide, or be hidden by, a layer below or above that has a directory
//! `/bin`, since overlays stack path by path. So layers made from host programs and libraries
//! have only real directories, and the same file under each of its names; the files share
//! their contents on disk.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// The directories that distributions merge.
const MERGED: [&str; 12] = [
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
];

/// Which of them are the same directory: each with its real path.
static REAL: LazyLock<Vec<(&'static Path, PathBuf)>> = LazyLock::new(|| {
    MERGED
        .iter()
        .filter_map(|directory| Some((Path::new(*directory), fs::canonicalize(directory).ok()?)))
        .collect()
});

/// All absolute paths, this one first, that `path` has on this machine because of merged
/// directories.
pub(super) fn spellings(path: &Path) -> Vec<PathBuf> {
    spellings_given(path, &REAL)
}

fn spellings_given(path: &Path, real: &[(&Path, PathBuf)]) -> Vec<PathBuf> {
    let mut spellings = vec![path.to_owned()];
    let longest = real
        .iter()
        .filter(|(directory, _)| path.starts_with(directory))
        .max_by_key(|(directory, _)| directory.as_os_str().len());
    if let Some((directory, target)) = longest
        && let Ok(rest) = path.strip_prefix(directory)
    {
        for (other, other_target) in real {
            if other_target == target && other != directory {
                spellings.push(other.join(rest));
            }
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_usr() {
        let real = [
            (Path::new("/bin"), PathBuf::from("/usr/bin")),
            (Path::new("/lib"), PathBuf::from("/usr/lib")),
            (Path::new("/usr/bin"), PathBuf::from("/usr/bin")),
            (Path::new("/usr/sbin"), PathBuf::from("/usr/bin")),
            (Path::new("/usr/lib"), PathBuf::from("/usr/lib")),
        ];
        let all = |path: &str| -> Vec<String> {
            spellings_given(Path::new(path), &real)
                .into_iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(all("/bin/sh"), ["/bin/sh", "/usr/bin/sh", "/usr/sbin/sh"]);
        assert_eq!(all("/usr/lib/a/b.so"), ["/usr/lib/a/b.so", "/lib/a/b.so"]);
        assert_eq!(all("/opt/bin/sh"), ["/opt/bin/sh"]);
        assert_eq!(all("/binary"), ["/binary"]);
    }

    #[test]
    fn separate_usr() {
        let real = [
            (Path::new("/bin"), PathBuf::from("/bin")),
            (Path::new("/usr/bin"), PathBuf::from("/usr/bin")),
        ];
        assert_eq!(
            spellings_given(Path::new("/bin/sh"), &real),
            [Path::new("/bin/sh")]
        );
    }
}
