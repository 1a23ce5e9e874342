//! Go's tests, as the orchestrator of all test runners sees them.

use crate::{
    artifact::GoArtifact,
    cli::Cli,
    go_test,
    options::{BuildOptions, TestOptions},
    packages::{self, GoEnv},
    project::{GoProject, GoProjectParts},
    selector,
    unchanged::Memory,
};
use anyhow::{Context as _, Result, bail};
use maelstrom_runner::{
    filter::{Dialect, GO, Selection},
    metadata::GO_DEFAULT,
    runner::{Framework, Places, Settings, Tools},
};
use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// Go's tests.
pub(crate) struct GoFramework {
    places: Places,
    build: Arc<BuildOptions>,
    test: Arc<TestOptions>,
    verbose: bool,
    /// Where the user is, for package patterns.
    directory: PathBuf,
}

impl GoFramework {
    /// Finds the module.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new(cli: Cli) -> Result<(GoFramework, Settings)> {
        let directory = env::current_dir().context("finding the current directory")?;
        let root = module_root(&directory)?;
        let own = root.join(".maelstrom-go-test");
        let framework = GoFramework {
            places: Places {
                cache: own.join("cache"),
                state: own.join("state"),
                unwatched: cli
                    .build
                    .cover_profile
                    .iter()
                    .cloned()
                    .chain([own])
                    .collect(),
                project: root,
            },
            build: Arc::new(cli.build),
            test: Arc::new(cli.test),
            verbose: cli.verbose,
            directory,
        };
        Ok((framework, cli.settings))
    }
}

/// The nearest directory above that has a `go.mod`.
fn module_root(directory: &Path) -> Result<PathBuf> {
    let root = directory
        .ancestors()
        .find(|directory| directory.join("go.mod").is_file());
    match root {
        Some(root) => Ok(root.to_owned()),
        None => bail!(
            "there is no go.mod in {} or a directory above it; run this in a Go module, or make one with `go mod init`",
            directory.display()
        ),
    }
}

impl Framework for GoFramework {
    type Artifact = GoArtifact;
    type Project = GoProject;

    fn places(&self) -> &Places {
        &self.places
    }

    fn dialect(&self) -> &'static Dialect {
        &GO
    }

    fn metadata_file(&self) -> &'static str {
        "maelstrom-go-test.toml"
    }

    fn default_metadata(&self) -> &'static str {
        GO_DEFAULT
    }

    fn imitating_container(&self) -> &'static str {
        go_test::NAME
    }

    fn narrow(&self, selection: Selection) -> Selection {
        selector::narrow(selection, self.test.run.as_ref(), self.test.skip.as_ref())
    }

    fn shows_output_of_passed(&self) -> bool {
        self.verbose
    }

    fn failure_code(&self, _: u8) -> u8 {
        // As `go test` has it, however the test binary ended.
        1
    }

    fn narrates(&self) -> bool {
        self.test.json
    }

    fn collecting_status(&self) -> &'static str {
        "building artifacts..."
    }

    fn project(&self, tools: &Tools, _color: bool) -> Result<GoProject> {
        let root = &self.places.project;
        let everything = ["./...".to_owned()];
        let (directory, patterns) = if self.build.patterns.is_empty() {
            (root, &everything[..])
        } else {
            (&self.directory, &self.build.patterns[..])
        };
        let is_everything = directory == root && patterns == everything;
        let flags = &self.build.flags;
        let memory = self.memory(directory, patterns);
        if let Some(snapshot) = memory.as_ref().and_then(Memory::recall) {
            return Ok(GoProject::new(GoProjectParts {
                places: self.places.clone(),
                env: snapshot.env,
                modules: snapshot.modules,
                packages: snapshot.packages,
                all: snapshot.all,
                build: self.build.clone(),
                test: self.test.clone(),
                tools: tools.clone(),
                unchanged: Some(snapshot.binaries),
                memory: None,
            }));
        }
        let (env, listed, all) = thread::scope(|scope| {
            let env = scope.spawn(|| GoEnv::read(root, tools));
            // What is not asked for now is not forgotten.
            let all = (!is_everything)
                .then(|| scope.spawn(|| packages::list(root, flags, &everything, tools)));
            let listed = packages::list(directory, flags, patterns, tools);
            (joined(env), listed, all.map(joined))
        });
        let env = env?;
        let packages = listed?;
        let mut names: Vec<String> = packages
            .iter()
            .map(|package| package.import_path.clone())
            .collect();
        for package in all.transpose()?.unwrap_or_default() {
            names.push(package.import_path);
        }
        if env.minor_version().is_some_and(|minor| minor < 21) {
            bail!(
                "{} is too old: building many test binaries at once needs Go 1.21",
                env.goversion
            );
        }
        let modules = packages::main_modules(root, &env, tools)?;
        let memory = memory.and_then(|memory| {
            let tree = memory.tree(&modules, &env)?;
            Some((memory, tree))
        });
        // The cache is none of the module's packages, nor to be put under version control.
        ignore_own_directory(&self.places);
        Ok(GoProject::new(GoProjectParts {
            places: self.places.clone(),
            env,
            modules,
            packages,
            all: names,
            build: self.build.clone(),
            test: self.test.clone(),
            tools: tools.clone(),
            unchanged: None,
            memory,
        }))
    }
}

impl GoFramework {
    /// Where it is remembered what was built when the user asked for the same.
    fn memory(&self, directory: &Path, patterns: &[String]) -> Option<Memory> {
        let mut asked = vec![directory.to_string_lossy().into_owned()];
        asked.extend(patterns.iter().cloned());
        let mut flags = self.build.flags("");
        flags.extend(self.test.json.then(|| "-json".to_owned()));
        Memory::new(
            self.places.cache.join("unchanged.json"),
            &asked,
            &flags,
            self.places.unwatched.clone(),
        )
    }
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn ignore_own_directory(places: &Places) {
    let own = crate::project::own_directory(places);
    let file = own.join(".gitignore");
    if !file.exists() {
        // Only a convenience.
        let _ = std::fs::create_dir_all(own);
        let _ = std::fs::write(file, "*\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_nearest_above() {
        let temp = tempfile::tempdir().unwrap();
        let inner = temp.path().join("a/b/c");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(temp.path().join("a/go.mod"), "module x").unwrap();
        assert_eq!(module_root(&inner).unwrap(), temp.path().join("a"));
        let message = module_root(temp.path()).unwrap_err().to_string();
        assert!(message.contains("go mod init"), "{message}");
    }
}
