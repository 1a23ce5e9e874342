//! Looks each key up in its sources, most important first.

use super::{
    ConfigError, ConfigType, Environment, Given, Origin, Program, ValueSpec,
    program::generic_variable,
};
use clap::{ArgMatches, parser::ValueSource};
use maelstrom_spec::Excerpt;
use std::{
    ffi::OsString,
    fmt::Write,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// A configuration file larger than this is none.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The text of a configuration file.
pub(crate) struct ConfigText {
    path: PathBuf,
    text: String,
}

impl ConfigText {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        read_text(path)
            .map_err(|source| ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            })
            .map(|text| ConfigText {
                path: path.to_owned(),
                text,
            })
    }

    /// The files of `paths` that exist.
    pub(crate) fn read_existing(paths: &[PathBuf]) -> Result<Vec<Self>, ConfigError> {
        let mut texts = Vec::new();
        for path in paths {
            match Self::read(path) {
                Ok(text) => texts.push(text),
                Err(ConfigError::Unreadable { source, .. })
                    if matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(texts)
    }

    pub(crate) fn parse(&self) -> Result<ConfigFile<'_>, ConfigError> {
        match DeTable::parse(&self.text) {
            Ok(table) => Ok(ConfigFile {
                path: &self.path,
                text: &self.text,
                table: table.into_inner(),
            }),
            Err(error) => Err(ConfigError::Syntax {
                path: self.path.clone(),
                reason: error.message().to_owned(),
                excerpt: Box::new(Excerpt::new(&self.text, error.span().unwrap_or(0..0))),
            }),
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if bytes as u64 > MAX_FILE_BYTES {
        let message = format!("larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// A parsed configuration file.
pub(crate) struct ConfigFile<'a> {
    path: &'a Path,
    text: &'a str,
    table: DeTable<'a>,
}

/// Reads the values of a program. Handed to [`ConfigValues::read`](super::ConfigValues::read).
pub struct Reader<'a> {
    pub(crate) program: &'a Program,
    pub(crate) specs: &'a [ValueSpec],
    pub(crate) matches: &'a ArgMatches,
    pub(crate) environment: &'a Environment,
    pub(crate) files: &'a [ConfigFile<'a>],
    /// What `--print-config` prints: one line for each value read.
    pub(crate) shown: String,
}

impl Reader<'_> {
    /// The value of a field, from the first source that has its key.
    ///
    /// # Errors
    ///
    /// That source's value is bad.
    ///
    /// # Panics
    ///
    /// When the field was not declared: a mistake in the program.
    pub fn value<T: ConfigType>(&mut self, field: &str) -> Result<T, ConfigError> {
        let specs = self.specs;
        let key = field.replace('_', "-");
        let spec = specs
            .iter()
            .find(|spec| spec.key == key)
            .expect("values are declared before they are read");
        let (value, origin) = self.look_up::<T>(spec)?;
        // Writing to a string cannot fail.
        let _ = writeln!(self.shown, "    {field}: {}, // {origin}", value.show());
        Ok(value)
    }

    fn look_up<T: ConfigType>(&self, spec: &ValueSpec) -> Result<(T, Origin), ConfigError> {
        if let Some(found) = self.on_command_line(spec) {
            return found;
        }
        let variables = [
            self.program.own_variable(&spec.key),
            generic_variable(&spec.key),
        ];
        for variable in variables {
            if let Some(text) = self.environment.get(&variable) {
                return match T::from_given(Given::Text(text)) {
                    Ok(value) => Ok((value, Origin::Variable(variable))),
                    Err(reason) => Err(ConfigError::BadVariable {
                        variable,
                        value: text.display().to_string(),
                        reason,
                    }),
                };
            }
        }
        for file in self.files {
            if let Some(value) = file.table.get(spec.key.as_str()) {
                return match T::from_given(Given::Toml(value.get_ref())) {
                    Ok(value) => Ok((value, Origin::File(file.path.to_owned()))),
                    Err(reason) => Err(ConfigError::BadKey {
                        key: spec.key.clone(),
                        path: file.path.to_owned(),
                        reason,
                        excerpt: Box::new(Excerpt::new(file.text, value.span())),
                    }),
                };
            }
        }
        if let Some(text) = spec.default_text(self.environment) {
            return match T::from_given(Given::Text(&text)) {
                Ok(value) => Ok((value, Origin::Default)),
                Err(reason) => Err(ConfigError::BadOption {
                    option: format!("--{} (its default)", spec.key),
                    value: text.display().to_string(),
                    reason,
                }),
            };
        }
        let unset = T::unset().expect("a value that cannot be unset is declared with a default");
        Ok((unset, Origin::Default))
    }

    fn on_command_line<T: ConfigType>(
        &self,
        spec: &ValueSpec,
    ) -> Option<Result<(T, Origin), ConfigError>> {
        if let Some(clearing) = spec.clearing_option()
            && self.matches.get_flag(&clearing)
        {
            return Some(Ok((T::unset()?, Origin::Option(format!("--{clearing}")))));
        }
        if self.matches.value_source(&spec.key) != Some(ValueSource::CommandLine) {
            return None;
        }
        let mut texts: Vec<OsString> = self
            .matches
            .get_many::<OsString>(&spec.key)?
            .cloned()
            .collect();
        if let Some(separator) = spec.separator {
            texts = vec![texts.join(std::ffi::OsStr::new(&separator.to_string()))];
        }
        let option = match spec.trailing {
            true => "arguments after `--`".to_owned(),
            false => format!("--{}", spec.key),
        };
        let given = match (T::SHAPE, texts.as_slice()) {
            (super::Shape::List, texts) => Given::Texts(texts),
            (_, [text]) => Given::Text(text),
            (_, texts) => Given::Texts(texts),
        };
        Some(match T::from_given(given) {
            Ok(value) => Ok((value, Origin::Option(option))),
            Err(reason) => Err(ConfigError::BadOption {
                option,
                value: given.to_string(),
                reason,
            }),
        })
    }
}
