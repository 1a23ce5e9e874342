//! The protocol of Rust's test harness: listing, arguments, and the lines around a test's output.

use anyhow::{Context as _, Result, bail};
use maelstrom_runner::{
    filter::{Field, Pattern, Selection},
    runner::{Case, Tools},
};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    process::{Command, Stdio},
};

/// How a test binary is started on the client to be listed.
pub(crate) struct ListCommand<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) working_directory: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// Whether benchmarks count, which Cargo runs once each as tests.
    pub(crate) benchmarks: bool,
}

impl ListCommand<'_> {
    /// Asks the binary for its tests, and again for its ignored ones.
    pub(crate) fn run(&self, tools: &Tools) -> Result<Vec<Case>> {
        let (all, ignored) = std::thread::scope(|scope| {
            let ignored =
                scope.spawn(|| self.list(&["--list", "--format", "terse", "--ignored"], tools));
            let all = self.list(&["--list", "--format", "terse"], tools);
            (all, ignored.join())
        });
        let Ok(ignored) = ignored else {
            bail!("listing the tests of {} failed", self.binary.display())
        };
        Ok(cases(&all?, &ignored?, self.benchmarks))
    }

    fn list(&self, arguments: &[&str], tools: &Tools) -> Result<String> {
        let mut command = Command::new(self.binary);
        command
            .args(arguments)
            .current_dir(self.working_directory)
            .envs(self.environment);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let shown = || format!("{} {}", self.binary.display(), arguments.join(" "));
        let tool = tools
            .spawn(&mut command)
            .with_context(|| format!("could not list tests: starting `{}`", shown()))?;
        let output = tool
            .output()
            .with_context(|| format!("could not list tests: the output of `{}`", shown()))?;
        if !output.status.success() {
            bail!(
                "could not list tests: `{}` ended with {}\n{}",
                shown(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The tests in a terse listing of all tests and one of the ignored ones.
pub(crate) fn cases(all: &str, ignored: &str, benchmarks: bool) -> Vec<Case> {
    let ignored: HashSet<_> = parse_list(ignored, benchmarks).collect();
    parse_list(all, benchmarks)
        .map(|name| Case {
            ignored: ignored.contains(&name),
            name,
        })
        .collect()
}

/// The names in a terse listing.
fn parse_list(listing: &str, benchmarks: bool) -> impl Iterator<Item = String> {
    listing.lines().filter_map(move |line| {
        let (name, kind) = line.rsplit_once(": ")?;
        (kind == "test" || (benchmarks && kind == "benchmark")).then(|| name.to_owned())
    })
}

/// Whether a program's answer to `--list --format terse` is a listing, and not whatever a program
/// that ignores its arguments prints.
pub(crate) fn is_listing(output: &str) -> bool {
    let mut lines = output.lines().filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some()
        && lines.all(|line| line.ends_with(": test") || line.ends_with(": benchmark"))
}

/// What the arguments after `--` ask of the harness, sorted by who acts on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HarnessArguments {
    /// Passed on to every test.
    pub(crate) passed: Vec<String>,
    /// Substrings (or whole names) of which a test must have one.
    pub(crate) names: Vec<String>,
    /// Substrings (or whole names) of which a test must have none.
    pub(crate) skip: Vec<String>,
    /// Whether names must match as a whole.
    pub(crate) exact: bool,
    /// Run only ignored tests.
    pub(crate) ignored: bool,
    /// Run ignored tests too.
    pub(crate) include_ignored: bool,
    /// Show the output of tests that pass.
    pub(crate) show_output: bool,
    /// How many tests may run at once.
    pub(crate) threads: Option<usize>,
    /// List instead of running.
    pub(crate) list: bool,
}

/// Options of the harness that take their value from the next argument.
const WITH_VALUE: [&str; 6] = [
    "--logfile",
    "--color",
    "--format",
    "--shuffle-seed",
    "-Z",
    "--ensure-time",
];

impl HarnessArguments {
    /// Sorts out `arguments`, and the test name that `cargo test` takes in front of them.
    ///
    /// The runner selects tests itself and runs each by its whole name, so whatever selects tests
    /// must not reach the binaries.
    pub(crate) fn parse(test_name: Option<&str>, arguments: &[String]) -> Result<HarnessArguments> {
        let mut parsed = HarnessArguments {
            names: test_name.map(str::to_owned).into_iter().collect(),
            ..Default::default()
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| rest.next().cloned())
                    .with_context(|| format!("the test argument `{name}` needs a value"))
            };
            match name {
                "--skip" => parsed.skip.push(value()?),
                "--test-threads" => {
                    let value = value()?;
                    let threads = value.parse().ok().filter(|&threads| threads > 0);
                    let threads = threads.with_context(|| {
                        format!("the test argument `--test-threads` needs a number greater than 0, not `{value}`")
                    })?;
                    parsed.threads = Some(threads);
                }
                "--exact" => parsed.exact = true,
                "--ignored" => parsed.ignored = true,
                "--include-ignored" => parsed.include_ignored = true,
                "--nocapture" | "--no-capture" | "--show-output" => parsed.show_output = true,
                "--list" => parsed.list = true,
                _ if WITH_VALUE.contains(&name) && inline.is_none() => {
                    let value = value()?;
                    parsed.passed.extend([argument.clone(), value]);
                }
                _ if name.starts_with('-') => parsed.passed.push(argument.clone()),
                _ => parsed.names.push(argument.clone()),
            }
        }
        if parsed.ignored && parsed.include_ignored {
            bail!("the test arguments `--ignored` and `--include-ignored` exclude each other");
        }
        Ok(parsed)
    }

    /// Narrows a selection to what the arguments select.
    pub(crate) fn narrow(&self, selection: Selection) -> Selection {
        let pattern = |name: &String| {
            if self.exact {
                Pattern::equals(Field::Name, name)
            } else {
                Pattern::contains(Field::Name, name)
            }
        };
        let any = |names: &[String]| Pattern::any_of(names.iter().map(pattern));
        let named = if self.names.is_empty() {
            Pattern::all()
        } else {
            any(&self.names)
        };
        if self.names.is_empty() && self.skip.is_empty() {
            return selection;
        }
        selection.and(named.minus(any(&self.skip)))
    }

    /// The arguments of the process that runs one test.
    pub(crate) fn command_line(&self, case: &str) -> Vec<String> {
        let mut arguments = vec!["--exact".to_owned(), "--nocapture".to_owned()];
        if self.ignored {
            arguments.push("--ignored".to_owned());
        }
        if self.include_ignored {
            arguments.push("--include-ignored".to_owned());
        }
        arguments.extend(self.passed.iter().cloned());
        // A name that looks like an option would be taken for one.
        if case.starts_with('-') {
            arguments.push("--".to_owned());
        }
        arguments.push(case.to_owned());
        arguments
    }
}

/// What a test wrote to its standard output, without the lines of the harness around it.
pub(crate) fn clean_output<'a>(case: &str, output: &'a [u8]) -> &'a [u8] {
    let mut kept = output;
    let mut start = 0;
    for line in output.split_inclusive(|&byte| byte == b'\n') {
        start += line.len();
        if trim_end(line) == b"running 1 test" {
            kept = &output[start..];
            break;
        }
    }
    let last = format!("test {case} ... ");
    let mut end = kept.len();
    for line in kept.split_inclusive(|&byte| byte == b'\n').rev() {
        end -= line.len();
        if let Some(status) = line.strip_prefix(last.as_bytes()) {
            return if end == 0 && !is_status(status) {
                clean_serial_output(&kept[last.len()..])
            } else {
                &kept[..end]
            };
        }
    }
    kept
}

