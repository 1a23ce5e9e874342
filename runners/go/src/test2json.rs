//! Results as `go test -json` tells them: one event a line, in the format of `go tool test2json`.
//!
//! Test binaries mark the lines of their harness, so that what a test writes is never taken for
//! one: see `-test.v=test2json`.

use crate::output::MARK;
use maelstrom_runner::ui::{TestReport, Verdict};
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One event. The fields are in Go's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event<'a> {
    time: &'a str,
    action: &'a str,
    package: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed: Option<f64>,
}

/// Tells of the tests of a round.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    packages: Mutex<HashMap<String, State>>,
}

/// A package of which tests are running.
#[derive(Debug)]
struct State {
    since: Instant,
    waited_for: usize,
    failed: bool,
    all_cached: bool,
}

impl Narrator {
    /// A package has so many tests that will be told of. Returns lines without the last end.
    pub(crate) fn package(&self, package: &str, tests: usize) -> String {
        let mut lines = Lines::new(package);
        lines.event("start", None, None, None);
        if tests == 0 {
            lines.output(
                None,
                &format!("ok  \t{package}\t0.000s [no tests to run]\n"),
            );
            lines.event("pass", None, None, Some(0.0));
        } else {
            let state = State {
                since: Instant::now(),
                waited_for: tests,
                failed: false,
                all_cached: true,
            };
            self.packages
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(package.to_owned(), state);
        }
        lines.finish()
    }

    /// A test has ended. `coverage` says what is covered of its package so far.
    pub(crate) fn test(
        &self,
        package: &str,
        name: &str,
        report: &TestReport,
        coverage: Option<String>,
    ) -> String {
        let mut lines = Lines::new(package);
        lines.test(name, report);
        let mut packages = self.packages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = packages.get_mut(package) {
            state.waited_for = state.waited_for.saturating_sub(1);
            state.failed |= report.verdict.is_failure();
            state.all_cached &= report.cached;
            if state.waited_for == 0 {
                lines.package_end(state, coverage);
                packages.remove(package);
            }
        }
        lines.finish()
    }
}

struct Lines<'a> {
    package: &'a str,
    time: String,
    text: String,
}

impl<'a> Lines<'a> {
    fn new(package: &'a str) -> Lines<'a> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Lines {
            package,
            time: rfc3339(now.unwrap_or_default()),
            text: String::new(),
        }
    }

    fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end_matches('\n').len());
        self.text
    }

    fn event(
        &mut self,
        action: &str,
        test: Option<&str>,
        output: Option<&str>,
        elapsed: Option<f64>,
    ) {
        let event = Event {
            time: &self.time,
            action,
            package: self.package,
            test: test.filter(|name| !name.is_empty()),
            output,
            elapsed,
        };
        // There is nothing in it that JSON does not have.
        self.text
            .push_str(&serde_json::to_string(&event).unwrap_or_default());
        self.text.push('\n');
    }

    fn output(&mut self, test: Option<&str>, output: &str) {
        self.event("output", test, Some(output), None);
    }

    /// Everything about one test and its subtests.
    fn test(&mut self, name: &str, report: &TestReport) {
        let stdout = String::from_utf8_lossy(&report.stdout.bytes).into_owned();
        let mut scan = Scan {
            top: name,
            current: name.to_owned(),
            pending: None,
            started: false,
            ended: false,
        };
        scan.stdout(self, &stdout);
        if !scan.started {
            scan.run(self, name.to_owned(), &format!("=== RUN   {name}\n"));
        }
        scan.flush(self);
        for line in String::from_utf8_lossy(&report.stderr.bytes).split_inclusive('\n') {
            self.output(Some(name), line);
        }
        if let Some(detail) = &report.detail {
            self.output(Some(name), &format!("{detail}\n"));
        }
        if report.verdict == Verdict::TimedOut {
            self.output(Some(name), "killed: its time was over\n");
        }
        if !scan.ended {
            let (action, word) = match report.verdict {
                Verdict::Ok => ("pass", "PASS"),
                Verdict::Ignored => ("skip", "SKIP"),
                _ => ("fail", "FAIL"),
            };
            let seconds = report.duration.unwrap_or_default().as_secs_f64();
            self.output(Some(name), &format!("--- {word}: {name} ({seconds:.2}s)\n"));
            self.event(action, Some(name), None, Some(hundredths(seconds)));
        }
    }

    fn package_end(&mut self, state: &State, coverage: Option<String>) {
        let package = self.package;
        let seconds = state.since.elapsed().as_secs_f64();
        let seconds = (seconds * 1000.0).round() / 1000.0;
        self.output(None, if state.failed { "FAIL\n" } else { "PASS\n" });
        let covered = coverage.map(|share| format!("coverage: {share}"));
        if let Some(covered) = &covered {
            self.output(None, &format!("{covered}\n"));
        }
        if state.failed {
            self.output(None, &format!("FAIL\t{package}\t{seconds:.3}s\n"));
        } else {
            let took = if state.all_cached {
                "(cached)".to_owned()
            } else {
                format!("{seconds:.3}s")
            };
            let covered = covered.map_or(String::new(), |covered| format!("\t{covered}"));
            self.output(None, &format!("ok  \t{package}\t{took}{covered}\n"));
        }
        let action = if state.failed { "fail" } else { "pass" };
        self.event(action, None, None, Some(seconds));
    }
}

