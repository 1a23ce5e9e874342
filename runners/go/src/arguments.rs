//! The command line as users of `go test` type it. Go's flags start with one dash or two, take
//! their values with or without `=`, and some are Maelstrom's options too; they are sorted out
//! before the rest is parsed.

use anyhow::{Result, anyhow, bail};
use std::{ffi::OsString, path::PathBuf, time::Duration};

/// What Go's flags came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoFlags {
    /// For `go test -c`, as given, each one word: what is built, and how.
    pub(crate) build: Vec<String>,
    /// For every test binary.
    pub(crate) test: Vec<String>,
    /// `-run`.
    pub(crate) run: Option<String>,
    /// `-skip`.
    pub(crate) skip: Option<String>,
    /// `-list`: print the names that this matches.
    pub(crate) list: Option<String>,
    /// `-count`.
    pub(crate) count: Option<u32>,
    /// `-timeout`; zero is no limit.
    pub(crate) timeout: Option<Duration>,
    /// `-v`.
    pub(crate) verbose: bool,
    /// `-json`.
    pub(crate) json: bool,
    /// `-failfast`.
    pub(crate) fail_fast: bool,
    /// `-cover`, or a flag that means it.
    pub(crate) cover: bool,
    /// `-coverprofile`.
    pub(crate) cover_profile: Option<PathBuf>,
    /// `-outputdir`.
    pub(crate) output_directory: Option<PathBuf>,
    /// `-p`.
    pub(crate) parallel_builds: Option<u32>,
    /// `-C`: where to be before anything else.
    pub(crate) directory: Option<PathBuf>,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    /// On or off, for the build.
    BuildSwitch,
    /// With a value, for the build.
    Build,
    /// With a value, for the test binaries.
    Test,
    /// On or off, and one of our own options.
    OwnSwitch,
    /// With a value, and one of our own options.
    Own,
    /// On or off, understood here.
    Switch,
    /// With a value, understood here.
    Value,
    /// Not to be had, and why.
    Refused(&'static str),
}

const NO_BENCHMARKS: &str = "benchmarks measure the machine, which containers side by side disturb: use `go test -run='^$' -bench=...` for them";
const NO_FUZZING: &str =
    "seeds and corpora run as tests; to look for new inputs use `go test -fuzz=...`";
const NO_PROFILES: &str = "profiles of tests in containers of their own cannot be merged: use `go test` with one package, or give the test an `outputs` directive and the flag after `--`, such as `-- -test.cpuprofile=/tmp/cpu.out`";

const FLAGS: [(&str, Flag); 61] = [
    ("C", Flag::Value),
    ("a", Flag::BuildSwitch),
    ("asan", Flag::BuildSwitch),
    ("asmflags", Flag::Build),
    ("bench", Flag::Refused(NO_BENCHMARKS)),
    ("benchmem", Flag::Refused(NO_BENCHMARKS)),
    ("benchtime", Flag::Refused(NO_BENCHMARKS)),
    ("blockprofile", Flag::Refused(NO_PROFILES)),
    ("blockprofilerate", Flag::Refused(NO_PROFILES)),
    ("buildmode", Flag::Build),
    ("buildvcs", Flag::BuildSwitch),
    ("compiler", Flag::Build),
    ("count", Flag::Value),
    ("cover", Flag::Switch),
    ("covermode", Flag::Build),
    ("coverpkg", Flag::Build),
    ("coverprofile", Flag::Value),
    ("cpu", Flag::Test),
    ("cpuprofile", Flag::Refused(NO_PROFILES)),
    (
        "exec",
        Flag::Refused("every test runs in a container, and what runs it is set by directives"),
    ),
    ("failfast", Flag::Switch),
    ("fullpath", Flag::OwnSwitch),
    ("fuzz", Flag::Refused(NO_FUZZING)),
    ("fuzzminimizetime", Flag::Refused(NO_FUZZING)),
    ("fuzztime", Flag::Refused(NO_FUZZING)),
    ("gccgoflags", Flag::Build),
    ("gcflags", Flag::Build),
    ("installsuffix", Flag::Build),
    ("json", Flag::Switch),
    ("ldflags", Flag::Build),
    ("linkshared", Flag::BuildSwitch),
    ("list", Flag::Value),
    ("memprofile", Flag::Refused(NO_PROFILES)),
    ("memprofilerate", Flag::Refused(NO_PROFILES)),
    ("mod", Flag::Build),
    ("modcacherw", Flag::BuildSwitch),
    ("modfile", Flag::Build),
    ("msan", Flag::BuildSwitch),
    ("mutexprofile", Flag::Refused(NO_PROFILES)),
    ("mutexprofilefraction", Flag::Refused(NO_PROFILES)),
    (
        "o",
        Flag::Refused("test binaries are kept in the cache; to have one use `go test -c -o`"),
    ),
    ("outputdir", Flag::Value),
    ("overlay", Flag::Build),
    ("p", Flag::Value),
    ("parallel", Flag::Test),
    ("pgo", Flag::Build),
    ("pkgdir", Flag::Build),
    ("race", Flag::BuildSwitch),
    ("run", Flag::Value),
    ("short", Flag::OwnSwitch),
    ("shuffle", Flag::Test),
    ("skip", Flag::Value),
    ("tags", Flag::Build),
    ("test.v", Flag::Switch),
    ("timeout", Flag::Value),
    ("toolexec", Flag::Build),
    ("trace", Flag::Refused(NO_PROFILES)),
    ("trimpath", Flag::BuildSwitch),
    ("v", Flag::Switch),
    ("vet", Flag::Own),
    ("work", Flag::BuildSwitch),
];

