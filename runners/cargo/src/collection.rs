//! Building the tests of a round and listing them.

use crate::{
    artifact::{CargoArtifact, Workshop},
    build::{self, BuildEvent},
    built::{Built, TargetPlaces},
    cargo_config,
    cargo_project::{CargoProject, facts_of},
    cargo_test::{self, BuiltFiles},
    environment::{BuildFacts, SharedEnvironment},
    harness,
    libtest::ListCommand,
    workspace::{self, kind_of},
};
use anyhow::{Result, anyhow};
use cargo_metadata::{Package, Target, TargetKind};
use maelstrom_runner::{
    filter::{CargoFacts, TargetKind as Kind},
    runner::{Collected, Exit, Sink},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A test binary that Cargo has built.
struct TestBinary<'a> {
    package: &'a Package,
    target: Target,
    kind: Kind,
    path: PathBuf,
    own_harness: bool,
}

/// A test binary that may need what the build has not yet made.
struct Waiting<'a> {
    binary: TestBinary<'a>,
    artifact: CargoArtifact,
}

/// The collecting of one round.
pub(crate) struct Collection<'a> {
    project: &'a CargoProject,
    sink: &'a Sink<CargoArtifact>,
    workshop: Arc<Workshop>,
    environment: OnceLock<Result<SharedEnvironment, String>>,
    built: Mutex<Built>,
    /// Whether there are programs or libraries that integration tests may look for.
    has_binaries: bool,
}

