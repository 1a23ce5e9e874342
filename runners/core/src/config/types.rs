//! What types configuration values can have, and how each is read from the text of an option or
//! variable and from TOML.

use crate::size::ByteSize;
use std::{
    ffi::{OsStr, OsString},
    fmt,
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
};
use toml::de::DeValue;

/// How a value is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `--key`, or `--key=true` and `--key=false`.
    Flag,
    /// `--key VALUE`, once.
    Single,
    /// `--key VALUE`, any number of times.
    List,
}

/// What a source has for a key.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// The text of an option or a variable.
    Text(&'a OsStr),
    /// The texts of an option that was repeated, or of what follows `--`.
    Texts(&'a [OsString]),
    /// The value in a configuration file.
    Toml(&'a DeValue<'a>),
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Text(text) => write!(f, "{}", text.display()),
            Given::Texts(texts) => {
                for (index, text) in texts.iter().enumerate() {
                    let blank = if index == 0 { "" } else { " " };
                    write!(f, "{blank}{}", text.display())?;
                }
                Ok(())
            }
            Given::Toml(value) => f.write_str(value.type_str()),
        }
    }
}

/// A type that a configuration value can have: a [`Scalar`], an optional one, a `bool`, or a
/// list of strings.
pub trait ConfigType: Sized {
    /// How it is given on the command line.
    const SHAPE: Shape;
    /// The only texts it takes, if they can be counted.
    const CHOICES: &'static [&'static str] = &[];
    /// Whether a key without a value is possible.
    const HAS_UNSET: bool;

    /// The value of a key that no source has and that has no default.
    fn unset() -> Option<Self>;

    /// Reads it. The error says what is wrong, without naming the place.
    fn from_given(given: Given<'_>) -> Result<Self, String>;

    /// How `--print-config` shows it.
    fn show(&self) -> String;
}

/// A type whose values are one text each.
pub trait Scalar: Sized {
    /// See [`ConfigType::CHOICES`].
    const CHOICES: &'static [&'static str] = &[];

    /// Reads an option or a variable.
    fn from_text(text: &OsStr) -> Result<Self, String>;

    /// Reads a value of a configuration file: unless told otherwise, a string as above.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::from_text(OsStr::new(text.as_ref())),
            other => Err(wrong_type("a string", other)),
        }
    }

    /// How `--print-config` shows it.
    fn show(&self) -> String;
}

impl<T: Scalar> ConfigType for T {
    const SHAPE: Shape = Shape::Single;
    const CHOICES: &'static [&'static str] = T::CHOICES;
    const HAS_UNSET: bool = false;

    fn unset() -> Option<Self> {
        None
    }

    fn from_given(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Text(text) => T::from_text(text),
            Given::Texts([text]) => T::from_text(text),
            Given::Texts(_) => Err("expected one value".into()),
            Given::Toml(value) => T::from_toml(value),
        }
    }

    fn show(&self) -> String {
        Scalar::show(self)
    }
}

impl<T: Scalar> ConfigType for Option<T> {
    const SHAPE: Shape = Shape::Single;
    const CHOICES: &'static [&'static str] = T::CHOICES;
    const HAS_UNSET: bool = true;

    fn unset() -> Option<Self> {
        Some(None)
    }

    fn from_given(given: Given<'_>) -> Result<Self, String> {
        T::from_given(given).map(Some)
    }

    fn show(&self) -> String {
        match self {
            None => "None".into(),
            Some(value) => format!("Some({})", Scalar::show(value)),
        }
    }
}

impl ConfigType for bool {
    const SHAPE: Shape = Shape::Flag;
    const HAS_UNSET: bool = true;

    fn unset() -> Option<Self> {
        Some(false)
    }

