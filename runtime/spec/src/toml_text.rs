//! TOML as values with their places.

use crate::{Entry, Node, Problem, Value};
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Parses a TOML document. Syntax errors and duplicate keys are problems.
pub fn parse_toml(text: &str) -> Result<Node, Problem> {
    match DeTable::parse(text) {
        Ok(table) => {
            let span = table.span();
            node(span, DeValue::Table(table.into_inner()))
        }
        Err(error) => {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            let span = error.span().unwrap_or(text.len()..text.len());
            Err(Problem::new(span, message))
        }
    }
}

fn spanned(value: Spanned<DeValue<'_>>) -> Result<Node, Problem> {
    node(value.span(), value.into_inner())
}

fn node(span: Range<usize>, value: DeValue<'_>) -> Result<Node, Problem> {
    let value = match value {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => return Err(Problem::new(span, "the number is too large")),
        },
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(elements) => Value::Array(
            elements
                .into_iter()
                .map(spanned)
                .collect::<Result<_, Problem>>()?,
        ),
        DeValue::Table(table) => {
            let mut entries = table
                .into_iter()
                .map(|(key, value)| {
                    Ok(Entry {
                        key_span: key.span(),
                        key: key.into_inner().into_owned(),
                        value: spanned(value)?,
                    })
                })
                .collect::<Result<Vec<_>, Problem>>()?;
            entries.sort_by_key(|entry| entry.key_span.start);
            Value::Table(entries)
        }
    };
    Ok(Node { value, span })
}

/// The bytes of the document that became the bytes `within` of the value of the string at `span`:
/// past the quotes and with escape sequences undone.
pub fn toml_string_span(text: &str, span: &Range<usize>, within: Range<usize>) -> Range<usize> {
    let Some(raw) = text.get(span.clone()) else {
        return span.clone();
    };
    let (quote, is_literal) = match raw {
        _ if raw.starts_with("\"\"\"") => ("\"\"\"", false),
        _ if raw.starts_with("'''") => ("'''", true),
        _ if raw.starts_with('"') => ("\"", false),
        _ if raw.starts_with('\'') => ("'", true),
        _ => return span.clone(),
    };
    let mut position = quote.len();
    if quote.len() == 3 {
        let rest = &raw[position..];
        position += match rest {
            _ if rest.starts_with("\r\n") => 2,
            _ if rest.starts_with('\n') => 1,
            _ => 0,
        };
    }
    let end_of_content = raw.len().saturating_sub(quote.len()).max(position);
    let mut decoded = 0;
    let mut start = None;
    let mut end = None;
    while position < end_of_content {
        if start.is_none() && decoded >= within.start {
            start = Some(position);
        }
        if decoded >= within.end {
            end = Some(position);
            break;
        }
        let (raw_length, decoded_length) = one_character(&raw[position..], is_literal);
        position += raw_length;
        decoded += decoded_length;
    }
    let start = start.unwrap_or(end_of_content);
    let end = end.unwrap_or(end_of_content).max(start);
    span.start + start..span.start + end
}

/// How many bytes the first character takes in the text of a string, and in its value.
fn one_character(raw: &str, is_literal: bool) -> (usize, usize) {
    let mut characters = raw.chars();
    let Some(first) = characters.next() else {
        return (1, 1);
    };
    if first != '\\' || is_literal {
        return (first.len_utf8(), first.len_utf8());
    }
    let code_point = |digits: usize| {
        let value = raw.get(2..2 + digits);
        let value = value.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let length = value.and_then(char::from_u32).map_or(1, char::len_utf8);
        (2 + digits, length)
    };
    match characters.next() {
        Some('x') => code_point(2),
        Some('u') => code_point(4),
        Some('U') => code_point(8),
        Some(c) if c.is_ascii_whitespace() => {
            // A backslash at the end of a line swallows all blanks and line ends after it.
            let rest = raw[1..].trim_start_matches([' ', '\t', '\r', '\n']);
            (raw.len() - rest.len(), 0)
        }
        Some(c) => (1 + c.len_utf8(), 1),
        None => (1, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_know_their_places() {
        let text = "a = 0x10\n[b]\nc = [true, 1.5]\nd.e = \"x\"\n";
        let node = parse_toml(text).unwrap();
        let entries = node.table().unwrap();
        assert_eq!(entries[0].key, "a");
        assert_eq!(entries[0].value.value, Value::Integer(16));
        let b = entries[1].value.table().unwrap();
        let c = b[0].value.array().unwrap();
        assert_eq!(&text[c[0].span.clone()], "true");
        assert_eq!(&text[c[1].span.clone()], "1.5");
        assert_eq!(&text[b[1].key_span.clone()], "d");
        let e = &b[1].value.table().unwrap()[0];
        assert_eq!(&text[e.value.span.clone()], "\"x\"");
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for (text, message, spot) in [
            ("a = 1\na = 2\n", "duplicate key", "a"),
            ("a = \n", "", ""),
            (
                "a = 99999999999999999999\n",
                "too large",
                "99999999999999999999",
            ),
            ("[a]\n[a]\n", "duplicate key", "a"),
        ] {
            let problem = parse_toml(text).unwrap_err();
            assert!(problem.message.contains(message), "{problem:?}");
            let found = text.get(problem.span.clone()).unwrap();
            assert_eq!(found.trim(), spot, "{problem:?}");
        }
    }

    #[test]
    fn spots_inside_strings() {
        for (text, within, expected) in [
            ("k = \"abcd\"", 1..3, "bc"),
            ("k = 'ab\\d'", 2..4, "\\d"),
            ("k = \"a\\tb\\u00e9c\"", 1..2, "\\t"),
            ("k = \"a\\tb\\u00e9c\"", 3..5, "\\u00e9"),
            ("k = \"a\\tb\\u00e9c\"", 5..6, "c"),
            ("k = \"\"\"\nab\"\"\"", 0..1, "a"),
            ("k = \"\"\"a\\\n   b\"\"\"", 1..2, "\\\n   b"),
            ("k = '''\r\nab'''", 1..2, "b"),
            ("k = \"ab\"", 2..2, ""),
            ("k = \"ab\"", 9..12, ""),
        ] {
            let span = parse_toml(text).unwrap().table().unwrap()[0]
                .value
                .span
                .clone();
            let found = toml_string_span(text, &span, within.clone());
            assert_eq!(&text[found], expected, "{text} {within:?}");
        }
    }

    proptest! {
        #[test]
        fn spots_agree_with_the_parser(value in "[a-zé\"'\\\\\t\n]{0,12}", at in 0..12usize) {
            let text = format!("k = {}", toml::Value::String(value.clone()));
            let node = parse_toml(&text).unwrap();
            let span = node.table().unwrap()[0].value.span.clone();
            let Some((start, c)) = value.char_indices().nth(at) else { return Ok(()) };
            let found = toml_string_span(&text, &span, start..start + c.len_utf8());
            let raw = &text[found];
            prop_assert!(raw == c.to_string() || raw.starts_with('\\'), "{text}: {raw}");
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*", start in 0..50usize, length in 0..50usize) {
            if let Ok(node) = parse_toml(&text) {
                for entry in node.table().unwrap() {
                    let span = &entry.value.span;
                    let found = toml_string_span(&text, span, start..start + length);
                    prop_assert!(text.get(found).is_some());
                }
            }
        }
    }
}
