//! What a run found out about the project that the next one starts its templates by, while it
//! collects tests itself; or in place of that, where nothing has changed and a template says that
//! it has collected the same. If the rest turns out to be wrong, some time of the processor was
//! wasted.

use crate::{
    artifact::file_of,
    cli::PytestArguments,
    collection::{Collection, Item},
};
use maelstrom_runner::files;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// In the cache of the project.
const FILE: &str = "last-collection.json";

/// What a run found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What was asked for.
    asked: String,
    /// What the tests were collected from, if that is known.
    source: Option<String>,
    /// Whether what a template says of its collection decides anything.
    is_steady: bool,
    pub(crate) collection: Collection,
}

impl Record {
    /// `None`: the next run needs other templates in any case.
    pub(crate) fn new(
        collection: Collection,
        arguments: &PytestArguments,
        interpreter: &Path,
    ) -> Option<Record> {
        let asked = asked(arguments, interpreter);
        collection.seed.is_none().then_some(Record {
            asked,
            source: None,
            is_steady: true,
            collection,
        })
    }

    /// The tests were collected from this. `is_steady`: without errors, and not from the same as
    /// before with another result.
    pub(crate) fn collected_from(&mut self, source: Option<String>, is_steady: bool) {
        (self.source, self.is_steady) = (source, is_steady);
    }

    /// Whether the same would be collected from this: if a template has.
    pub(crate) fn holds_for(&self, source: Option<&str>) -> bool {
        self.is_steady && self.is_from(source)
    }

    /// Whether the tests were collected from this.
    pub(crate) fn is_from(&self, source: Option<&str>) -> bool {
        source.is_some() && self.source.as_deref() == source
    }

    /// A test that is run in a fork, and how many tests are run. `None`: there is none.
    pub(crate) fn example(&self, is_run: impl Fn(&Item) -> bool) -> Option<(&Item, usize)> {
        let is_fit = |item: &&Item| !self.collection.unfit.contains_key(file_of(&item.node_id));
        let run = || self.collection.items.iter().filter(|item| is_run(item));
        Some((run().find(is_fit)?, run().count()))
    }

    /// What the last run found out, if it was asked for the same.
    pub(crate) fn read(
        cache: &Path,
        arguments: &PytestArguments,
        interpreter: &Path,
    ) -> Option<Record> {
        let text = fs::read(place(cache)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (record.asked == asked(arguments, interpreter)).then_some(record)
    }

    /// Keeps it for the next run, which can do without.
    pub(crate) fn write(&self, cache: &Path) {
        let place = place(cache);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|bytes| files::write_whole(&place, &bytes));
        if let Err(error) = written {
            tracing::debug!("writing {}: {error}", place.display());
        }
    }
}

fn place(cache: &Path) -> PathBuf {
    cache.join(FILE)
}

fn asked(arguments: &PytestArguments, interpreter: &Path) -> String {
    format!("{arguments:?} {}", interpreter.display())
}
