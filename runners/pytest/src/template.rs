//! The template: an interpreter in a container that imports pytest and all test modules once, and
//! forks for every test.

use crate::{
    artifact::{RunArguments, file_of, run_options},
    cli::PytestArguments,
    collection::{Collection, Item},
};
use maelstrom_runner::runner::TemplateCommand;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Runs in the container's interpreter.
const SCRIPT: &str = concat!(
    include_str!("python/common.py"),
    include_str!("python/items.py"),
    include_str!("python/traces.py"),
    include_str!("python/rewritten.py"),
    include_str!("python/hypothesis_data.py"),
    include_str!("python/last_words.py"),
    include_str!("python/template.py")
);

/// How long the names of modules may be that the template is told to leave out, in bytes. With
/// more it imports some that no test needs.
const MAX_IGNORED_BYTES: usize = 64 << 10;

/// How long the names of modules may be that a template in a container image is told to import,
/// in bytes. With more there is none: all arguments of a program may have 2 MiB.
const MAX_NAMED_BYTES: usize = 256 << 10;

/// Which tests are run in forks, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Templates {
    /// In containers like the machine. `None`: no tests are.
    arguments: Option<Vec<String>>,
    /// In container images.
    arguments_in_image: Option<Vec<String>>,
    /// Files and directories whose tests get fresh interpreters.
    unfit: BTreeSet<String>,
    /// Files and directories that are not collected in containers like the machine.
    left_out: BTreeSet<String>,
}

impl Templates {
    /// `rewritten` is where rewritten modules are, `is_run` says which tests are run at all.
    pub(crate) fn new(
        given: &PytestArguments,
        collection: &Collection,
        from_start: &RunArguments,
        rewritten: &Path,
        is_run: impl Fn(&Item) -> bool,
    ) -> Templates {
        if given.fresh_interpreters {
            return Templates::default();
        }
        if collection.unfit.contains_key("") {
            return Templates::default();
        }
        let unfit: BTreeSet<String> = collection.unfit.keys().cloned().collect();
        let files: BTreeSet<&str> = collection
            .items
            .iter()
            .map(|item| file_of(&item.node_id))
            .collect();
        let run: BTreeSet<&str> = collection
            .items
            .iter()
            .filter(|item| is_run(item))
            .map(|item| file_of(&item.node_id))
            .collect();
        // There may be anything in the directory that the tests lie in: often it is the root of
        // the file system. So the files are named, whatever the user has named.
        let named: Vec<String> = run
            .iter()
            .filter(|file| !is_in(file, &unfit))
            .map(|file| from_start.name(file))
            .collect();
        // Files can be left out by pytest's own options, and functions cannot.
        let mut left_out = collection.functions_left_out.clone();
        let mut length_bytes = 0;
        left_out.retain(|name| {
            length_bytes += name.len();
            length_bytes <= MAX_IGNORED_BYTES
        });
        let start = vec![
            "-c".to_owned(),
            SCRIPT.to_owned(),
            json!(left_out).to_string(),
            rewritten.display().to_string(),
        ];
        let arguments_in_image = (named.iter().map(String::len).sum::<usize>() <= MAX_NAMED_BYTES)
            .then(|| {
                let mut arguments = start.clone();
                arguments.push(from_start.root());
                arguments.extend(run_options(given, collection));
                arguments.extend(given.collect.iter().cloned());
                arguments.extend(named);
                arguments
            });
        let unused: Vec<&str> = files.difference(&run).copied().collect();
        let mut ignored = unfit.clone();
        if unused.iter().map(|name| name.len()).sum::<usize>() <= MAX_IGNORED_BYTES {
            ignored.extend(unused.into_iter().map(str::to_owned));
        }
        let mut arguments = start;
        arguments.extend(run_options(given, collection));
        arguments.extend(given.collect.iter().cloned());
        for name in &ignored {
            let path = collection.root.join(name);
            arguments.push(format!("--ignore={}", path.display()));
        }
        arguments.extend(given.select.iter().cloned());
        Templates {
            arguments: Some(arguments),
            arguments_in_image,
            unfit,
            left_out: ignored,
        }
    }

    /// Whether the tests that a template in a container like the machine has collected are these,
    /// but for files that it leaves out. `answer`: what it has said to [`question`]. `None`: it has
    /// not said what it has collected.
    pub(crate) fn have_collected(&self, collection: &Collection, answer: &[u8]) -> Option<bool> {
        let found: BTreeMap<&str, &str> = serde_json::from_slice(answer).ok()?;
        let expected = collection
            .fingerprints
            .iter()
            .filter(|(file, _)| !is_in(file, &self.left_out));
        let expected = expected.map(|(file, tests)| (file.as_str(), tests.as_str()));
        Some(found.into_iter().eq(expected))
    }

    /// How the template is started that forks for the tests of a file. `imitates_host`: in a
    /// container like the machine.
    pub(crate) fn command(
        &self,
        file: &str,
        interpreter: &str,
        imitates_host: bool,
    ) -> Option<TemplateCommand> {
        if is_in(file, &self.unfit) {
            return None;
        }
        let arguments = match imitates_host {
            true => &self.arguments,
            false => &self.arguments_in_image,
        };
        Some(TemplateCommand {
            program: interpreter.to_owned(),
            arguments: arguments.clone()?,
        })
    }
}

/// Tells the user which tests get fresh interpreters where templates are wanted, and why.
pub(crate) fn warn_of_unfit(collection: &Collection) {
    for (name, why) in &collection.unfit {
        match name.as_str() {
            "" => tracing::warn!(
                "every test gets a fresh interpreter, which is slow: before the first test module was imported, something {why}"
            ),
            _ => tracing::warn!(
                "the tests of {name} get fresh interpreters, which is slow: importing it {why}"
            ),
        }
    }
}

fn is_in(file: &str, unfit: &BTreeSet<String>) -> bool {
    unfit.iter().any(|unfit| Path::new(file).starts_with(unfit))
}

/// What a fork is told to run one test.
pub(crate) fn payload(node_id: &str) -> Vec<u8> {
    json!({ "node_id": node_id }).to_string().into_bytes()
}

/// What a fork is told to write the [fingerprints](Collection::fingerprints) of what its template
/// has collected to its standard output, or nothing if there were errors.
pub(crate) fn question() -> Vec<u8> {
    json!({}).to_string().into_bytes()
}
