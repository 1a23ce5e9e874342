//! Small Python projects, an environment with pytest, and running the built program on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};
use tempfile::TempDir;

/// A project in a directory of its own.
pub(crate) struct Project(TempDir);

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A virtual environment with pytest, made once and kept below the target directory.
pub(crate) fn environment() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv-1");
        if !place.join("complete").exists() {
            let _ = fs::remove_dir_all(&place);
            succeed(Command::new("python3").args(["-m", "venv"]).arg(&place));
            succeed(
                Command::new(place.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                    ])
                    .args(["pytest", "pytest-xdist"]),
            );
            fs::write(place.join("complete"), "").unwrap();
        }
        place
    })
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
        let temp = tempfile::Builder::new()
            .prefix("maelstrom-pytest")
            .tempdir()
            .unwrap();
        let project = Project(temp);
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

    /// A program with these arguments, in the environment with pytest.
    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.0.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let ours = ["MAELSTROM_", "PYTEST_", "PYTHON", "CARGO"];
            if ours.iter().any(|start| name.starts_with(start)) {
                command.env_remove(name);
            }
        }
        let own = environment().join("bin");
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
        let mut command = self.command(&environment().join("bin/pytest"), arguments);
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
