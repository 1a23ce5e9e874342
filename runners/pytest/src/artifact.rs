//! A file of tests.

use crate::{
    cli::PytestArguments,
    collection::{Collection, Item},
    output,
    surroundings::{self, Workshop},
    template::{self, Templates},
};
use maelstrom_runner::{
    filter::{Facts, Pattern, PytestFacts},
    host,
    listing::CaseMetadata,
    metadata::{Metadata, TestConfiguration},
    runner::{Case, Surroundings, TestArtifact},
};
use maelstrom_spec::{ContainerUse, collapse};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

/// The one package there is.
pub(crate) const PACKAGE: &str = "default";

/// Runs one test in a fresh interpreter.
const SCRIPT: &str = concat!(
    include_str!("python/common.py"),
    include_str!("python/last_words.py"),
    include_str!("python/fresh.py")
);

/// The interpreter in a container image.
const IMAGE_INTERPRETER: &str = "/usr/local/bin/python";

/// A file of tests.
pub(crate) struct PytestArtifact {
    file: String,
    cases: Vec<Case>,
    items: Vec<Item>,
    /// Which item a case is, by its name.
    places: HashMap<String, usize>,
    run: Arc<RunArguments>,
    workshop: Arc<Workshop>,
    templates: Arc<Templates>,
}

/// What pytest is told to run a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunArguments {
    /// In front of the test's own name.
    arguments: Vec<String>,
    /// From where pytest is started to where node ids start, with a slash at the end if it is
    /// elsewhere.
    prefix: String,
}

impl RunArguments {
    pub(crate) fn new(
        given: &PytestArguments,
        collection: &Collection,
        directory: &Path,
    ) -> RunArguments {
        let mut run = RunArguments {
            arguments: vec!["-c".to_owned(), SCRIPT.to_owned()],
            prefix: prefix(directory, &collection.root),
        };
        // In a container image it may look in vain for what told it when tests were collected.
        run.arguments.push(run.root());
        run.arguments.extend(run_options(given, collection));
        run
    }

    fn of(&self, node_id: &str) -> Vec<String> {
        let name = self.name(node_id);
        self.arguments.iter().cloned().chain([name]).collect()
    }

    /// A node id or file, as it is named where pytest is started.
    pub(crate) fn name(&self, node_id: &str) -> String {
        let mut name = format!("{}{node_id}", self.prefix);
        if name.starts_with('-') {
            name.insert_str(0, "./");
        }
        name
    }

    /// The option that says where node ids start.
    pub(crate) fn root(&self) -> String {
        match self.prefix.as_str() {
            "" => "--rootdir=.".to_owned(),
            prefix => format!("--rootdir={prefix}"),
        }
    }
}

/// The options of every process that runs tests.
pub(crate) fn run_options(given: &PytestArguments, collection: &Collection) -> Vec<String> {
    let mut options = vec!["--verbose".to_owned()];
    options.extend(given.always.iter().chain(&given.test).cloned());
    if collection.distributes {
        // One test a container: there is nothing to distribute.
        options.push("-n0".to_owned());
    }
    if collection.covers {
        // With the option alone its plugin is there, and fails tests that are marked `no_cover`.
        options.extend(["--no-cov", "-p", "no:_cov"].map(str::to_owned));
    }
    if let Some(seed) = &collection.seed
        && !given
            .test
            .iter()
            .any(|argument| argument.contains("randomly"))
    {
        options.push(format!("--randomly-seed={seed}"));
    }
    options
}

/// The way from one directory to another.
fn prefix(from: &Path, to: &Path) -> String {
    if let Ok(below) = to.strip_prefix(from) {
        return match below.as_os_str().is_empty() {
            true => String::new(),
            false => format!("{}/", below.display()),
        };
    }
    match from.strip_prefix(to) {
        Ok(below) => "../".repeat(below.components().count()),
        Err(_) => format!("{}/", to.display()),
    }
}

impl PytestArtifact {
    /// The files of a collection, in its order.
    pub(crate) fn all(
        items: Vec<Item>,
        run: &Arc<RunArguments>,
        workshop: &Arc<Workshop>,
        templates: &Arc<Templates>,
    ) -> Vec<PytestArtifact> {
        let mut order: Vec<String> = Vec::new();
        let mut files: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in items {
            let file = file_of(&item.node_id).to_owned();
            if !files.contains_key(&file) {
                order.push(file.clone());
            }
            files.entry(file).or_default().push(item);
        }
        order
            .into_iter()
            .map(|file| {
                let items = distinct(files.remove(&file).unwrap_or_default());
                let cases: Vec<Case> = items
                    .iter()
                    .map(|item| Case {
                        name: item.name.clone(),
                        ignored: item.ignored,
                    })
                    .collect();
                let names = cases.iter().map(|case| case.name.clone());
                PytestArtifact {
                    places: names
                        .enumerate()
                        .map(|(index, name)| (name, index))
                        .collect(),
                    file,
                    cases,
                    items,
                    run: run.clone(),
                    workshop: workshop.clone(),
                    templates: templates.clone(),
                }
            })
            .collect()
    }

