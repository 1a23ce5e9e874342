//! A test binary: its tests, and the containers they run in.

use crate::{
    coverage::Coverage,
    go_test,
    options::TestOptions,
    output,
    packages::Package,
    selector,
    toolchain::{GoUse, Toolchain},
};
use maelstrom_content::LayerId;
use maelstrom_runner::{
    filter::{Facts, GoFacts, Pattern},
    host::{self, Identity, SharedLayers},
    metadata::{Metadata, TestConfiguration},
    runner::{Case, LazyClient, Surroundings, TestArtifact, Tools},
};
use maelstrom_spec::{ContainerSpec, OutputFile, collapse};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What containers are made of, for all test binaries of a round.
pub(crate) struct Workshop {
    pub(crate) client: Arc<LazyClient>,
    pub(crate) tools: Tools,
    pub(crate) identity: Identity,
    /// The container `go-test`, as far as it is the same for all tests and without layers.
    pub(crate) base: ContainerSpec,
    /// Directories of the modules that are developed together.
    pub(crate) modules: Vec<PathBuf>,
    /// What of the modules this program writes itself: its own directory, the profile.
    pub(crate) written: Vec<PathBuf>,
    /// The variables that all tests have in `go-test`.
    pub(crate) environment: BTreeMap<String, String>,
    /// What tests need that start the `go` command.
    pub(crate) toolchain: Toolchain,
    pub(crate) options: Arc<TestOptions>,
    pub(crate) coverage: Option<Arc<Coverage>>,
    /// What [`Workshop::shared_layers`] made; empty at first.
    pub(crate) shared: OnceLock<Result<SharedLayers, String>>,
}

impl Workshop {
    /// The layers that all tests have in common. The first caller makes them.
    pub(crate) fn shared_layers(&self) -> Result<SharedLayers, String> {
        let make = || {
            let client = self.client.get().map_err(|error| error.to_string())?;
            SharedLayers::prepare(
                client.store(),
                client.build_context(),
                &self.identity,
                &go_test::project_places(&self.modules, &self.written),
                &self.tools,
            )
            .map_err(|error| error.to_string())
        };
        self.shared.get_or_init(make).clone()
    }

    /// The layers of the toolchain and the modules.
    fn toolchain_layers(&self, go_use: GoUse) -> Result<Vec<LayerId>, String> {
        let client = self.client.get().map_err(|error| error.to_string())?;
        self.toolchain
            .layers(client.store(), client.build_context(), go_use)
    }

    /// The layer of a test binary at its place in all containers.
    pub(crate) fn binary_layer(&self, binary: &Path, place: &Path) -> Result<LayerId, String> {
        let client = self.client.get().map_err(|error| error.to_string())?;
        let mut layer = client.store().layer();
        let layer = layer.add_file(place, binary).finish();
        layer.map_err(|error| error.to_string())
    }

    fn library_layer(&self, binary: &Path) -> Result<LayerId, String> {
        let client = self.client.get().map_err(|error| error.to_string())?;
        host::libraries(
            client.store(),
            client.build_context(),
            vec![binary.to_owned()],
        )
        .map_err(|error| error.to_string())
    }
}

/// A test binary.
pub(crate) struct GoArtifact {
    pub(crate) package: Package,
    binary: PathBuf,
    /// Where it is in a container.
    place: PathBuf,
    /// The layer with it. `None`: nothing is to be run.
    layer: Option<LayerId>,
    cases: Vec<Case>,
    /// Whether it does not say which tests it has, so that all of it is run.
    whole: bool,
    /// What its tests do with the `go` command.
    go_use: GoUse,
    workshop: Arc<Workshop>,
}

impl GoArtifact {
    pub(crate) fn new(
        package: &Package,
        binary: &Path,
        layer: Option<LayerId>,
        names: Option<Vec<String>>,
        go_use: GoUse,
        workshop: Arc<Workshop>,
    ) -> GoArtifact {
        GoArtifact {
            package: package.clone(),
            binary: binary.to_owned(),
            place: place(package),
            layer,
            whole: names.is_none(),
            // What ends before it says what its tests are is shown as what runs before them.
            cases: names
                .unwrap_or_else(|| vec!["TestMain".to_owned()])
                .into_iter()
                .map(|name| Case {
                    name,
                    ignored: false,
                })
                .collect(),
            go_use,
            workshop,
        }
    }

