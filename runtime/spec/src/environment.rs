//! Evaluating `$env{…}` and `$prev{…}` in environments.

use crate::EnvironmentElement;
use std::{collections::BTreeMap, ffi::OsString, fmt};
use thiserror::Error;

/// Why an environment could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("environment variable {name}: {reason} in the value {value:?}")]
pub struct EnvironmentError {
    /// The variable that was to be set.
    pub name: String,
    /// Its unevaluated value.
    pub value: String,
    /// What is wrong with the value.
    pub reason: EnvironmentErrorReason,
}

/// What is wrong with the unevaluated value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvironmentErrorReason {
    /// A `$` that starts neither `$env{…}` nor `$prev{…}` nor `$$`.
    #[error(
        "invalid use of `$` at character {character} (write `$env{{NAME}}`, `$prev{{NAME}}`, or `$$` for a literal `$`)"
    )]
    InvalidDollar {
        /// Where, counted from 1.
        character: usize,
    },
    /// A `{` without its `}` before the next `$` or the end.
    #[error("unterminated brace after `$` at character {character} (references do not nest)")]
    UnterminatedBrace {
        /// Where the `$` is, counted from 1.
        character: usize,
    },
    /// A variable that is not set and has no default.
    #[error("unknown variable {name:?} (`${origin}{{{name}:-DEFAULT}}` gives it a default)")]
    UnknownVariable {
        /// Where it was looked for.
        origin: EnvironmentOrigin,
        /// Its name.
        name: String,
    },
    /// A variable of the client whose value is not UTF-8.
    #[error("the client's variable {name:?} is not valid UTF-8; it cannot be used")]
    NotUnicode {
        /// Its name.
        name: String,
    },
}

/// Where a reference looks a variable up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvironmentOrigin {
    /// `$env`: the environment of the client.
    Client,
    /// `$prev`: what the elements before this one came to.
    Previous,
}

impl fmt::Display for EnvironmentOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnvironmentOrigin::Client => "env",
            EnvironmentOrigin::Previous => "prev",
        })
    }
}

/// Evaluates `elements` in order, starting from `initial` (the environment of an image, if used).
///
/// `client` looks up variables of the client; [`std::env::var_os`] does. All values of one
/// element see what the elements before it came to. Names are not expanded.
pub fn evaluate_environment(
    initial: BTreeMap<String, String>,
    elements: &[EnvironmentElement],
    client: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut candidate = initial;
    for element in elements {
        let mut evaluated = BTreeMap::new();
        for (name, value) in &element.vars {
            let new = evaluate(value, &candidate, &client).map_err(|reason| EnvironmentError {
                name: name.clone(),
                value: value.clone(),
                reason,
            })?;
            evaluated.insert(name.clone(), new);
        }
        if element.extend {
            candidate.append(&mut evaluated);
        } else {
            candidate = evaluated;
        }
    }
    Ok(candidate)
}

fn evaluate(
    text: &str,
    previous: &BTreeMap<String, String>,
    client: &impl Fn(&str) -> Option<OsString>,
) -> Result<String, EnvironmentErrorReason> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        let character = text[..text.len() - rest.len() + dollar].chars().count() + 1;
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        // A reference ends before the next `$`, whatever that one means: they do not nest.
        let piece = &rest[..rest.find('$').unwrap_or(rest.len())];
        let (origin, body) = if let Some(body) = piece.strip_prefix("env{") {
            (EnvironmentOrigin::Client, body)
        } else if let Some(body) = piece.strip_prefix("prev{") {
            (EnvironmentOrigin::Previous, body)
        } else {
            return Err(EnvironmentErrorReason::InvalidDollar { character });
        };
        let Some((reference, literal)) = body.split_once('}') else {
            return Err(EnvironmentErrorReason::UnterminatedBrace { character });
        };
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let value = match origin {
            EnvironmentOrigin::Previous => previous.get(name).cloned(),
            EnvironmentOrigin::Client => client(name)
                .map(OsString::into_string)
                .transpose()
                .map_err(|_| EnvironmentErrorReason::NotUnicode { name: name.into() })?,
        };
        match (value, default) {
            (Some(value), Some(default)) if value.is_empty() => result.push_str(default),
            (Some(value), _) => result.push_str(&value),
            (None, Some(default)) => result.push_str(default),
            (None, None) => {
                return Err(EnvironmentErrorReason::UnknownVariable {
                    origin,
                    name: name.into(),
                });
            }
        }
        result.push_str(literal);
        rest = &rest[piece.len()..];
    }
    result.push_str(rest);
    Ok(result)
}

/// An image whose configuration has an environment entry without a `=`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("image {image}: environment entry {entry:?} has no `=`")]
pub struct ImageEnvironmentError {
    /// The image's name as written.
    pub image: String,
    /// The entry.
    pub entry: String,
}

