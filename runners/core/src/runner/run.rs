//! From the settings of a test runner to its exit code.

use super::{
    Exit, Framework, Ignored, LazyClient, Project, ProjectWatcher, Woken,
    round::{RoundContext, RoundResult, run_round},
    watch_signals,
};
use crate::{
    client::ClientConfig,
    config::{ClientValues, LogLevel, TestRunnerValues, UiStyle},
    filter::Selection,
    images::ImageConfig,
    listing::{self, TestListing},
    mesh::MeshChoice,
    results::{MeshResults, ResultCache},
    ui::{Ui, UiSender},
};
use anyhow::Context as _;
use crossbeam_channel::Receiver;
use maelstrom_node::SharedResults;
use maelstrom_runtime::{Launcher, StartError};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The file of image digests, which a run may write.
const LOCK_FILE: &str = "maelstrom-container-tags.lock";

/// What a test runner is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Run tests.
    #[default]
    Run,
    /// Build, and print the names of tests.
    ListTests,
    /// Print the names of packages.
    ListPackages,
    /// Print the names of binaries.
    ListBinaries,
    /// Write the default metadata file.
    Init,
}

impl Mode {
    pub(super) fn is_list(self) -> bool {
        matches!(
            self,
            Mode::ListTests | Mode::ListPackages | Mode::ListBinaries
        )
    }

    pub(super) fn lists_without_building(
        self,
        project: &impl Project,
        selection: &Selection,
    ) -> Option<Vec<String>> {
        match self {
            Mode::ListPackages => Some(project.packages(selection)),
            Mode::ListBinaries => Some(project.binaries(selection)),
            _ => None,
        }
    }
}

/// What the user chose, as far as it concerns all test runners.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What to do.
    pub mode: Mode,
    /// Whether to do it again whenever the project changes.
    pub watch: bool,
    /// Patterns of which a test must match one. None: all tests.
    pub include: Vec<String>,
    /// Patterns of which a test must match none.
    pub exclude: Vec<String>,
    /// How to show what happens.
    pub ui: UiStyle,
    /// How often each test is run.
    pub repeat: NonZeroU32,
    /// How many failures end the run.
    pub stop_after: Option<NonZeroU32>,
    /// How long each test may run: `None` says what the metadata file says, `Some(None)` without limit.
    pub timeout: Option<Option<Duration>>,
    /// Whether tests that passed before, with the same content, are not run again.
    pub cached: bool,
    /// Which log messages are shown.
    pub log_level: LogLevel,
    /// How jobs are run.
    pub client: ClientValues,
}

impl Settings {
    /// The settings in configuration values. Mode, patterns and `watch` are left at their defaults.
    pub fn new(log_level: LogLevel, client: ClientValues, values: &TestRunnerValues) -> Settings {
        Settings {
            mode: Mode::default(),
            watch: false,
            include: Vec::new(),
            exclude: Vec::new(),
            ui: values.ui,
            repeat: values.repeat,
            stop_after: values.stop_after,
            timeout: values.timeout.map(|seconds| seconds.as_limit()),
            cached: false,
            log_level,
            client,
        }
    }
}

/// Runs a test runner to its end. Fatal errors are printed to standard error.
///
/// `launcher` has been started first thing in the process; that it could not is told when it is
/// needed.
pub fn run<F: Framework>(
    framework: F,
    launcher: Result<Launcher, StartError>,
    settings: Settings,
) -> Exit {
    try_run(framework, launcher, settings).unwrap_or_else(|error| {
        // If that cannot be told, nothing can.
        let _ = writeln!(io::stderr(), "Error: {error:#}");
        Exit::FAILURE
    })
}