    fn item(&self, case: &Case) -> Option<&Item> {
        self.items.get(*self.places.get(&case.name)?)
    }
}

/// The file in a node id.
pub(crate) fn file_of(node_id: &str) -> &str {
    node_id.split("::").next().unwrap_or(node_id)
}

/// Tests of one node id run as one; what has another's name is called by its node id.
fn distinct(items: Vec<Item>) -> Vec<Item> {
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let mut distinct = Vec::with_capacity(items.len());
    for mut item in items {
        if !ids.insert(item.node_id.clone()) {
            continue;
        }
        if !names.insert(item.name.clone()) {
            item.name.clone_from(&item.node_id);
            names.insert(item.name.clone());
        }
        distinct.push(item);
    }
    distinct
}

impl TestArtifact for PytestArtifact {
    fn package(&self) -> &str {
        PACKAGE
    }

    fn key(&self) -> &str {
        &self.file
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn case_metadata(&self, case: usize) -> Option<CaseMetadata> {
        let item = self.items.get(case)?;
        Some(CaseMetadata {
            node_id: item.node_id.clone(),
            markers: item.markers.clone(),
        })
    }

    fn facts<'a>(&'a self, case: &'a Case) -> impl Facts + 'a {
        self.item(case)
            .map_or_else(PytestFacts::default, |item| item.facts(&self.file))
    }

    fn display_name(&self, case: &Case) -> String {
        self.item(case)
            .map_or_else(|| case.name.clone(), |item| item.node_id.clone())
    }

    fn surroundings(
        &self,
        configuration: &TestConfiguration,
        metadata: &Metadata<Pattern>,
    ) -> Result<Surroundings, String> {
        // A file may define a container of that name itself.
        let predefined = metadata.containers().get(surroundings::NAME) == Some(&self.workshop.base);
        let own = if predefined && mentions(configuration, metadata) {
            Some(self.workshop.container()?)
        } else {
            None
        };
        let collapsed = collapse(&configuration.container, |name| match &own {
            Some(own) if name == surroundings::NAME => Some(own),
            _ => metadata.containers().get(name),
        })
        .map_err(|error| error.to_string())?;
        let requirements = self.workshop.requirements(&configuration.container)?;
        let mut container = host::parentless(collapsed);
        container.layers.extend(requirements);
        let imitates_host = own.is_some()
            && metadata.inherits_layers_from(&configuration.container, surroundings::NAME);
        let program = if imitates_host {
            self.workshop.executable.to_string_lossy().into_owned()
        } else {
            IMAGE_INTERPRETER.to_owned()
        };
        Ok(Surroundings {
            container,
            template: self.templates.command(&self.file, &program, imitates_host),
            program,
            imitates_host,
            ..Surroundings::default()
        })
    }

    fn arguments(&self, case: &Case) -> Vec<String> {
        let node_id = self
            .item(case)
            .map_or(case.name.as_str(), |item| &item.node_id);
        self.run.of(node_id)
    }

    fn template_payload(&self, case: &Case) -> Vec<u8> {
        template::payload(self.item(case).map_or(&case.name, |item| &item.node_id))
    }

    fn clean_stdout<'a>(&self, _: &Case, stdout: &'a [u8]) -> &'a [u8] {
        output::clean(stdout)
    }

    fn was_skipped(&self, _: &Case, stdout: &[u8]) -> bool {
        output::says_skipped(stdout)
    }
}

/// Whether anything of the container `pytest` may be inherited.
fn mentions(configuration: &TestConfiguration, metadata: &Metadata<Pattern>) -> bool {
    ContainerUse::ALL.into_iter().any(|member| {
        maelstrom_spec::ancestry(&configuration.container, member, |name| {
            metadata.containers().get(name)
        })
        .is_ok_and(|ancestry| {
            ancestry
                .containers
                .iter()
                .any(|name| name == surroundings::NAME)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_start_from_the_root() {
        for (from, to, expected) in [
            ("/p", "/p", ""),
            ("/p/tests", "/p", "../"),
            ("/p", "/p/sub", "sub/"),
            ("/p", "/q", "/q/"),
        ] {
            assert_eq!(
                prefix(Path::new(from), Path::new(to)),
                expected,
                "{from} {to}"
            );
        }
        let run = RunArguments {
            arguments: vec!["-v".into()],
            prefix: String::new(),
        };
        assert_eq!(run.of("-x.py::t[a b]"), ["-v", "./-x.py::t[a b]"]);
    }

    #[test]
    fn names_are_made_distinct() {
        let item = |node_id: &str, name: &str| Item {
            node_id: node_id.into(),
            name: name.into(),
            markers: Vec::new(),
            ignored: false,
        };
        let items = distinct(vec![
            item("a.py::t", "t"),
            item("a.py::t", "t"),
            item("a.py::X::t", "t"),
        ]);
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["t", "a.py::X::t"]);
    }
}
