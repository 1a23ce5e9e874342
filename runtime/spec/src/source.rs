//! Errors about a spot in a file that somebody wrote.

use std::{fmt, ops::Range};
use unicode_width::UnicodeWidthChar as _;

/// How many terminal columns of a line are shown at most.
const SHOWN_COLUMNS: usize = 100;
/// How many columns stay visible left of the spot when a long line has to be cut there.
const COLUMNS_BEFORE_SPOT: usize = 40;

/// Something wrong at a spot of a text, before it is known what text that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong: one line, no full stop.
    pub message: String,
    /// The bytes of the text that are meant.
    pub span: Range<usize>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// A problem without advice.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Problem {
            message: message.into(),
            span,
            help: None,
        }
    }

    /// The same problem with advice.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A text that a user wrote, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    name: &'a str,
    text: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Source<'a> {
    /// All of a file, or of whatever `name` names.
    pub fn new(name: &'a str, text: &'a str) -> Self {
        Source {
            name,
            text,
            line: 1,
            column: 1,
        }
    }

    /// A part of a longer text that begins at this line and column, both counted from 1.
    pub fn starting_at(self, line: usize, column: usize) -> Self {
        Source {
            line,
            column,
            ..self
        }
    }

    /// Ties a problem to this text.
    pub fn error(&self, problem: Problem) -> SourceError {
        let mut excerpt = Excerpt::new(self.text, problem.span);
        if excerpt.line == 1 {
            excerpt.column += self.column - 1;
        }
        excerpt.line += self.line - 1;
        SourceError {
            source_name: self.name.into(),
            excerpt,
            message: problem.message.into(),
            help: problem.help.map(Box::from),
        }
    }
}

/// Something wrong in a file that a user wrote. Displays as several lines, without a newline at
/// the end:
///
/// ```text
/// cargo-maelstrom.toml:3:1: unknown key `layerz` in a container
///   |
/// 3 | layerz = []
///   | ^^^^^^
///   = help: did you mean `layers`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    source_name: Box<str>,
    excerpt: Excerpt,
    message: Box<str>,
    help: Option<Box<str>>,
}

impl SourceError {
    /// The file.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// Number of the line, from 1.
    pub fn line(&self) -> usize {
        self.excerpt.line
    }

    /// Number of the character in its line, from 1.
    pub fn column(&self) -> usize {
        self.excerpt.column
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, excerpt) = (&self.source_name, &self.excerpt);
        writeln!(
            f,
            "{name}:{}:{}: {}",
            excerpt.line, excerpt.column, self.message
        )?;
        write!(f, "{excerpt}")?;
        if let Some(help) = &self.help {
            let gutter = excerpt.line.to_string().len();
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        Ok(())
    }
}

impl std::error::Error for SourceError {}

/// A spot in a text. Displays as the line, numbered, with carets under the spot; without a newline
/// at the end:
///
/// ```text
///   |
/// 3 | slots = "many"
///   |         ^^^^^^
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    line: usize,
    column: usize,
    shown: Box<str>,
    columns_before: usize,
    columns_marked: usize,
}

impl Excerpt {
    /// The spot at the byte range `span` of `text`. Ranges that lie outside the text or cut a
    /// character are moved to the nearest place that exists; only the first line of a longer range
    /// is marked.
    pub fn new(text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_length = text[start..].find('\n');
        let line_end = line_length.map_or(text.len(), |length| start + length);
        let end = text.ceil_char_boundary(span.end.min(text.len()));
        let end = end.clamp(start, line_end);

        let before = &text[line_start..start];
        let marked = text[start..end].trim_end_matches('\r');
        let after = text[start + marked.len()..line_end].trim_end_matches('\r');
        let mut shown = String::new();
        let columns_before = push_last_columns(&mut shown, before, COLUMNS_BEFORE_SPOT);
        let columns_marked = push_first_columns(&mut shown, marked, SHOWN_COLUMNS - columns_before);
        let columns_left = SHOWN_COLUMNS.saturating_sub(columns_before + columns_marked);
        push_first_columns(&mut shown, after, columns_left);
        Excerpt {
            line: text[..line_start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            shown: shown.into(),
            columns_before,
            columns_marked: columns_marked.max(1),
        }
    }

    /// Number of the line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Number of the character in its line, from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.to_string();
        let gutter = line.len();
        let before = self.columns_before;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{line} | {}", self.shown)?;
        write!(f, "{:gutter$} | {:before$}", "", "")?;
        f.write_str(&"^".repeat(self.columns_marked))
    }
}

