//! Small Python projects, an environment with pytest, and running the built program on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};
use tempfile::TempDir;

/// A project in a directory of its own, and the environment that its tests run in.
pub(crate) struct Project(TempDir, &'static Path);

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A virtual environment with pytest, made once and kept below the target directory.
pub(crate) fn environment() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make_environment("venv-1", &["pytest", "pytest-xdist"]))
}

/// One with these packages, if it is not there.
pub(crate) fn make_environment(name: &str, packages: &[&str]) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !place.join("complete").exists() {
        let _ = fs::remove_dir_all(&place);
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&place));
        let mut install = Command::new(place.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet"]);
        succeed(install.arg("--disable-pip-version-check").args(packages));
        fs::write(place.join("complete"), "").unwrap();
    }
    place
}

/// Whether processes can be used again for other tests here. Says so if not.
pub(crate) fn can_rewind() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let can = version >= (6, 7) && cfg!(target_arch = "x86_64");
    if !can {
        println!("SKIPPED: Linux {release} cannot rewind processes (6.7 can, on x86-64)");
    }
    can
}

#[track_caller]
pub(crate) fn succeed(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Project {
    /// A project with these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Project {
        Project::with(environment(), files)
    }

    /// In another environment.
    pub(crate) fn with(environment: &'static Path, files: &[(&str, &str)]) -> Project {
        let temp = tempfile::Builder::new()
            .prefix("maelstrom-pytest")
            .tempdir()
            .unwrap();
        let project = Project(temp, environment);
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A program with these arguments, in the project's environment.
    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours = ["MAELSTROM_", "PYTEST_", "PYTHON", "CARGO"];
            // In CI hypothesis, for one, draws other examples and keeps none.
            if name == "CI" || ours.iter().any(|start| name.starts_with(start)) {
                command.env_remove(name);
            }
        }
        let own = self.1.join("bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path)));
        command
            .env("PATH", path.unwrap())
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("XDG_CONFIG_DIRS", "/nonexistent")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(&[], arguments)
    }

    /// With these variables.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
        let program = Path::new(env!("CARGO_BIN_EXE_maelstrom-pytest"));
        let mut command = self.command(program, arguments);
        command.envs(variables.iter().copied());
        Run::of(command)
    }

    pub(crate) fn run_without_path(&self, arguments: &[&str]) -> Run {
        let mut command =
            self.command(Path::new(env!("CARGO_BIN_EXE_maelstrom-pytest")), arguments);
        command.env("PATH", "/nonexistent");
        Run::of(command)
    }

    /// What plain pytest says.
    pub(crate) fn pytest(&self, arguments: &[&str]) -> Run {
        self.pytest_with(&[], arguments)
    }

    pub(crate) fn pytest_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
        let mut command = self.command(&self.1.join("bin/pytest"), arguments);
        command.envs(variables.iter().copied());
        Run::of(command)
    }
}

impl Run {
    pub(crate) fn of(mut command: Command) -> Run {
        let output = command.output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The verdict on the test of this node id.
    pub(crate) fn verdict(&self, node_id: &str) -> &str {
        let line = self.line(node_id);
        let rest = line[node_id.len()..].trim_start_matches('.');
        rest.split_whitespace().next().unwrap_or_default()
    }

    fn line(&self, node_id: &str) -> &str {
        let is_verdict = |line: &&str| {
            line.strip_prefix(node_id)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        let found = self.stdout.lines().find(is_verdict);
        found.unwrap_or_else(|| panic!("no verdict on {node_id}:\n{}{}", self.stdout, self.stderr))
    }

    /// What is shown below a verdict, up to the next one or the summary.
    pub(crate) fn below(&self, node_id: &str) -> String {
        let line = self.line(node_id);
        let file = node_id.split("::").next().unwrap();
        let verdict = |line: &&str| {
            !(line.starts_with(&format!("{file}::")) && line.contains("..")
                || line.ends_with("Test Summary ================================="))
        };
        let lines = self
            .stdout
            .lines()
            .skip_while(|other| *other != line)
            .skip(1);
        lines.take_while(verdict).collect::<Vec<_>>().join("\n")
    }
}