impl GoFlags {
    /// Takes Go's flags out of `arguments`, which start with the program's name, and returns what
    /// is left.
    ///
    /// # Errors
    /// A flag that is used wrongly, or that cannot be had.
    pub(crate) fn take(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<(GoFlags, Vec<OsString>)> {
        let mut flags = GoFlags::default();
        let mut rest = Vec::new();
        let mut arguments = arguments.into_iter();
        rest.extend(arguments.next());
        while let Some(argument) = arguments.next() {
            let Some(text) = argument.to_str() else {
                rest.push(argument);
                continue;
            };
            match text {
                "--" => {
                    rest.push(argument);
                    rest.extend(arguments);
                    break;
                }
                "-args" | "--args" => {
                    rest.push("--".into());
                    rest.extend(arguments);
                    break;
                }
                _ => {}
            }
            let Some((name, inline, dashes, flag)) = recognise(text) else {
                rest.push(argument);
                continue;
            };
            let shown = format!("-{name}");
            let switch = || match inline {
                None => Ok(true),
                Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
                Some(other) => Err(anyhow!("{shown}={other}: expected true or false")),
            };
            match flag {
                Flag::Refused(why) => bail!("{shown} is not supported: {why}"),
                Flag::OwnSwitch => rest.push(format!("--{name}={}", switch()?).into()),
                Flag::Switch => flags.switch(name, switch()?),
                Flag::BuildSwitch => {
                    flags.build.push(match inline {
                        None => shown,
                        Some(value) => format!("{shown}={value}"),
                    });
                }
                Flag::Build | Flag::Test | Flag::Own | Flag::Value => {
                    // `--list` alone is Maelstrom's, as is `--timeout` with plain seconds.
                    if name == "list" && dashes == 2 {
                        rest.push(argument);
                        continue;
                    }
                    let value = match inline {
                        Some(value) => value.to_owned(),
                        None => arguments
                            .next()
                            .ok_or_else(|| anyhow!("{shown} needs a value"))?
                            .into_string()
                            .map_err(|value| {
                                anyhow!("{shown}: {} is not UTF-8", value.display())
                            })?,
                    };
                    match flag {
                        Flag::Own => rest.push(format!("--{name}={value}").into()),
                        Flag::Build => flags.build(name, &value),
                        Flag::Test => flags.test.push(format!("-test.{name}={value}")),
                        _ if name == "timeout" && dashes == 2 && value.parse::<u32>().is_ok() => {
                            rest.push(format!("--timeout={value}").into());
                        }
                        _ => flags.value(name, &value)?,
                    }
                }
            }
        }
        Ok((flags, rest))
    }

    fn switch(&mut self, name: &str, on: bool) {
        match name {
            "v" | "test.v" => self.verbose = on,
            "json" => self.json = on,
            "failfast" => self.fail_fast = on,
            "cover" => self.cover = on,
            _ => {}
        }
    }

    fn build(&mut self, name: &str, value: &str) {
        // Either means that coverage is wanted.
        self.cover |= matches!(name, "covermode" | "coverpkg");
        self.build.push(format!("-{name}={value}"));
    }

    fn value(&mut self, name: &str, value: &str) -> Result<()> {
        let number = || {
            value
                .parse::<u32>()
                .ok()
                .filter(|&number| number > 0)
                .ok_or_else(|| anyhow!("-{name}={value}: expected a number from 1"))
        };
        match name {
            "run" => self.run = Some(value.to_owned()),
            "skip" => self.skip = Some(value.to_owned()),
            "list" => self.list = Some(value.to_owned()),
            "count" => self.count = Some(number()?),
            "p" => self.parallel_builds = Some(number()?),
            "timeout" => {
                let duration = duration(value).ok_or_else(|| {
                    anyhow!("-timeout={value}: expected a duration such as 30s, 2m or 1h30m")
                })?;
                self.timeout = Some(duration);
            }
            "coverprofile" => {
                self.cover = true;
                self.cover_profile = Some(value.into());
            }
            "outputdir" => self.output_directory = Some(value.into()),
            "C" => self.directory = Some(value.into()),
            _ => {}
        }
        Ok(())
    }
}

/// The flag that an argument is: its name, the value after `=`, and how many dashes it has.
fn recognise(text: &str) -> Option<(&'static str, Option<&str>, usize, Flag)> {
    let (dashes, body) = match text.strip_prefix("--") {
        Some(body) => (2, body),
        None => (1, text.strip_prefix('-')?),
    };
    let (name, inline) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let known = |name: &str| FLAGS.iter().find(|(known, _)| *known == name);
    let &(name, flag) = known(name).or_else(|| known(name.strip_prefix("test.")?))?;
    // A letter after two dashes is none of Go's habits, and none of ours.
    Some((name, inline, dashes, flag))
}

/// A duration as Go writes them: `1h30m`, `1.5s`, `300ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |at| end + at);
        let unit = &rest[end..unit_end];
        seconds += number * UNITS.iter().find(|(name, _)| *name == unit)?.1;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// A duration for a Go program.
pub(crate) fn show_duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ns", duration.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(arguments: &[&str]) -> Result<(GoFlags, Vec<String>)> {
        let arguments = ["program"].iter().chain(arguments).map(OsString::from);
        let (flags, rest) = GoFlags::take(arguments)?;
        let rest = rest
            .into_iter()
            .skip(1)
            .map(|text| text.into_string().unwrap());
        Ok((flags, rest.collect()))
    }

    #[test]
    fn the_flags_are_sorted() {
        assert!(FLAGS.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn the_command_line_of_go_test_works() {
        let (flags, rest) = take(&[
            "-run",
            "TestX/sub",
            "-skip=Slow",
            "--count=3",
            "-timeout",
            "1m30s",
            "-v",
            "-short",
            "-race",
            "-tags",
            "a,b",
            "-vet=off",
            "-coverprofile=c.out",
            "-covermode",
            "count",
            "-parallel=4",
            "-test.failfast",
            "./...",
            "-i",
            "name.equals(x)",
            "-r",
            "2",
            "-t",
            "30",
            "--timeout=9",
            "--list",
            "-args",
            "-run",
            "y",
        ])
        .unwrap();
        let expected = GoFlags {
            build: ["-race", "-tags=a,b", "-covermode=count"]
                .map(str::to_owned)
                .to_vec(),
            test: vec!["-test.parallel=4".into()],
            run: Some("TestX/sub".into()),
            skip: Some("Slow".into()),
            count: Some(3),
            timeout: Some(Duration::from_secs(90)),
            verbose: true,
            fail_fast: true,
            cover: true,
            cover_profile: Some("c.out".into()),
            ..GoFlags::default()
        };
        assert_eq!(flags, expected);
        assert_eq!(
            rest,
            [
                "--short=true",
                "--vet=off",
                "./...",
                "-i",
                "name.equals(x)",
                "-r",
                "2",
                "-t",
                "30",
                "--timeout=9",
                "--list",
                "--",
                "-run",
                "y"
            ]
        );
    }

    #[test]
    fn what_cannot_be_had_says_what_to_do() {
        for (arguments, part) in [
            (&["-bench=."][..], "use `go test -run='^$' -bench"),
            (&["-fuzz", "FuzzX"], "go test -fuzz"),
            (&["-cpuprofile=x"], "outputs"),
            (&["-exec", "x"], "container"),
            (&["-run"], "needs a value"),
            (&["-count=0"], "number from 1"),
            (&["-timeout=5"], "such as 30s"),
            (&["-v=maybe"], "true or false"),
        ] {
            let message = take(arguments).unwrap_err().to_string();
            assert!(message.contains(part), "{arguments:?}: {message}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", Some(0)),
            ("10s", Some(10_000)),
            ("1.5s", Some(1500)),
            ("1h2m", Some(3_720_000)),
            ("300ms", Some(300)),
            ("", None),
            ("5", None),
            ("5x", None),
            ("s", None),
            ("-5s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
