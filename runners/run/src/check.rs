//! `--check`: whether this machine can run jobs.

use crate::report::Ending;
use anyhow::{Context as _, Result};
use maelstrom_runtime::{FindingResult, Launcher, check};

/// Prints what works and what does not. Ends with 1 if something that jobs need does not.
pub(crate) fn run(launcher: &Launcher) -> Result<Ending> {
    let findings = check(launcher).context("making a scratch directory")?;
    for finding in &findings {
        println!("{finding}");
    }
    let fails = findings
        .iter()
        .any(|finding| matches!(finding.result, FindingResult::Fails { .. }));
    Ok(Ending::Code(fails.into()))
}
