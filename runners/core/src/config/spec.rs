//! The declaration of a program's values: one table, from which the options, the variables, the
//! keys, the help, and the struct with the values all follow.

use super::{ConfigError, ConfigType, Environment, Reader, Shape};
use std::ffi::OsString;

/// How one value is called, given and defaulted. Made by [`config_values!`](crate::config_values).
#[derive(Clone, Debug)]
pub struct ValueSpec {
    pub(crate) key: String,
    pub(crate) help: String,
    pub(crate) shape: Shape,
    pub(crate) choices: &'static [&'static str],
    pub(crate) has_unset: bool,
    pub(crate) short: Option<char>,
    pub(crate) alias: Option<&'static str>,
    pub(crate) value_name: &'static str,
    pub(crate) default: Option<Default>,
    pub(crate) default_note: &'static str,
    pub(crate) separator: Option<char>,
    pub(crate) hidden: bool,
    pub(crate) trailing: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    Text(&'static str),
    Computed(fn(&Environment) -> OsString),
}

impl ValueSpec {
    /// A value of type `T`, its key being the field's name in kebab case.
    pub fn new<T: ConfigType>(field: &str, help: &[&str]) -> Self {
        let help: Vec<&str> = help.iter().map(|line| line.trim()).collect();
        ValueSpec {
            key: field.replace('_', "-"),
            help: help.join(" ").trim().to_owned(),
            shape: T::SHAPE,
            choices: T::CHOICES,
            has_unset: T::HAS_UNSET,
            short: None,
            alias: None,
            value_name: "VALUE",
            default: None,
            default_note: "",
            separator: None,
            hidden: false,
            trailing: false,
        }
    }

    /// Gives it a one-letter option.
    pub fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    /// Gives its option a second name.
    pub fn alias(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }

    /// What stands for its value in the help.
    pub fn value_name(mut self, name: &'static str) -> Self {
        self.value_name = name;
        self
    }

    /// The text that is read when no source has the key.
    pub fn default(mut self, text: &'static str) -> Self {
        self.default = Some(Default::Text(text));
        self
    }

    /// A default that depends on the machine or the environment.
    pub fn default_with(mut self, compute: fn(&Environment) -> OsString) -> Self {
        self.default = Some(Default::Computed(compute));
        self
    }

    /// What the help says happens when the key is unset.
    pub fn unset_means(mut self, note: &'static str) -> Self {
        self.default_note = note;
        self
    }

    /// Lets a single-valued option be repeated; its values are joined by `separator`.
    pub fn joined_by(mut self, separator: char) -> Self {
        self.separator = Some(separator);
        self
    }

    /// Keeps it out of the help.
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Makes a list take everything after `--`.
    pub fn trailing(mut self) -> Self {
        self.trailing = true;
        self
    }

    pub(crate) fn default_text(&self, environment: &Environment) -> Option<OsString> {
        self.default.map(|default| match default {
            Default::Text(text) => text.into(),
            Default::Computed(compute) => compute(environment),
        })
    }

    /// Name of the option that takes a value away again, where there is one.
    pub(crate) fn clearing_option(&self) -> Option<String> {
        (self.has_unset && self.default.is_none()).then(|| format!("no-{}", self.key))
    }
}

/// A struct of configuration values. Implemented by [`config_values!`](crate::config_values), and
/// for tuples, so that a program combines common values with its own.
pub trait ConfigValues: Sized {
    /// The declarations.
    fn specs() -> Vec<ValueSpec>;

    /// Reads every value.
    ///
    /// # Errors
    ///
    /// The first bad value.
    fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError>;
}

macro_rules! config_values_for_tuple {
    ($($part:ident)+) => {
        impl<$($part: ConfigValues),+> ConfigValues for ($($part,)+) {
            fn specs() -> Vec<ValueSpec> {
                [$($part::specs()),+].concat()
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
                Ok(($($part::read(reader)?,)+))
            }
        }
    };
}
config_values_for_tuple!(A);
config_values_for_tuple!(A B);
config_values_for_tuple!(A B C);
config_values_for_tuple!(A B C D);
config_values_for_tuple!(A B C D E);
config_values_for_tuple!(A B C D E F);

impl ConfigValues for () {
    fn specs() -> Vec<ValueSpec> {
        Vec::new()
    }

    fn read(_reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        Ok(())
    }
}

/// Declares a struct of configuration values. A field's name in kebab case is its key, its doc
/// comment the help; what stands in brackets are calls of [`ValueSpec`]'s methods.
///
/// ```
/// maelstrom_runner::config_values! {
///     /// Values of some program.
///     pub struct SomeValues {
///         /// How many times to greet.
///         pub repeat: u32 [short('r'), value_name("COUNT"), default("1")],
///         /// Whom to greet.
///         pub greeted_names: Vec<String> [trailing()],
///         /// Greet loudly.
///         pub loud: bool,
///         /// Where to write the greetings.
///         pub file: Option<std::path::PathBuf> [unset_means("standard output")],
///     }
/// }
/// ```
#[macro_export]
macro_rules! config_values {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $help:literal])+
                $field_vis:vis $field:ident : $type:ty $([ $($method:ident ( $($argument:expr),* )),* $(,)? ])?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[doc = $help])+ $field_vis $field: $type,)*
        }

        impl $crate::config::ConfigValues for $name {
            fn specs() -> Vec<$crate::config::ValueSpec> {
                vec![$(
                    $crate::config::ValueSpec::new::<$type>(stringify!($field), &[$($help),+])
                        $($(.$method($($argument),*))*)?
                ),*]
            }

            fn read(
                reader: &mut $crate::config::Reader<'_>,
            ) -> Result<Self, $crate::config::ConfigError> {
                Ok($name { $($field: reader.value::<$type>(stringify!($field))?,)* })
            }
        }
    };
}
