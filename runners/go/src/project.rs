//! One round's view of a module: its packages, and what is asked of them.

use crate::{
    artifact::{GoArtifact, KEY, Workshop},
    build::{Build, Stamp, stamp},
    collection::Collection,
    coverage::Coverage,
    environment, go_test,
    known::KnownBinaries,
    options::{BuildOptions, TestOptions},
    packages::{self, GoEnv, Package},
    test2json::Narrator,
    toolchain::Toolchain,
    unchanged::{Memory, Snapshot, Tree},
};
use anyhow::Result;
use maelstrom_runner::{
    filter::{GoFacts, Selection},
    host::{self, Identity},
    listing::CaseMetadata,
    metadata::MetadataOptions,
    runner::{Collected, Narration, Places, Project, Sink, Tools},
};
use maelstrom_spec::ContainerSpec;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
};

/// One round's view of a module.
pub(crate) struct GoProject {
    places: Places,
    env: GoEnv,
    /// Directories of the modules that are developed together.
    modules: Vec<PathBuf>,
    /// Import paths of the modules.
    module_paths: Vec<String>,
    /// The packages that were asked for.
    packages: Vec<Package>,
    /// Import paths of all packages.
    all: Vec<String>,
    build: Arc<BuildOptions>,
    test: Arc<TestOptions>,
    tools: Tools,
    identity: Identity,
    base: ContainerSpec,
    coverage: Option<Arc<Coverage>>,
    narrator: Narrator,
    unchanged: Option<Binaries>,
    memory: Option<(Memory, Tree)>,
}

/// What a project is made of.
pub(crate) struct GoProjectParts {
    pub(crate) places: Places,
    pub(crate) env: GoEnv,
    pub(crate) modules: Vec<PathBuf>,
    pub(crate) packages: Vec<Package>,
    pub(crate) all: Vec<String>,
    pub(crate) build: Arc<BuildOptions>,
    pub(crate) test: Arc<TestOptions>,
    pub(crate) tools: Tools,
    /// The test binaries, if nothing has changed since they were built.
    pub(crate) unchanged: Option<Binaries>,
    /// Where to remember what is built, and the files before that.
    pub(crate) memory: Option<(Memory, Tree)>,
}

/// Test binaries by import path, and their stamps.
type Binaries = BTreeMap<String, (PathBuf, Stamp)>;

impl GoProject {
    pub(crate) fn new(parts: GoProjectParts) -> GoProject {
        let identity = Identity::of_process();
        let base = host::base_container(&identity, parts.modules.iter().map(PathBuf::as_path));
        let coverage = parts
            .build
            .cover
            .then(|| Arc::new(Coverage::new(parts.build.cover_profile.clone())));
        let module_paths = parts
            .modules
            .iter()
            .filter_map(|directory| module_path(directory))
            .collect();
        GoProject {
            places: parts.places,
            env: parts.env,
            modules: parts.modules,
            module_paths,
            packages: parts.packages,
            all: parts.all,
            build: parts.build,
            test: parts.test,
            tools: parts.tools,
            identity,
            base,
            coverage,
            narrator: Narrator::default(),
            unchanged: parts.unchanged,
            memory: parts.memory,
        }
    }

    /// The packages that may have selected tests.
    fn selected(&self, selection: &Selection) -> Vec<&Package> {
        self.packages
            .iter()
            .filter(|package| selection.evaluate(&package.facts()).is_possible())
            .collect()
    }

    /// Adds what `go test` says of packages without tests to the profile: that nothing in them was
    /// run. No code of theirs runs for it.
    fn cover_untested(&self, packages: &[&Package]) -> Result<()> {
        let Some(coverage) = self.coverage.as_ref().filter(|_| !packages.is_empty()) else {
            return Ok(());
        };
        let profile = tempfile::NamedTempFile::new()?;
        let mut command = packages::go(&self.places.project);
        command.args(["test", "-vet=off", "-count=1"]);
        command.args(self.build.flags(&self.env.goflags));
        command.arg(format!("-coverprofile={}", profile.path().display()));
        command.args(packages.iter().map(|package| &package.import_path));
        // A package that cannot be built is reported by whoever needs it.
        if let Err(error) = packages::output(&mut command, &self.tools) {
            tracing::debug!("{error:#}");
        }
        coverage.add_untested(&std::fs::read_to_string(profile.path())?);
        Ok(())
    }

    /// The binaries of all `packages`, if nothing has changed since they were built.
    fn unchanged_binaries(&self, packages: &[&Package]) -> Option<Vec<PathBuf>> {
        let unchanged = self.unchanged.as_ref()?;
        packages
            .iter()
            .map(|package| Some(unchanged.get(&package.import_path)?.0.clone()))
            .collect()
    }

    /// Remembers what was built.
    fn remember(&self, build: &Build<'_>, packages: &[&Package]) {
        let Some((memory, before)) = &self.memory else {
            return;
        };
        let places = build.places(packages);
        let binaries = packages.iter().zip(places).filter_map(|(package, place)| {
            let stamp = stamp(&place)?;
            Some((package.import_path.clone(), (place, stamp)))
        });
        let snapshot = Snapshot::new(
            self.env.clone(),
            self.modules.clone(),
            self.packages.clone(),
            self.all.clone(),
            binaries.collect(),
        );
        memory.keep(before, snapshot);
    }

