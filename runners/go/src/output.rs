//! What a test binary prints around the output of a test.

/// What a test wrote to its standard output: from after the line that says that it runs to the
/// lines that say how it ended. Where it has subtests those stay, since they tell of them.
pub(crate) fn clean<'a>(name: &str, output: &'a [u8]) -> &'a [u8] {
    let start = line_starting(output, format!("=== RUN   {name}\n").as_bytes(), First)
        .map_or(0, |(_, end)| end);
    let rest = &output[start..];
    // The test says how it ended, and then the binary as a whole does.
    let verdict = VERDICTS
        .iter()
        .filter_map(|word| line_starting(rest, format!("--- {word}: {name} ").as_bytes(), Last))
        .max();
    let end_of_binary = || {
        ["FAIL\n", "PASS\n"]
            .iter()
            .filter_map(|word| line_starting(rest, word.as_bytes(), Last))
            .max()
            .map_or(rest.len(), |(start, _)| start)
    };
    match verdict {
        Some((start, end)) => {
            let below = &rest[end..];
            let (subtests, example) = (below.starts_with(b"    --- "), below.starts_with(b"got:"));
            if subtests {
                &rest[..end_of_binary()]
            } else if example {
                // What was got and what was wanted.
                &rest[end..end_of_binary().max(end)]
            } else {
                &rest[..start]
            }
        }
        None => &rest[..end_of_binary()],
    }
}

const VERDICTS: [&str; 3] = ["FAIL", "PASS", "SKIP"];

/// Whether a test that passed says that it was skipped: above the last line, which says that the
/// binary passed, is the one that says so of the test.
pub(crate) fn was_skipped(name: &str, output: &[u8]) -> bool {
    // Lines of the harness that tell neither.
    let counts = |line: &&[u8]| {
        !line.is_empty() && !line.starts_with(b"=== NAME") && !line.starts_with(b"coverage: ")
    };
    let mut lines = output
        .split(|&byte| byte == b'\n')
        .rev()
        .map(unmarked)
        .filter(counts);
    let skipped = format!("--- SKIP: {name} ");
    lines.next() == Some(b"PASS")
        && lines
            .next()
            .is_some_and(|line| line.starts_with(skipped.as_bytes()))
}

/// A line without the mark of the harness's own lines.
pub(crate) fn unmarked(line: &[u8]) -> &[u8] {
    line.strip_prefix(&[MARK]).unwrap_or(line)
}

/// Stands in front of the harness's own lines where they are marked.
pub(crate) const MARK: u8 = 0x16;

use Which::{First, Last};

#[derive(Clone, Copy)]
enum Which {
    First,
    Last,
}

/// The first or last line that starts like this: where it starts, and where the next one does.
fn line_starting(text: &[u8], start: &[u8], which: Which) -> Option<(usize, usize)> {
    let mut found = None;
    let mut at = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(start) {
            found = Some((at, at + line.len()));
            if matches!(which, First) {
                break;
            }
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_harness_go() {
        for (name, output, expected) in [
            (
                "TestA",
                "=== RUN   TestA\n    a_test.go:1: x\n--- FAIL: TestA (0.00s)\nFAIL\n",
                "    a_test.go:1: x\n",
            ),
            (
                "TestA",
                "from TestMain\n=== RUN   TestA\nplain\n--- PASS: TestA (0.00s)\nPASS\n",
                "plain\n",
            ),
            ("TestA", "=== RUN   TestA\n--- FAIL: TestA (0.00s)\n", ""),
            ("TestA", "=== RUN   TestA\nhalf a line", "half a line"),
            ("TestA", "", ""),
            (
                "TestA",
                "=== RUN   TestA\n=== RUN   TestA/b\n    x\n--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\nFAIL\n",
                "=== RUN   TestA/b\n    x\n--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\n",
            ),
            (
                "FuzzX",
                "=== RUN   FuzzX\n=== RUN   FuzzX/seed#0\n    x\n--- FAIL: FuzzX (0.00s)\n    --- FAIL: FuzzX/seed#0 (0.00s)\nFAIL\n",
                "=== RUN   FuzzX/seed#0\n    x\n--- FAIL: FuzzX (0.00s)\n    --- FAIL: FuzzX/seed#0 (0.00s)\n",
            ),
            (
                "ExampleA",
                "=== RUN   ExampleA\n--- FAIL: ExampleA (0.00s)\ngot:\n1\nwant:\n2\nFAIL\n",
                "got:\n1\nwant:\n2\n",
            ),
            (
                "TestA",
                "=== RUN   TestA\ntext of TestA\n=== RUN   TestA\n--- FAIL: TestA (1s) said the test\n--- FAIL: TestA (0.00s)\nFAIL\n",
                "text of TestA\n=== RUN   TestA\n--- FAIL: TestA (1s) said the test\n",
            ),
        ] {
            let cleaned = String::from_utf8_lossy(clean(name, output.as_bytes()));
            assert_eq!(cleaned, expected, "{output}");
        }
    }

    #[test]
    fn skipped_tests_say_so_last() {
        for (output, expected) in [
            (
                "=== RUN   TestA\n    x\n--- SKIP: TestA (0.00s)\nPASS\n",
                true,
            ),
            ("=== RUN   TestA\n--- SKIP: TestA (0.00s)\nPASS\n\n", true),
            (
                "=== RUN   TestA\n--- SKIP: TestA (0.00s)\nPASS\ncoverage: 5.0% of statements\n",
                true,
            ),
            (
                "\x16=== RUN   TestA\n\x16--- SKIP: TestA (0.00s)\n\x16=== NAME  \n\x16PASS\n",
                true,
            ),
            ("=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n", false),
            (
                "=== RUN   TestA\n    --- SKIP: TestA/b (0.00s)\nPASS\n",
                false,
            ),
            ("--- SKIP: TestA (0.00s)\nmore\nPASS\n", false),
            ("--- SKIP: TestAB (0.00s)\nPASS\n", false),
            ("", false),
        ] {
            assert_eq!(
                was_skipped("TestA", output.as_bytes()),
                expected,
                "{output:?}"
            );
        }
    }
}
