//! Small Go modules, and running the built program on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};
use tempfile::TempDir;

/// A module in a directory of its own.
pub(crate) struct Module {
    _temp: TempDir,
    directory: PathBuf,
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Whether this machine has Go. If not, says that a test is left out.
pub(crate) fn has_go() -> bool {
    static HAS_GO: OnceLock<bool> = OnceLock::new();
    let has = *HAS_GO.get_or_init(|| {
        let asked = Command::new("go").arg("version").output();
        asked.is_ok_and(|output| output.status.success())
    });
    if !has {
        eprintln!("left out: Go is not installed (apt-get install golang-go)");
    }
    has
}

impl Module {
    /// An empty module.
    pub(crate) fn new() -> Module {
        let temp = tempfile::Builder::new()
            .prefix("maelstrom-go")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        let directory = temp.path().canonicalize().unwrap();
        let module = Module {
            _temp: temp,
            directory,
        };
        module.write("go.mod", "module example.com/m\n\ngo 1.21\n");
        module
    }

    /// A copy of the fixture.
    pub(crate) fn fixture() -> Module {
        let module = Module::new();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/go");
        copy(&fixture, &module.directory);
        module
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The program with these arguments in a directory of the module, both outputs piped.
    pub(crate) fn command(&self, directory: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maelstrom-go-test"));
        command.args(arguments).current_dir(self.path(directory));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAELSTROM_") {
                command.env_remove(name);
            }
        }
        command
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("XDG_CONFIG_DIRS", "/nonexistent")
            // Go says nothing of where it keeps its settings.
            .env("GOENV", "off");
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
        let mut command = self.command("", arguments);
        command.envs(variables.iter().copied());
        Run::of(&mut command)
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Run {
        let output = command.output().unwrap();
        Run {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The word at the end of the line of a test, `OK` say.
    #[track_caller]
    pub(crate) fn verdict(&self, name: &str) -> &str {
        let line = self.line(name);
        ["IGNORED", "OK", "FAIL", "TIMEOUT", "ERR"]
            .into_iter()
            .find(|word| line.contains(&format!(".{word} ")))
            .unwrap_or_else(|| panic!("{line}"))
    }

    #[track_caller]
    pub(crate) fn line(&self, name: &str) -> &str {
        let start = format!("{name}.");
        let mut lines = self.stdout.lines();
        lines
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("no line for {name}:\n{}{}", self.stdout, self.stderr))
    }

    /// The lines below that of a test.
    #[track_caller]
    pub(crate) fn below(&self, name: &str) -> Vec<&str> {
        let line = self.line(name);
        let lines = self.stdout.lines().skip_while(|found| *found != line);
        lines
            .skip(1)
            .take_while(|line| !line.is_empty() && !line.starts_with("example.com/"))
            .collect()
    }

    #[track_caller]
    pub(crate) fn has_line(&self, line: &str) {
        assert!(
            self.stdout.lines().any(|found| found == line),
            "no line {line:?}:\n{}",
            self.stdout
        );
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        if entry.file_name() == ".maelstrom-go-test" {
            continue;
        }
        let destination = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &destination);
        } else {
            fs::copy(entry.path(), destination).unwrap();
        }
    }
}
