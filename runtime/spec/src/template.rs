//! `<name>` in the paths of layers.

use std::collections::BTreeMap;
use thiserror::Error;

/// The variables that a template may use, and their values.
pub type TemplateVariables = BTreeMap<String, String>;

/// A template that uses a variable that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown template variable <{name}>")]
pub struct TemplateError {
    /// The variable.
    pub name: String,
}

/// Replaces each `<name>` by its value. In front of a `name>`, `<<` stands for one literal `<`;
/// everywhere else `<` stands for itself.
pub fn expand_template(text: &str, variables: &TemplateVariables) -> Result<String, TemplateError> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        result.push_str(&rest[..start]);
        let after = rest[start..].trim_start_matches('<');
        let brackets = rest.len() - start - after.len();
        rest = after;
        let Some(name) = leading_name(after) else {
            result.push_str(&"<".repeat(brackets));
            continue;
        };
        result.push_str(&"<".repeat(brackets / 2));
        if brackets % 2 == 1 {
            match variables.get(name) {
                Some(value) => result.push_str(value),
                None => return Err(TemplateError { name: name.into() }),
            }
            rest = &after[name.len() + 1..];
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// The name that `text` starts with, if a `>` follows it.
fn leading_name(text: &str) -> Option<&str> {
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b == b'-';
    let length = text
        .bytes()
        .position(|b| !is_letter(b) && !b.is_ascii_digit())?;
    let good = text.bytes().next().is_some_and(is_letter) && text[length..].starts_with('>');
    good.then(|| &text[..length])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> Result<String, TemplateError> {
        let variables = [("build-dir", "/t/debug"), ("x2", "<build-dir>")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        expand_template(text, &TemplateVariables::from(variables))
    }

    #[test]
    fn templates() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("<build-dir>/x", "/t/debug/x"),
            ("a/<build-dir>/<build-dir>", "a//t/debug//t/debug"),
            ("<<build-dir>", "<build-dir>"),
            ("<<build-dir>/<build-dir>", "<build-dir>//t/debug"),
            ("<<<build-dir>", "</t/debug"),
            ("<<<<build-dir>", "<<build-dir>"),
            ("<<other>", "<other>"),
            ("<x2>", "<build-dir>"),
            ("a<b", "a<b"),
            ("a<<b", "a<<b"),
            ("<a b>", "<a b>"),
            ("<>", "<>"),
            ("<2x>", "<2x>"),
            ("<é>", "<é>"),
            ("<a<build-dir>", "<a/t/debug"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unknown_variables() {
        for (text, name) in [
            ("<other>", "other"),
            ("<build-dir>/<-a1>", "-a1"),
            ("<<<y>", "y"),
        ] {
            assert_eq!(expand(text), Err(TemplateError { name: name.into() }));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "([<>a-z0-9é -]|<build-dir>)*") {
            let _ = expand(&text);
        }

        #[test]
        fn text_without_brackets_is_untouched(text in "[^<]*") {
            prop_assert_eq!(expand(&text), Ok(text));
        }
    }
}
