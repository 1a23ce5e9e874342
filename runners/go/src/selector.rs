//! The patterns of `-run` and `-skip`: regular expressions with one part for each level of
//! subtests, between slashes, and alternatives between bars.

use anyhow::{Context as _, Result};
use maelstrom_runner::filter::{Field, Pattern, Selection};
use regex::Regex;

/// A pattern of `-run` or `-skip`.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    text: String,
    alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug)]
struct Alternative {
    /// What it says of the test itself.
    test: Regex,
    /// What it says of subtests, with the slash before it; empty if nothing.
    subtests: String,
}

impl Selector {
    /// Reads a pattern of `flag`.
    ///
    /// # Errors
    /// A part that is no regular expression.
    pub(crate) fn parse(flag: &str, text: &str) -> Result<Selector> {
        let parse = |alternative: &str| {
            let at = split(alternative, '/').next().map_or(0, str::len);
            let (test, subtests) = alternative.split_at(at);
            // Names hold no blanks: what a test is called with has underscores for them.
            let test = Regex::new(&test.replace(' ', "_"))
                .with_context(|| format!("{flag}={text}: not a regular expression"))?;
            for part in split(subtests.get(1..).unwrap_or(""), '/') {
                Regex::new(part)
                    .with_context(|| format!("{flag}={text}: not a regular expression"))?;
            }
            Ok(Alternative {
                test,
                subtests: subtests.to_owned(),
            })
        };
        Ok(Selector {
            text: text.to_owned(),
            alternatives: split(text, '|').map(parse).collect::<Result<_>>()?,
        })
    }

    /// The pattern as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The tests that have something to run.
    fn selected(&self) -> Pattern {
        let alternatives = self.alternatives.iter();
        Pattern::any_of(
            alternatives.map(|alternative| Pattern::matches(Field::Name, alternative.test.clone())),
        )
    }

    /// The tests that are selected as a whole: the first alternative that matches one decides.
    fn selected_whole(&self) -> Pattern {
        let mut earlier: Vec<Pattern> = Vec::new();
        let mut whole = Vec::new();
        for alternative in &self.alternatives {
            let matches = Pattern::matches(Field::Name, alternative.test.clone());
            if alternative.subtests.is_empty() {
                whole.push(matches.minus(Pattern::any_of(earlier.iter().cloned())));
            } else {
                earlier.push(matches);
            }
        }
        Pattern::any_of(whole)
    }

    /// The pattern that runs of one test what this one selects.
    pub(crate) fn of_test(&self, name: &str) -> String {
        let matching = || {
            self.alternatives
                .iter()
                .filter(|alternative| alternative.test.is_match(name))
        };
        if matching().any(|alternative| alternative.subtests.is_empty()) {
            return whole(name);
        }
        let patterns: Vec<String> = matching()
            .map(|alternative| format!("{}{}", whole(name), alternative.subtests))
            .collect();
        if patterns.is_empty() {
            whole(name)
        } else {
            patterns.join("|")
        }
    }

    /// Whether it concerns subtests of a test.
    pub(crate) fn reaches_into(&self, name: &str) -> bool {
        self.alternatives
            .iter()
            .any(|alternative| !alternative.subtests.is_empty() && alternative.test.is_match(name))
    }
}

/// The pattern that runs one test with all its subtests.
pub(crate) fn whole(name: &str) -> String {
    format!("^{}$", regex::escape(name))
}

/// Narrows a selection by what `-run` and `-skip` say.
pub(crate) fn narrow(
    selection: Selection,
    run: Option<&Selector>,
    skip: Option<&Selector>,
) -> Selection {
    if run.is_none() && skip.is_none() {
        return selection;
    }
    let run = run.map_or_else(Pattern::all, Selector::selected);
    selection.and(match skip {
        Some(skip) => run.minus(skip.selected_whole()),
        None => run,
    })
}

/// The parts of a pattern between separators that are in neither brackets nor parentheses, as Go
/// splits it.
fn split(pattern: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut brackets, mut parentheses, mut escaped) = (0_usize, 0_isize, false);
    pattern.split(move |c| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match c {
            '\\' => escaped = true,
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            '(' if brackets == 0 => parentheses += 1,
            ')' if brackets == 0 => parentheses -= 1,
            _ => return c == separator && brackets == 0 && parentheses == 0,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maelstrom_runner::filter::{GO, GoFacts};

    fn selects(run: Option<&str>, skip: Option<&str>, name: &str) -> bool {
        let run = run.map(|text| Selector::parse("-run", text).unwrap());
        let skip = skip.map(|text| Selector::parse("-skip", text).unwrap());
        let selection = Selection::parse(&[""; 0], &[""; 0], &GO).unwrap();
        let facts = GoFacts {
            case: Some(name),
            ..GoFacts::default()
        };
        narrow(selection, run.as_ref(), skip.as_ref())
            .evaluate(&facts)
            .is_true()
    }

    #[test]
    fn tests_are_selected_by_the_first_part() {
        for (run, skip, name, expected) in [
            (Some("A"), None, "TestA", true),
            (Some("^TestA$"), None, "TestAB", false),
            (Some("A/b|C/d"), None, "TestC", true),
            (Some("A/b|C/d"), None, "Testb", false),
            (Some("Test(A|B)/x"), None, "TestB", true),
            (Some("Test[/|]"), None, "TestB", false),
            (None, Some("A"), "TestA", false),
            (None, Some("A"), "TestB", true),
            (None, Some("A/sub"), "TestA", true),
            (None, Some("A/sub|A"), "TestA", true),
            (None, Some("A|A/sub"), "TestA", false),
            (Some(""), None, "TestA", true),
        ] {
            assert_eq!(
                selects(run, skip, name),
                expected,
                "{run:?} {skip:?} {name}"
            );
        }
    }

    #[test]
    fn subtests_are_selected_by_the_rest() {
        for (run, name, expected) in [
            ("A", "TestA", "^TestA$"),
            ("A/b/c", "TestA", "^TestA$/b/c"),
            ("A/b|A/c|B/d", "TestA", "^TestA$/b|^TestA$/c"),
            ("A/b|Test", "TestA", "^TestA$"),
            ("A/(x|y)[/]", "TestA", "^TestA$/(x|y)[/]"),
        ] {
            let selector = Selector::parse("-run", run).unwrap();
            assert_eq!(selector.of_test(name), expected, "{run}");
        }
        let skip = Selector::parse("-skip", "A/x|B").unwrap();
        assert!(skip.reaches_into("TestA") && !skip.reaches_into("TestB"));
    }

    #[test]
    fn bad_expressions_are_named() {
        for text in ["(", "A/(", "A|*"] {
            let error = Selector::parse("-run", text).unwrap_err();
            assert!(error.to_string().contains(text), "{error:#}");
        }
    }
}