/// Turns the `NAME=VALUE` entries of an image's configuration into the map that
/// [`evaluate_environment`] starts from. Of several entries for one name the last wins.
pub fn image_environment<S: AsRef<str>>(
    image: &str,
    entries: impl IntoIterator<Item = S>,
) -> Result<BTreeMap<String, String>, ImageEnvironmentError> {
    entries
        .into_iter()
        .map(|entry| {
            let entry = entry.as_ref();
            match entry.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(ImageEnvironmentError {
                    image: image.to_owned(),
                    entry: entry.to_owned(),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt as _;

    fn client(name: &str) -> Option<OsString> {
        match name {
            "FOO" => Some("foo".into()),
            "EMPTY" => Some("".into()),
            "BAD" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        }
    }

    fn element(vars: &[(&str, &str)], extend: bool) -> EnvironmentElement {
        EnvironmentElement {
            vars: map(vars),
            extend,
        }
    }

    fn map(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        vars.iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn value(text: &str) -> Result<String, String> {
        evaluate_environment(
            map(&[("OLD", "old"), ("NIL", "")]),
            &[element(&[("X", text)], true)],
            client,
        )
        .map(|mut vars| vars.remove("X").unwrap())
        .map_err(|error| error.to_string())
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a$$b$$$$c", "a$b$$c"),
            ("$env{FOO}", "foo"),
            ("<$env{FOO}>$prev{OLD}}", "<foo>old}"),
            ("$env{EMPTY:-x}", "x"),
            ("$env{EMPTY}", ""),
            ("$env{MISSING:-}", ""),
            ("$env{MISSING:-a:-b}", "a:-b"),
            ("$env{FOO:-x}", "foo"),
            ("$prev{NIL:-x}", "x"),
            ("$prev{NIL}", ""),
            ("$prev{PATH:-/bin}:/more", "/bin:/more"),
            ("$$env{FOO}", "$env{FOO}"),
            ("$env{FOO}$$", "foo$"),
            ("é$env{FOO}", "éfoo"),
        ] {
            assert_eq!(value(text), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn errors() {
        for (text, expected) in [
            ("$", "invalid use of `$` at character 1"),
            ("foo$", "invalid use of `$` at character 4"),
            ("é$FOO", "invalid use of `$` at character 2"),
            ("$FOO", "invalid use of `$`"),
            ("$x{A}", "invalid use of `$`"),
            ("$$$", "invalid use of `$` at character 3"),
            ("$env", "invalid use of `$`"),
            ("$env {A}", "invalid use of `$`"),
            ("$env{A", "unterminated brace"),
            ("$env{A:-$env{FOO}}", "unterminated brace"),
            ("$env{A:-$$}", "unterminated brace"),
            ("$prev{PATH}", "unknown variable \"PATH\""),
            ("$env{MISSING}", "unknown variable \"MISSING\""),
            ("$env{OLD}", "unknown variable \"OLD\""),
            ("$prev{FOO}", "unknown variable \"FOO\""),
            ("$env{BAD}", "\"BAD\" is not valid UTF-8"),
            ("$env{BAD:-x}", "\"BAD\" is not valid UTF-8"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains("variable X:"), "{text}: {error}");
        }
    }

    #[test]
    fn elements_extend_or_replace_what_came_before() {
        let evaluated = evaluate_environment(
            map(&[("PATH", "/bin"), ("HOME", "/")]),
            &[
                element(
                    &[("PATH", "/usr$prev{PATH}"), ("COPY", "$prev{PATH}")],
                    true,
                ),
                element(
                    &[("PATH", "$prev{PATH}:$prev{COPY}"), ("$env", "key")],
                    false,
                ),
                element(&[("Z", "$prev{PATH}")], true),
            ],
            client,
        );
        assert_eq!(
            evaluated.unwrap(),
            map(&[
                ("$env", "key"),
                ("PATH", "/usr/bin:/bin"),
                ("Z", "/usr/bin:/bin")
            ])
        );
    }

    #[test]
    fn an_empty_replacing_element_clears() {
        let evaluated = evaluate_environment(map(&[("A", "1")]), &[element(&[], false)], client);
        assert_eq!(evaluated.unwrap(), map(&[]));
    }

    #[test]
    fn image_entries() {
        assert_eq!(
            image_environment("i", ["A=1", "B=x=y", "C=", "A=2"]).unwrap(),
            map(&[("A", "2"), ("B", "x=y"), ("C", "")])
        );
        let error = image_environment("docker://i", ["A=1", "B"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image docker://i: environment entry \"B\" has no `=`"
        );
    }

    proptest! {
        #[test]
        fn dollars_survive_escaping(text in ".*") {
            prop_assert_eq!(value(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "([$a-z{}:é-]|env\\{|prev\\{)*") {
            let _ = value(&text);
        }
    }
}