fn try_run<F: Framework>(
    framework: F,
    launcher: Result<Launcher, StartError>,
    settings: Settings,
) -> anyhow::Result<Exit> {
    if settings.mode == Mode::Init {
        return init(&framework);
    }
    if let Some(broker) = &settings.client.broker {
        anyhow::bail!(
            "`broker` is set to {}, but this version runs tests on this machine only; unset it, or override it with --no-broker",
            broker.text
        );
    }
    let signals = watch_signals().context("watching for signals")?;
    let places = framework.places();
    let narrates = framework.narrates();
    let (ui, sender) = Ui::start(settings.ui, settings.mode.is_list() || narrates)?;
    let client = LazyClient::new(
        launcher,
        ClientConfig {
            project_dir: places.project.clone(),
            cache_dir: places.cache.clone(),
            cache_size_bytes: settings.client.cache_size.bytes(),
            inline_limit_bytes: settings.client.inline_limit.bytes(),
            slots: settings.client.slots.count(),
            library_path: Vec::new(),
            mesh: MeshChoice::new(&settings.client),
            images: ImageConfig::new(&settings.client.container_image_depot_root)
                .accept_invalid_tls_certs(settings.client.accept_invalid_remote_container_tls_certs)
                .progress(Arc::new(sender.clone())),
        },
    );
    let log_sender = sender.clone();
    let log_writer = move || -> Box<dyn io::Write> {
        // Whoever reads what a framework narrates reads nothing else.
        if narrates {
            Box::new(io::stderr())
        } else {
            Box::new(log_sender.log_writer())
        }
    };
    // A second run in one process keeps the first one's.
    let log = tracing_subscriber::fmt::layer()
        .with_writer(log_writer)
        .with_ansi(sender.has_color() && !narrates)
        .with_filter(settings.log_level.filter());
    let _ = tracing_subscriber::registry().with(log).try_init();
    let client = Arc::new(client);
    let results = settings.cached.then(|| {
        let others = MeshChoice::new(&settings.client)
            .map(|_| Arc::new(MeshResults::new(client.clone())) as Arc<dyn SharedResults>);
        ResultCache::new(places.cache.join("results"), others)
    });
    let runner = Runner {
        framework: Arc::new(framework),
        settings: Arc::new(settings),
        client,
        ui: sender,
        signals,
        results,
    };
    let result = runner.run();
    if matches!(result, Ok(Exit::Signal(_))) {
        // The terminal first: its user is waiting for it.
        ui.abandon();
    } else {
        ui.finish().context("writing to standard output")?;
    }
    if let Some(client) = runner.client.started() {
        client.shutdown();
    }
    result
}

/// Writes the default metadata file, unless there is one.
fn init<F: Framework>(framework: &F) -> anyhow::Result<Exit> {
    let path = framework.places().project.join(framework.metadata_file());
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let _ = writeln!(
                io::stdout(),
                "{} already exists; it was left as it is",
                path.display()
            );
            return Ok(Exit::FAILURE);
        }
        Err(error) => return Err(error).with_context(|| format!("creating {}", path.display())),
    };
    if let Err(error) = file.write_all(framework.default_metadata().as_bytes()) {
        // Half a file would be worse than none.
        let _ = fs::remove_file(&path);
        return Err(error).with_context(|| format!("writing {}", path.display()));
    }
    let _ = writeln!(io::stdout(), "Created {}", path.display());
    Ok(Exit::SUCCESS)
}

struct Runner<F> {
    framework: Arc<F>,
    settings: Arc<Settings>,
    client: Arc<LazyClient>,
    ui: UiSender,
    signals: Receiver<i32>,
    results: Option<ResultCache>,
}

impl<F: Framework> Runner<F> {
    fn run(&self) -> anyhow::Result<Exit> {
        if !self.settings.watch {
            return match self.round()? {
                RoundResult::Ended(exit) => Ok(exit),
                RoundResult::Interrupted(signal) => Ok(Exit::Signal(signal)),
            };
        }
        let places = self.framework.places();
        let mut ignored = Ignored {
            paths: places.unwatched.clone(),
        };
        ignored.paths.extend([
            places.project.join(LOCK_FILE),
            places.cache.clone(),
            places.state.clone(),
        ]);
        // Armed before the first round, so that no edit is missed.
        let watcher = ProjectWatcher::new(&places.project, ignored)?;
        loop {
            match self.round() {
                Ok(RoundResult::Ended(_)) => {}
                Ok(RoundResult::Interrupted(signal)) => return Ok(Exit::Signal(signal)),
                Err(error) if self.client.failed() => return Err(error),
                // Someone is in the middle of an edit.
                Err(error) if self.framework.narrates() => {
                    let _ = writeln!(io::stderr(), "Error: {error:#}");
                }
                Err(error) => {
                    self.ui
                        .collection_output(format!("Error: {error:#}\n").as_bytes());
                    self.ui
                        .end_round(crate::ui::RoundEnd::Stopped { all_queued: false });
                }
            }
            self.ui.status("waiting for changes...");
            if let Woken::Signal(signal) = watcher.wait(&self.signals) {
                return Ok(Exit::Signal(signal));
            }
        }
    }

    fn round(&self) -> anyhow::Result<RoundResult> {
        let path = self.framework.places().state.join(listing::FILE_NAME);
        let mut listing = TestListing::load(&path)?;
        let context = RoundContext {
            framework: &self.framework,
            settings: &self.settings,
            client: &self.client,
            ui: &self.ui,
            signals: &self.signals,
            results: self.results.as_ref(),
        };
        let result = run_round(&context, &mut listing)?;
        if matches!(result, RoundResult::Ended(_)) {
            listing.save(&path)?;
        }
        Ok(result)
    }
}
