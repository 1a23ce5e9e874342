//! A test binary: its tests, and the containers they run in.

use crate::{
    cargo_test::{self, BuiltFiles},
    libtest::{self, HarnessArguments},
    options::CargoOptions,
    workspace::Workspace,
};
use cargo_metadata::{Package, Target};
use maelstrom_content::{BuildContext, LayerId, Store};
use maelstrom_runner::{
    filter::{CargoFacts, Facts, Pattern, TargetKind as Kind},
    host::{self, Identity, ProjectPlaces, SharedLayers},
    metadata::{Metadata, TestConfiguration},
    runner::{Case, LazyClient, Surroundings, TestArtifact, Tools},
};
use maelstrom_spec::{ContainerSpec, LayerSpec, collapse};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What the arguments after `--` and the test name come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invocation {
    /// As the test harness understands them.
    pub(crate) harness: HarnessArguments,
    /// As they were given, for programs without the harness.
    pub(crate) raw: Vec<String>,
}

/// What containers are made of, for all artifacts of a round.
pub(crate) struct Workshop {
    pub(crate) client: Arc<LazyClient>,
    pub(crate) tools: Tools,
    pub(crate) identity: Identity,
    /// The container `cargo-test`, as far as it is the same for all tests and without layers.
    pub(crate) base: ContainerSpec,
    workspace: Arc<Workspace>,
    options: Arc<CargoOptions>,
    shared_layers: OnceLock<Result<SharedLayers, String>>,
}

impl Workshop {
    pub(crate) fn new(
        client: Arc<LazyClient>,
        tools: Tools,
        identity: Identity,
        base: ContainerSpec,
        workspace: Arc<Workspace>,
        options: Arc<CargoOptions>,
    ) -> Workshop {
        Workshop {
            client,
            tools,
            identity,
            base,
            workspace,
            options,
            shared_layers: OnceLock::new(),
        }
    }

    /// The layers that all tests have in common. The first caller makes them.
    pub(crate) fn shared_layers(&self) -> Result<SharedLayers, String> {
        let layers = self.shared_layers.get_or_init(|| {
            let client = self.client.get().map_err(|error| error.to_string())?;
            let (store, context) = (client.store(), client.build_context());
            SharedLayers::prepare(
                store,
                context,
                &self.identity,
                &self.project_places(),
                &self.tools,
            )
            .map_err(|error| error.to_string())
        });
        layers.clone()
    }

    /// Where the project is. May ask Cargo about path dependencies.
    fn project_places(&self) -> ProjectPlaces {
        let mut roots = vec![self.workspace.root().to_owned()];
        roots.extend(self.workspace.outside_directories(&self.tools));
        let mut excluded = vec![self.workspace.target_dir().to_owned()];
        excluded.extend(
            self.options
                .target_dir
                .as_ref()
                .and_then(|path| std::path::absolute(path).ok()),
        );
        if let Some(directory) = &self.workspace.metadata.build_directory {
            excluded.push(directory.as_std_path().to_owned());
        }
        ProjectPlaces {
            roots,
            excluded,
            manifests: vec!["Cargo.toml"],
            ..ProjectPlaces::default()
        }
    }

    /// Where layers are kept, and what they are made with when libraries are looked for in
    /// `library_path`.
    fn store(&self, library_path: &[PathBuf]) -> Result<(&Store, BuildContext), String> {
        let client = self.client.get().map_err(|error| error.to_string())?;
        let context = BuildContext {
            library_path: library_path.to_vec(),
            ..client.build_context().clone()
        };
        Ok((client.store(), context))
    }
}

/// How a test binary is told what to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harness {
    /// It takes the arguments of Rust's harness.
    Standard,
    /// It is one test as a whole.
    Whole,
}

/// A test binary.
pub(crate) struct CargoArtifact {
    package: String,
    target: String,
    kind: Kind,
    key: String,
    shown: String,
    pub(crate) binary: PathBuf,
    harness: Harness,
    cases: Vec<Case>,
    invocation: Arc<Invocation>,
    workshop: Arc<Workshop>,
    pub(crate) directory: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    /// Where its libraries are looked for before the system's places.
    pub(crate) library_path: Vec<PathBuf>,
    /// What of the build it sees in `cargo-test`.
    pub(crate) built: Arc<BuiltFiles>,
    own_layers: OnceLock<Result<Vec<LayerSpec>, String>>,
}

impl CargoArtifact {
    /// A binary whose tests are not yet known.
    pub(crate) fn new(
        package: &Package,
        target: &Target,
        kind: Kind,
        binary: PathBuf,
        invocation: Arc<Invocation>,
        workshop: Arc<Workshop>,
    ) -> CargoArtifact {
        CargoArtifact {
            package: package.name.to_string(),
            target: target.name.clone(),
            kind,
            key: key(&target.name, kind),
            shown: if target.name.replace('_', "-") == *package.name {
                package.name.to_string()
            } else {
                format!("{} {}", package.name, target.name)
            },
            binary,
            harness: Harness::Standard,
            cases: Vec::new(),
            invocation,
            workshop,
            directory: crate::workspace::directory(package).to_owned(),
            environment: BTreeMap::new(),
            library_path: Vec::new(),
            built: Arc::default(),
            own_layers: OnceLock::new(),
        }
    }

