use super::{CONTAINER_KEYS, ContainerFields, ParseOptions};
use crate::{Fields, JobSpec, Node, Problem};
use std::time::Duration;

/// The keys of a job besides those of its container.
const JOB_KEYS: [&str; 5] = ["program", "arguments", "timeout", "priority", "outputs"];

/// Parses a job. The keys of its container stand beside its own.
pub fn parse_job(node: &Node, options: ParseOptions<'_>) -> Result<JobSpec, Problem> {
    let fields = Fields::new(node, "a job")?;
    fields.allow_only(&[&JOB_KEYS, &CONTAINER_KEYS])?;
    let strings = |node: &Node| node.list(|node| node.string().map(str::to_owned));
    Ok(JobSpec {
        program: fields.require("program")?.string()?.to_owned(),
        arguments: fields.optional("arguments", strings)?.unwrap_or_default(),
        timeout: fields.optional("timeout", parse_timeout)?.flatten(),
        priority: fields.optional("priority", Node::integer)?.unwrap_or(0),
        outputs: fields
            .optional("outputs", parse_outputs)?
            .unwrap_or_default(),
        container: ContainerFields::parse(&fields, options)?.into_container()?,
        ..JobSpec::default()
    })
}

/// Parses a timeout in whole seconds; 0 is none.
pub fn parse_timeout(node: &Node) -> Result<Option<Duration>, Problem> {
    let seconds: u32 = node.integer()?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// Parses the globs of the files that a job brings back.
pub fn parse_outputs(node: &Node) -> Result<Vec<String>, Problem> {
    node.list(|node| node.string().map(str::to_owned))
}
