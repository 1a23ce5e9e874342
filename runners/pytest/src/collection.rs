//! Collecting: pytest itself does it, once, in the environment that the user started us in.

use crate::cli::PytestArguments;
use anyhow::{Context as _, Result, bail};
use maelstrom_runner::{
    filter::PytestFacts,
    runner::{Exit, Tools},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// Runs in the user's interpreter.
pub(crate) const SCRIPT: &str = concat!(
    include_str!("python/common.py"),
    include_str!("python/items.py"),
    include_str!("python/traces.py"),
    include_str!("python/rewritten.py"),
    include_str!("python/hypothesis_data.py"),
    include_str!("python/collect.py")
);

/// Where what this runner keeps lies, below the project.
pub(crate) const HIDDEN_DIRECTORY: &str = ".maelstrom-pytest";

/// pytest's exit code after a collection with errors that it was told to go on after.
const GOES_ON: i32 = 1;

/// How much of what a collection writes is kept, in bytes.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// What pytest collected.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Collection {
    /// Its exit code.
    pub(crate) code: i32,
    /// In the order in which pytest would run them.
    pub(crate) items: Vec<Item>,
    /// For each file what differs where these differ.
    pub(crate) fingerprints: BTreeMap<String, String>,
    /// Modules and directories that a forked process cannot take along, and why; the empty name
    /// stands for all.
    pub(crate) unfit: BTreeMap<String, String>,
    /// Functions, by the start of the node ids of their tests, of whose many tests none is selected.
    pub(crate) functions_left_out: Vec<String>,
    /// What the interpreter is made of.
    pub(crate) environment: PythonEnvironment,
    /// The directory that node ids start from.
    pub(crate) root: PathBuf,
    /// Whether pytest-xdist was told to use processes of its own.
    pub(crate) distributes: bool,
    /// Whether pytest-cov was told to measure.
    pub(crate) covers: bool,
    /// Whether pytest was told to choose or order tests by how they ended before.
    pub(crate) chooses_by_results: bool,
    /// What pytest-randomly starts random numbers from.
    pub(crate) seed: Option<String>,
}

/// A test.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Item {
    pub(crate) node_id: String,
    pub(crate) name: String,
    pub(crate) markers: Vec<String>,
    pub(crate) ignored: bool,
}

impl Item {
    /// What patterns can ask of it.
    pub(crate) fn facts<'a>(&'a self, file: &'a str) -> PytestFacts<'a> {
        PytestFacts {
            file: Some(file),
            case: Some(&self.name),
            node_id: Some(&self.node_id),
            markers: Some(&self.markers),
        }
    }
}

/// What an interpreter is made of. All paths are absolute.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct PythonEnvironment {
    pub(crate) executable: PathBuf,
    pub(crate) base_executable: PathBuf,
    pub(crate) prefix: PathBuf,
    pub(crate) base_prefix: PathBuf,
    /// Directories of the standard library.
    pub(crate) standard: Vec<PathBuf>,
    /// Directories of installed packages.
    pub(crate) sites: Vec<PathBuf>,
    /// The same of the installation that a virtual environment is based on. Used only if they are
    /// among `sites`, too.
    pub(crate) base_sites: Vec<PathBuf>,
    /// Where modules are looked for.
    pub(crate) path: Vec<PathBuf>,
    /// Directories of imported packages.
    pub(crate) trees: Vec<PathBuf>,
    /// Imported modules that are single files.
    pub(crate) files: Vec<PathBuf>,
    /// Directories of hypothesis' tables of characters.
    pub(crate) tables: Vec<PathBuf>,
    /// Directories of examples that have failed under hypothesis.
    pub(crate) examples: Vec<PathBuf>,
}

/// How a collection ended.
pub(crate) enum Ended {
    /// pytest collected something. If it was told to go on after errors, with how it ended and
    /// what it said of them.
    Collected(Box<Collection>, Option<(Exit, Vec<u8>)>),
    /// pytest ended with this code, and said this.
    Failed(Exit, Vec<u8>),
}