    fn workshop(&self, sink: &Sink<GoArtifact>, user: &BTreeMap<String, String>) -> Workshop {
        let modules: Vec<&str> = self.module_paths.iter().map(String::as_str).collect();
        Workshop {
            client: sink.lazy_client().clone(),
            tools: self.tools.clone(),
            identity: self.identity.clone(),
            base: self.base.clone(),
            modules: self.modules.clone(),
            written: self.places.unwatched.clone(),
            environment: environment::shared(user, &self.env.goroot, &self.identity.home, &modules),
            toolchain: Toolchain::new(
                &self.env,
                &self.places.project,
                &self.build.flags,
                &self.tools,
            ),
            options: self.test.clone(),
            coverage: self.coverage.clone(),
            shared: OnceLock::new(),
        }
    }
}

/// Where this program keeps its own files.
pub(crate) fn own_directory(places: &Places) -> &Path {
    places.cache.parent().unwrap_or(&places.cache)
}

/// What a module calls itself.
fn module_path(directory: &Path) -> Option<String> {
    let text = std::fs::read_to_string(directory.join("go.mod")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("module "))?;
    let path = line.split("//").next()?.trim().trim_matches('"');
    Some(path.to_owned())
}

impl Project for GoProject {
    type Artifact = GoArtifact;

    fn metadata_options(&self) -> MetadataOptions {
        MetadataOptions {
            predefined_containers: BTreeMap::from([(go_test::NAME.to_owned(), self.base.clone())]),
            ..MetadataOptions::default()
        }
    }

    fn packages(&self, selection: &Selection) -> Vec<String> {
        self.selected(selection)
            .iter()
            .map(|package| package.import_path.clone())
            .collect()
    }

    fn inventory(&self) -> Vec<(String, Option<Vec<String>>)> {
        let keys = || Some(vec![KEY.to_owned()]);
        self.all
            .iter()
            .map(|package| (package.clone(), keys()))
            .collect()
    }

    fn selects_recorded(
        &self,
        selection: &Selection,
        package: &str,
        _: &str,
        case: &str,
        _: Option<&CaseMetadata>,
    ) -> bool {
        let packages = &self.packages;
        packages
            .binary_search_by(|known| known.import_path.as_str().cmp(package))
            .is_ok_and(|index| {
                let facts = GoFacts {
                    case: Some(case),
                    ..packages[index].facts()
                };
                selection.evaluate(&facts).is_true()
            })
    }

    fn collect(&self, sink: &Sink<GoArtifact>) -> Result<Collected> {
        let mut packages = self.selected(sink.selection());
        let untested: Vec<&Package> = packages
            .extract_if(.., |package| !package.has_tests)
            .collect();
        if packages.is_empty() {
            return Ok(Collected::Everything);
        }
        let untested: &[&Package] = if sink.only_lists() { &[] } else { &untested };
        let user: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let workshop = self.workshop(sink, &user);
        let mut flags = self.build.flags(&self.env.goflags);
        if self.test.json {
            flags.push("-json".into());
        }
        let known = KnownBinaries::load(&self.places.cache.join("test-binaries.json"));
        let collection = Collection {
            environment: BTreeMap::from([(
                "PATH".to_owned(),
                workshop
                    .environment
                    .get("PATH")
                    .cloned()
                    .unwrap_or_default(),
            )]),
            workshop: Arc::new(workshop),
            sink,
            known: &known,
            tools: &self.tools,
        };
        let binaries = crate::build::directory(&self.places.cache.join("test-binaries"), &flags);
        let build = Build {
            directory: &self.places.project,
            binaries: &binaries,
            flags: &flags,
            tools: &self.tools,
        };
        thread::scope(|scope| {
            let covered = scope.spawn(|| self.cover_untested(untested));
            let collected = match self.unchanged_binaries(&packages) {
                Some(binaries) => collection.hand_over(&packages, &binaries)?,
                None => {
                    let collected = collection.collect(&build, &packages)?;
                    if collected == Collected::Everything {
                        self.remember(&build, &packages);
                    }
                    collected
                }
            };
            covered
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(collected)
        })
    }

    fn narrate(&self, event: Narration<'_, GoArtifact>) -> String {
        match event {
            Narration::Collected { artifact, tests } => {
                self.narrator.package(&artifact.package.import_path, tests)
            }
            Narration::Finished {
                artifact,
                case,
                report,
            } => {
                let package = &artifact.package.import_path;
                let coverage = self.coverage.as_ref();
                let coverage = coverage.and_then(|coverage| coverage.share(package));
                self.narrator.test(package, &case.name, report, coverage)
            }
        }
    }

    fn conclude(&self) -> Result<String> {
        let Some(coverage) = &self.coverage else {
            return Ok(String::new());
        };
        let summary = coverage.conclude()?;
        // Narrated with each package.
        Ok(if self.test.json {
            String::new()
        } else {
            summary
        })
    }
}
