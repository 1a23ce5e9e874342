//! What a job is: job, container, layer and mount specifications as users write them.
//!
//! These are plain values without I/O. A [`JobSpec`] names its layers by how to *make* them
//! ([`LayerSpec`]) and its parents by *name*. Collapsing it against the named containers
//! yields a container without parents; building its layers (in `maelstrom-content`) yields
//! hashes; both together make a job that any node can run.

mod container;
mod job;
mod layer;
mod mount;
mod outcome;

pub use container::{
    ContainerParent, ContainerSpec, ContainerUse, EnvironmentElement, ImageUse, Network,
};
pub use job::{CaptureFileSystemChanges, JobSpec, WindowSize};
pub use layer::{LayerSpec, PrefixOptions, SymlinkSpec};
pub use mount::{Device, Mount};
pub use outcome::{JobEffects, JobError, JobOutcome, JobOutput, JobStatus, OutputFile};
