//! What the user chose, as far as builds and test binaries are told of it.

use crate::{
    arguments::{self, GoFlags},
    selector::Selector,
};
use anyhow::Result;
use std::{path::PathBuf, time::Duration};

/// `go test` ends a test binary that runs longer.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// How much longer than its own limit a test binary may take to end itself, with a dump of its
/// goroutines.
const KILL_GRACE: Duration = Duration::from_secs(60);

/// For the runs of tests.
#[derive(Clone, Debug)]
pub(crate) struct TestOptions {
    /// `-run`.
    pub(crate) run: Option<Selector>,
    /// `-skip`.
    pub(crate) skip: Option<Selector>,
    /// When a test binary ends itself; zero is never.
    timeout: Duration,
    short: bool,
    full_paths: bool,
    /// Whether results are told as `go test -json` does.
    pub(crate) json: bool,
    /// For every test binary, after the others.
    extra: Vec<String>,
}

/// For the build.
#[derive(Clone, Debug, Default)]
pub(crate) struct BuildOptions {
    /// For `go test -c`.
    pub(crate) flags: Vec<String>,
    /// Packages, as given; none: all of the module.
    pub(crate) patterns: Vec<String>,
    /// Where the merged profile goes, if there is to be one.
    pub(crate) cover_profile: Option<PathBuf>,
    /// Whether coverage is measured.
    pub(crate) cover: bool,
}

impl TestOptions {
    pub(crate) fn new(
        flags: &GoFlags,
        short: bool,
        full_paths: bool,
        extra: Vec<String>,
    ) -> Result<TestOptions> {
        let selector = |flag, text: &Option<String>| {
            text.as_deref()
                .map(|text| Selector::parse(flag, text))
                .transpose()
        };
        let run = match &flags.list {
            Some(list) => Some(Selector::parse("-list", list)?),
            None => selector("-run", &flags.run)?,
        };
        Ok(TestOptions {
            run,
            skip: selector("-skip", &flags.skip)?,
            timeout: flags.timeout.unwrap_or(DEFAULT_TIMEOUT),
            short,
            full_paths,
            json: flags.json,
            extra: flags.test.iter().cloned().chain(extra).collect(),
        })
    }

    /// The arguments that run one test of a binary, as `run` selects it.
    pub(crate) fn arguments(&self, name: &str, run: String, cover: bool) -> Vec<String> {
        let mut arguments = vec![
            "-test.paniconexit0".to_owned(),
            "-test.run".to_owned(),
            run,
            format!("-test.timeout={}", arguments::show_duration(self.timeout)),
            // Marks the lines of the harness, so that nothing that a test writes is taken for one.
            if self.json {
                "-test.v=test2json"
            } else {
                "-test.v"
            }
            .to_owned(),
            format!("-test.short={}", self.short),
            format!("-test.fullpath={}", self.full_paths),
        ];
        if let Some(skip) = self.skip.as_ref().filter(|skip| skip.reaches_into(name)) {
            arguments.push(format!("-test.skip={}", skip.text()));
        }
        if cover {
            arguments.push(format!(
                "-test.coverprofile={}",
                crate::coverage::Coverage::FILE
            ));
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// When a test is killed that did not end itself.
    pub(crate) fn kill_after(&self) -> Option<Duration> {
        (!self.timeout.is_zero()).then(|| self.timeout.saturating_add(KILL_GRACE))
    }
}

impl BuildOptions {
    /// `environment_flags` are Go's `GOFLAGS`.
    pub(crate) fn flags(&self, environment_flags: &str) -> Vec<String> {
        let mut flags = self.flags.clone();
        let has = |name: &str| {
            let given = |flag: &str| flag.trim_start_matches('-').starts_with(name);
            self.flags.iter().any(|flag| given(flag)) || environment_flags.split(' ').any(given)
        };
        // What `go test` runs has no debugging information either; without it linking takes less
        // time, and layers less room.
        if !has("ldflags") {
            flags.push("-ldflags=-s -w".into());
        }
        if self.cover {
            flags.push("-cover".into());
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(flags: &[&str]) -> TestOptions {
        let flags = ["x"].iter().chain(flags).map(std::ffi::OsString::from);
        let (flags, _) = GoFlags::take(flags).unwrap();
        TestOptions::new(&flags, false, true, vec!["-extra".into()]).unwrap()
    }

    #[test]
    fn a_test_is_run_by_its_name() {
        let arguments = options(&[]).arguments("TestA", "^TestA$".into(), false);
        assert_eq!(
            arguments,
            [
                "-test.paniconexit0",
                "-test.run",
                "^TestA$",
                "-test.timeout=600s",
                "-test.v",
                "-test.short=false",
                "-test.fullpath=true",
                "-extra"
            ]
        );
        let options = options(&["-timeout=0", "-json", "-skip=A/x", "-cpu=2"]);
        assert_eq!(options.kill_after(), None);
        let arguments = options.arguments("TestA", String::new(), true);
        for argument in [
            "-test.timeout=0s",
            "-test.v=test2json",
            "-test.skip=A/x",
            "-test.coverprofile=/tmp/maelstrom-cover.out",
            "-test.cpu=2",
        ] {
            assert!(arguments.contains(&argument.to_owned()), "{arguments:?}");
        }
        let other = options.arguments("TestB", String::new(), false);
        assert!(!other.iter().any(|argument| argument.contains("skip")));
    }

    #[test]
    fn binaries_are_stripped_unless_the_user_cares() {
        let flags = |flags: &[&str], environment: &str| {
            BuildOptions {
                flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
                ..BuildOptions::default()
            }
            .flags(environment)
        };
        assert_eq!(flags(&["-race"], ""), ["-race", "-ldflags=-s -w"]);
        assert_eq!(flags(&["-ldflags=-X a=b"], ""), ["-ldflags=-X a=b"]);
        assert!(flags(&[], "-mod=mod -ldflags=-w").is_empty());
    }
}