/// Goes through the marked output of a test binary.
struct Scan<'a> {
    /// The test that was run.
    top: &'a str,
    /// Whose output comes next.
    current: String,
    /// A verdict whose output may not be over.
    pending: Option<(&'static str, String, f64)>,
    started: bool,
    ended: bool,
}

impl Scan<'_> {
    fn stdout(&mut self, lines: &mut Lines<'_>, stdout: &str) {
        for line in stdout.split_inclusive('\n') {
            // A test that ends without a line's end has the harness's line behind it.
            let (text, harness) = match line.split_once(MARK as char) {
                Some((text, harness)) => (text, Some(harness)),
                None => (line, None),
            };
            if !text.is_empty() {
                lines.output(Some(&self.current), text);
            }
            if let Some(harness) = harness {
                self.harness_line(lines, harness);
            }
        }
    }

    fn harness_line(&mut self, lines: &mut Lines<'_>, line: &str) {
        self.flush(lines);
        let trimmed = line.trim_end_matches('\n');
        if let Some(name) = trimmed.strip_prefix("=== RUN   ") {
            self.run(lines, name.to_owned(), line);
        } else if let Some(name) = trimmed.strip_prefix("=== NAME") {
            let name = name.trim();
            self.current = if name.is_empty() { self.top } else { name }.to_owned();
        } else if let Some(name) = trimmed.strip_prefix("=== PAUSE ") {
            lines.output(Some(name), line);
            lines.event("pause", Some(name), None, None);
        } else if let Some(name) = trimmed.strip_prefix("=== CONT  ") {
            self.current = name.to_owned();
            lines.event("cont", Some(name), None, None);
            lines.output(Some(name), line);
        } else if let Some((action, name, seconds)) = verdict(trimmed) {
            self.current = name.to_owned();
            lines.output(Some(name), line);
            self.ended |= name == self.top;
            self.pending = Some((action, name.to_owned(), seconds));
        } else if !matches!(trimmed, "PASS" | "FAIL" | "SKIP") {
            lines.output(Some(&self.current), line);
        }
    }

    fn run(&mut self, lines: &mut Lines<'_>, name: String, line: &str) {
        self.started |= name == self.top;
        lines.event("run", Some(&name), None, None);
        lines.output(Some(&name), line);
        self.current = name;
    }

    fn flush(&mut self, lines: &mut Lines<'_>) {
        if let Some((action, name, seconds)) = self.pending.take() {
            lines.event(action, Some(&name), None, Some(seconds));
        }
    }
}

