//! Cargo's tests, as the orchestrator of all test runners sees them.

use crate::{
    artifact::{CargoArtifact, Invocation},
    cargo_project::CargoProject,
    cargo_test,
    cli::Cli,
    libtest::HarnessArguments,
    options::CargoOptions,
    sysroot::Toolchain,
    workspace::Workspace,
};
use anyhow::Result;
use maelstrom_runner::{
    filter::{CARGO, Dialect, Pattern, Selection},
    metadata::CARGO_DEFAULT,
    runner::{Framework, IgnoredTests, Places, Settings, Tools},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Cargo's tests.
pub(crate) struct CargoFramework {
    places: Places,
    options: Arc<CargoOptions>,
    invocation: Arc<Invocation>,
    toolchain: Arc<Toolchain>,
    packages: Vec<String>,
    excluded_packages: Vec<String>,
    /// The workspace as it was read to find the places, until the first round takes it.
    first: Mutex<Option<Workspace>>,
}

impl CargoFramework {
    /// Finds the workspace. Takes the packages to leave out from the settings' patterns.
    pub(crate) fn new(cli: Cli) -> Result<(CargoFramework, Settings)> {
        let Cli {
            mut settings,
            options,
            invocation,
            packages,
        } = cli;
        let tools = Tools::default();
        let (workspace, toolchain) = thread::scope(|scope| {
            let toolchain = scope.spawn(|| Toolchain::find(options.target.as_deref(), &tools));
            let workspace = Workspace::load(&options, &tools);
            (workspace, toolchain.join())
        });
        let workspace = workspace?;
        let toolchain = toolchain.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (excluded_packages, patterns) = std::mem::take(&mut settings.exclude)
            .into_iter()
            .partition(|text| is_package(text));
        settings.exclude = patterns;
        let own = workspace.target_dir().join("maelstrom");
        let mut unwatched = vec![workspace.target_dir().to_owned()];
        unwatched.extend(
            options
                .target_dir
                .as_ref()
                .and_then(|path| std::path::absolute(path).ok()),
        );
        let framework = CargoFramework {
            places: Places {
                project: workspace.root().to_owned(),
                cache: own.join("cache"),
                state: own.join("state"),
                unwatched,
            },
            options: Arc::new(options),
            invocation: Arc::new(invocation),
            toolchain: Arc::new(toolchain),
            packages,
            excluded_packages,
            first: Mutex::new(Some(workspace)),
        };
        Ok((framework, settings))
    }

    fn harness(&self) -> &HarnessArguments {
        &self.invocation.harness
    }
}

/// Whether a value of `--exclude` is the name of a package, as `cargo test` has it, and not a
/// pattern: it is no pattern, and could be a name.
fn is_package(text: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || "-_@.:*?+".contains(c);
    !text.is_empty() && text.chars().all(name) && Pattern::parse(text, &CARGO).is_err()
}

impl Framework for CargoFramework {
    type Artifact = CargoArtifact;
    type Project = CargoProject;

    fn places(&self) -> &Places {
        &self.places
    }

    fn dialect(&self) -> &'static Dialect {
        &CARGO
    }

    fn metadata_file(&self) -> &'static str {
        "cargo-maelstrom.toml"
    }

    fn default_metadata(&self) -> &'static str {
        CARGO_DEFAULT
    }

    fn imitating_container(&self) -> &'static str {
        cargo_test::NAME
    }

    fn narrow(&self, selection: Selection) -> Selection {
        self.harness().narrow(selection)
    }

    fn ignored_tests(&self) -> IgnoredTests {
        if self.harness().ignored {
            IgnoredTests::RunOnly
        } else if self.harness().include_ignored {
            IgnoredTests::Run
        } else {
            IgnoredTests::Report
        }
    }

    fn shows_output_of_passed(&self) -> bool {
        self.harness().show_output
    }

    fn collecting_status(&self) -> &'static str {
        "building artifacts..."
    }

    fn project(&self, tools: &Tools, color: bool) -> Result<CargoProject> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let workspace = match first {
            Some(workspace) => workspace,
            None => Workspace::load(&self.options, tools)?,
        };
        let chosen = workspace.select(&self.packages, &self.excluded_packages)?;
        let chosen = chosen
            .into_iter()
            .map(|package| package.id.clone())
            .collect();
        Ok(CargoProject::new(
            workspace,
            self.options.clone(),
            self.invocation.clone(),
            self.toolchain.clone(),
            chosen,
            tools,
            color,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pattern_is_a_package() {
        for (text, package) in [
            ("my-crate", true),
            ("my_crate@1.2.3", true),
            ("my-*", true),
            ("all", false),
            ("n", false),
            ("library", false),
            ("package.equals(my-crate)", false),
            ("package.equals(my-crate", false),
            ("name.contains(x) &&", false),
            ("", false),
        ] {
            assert_eq!(is_package(text), package, "{text}");
        }
    }
}
