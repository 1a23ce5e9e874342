//! The client library: makes containers and jobs out of specifications and has a node run them.

use crate::{
    command_layer,
    images::{ClientImages, ImageConfig, PreparedImage},
    mesh::{self, MeshChoice},
};
use maelstrom_content::{BuildContext, LayerId, Store, StoreOptions};
use maelstrom_node::{Container, Job, JobEvent, JobId, JobService, Node, Rank, SharedResults};
use maelstrom_runtime::{ContainerMount, Launcher, Privileges, Root, StartError, TerminalSize};
pub use maelstrom_runtime::{Template, TemplateProgram};
use maelstrom_spec::{
    ContainerSpec, JobError, JobOutcome, JobSpec, LayerSpec, Mount, check_container, collapse,
    evaluate_environment,
};
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where relative paths in layers start.
    pub project_dir: PathBuf,
    /// Where layers are kept. Created if missing.
    pub cache_dir: PathBuf,
    /// Layers that nobody uses are dropped, least recently used first, once the cache is larger.
    pub cache_size_bytes: u64,
    /// How many bytes of each output stream of a job are kept.
    pub inline_limit_bytes: u64,
    /// How many jobs run at once.
    pub slots: usize,
    /// Where shared libraries are looked for before the usual places.
    pub library_path: Vec<PathBuf>,
    /// Which mesh to use besides this machine; `None`: none.
    pub mesh: Option<MeshChoice>,
    /// How container images are found and kept.
    pub images: ImageConfig,
}

/// Why a client could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The cache cannot be used.
    #[error(transparent)]
    Store(#[from] maelstrom_content::StoreError),
    /// No container can be made on this machine.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The mesh cannot be used.
    #[error("{0:#}")]
    Mesh(anyhow::Error),
}

/// A connection to a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    store: Store,
    node: Arc<dyn JobService>,
    context: BuildContext,
    containers: Mutex<HashMap<String, Arc<ContainerSpec>>>,
    images: ClientImages,
    layers: Mutex<HashMap<LayerSpec, Arc<Layer>>>,
    commands: Mutex<HashMap<blake3::Hash, Arc<Mutex<()>>>>,
    unnumbered_jobs: AtomicU64,
}

/// How programs in a container relate to what is around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the contract has it: user 0 has every capability inside, and its own network; the
    /// program leads a session.
    AsConfigured,
    /// As if the user had started the program on their own machine: root has what root has there
    /// over files; the program leads neither a session nor a process group.
    LikeHost,
}

/// A layer that is built once.
type Layer = OnceLock<Result<LayerId, JobError>>;

/// One program to run in a container that has been prepared.
#[derive(Debug)]
pub struct JobRequest {
    /// The container, from [`Client::prepare`].
    pub container: Arc<Container>,
    /// A path where it holds a `/`, else a name in the container's `PATH`.
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
    /// How long it may run, from its start. `None`: no limit.
    pub timeout: Option<std::time::Duration>,
    /// Higher priority first, then the longest estimate, unknown longest of all.
    pub rank: Rank,
    /// Globs of files that are brought back.
    pub outputs: Arc<[String]>,
    /// Whether to find out which paths the program looks for in vain. Slow.
    pub trace_missing: bool,
    /// A program that is started once for many jobs and forks for this one.
    pub template: Option<Template>,
    /// A terminal for its standard streams.
    pub terminal: Option<(OwnedFd, TerminalSize)>,
}

impl JobRequest {
    /// A job without timeout, outputs or terminal, of ordinary priority.
    pub fn new(
        container: Arc<Container>,
        program: impl Into<String>,
        arguments: Vec<String>,
    ) -> Self {
        Self {
            container,
            program: program.into(),
            arguments,
            timeout: None,
            rank: Rank::default(),
            outputs: Arc::new([]),
            trace_missing: false,
            template: None,
            terminal: None,
        }
    }

    /// The job that a specification describes, in the container prepared for it.
    pub fn from_spec(container: Arc<Container>, spec: &JobSpec) -> Self {
        Self {
            timeout: spec.timeout,
            rank: Rank {
                priority: spec.priority,
                estimate: spec.estimated_duration,
            },
            outputs: spec.outputs.clone().into(),
            ..Self::new(container, spec.program.clone(), spec.arguments.clone())
        }
    }
}

impl Client {
    /// Opens the cache and starts a node in this process.
    ///
    /// # Errors
    ///
    /// If the cache cannot be used or this machine cannot run containers.
    pub fn start(launcher: Launcher, config: ClientConfig) -> Result<Self, ClientError> {
        let (store, node): (Store, Arc<dyn JobService>) = match &config.mesh {
            None => {
                let options = StoreOptions {
                    cache_size_bytes: config.cache_size_bytes,
                };
                let store = Store::open(&config.cache_dir, options)?;
                let node = Node::start(launcher, store.clone(), config.slots)?;
                (store, Arc::new(node))
            }
            Some(choice) => {
                let started = mesh::start(launcher, &config, choice).map_err(ClientError::Mesh)?;
                (started.store, started.service)
            }
        };
        let context = BuildContext {
            project_dir: config.project_dir.clone(),
            current_dir: std::env::current_dir().unwrap_or_else(|_| config.project_dir.clone()),
            library_path: config.library_path.clone(),
            program_path: std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
        };
        Ok(Self(Arc::new(Inner {
            images: ClientImages::new(&config.images, &config.project_dir),
            config,
            store,
            node,
            context,
            containers: Mutex::default(),
            layers: Mutex::default(),
            commands: Mutex::default(),
            unnumbered_jobs: AtomicU64::new(0),
        })))
    }

