//! Building the test binaries of a round and listing their tests.

use crate::{
    artifact::{GoArtifact, Workshop, place},
    build::{Build, Progress},
    go_test,
    known::{Known, KnownBinaries},
    packages::{self, Package},
    toolchain,
};
use anyhow::{Result, anyhow};
use crossbeam_channel::Sender;
use maelstrom_runner::runner::{Collected, Exit, Sink, Tools};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// The collecting of one round.
pub(crate) struct Collection<'a> {
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) sink: &'a Sink<GoArtifact>,
    pub(crate) known: &'a KnownBinaries,
    /// The environment in which binaries are asked for their tests, on this machine.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) tools: &'a Tools,
}

/// A binary that is built, by its package's place in the list.
type Built = (usize, PathBuf);

impl Collection<'_> {
    /// Builds and lists the tests of `packages`, which are sorted.
    pub(crate) fn collect(&self, build: &Build<'_>, packages: &[&Package]) -> Result<Collected> {
        self.begin_each(packages, |sender| {
            let told = Told {
                sender,
                sink: self.sink,
                json: self.workshop.options.json,
            };
            build.run(packages, &told)
        })
    }

    /// Lists the tests of `packages`, whose binaries are there.
    pub(crate) fn hand_over(
        &self,
        packages: &[&Package],
        binaries: &[PathBuf],
    ) -> Result<Collected> {
        self.begin_each(packages, |sender| {
            for built in binaries.iter().cloned().enumerate() {
                // Received as long as there are binaries.
                let _ = sender.send(built);
            }
            Ok(None)
        })
    }

    /// Lists the tests of the binaries that `produce` sends, while it sends more.
    fn begin_each(
        &self,
        packages: &[&Package],
        produce: impl FnOnce(Sender<Built>) -> Result<Option<Exit>>,
    ) -> Result<Collected> {
        let (sender, receiver) = crossbeam_channel::unbounded::<Built>();
        let failure: Mutex<Option<anyhow::Error>> = Mutex::default();
        let exit = thread::scope(|scope| {
            // Needed by almost every test, and ready when the first binary is.
            if !self.sink.only_lists() {
                scope.spawn(|| self.workshop.shared_layers());
            }
            for _ in 0..parallelism() {
                let receiver = receiver.clone();
                let failure = &failure;
                scope.spawn(move || {
                    for (index, binary) in receiver {
                        if let Err(error) = self.begin(packages[index], &binary) {
                            failure
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
            drop(receiver);
            produce(sender)
        });
        self.known.save();
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        Ok(match exit? {
            Some(exit) => Collected::Failed(exit),
            None => Collected::Everything,
        })
    }

    /// Lists the tests of a binary and hands it over.
    fn begin(&self, package: &Package, binary: &Path) -> Result<()> {
        let layer = if self.sink.only_lists() {
            None
        } else {
            let layer = self.workshop.binary_layer(binary, &place(package));
            Some(layer.map_err(|message| anyhow!("{message}"))?)
        };
        let known = match layer.and_then(|layer| self.known.get(layer)) {
            Some(known) => known,
            None => {
                let known = Known {
                    names: self.list(package, binary),
                    go_use: toolchain::go_use(binary, package),
                };
                if let Some(layer) = layer {
                    self.known.put(layer, known.clone());
                }
                known
            }
        };
        let benchmarks = !self.imitates_go(package);
        let names = known.names.map(|names| {
            names
                .into_iter()
                .filter(|name| benchmarks || !name.starts_with("Benchmark"))
                .collect()
        });
        self.sink.artifact(Arc::new(GoArtifact::new(
            package,
            binary,
            layer,
            names,
            known.go_use,
            self.workshop.clone(),
        )))
    }

    /// Whether the tests of a package run as `go test` would run them.
    fn imitates_go(&self, package: &Package) -> bool {
        let metadata = self.sink.metadata();
        let facts = package.facts();
        let configuration =
            metadata.configuration(|pattern| pattern.evaluate(&facts).is_possible());
        metadata.inherits_layers_from(&configuration.container, go_test::NAME)
    }

    /// Asks a binary for its tests. `None`: it ends before it says.
    fn list(&self, package: &Package, binary: &Path) -> Option<Vec<String>> {
        let mut command = Command::new(binary);
        command
            .arg("-test.list=.")
            .current_dir(&package.directory)
            .envs(&self.environment)
            .env("PWD", &package.directory);
        match packages::output(&mut command, self.tools) {
            Ok(output) => Some(names(&String::from_utf8_lossy(&output))),
            Err(error) => {
                tracing::debug!("{error:#}");
                None
            }
        }
    }
}

/// The names in a listing, which may have other output around them.
fn names(listing: &str) -> Vec<String> {
    let is_name = |line: &&str| {
        ["Test", "Example", "Fuzz", "Benchmark"].iter().any(|kind| {
            line.strip_prefix(kind)
                .is_some_and(|rest| !rest.starts_with(char::is_lowercase))
        }) && line.chars().all(|c| c == '_' || c.is_alphanumeric())
    };
    let mut names: Vec<String> = Vec::new();
    for line in listing.lines().filter(is_name) {
        if !names.iter().any(|name| name == line) {
            names.push(line.to_owned());
        }
    }
    names
}

/// Passes on what the build tells.
struct Told<'a> {
    sender: Sender<Built>,
    sink: &'a Sink<GoArtifact>,
    json: bool,
}

impl Progress for Told<'_> {
    fn built(&self, package: usize, binary: &Path) {
        // Received as long as the build runs.
        let _ = self.sender.send((package, binary.to_owned()));
    }

    fn stdout(&self, line: &[u8]) {
        // `?   	example.com/m	[no test files]`
        if line.starts_with(b"?") {
            return;
        }
        if self.json {
            let text = String::from_utf8_lossy(line);
            self.sink.line(text.trim_end_matches('\n'));
        } else {
            self.sink.output(line);
        }
    }

    fn stderr(&self, line: &[u8]) {
        self.sink.build_output(line);
        self.sink.output(line);
    }
}

fn parallelism() -> usize {
    thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_count() {
        let listing = "hello from TestMain\nTestA\nTesting\nTest\nTest_b\nExampleX_y\nFuzzZ\nBenchmarkB\nTestA\nTest with words\nok  \tx\n";
        assert_eq!(
            names(listing),
            [
                "TestA",
                "Test",
                "Test_b",
                "ExampleX_y",
                "FuzzZ",
                "BenchmarkB"
            ]
        );
    }
}