/// On a machine with a single processor the harness names the test before it runs, and its status
/// follows the output directly.
fn clean_serial_output(output: &[u8]) -> &[u8] {
    let end = output
        .windows(8)
        .rposition(|window| window == b"FAILED\n\n")
        .unwrap_or(output.len());
    &output[..end]
}

fn is_status(text: &[u8]) -> bool {
    let text = trim_end(text);
    [&b"ok"[..], b"FAILED", b"ignored", b"bench:"]
        .iter()
        .any(|status| text.starts_with(status))
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_runner::filter::CargoFacts;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn selects(arguments: &HarnessArguments, case: &str) -> bool {
        let facts = CargoFacts {
            case: Some(case),
            ..CargoFacts::default()
        };
        arguments
            .narrow(Selection::new(vec![], vec![]))
            .evaluate(&facts)
            .is_true()
    }

    fn parsed(test_name: Option<&str>, words: &[&str]) -> HarnessArguments {
        HarnessArguments::parse(test_name, &strings(words)).unwrap()
    }

    #[test]
    fn benchmarks_are_dropped_unless_wanted() {
        let listing = "m::t1: test\na: b: test\nm::b: benchmark\n\n3 tests, 1 benchmark\n";
        assert_eq!(
            parse_list(listing, false).collect::<Vec<_>>(),
            ["m::t1", "a: b"]
        );
        assert_eq!(
            parse_list(listing, true).collect::<Vec<_>>(),
            ["m::t1", "a: b", "m::b"]
        );
    }

    #[test]
    fn only_listings_are_listings() {
        assert!(is_listing("a: test\nb: benchmark\n"));
        for output in ["", "\n", "hello\n", "a: test\nhello\n"] {
            assert!(!is_listing(output), "{output:?}");
        }
    }

    #[test]
    fn without_arguments_all_tests_are_selected() {
        let arguments = parsed(None, &[]);
        assert!(selects(&arguments, "m::t"));
        assert_eq!(
            arguments.command_line("m::t"),
            ["--exact", "--nocapture", "m::t"]
        );
    }

    #[test]
    fn arguments_that_select_tests_do_not_reach_the_binary() {
        let arguments = parsed(
            Some("a"),
            &[
                "b",
                "--skip",
                "ab",
                "--nocapture",
                "--exact",
                "--color=never",
                "-Z",
                "x",
            ],
        );
        assert_eq!(
            arguments.command_line("b"),
            ["--exact", "--nocapture", "--color=never", "-Z", "x", "b"]
        );
        for (case, selected) in [("a", true), ("b", true), ("ab", false), ("xa", false)] {
            assert_eq!(selects(&arguments, case), selected, "{case}");
        }
        let arguments = parsed(Some("a"), &["--skip=ab"]);
        for (case, selected) in [("xa", true), ("xab", false), ("b", false)] {
            assert_eq!(selects(&arguments, case), selected, "{case}");
        }
    }

    #[test]
    fn ignored_tests_are_asked_for_by_the_binary_too() {
        assert_eq!(
            parsed(None, &["--ignored"]).command_line("t"),
            ["--exact", "--nocapture", "--ignored", "t"]
        );
        let both = HarnessArguments::parse(None, &strings(&["--ignored", "--include-ignored"]));
        assert!(both.unwrap_err().to_string().contains("exclude each other"));
    }

    #[test]
    fn threads_are_a_number() {
        assert_eq!(parsed(None, &["--test-threads=3"]).threads, Some(3));
        assert_eq!(parsed(None, &["--test-threads", "1"]).threads, Some(1));
        for bad in [
            &["--test-threads=0"][..],
            &["--test-threads", "x"],
            &["--test-threads"],
        ] {
            assert!(
                HarnessArguments::parse(None, &strings(bad)).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_harness_is_cut_away_from_output() {
        let cases: [(&str, &str); 10] = [
            (
                "\nrunning 1 test\nhello\ntest m::t ... FAILED\n\nfailures:\n",
                "hello\n",
            ),
            ("\nrunning 1 test\ntest m::t ... FAILED\n", ""),
            ("hello\n", "hello\n"),
            ("", ""),
            (
                "\nrunning 1 test\ntest m::t ... hello\nthere\nFAILED\n\nfailures:\n",
                "hello\nthere\n",
            ),
            ("\nrunning 1 test\ntest m::t ... hello", "hello"),
            ("\nrunning 1 test\naborted here", "aborted here"),
            (
                "\nrunning 1 test\ntest m::t ... inner\nx\ntest m::t ... ok\n",
                "test m::t ... inner\nx\n",
            ),
            ("running 1 test\nrunning 1 test\n", "running 1 test\n"),
            (
                "\nrunning 1 test\nno line end test m::t ... FAILED\n",
                "no line end test m::t ... FAILED\n",
            ),
        ];
        for (output, expected) in cases {
            assert_eq!(
                String::from_utf8_lossy(clean_output("m::t", output.as_bytes())),
                expected,
                "{output:?}"
            );
        }
    }

    #[test]
    fn a_program_that_cannot_be_listed_is_an_error_with_its_message() {
        let environment = BTreeMap::new();
        let command = ListCommand {
            binary: Path::new("/bin/ls"),
            working_directory: Path::new("/"),
            environment: &environment,
            benchmarks: false,
        };
        let message = command.run(&Tools::default()).unwrap_err().to_string();
        assert!(
            message.contains("/bin/ls --list --format terse"),
            "{message}"
        );
        assert!(message.contains("unrecognized option"), "{message}");
    }
}
