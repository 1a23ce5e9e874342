//! Finding out inside a container which tests a program without Rust's harness has: a program that
//! does not know `--list` would do who knows what, which is nothing to happen on the client.

use crate::{artifact::CargoArtifact, libtest};
use maelstrom_node::JobEvent;
use maelstrom_runner::{
    client::{Client, JobRequest},
    runner::{Case, Sink},
};
use maelstrom_spec::{JobOutcome, JobOutput, JobStatus};
use std::{sync::mpsc, time::Duration};

/// A harness answers at once; what takes longer is no harness.
const LISTING_LIMIT: Duration = Duration::from_secs(5);

/// The tests of a program that speaks the language of Rust's harness; `None` for any other.
///
/// # Errors
/// When no container could be made.
pub(crate) fn list_in_container(
    client: &Client,
    sink: &Sink<CargoArtifact>,
    artifact: &CargoArtifact,
    benchmarks: bool,
) -> Result<Option<Vec<Case>>, String> {
    let mut container = artifact.cargo_test()?;
    container
        .layers
        .extend(artifact.binary_layers(&artifact.binary, true)?);
    let container = sink
        .prepare(client, container, true)
        .map_err(|error| error.to_string())?;
    let list = |more: &[&str]| {
        let arguments = ["--list", "--format", "terse"]
            .iter()
            .chain(more)
            .map(|&word| word.to_owned());
        let mut request = JobRequest::new(
            container.clone(),
            artifact.binary.to_string_lossy(),
            arguments.collect(),
        );
        request.timeout = Some(LISTING_LIMIT);
        // Nothing can run before it is known.
        request.rank.priority = i8::MAX;
        let (sender, receiver) = mpsc::channel();
        client.submit(request, move |_, event| {
            if let JobEvent::Completed(result) = event {
                let _ = sender.send(result);
            }
        });
        match receiver.recv() {
            Ok(Ok(JobOutcome {
                status: JobStatus::Exited(0),
                effects,
            })) => match effects.stdout {
                JobOutput::None => Some(String::new()),
                JobOutput::Inline(bytes) => String::from_utf8(bytes).ok(),
                JobOutput::Truncated { .. } => None,
            },
            _ => None,
        }
    };
    let Some(all) = list(&[]).filter(|output| libtest::is_listing(output)) else {
        return Ok(None);
    };
    let Some(ignored) = list(&["--ignored"]) else {
        return Ok(None);
    };
    Ok(Some(libtest::cases(&all, &ignored, benchmarks)))
}
