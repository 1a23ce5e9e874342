//! What is wrong with a pattern.

use maelstrom_spec::Excerpt;
use std::{fmt, ops::Range};

/// What was found in a pattern where something else was expected. Displays as several lines, the
/// offending one of the pattern among them, without a newline at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    pub(super) span: Range<usize>,
    pub(super) excerpt: Box<Excerpt>,
    pub(super) problem: String,
    pub(super) expected: Vec<String>,
    pub(super) help: Option<String>,
}

impl PatternError {
    /// Number of the pattern's line, from 1.
    pub fn line(&self) -> usize {
        self.excerpt.line()
    }

    /// Number of the character in its line, from 1.
    pub fn column(&self) -> usize {
        self.excerpt.column()
    }

    /// Byte range of the spot in the pattern.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The problem without the place: ``unexpected `x`, expected …``.
    pub fn problem(&self) -> String {
        match self.expected.as_slice() {
            [] => self.problem.clone(),
            [only] => format!("{}, expected {only}", self.problem),
            [most @ .., last] => {
                format!("{}, expected {} or {last}", self.problem, most.join(", "))
            }
        }
    }

    /// What may help: a name that was probably meant, or a rule that is easily missed.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "could not parse pattern: line {}, column {}: {}\n{}",
            self.line(),
            self.column(),
            self.problem(),
            self.excerpt
        )?;
        match &self.help {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PatternError {}
