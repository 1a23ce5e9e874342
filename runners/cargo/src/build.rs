//! Building the tests with `cargo test --no-run`, and what Cargo reports meanwhile.

use crate::{options::CargoOptions, workspace::cargo};
use anyhow::{Context as _, Result};
use cargo_metadata::{Artifact, BuildScript, Message, Package};
use maelstrom_runner::runner::Tools;
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, ExitStatus, Stdio},
};

/// Something that Cargo reports while it builds.
pub(crate) enum BuildEvent {
    /// A library, binary or test was built, or was already there.
    Artifact(Artifact),
    /// A build script ran, or had run.
    BuildScript(BuildScript),
}

/// Builds the tests of `packages`, giving what is built to `on_event` as soon as it is, and each
/// line that Cargo writes to `on_line`, with its end and whether it only tells of progress. Returns
/// how Cargo ended.
pub(crate) fn build(
    options: &CargoOptions,
    packages: &[&Package],
    color: bool,
    tools: &Tools,
    mut on_event: impl FnMut(BuildEvent) -> Result<()>,
    on_line: impl FnMut(&[u8], bool) + Send,
) -> Result<ExitStatus> {
    let mut command = Command::new(cargo());
    command.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    command.arg(if color {
        "--color=always"
    } else {
        "--color=never"
    });
    command.args(options.feature_arguments());
    command.args(options.compilation_arguments());
    command.args(options.manifest_arguments());
    for package in packages {
        command.args([
            "--package",
            &format!("{}@{}", package.name, package.version),
        ]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut tool = tools
        .spawn(&mut command)
        .context("could not start `cargo test`; is Cargo installed?")?;
    let stdout = tool.stdout().context("Cargo's output is not connected")?;
    let stderr = tool
        .stderr()
        .context("Cargo's error output is not connected")?;
    std::thread::scope(|scope| {
        scope.spawn(move || read_diagnostics(stderr, on_line));
        for message in Message::parse_stream(BufReader::with_capacity(1 << 16, stdout)) {
            match message.context("reading what `cargo test` reports")? {
                Message::CompilerArtifact(artifact) => on_event(BuildEvent::Artifact(artifact))?,
                Message::BuildScriptExecuted(script) => on_event(BuildEvent::BuildScript(script))?,
                _ => {}
            }
        }
        tool.wait().context("waiting for `cargo test`")
    })
}

/// Gives each line to `on_line`, and whether it only tells of progress.
fn read_diagnostics(stderr: impl std::io::Read, mut on_line: impl FnMut(&[u8], bool)) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        let progress = is_progress(String::from_utf8_lossy(&line).trim_end());
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        on_line(&line, progress);
        line.clear();
    }
}

/// Cargo right-aligns the verb of its reports in twelve columns.
fn is_progress(line: &str) -> bool {
    let plain = without_escapes(line);
    let Some((verb, _)) = plain.trim_start().split_once(' ') else {
        return false;
    };
    let aligned = plain.len() - plain.trim_start().len() + verb.len() == 12;
    aligned
        && matches!(
            verb,
            "Compiling"
                | "Building"
                | "Blocking"
                | "Finished"
                | "Executable"
                | "Fresh"
                | "Checking"
                | "Dirty"
                | "Updating"
                | "Locking"
                | "Downloading"
                | "Downloaded"
                | "Adding"
                | "Removing"
                | "Unpacking"
        )
}

fn without_escapes(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A control sequence ends with its first letter.
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(input: &str) -> Vec<String> {
        let mut lines = Vec::new();
        read_diagnostics(input.as_bytes(), |line, progress| {
            if !progress {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
            }
        });
        lines
            .iter()
            .map(|line| line.strip_suffix('\n').unwrap().to_owned())
            .collect()
    }

    #[test]
    fn progress_is_dropped_and_diagnostics_are_kept() {
        let input = "   Compiling a v0.1.0 (/a)\nwarning: unused variable: `x`\n --> src/lib.rs:1:1\n\nwarning: `a` (lib test) generated 1 warning\n    Finished `test` profile [unoptimized + debuginfo] target(s) in 1.13s\n  Executable unittests src/lib.rs (target/debug/deps/a-1)\n";
        assert_eq!(
            kept(input),
            [
                "warning: unused variable: `x`",
                " --> src/lib.rs:1:1",
                "",
                "warning: `a` (lib test) generated 1 warning"
            ]
        );
    }

    #[test]
    fn coloured_progress_is_dropped_too() {
        let input = "\u{1b}[1m\u{1b}[92m   Compiling\u{1b}[0m a v0.1.0 (/a)\n\u{1b}[1m\u{1b}[96m    Blocking\u{1b}[0m waiting for file lock\n\u{1b}[1m\u{1b}[33mwarning\u{1b}[0m: x\n";
        assert_eq!(kept(input), ["\u{1b}[1m\u{1b}[33mwarning\u{1b}[0m: x"]);
    }

    #[test]
    fn a_diagnostic_that_starts_like_progress_is_kept() {
        assert_eq!(
            kept("Compiling is hard\nerror: x\n"),
            ["Compiling is hard", "error: x"]
        );
        assert_eq!(kept("last line without end"), ["last line without end"]);
    }
}