/// What a line such as `    --- PASS: TestA/b (0.01s)` says.
fn verdict(line: &str) -> Option<(&'static str, &str, f64)> {
    let rest = line.trim_start_matches(' ').strip_prefix("--- ")?;
    let (word, rest) = rest.split_once(": ")?;
    let action = match word {
        "PASS" => "pass",
        "FAIL" => "fail",
        "SKIP" => "skip",
        _ => return None,
    };
    let (name, seconds) = rest.rsplit_once(" (")?;
    Some((action, name, seconds.strip_suffix("s)")?.parse().ok()?))
}

fn hundredths(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

/// A time since 1970 in UTC.
fn rfc3339(since_epoch: Duration) -> String {
    let days = since_epoch.as_secs() / 86_400;
    let second = since_epoch.as_secs() % 86_400;
    // Counted in eras of 400 years from the first of March of the year 0.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day_of_month:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since_epoch.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn report(verdict: Verdict, stdout: &str, stderr: &str) -> TestReport {
        let mut report = TestReport::ignored("x");
        report.verdict = verdict;
        report.stdout.bytes = stdout.into();
        report.stderr.bytes = stderr.into();
        report
    }

    /// Action, test and output of each line.
    fn told(lines: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line).unwrap();
                let (action, test) = (text(&value["Action"]), text(&value["Test"]));
                format!("{action} {test} {}", text(&value["Output"]).trim_end())
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn a_test_with_subtests() {
        let output = "from TestMain\n\x16=== RUN   TestA\nhello\n\x16=== RUN   TestA/b\n    a.go:1: x\npart\x16--- PASS: TestA/b (0.10s)\n\
            \x16=== NAME  TestA\n\x16--- FAIL: TestA (0.20s)\n\x16=== NAME  \n\x16FAIL\n";
        let narrator = Narrator::default();
        assert_eq!(told(&narrator.package("m", 1)), ["start"]);
        let lines = narrator.test(
            "m",
            "TestA",
            &report(Verdict::Failed, output, "err\n"),
            None,
        );
        let told = told(&lines);
        assert_eq!(
            told[..12],
            [
                "output TestA from TestMain",
                "run TestA",
                "output TestA === RUN   TestA",
                "output TestA hello",
                "run TestA/b",
                "output TestA/b === RUN   TestA/b",
                "output TestA/b     a.go:1: x",
                "output TestA/b part",
                "output TestA/b --- PASS: TestA/b (0.10s)",
                "pass TestA/b",
                "output TestA --- FAIL: TestA (0.20s)",
                "fail TestA",
            ]
        );
        assert_eq!(told[12..14], ["output TestA err", "output  FAIL"]);
        assert!(told[14].starts_with("output  FAIL\tm\t") && told[15] == "fail");
    }

    #[test]
    fn whatever_happens_a_test_begins_and_ends() {
        for (verdict, stdout, last) in [
            (Verdict::Failed, "", "fail TestA"),
            (Verdict::Failed, "\x16=== RUN   TestA\ntext", "fail TestA"),
            (Verdict::Ignored, "", "skip TestA"),
            (Verdict::TimedOut, "\x16=== RUN   TestA\n", "fail TestA"),
            (Verdict::Ok, "no marks at all\n", "pass TestA"),
        ] {
            let narrator = Narrator::default();
            narrator.package("m", 2);
            let lines = narrator.test("m", "TestA", &report(verdict, stdout, ""), None);
            let told = told(&lines);
            assert_eq!(told.iter().filter(|line| *line == "run TestA").count(), 1);
            assert_eq!(told.last().unwrap(), last, "{told:?}");
        }
    }

    #[test]
    fn packages_without_tests_pass() {
        let told = told(&Narrator::default().package("m", 0));
        assert_eq!(
            told,
            ["start", "output  ok  \tm\t0.000s [no tests to run]", "pass"]
        );
    }

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(rfc3339(Duration::new(seconds, 7)), expected);
        }
    }
}
