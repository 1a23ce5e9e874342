//! Advice for a test that failed in a container that imitates the client's machine: what it looked
//! for in vain, and the lines that put it there.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// How many things are named.
const SHOWN: usize = 8;

/// Where programs look on the off chance, and which have no business in a container.
const NOISE_PREFIXES: [&str; 23] = [
    "/dev",
    "/etc/bash.bashrc",
    "/etc/environment",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/ld.so.conf",
    "/etc/machine-id",
    "/etc/nscd.conf",
    "/etc/selinux",
    "/etc/terminfo",
    "/lib/terminfo",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/usr/lib/debug",
    "/usr/lib/locale",
    "/usr/share/locale",
    "/usr/share/locale-langpack",
    "/usr/share/terminfo",
    "/var/run",
    "/var/tmp",
];

/// The same by parts of paths.
const NOISE_PARTS: [&str; 4] = ["/gconv/", "/glibc-hwcaps/", "/LC_MESSAGES/", "/.terminfo"];

/// What advice depends on.
pub(super) struct Advice<'a> {
    /// The project directory.
    pub(super) project: &'a Path,
    /// Name of the metadata file.
    pub(super) metadata_file: &'a str,
    /// Whether there is one.
    pub(super) configured: bool,
    /// The container that the lines build on.
    pub(super) parent: &'a str,
    /// Directories of programs.
    pub(super) program_path: &'a [PathBuf],
    /// Directories that the loader searches for every program, whether they exist or not.
    pub(super) library_path: Vec<PathBuf>,
    /// What tests of this kind look for whether they need it or not.
    pub(super) is_noise: &'a dyn Fn(&Path) -> bool,
}

impl Advice<'_> {
    /// What to tell about paths that a test looked for in vain although this machine has them.
    pub(super) fn about(&self, missing: &[PathBuf]) -> Option<String> {
        let missing: Vec<&Path> = missing
            .iter()
            .map(PathBuf::as_path)
            .filter(|path| !self.is_noise(path))
            .collect();
        let mut things: Vec<(Layer, &Path)> = Vec::new();
        let mut known = BTreeSet::new();
        for &path in &missing {
            // What lies below something that is named comes with it, and of a program that is
            // there several times, one is enough.
            let comes_with = things
                .iter()
                .any(|(layer, root)| matches!(layer, Layer::Tree(_)) && path.starts_with(root));
            let better = missing.iter().any(|other| {
                other.file_name() == path.file_name()
                    && is_standard(other)
                    && !is_standard(path)
                    && self.is_program(path)
            });
            if comes_with || better {
                continue;
            }
            for layer in self.layer(path).into_iter().chain(rustup(path)) {
                if known.insert(layer.clone()) {
                    things.push((layer, path));
                }
            }
        }
        if things.is_empty() {
            return None;
        }
        things.sort();
        let more = things.len().saturating_sub(SHOWN);
        things.truncate(SHOWN);
        let mut text = String::from(
            "the test looked in vain for what this machine has and its container has not:\n",
        );
        let mut paths: Vec<&Path> = things.iter().map(|(_, path)| *path).collect();
        paths.dedup();
        for path in paths {
            let _ = writeln!(text, "    {}", path.display());
        }
        if more > 0 {
            let _ = writeln!(text, "    and {more} more");
        }
        let file = self.project.join(self.metadata_file);
        if self.configured {
            let _ = writeln!(
                text,
                "to give it that, add to its directive in {}:",
                file.display()
            );
        } else {
            let _ = writeln!(text, "to give all tests that, write {}:", file.display());
            let _ = writeln!(text, "    [[directives]]\n    parent = \"{}\"", self.parent);
        }
        let layers = elements(things.iter().map(|(layer, _)| layer));
        if let [layer] = &layers[..] {
            let _ = write!(text, "    added_layers = [{layer}]");
        } else {
            let _ = write!(
                text,
                "    added_layers = [\n        {},\n    ]",
                layers.join(",\n        ")
            );
        }
        Some(text)
    }

    /// Whether a path is that of a program that is found by its name.
    fn is_program(&self, path: &Path) -> bool {
        let executable = fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0);
        executable
            && path.parent().is_some_and(|parent| {
                self.program_path
                    .iter()
                    .any(|directory| directory == parent)
            })
    }

    fn is_noise(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        path.parent().is_none()
            || (self.is_noise)(path)
            || self.library_path.iter().any(|directory| directory == path)
            || NOISE_PARTS.iter().any(|part| text.contains(part))
            || !path.starts_with(self.project)
                && NOISE_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
    }

    fn layer(&self, path: &Path) -> Option<Layer> {
        let text = path.to_str()?;
        let metadata = fs::metadata(path).ok()?;
        if let Some(toolchain) = toolchain(path) {
            return Some(Layer::Tree(toolchain.to_str()?.to_owned()));
        }
        let relative = path.strip_prefix(self.project).ok().and_then(Path::to_str);
        if metadata.is_dir() {
            return Some(match relative {
                Some(relative) => Layer::ProjectTree(relative.to_owned()),
                None => Layer::Tree(text.to_owned()),
            });
        }
        if self.is_program(path) {
            let name = path.file_name()?;
            let first = self
                .program_path
                .iter()
                .map(|directory| directory.join(name))
                .find(|path| path.is_file())?;
            // What the user's own path has first may be a wrapper of something else.
            let same = fs::canonicalize(first).ok()? == fs::canonicalize(path).ok()?;
            if same {
                return Some(Layer::Program(name.to_str()?.to_owned()));
            }
            let directory = fs::canonicalize(path.parent()?).ok()?;
            return Some(Layer::Program(directory.join(name).to_str()?.to_owned()));
        }
        Some(match relative {
            Some(relative) => Layer::ProjectFile(relative.to_owned()),
            None => Layer::File(text.to_owned()),
        })
    }
}