    /// Says which tests it has. `None`: it is one test as a whole.
    pub(crate) fn set_cases(&mut self, cases: Option<Vec<Case>>) {
        self.harness = if cases.is_some() {
            Harness::Standard
        } else {
            Harness::Whole
        };
        self.cases = cases.unwrap_or_else(|| {
            vec![Case {
                name: self.target.clone(),
                ignored: false,
            }]
        });
    }

    /// The container `cargo-test` of this binary.
    pub(crate) fn cargo_test(&self) -> Result<ContainerSpec, String> {
        let layers = self.own_layers.get_or_init(|| {
            let shared = self.workshop.shared_layers()?;
            let (store, context) = self.workshop.store(&self.library_path)?;
            let built = self
                .built
                .prepare(store, &context, &self.workshop.identity)
                .map_err(|error| error.to_string())?;
            Ok(shared
                .ids()
                .into_iter()
                .chain(built)
                .map(host::built)
                .collect())
        });
        Ok(ContainerSpec {
            layers: layers.clone()?,
            environment: vec![host::literal_environment(&self.environment)],
            working_directory: Some(self.directory.clone()),
            ..self.workshop.base.clone()
        })
    }

    /// The layers of the binary itself and of the libraries it needs.
    pub(crate) fn binary_layers(
        &self,
        destination: &Path,
        with_libraries: bool,
    ) -> Result<Vec<LayerSpec>, String> {
        let (store, context) = self.workshop.store(&self.library_path)?;
        let message = |error: maelstrom_content::LayerError| error.to_string();
        let binary = cargo_test::binary(store, &self.binary, destination, &self.workshop.identity);
        let binary = binary.map_err(message)?;
        let mut layers: Vec<LayerId> = vec![binary];
        if with_libraries {
            layers.push(
                host::libraries(store, &context, vec![self.binary.clone()]).map_err(message)?,
            );
        }
        Ok(layers.into_iter().map(host::built).collect())
    }

    /// Where the binary is in a container that is not like `cargo test`'s.
    fn path_at_root(&self) -> PathBuf {
        Path::new("/").join(self.binary.file_name().unwrap_or(self.target.as_ref()))
    }
}

/// How a target is called in the record of tests.
pub(crate) fn key(target: &str, kind: Kind) -> String {
    format!("{target}({kind})")
}

impl TestArtifact for CargoArtifact {
    fn package(&self) -> &str {
        &self.package
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn facts<'a>(&'a self, case: &'a Case) -> impl Facts + 'a {
        CargoFacts {
            package: Some(&self.package),
            target: Some((self.kind, &self.target)),
            case: Some(&case.name),
        }
    }

    fn display_name(&self, case: &Case) -> String {
        match self.harness {
            Harness::Standard => format!("{} {}", self.shown, case.name),
            Harness::Whole => self.shown.clone(),
        }
    }

    fn surroundings(
        &self,
        configuration: &TestConfiguration,
        metadata: &Metadata<Pattern>,
    ) -> Result<Surroundings, String> {
        // A file may define a container of that name itself.
        let predefined = metadata.containers().get(cargo_test::NAME) == Some(&self.workshop.base);
        let own =
            if predefined && metadata.inherits_from(&configuration.container, cargo_test::NAME) {
                Some(self.cargo_test()?)
            } else {
                None
            };
        let collapsed = collapse(&configuration.container, |name| match &own {
            Some(own) if name == cargo_test::NAME => Some(own),
            _ => metadata.containers().get(name),
        })
        .map_err(|error| error.to_string())?;
        let imitates_host = own.is_some()
            && metadata.inherits_layers_from(&configuration.container, cargo_test::NAME);
        let path = if imitates_host {
            Cow::Borrowed(&self.binary)
        } else {
            Cow::Owned(self.path_at_root())
        };
        let mut container = host::parentless(collapsed);
        container
            .layers
            .extend(self.binary_layers(&path, configuration.include_shared_libraries)?);
        Ok(Surroundings {
            container,
            program: path.to_string_lossy().into_owned(),
            imitates_host,
            ..Surroundings::default()
        })
    }

    fn arguments(&self, case: &Case) -> Vec<String> {
        match self.harness {
            Harness::Standard => self.invocation.harness.command_line(&case.name),
            Harness::Whole => self.invocation.raw.clone(),
        }
    }

    fn clean_stdout<'a>(&self, case: &Case, stdout: &'a [u8]) -> &'a [u8] {
        match self.harness {
            Harness::Standard => libtest::clean_output(&case.name, stdout),
            Harness::Whole => stdout,
        }
    }
}