impl<'a> Collection<'a> {
    pub(crate) fn new(project: &'a CargoProject, sink: &'a Sink<CargoArtifact>) -> Collection<'a> {
        let workshop = Workshop::new(
            sink.lazy_client().clone(),
            project.tools.clone(),
            project.identity.clone(),
            project.base.clone(),
            project.workspace.clone(),
            project.options.clone(),
        );
        let has_binaries = project
            .workspace
            .members()
            .any(|package| package.targets.iter().any(workspace::is_looked_for));
        Collection {
            project,
            sink,
            workshop: Arc::new(workshop),
            environment: OnceLock::new(),
            built: Mutex::default(),
            has_binaries,
        }
    }

    fn built(&self) -> MutexGuard<'_, Built> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The environment that all tests share. The first caller makes it.
    fn environment(&self) -> Result<&SharedEnvironment> {
        let made = self.environment.get_or_init(|| {
            let user: BTreeMap<String, String> = std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect();
            let home = cargo_config::cargo_home(
                std::env::var_os("CARGO_HOME"),
                std::env::home_dir().as_deref(),
            );
            let directory = std::env::current_dir()
                .map_err(|error| format!("finding the current directory: {error}"))?;
            let config = cargo_config::environment(&directory, home.as_deref(), |name| {
                std::env::var_os(name).is_some()
            })
            .map_err(|error| format!("{error:#}"))?;
            let names: Vec<&str> = self
                .project
                .workspace
                .members()
                .map(|package| package.name.as_str())
                .collect();
            let environment = SharedEnvironment::new(
                &user,
                &config,
                &self.project.toolchain.cargo,
                &self.project.identity.home,
                &names,
            );
            Ok(environment)
        });
        made.as_ref().map_err(|message| anyhow!("{message}"))
    }

    /// Builds and lists the tests of `packages`.
    pub(crate) fn collect(&self, packages: &[&Package]) -> Result<Collected> {
        let (sender, receiver) = crossbeam_channel::unbounded::<TestBinary<'_>>();
        let waiting: Mutex<Vec<Waiting<'_>>> = Mutex::default();
        let failure = Failure::default();
        let status = thread::scope(|scope| {
            // Needed by almost every test, and ready when Cargo is.
            if !self.sink.only_lists() {
                scope.spawn(|| self.workshop.shared_layers());
            }
            scope.spawn(|| self.environment().map(drop));
            for _ in 0..parallelism() {
                let receiver = receiver.clone();
                let (waiting, failure) = (&waiting, &failure);
                scope.spawn(move || {
                    for binary in receiver {
                        match self.begin(binary) {
                            Ok(Some(one)) => waiting
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(one),
                            Ok(None) => {}
                            Err(error) => failure.set(error),
                        }
                    }
                });
            }
            let status = build::build(
                &self.project.options,
                packages,
                self.project.color,
                &self.project.tools,
                |event| {
                    if let Some(binary) = self.note(event) {
                        let _ = sender.send(binary);
                    }
                    Ok(())
                },
                |line, is_progress| {
                    self.sink.build_output(line);
                    if !is_progress {
                        self.sink.output(line);
                    }
                },
            );
            drop(sender);
            status
        });
        let status = status?;
        failure.check()?;
        if !status.success() {
            return Ok(Collected::Failed(Exit::of_tool(status)));
        }
        let waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.finish(waiting, &failure);
        failure.check()?;
        Ok(Collected::Everything)
    }

    /// Lists a binary that was built, as far as that can be done now, and hands it over unless it
    /// has to wait for the end of the build.
    fn begin(&self, binary: TestBinary<'a>) -> Result<Option<Waiting<'a>>> {
        let mut artifact = CargoArtifact::new(
            binary.package,
            &binary.target,
            binary.kind,
            binary.path.clone(),
            self.project.invocation.clone(),
            self.workshop.clone(),
        );
        self.furnish(&mut artifact, &binary)?;
        let waits = self.waits_for_build(&binary);
        if !binary.own_harness {
            self.list(&mut artifact, &binary)?;
        } else if !waits {
            self.list_in_container(&mut artifact, &binary)?;
        }
        if waits {
            return Ok(Some(Waiting { binary, artifact }));
        }
        self.sink.artifact(Arc::new(artifact))?;
        Ok(None)
    }

    /// Hands over the binaries that waited for the end of the build.
    fn finish(&self, waiting: Vec<Waiting<'a>>, failure: &Failure) {
        let places = waiting
            .iter()
            .map(|one| TargetPlaces::of(&one.binary.path))
            .collect();
        let everything = Arc::new(self.built().everything(&self.project.workspace, places));
        let waiting: Vec<Mutex<Option<Waiting<'_>>>> = waiting
            .into_iter()
            .map(|one| Mutex::new(Some(one)))
            .collect();
        let next = AtomicUsize::new(0);
        let hand_over = |Waiting {
                             binary,
                             mut artifact,
                         }: Waiting<'_>| {
            self.furnish(&mut artifact, &binary)?;
            artifact.built = everything.clone();
            if binary.own_harness {
                self.list_in_container(&mut artifact, &binary)?;
            }
            self.sink.artifact(Arc::new(artifact))
        };
        thread::scope(|scope| {
            for _ in 0..parallelism().min(waiting.len()) {
                scope.spawn(|| {
                    while let Some(slot) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let one = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                        if let Some(Err(error)) = one.map(hand_over) {
                            failure.set(error);
                        }
                    }
                });
            }
        });
    }

    /// Takes note of what Cargo reports. Returns a test binary if that is one to be listed.
    fn note(&self, event: BuildEvent) -> Option<TestBinary<'a>> {
        let project = self.project;
        match event {
            BuildEvent::BuildScript(script) => {
                let is_member = project
                    .workspace
                    .metadata
                    .workspace_members
                    .contains(&script.package_id);
                self.built().note_script(script, is_member);
                None
            }
            BuildEvent::Artifact(artifact) => {
                let package = project
                    .workspace
                    .members()
                    .find(|package| package.id == artifact.package_id)?;
                if !artifact.profile.test {
                    self.built().note_artifact(&artifact);
                    return None;
                }
                let path = artifact.executable?.into_std_path_buf();
                let kind = kind_of(&artifact.target)?;
                if !self.is_wanted(package, &artifact.target, kind) {
                    return None;
                }
                let without = workspace::targets_without_harness(package);
                let own_harness = without.contains(&(kind, artifact.target.name.clone()));
                Some(TestBinary {
                    package,
                    target: artifact.target,
                    kind,
                    path,
                    own_harness,
                })
            }
        }
    }

    /// Whether a target can have selected tests. With a metadata file in the manner of Maelstrom
    /// 0.14, those of procedural macros do not count.
    fn is_wanted(&self, package: &Package, target: &Target, kind: Kind) -> bool {
        let facts = facts_of(package, target, kind);
        let macros = target.kind.contains(&TargetKind::ProcMacro);
        self.sink.selection().evaluate(&facts).is_possible()
            && (!macros || self.imitates_cargo(&facts))
    }

    /// Whether tests of a target run as `cargo test` would run them.
    fn imitates_cargo(&self, facts: &CargoFacts<'_>) -> bool {
        let metadata = self.sink.metadata();
        let configuration = metadata.configuration(|pattern| pattern.evaluate(facts).is_possible());
        metadata.inherits_layers_from(&configuration.container, cargo_test::NAME)
    }

    /// Whether a test may look for what the build has not yet made.
    fn waits_for_build(&self, binary: &TestBinary<'_>) -> bool {
        match binary.kind {
            Kind::Test | Kind::Benchmark => self.has_binaries,
            _ => self
                .project
                .workspace
                .closure(binary.package)
                .iter()
                .flat_map(|package| &package.targets)
                .any(|target| {
                    workspace::is_looked_for(target) && !target.kind.contains(&TargetKind::Example)
                }),
        }
    }

    fn benchmarks_count(&self, binary: &TestBinary<'_>) -> bool {
        self.imitates_cargo(&facts_of(binary.package, &binary.target, binary.kind))
    }

    fn list(&self, artifact: &mut CargoArtifact, binary: &TestBinary<'_>) -> Result<()> {
        let command = ListCommand {
            binary: &artifact.binary,
            working_directory: &artifact.directory,
            environment: &artifact.environment,
            benchmarks: self.benchmarks_count(binary),
        };
        let cases = command.run(&self.project.tools)?;
        artifact.set_cases(Some(cases));
        Ok(())
    }

    fn list_in_container(
        &self,
        artifact: &mut CargoArtifact,
        binary: &TestBinary<'_>,
    ) -> Result<()> {
        let cases = harness::list_in_container(
            self.sink.client()?,
            self.sink,
            artifact,
            self.benchmarks_count(binary),
        )
        .map_err(|message| {
            anyhow!(
                "could not list the tests of {}: {message}",
                artifact.binary.display()
            )
        })?;
        artifact.set_cases(cases);
        Ok(())
    }

    /// Gives an artifact its environment, and what it sees of the build so far.
    fn furnish(&self, artifact: &mut CargoArtifact, binary: &TestBinary<'_>) -> Result<()> {
        let environment = self.environment()?;
        let built = self.built();
        let package = binary.package;
        let places = TargetPlaces::of(&binary.path);
        let target_dir = self.project.workspace.target_dir();
        artifact.library_path = built
            .native_directories([target_dir, &places.root])
            .cloned()
            .chain([places.profile.clone(), places.profile.join("deps")])
            .chain(self.project.toolchain.libraries.iter().cloned())
            .collect();
        let script = built.scripts.get(&package.id);
        let temporary_directory = places.root.join("tmp");
        let facts = BuildFacts {
            binaries: built.binaries.get(&package.id).map_or(&[], Vec::as_slice),
            out_dir: script.map(|script| script.out_dir.as_std_path()),
            script_variables: script.map_or(&[], |script| &script.env),
            temporary_directory: Some(&temporary_directory),
            library_path: &artifact.library_path,
        };
        artifact.environment = environment.of(package, binary.kind, &facts);
        let scripts = self.project.workspace.closure(package).into_iter();
        let scripts = scripts.filter_map(|package| built.scripts.get(&package.id));
        artifact.built = Arc::new(BuiltFiles {
            binaries: BTreeSet::new(),
            out_dirs: scripts
                .map(|script| script.out_dir.as_std_path().to_owned())
                .collect(),
            directories: BTreeSet::from([temporary_directory]),
        });
        Ok(())
    }
}

/// The first thing that went wrong in any thread.
#[derive(Default)]
struct Failure(Mutex<Option<anyhow::Error>>);

impl Failure {
    fn set(&self, error: anyhow::Error) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }

    fn check(&self) -> Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .map_or(Ok(()), Err)
    }
}

fn parallelism() -> usize {
    thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 16))
}
