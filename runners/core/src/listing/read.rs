//! Reads the file: in the form in which it is written quickly, and any other TOML of the same
//! content by way of the general parser.

use super::{CaseMetadata, Cases, ListingError, Outcome, Record, TestListing, VERSION, entry};
use maelstrom_spec::Excerpt;
use std::{fs, io, ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

impl TestListing {
    /// Loads the file at `path`. No file and a file of another version are an empty listing.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not a test listing. It is left alone; since a listing that
    /// is saved replaces it, such an error has to end the run.
    pub fn load(path: &Path) -> Result<Self, ListingError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                let path = path.to_owned();
                return Err(ListingError::Read { path, source });
            }
        };
        Self::from_bytes(&bytes).map_err(|problem| {
            let text = String::from_utf8_lossy(&bytes);
            ListingError::Parse {
                path: path.to_owned(),
                reason: problem.reason,
                excerpt: Box::new(Excerpt::new(&text, problem.span)),
            }
        })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            problem(at..at, "not valid UTF-8")
        })?;
        match parse_own(text) {
            Some(listing) => Ok(listing),
            None => parse_toml(text),
        }
    }
}

/// Something wrong with the file, and where.
#[derive(Debug)]
pub(super) struct Problem {
    reason: String,
    span: Range<usize>,
}

fn problem(span: Range<usize>, reason: impl Into<String>) -> Problem {
    Problem {
        reason: reason.into(),
        span,
    }
}

/// Reads what [`TestListing::save`] writes, in a fraction of the time and memory that a tree of TOML
/// values takes. Gives up on anything else.
pub(super) fn parse_own(text: &str) -> Option<TestListing> {
    let mut lines = text.lines();
    if lines.next()? != "version = 3" {
        return None;
    }
    let mut listing = TestListing::default();
    let mut lines = lines.filter(|line| !line.is_empty()).peekable();
    while let Some(header) = lines.next() {
        let rest = header.strip_prefix('[')?;
        let (package, rest) = own_key(rest)?;
        let (artifact, rest) = own_key(rest.strip_prefix('.')?)?;
        let (case, rest) = own_key(rest.strip_prefix('.')?)?;
        if rest != "]" || package == "version" {
            return None;
        }

        let mut timings = Vec::with_capacity(3);
        let list = lines
            .next()?
            .strip_prefix("timings = [")?
            .strip_suffix(']')?;
        if !list.is_empty() {
            for seconds in list.split(", ") {
                timings.push(own_seconds(seconds)?);
            }
        }
        let outcome = lines
            .next()?
            .strip_prefix("outcome = \"")?
            .strip_suffix('"')?;
        let outcome = Outcome::from_name(outcome)?;
        let metadata = match lines
            .peek()
            .and_then(|line| line.strip_prefix("node_id = "))
        {
            None => None,
            Some(node_id) => {
                let (node_id, "") = own_string(node_id)? else {
                    return None;
                };
                lines.next();
                let markers = own_strings(lines.next()?.strip_prefix("markers = [")?)?;
                Some(CaseMetadata { node_id, markers })
            }
        };

        let cases: &mut Cases = entry(entry(&mut listing.packages, &package), &artifact);
        let record = Record::loaded(&timings, outcome, metadata);
        if cases.insert(case.into(), record).is_some() {
            return None;
        }
    }
    Some(listing)
}

/// A number as it is written: TOML takes fewer texts for numbers than Rust does.
fn own_seconds(text: &str) -> Option<f32> {
    let bytes = text.as_bytes();
    let digit_at = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let plain = digit_at(0)
        && digit_at(bytes.len() - 1)
        && !(bytes[0] == b'0' && digit_at(1))
        && bytes.iter().enumerate().all(|(at, byte)| match byte {
            b'.' => digit_at(at + 1),
            b'e' | b'-' => true,
            byte => byte.is_ascii_digit(),
        });
    text.parse()
        .ok()
        .filter(|seconds: &f32| plain && seconds.is_finite())
}

/// A key and what follows it.
fn own_key(text: &str) -> Option<(String, &str)> {
    if text.starts_with('"') {
        return own_string(text);
    }
    let length = text
        .bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        .count();
    (length > 0).then(|| (text[..length].to_owned(), &text[length..]))
}