/// One element of `added_layers`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Program(String),
    ProjectFile(String),
    ProjectTree(String),
    File(String),
    Tree(String),
}

/// The elements in TOML, those of one kind as one.
fn elements<'a>(layers: impl Iterator<Item = &'a Layer>) -> Vec<String> {
    let mut kinds: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for layer in layers {
        let (key, value, more) = match layer {
            Layer::Program(name) => ("programs", name, ""),
            // At their own place, wherever the project is.
            Layer::ProjectFile(path) => ("paths", path, ", canonicalize = true"),
            Layer::ProjectTree(path) => ("trees", path, ", canonicalize = true"),
            Layer::File(path) => ("paths", path, ", follow_symlinks = true"),
            Layer::Tree(path) => ("trees", path, ""),
        };
        let value = toml::Value::String(value.clone()).to_string();
        match kinds
            .iter_mut()
            .find(|kind| (kind.0, kind.1) == (key, more))
        {
            Some((_, _, values)) => values.push(value),
            None => kinds.push((key, more, vec![value])),
        }
    }
    let element = |(key, more, values): (&str, &str, Vec<String>)| {
        format!("{{ {key} = [{}]{more} }}", values.join(", "))
    };
    kinds.into_iter().map(element).collect()
}

/// Whether a program is the machine's own.
fn is_standard(path: &Path) -> bool {
    ["/bin", "/usr/bin"]
        .iter()
        .any(|directory| path.parent() == Some(Path::new(directory)))
}

/// What a program of Rust needs that is really rustup, which hands over to a toolchain.
fn rustup(program: &Path) -> Vec<Layer> {
    let dispatches =
        fs::canonicalize(program).is_ok_and(|path| path.file_name() == Some("rustup".as_ref()));
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".rustup")));
    let (true, Some(home), Some(name)) = (dispatches, home, std::env::var_os("RUSTUP_TOOLCHAIN"))
    else {
        return Vec::new();
    };
    let toolchain = home.join("toolchains").join(name);
    let settings = home.join("settings.toml");
    let mut layers = Vec::new();
    if let (true, Some(path)) = (toolchain.is_dir(), toolchain.to_str()) {
        layers.push(Layer::Tree(path.to_owned()));
    }
    if let (true, Some(path)) = (settings.is_file(), settings.to_str()) {
        layers.push(Layer::File(path.to_owned()));
    }
    layers
}

/// The toolchain that a path is in: none of its files works alone.
fn toolchain(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| {
        ancestor
            .parent()
            .is_some_and(|parent| parent.ends_with(".rustup/toolchains"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice<'a>(project: &'a Path, configured: bool, program_path: &'a [PathBuf]) -> Advice<'a> {
        Advice {
            project,
            metadata_file: "cargo-maelstrom.toml",
            configured,
            parent: "cargo-test",
            program_path,
            library_path: vec!["/usr/share".into()],
            is_noise: &|_| false,
        }
    }

    #[test]
    fn noise_is_not_worth_a_word() {
        let missing = [
            "/proc/self/foo",
            "/usr/share",
            "/etc/ld.so.preload",
            "/usr/lib/locale/C.utf8",
            "/",
        ]
        .map(PathBuf::from);
        assert_eq!(advice(Path::new("/p"), false, &[]).about(&missing), None);
    }

    #[test]
    fn the_lines_parse_and_name_what_is_missing() {
        let temp = tempfile::tempdir().unwrap();
        let project = temp.path();
        let bin = project.join("bin");
        fs::create_dir_all(project.join("data \"x\"")).unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("tool"), "").unwrap();
        fs::set_permissions(bin.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(project.join(".env"), "").unwrap();
        let missing = [
            project.join("data \"x\""),
            bin.join("tool"),
            project.join(".env"),
            project.join(".env"),
            project.join("gone"),
        ];
        let text = advice(project, false, std::slice::from_ref(&bin))
            .about(&missing)
            .unwrap();
        let (told, lines) = text.split_once("cargo-maelstrom.toml:\n").unwrap();
        assert!(
            told.contains("bin/tool\n") && !told.contains("gone"),
            "{told}"
        );
        let table: toml::Table = lines.parse().unwrap();
        let expected = "[[directives]]\nparent = 'cargo-test'\nadded_layers = [\n{ programs = ['tool'] },\n{ paths = ['.env'], canonicalize = true },\n{ trees = ['data \"x\"'], canonicalize = true }]";
        assert_eq!(table, expected.parse().unwrap());
        let text = advice(project, true, &[]).about(&missing[2..3]).unwrap();
        assert!(
            text.ends_with("    added_layers = [{ paths = [\".env\"], canonicalize = true }]"),
            "{text}"
        );
        assert!(!text.contains("parent"));
    }

    #[test]
    fn toolchains_come_whole() {
        let path = Path::new("/home/u/.rustup/toolchains/stable/lib/rustlib/x");
        assert_eq!(
            toolchain(path),
            Some(Path::new("/home/u/.rustup/toolchains/stable"))
        );
        assert_eq!(toolchain(Path::new("/usr/lib")), None);
    }
}
