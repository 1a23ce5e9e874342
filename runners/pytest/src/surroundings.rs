//! The container `pytest`: what a test would see if `pytest` ran it here. It holds for every test
//! of a project without a metadata file, and directives can build on it.
//!
//! | layer | changes with |
//! |---|---|
//! | system files, devices, users, time zones | the machine |
//! | base programs and their libraries | the machine |
//! | the interpreter and its standard library | the machine |
//! | installed packages | an installation |
//! | the project's files, and sources installed as editable | an edit |

use crate::{
    collection::{Collection, HIDDEN_DIRECTORY, hash_seed},
    environment,
    layers::{PythonTrees, virtual_environments},
    tree::Trees,
};
use maelstrom_content::LayerId;
use maelstrom_runner::{
    host::{self, Identity, ProjectPlaces, SharedLayers},
    requirements::{self, is_python_image},
    runner::{LazyClient, Tools},
};
use maelstrom_spec::{ContainerParent, ContainerSpec, ImageUse, JobError, LayerSpec};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The name that directives use.
pub(crate) const NAME: &str = "pytest";

/// Packages that tests need on top of a container image.
const REQUIREMENTS: &str = "test-requirements.txt";

/// Files that make a directory a project of Python.
const MANIFESTS: [&str; 6] = [
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "pytest.ini",
    "tox.ini",
    "conftest.py",
];

/// What is kept for the next run.
pub(crate) struct Cache {
    pub(crate) directory: PathBuf,
    /// Where test modules are as pytest has rewritten them, here and in containers.
    pub(crate) rewritten: PathBuf,
    /// Made of those once a round: the collection may add to them, and templates that were started
    /// meanwhile are to be used nevertheless.
    rewritten_layers: OnceLock<Vec<LayerId>>,
}

impl Cache {
    pub(crate) fn new(directory: &Path) -> Cache {
        Cache {
            directory: directory.to_owned(),
            rewritten: directory.join("rewritten-1"),
            rewritten_layers: OnceLock::new(),
        }
    }
}

/// What containers are made of, for all tests of a round.
pub(crate) struct Workshop {
    client: Arc<LazyClient>,
    tools: Tools,
    identity: Identity,
    /// The container `pytest` as metadata files see it, without layers.
    pub(crate) base: ContainerSpec,
    /// Where pytest was started.
    directory: PathBuf,
    cache: Arc<Cache>,
    python: PythonTrees,
    /// The interpreter that runs tests.
    pub(crate) executable: PathBuf,
    roots: Vec<PathBuf>,
    container: OnceLock<Result<ContainerSpec, String>>,
    /// What is installed into each image.
    requirements: Mutex<Vec<(ContainerParent, Result<LayerSpec, String>)>>,
}

impl Workshop {
    pub(crate) fn new(
        client: Arc<LazyClient>,
        tools: Tools,
        identity: Identity,
        base: ContainerSpec,
        directory: &Path,
        cache: &Arc<Cache>,
        collection: &Collection,
    ) -> Workshop {
        let mut roots = vec![directory.to_owned()];
        if directory.starts_with(&collection.root) {
            roots[0] = collection.root.clone();
        } else if !collection.root.starts_with(directory) {
            roots.push(collection.root.clone());
        }
        let python = PythonTrees::new(&collection.environment, &roots);
        Workshop {
            client,
            tools,
            identity,
            base,
            directory: directory.to_owned(),
            cache: cache.clone(),
            python,
            executable: collection.environment.executable.clone(),
            roots,
            container: OnceLock::new(),
            requirements: Mutex::default(),
        }
    }

    /// The container `pytest`. The first caller makes its layers.
    pub(crate) fn container(&self) -> Result<ContainerSpec, String> {
        self.container.get_or_init(|| self.make()).clone()
    }

    /// The container `pytest` if it has been made, without the modules that pytest has rewritten.
    pub(crate) fn made(&self) -> Option<ContainerSpec> {
        let Ok(container) = self.container.get()? else {
            return None;
        };
        let rewritten = self.cache.rewritten_layers.get();
        let rewritten: Vec<LayerSpec> = rewritten
            .into_iter()
            .flatten()
            .map(|id| host::built(*id))
            .collect();
        let mut container = container.clone();
        container.layers.retain(|layer| !rewritten.contains(layer));
        Some(container)
    }

