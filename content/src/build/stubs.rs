//! Empty files and directories, named by patterns with braces.

use crate::{LayerBuilder, LayerError};
use std::path::Path;

const FILE_MODE: u32 = 0o444;
const DIRECTORY_MODE: u32 = 0o555;

/// How many names one stub may stand for.
const MAX_NAMES: usize = 100_000;

/// How many characters all names of one stub may have together.
const MAX_CHARACTERS: usize = 16 << 20;

pub(super) fn add(builder: &mut LayerBuilder, stubs: &[String]) -> Result<(), LayerError> {
    for stub in stubs {
        let names = expand(stub).map_err(|problem| LayerError::Stub {
            stub: stub.clone(),
            problem,
        })?;
        for name in names {
            if name.ends_with('/') || name.is_empty() {
                builder.add_directory(Path::new(&name), DIRECTORY_MODE);
            } else {
                builder.add_bytes(Path::new(&name), [], FILE_MODE);
            }
        }
    }
    Ok(())
}

/// All names that a stub stands for.
fn expand(stub: &str) -> Result<Vec<String>, &'static str> {
    if !stub.contains('{') {
        return Ok(vec![stub.to_owned()]);
    }
    let mut parser = Parser {
        rest: stub,
        depth: 0,
    };
    let names = parser.sequence()?;
    match parser.rest {
        "" => Ok(names),
        _ => Err("a `}` closes nothing"),
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    /// Text and braces up to the end, or up to what ends an alternative.
    fn sequence(&mut self) -> Result<Vec<String>, &'static str> {
        let mut names = vec![String::new()];
        loop {
            let stop: &[char] = if self.depth > 0 {
                &['{', '}', ',']
            } else {
                &['{', '}']
            };
            let length = self.rest.find(stop).unwrap_or(self.rest.len());
            let (text, rest) = self.rest.split_at(length);
            for name in &mut names {
                name.push_str(text);
            }
            self.rest = rest;
            if !self.rest.starts_with('{') {
                return Ok(names);
            }
            let alternatives = self.braces()?;
            names = product(&names, &alternatives)?;
        }
    }

    fn braces(&mut self) -> Result<Vec<String>, &'static str> {
        const UNCLOSED: &str = "a `{` is not closed";
        if self.depth == 64 {
            return Err("its braces are nested too deep");
        }
        self.rest = &self.rest[1..];
        if let Some((inside, rest)) = self.rest.split_once('}')
            && let Some(range) = range(inside)
        {
            self.rest = rest;
            return range;
        }
        self.depth += 1;
        let mut alternatives = Vec::new();
        loop {
            alternatives.extend(self.sequence()?);
            if alternatives.len() > MAX_NAMES {
                return Err("it stands for too many names");
            }
            let mut rest = self.rest.chars();
            let end = rest.next().ok_or(UNCLOSED)?;
            self.rest = rest.as_str();
            if end == '}' {
                self.depth -= 1;
                return Ok(alternatives);
            }
        }
    }
}

/// `1..3`, `3..1`, `01..10`, `a..c`, each also with a step: `1..9..2`.
fn range(text: &str) -> Option<Result<Vec<String>, &'static str>> {
    let mut parts = text.split("..");
    let (first, last) = (parts.next()?, parts.next()?);
    let step = match parts.next() {
        None => 1,
        Some(step) => step.parse::<i64>().ok()?.unsigned_abs().max(1),
    };
    if parts.next().is_some() {
        return None;
    }
    let single = |text: &str| {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(c), None) if c.is_ascii_alphabetic() => Some(c as i64),
            _ => None,
        }
    };
    if let (Some(first), Some(last)) = (single(first), single(last)) {
        return Some(steps(first, last, step).map(|numbers| {
            numbers
                .into_iter()
                .filter_map(|number| u8::try_from(number).ok())
                .map(|byte| char::from(byte).to_string())
                .collect()
        }));
    }
    let padded = |text: &str| {
        let digits = text.trim_start_matches('-');
        digits.len() > 1 && digits.starts_with('0')
    };
    let width = if padded(first) || padded(last) {
        first.len().max(last.len())
    } else {
        0
    };
    if width > 255 {
        return Some(Err("its numbers are too long"));
    }
    let (first, last) = (first.parse::<i64>().ok()?, last.parse::<i64>().ok()?);
    Some(steps(first, last, step).map(|numbers| {
        numbers
            .into_iter()
            .map(|number| format!("{number:0width$}"))
            .collect()
    }))
}

fn steps(first: i64, last: i64, step: u64) -> Result<Vec<i64>, &'static str> {
    let count = first.abs_diff(last) / step;
    if count >= MAX_NAMES as u64 {
        return Err("it stands for too many names");
    }
    let direction = if first <= last { 1 } else { -1 };
    Ok((0..=count)
        // Never beyond `last`, so nothing overflows.
        .map(|index| first.wrapping_add(direction * (index * step) as i64))
        .collect())
}

fn product(heads: &[String], tails: &[String]) -> Result<Vec<String>, &'static str> {
    let characters: usize = heads.len() * tails.iter().map(String::len).sum::<usize>()
        + tails.len() * heads.iter().map(String::len).sum::<usize>();
    if heads.len() * tails.len() > MAX_NAMES || characters > MAX_CHARACTERS {
        return Err("it stands for too many names");
    }
    Ok(heads
        .iter()
        .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the specification.
    #[test]
    fn table() {
        for (stub, expected) in [
            ("/dev/{null,zero}", vec!["/dev/null", "/dev/zero"]),
            ("/{proc,tmp}/", vec!["/proc/", "/tmp/"]),
            ("{a,b}{c,d}", vec!["ac", "ad", "bc", "bd"]),
            ("a{b,{c,d}}", vec!["ab", "ac", "ad"]),
            ("a{1..3}", vec!["a1", "a2", "a3"]),
            ("/dev/{null}", vec!["/dev/null"]),
            ("a{}", vec!["a"]),
            ("/dev/{null,zero,}", vec!["/dev/null", "/dev/zero", "/dev/"]),
            ("/dev/{null, full}", vec!["/dev/null", "/dev/ full"]),
            ("a}b", vec!["a}b"]),
            ("a,b", vec!["a,b"]),
            ("a{3..1}", vec!["a3", "a2", "a1"]),
            ("a{08..10}", vec!["a08", "a09", "a10"]),
            ("{a..e..2}", vec!["a", "c", "e"]),
            ("{a..b}x", vec!["ax", "bx"]),
            ("{a.b,c..}", vec!["a.b", "c.."]),
        ] {
            assert_eq!(expand(stub).unwrap(), expected, "{stub}");
        }
    }

    #[test]
    fn malformed() {
        for stub in ["a{b", "{", "{a,{b}", "{a}}", "a{b}c}"] {
            assert!(expand(stub).is_err(), "{stub}");
        }
    }

    #[test]
    fn absurd() {
        for stub in [
            "{1..1000000000000}".to_owned(),
            "{-9223372036854775808..9223372036854775807}".to_owned(),
            "{1..1000}{1..1000}".to_owned(),
            "{a,b}".repeat(64),
            "{".repeat(100_000),
        ] {
            assert!(expand(&stub).is_err());
        }
        assert_eq!(
            expand("{9223372036854775806..9223372036854775807}")
                .unwrap()
                .len(),
            2
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(stub in "[a{},.1/ -]{0,40}") {
            let _ = expand(&stub);
        }
    }
}