    /// Where layers are built and kept.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What relative paths and searches start from when layers are built.
    pub fn build_context(&self) -> &BuildContext {
        &self.0.context
    }

    /// Defines a container that others can name as their parent, or replaces it.
    pub fn add_container(&self, name: impl Into<String>, container: ContainerSpec) {
        lock(&self.0.containers).insert(name.into(), Arc::new(container));
    }

    /// Makes everything that a container needs: collapses it, evaluates its environment, builds
    /// its layers. Each layer is built once, whoever asks. May take long; call it from a thread
    /// that can wait.
    ///
    /// # Errors
    ///
    /// [`JobError::Remote`] says what is wrong with the specification or which file is missing.
    pub fn prepare(
        &self,
        spec: &ContainerSpec,
        manner: Manner,
    ) -> Result<Arc<Container>, JobError> {
        let remote = |error: &dyn std::fmt::Display| JobError::Remote(error.to_string());
        let collapsed = collapse(spec, |name| lock(&self.0.containers).get(name).cloned())
            .map_err(|error| remote(&error))?;
        let image = match &collapsed.image {
            Some(image) => self.0.images.prepare(image, &self.0.store)?,
            None => PreparedImage::default(),
        };
        check_container(&collapsed, image.layers.len() + collapsed.layers.len())
            .map_err(|error| remote(&error))?;
        let environment = evaluate_environment(image.environment, &collapsed.environment, |name| {
            std::env::var_os(name)
        })
        .map_err(|error| remote(&error))?;
        let privileges = match (collapsed.user, manner) {
            (0, Manner::AsConfigured) => Privileges::Namespace,
            (0, Manner::LikeHost) => Privileges::Files,
            _ => Privileges::None,
        };
        let mut container = Container {
            layers: Vec::with_capacity(image.layers.len() + collapsed.layers.len()),
            environment: environment.into_iter().collect(),
            working_directory: collapsed
                .working_directory
                .or(image.working_directory)
                .unwrap_or_else(|| PathBuf::from("/")),
            root: if collapsed.enable_writable_file_system {
                Root::Discard
            } else {
                Root::ReadOnly
            },
            mounts: collapsed
                .mounts
                .iter()
                .flat_map(|mount| container_mounts(mount, &self.0.context))
                .collect(),
            network: collapsed.network.into(),
            user: collapsed.user,
            group: collapsed.group,
            privileges,
            leads_session: manner == Manner::AsConfigured,
        };
        let push = |container: &mut Container, id| {
            // What a layer holds counts where it lies topmost, and an overlay takes it only once.
            container.layers.retain(|below| *below != id);
            container.layers.push(id);
        };
        for id in image.layers {
            push(&mut container, id);
        }
        for layer in &collapsed.layers {
            let id = match layer {
                LayerSpec::Command { program, arguments } => {
                    command_layer::build(self, program, arguments, &container)?
                }
                other => self.layer(other)?,
            };
            push(&mut container, id);
        }
        Ok(Arc::new(container))
    }

    /// Runs a command in a container whose root file system it may write to, and makes a layer of
    /// what it changes there. The layer is remembered: the same command in the same container
    /// runs once in a cache.
    ///
    /// # Errors
    ///
    /// As for [`Self::prepare`], and if the command does not succeed.
    pub fn command_layer(
        &self,
        container: &ContainerSpec,
        program: &str,
        arguments: &[String],
    ) -> Result<LayerId, JobError> {
        let container = self.prepare(container, Manner::AsConfigured)?;
        command_layer::build(self, program, arguments, &container)
    }

    /// Makes the container of a job, including what only jobs can ask for.
    ///
    /// # Errors
    ///
    /// As for [`Self::prepare`].
    pub fn prepare_job(&self, spec: &JobSpec) -> Result<Arc<Container>, JobError> {
        let mut container = self.prepare(&spec.container, Manner::AsConfigured)?;
        if let Some(capture) = &spec.capture_file_system_changes {
            let absolute = |path: &Path| self.0.context.current_dir.join(path);
            Arc::make_mut(&mut container).root = Root::Capture {
                upper: absolute(&capture.upper),
                work: absolute(&capture.work),
            };
        }
        Ok(container)
    }

