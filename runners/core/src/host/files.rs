//! Which files of a project its tests see: what version control tracks or does not ignore.

use crate::runner::Tools;
use std::{
    ffi::OsStr,
    fs,
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Something that a test sees of its project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProjectEntry {
    /// A regular file.
    File(PathBuf),
    /// A directory, without its contents, and its permission bits.
    Directory(PathBuf, u32),
    /// A symbolic link and what it says.
    Symlink(PathBuf, PathBuf),
}

/// The directories of version control systems; nothing of them is part of a project.
const VERSION_CONTROL: [&str; 6] = [".git", ".hg", ".jj", ".svn", ".pijul", "_darcs"];

/// What tests see of the directory `root`, in the order of the paths. What lies in `excluded`
/// directories or has one of the `excluded_names`, and in directories tagged as caches, is left
/// out. Sockets, devices and files that cannot be read are left out too.
pub(super) fn entries(
    root: &Path,
    excluded: &[PathBuf],
    excluded_names: &[&'static str],
    manifests: &[&str],
    tools: &Tools,
) -> Vec<ProjectEntry> {
    let mut found = walk(root, excluded, excluded_names, true);
    // A directory that version control ignores as a whole (an unpacked package inside of some
    // other repository) is a project without version control.
    let manifests: Vec<PathBuf> = manifests
        .iter()
        .map(|name| root.join(name))
        .filter(|path| path.exists())
        .collect();
    let tracked = found.iter().any(|entry| match entry {
        ProjectEntry::File(path) => manifests.is_empty() || manifests.contains(path),
        _ => false,
    });
    if !tracked {
        found = walk(root, excluded, excluded_names, false);
    } else if in_repository(root) {
        for path in tracked_but_ignored(root, tools) {
            // Its directories may be ignored, too, and then are not there yet.
            for directory in path
                .ancestors()
                .skip(1)
                .take_while(|directory| directory.starts_with(root))
            {
                found.extend(entry(directory));
            }
            found.extend(entry(&path));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn walk(
    root: &Path,
    excluded: &[PathBuf],
    excluded_names: &[&'static str],
    honour_ignore_files: bool,
) -> Vec<ProjectEntry> {
    let excluded = excluded.to_vec();
    let excluded_names = excluded_names.to_vec();
    let top = root.to_owned();
    ignore::WalkBuilder::new(root)
        .standard_filters(false)
        .parents(honour_ignore_files)
        .git_ignore(honour_ignore_files)
        .git_global(honour_ignore_files)
        .git_exclude(honour_ignore_files)
        .require_git(true)
        .filter_entry(move |entry| {
            let path = entry.path();
            let directory = entry.file_type().is_some_and(|kind| kind.is_dir());
            let is_excluded = VERSION_CONTROL
                .iter()
                .chain(&excluded_names)
                .any(|name| entry.file_name() == *name)
                || excluded.iter().any(|excluded| path == excluded)
                || (directory && path != top && is_tagged_as_cache(path));
            !is_excluded
        })
        .build()
        .filter_map(|result| {
            result
                .inspect_err(|error| tracing::warn!("left out of the project: {error}"))
                .ok()
        })
        .filter_map(|found| entry(found.path()))
        .collect()
}

/// Whether a directory says by the cache directory tagging standard that it can be remade.
fn is_tagged_as_cache(directory: &Path) -> bool {
    const SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
    let mut start = [0; SIGNATURE.len()];
    fs::File::open(directory.join("CACHEDIR.TAG"))
        .and_then(|mut file| file.read_exact(&mut start))
        .is_ok_and(|()| start == SIGNATURE)
}

fn entry(path: &Path) -> Option<ProjectEntry> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        Some(ProjectEntry::Directory(
            path.to_owned(),
            metadata.permissions().mode() & 0o7777,
        ))
    } else if kind.is_symlink() {
        Some(ProjectEntry::Symlink(
            path.to_owned(),
            fs::read_link(path).ok()?,
        ))
    } else if kind.is_file() {
        let readable = rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok();
        readable.then(|| ProjectEntry::File(path.to_owned()))
    } else {
        None
    }
}

fn in_repository(directory: &Path) -> bool {
    directory
        .ancestors()
        .any(|ancestor| ancestor.join(".git").exists())
}

/// Files that git tracks although a rule ignores them. None where git is not installed.
fn tracked_but_ignored(root: &Path, tools: &Tools) -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--ignored",
        "--exclude-standard",
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut tool) = tools.spawn(&mut command) else {
        return Vec::new();
    };
    let mut listing = Vec::new();
    if let Some(mut stdout) = tool.stdout() {
        // What could not be read is only missing from the container.
        let _ = stdout.read_to_end(&mut listing);
    }
    let _ = tool.wait();
    listing
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| root.join(OsStr::from_bytes(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn git(root: &Path, arguments: &[&str]) {
        let status = Command::new("git")
            .arg("-C")
            .arg(root)
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The names of the files and links, relative to the root.
    fn names(root: &Path, excluded: &[PathBuf]) -> Vec<String> {
        entries(
            root,
            excluded,
            &["__pycache__"],
            &["Cargo.toml"],
            &Tools::default(),
        )
        .iter()
        .filter_map(|entry| match entry {
            ProjectEntry::File(path) | ProjectEntry::Symlink(path, _) => Some(path),
            ProjectEntry::Directory(..) => None,
        })
        .map(|path| {
            path.strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    #[test]
    fn ignored_files_are_left_out_unless_tracked() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        git(root, &["init", "-q"]);
        for name in [
            "Cargo.toml",
            ".hidden",
            "a.log",
            "kept.log",
            "deep/in/kept.log",
            "src/lib.rs",
            "target/x",
        ] {
            write(root, name, "");
        }
        write(root, ".gitignore", "*.log\ndeep\n");
        write(root, ".ignore", "src\n");
        git(root, &["add", "-f", "kept.log", "deep/in/kept.log"]);
        assert_eq!(
            names(root, &[root.join("target")]),
            [
                ".gitignore",
                ".hidden",
                ".ignore",
                "Cargo.toml",
                "deep/in/kept.log",
                "kept.log",
                "src/lib.rs"
            ]
        );
        let all = entries(root, &[], &[], &["Cargo.toml"], &Tools::default());
        for directory in ["", "deep", "deep/in"] {
            let path = root.join(directory);
            assert!(all.iter().any(|entry| matches!(entry, ProjectEntry::Directory(found, _) if found.components().eq(path.components()))), "{directory}");
        }
    }

    #[test]
    fn without_version_control_ignore_files_mean_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root, "Cargo.toml", "");
        write(root, ".gitignore", "data\n");
        write(root, "data/x", "");
        write(root, "data/__pycache__/x", "");
        write(root, "cache/x", "");
        write(
            root,
            "cache/CACHEDIR.TAG",
            "Signature: 8a477f597d28d172789f06886806bc55\n",
        );
        assert_eq!(names(root, &[]), [".gitignore", "Cargo.toml", "data/x"]);
    }

    #[test]
    fn a_project_that_an_outer_repository_ignores_is_whole() {
        let temp = tempfile::tempdir().unwrap();
        git(temp.path(), &["init", "-q"]);
        write(temp.path(), ".gitignore", "*\n");
        let root = temp.path().join("unpacked");
        write(&root, "Cargo.toml", "");
        write(&root, "src/lib.rs", "");
        assert_eq!(names(&root, &[]), ["Cargo.toml", "src/lib.rs"]);
    }

    #[test]
    fn links_stay_links_and_sockets_are_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        write(root, "Cargo.toml", "");
        symlink("nowhere", root.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let found = entries(root, &[], &[], &["Cargo.toml"], &Tools::default());
        assert!(found.contains(&ProjectEntry::Symlink(root.join("link"), "nowhere".into())));
        assert_eq!(names(root, &[]), ["Cargo.toml", "link"]);
    }
}