    /// The container `go-test` of this package.
    fn go_test(&self) -> Result<ContainerSpec, String> {
        let workshop = &self.workshop;
        let mut layers = workshop.shared_layers()?.ids().to_vec();
        let mut environment = workshop.environment.clone();
        if self.go_use != GoUse::None {
            layers.extend(workshop.toolchain_layers(self.go_use)?);
            environment.extend(workshop.toolchain.environment());
        }
        let directory = self.package.directory.to_string_lossy();
        environment.insert("PWD".into(), directory.into_owned());
        Ok(ContainerSpec {
            layers: layers.into_iter().map(host::built).collect(),
            environment: vec![host::literal_environment(&environment)],
            working_directory: Some(self.package.directory.clone()),
            ..workshop.base.clone()
        })
    }
}

/// Where the test binary of a package is in a container.
pub(crate) fn place(package: &Package) -> PathBuf {
    Path::new("/").join(package.binary_name())
}

impl TestArtifact for GoArtifact {
    fn package(&self) -> &str {
        &self.package.import_path
    }

    fn key(&self) -> &str {
        KEY
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn facts<'a>(&'a self, case: &'a Case) -> impl Facts + 'a {
        GoFacts {
            case: Some(&case.name),
            ..self.package.facts()
        }
    }

    fn display_name(&self, case: &Case) -> String {
        format!("{} {}", self.package.import_path, case.name)
    }

    fn surroundings(
        &self,
        configuration: &TestConfiguration,
        metadata: &Metadata<Pattern>,
    ) -> Result<Surroundings, String> {
        let workshop = &self.workshop;
        // A file may define a container of that name itself.
        let predefined = metadata.containers().get(go_test::NAME) == Some(&workshop.base);
        let own = if predefined && metadata.inherits_from(&configuration.container, go_test::NAME) {
            Some(self.go_test()?)
        } else {
            None
        };
        let collapsed = collapse(&configuration.container, |name| match &own {
            Some(own) if name == go_test::NAME => Some(own),
            _ => metadata.containers().get(name),
        })
        .map_err(|error| error.to_string())?;
        let imitates_host =
            own.is_some() && metadata.inherits_layers_from(&configuration.container, go_test::NAME);
        let mut container = host::parentless(collapsed);
        container.layers.extend(self.layer.map(host::built));
        if configuration.include_shared_libraries {
            let libraries = workshop.library_layer(&self.binary)?;
            container.layers.push(host::built(libraries));
        }
        Ok(Surroundings {
            container,
            program: self.place.to_string_lossy().into_owned(),
            outputs: match &workshop.coverage {
                Some(_) => vec![Coverage::FILE.to_owned()],
                None => Vec::new(),
            },
            time_limit: workshop.options.kill_after(),
            template: None,
            imitates_host,
        })
    }

    fn arguments(&self, case: &Case) -> Vec<String> {
        let options = &self.workshop.options;
        let run = match &options.run {
            _ if self.whole => ".".to_owned(),
            Some(run) => run.of_test(&case.name),
            None => selector::whole(&case.name),
        };
        options.arguments(&case.name, run, self.workshop.coverage.is_some())
    }

    fn clean_stdout<'a>(&self, case: &Case, stdout: &'a [u8]) -> &'a [u8] {
        output::clean(&case.name, stdout)
    }

    fn take_output(&self, _: &Case, output: OutputFile) -> Option<OutputFile> {
        match &self.workshop.coverage {
            Some(coverage) if output.path == Path::new(Coverage::FILE) => {
                coverage.add(&self.package.import_path, &output.contents);
                None
            }
            _ => Some(output),
        }
    }

    fn was_skipped(&self, case: &Case, stdout: &[u8]) -> bool {
        output::was_skipped(&case.name, stdout)
    }
}

/// The one artifact of a package, in the record of tests.
pub(crate) const KEY: &str = "test";