    /// Builds one layer, or waits for whoever is building it.
    fn layer(&self, spec: &LayerSpec) -> Result<LayerId, JobError> {
        if let LayerSpec::Built { id } = spec {
            return Ok(LayerId::from_bytes(*id));
        }
        let entry = lock(&self.0.layers)
            .entry(spec.clone())
            .or_default()
            .clone();
        entry
            .get_or_init(|| {
                self.0
                    .store
                    .build(spec, &self.0.context)
                    .map_err(|error| JobError::Remote(error.to_string()))
            })
            .clone()
    }

    /// Where this client keeps what can be made again.
    pub(crate) fn cache_dir(&self) -> &Path {
        &self.0.config.cache_dir
    }

    /// Keeps a layer from being evicted as long as this client lives. `false`: it is not there.
    pub(crate) fn keep_layer(&self, id: LayerId) -> bool {
        let built = LayerSpec::Built { id: *id.as_bytes() };
        self.0.store.build(&built, &self.0.context).is_ok()
    }

    /// What must be held while the layer of a command is made or looked up, by the hash of the
    /// command and what is around it.
    pub(crate) fn command_lock(&self, key: blake3::Hash) -> Arc<Mutex<()>> {
        lock(&self.0.commands).entry(key).or_default().clone()
    }

    /// Runs a job that is not one of the user's, and so takes none of their numbers.
    pub(crate) fn run_unnumbered(&self, request: JobRequest) -> Result<JobOutcome, JobError> {
        let (send, receive) = mpsc::channel();
        let number = self.0.unnumbered_jobs.fetch_add(1, Ordering::Relaxed);
        self.submit_reserved(JobId(u64::MAX - number), request, move |_, event| {
            if let JobEvent::Completed(result) = event {
                // The receiver waits for it.
                let _ = send.send(result);
            }
        });
        receive.recv().unwrap_or(Err(JobError::Cancelled))
    }

    /// Queues a job and returns at once. The handler is called from another thread for each
    /// event; the last one is [`JobEvent::Completed`] and always comes.
    pub fn submit(
        &self,
        request: JobRequest,
        handler: impl FnMut(JobId, JobEvent) + Send + 'static,
    ) -> JobId {
        let id = self.0.node.reserve();
        self.submit_reserved(id, request, handler);
        id
    }

    /// Takes the number of a job that will be submitted later. Numbers count from 0.
    pub fn reserve(&self) -> JobId {
        self.0.node.reserve()
    }

    /// Queues a job under a number that was reserved for it.
    pub fn submit_reserved(
        &self,
        id: JobId,
        request: JobRequest,
        handler: impl FnMut(JobId, JobEvent) + Send + 'static,
    ) {
        let job = Job {
            container: request.container,
            program: request.program,
            arguments: request.arguments,
            timeout: request.timeout,
            inline_limit_bytes: self.0.config.inline_limit_bytes,
            rank: request.rank,
            outputs: request.outputs,
            trace_missing: request.trace_missing,
            template: request.template,
            background: false,
            terminal: request.terminal,
            hold: None,
        };
        self.0.node.submit_reserved(id, job, Box::new(handler));
    }

    /// How many slots take nobody else's jobs, and give none of its jobs away. 0 with a mesh.
    pub fn own_slots(&self) -> usize {
        match self.0.config.mesh {
            None => self.0.config.slots,
            Some(_) => 0,
        }
    }

    /// The results that other machines know, if there are others.
    pub fn shared_results(&self) -> Option<Arc<dyn SharedResults>> {
        self.0.node.results()
    }

    /// A sentence that the user should see at the end of a run, if there is one.
    pub fn remark(&self) -> Option<String> {
        self.0.node.remark()
    }

    /// Ends every job with [`JobError::Cancelled`], promptly.
    pub fn cancel_all(&self) {
        self.0.node.cancel_all();
    }

    /// Cancels everything, and returns when nothing runs any more. Later jobs are cancelled at
    /// once.
    pub fn shutdown(&self) {
        self.0.node.stop();
    }
}

fn container_mounts(mount: &Mount, context: &BuildContext) -> Vec<ContainerMount> {
    vec![match mount {
        Mount::Devices { devices } => {
            return devices
                .iter()
                .map(|device| ContainerMount::device(*device))
                .collect();
        }
        Mount::Bind {
            mount_point: at,
            local_path,
            read_only,
        } => ContainerMount::Bind {
            mount_point: at.clone(),
            source: context.current_dir.join(local_path),
            read_only: *read_only,
        },
        Mount::Devpts { mount_point: at } => ContainerMount::Devpts {
            mount_point: at.clone(),
        },
        Mount::Mqueue { mount_point: at } => ContainerMount::Mqueue {
            mount_point: at.clone(),
        },
        Mount::Proc { mount_point: at } => ContainerMount::Proc {
            mount_point: at.clone(),
        },
        Mount::Sys { mount_point: at } => ContainerMount::Sys {
            mount_point: at.clone(),
        },
        Mount::Tmp { mount_point: at } => ContainerMount::Tmp {
            mount_point: at.clone(),
        },
    }]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
