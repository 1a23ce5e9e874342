//! What tells one test runner from another: how tests are found, named and started. Implement
//! [`Framework`] and [`TestArtifact`], and [`run`](super::run) does the rest.

use super::{Exit, Sink, Tools};
use crate::{
    filter::{Dialect, Facts, Pattern, Selection},
    listing::CaseMetadata,
    metadata::{Metadata, MetadataOptions, TestConfiguration},
    ui::TestReport,
};
use maelstrom_spec::{ContainerSpec, OutputFile};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// One kind of tests.
pub trait Framework: Send + Sync + 'static {
    /// A program or file that holds tests.
    type Artifact: TestArtifact;
    /// What one round of collecting works with, read anew each time.
    type Project: Project<Artifact = Self::Artifact>;

    /// Where the project is and where the runner keeps what it knows of it.
    fn places(&self) -> &Places;

    /// The language of its filters.
    fn dialect(&self) -> &'static Dialect;

    /// Name of the metadata file in the project directory.
    fn metadata_file(&self) -> &'static str;

    /// What holds without a metadata file, and what `--init` writes.
    fn default_metadata(&self) -> &'static str;

    /// Name of the predefined container that imitates the client's machine, for advice.
    fn imitating_container(&self) -> &'static str;

    /// Narrows a selection by what the user chose by other means than patterns.
    fn narrow(&self, selection: Selection) -> Selection {
        selection
    }

    /// Whether tests look for a path of the client's machine whether they need it or not, so that
    /// it is not worth a word that a failed one did.
    fn is_noise(&self, path: &Path) -> bool {
        let _ = path;
        false
    }

    /// What becomes of tests that say of themselves that they are not to be run.
    fn ignored_tests(&self) -> IgnoredTests {
        IgnoredTests::default()
    }

    /// Whether to show what tests wrote that passed.
    fn shows_output_of_passed(&self) -> bool {
        false
    }

    /// The code that the run ends with because of a test that exited with `code`, which is not 0.
    fn failure_code(&self, code: u8) -> u8 {
        code
    }

    /// Whether results are told by [`Project::narrate`] instead of on the screen.
    fn narrates(&self) -> bool {
        false
    }

    /// What the status line says while tests are collected.
    fn collecting_status(&self) -> &'static str {
        "collecting tests..."
    }

    /// Reads what a round needs to know of the project before anything is built. `tools` starts
    /// processes on the client's machine; `color` says whether to ask them for colours.
    ///
    /// # Errors
    /// Fatal ones.
    fn project(&self, tools: &Tools, color: bool) -> anyhow::Result<Self::Project>;
}

/// What becomes of tests that say of themselves that they are not to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IgnoredTests {
    /// They are reported as ignored.
    #[default]
    Report,
    /// They run like the others.
    Run,
    /// They run, and the others are left out.
    RunOnly,
}

/// Directories of a run.
#[derive(Clone, Debug)]
pub struct Places {
    /// The project directory.
    pub project: PathBuf,
    /// Layers and whatever else can be made again.
    pub cache: PathBuf,
    /// What is remembered of earlier runs.
    pub state: PathBuf,
    /// Places whose changes do not start another round of `--watch`.
    pub unwatched: Vec<PathBuf>,
}

/// One round's view of the project.
pub trait Project: Send + Sync + 'static {
    /// A program or file that holds tests.
    type Artifact: TestArtifact;

    /// What metadata files may refer to.
    fn metadata_options(&self) -> MetadataOptions;

    /// Names of the packages that may have selected tests, for `--list-packages`.
    fn packages(&self, selection: &Selection) -> Vec<String>;

    /// Names of the binaries that may have selected tests, for `--list-binaries`.
    fn binaries(&self, selection: &Selection) -> Vec<String> {
        let _ = selection;
        Vec::new()
    }

    /// Which packages and artifacts exist, whether selected or not, for pruning the record: each
    /// package with the keys of its artifacts, or `None` where those are only known when built.
    fn inventory(&self) -> Vec<(String, Option<Vec<String>>)>;

    /// Whether a test of the record is selected, given its package, artifact and name and what
    /// pytest knows of it: how many tests to expect follows from that.
    fn selects_recorded(
        &self,
        selection: &Selection,
        package: &str,
        artifact: &str,
        case: &str,
        metadata: Option<&CaseMetadata>,
    ) -> bool;

    /// Tells of a test in a format of its own: lines without the last one's end, or nothing. Only
    /// asked if [`Framework::narrates`].
    fn narrate(&self, event: Narration<'_, Self::Artifact>) -> String {
        let _ = event;
        String::new()
    }

    /// Called once when every test has ended, or the round was stopped early. What it returns is
    /// shown at the end.
    ///
    /// # Errors
    /// Fatal ones.
    fn conclude(&self) -> anyhow::Result<String> {
        Ok(String::new())
    }

    /// Builds and lists, handing over every artifact as soon as its tests can run. Returns when
    /// all is handed over.
    ///
    /// # Errors
    /// Fatal ones. That the build tool failed is none.
    fn collect(&self, sink: &Sink<Self::Artifact>) -> anyhow::Result<Collected>;
}

