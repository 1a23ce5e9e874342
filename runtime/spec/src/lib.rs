//! What a job is: job, container, layer and mount specifications as users write them.
//!
//! These are plain values without I/O. A [`JobSpec`] names its layers by how to *make* them
//! ([`LayerSpec`]) and its parents by *name*. Collapsing it against the named containers
//! yields a container without parents; building its layers (in `maelstrom-content`) yields
//! hashes; both together make a job that any node can run.

mod collapse;
mod container;
mod environment;
mod image_uri;
mod job;
mod layer;
mod mount;
mod outcome;

pub use collapse::{
    Ancestry, CollapseError, Collapsed, CollapsedImage, ContainerCheckError, ancestry,
    check_container, collapse, is_local_only,
};
pub use container::{
    ContainerParent, ContainerSpec, ContainerUse, EnvironmentElement, ImageUse, Network,
};
pub use environment::{
    EnvironmentError, EnvironmentErrorReason, EnvironmentOrigin, ImageEnvironmentError,
    evaluate_environment, image_environment,
};
pub use image_uri::{ImageUri, ImageUriError, RegistryReference};
pub use job::{CaptureFileSystemChanges, JobSpec, WindowSize};
pub use layer::{LayerSpec, PrefixOptions, SymlinkSpec};
pub use mount::{Device, Mount};
pub use outcome::{JobEffects, JobError, JobOutcome, JobOutput, JobStatus, OutputFile};
