//! What a run found out about the project that the next one starts its templates by, while it
//! collects tests itself; or in place of that, where nothing has changed and a template says that
//! it has collected the same. If the rest turns out to be wrong, some time of the processor was
//! wasted.

use crate::{
    artifact::file_of,
    cli::PytestArguments,
    collection::{self, Collection, Item},
};
use maelstrom_runner::files;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// In the cache of the project: a file for all that was asked for of late.
const DIRECTORY: &str = "collections-1";

/// So many.
const KEPT: usize = 8;

/// What a run found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What was asked for.
    asked: String,
    /// What the tests were collected from, if that is known.
    source: Option<String>,
    /// Whether what a template says of its collection decides anything.
    pub(crate) is_steady: bool,
    pub(crate) collection: Collection,
}

impl Record {
    /// `None`: the next run needs other templates in any case. `is_steady`: the same would have
    /// been collected in a container, as far as is known.
    pub(crate) fn new(
        collection: Collection,
        source: Option<String>,
        is_steady: bool,
        arguments: &PytestArguments,
        interpreter: &Path,
    ) -> Option<Record> {
        let asked = asked(arguments, interpreter);
        collection.seed.is_none().then_some(Record {
            asked,
            source,
            is_steady,
            collection,
        })
    }

    /// Whether anything could be said for it that makes collecting needless.
    pub(crate) fn may_hold(&self) -> bool {
        self.is_steady && self.source.is_some()
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
        let asked = asked(arguments, interpreter);
        let text = fs::read(place(cache, &asked)).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (record.asked == asked).then_some(record)
    }

    /// It was of use again.
    pub(crate) fn touch(&self, cache: &Path) {
        let file = fs::File::options()
            .append(true)
            .open(place(cache, &self.asked));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Keeps it for the next run, which can do without.
    pub(crate) fn write(&self, cache: &Path) {
        let place = place(cache, &self.asked);
        let written = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|bytes| files::write_whole(&place, &bytes))
            .and_then(|()| sweep(&cache.join(DIRECTORY)));
        if let Err(error) = written {
            tracing::debug!("writing {}: {error}", place.display());
        }
    }
}

fn place(cache: &Path, asked: &str) -> PathBuf {
    let name = blake3::hash(asked.as_bytes()).to_hex();
    cache.join(DIRECTORY).join(&name[..32])
}

/// Drops what was written the longest ago.
fn sweep(directory: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort_unstable();
    let surplus = files.len().saturating_sub(KEPT);
    for (_, path) in files.into_iter().take(surplus) {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn asked(arguments: &PytestArguments, interpreter: &Path) -> String {
    // Another version may find out something else.
    let script = blake3::hash(collection::SCRIPT.as_bytes());
    format!("{arguments:?} {} {script}", interpreter.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::PythonEnvironment;
    use std::time::Duration;

    #[test]
    fn only_what_was_asked_for_of_late_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let arguments = |number: usize| PytestArguments {
            select: vec![format!("test_{number}.py")],
            ..PytestArguments::default()
        };
        let interpreter = Path::new("python");
        for number in 0..KEPT + 2 {
            let collection = serde_json::from_value(serde_json::json!({
                "code": 0, "items": [], "fingerprints": { "a.py": number.to_string() }, "unfit": {},
                "functions_left_out": [], "environment": PythonEnvironment::default(),
                "root": "/", "distributes": false, "covers": false,
                "chooses_by_results": false, "seed": null,
            }));
            let collection = collection.unwrap();
            let record = Record::new(collection, None, true, &arguments(number), interpreter);
            record.unwrap().write(temp.path());
            let age = Duration::from_secs(100 - number as u64);
            let written = place(temp.path(), &asked(&arguments(number), interpreter));
            let file = fs::File::options().append(true).open(written).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let read = |number| Record::read(temp.path(), &arguments(number), interpreter);
        assert!(read(0).is_none() && read(1).is_none());
        for number in 2..KEPT + 2 {
            let found = read(number).unwrap().collection.fingerprints;
            assert_eq!(found["a.py"], number.to_string());
        }
        assert!(Record::read(temp.path(), &arguments(2), Path::new("other")).is_none());
    }
}