/// Finds the interpreter that a user who types `python` gets.
pub(crate) fn interpreter(path: Option<&OsStr>) -> Result<PathBuf> {
    let directories: Vec<PathBuf> = std::env::split_paths(path.unwrap_or_default()).collect();
    ["python", "python3"]
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|path| is_executable(path))
        .context(
            "neither `python` nor `python3` is in PATH; activate the environment that has pytest, or install Python",
        )
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Has pytest collect the tests of the project in `directory`. Modules that it has rewritten are
/// kept in `rewritten`. `watch` is told every line that pytest writes.
pub(crate) fn collect(
    interpreter: &Path,
    directory: &Path,
    rewritten: &Path,
    arguments: &PytestArguments,
    tools: &Tools,
    color: bool,
    watch: impl Fn(&[u8]) + Sync,
) -> Result<Ended> {
    let output = tempfile::NamedTempFile::new().context("creating a temporary file")?;
    let mut command = Command::new(interpreter);
    command
        .arg("-c")
        .arg(SCRIPT)
        .arg(output.path())
        .arg(rewritten);
    command.args(["--collect-only", "--quiet"]);
    command.arg(format!("--color={}", if color { "yes" } else { "no" }));
    command
        .arg("--ignore")
        .arg(directory.join(HIDDEN_DIRECTORY));
    command
        .args(&arguments.always)
        .args(&arguments.collect)
        .args(&arguments.select);
    command
        .current_dir(directory)
        .env("PYTHONHASHSEED", hash_seed())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let doing = || format!("collecting tests with {}", interpreter.display());
    let mut tool = tools.spawn(&mut command).with_context(doing)?;
    let (stdout, stderr) = (tool.stdout(), tool.stderr());
    let (stdout, stderr) = thread::scope(|scope| {
        let stderr = scope.spawn(|| stderr.map(|stream| read(stream, &watch)));
        let stdout = stdout.map(|stream| read(stream, &watch));
        let stderr = stderr
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (stdout.unwrap_or_default(), stderr.unwrap_or_default())
    });
    let status = tool.wait().with_context(doing)?;
    let text = fs::read_to_string(output.path()).with_context(doing)?;
    let said = [stdout, stderr].concat();
    if text.is_empty() {
        let said_text = String::from_utf8_lossy(&said);
        if said_text.contains("No module named 'pytest'") {
            bail!(
                "{} has no pytest; install it there (`{0} -m pip install pytest`), or activate the environment that has it",
                interpreter.display()
            );
        }
        if status.success() {
            bail!("{} ended early\n{}", doing(), said_text.trim_end());
        }
        return Ok(Ended::Failed(Exit::of_tool(status), said));
    }
    let collection: Collection = serde_json::from_str(&text)
        .with_context(|| format!("{}: reading what was collected", doing()))?;
    let exit = Exit::Code(u8::try_from(collection.code).unwrap_or(1));
    Ok(match collection.code {
        0 => Ended::Collected(Box::new(collection), None),
        GOES_ON if !collection.items.is_empty() => {
            Ended::Collected(Box::new(collection), Some((exit, said)))
        }
        _ => Ended::Failed(exit, said),
    })
}

/// The seed of string hashes, fixed so that names of tests that depend on it are the same wherever
/// tests are collected.
pub(crate) fn hash_seed() -> String {
    std::env::var("PYTHONHASHSEED").unwrap_or_else(|_| "0".to_owned())
}

fn read(mut stream: impl Read, watch: &impl Fn(&[u8])) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(count) => {
                watch(&buffer[..count]);
                if (all.len() as u64) < MAX_OUTPUT_BYTES {
                    all.extend_from_slice(&buffer[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_is_preferred_to_python3() {
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let three = make("a/python3", 0o755);
        make("a/python", 0o644);
        let path = std::env::join_paths([temp.path().join("a"), temp.path().join("b")]).unwrap();
        assert_eq!(interpreter(Some(&path)).unwrap(), three);
        let python = make("b/python", 0o755);
        assert_eq!(interpreter(Some(&path)).unwrap(), python);
        let error = interpreter(None).unwrap_err().to_string();
        assert!(error.contains("PATH"), "{error}");
    }
}
