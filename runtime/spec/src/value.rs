//! Values read from TOML or JSON, with the place where each stands.

use crate::Problem;
use std::{collections::HashSet, ops::Range, path::PathBuf};

/// A value and its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

/// A value of TOML or JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's `null`.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number. The specifications have none, so its value does not matter.
    Float,
    /// TOML's dates and times. The specifications have none either.
    Datetime,
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Node>),
    /// A table, or an object; in the order of the text. JSON may repeat keys, TOML never does.
    Table(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's bytes in the text.
    pub key_span: Range<usize>,
    /// The value.
    pub value: Node,
}

impl Node {
    fn found(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Boolean(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float => "a fractional number",
            Value::Datetime => "a date or time",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// The problem that this value is not what it should be.
    pub fn expected(&self, what: &str) -> Problem {
        Problem::new(
            self.span.clone(),
            format!("expected {what}, found {}", self.found()),
        )
    }

    /// A string. Those with a NUL character are refused: none could reach the kernel.
    pub fn string(&self) -> Result<&str, Problem> {
        match &self.value {
            Value::String(text) if text.contains('\0') => Err(Problem::new(
                self.span.clone(),
                "a string with a NUL character cannot be used",
            )),
            Value::String(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// A path.
    pub fn path(&self) -> Result<PathBuf, Problem> {
        self.string().map(PathBuf::from)
    }

    /// True or false.
    pub fn boolean(&self) -> Result<bool, Problem> {
        match self.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number that fits into `T`.
    pub fn integer<T: TryFrom<i64> + IntegerBounds>(&self) -> Result<T, Problem> {
        let Value::Integer(value) = self.value else {
            return Err(self.expected("an integer"));
        };
        T::try_from(value).map_err(|_| {
            let (least, most) = T::BOUNDS;
            Problem::new(
                self.span.clone(),
                format!("{value} is out of range: expected an integer from {least} to {most}"),
            )
        })
    }

    /// A list.
    pub fn array(&self) -> Result<&[Node], Problem> {
        match &self.value {
            Value::Array(elements) => Ok(elements),
            _ => Err(self.expected("a list")),
        }
    }

    /// A list whose elements `read` understands.
    pub fn list<T>(
        &self,
        read: impl FnMut(&Node) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        self.array()?.iter().map(read).collect()
    }

    /// A table.
    pub fn table(&self) -> Result<&[Entry], Problem> {
        match &self.value {
            Value::Table(entries) => Ok(entries),
            _ => Err(self.expected("a table")),
        }
    }
}

/// Integers with names for their bounds.
pub trait IntegerBounds {
    /// The least and the greatest value.
    const BOUNDS: (i64, i64);
}

impl IntegerBounds for u32 {
    const BOUNDS: (i64, i64) = (u32::MIN as i64, u32::MAX as i64);
}

impl IntegerBounds for i8 {
    const BOUNDS: (i64, i64) = (i8::MIN as i64, i8::MAX as i64);
}

/// A table whose keys are fixed.
pub struct Fields<'a> {
    what: &'static str,
    node: &'a Node,
    entries: &'a [Entry],
}

impl<'a> Fields<'a> {
    /// Reads `node` as a table; `what` names it in messages ("a container"). Repeated keys are
    /// errors.
    pub fn new(node: &'a Node, what: &'static str) -> Result<Self, Problem> {
        let entries = match &node.value {
            Value::Table(entries) => entries,
            _ => return Err(node.expected(&format!("{what} (a table)"))),
        };
        let mut seen = HashSet::new();
        for entry in entries {
            if !seen.insert(&entry.key) {
                return Err(Problem::new(
                    entry.key_span.clone(),
                    format!("duplicate key `{}` in {what}", entry.key),
                ));
            }
        }
        Ok(Fields {
            what,
            node,
            entries,
        })
    }

    /// Refuses all keys but these.
    pub fn allow_only(&self, known: &[&[&str]]) -> Result<(), Problem> {
        let known: Vec<&str> = known.concat();
        match self
            .entries
            .iter()
            .find(|entry| !known.contains(&&*entry.key))
        {
            None => Ok(()),
            Some(entry) => {
                let message = format!("unknown key `{}` in {}", entry.key, self.what);
                Err(
                    Problem::new(entry.key_span.clone(), message).with_help(suggest(
                        &entry.key,
                        &known,
                        "known keys are",
                    )),
                )
            }
        }
    }

    /// The entry with this key. JSON's `null` is as good as none.
    pub fn get(&self, key: &str) -> Option<&'a Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key == key && entry.value.value != Value::Null)
    }

    /// The value of a key that must be there.
    pub fn require(&self, key: &str) -> Result<&'a Node, Problem> {
        match self.get(key) {
            Some(entry) => Ok(&entry.value),
            None => Err(Problem::new(
                self.node.span.clone(),
                format!("missing key `{key}` in {}", self.what),
            )),
        }
    }

    /// The value of a key, if it is there, as `read` understands it.
    pub fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Node) -> Result<T, Problem>,
    ) -> Result<Option<T>, Problem> {
        self.get(key).map(|entry| read(&entry.value)).transpose()
    }
}

/// Advice for a name that is none of the known ones.
pub fn suggest(unknown: &str, known: &[&str], known_are: &str) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(unknown, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((similarity, name)) if similarity >= 0.6 => format!("did you mean `{name}`?"),
        _ => {
            let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            format!("{known_are} {}", quoted.join(", "))
        }
    }
}

/// Picks the item that `node`, a string, names.
pub(crate) fn choose<T: Copy>(
    node: &Node,
    what: &str,
    items: impl IntoIterator<Item = T>,
    name: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    let text = node.string()?;
    let items: Vec<T> = items.into_iter().collect();
    match items.iter().find(|item| name(**item) == text) {
        Some(item) => Ok(*item),
        None => {
            let names: Vec<&str> = items.iter().map(|item| name(*item)).collect();
            Err(
                Problem::new(node.span.clone(), format!("unknown {what} {text:?}"))
                    .with_help(suggest(text, &names, "expected one of")),
            )
        }
    }
}
