//! What is known of test binaries from earlier runs, by their content: asking a binary for its
//! tests takes a process, and an unchanged one gives the same answer.

use crate::toolchain::GoUse;
use maelstrom_content::LayerId;
use maelstrom_runner::files;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// When more are known, those that were not used this time are forgotten.
const MAX_BINARIES: usize = 4000;

/// What is known of one test binary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its tests, in its own order. `None`: it does not say, since it ends too early.
    pub(crate) names: Option<Vec<String>>,
    /// What it may do with the `go` command.
    pub(crate) go_use: GoUse,
}

/// The known binaries.
#[derive(Debug)]
pub(crate) struct KnownBinaries {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    loaded: HashMap<String, Known>,
    used: HashMap<String, Known>,
    is_new: bool,
}

impl KnownBinaries {
    /// Reads the file. Whatever is wrong with it, nothing is known then.
    pub(crate) fn load(path: &Path) -> KnownBinaries {
        let bytes = fs::read(path).unwrap_or_default();
        KnownBinaries {
            path: path.to_owned(),
            state: Mutex::new(State {
                loaded: serde_json::from_slice(&bytes).unwrap_or_default(),
                ..State::default()
            }),
        }
    }

    pub(crate) fn get(&self, binary: LayerId) -> Option<Known> {
        let name = binary.to_string();
        let mut state = self.state();
        let known = state.loaded.get(&name)?.clone();
        state.used.insert(name, known.clone());
        Some(known)
    }

    pub(crate) fn put(&self, binary: LayerId, known: Known) {
        let mut state = self.state();
        state.used.insert(binary.to_string(), known);
        state.is_new = true;
    }

    /// Writes the file, if anything in it is new.
    pub(crate) fn save(&self) {
        let mut state = self.state();
        if !state.is_new {
            return;
        }
        state.is_new = false;
        let used = std::mem::take(&mut state.used);
        if state.loaded.len() + used.len() > MAX_BINARIES {
            state.loaded.clear();
        }
        state.loaded.extend(used);
        let written = serde_json::to_vec(&state.loaded)
            .map_err(io::Error::other)
            .and_then(|bytes| files::write_whole(&self.path, &bytes));
        if let Err(error) = written {
            tracing::warn!("could not write {}: {error}", self.path.display());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_known_next_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache/known.json");
        let known = Known {
            names: Some(vec!["TestA".into()]),
            go_use: GoUse::Race,
        };
        let first = KnownBinaries::load(&path);
        assert_eq!(first.get(LayerId::of(b"a")), None);
        first.put(LayerId::of(b"a"), known.clone());
        first.save();
        let second = KnownBinaries::load(&path);
        assert_eq!(second.get(LayerId::of(b"a")), Some(known));
        assert_eq!(second.get(LayerId::of(b"b")), None);
        fs::write(&path, "rubbish").unwrap();
        assert_eq!(KnownBinaries::load(&path).get(LayerId::of(b"a")), None);
    }
}
