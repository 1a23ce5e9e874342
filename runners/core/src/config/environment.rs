//! The environment variables that configuration depends on, and the directories they name.

use std::{
    collections::HashMap,
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The environment a program was started with, or one that a test made up.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    home: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process. Without `HOME` the home directory comes from the user
    /// database.
    pub fn of_process() -> Self {
        Environment {
            variables: env::vars_os().collect(),
            home: env::home_dir().filter(|home| home.is_absolute()),
        }
    }

    /// An environment of just these variables.
    pub fn from_variables<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables: HashMap<OsString, OsString> = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let home = variables.get(OsStr::new("HOME")).map(PathBuf::from);
        Environment { variables, home }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// Where caches go: `$XDG_CACHE_HOME`, else `~/.cache`, else a directory below the one for
    /// temporary files.
    pub fn cache_home(&self) -> PathBuf {
        self.absolute("XDG_CACHE_HOME")
            .or_else(|| Some(self.home.as_ref()?.join(".cache")))
            .unwrap_or_else(|| env::temp_dir().join("maelstrom-cache"))
    }

    /// The configuration directories, most important first: `$XDG_CONFIG_HOME`, then those of
    /// `$XDG_CONFIG_DIRS`. As the XDG specification has it, empty and relative ones do not count.
    pub fn config_directories(&self) -> Vec<PathBuf> {
        let home = self
            .absolute("XDG_CONFIG_HOME")
            .or_else(|| Some(self.home.as_ref()?.join(".config")));
        let shared = self
            .get("XDG_CONFIG_DIRS")
            .filter(|list| !list.is_empty())
            .unwrap_or(OsStr::new("/etc/xdg"));
        home.into_iter()
            .chain(env::split_paths(shared).filter(|path| path.is_absolute()))
            .collect()
    }

    fn absolute(&self, name: &str) -> Option<PathBuf> {
        let path = Path::new(self.get(name)?);
        path.is_absolute().then(|| path.to_owned())
    }
}
