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
mod json_text;
mod layer;
mod mount;
mod outcome;
mod parse;
mod source;
mod template;
mod toml_text;
mod value;

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
pub use json_text::{json_problem, parse_json};
pub use layer::{LayerSpec, PrefixOptions, SymlinkSpec};
pub use mount::{Device, Mount};
pub use outcome::{JobEffects, JobError, JobOutcome, JobOutput, JobStatus, OutputFile};
pub use parse::{
    CONTAINER_KEYS, ContainerFields, NamedContainer, ParseOptions, parse_containers, parse_job,
    parse_outputs, parse_timeout,
};
pub use source::{Excerpt, Problem, Source, SourceError};
pub use template::{TemplateError, TemplateVariables, expand_template};
pub use toml_text::{parse_toml, toml_string_span};
pub use value::{Entry, Fields, IntegerBounds, Node, Value, suggest};
