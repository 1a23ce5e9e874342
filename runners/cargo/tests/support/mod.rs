//! Small Cargo projects, and running the built program on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A project in a directory of its own.
pub(crate) struct Project {
    temp: std::rc::Rc<TempDir>,
    directory: PathBuf,
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Project {
    /// An empty directory below the one for temporary files.
    pub(crate) fn new() -> Project {
        Project::below(&std::env::temp_dir())
    }

    /// An empty directory below the target directory.
    pub(crate) fn elsewhere() -> Project {
        Project::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    fn below(directory: &Path) -> Project {
        let temp = tempfile::Builder::new()
            .prefix("cargo-maelstrom")
            .tempdir_in(directory)
            .unwrap();
        let directory = temp.path().canonicalize().unwrap();
        Project {
            temp: temp.into(),
            directory,
        }
    }

    /// A package with a library.
    pub(crate) fn library(name: &str, source: &str) -> Project {
        Project::new().with_library(name, source)
    }

    /// The same in a directory that is there.
    pub(crate) fn with_library(self, name: &str, source: &str) -> Project {
        let project = self;
        project.write(
            "Cargo.toml",
            &format!(
                "[package]\nname = '{name}'\nversion = '0.1.0'\nedition = '2021'\n[workspace]\n"
            ),
        );
        project.write("src/lib.rs", source);
        project
    }

    /// The project in a directory below.
    pub(crate) fn at(&self, directory: &str) -> Project {
        Project {
            temp: self.temp.clone(),
            directory: self.directory.join(directory),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn git_init(&self) {
        let status = Command::new("git")
            .arg("init")
            .arg("-q")
            .current_dir(&self.directory)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The program with these arguments, both outputs piped.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-maelstrom"));
        command
            .arg("maelstrom")
            .args(arguments)
            .current_dir(&self.directory);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let for_us = name.starts_with("CARGO_") && name != "CARGO_HOME";
            if for_us || name.starts_with("RUST_") || name.starts_with("MAELSTROM_") {
                command.env_remove(name);
            }
        }
        command
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("XDG_CONFIG_DIRS", "/nonexistent");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(&[], arguments)
    }

    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
        let output = self
            .command(arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What stands in the command line of each of this project's test processes.
    pub(crate) fn marker(&self) -> String {
        self.directory
            .join("target/debug/deps")
            .to_str()
            .unwrap()
            .to_owned()
    }
}

impl Run {
    /// The lines from the one that starts so up to the next test's or the summary.
    pub(crate) fn block(&self, start: &str) -> Vec<&str> {
        let mut lines = self
            .stdout
            .lines()
            .skip_while(|line| !line.starts_with(start));
        let first = lines
            .next()
            .unwrap_or_else(|| panic!("no line starts with {start}:\n{}", self.stdout));
        let package = start.split(' ').next().unwrap();
        let rest = lines.take_while(|line| !line.is_empty() && !line.starts_with(package));
        std::iter::once(first).chain(rest).collect()
    }

    pub(crate) fn count(&self, start: &str) -> usize {
        self.stdout
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// How many processes have `text` in their command lines.
pub(crate) fn processes_with(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let matches = |path: &Path| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
    };
    processes.filter(|process| matches(&process.path())).count()
}

pub(crate) fn kill(signal: &str, process: u32) {
    let status = Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}
