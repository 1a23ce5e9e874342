//! A layer that this test binary can run in, and slots to run it.

use maelstrom_runtime::{ContainerJob, ContainerMount, Launcher, Privileges, RunError, Slot};
use maelstrom_spec::{JobError, JobOutcome, JobStatus};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(crate) struct Fixture {
    pub(crate) launcher: Launcher,
    directory: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let launcher = Launcher::start().expect("the launcher starts");
        let directory = tempfile::tempdir().expect("a directory for layers");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        make_layer(&directory.path().join("base"));
        Self {
            launcher,
            directory,
        }
    }

    pub(crate) fn layers_root(&self) -> &Path {
        self.directory.path()
    }

    /// A fresh directory that is no layer.
    pub(crate) fn scratch(&self) -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    pub(crate) fn slot(&self) -> Slot {
        self.launcher
            .slot(self.layers_root().to_path_buf())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A job of an ordinary user that runs a probe.
    pub(crate) fn job(&self, probe: &[&str]) -> ContainerJob {
        job(self.layers_root(), probe)
    }

    /// Runs a job in a slot of its own.
    pub(crate) fn run(&self, job: &ContainerJob) -> Result<JobOutcome, JobError> {
        self.slot().run(job).map_err(|RunError { error, .. }| error)
    }

    /// Runs a probe that must succeed, and returns what it printed.
    pub(crate) fn output_of(&self, job: &ContainerJob) -> String {
        output(self.run(job))
    }
}

/// What a successful job printed.
pub(crate) fn output(result: Result<JobOutcome, JobError>) -> String {
    let outcome = result.unwrap_or_else(|error| panic!("{error}"));
    let stdout = String::from_utf8_lossy(outcome.effects.stdout.bytes()).into_owned();
    let stderr = String::from_utf8_lossy(outcome.effects.stderr.bytes());
    assert_eq!(
        outcome.status,
        JobStatus::Exited(0),
        "stdout: {stdout}\nstderr: {stderr}"
    );
    stdout
}

pub(crate) fn job(layers_root: &Path, probe: &[&str]) -> ContainerJob {
    ContainerJob {
        program: "/probe".to_owned(),
        arguments: ["probe"]
            .iter()
            .chain(probe)
            .map(|&argument| argument.to_owned())
            .collect(),
        environment: vec![("LD_LIBRARY_PATH".to_owned(), "/lib".to_owned())],
        layers: vec![layers_root.join("base")],
        mounts: vec![ContainerMount::Proc {
            mount_point: "/proc".into(),
        }],
        user: 1000,
        group: 1001,
        privileges: Privileges::None,
        ..ContainerJob::default()
    }
}

/// Makes a layer of this program, the libraries that it has loaded, and some mount points.
fn make_layer(layer: &Path) {
    for directory in [
        "proc", "sys", "tmp", "dev", "lib", "mnt", "dev/shm", "dev/pts",
    ] {
        fs::create_dir_all(layer.join(directory)).unwrap();
    }
    for device in ["full", "null", "random", "urandom", "zero", "tty"] {
        fs::write(layer.join("dev").join(device), "").unwrap();
    }
    fs::write(layer.join("file"), "from the layer").unwrap();
    fs::copy(std::env::current_exe().unwrap(), layer.join("probe")).unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libraries: BTreeSet<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5))
        .map(PathBuf::from)
        .filter(|path| path.to_string_lossy().contains(".so"))
        .collect();
    for library in &libraries {
        let name = library.file_name().unwrap();
        fs::copy(library, layer.join("lib").join(name)).unwrap();
        if name.to_string_lossy().starts_with("ld-") {
            for loader in ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"] {
                let loader = layer.join(loader);
                fs::create_dir_all(loader.parent().unwrap()).unwrap();
                fs::copy(library, loader).unwrap();
            }
        }
    }
}

/// Waits until something is so, and fails with `what` if it is not in time.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed().as_secs() < 30, "not in time: {what}");
        std::thread::yield_now();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Every process on this machine.
pub(crate) fn all_processes() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The processes on this machine whose environment holds this text.
pub(crate) fn processes_with(text: &str) -> Vec<u32> {
    all_processes()
        .into_iter()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(text))
        })
        .collect()
}