/// A quoted string and what follows it. Knows the escapes that are written.
fn own_string(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut string = String::new();
    loop {
        let plain = rest.find(['"', '\\'])?;
        if rest[..plain].contains(|c: char| c.is_ascii_control() && c != '\t') {
            return None;
        }
        string.push_str(&rest[..plain]);
        rest = &rest[plain..];
        if let Some(after) = rest.strip_prefix('"') {
            return Some((string, after));
        }
        let escaped = rest[1..].chars().next()?;
        match escaped {
            '"' | '\\' => {
                string.push(escaped);
                rest = &rest[2..];
            }
            'u' => {
                let digits = rest.get(2..6)?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                string.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                rest = &rest[6..];
            }
            _ => return None,
        }
    }
}

/// Quoted strings with commas between them, up to a bracket that ends the line.
fn own_strings(mut text: &str) -> Option<Vec<String>> {
    let mut strings = Vec::new();
    if text == "]" {
        return Some(strings);
    }
    loop {
        let (string, rest) = own_string(text)?;
        strings.push(string);
        if rest == "]" {
            return Some(strings);
        }
        text = rest.strip_prefix(", ")?;
    }
}

/// Reads any TOML.
pub(super) fn parse_toml(text: &str) -> Result<TestListing, Problem> {
    let table = DeTable::parse(text)
        .map_err(|error| problem(error.span().unwrap_or(0..0), error.message()))?
        .into_inner();
    let Some(version) = table.get("version") else {
        return Err(problem(0..0, "the key `version` is missing"));
    };
    match version.get_ref() {
        DeValue::Integer(number)
            if i64::from_str_radix(number.as_str(), number.radix()) == Ok(VERSION) => {}
        DeValue::Integer(_) => return Ok(TestListing::default()),
        other => return Err(wrong_type(version, "`version` as an integer", other)),
    }
    let mut listing = TestListing::default();
    for (package, artifacts) in &table {
        if package.get_ref() == "version" {
            continue;
        }
        for (artifact, cases) in sub_table(artifacts)? {
            for (case, record) in sub_table(cases)? {
                entry(
                    entry(&mut listing.packages, package.get_ref()),
                    artifact.get_ref(),
                )
                .insert(case.get_ref().as_ref().into(), parse_record(record)?);
            }
        }
    }
    Ok(listing)
}

fn wrong_type(at: &Spanned<DeValue<'_>>, expected: &str, found: &DeValue<'_>) -> Problem {
    problem(at.span(), crate::config::wrong_type(expected, found))
}

fn sub_table<'t, 'i>(value: &'t Spanned<DeValue<'i>>) -> Result<&'t DeTable<'i>, Problem> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        other => Err(wrong_type(value, "a table", other)),
    }
}

fn parse_record(value: &Spanned<DeValue<'_>>) -> Result<Record, Problem> {
    let table = sub_table(value)?;
    let mut timings = Vec::new();
    if let Some(value) = table.get("timings") {
        for element in array(value, "`timings` as an array")? {
            timings.push(seconds(element)?);
        }
    }
    let outcome = match table.get("outcome") {
        None => Outcome::New,
        Some(value) => {
            let name = string(value, "`outcome` as a string")?;
            Outcome::from_name(&name).ok_or_else(|| {
                let names = Outcome::ALL.map(Outcome::name).join(", ");
                problem(
                    value.span(),
                    format!("unknown outcome `{name}`, expected one of {names}"),
                )
            })?
        }
    };
    let metadata = match table.get("node_id") {
        None => None,
        Some(node_id) => Some(CaseMetadata {
            node_id: string(node_id, "`node_id` as a string")?,
            markers: match table.get("markers") {
                None => Vec::new(),
                Some(markers) => array(markers, "`markers` as an array")?
                    .map(|marker| string(marker, "a marker as a string"))
                    .collect::<Result<_, _>>()?,
            },
        }),
    };
    Ok(Record::loaded(&timings, outcome, metadata))
}

fn array<'t, 'i>(
    value: &'t Spanned<DeValue<'i>>,
    expected: &str,
) -> Result<impl Iterator<Item = &'t Spanned<DeValue<'i>>>, Problem> {
    match value.get_ref() {
        DeValue::Array(elements) => Ok(elements.iter()),
        other => Err(wrong_type(value, expected, other)),
    }
}

fn string(value: &Spanned<DeValue<'_>>, expected: &str) -> Result<String, Problem> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(wrong_type(value, expected, other)),
    }
}

fn seconds(value: &Spanned<DeValue<'_>>) -> Result<f32, Problem> {
    let seconds: Option<f32> = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number as f32),
        other => return Err(wrong_type(value, "a number of seconds", other)),
    };
    seconds
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| problem(value.span(), "expected a number of seconds, 0 or more"))
}
