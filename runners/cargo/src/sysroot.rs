//! Where Rust's own libraries are.

use crate::workspace::cargo;
use maelstrom_runner::runner::Tools;
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A toolchain of Rust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The Cargo that runs the build.
    pub(crate) cargo: PathBuf,
    /// Directories with the shared libraries of the standard library and the compiler.
    pub(crate) libraries: Vec<PathBuf>,
    /// Its directory, if it was found.
    pub(crate) root: Option<PathBuf>,
}

impl Toolchain {
    /// Finds the toolchain of the Cargo that is used. `target` is the platform of the tests,
    /// unless that is this machine's.
    pub(crate) fn find(target: Option<&str>, tools: &Tools) -> Toolchain {
        let cargo = cargo();
        // In a toolchain, Cargo is `bin/cargo`; what is in the path may be rustup's dispatcher.
        let root = cargo
            .is_absolute()
            .then(|| cargo.parent()?.parent().map(Path::to_owned))
            .flatten()
            .filter(|root| root.join("lib/rustlib").is_dir())
            .or_else(|| ask_compiler(tools));
        let Some(root) = root else {
            return Toolchain {
                cargo: absolute(&cargo),
                ..Toolchain::default()
            };
        };
        let own = root.join("bin/cargo");
        let mut libraries: Vec<PathBuf> = fs::read_dir(root.join("lib/rustlib"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|platform| match target {
                Some(target) => platform.file_name() == *target,
                None => platform
                    .file_name()
                    .to_string_lossy()
                    .starts_with(std::env::consts::ARCH),
            })
            .map(|platform| platform.path().join("lib"))
            .filter(|directory| directory.is_dir())
            .collect();
        libraries.sort();
        libraries.push(root.join("lib"));
        Toolchain {
            cargo: if own.is_file() { own } else { absolute(&cargo) },
            libraries,
            root: Some(root),
        }
    }
}

fn ask_compiler(tools: &Tools) -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--print", "sysroot"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut tool = tools.spawn(&mut command).ok()?;
    let mut output = String::new();
    tool.stdout()?.read_to_string(&mut output).ok()?;
    tool.wait()
        .ok()?
        .success()
        .then(|| PathBuf::from(output.trim_end()))
}

/// The path of a program that is looked up.
fn absolute(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return std::path::absolute(program).unwrap_or_else(|_| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_has_its_libraries() {
        let toolchain = Toolchain::find(None, &Tools::default());
        assert!(
            toolchain.cargo.is_absolute() && toolchain.cargo.is_file(),
            "{toolchain:?}"
        );
        let root = toolchain.root.clone().unwrap();
        assert_eq!(toolchain.libraries.last(), Some(&root.join("lib")));
        assert!(toolchain.libraries.len() >= 2, "{toolchain:?}");
    }

    #[test]
    fn programs_become_absolute() {
        assert_eq!(absolute(Path::new("/x/cargo")), Path::new("/x/cargo"));
        assert!(
            absolute(Path::new("sh")).ends_with("sh") && absolute(Path::new("sh")).is_absolute()
        );
        assert_eq!(
            absolute(Path::new("no-such-program")),
            Path::new("no-such-program")
        );
    }
}
