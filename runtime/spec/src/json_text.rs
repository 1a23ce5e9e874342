//! JSON as values with their places.

use crate::{Entry, Node, Problem, Value};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt, ops::Range};

/// How deep lists and objects may be nested. Specifications need six.
const MAX_DEPTH: usize = 32;

/// Parses one JSON value with nothing but blanks around it.
pub fn parse_json(text: &str) -> Result<Node, Problem> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => node(text, raw.get(), 0),
        Err(error) => Err(json_problem(text, 0, &error)),
    }
}

/// What serde_json found wrong with `text`, of which it was given the part from byte `start` on.
pub fn json_problem(text: &str, start: usize, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    let parsed = text.get(start..).unwrap_or_default();
    let line_start = match error.line() {
        0 | 1 => 0,
        line => {
            let mut newlines = parsed.match_indices('\n');
            newlines.nth(line - 2).map_or(0, |(at, _)| at + 1)
        }
    };
    let at = (start + line_start + error.column().saturating_sub(1)).min(text.len());
    Problem::new(at..at + 1, message)
}

/// Reads `raw`, a part of `text` that is known to be well-formed.
fn node(text: &str, raw: &str, depth: usize) -> Result<Node, Problem> {
    let start = raw.as_ptr().addr() - text.as_ptr().addr();
    let span = start..start + raw.len();
    if depth == MAX_DEPTH {
        return Err(Problem::new(
            span,
            format!("lists and objects are nested more than {MAX_DEPTH} deep"),
        ));
    }
    let problem = |error: serde_json::Error| json_problem(text, start, &error);
    let value = match raw.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'"') => Value::String(serde_json::from_str(raw).map_err(problem)?),
        Some(b'[') => {
            let Elements(elements) = serde_json::from_str(raw).map_err(problem)?;
            let elements = elements.into_iter();
            let nodes = elements.map(|element| node(text, element.get(), depth + 1));
            Value::Array(nodes.collect::<Result<_, _>>()?)
        }
        Some(b'{') => {
            let Members(members) = serde_json::from_str(raw).map_err(problem)?;
            let entries = members.into_iter().map(|(key, value)| {
                Ok(Entry {
                    key_span: part(text, key.get()),
                    key: serde_json::from_str(key.get())
                        .map_err(|error| json_problem(text, part(text, key.get()).start, &error))?,
                    value: node(text, value.get(), depth + 1)?,
                })
            });
            Value::Table(entries.collect::<Result<_, Problem>>()?)
        }
        _ if raw.contains(['.', 'e', 'E']) => Value::Float,
        _ => match raw.parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return Err(Problem::new(span, "the number is too large")),
        },
    };
    Ok(Node { value, span })
}

fn part(text: &str, raw: &str) -> Range<usize> {
    let start = raw.as_ptr().addr() - text.as_ptr().addr();
    start..start + raw.len()
}

/// A list, one level deep.
#[derive(Deserialize)]
struct Elements<'a>(#[serde(borrow)] Vec<&'a RawValue>);

/// An object, one level deep, in the order of the text.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_know_their_places() {
        let text = " {\"a\\n\": [1, -2, 1.5e3, null, true],\n \"b\" : {\"c\": \"x\\u00e9\"}} ";
        let node = parse_json(text).unwrap();
        assert_eq!(&text[node.span.clone()], text.trim());
        let entries = node.table().unwrap();
        assert_eq!(entries[0].key, "a\n");
        assert_eq!(&text[entries[0].key_span.clone()], "\"a\\n\"");
        let a = entries[0].value.array().unwrap();
        let values: Vec<&Value> = a.iter().map(|node| &node.value).collect();
        assert_eq!(
            values,
            [
                &Value::Integer(1),
                &Value::Integer(-2),
                &Value::Float,
                &Value::Null,
                &Value::Boolean(true)
            ]
        );
        assert_eq!(&text[a[2].span.clone()], "1.5e3");
        let c = &entries[1].value.table().unwrap()[0].value;
        assert_eq!(c.value, Value::String("xé".into()));
        assert_eq!(&text[c.span.clone()], "\"x\\u00e9\"");
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for (text, message, at) in [
            ("{\"a\": x}", "expected value", 6),
            ("{\"a\":\n 1,}", "key must be a string", 9),
            ("{\"a\": [1, \"\\ud800\"]}", "", 17),
            ("[1] 2", "trailing characters", 4),
            ("{\"a\": 99999999999999999999}", "too large", 6),
            ("{\"a\"", "EOF", 3),
        ] {
            let problem = parse_json(text).unwrap_err();
            assert!(problem.message.contains(message), "{problem:?}");
            assert!(!problem.message.contains("line"), "{problem:?}");
            assert_eq!(problem.span.start, at, "{text}: {problem:?}");
        }
    }

    #[test]
    fn absurd_nesting_is_an_error() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [MAX_DEPTH + 1, 100_000] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                assert!(parse_json(&text).is_err());
            }
            let text = format!(
                "{}1{}",
                open.repeat(MAX_DEPTH - 1),
                close.repeat(MAX_DEPTH - 1)
            );
            assert!(parse_json(&text).is_ok());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([\\[\\]{}:,\"\\\\a-z0-9.-]|null|\\\\u)*") {
            if let Err(problem) = parse_json(&text) {
                prop_assert!(problem.span.start <= text.len());
            }
        }
    }
}
