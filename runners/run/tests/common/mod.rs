//! Running the built `maelstrom-run` on real jobs.

#![allow(dead_code, unreachable_pub)]

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;

/// A directory to run in, with a cache of its own.
pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Place {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// `maelstrom-run` with these arguments, untouched by the configuration of whoever tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maelstrom-run"));
        command
            .current_dir(self.directory.path())
            .args(["--config-file", "-", "--cache-root"])
            .arg(self.path("cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAELSTROM_") {
                command.env_remove(name);
            }
        }
        command
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It need not read all of it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap().into()
    }
}

/// How `maelstrom-run` ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        Ended {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    pub fn assert(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!(
            (self.code, &*self.stdout, &*self.stderr),
            (Some(code), stdout, stderr),
            "{self:?}"
        );
    }
}

/// The container `base`, in which a shell and some programs run.
pub const BASE: &str = r#"{"containers": {"base": {
    "layers": [
        {"programs": ["sh", "sleep", "cat", "id", "stty"]},
        {"stubs": ["/{tmp,proc,dev,out}/", "/dev/{null,zero}"]}
    ],
    "mounts": [{"type": "devices", "devices": ["null", "zero"]}, {"type": "tmp", "mount_point": "/tmp"}],
    "environment": {"PATH": "$env{PATH}"}
}}}"#;

/// A job in `base` that runs a shell script.
pub fn shell(script: &str, more: &str) -> String {
    let script = script.replace('\\', "\\\\").replace('"', "\\\"");
    format!(r#"{{"parent": "base", "program": "sh", "arguments": ["-c", "{script}"]{more}}}"#)
}

/// Whether a process with this word on its command line runs on this machine.
pub fn runs(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap();
    processes.flatten().any(|process| {
        let command_line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        command_line
            .split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    })
}

/// Waits until a condition holds; fails after a minute.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "waited in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