/// What is told of a test in a format of the framework's own.
#[derive(Clone, Copy, Debug)]
pub enum Narration<'a, A> {
    /// An artifact was collected, and so many of its tests will be told of.
    Collected {
        /// The artifact.
        artifact: &'a A,
        /// How many tests of it are selected, each repetition counted.
        tests: usize,
    },
    /// A test has ended, or is ignored.
    Finished {
        /// Its artifact.
        artifact: &'a A,
        /// The test.
        case: &'a Case,
        /// How it ended, with everything that it wrote.
        report: &'a TestReport,
    },
}

/// How collecting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Everything is collected.
    Everything,
    /// The build tool or the collection failed, and the run ends like this.
    Failed(Exit),
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name in its artifact.
    pub name: String,
    /// Whether it says of itself that it is not to be run.
    pub ignored: bool,
}

/// A program or file that holds tests.
pub trait TestArtifact: Send + Sync + 'static {
    /// The package it belongs to.
    fn package(&self) -> &str;

    /// Its name in the record of tests, below its package.
    fn key(&self) -> &str;

    /// All of its tests, selected or not.
    fn cases(&self) -> &[Case];

    /// What the record keeps of a test besides its name.
    fn case_metadata(&self, case: usize) -> Option<CaseMetadata> {
        let _ = case;
        None
    }

    /// What patterns can ask of a test.
    fn facts<'a>(&'a self, case: &'a Case) -> impl Facts + 'a;

    /// How a test is called on the screen.
    fn display_name(&self, case: &Case) -> String;

    /// Everything around a test that its configuration gives it.
    ///
    /// # Errors
    /// A message; the test is reported as an error.
    fn surroundings(
        &self,
        configuration: &TestConfiguration,
        metadata: &Metadata<Pattern>,
    ) -> Result<Surroundings, String>;

    /// The arguments of the program that runs a test.
    fn arguments(&self, case: &Case) -> Vec<String>;

    /// What the fork that runs a test is told, where its surroundings have a template.
    fn template_payload(&self, case: &Case) -> Vec<u8> {
        let _ = case;
        Vec::new()
    }

    /// The part of a test's standard output that the test itself wrote.
    fn clean_stdout<'a>(&self, case: &Case, stdout: &'a [u8]) -> &'a [u8] {
        let _ = case;
        stdout
    }

    /// Takes a file that a test brought back if the runner itself asked for it, by
    /// [`Surroundings::outputs`]; gives back any other.
    fn take_output(&self, case: &Case, output: OutputFile) -> Option<OutputFile> {
        let _ = case;
        Some(output)
    }

    /// Whether a test that ended well says that it was skipped.
    fn was_skipped(&self, case: &Case, stdout: &[u8]) -> bool {
        let _ = (case, stdout);
        false
    }
}

/// The container of a test, ready to be started.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The container, without parents other than an image.
    pub container: ContainerSpec,
    /// The program that runs its tests.
    pub program: String,
    /// Globs of files that the runner itself wants brought back, for
    /// [`TestArtifact::take_output`].
    pub outputs: Vec<String>,
    /// How long its tests may run where neither the user nor the metadata file says so.
    pub time_limit: Option<Duration>,
    /// What prepares in its container what all these tests need, and forks for each of them. It
    /// has the container's environment.
    pub template: Option<TemplateCommand>,
    /// Whether they imitate what the test would see without a container, so that it is worth
    /// finding out what a failed test missed.
    pub imitates_host: bool,
}

/// How a template is started; what it has to do is in `docs/TEMPLATES.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateCommand {
    /// A path where it holds a `/`, else a name in the container's `PATH`.
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
}
