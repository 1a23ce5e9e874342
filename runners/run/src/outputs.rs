//! Files that a job brings back.

use crate::{print::print, report::Piece};
use maelstrom_runner::runner;
use maelstrom_spec::{JobError, JobOutcome};
use std::path::Path;

/// Writes the output files of a job below the project directory, taking the container's root for
/// that directory, and says which could not be written. Returns whether all could.
pub(crate) fn bring_back(
    project_dir: &Path,
    prefix: &str,
    result: &Result<JobOutcome, JobError>,
) -> bool {
    let outputs = match result {
        Ok(outcome) => &outcome.effects.outputs[..],
        Err(_) => &[],
    };
    let mut all_written = true;
    for output in outputs {
        if let Err(message) = runner::bring_back(output, project_dir) {
            print(&[Piece::Line(format!("{prefix}{message}"))]);
            all_written = false;
        }
    }
    all_written
}
