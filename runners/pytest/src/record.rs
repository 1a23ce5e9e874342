//! What a run found out about the project that the next one starts its templates by, while it
//! collects tests itself. If it turns out to be wrong, some time of the processor was wasted.

use crate::{
    artifact::file_of,
    cli::PytestArguments,
    collection::{Collection, Item},
};
use maelstrom_runner::files;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
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
    /// With one test of each file only, one that is run if there is one.
    pub(crate) collection: Collection,
    /// A test that is run.
    pub(crate) example: Item,
    /// How many tests are run.
    pub(crate) tests: usize,
}

impl Record {
    /// `None`: no tests are run, or the next run needs other templates in any case.
    pub(crate) fn of(
        collection: &Collection,
        arguments: &PytestArguments,
        interpreter: &Path,
        is_run: impl Fn(&Item) -> bool,
    ) -> Option<Record> {
        if collection.seed.is_some() {
            return None;
        }
        let mut files: BTreeMap<&str, (bool, &Item)> = BTreeMap::new();
        let mut example = None;
        let mut tests = 0;
        for item in &collection.items {
            let (file, is_run) = (file_of(&item.node_id), is_run(item));
            let known = files.entry(file).or_insert((is_run, item));
            if is_run && !known.0 {
                *known = (true, item);
            }
            if is_run {
                tests += 1;
                let is_fit = !collection.unfit.contains_key(file);
                example = example.or(is_fit.then_some(item));
            }
        }
        Some(Record {
            asked: asked(arguments, interpreter),
            collection: collection
                .with_items(files.into_values().map(|(_, item)| item.clone()).collect()),
            example: example?.clone(),
            tests,
        })
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
