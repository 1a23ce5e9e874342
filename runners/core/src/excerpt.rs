//! The spot in a text that a message is about: its line and column, and the line with a mark
//! under the spot.

use std::{fmt, ops::Range};
use unicode_width::UnicodeWidthChar;

/// How many terminal columns of a line are shown at most.
const SHOWN_COLUMNS: usize = 100;
/// How many columns stay visible left of the spot when a long line has to be cut there.
const COLUMNS_BEFORE_SPOT: usize = 40;

/// A spot in a text that somebody wrote. Displays as the line, numbered, with carets under the
/// spot; without a newline at the end:
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
    shown: String,
    columns_before: usize,
    columns_marked: usize,
}

impl Excerpt {
    /// The spot at the byte range `span` of `source`. Ranges that lie outside the text or cut a
    /// character are moved to the nearest place that exists; only the first line of a longer
    /// range is marked.
    pub fn new(source: &str, span: Range<usize>) -> Self {
        let start = source.floor_char_boundary(span.start.min(source.len()));
        let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[start..]
            .find('\n')
            .map_or(source.len(), |length| start + length);
        let end = source
            .ceil_char_boundary(span.end.min(source.len()))
            .clamp(start, line_end);

        let before = &source[line_start..start];
        let marked = &source[start..end];
        let after = source[end..line_end].trim_end_matches('\r');
        let mut shown = String::new();
        let columns_before = push_last_columns(&mut shown, before);
        let columns_marked = push_first_columns(&mut shown, marked, SHOWN_COLUMNS - columns_before);
        push_first_columns(
            &mut shown,
            after,
            SHOWN_COLUMNS.saturating_sub(columns_before + columns_marked),
        );
        Excerpt {
            line: source[..line_start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            shown,
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
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", self.shown)?;
        write!(
            f,
            "{gutter} | {}{}",
            " ".repeat(self.columns_before),
            "^".repeat(self.columns_marked)
        )
    }
}

/// A character as it can be shown on one line, and its width in columns.
fn showable(c: char) -> (char, usize) {
    match c {
        '\t' => (' ', 1),
        c => match c.width() {
            Some(width) => (c, width),
            None => (char::REPLACEMENT_CHARACTER, 1),
        },
    }
}

/// Appends the end of `text`, cut at its left when it is long. Returns the columns used.
fn push_last_columns(shown: &mut String, text: &str) -> usize {
    let total: usize = text.chars().map(|c| showable(c).1).sum();
    let mut to_skip = 0;
    if total > COLUMNS_BEFORE_SPOT {
        shown.push('…');
        to_skip = total - COLUMNS_BEFORE_SPOT;
    }
    let mut skipped = 0;
    let mut columns = usize::from(to_skip > 0);
    for (c, width) in text.chars().map(showable) {
        if skipped < to_skip {
            skipped += width;
        } else {
            shown.push(c);
            columns += width;
        }
    }
    columns
}

/// Appends the beginning of `text`, at most `limit` columns of it. Returns the columns used.
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
    fn marks_the_spot() {
        let excerpt = Excerpt::new("a = 1\nslots = \"many\"\nb = 2\n", 14..20);
        assert_eq!((excerpt.line(), excerpt.column()), (2, 9));
        assert_eq!(
            excerpt.to_string(),
            "  |\n2 | slots = \"many\"\n  |         ^^^^^^"
        );
    }

    #[test]
    fn wide_characters_and_tabs_keep_the_mark_below_the_spot() {
        let excerpt = Excerpt::new("\t漢字 x", 8..9);
        assert_eq!(excerpt.column(), 5);
        assert_eq!(excerpt.to_string(), "  |\n1 |  漢字 x\n  |       ^");
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

    #[test]
    fn the_end_of_the_text_and_line_ends_are_spots_too() {
        assert_eq!(Excerpt::new("", 0..0).to_string(), "  |\n1 | \n  | ^");
        assert_eq!(
            Excerpt::new("ab\r\ncd", 1..5).to_string(),
            "  |\n1 | ab\u{fffd}\n  |  ^^"
        );
        assert_eq!(Excerpt::new("ab\n", 3..3).line(), 2);
        assert_eq!(Excerpt::new("ab", 900..901).column(), 3);
    }

    proptest! {
        #[test]
        fn no_range_panics(text in any::<String>(), start in 0..300usize, length in 0..300usize) {
            Excerpt::new(&text, start..start + length).to_string();
        }
    }
}
