//! What pytest writes around a test's own output.

/// The part of pytest's output that is about the test: from below the heading of the failures or
/// errors to the short summary. Where there is none, what follows the description of the session.
pub(crate) fn clean(stdout: &[u8]) -> &[u8] {
    let lines = lines(stdout);
    let heading = |line: &&Line<'_>| {
        line.heading
            .as_deref()
            .is_some_and(|heading| heading == "FAILURES" || heading == "ERRORS")
    };
    let Some(first) = lines.iter().position(|line| heading(&line)) else {
        return without_session(stdout, &lines);
    };
    let start = lines.get(first + 2).map_or(stdout.len(), |line| line.start);
    let end = lines
        .iter()
        .skip(first + 2)
        .rfind(|line| line.heading.as_deref() == Some("short test summary info"))
        .or_else(|| {
            lines
                .iter()
                .skip(first + 2)
                .rfind(|line| line.heading.is_some())
        })
        .map_or(stdout.len(), |line| line.start);
    &stdout[start..end.max(start)]
}

/// What follows the empty line below the description of a session.
fn without_session<'a>(stdout: &'a [u8], lines: &[Line<'_>]) -> &'a [u8] {
    let begins = |line: &Line<'_>| line.heading.as_deref() == Some("test session starts");
    if !lines.first().is_some_and(begins) {
        return stdout;
    }
    let is_empty = |line: &&Line<'_>| stdout.get(line.start) == Some(&b'\n');
    let end = lines.iter().find(is_empty);
    end.map_or(stdout, |line| &stdout[line.start + 1..])
}

/// Whether the last line says that the one test was skipped.
pub(crate) fn says_skipped(stdout: &[u8]) -> bool {
    let plain = String::from_utf8_lossy(stdout);
    let Some(last) = plain.lines().rev().find(|line| !line.trim().is_empty()) else {
        return false;
    };
    let last = without_colors(last);
    let last = last.trim_matches(|c: char| c == '=' || c.is_whitespace());
    let Some((counts, _)) = last.rsplit_once(" in ") else {
        return false;
    };
    let mut skipped = false;
    for count in counts.split(", ") {
        match count.split_once(' ') {
            Some((_, "skipped")) => skipped = true,
            Some((_, "warning" | "warnings" | "deselected")) => {}
            _ => return false,
        }
    }
    skipped
}

struct Line<'a> {
    start: usize,
    /// What stands between two rows of `=`.
    heading: Option<std::borrow::Cow<'a, str>>,
}

fn lines(text: &[u8]) -> Vec<Line<'_>> {
    let mut start = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        lines.push(Line {
            start,
            heading: heading(line),
        });
        start += line.len();
    }
    lines
}

fn heading(line: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    // Most lines are none, and need no more than a look.
    if !line.contains(&b'=') {
        return None;
    }
    let text = std::str::from_utf8(line).ok()?;
    let plain = without_colors(text);
    let inner = plain
        .trim()
        .strip_prefix("==")?
        .strip_suffix("==")?
        .trim_matches('=');
    Some(
        inner
            .strip_prefix(' ')?
            .strip_suffix(' ')?
            .to_owned()
            .into(),
    )
}

/// The text without the escape sequences that set colours.
fn without_colors(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let end = after.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_tests_is_cut_off() {
        let report = "\
============ test session starts ============
platform linux

a.py::t FAILED                        [100%]

================= FAILURES ==================
_____________________ t _____________________

    def t():
>       assert 1 == 2
E       assert 1 == 2

a.py:2: AssertionError
========== short test summary info ==========
FAILED a.py::t - assert 1 == 2
============= 1 failed in 0.01s =============
";
        let expected = "
    def t():
>       assert 1 == 2
E       assert 1 == 2

a.py:2: AssertionError
";
        assert_eq!(clean(report.as_bytes()), expected.as_bytes());
        let colored = report.replace("=== FAIL", "===\x1b[1m FAIL");
        assert_eq!(clean(colored.as_bytes()), expected.as_bytes());
        let errors = report.replace("FAILURES", "ERRORS");
        assert_eq!(clean(errors.as_bytes()), expected.as_bytes());
        let brief = report.replace(" short test summary info ", "===");
        assert!(clean(brief.as_bytes()).ends_with(b"assert 1 == 2\n"));
        assert_eq!(clean(b"Fatal Python error\n"), b"Fatal Python error\n");
        assert_eq!(clean(b"== FAILURES ==\n"), b"");
        let crash =
            "=== test session starts ===\nplatform\ncollected\n\na.py::t \n\n-- Captured --\n";
        assert_eq!(clean(crash.as_bytes()), b"a.py::t \n\n-- Captured --\n");
        let short = b"=== test session starts ===\nplatform\n";
        assert_eq!(clean(short), short);
        assert_eq!(clean(b"== FAILURES ==\n== x ==\n== y =="), b"");
    }

    #[test]
    fn skips() {
        for (text, skipped) in [
            ("=== 1 skipped in 0.01s ===\n", true),
            ("1 skipped, 1 warning in 0.01s\n\n", true),
            (
                "\x1b[33m=== \x1b[33m1 skipped\x1b[0m\x1b[33m in 0.01s\x1b[0m ===",
                true,
            ),
            ("=== 1 passed, 1 skipped in 0.01s ===", false),
            ("=== 1 passed in 0.01s ===", false),
            ("=== 1 xfailed in 0.01s ===", false),
            ("", false),
            ("skipped", false),
        ] {
            assert_eq!(says_skipped(text.as_bytes()), skipped, "{text}");
        }
    }
}
