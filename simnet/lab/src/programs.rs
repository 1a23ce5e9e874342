//! Where the programs of this project are.

use crate::LabError;
use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The file of a program of this project, to run on hosts: in the directory that `LAB_PROGRAMS`
/// names, else beside the calling program (for a test, beside the directory of tests), else built
/// there by Cargo if that is what runs the caller.
///
/// # Errors
///
/// It is nowhere and cannot be built.
pub fn program(package: &str, name: &str) -> Result<PathBuf, LabError> {
    let failed = || LabError::step(format!("finding the program {name}"));
    if let Some(directory) = std::env::var_os("LAB_PROGRAMS") {
        return Path::new(&directory)
            .join(name)
            .canonicalize()
            .map_err(failed());
    }
    let own = std::env::current_exe().map_err(failed())?;
    let mut directory = own.parent().unwrap_or(Path::new("/"));
    if directory.file_name().is_some_and(|name| name == "deps") {
        directory = directory.parent().unwrap_or(directory);
    }
    let file = directory.join(name);
    if !file.exists()
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", package, "--bin", name]);
        if directory.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        build.status().map_err(failed())?;
    }
    if file.exists() {
        return Ok(file);
    }
    let advice = format!(
        "it is not in {}; build it: cargo build -p {package}",
        directory.display()
    );
    Err(failed()(io::Error::new(io::ErrorKind::NotFound, advice)))
}
