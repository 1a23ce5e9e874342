//! Where the dynamic loader looks for libraries.

use super::elf::Machine;
use globset::GlobBuilder;
use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// How deep configuration files may include each other.
const MAX_INCLUDES: usize = 8;

/// Directories that the loader of this kind of machine searches without being told, in order.
pub(super) fn default_directories(machine: Machine, root: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(multiarch) = machine.multiarch() {
        directories.push(Path::new("lib").join(multiarch));
        directories.push(Path::new("usr/lib").join(multiarch));
    }
    let plain: &[&str] = if machine.is_64 {
        &["lib64", "usr/lib64", "lib", "usr/lib"]
    } else {
        &["lib32", "usr/lib32", "lib", "usr/lib"]
    };
    directories.extend(plain.iter().map(PathBuf::from));
    directories
        .into_iter()
        .map(|directory| root.join(directory))
        .filter(|directory| directory.is_dir())
        .collect()
}

/// Directories that the machine's configuration adds, in order: what `/etc/ld.so.cache` is
/// made from, and what musl's loader reads.
pub(super) fn configured_directories(root: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    read_glibc(root, &root.join("etc/ld.so.conf"), 0, &mut directories);
    read_musl(root, &mut directories);
    directories
}

fn read_glibc(root: &Path, path: &Path, depth: usize, directories: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read(path) else { return };
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b':'))
            .filter(|word| !word.is_empty());
        match words.next() {
            None | Some(b"hwcap") => {}
            Some(b"include") => {
                for pattern in words {
                    if depth < MAX_INCLUDES {
                        for included in matches(root, path, pattern) {
                            read_glibc(root, &included, depth + 1, directories);
                        }
                    }
                }
            }
            Some(first) => directories.extend(
                std::iter::once(first)
                    .chain(words)
                    // `DIRECTORY=TYPE` is an old form.
                    .filter_map(|word| word.split(|byte| *byte == b'=').next())
                    .filter(|word| word.starts_with(b"/"))
                    .map(|word| root.join(relative(word))),
            ),
        }
    }
}

/// `/etc/ld-musl-ARCHITECTURE.path` replaces musl's built-in list.
fn read_musl(root: &Path, directories: &mut Vec<PathBuf>) {
    let etc = root.join("etc");
    let mut found = false;
    for path in matches(root, &etc.join("x"), b"ld-musl-*.path") {
        found = true;
        if let Ok(text) = fs::read(path) {
            directories.extend(
                text.split(|byte| matches!(byte, b'\n' | b':'))
                    .filter(|word| word.starts_with(b"/"))
                    .map(|word| root.join(relative(word))),
            );
        }
    }
    if !found {
        directories.push(root.join("usr/local/lib"));
    }
}

/// The files that a pattern names; relative ones stand beside the including file. Only the
/// last component may have wildcards, as everywhere in practice.
fn matches(root: &Path, including: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let pattern = Path::new(OsStr::from_bytes(pattern));
    let path = match pattern.strip_prefix("/") {
        Ok(absolute) => root.join(absolute),
        Err(_) => including.parent().unwrap_or(root).join(pattern),
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let Some(glob) = name
        .to_str()
        .and_then(|name| GlobBuilder::new(name).literal_separator(true).build().ok())
    else {
        return Vec::new();
    };
    let matcher = glob.compile_matcher();
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|name| {
                !name.as_bytes().starts_with(b".") && matcher.is_match(Path::new(name))
            })
        })
        .collect();
    paths.sort();
    paths
}

fn relative(path: &[u8]) -> &Path {
    let path = Path::new(OsStr::from_bytes(path));
    path.strip_prefix("/").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_with_includes() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let conf = root.join("etc/ld.so.conf.d");
        fs::create_dir_all(&conf).unwrap();
        fs::write(
            root.join("etc/ld.so.conf"),
            "# comment\n/first # more\ninclude /etc/ld.so.conf.d/*.conf\n/last=libc6\n\
             include /etc/ld.so.conf\n",
        )
        .unwrap();
        fs::write(conf.join("b.conf"), "/b\n").unwrap();
        fs::write(conf.join("a.conf"), "/a1\n/a2\n").unwrap();
        fs::write(conf.join("a.txt"), "/no\n").unwrap();
        fs::write(conf.join(".hidden.conf"), "/no\n").unwrap();
        let directories = configured_directories(root);
        let first: Vec<_> = directories
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap())
            .take(5)
            .collect();
        assert_eq!(first, ["first", "a1", "a2", "b", "last"]);
    }

    #[test]
    fn musl_list() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir(root.join("etc")).unwrap();
        assert_eq!(configured_directories(root), [root.join("usr/local/lib")]);
        fs::write(root.join("etc/ld-musl-x86_64.path"), "/x:/y\n/z\n").unwrap();
        assert_eq!(
            configured_directories(root),
            [root.join("x"), root.join("y"), root.join("z")]
        );
    }
}
