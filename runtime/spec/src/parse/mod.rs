//! Specifications as users write them. The same rules hold for the named containers of a metadata
//! file, for its directives, and for the jobs of `maelstrom-run`.

mod container;
mod job;
mod layer;
mod mount;

pub use container::{CONTAINER_KEYS, ContainerFields, NamedContainer, parse_containers};
pub use job::{parse_job, parse_outputs, parse_timeout};

use crate::TemplateVariables;

/// What parsing depends on besides the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions<'a> {
    /// Expand `<name>` in the paths of layers with these. `None`: `<` is an ordinary character.
    pub template_variables: Option<&'a TemplateVariables>,
}

#[cfg(test)]
mod tests;
