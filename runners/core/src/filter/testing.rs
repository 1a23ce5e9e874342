//! Rows of the specification's tables as tests.

use super::{Dialect, Facts, Pattern, Truth};

/// What a row of a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// It matches.
    T,
    /// It does not match.
    F,
    /// It is no pattern.
    E,
}

/// Checks that each of `patterns` does what the row says.
#[track_caller]
pub(super) fn check(
    number: &str,
    dialect: &Dialect,
    facts: &impl Facts,
    patterns: &[&str],
    row: Row,
) {
    for text in patterns {
        let found = match Pattern::parse(text, dialect) {
            Err(_) => Row::E,
            Ok(pattern) => match pattern.evaluate(facts) {
                Truth::True => Row::T,
                Truth::False => Row::F,
                Truth::Unknown => {
                    panic!("row {number}: {text:?} is not known with all facts given")
                }
            },
        };
        assert_eq!(found, row, "row {number}: {text:?}");
    }
}

/// Truth with the given facts.
#[track_caller]
pub(super) fn truth(dialect: &Dialect, facts: &impl Facts, text: &str) -> Truth {
    match Pattern::parse(text, dialect) {
        Ok(pattern) => pattern.evaluate(facts),
        Err(error) => panic!("{error}"),
    }
}