    /// The layer with what `test-requirements.txt` names, for a container whose parent is an image
    /// of Python. The first caller for each image makes it; others wait.
    pub(crate) fn requirements(
        &self,
        container: &ContainerSpec,
    ) -> Result<Option<LayerSpec>, String> {
        let Some(image @ ContainerParent::Image { name, members }) = &container.parent else {
            return Ok(None);
        };
        let file = self.directory.join(REQUIREMENTS);
        let is_for_it = members.contains(&ImageUse::Layers) && is_python_image(name);
        if !is_for_it || !file.exists() {
            return Ok(None);
        }
        let mut installed = self
            .requirements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = installed.iter().find(|(known, _)| known == image);
        let layer = match known {
            Some((_, layer)) => layer.clone(),
            None => {
                let client = self.client.get().map_err(|error| error.to_string())?;
                let layer = requirements::install(client, image, &file);
                let layer = layer.map_err(|error| match error {
                    JobError::Remote(message) => message,
                    other => other.to_string(),
                });
                installed.push((image.clone(), layer.clone()));
                layer
            }
        };
        layer.map(Some)
    }

    fn make(&self) -> Result<ContainerSpec, String> {
        let client = self.client.get().map_err(|error| error.to_string())?;
        let (store, context) = (client.store(), client.build_context());
        let cache = &self.cache.directory;
        let places = self.places();
        let made = std::thread::scope(|scope| {
            let interpreter = scope.spawn(|| self.python.interpreter.layers(store, context, cache));
            let environment = scope.spawn(|| self.python.environment.layers(store, context, cache));
            let shared =
                SharedLayers::prepare(store, context, &self.identity, &places, &self.tools)?;
            let joined = |handle: std::thread::ScopedJoinHandle<'_, _>| {
                handle
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let [system, programs, project] = shared.ids();
            let mut layers = vec![system, programs];
            layers.extend(joined(interpreter)?);
            layers.extend(joined(environment)?);
            if !self.python.examples.roots.is_empty() {
                layers.extend(self.python.examples.layers(store, context, cache)?);
            }
            layers.extend(self.cache.rewritten_layers.get_or_init(|| {
                let modules = Trees {
                    roots: [self.cache.rewritten.clone()].into(),
                    ..Trees::default()
                };
                // Without them it is only slower.
                let layers = modules.layers(store, context, cache);
                layers.unwrap_or_default()
            }));
            layers.push(project);
            Ok(layers)
        });
        let layers = made.map_err(|error: maelstrom_content::LayerError| error.to_string())?;
        let user: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let distribution = self.directory.file_name().unwrap_or_default();
        let variables = environment::variables(
            &user,
            &self.identity.home,
            &distribution.to_string_lossy(),
            hash_seed(),
        );
        let inside = self
            .roots
            .iter()
            .map(PathBuf::as_path)
            .chain(self.python.inside());
        Ok(ContainerSpec {
            layers: layers.into_iter().map(host::built).collect(),
            environment: vec![host::literal_environment(&variables)],
            working_directory: Some(self.directory.clone()),
            ..host::base_container(&self.identity, inside)
        })
    }

    fn places(&self) -> ProjectPlaces {
        let mut excluded = vec![self.directory.join(HIDDEN_DIRECTORY)];
        excluded.extend(self.python.environment.roots.iter().cloned());
        excluded.extend(self.python.examples.roots.iter().cloned());
        for root in &self.roots {
            excluded.extend(virtual_environments(root));
        }
        ProjectPlaces {
            roots: self
                .roots
                .iter()
                .chain(&self.python.sources)
                .cloned()
                .collect(),
            excluded,
            // Compiled modules do not fit their sources, whose times are normalised; and what
            // pytest remembers of earlier runs is for whoever chooses tests.
            excluded_names: vec!["__pycache__", ".pytest_cache"],
            manifests: MANIFESTS.into(),
        }
    }
}
