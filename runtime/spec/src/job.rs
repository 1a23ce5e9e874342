use crate::ContainerSpec;
use std::{path::PathBuf, time::Duration};

/// One program to run in one container, as a user or a runner asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobSpec {
    /// What the program sees around itself.
    pub container: ContainerSpec,
    /// The program: with a `/` it is a path, else it is looked up in the `PATH` of the job's own
    /// environment. Also `argv[0]`, exactly as written.
    pub program: String,
    /// `argv[1..]`.
    pub arguments: Vec<String>,
    /// How long the program may run, counted from its start. `None`: no limit.
    pub timeout: Option<Duration>,
    /// A scheduling hint. Unknown sorts before every known duration.
    pub estimated_duration: Option<Duration>,
    /// Higher runs first.
    pub priority: i8,
    /// Changes to the file system that are kept instead of thrown away.
    pub capture_file_system_changes: Option<CaptureFileSystemChanges>,
    /// Globs, relative to the working directory unless absolute, of files that are brought back
    /// out of the container when the program has ended.
    pub outputs: Vec<String>,
}

/// Local directories that receive what a job changed in its root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureFileSystemChanges {
    /// Receives the changes, in overlayfs' upper-directory format.
    pub upper: PathBuf,
    /// Scratch space on the same file system as `upper`.
    pub work: PathBuf,
}

/// The size of a terminal, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}