    fn from_given(given: Given<'_>) -> Result<Self, String> {
        let text = match given {
            Given::Toml(DeValue::Boolean(value)) => return Ok(*value),
            Given::Toml(other) => return Err(wrong_type("`true` or `false`", other)),
            Given::Text(text) => text.to_str(),
            Given::Texts(_) => None,
        };
        match text {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err("expected `true` or `false`".into()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl ConfigType for Vec<String> {
    const SHAPE: Shape = Shape::List;
    const HAS_UNSET: bool = true;

    fn unset() -> Option<Self> {
        Some(Vec::new())
    }

    fn from_given(given: Given<'_>) -> Result<Self, String> {
        match given {
            Given::Text(text) => Ok(split_variable(utf8(text)?)),
            Given::Texts(texts) => texts
                .iter()
                .map(|text| utf8(text).map(Into::into))
                .collect(),
            Given::Toml(DeValue::Array(elements)) => elements
                .iter()
                .map(|element| match element.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(wrong_type("an array of strings", other)),
                })
                .collect(),
            Given::Toml(other) => Err(wrong_type("an array of strings", other)),
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// The elements of a list in an environment variable: split at spaces, empty ones dropped. A text
/// that is a TOML array of strings through and through (`["-k", "a or b"]`) is read as that, so
/// that elements can have blanks.
fn split_variable(text: &str) -> Vec<String> {
    if text.starts_with("[\"")
        && text.ends_with("\"]")
        && let Ok(value) = DeValue::parse(text)
        && let Ok(elements) = Vec::from_given(Given::Toml(value.get_ref()))
    {
        return elements;
    }
    text.split(' ')
        .filter(|element| !element.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The message for a TOML value of another type than the key wants.
pub fn wrong_type(expected: &str, found: &DeValue<'_>) -> String {
    let article = match found.type_str() {
        kind @ ("array" | "integer") => format!("an {kind}"),
        kind => format!("a {kind}"),
    };
    format!("expected {expected}, found {article}")
}

/// The text of an option or variable that has to be UTF-8.
///
/// # Errors
///
/// The message that says so.
pub fn utf8(text: &OsStr) -> Result<&str, String> {
    text.to_str().ok_or_else(|| "not valid UTF-8".into())
}

impl Scalar for String {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        utf8(text).map(str::to_owned)
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Scalar for PathBuf {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a path".into());
        }
        Ok(PathBuf::from(text))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

/// Reads a whole number between two bounds, both included.
///
/// # Errors
///
/// The message that names the bounds.
pub fn number_from_text(text: &OsStr, smallest: u64, largest: u64) -> Result<u64, String> {
    text.to_str()
        .and_then(|text| text.parse().ok())
        .filter(|number| (smallest..=largest).contains(number))
        .ok_or_else(|| format!("expected a whole number from {smallest} to {largest}"))
}

/// Like [`number_from_text`], for a TOML integer.
///
/// # Errors
///
/// The message that names the type found or the bounds.
pub fn number_from_toml(value: &DeValue<'_>, smallest: u64, largest: u64) -> Result<u64, String> {
    let DeValue::Integer(number) = value else {
        let expected = format!("a whole number from {smallest} to {largest}");
        return Err(wrong_type(&expected, value));
    };
    u64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| (smallest..=largest).contains(number))
        .ok_or_else(|| format!("expected a whole number from {smallest} to {largest}"))
}

/// Implements [`Scalar`] for a number type with the given bounds.
macro_rules! scalar_number {
    ($type:ty, $smallest:expr, $largest:expr, $from:expr) => {
        impl Scalar for $type {
            fn from_text(text: &OsStr) -> Result<Self, String> {
                number_from_text(text, $smallest, u64::from($largest)).map($from)
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                number_from_toml(value, $smallest, u64::from($largest)).map($from)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}
pub(crate) use scalar_number;

scalar_number!(u16, 0, u16::MAX, |number| number as u16);
scalar_number!(u32, 0, u32::MAX, |number| number as u32);
scalar_number!(NonZeroU32, 1, u32::MAX, |number| {
    NonZeroU32::new(number as u32).expect("the lower bound is 1")
});

impl Scalar for ByteSize {
    fn from_text(text: &OsStr) -> Result<Self, String> {
        ByteSize::from_str(utf8(text)?).map_err(|error| error.to_string())
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(number) if number.as_str().starts_with('-') => {
                Err("a size cannot be negative".into())
            }
            DeValue::Integer(_) => number_from_toml(value, 0, u64::MAX).map(ByteSize),
            DeValue::String(text) => Self::from_text(OsStr::new(text.as_ref())),
            other => Err(wrong_type("an integer or a string", other)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}