/// A character as it can be shown on one line, and its width in columns.
fn showable(c: char) -> (char, usize) {
    match c.width() {
        _ if c == '\t' => (' ', 1),
        Some(width) => (c, width),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Appends the end of `text`, at most `limit` columns and the mark of a cut. Returns the columns
/// used.
fn push_last_columns(shown: &mut String, text: &str, limit: usize) -> usize {
    let mut columns = 0;
    let mut kept: Vec<char> = Vec::new();
    for (c, width) in text.chars().rev().map(showable) {
        if columns + width > limit {
            kept.push('…');
            columns += 1;
            break;
        }
        kept.push(c);
        columns += width;
    }
    shown.extend(kept.into_iter().rev());
    columns
}

/// Appends the beginning of `text`, at most `limit` columns and the mark of a cut. Returns the
/// columns used.
fn push_first_columns(shown: &mut String, text: &str, limit: usize) -> usize {
    let mut columns = 0;
    for (c, width) in text.chars().map(showable) {
        if columns + width > limit {
            if !shown.ends_with('…') {
                shown.push('…');
                columns += 1;
            }
            break;
        }
        shown.push(c);
        columns += width;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_the_place_the_line_and_the_advice() {
        let text = "a = 1\nslots = \"many\"\nb = 2\n";
        let problem = Problem::new(14..20, "expected an integer").with_help("write a number");
        let error = Source::new("c.toml", text).error(problem);
        assert_eq!(
            error.to_string(),
            "c.toml:2:9: expected an integer\n  |\n2 | slots = \"many\"\n  |         ^^^^^^\n  = help: write a number"
        );
    }

    #[test]
    fn parts_of_a_text_keep_their_place_in_it() {
        let part = Source::new("stdin", "{\"a\": x,\n y}").starting_at(10, 5);
        let place = |span| {
            let error = part.error(Problem::new(span, "m"));
            (error.line(), error.column())
        };
        assert_eq!(place(6..7), (10, 11));
        assert_eq!(place(10..11), (11, 2));
    }

    #[test]
    fn marks_stay_below_the_spot() {
        for (text, span, expected) in [
            ("\t漢字 x", 8..9, "  |\n1 |  漢字 x\n  |       ^"),
            ("", 0..0, "  |\n1 | \n  | ^"),
            ("ab\r\ncd", 1..5, "  |\n1 | ab\n  |  ^"),
            ("a\u{1b}[b", 3..4, "  |\n1 | a\u{fffd}[b\n  |    ^"),
        ] {
            assert_eq!(Excerpt::new(text, span).to_string(), expected);
        }
        assert_eq!(Excerpt::new("ab\n", 3..3).line(), 2);
        assert_eq!(Excerpt::new("ab", 900..901).column(), 3);
    }

    #[test]
    fn long_lines_are_cut_on_both_sides() {
        let text = format!("{}!{}", "a".repeat(500), "b".repeat(500));
        let excerpt = Excerpt::new(&text, 500..501);
        assert_eq!(excerpt.column(), 501);
        let shown = excerpt.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[1],
            format!("1 | …{}!{}…", "a".repeat(40), "b".repeat(58))
        );
        assert_eq!(lines[2], format!("  | {}^", " ".repeat(41)));
    }

    proptest! {
        #[test]
        fn no_range_panics(text in any::<String>(), start in 0..300usize, length in 0..300usize) {
            Excerpt::new(&text, start..start + length).to_string();
        }
    }
}
