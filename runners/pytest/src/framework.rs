//! pytest's tests, as the orchestrator of all test runners sees them.

use crate::{
    artifact::PytestArtifact,
    cli::{Cli, PytestArguments},
    collection::{self, HIDDEN_DIRECTORY},
    project::PytestProject,
    surroundings,
};
use anyhow::{Context as _, Result};
use maelstrom_runner::{
    filter::{Dialect, PYTEST},
    metadata::PYTEST_DEFAULT,
    runner::{Framework, Places, Settings, Tools},
};
use std::{path::Path, sync::Arc};

/// pytest's tests.
pub(crate) struct PytestFramework {
    places: Places,
    arguments: Arc<PytestArguments>,
}

impl PytestFramework {
    /// The project is where this process was started.
    pub(crate) fn new(cli: Cli) -> Result<(PytestFramework, Settings)> {
        let project = std::env::current_dir().context("finding the current directory")?;
        let own = project.join(HIDDEN_DIRECTORY);
        let framework = PytestFramework {
            places: Places {
                cache: own.join("cache"),
                state: own.join("state"),
                unwatched: vec![own, project.join(".pytest_cache")],
                project,
            },
            arguments: Arc::new(cli.arguments),
        };
        Ok((framework, cli.settings))
    }
}

impl Framework for PytestFramework {
    type Artifact = PytestArtifact;
    type Project = PytestProject;

    fn places(&self) -> &Places {
        &self.places
    }

    fn dialect(&self) -> &'static Dialect {
        &PYTEST
    }

    fn metadata_file(&self) -> &'static str {
        "maelstrom-pytest.toml"
    }

    fn default_metadata(&self) -> &'static str {
        PYTEST_DEFAULT
    }

    fn imitating_container(&self) -> &'static str {
        surroundings::NAME
    }

    /// `ctypes.util.find_library` asks these programs.
    fn is_noise(&self, path: &Path) -> bool {
        const ASKED: [&str; 6] = ["cc", "gcc", "ld", "ldconfig", "objdump", "crle"];
        let name = path.file_name().unwrap_or_default();
        ASKED.iter().any(|asked| name == *asked)
            || name == "openssl.cnf"
            // Left out of the standard library, and looked into by pytest itself.
            || name.to_string_lossy().starts_with("config-")
            || name.to_string_lossy().ends_with(".so")
    }

    fn project(&self, tools: &Tools, color: bool) -> Result<PytestProject> {
        let interpreter = collection::interpreter(std::env::var_os("PATH").as_deref())?;
        Ok(PytestProject::new(
            &self.places.project,
            &self.places.cache,
            self.arguments.clone(),
            interpreter,
            tools,
            color,
        ))
    }
}
