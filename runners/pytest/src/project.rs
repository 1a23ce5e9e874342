//! One round's view of a project.

use crate::{
    artifact::{self, PACKAGE, PytestArtifact, RunArguments},
    cli::PytestArguments,
    collection::{self, Collection, Ended, Item},
    record::Record,
    source,
    surroundings::{self, Cache, Workshop},
    template::{self, Templates},
};
use anyhow::Result;
use maelstrom_runner::{
    filter::{PytestFacts, Selection},
    host::{self, Identity},
    listing::CaseMetadata,
    metadata::MetadataOptions,
    runner::{Collected, Exit, Project, Sink, TestArtifact as _, Tools},
};
use maelstrom_spec::{ContainerSpec, JobError, JobOutcome};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

/// One round's view of a project.
pub(crate) struct PytestProject {
    directory: PathBuf,
    cache: Arc<Cache>,
    arguments: Arc<PytestArguments>,
    interpreter: PathBuf,
    tools: Tools,
    color: bool,
    identity: Identity,
    base: ContainerSpec,
    /// The files that hold tests, once all have been collected.
    files: Mutex<Option<Vec<String>>>,
}

impl PytestProject {
    pub(crate) fn new(
        directory: &Path,
        cache: &Path,
        arguments: Arc<PytestArguments>,
        interpreter: PathBuf,
        tools: &Tools,
        color: bool,
    ) -> PytestProject {
        let identity = Identity::of_process();
        let base = host::base_container(&identity, std::iter::once(directory));
        PytestProject {
            directory: directory.to_owned(),
            cache: Arc::new(Cache::new(cache)),
            arguments,
            interpreter,
            tools: tools.clone(),
            color,
            identity,
            base,
            files: Mutex::default(),
        }
    }

    /// Whether a file can hold tests that the arguments select.
    fn is_asked_for(&self, file: &str) -> bool {
        let mut paths = self
            .arguments
            .select
            .iter()
            .skip_while(|argument| argument.starts_with('-'))
            .filter(|argument| self.directory.join(collection_path(argument)).exists())
            .peekable();
        paths.peek().is_none()
            || paths.any(|path| {
                let path = Path::new(collection_path(path));
                let relative = path.strip_prefix(&self.directory).unwrap_or(path);
                Path::new(file).starts_with(relative) || relative == Path::new(".")
            })
    }
}

/// The file or directory in what a user names: `a.py` of `a.py::t[x]`.
fn collection_path(argument: &str) -> &str {
    let before = argument.split('[').next().unwrap_or(argument);
    before.split("::").next().unwrap_or(before)
}

impl Project for PytestProject {
    type Artifact = PytestArtifact;

    fn metadata_options(&self) -> MetadataOptions {
        MetadataOptions {
            template_variables: BTreeMap::new(),
            predefined_containers: BTreeMap::from([(
                surroundings::NAME.to_owned(),
                self.base.clone(),
            )]),
        }
    }

    fn packages(&self, _: &Selection) -> Vec<String> {
        vec![PACKAGE.to_owned()]
    }

    fn inventory(&self) -> Vec<(String, Option<Vec<String>>)> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        vec![(PACKAGE.to_owned(), files.clone())]
    }

    fn selects_recorded(
        &self,
        selection: &Selection,
        package: &str,
        artifact: &str,
        case: &str,
        metadata: Option<&CaseMetadata>,
    ) -> bool {
        package == PACKAGE
            && self.is_asked_for(artifact)
            && selection
                .evaluate(&PytestFacts {
                    file: Some(artifact),
                    case: Some(case),
                    node_id: metadata.map(|metadata| metadata.node_id.as_str()),
                    markers: metadata.map(|metadata| &metadata.markers[..]),
                })
                .is_true()
    }

    fn collect(&self, sink: &Sink<PytestArtifact>) -> Result<Collected> {
        let record = (!self.arguments.fresh_interpreters && !sink.only_lists())
            .then(|| Record::read(&self.cache.directory, &self.arguments, &self.interpreter))
            .flatten();
        let (ended, ahead) = match self.find_out(record, sink)? {
            Found::Unchanged(record, kit) => {
                tracing::debug!("nothing has changed: the tests are those of the last run");
                record.touch(&self.cache.directory);
                self.hand_over(record.collection, &kit, None, sink)?;
                return Ok(Collected::Everything);
            }
            Found::Collected(ended, ahead) => (ended, ahead),
        };
        let (collection, said) = match ended {
            Ended::Collected(collection, said) => (*collection, said),
            Ended::Failed(exit, said) => {
                sink.output(&said);
                return Ok(Collected::Failed(exit));
            }
        };
        let kit = self.kit(&collection, sink);
        if ahead
            .as_ref()
            .is_some_and(|ahead| ahead.kit.templates != kit.templates)
            && let Some(client) = sink.lazy_client().started()
        {
            // So far there are no other jobs.
            client.cancel_all();
        }
        let recorded = (!sink.only_lists()).then(|| collection.clone());
        self.hand_over(collection, &kit, said.as_ref(), sink)?;
        if let Some(collection) = recorded {
            self.remember(collection, &kit, said.is_none(), ahead);
        }
        Ok(match said {
            None => Collected::Everything,
            Some((exit, said)) => {
                sink.output(&said);
                Collected::Failed(exit)
            }
        })
    }
}

/// If nothing has changed, that is found out so soon. Otherwise it is better to collect meanwhile.
const UNCHANGED_WITHIN: Duration = Duration::from_millis(400);

/// Templates that were started before the tests were collected.
struct Ahead {
    record: Record,
    kit: Kit,
    /// What their tests will be collected from.
    source: Option<String>,
    /// What one of them has collected, at the end of this job, where that is as good as collecting.
    answer: Option<Receiver<Result<JobOutcome, JobError>>>,
    /// Whether that is something else than the last run has collected from the same.
    is_disproved: bool,
}

/// Which tests there are.
enum Found {
    /// Those of the last run.
    Unchanged(Record, Kit),
    /// Those that were collected here.
    Collected(Ended, Option<Ahead>),
}

impl Ahead {
    /// Waits for what the template has collected. Whether it is what the last run did: if not, it
    /// is something else, or the template was not asked, or cannot say.
    fn ask(&mut self) -> bool {
        let Some(Ok(Ok(outcome))) = self.answer.take().map(|answer| answer.recv()) else {
            return false;
        };
        for note in &outcome.effects.notes {
            tracing::warn!("collecting tests: {note}");
        }
        let said = outcome.effects.stdout.bytes();
        let templates = &self.kit.templates;
        let is_same = templates.have_collected(&self.record.collection, said);
        self.is_disproved = is_same == Some(false);
        is_same == Some(true)
    }
}

/// What tests are run with.
struct Kit {
    workshop: Arc<Workshop>,
    run: Arc<RunArguments>,
    templates: Arc<Templates>,
}

impl PytestProject {
    fn kit(&self, collection: &Collection, sink: &Sink<PytestArtifact>) -> Kit {
        let workshop = Workshop::new(
            sink.lazy_client().clone(),
            self.tools.clone(),
            self.identity.clone(),
            self.base.clone(),
            &self.directory,
            &self.cache,
            collection,
        );
        let run = RunArguments::new(&self.arguments, collection, &self.directory);
        let rewritten = &self.cache.rewritten;
        let templates = Templates::new(&self.arguments, collection, &run, rewritten, |item| {
            is_run(item, sink)
        });
        Kit {
            workshop: Arc::new(workshop),
            run: Arc::new(run),
            templates: Arc::new(templates),
        }
    }

    /// Collects the tests unless they are known, and meanwhile starts the templates that the last
    /// run needed.
    fn find_out(&self, record: Option<Record>, sink: &Sink<PytestArtifact>) -> Result<Found> {
        let may_hold = record.as_ref().is_some_and(Record::may_hold);
        thread::scope(|scope| {
            let (tell, is_started) = mpsc::channel();
            let mut starting = record.map(|record| {
                scope.spawn(move || {
                    let ahead = self.start_ahead(record, sink);
                    // Nobody may wait for it any more.
                    let _ = tell.send(());
                    ahead
                })
            });
            let join = |starting: ScopedJoinHandle<'_, Ahead>| {
                let started = starting.join();
                started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let mut ahead = None;
            // What takes longer has changed.
            if may_hold
                && is_started.recv_timeout(UNCHANGED_WITHIN).is_ok()
                && let Some(started) = starting.take()
            {
                let mut started = join(started);
                if started.ask() {
                    return Ok(Found::Unchanged(started.record, started.kit));
                }
                ahead = Some(started);
            }
            let ended = collection::collect(
                &self.interpreter,
                &self.directory,
                &self.cache.rewritten,
                &self.arguments,
                &self.tools,
                self.color,
                |bytes| sink.build_output(bytes),
            )?;
            Ok(Found::Collected(ended, ahead.or(starting.map(join))))
        })
    }

    /// What tests are collected from, if their container has been made.
    fn source(&self, kit: &Kit, collection: &Collection) -> Option<String> {
        source::name(&kit.workshop.made()?, &self.interpreter, collection)
    }

    /// Starts the templates that this run needs if it needs the same as the last one.
    fn start_ahead(&self, record: Record, sink: &Sink<PytestArtifact>) -> Ahead {
        let kit = self.kit(&record.collection, sink);
        let (mut source, mut answer) = (None, None);
        if let Some((example, tests)) = record.example(|item| is_run(item, sink)) {
            let example = vec![example.clone()];
            for artifact in PytestArtifact::all(example, &kit.run, &kit.workshop, &kit.templates) {
                let question = || {
                    source = self.source(&kit, &record.collection);
                    match record.is_steady && record.is_from(source.as_deref()) {
                        true => template::question(),
                        false => Vec::new(),
                    }
                };
                match sink.start_template(&artifact, tests, question) {
                    Ok(started) => answer = started,
                    Err(error) => {
                        tracing::debug!("starting templates ahead of their jobs: {error:#}");
                    }
                }
            }
        }
        Ahead {
            record,
            kit,
            source,
            answer,
            is_disproved: false,
        }
    }

    /// Keeps what was collected for the next run. `is_whole`: there were no errors.
    fn remember(&self, collection: Collection, kit: &Kit, is_whole: bool, ahead: Option<Ahead>) {
        let mut source = self.source(kit, &collection);
        // Somebody may have changed the project while it was collected. Templates notice, but for
        // tests that they were told not to make.
        let is_known = ahead.as_ref().is_some_and(|ahead| ahead.source == source);
        if !is_known && !collection.functions_left_out.is_empty() {
            source = None;
        }
        // What depends on more than is known here is better collected while templates start.
        let is_steady = ahead.is_none_or(|ahead| {
            !ahead.record.is_from(source.as_deref())
                || (ahead.record.is_steady && !ahead.is_disproved)
        });
        let is_steady = is_whole && is_steady;
        let (arguments, interpreter) = (&self.arguments, &self.interpreter);
        if let Some(record) = Record::new(collection, source, is_steady, arguments, interpreter) {
            record.write(&self.cache.directory);
        }
    }

    /// Hands over what was collected. `said`: with errors.
    fn hand_over(
        &self,
        collection: Collection,
        kit: &Kit,
        said: Option<&(Exit, Vec<u8>)>,
        sink: &Sink<PytestArtifact>,
    ) -> Result<()> {
        if collection.covers {
            tracing::warn!(
                "pytest-cov is off: tests run in processes of their own, whose measurements are not combined"
            );
        }
        if let Some(seed) = &collection.seed {
            tracing::info!("pytest-randomly draws the same again with --randomly-seed={seed}");
        }
        if !self.arguments.fresh_interpreters {
            template::warn_of_unfit(&collection);
        }
        let artifacts =
            PytestArtifact::all(collection.items, &kit.run, &kit.workshop, &kit.templates);
        if self.arguments.select.is_empty() && said.is_none() {
            let files = artifacts.iter().map(|artifact| artifact.key().to_owned());
            *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files.collect());
        }
        for artifact in artifacts {
            sink.artifact(Arc::new(artifact))?;
        }
        Ok(())
    }
}

fn is_run(item: &Item, sink: &Sink<PytestArtifact>) -> bool {
    !item.ignored
        && sink
            .selection()
            .evaluate(&item.facts(artifact::file_of(&item.node_id)))
            .is_true()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(select: &[&str]) -> PytestProject {
        let arguments = PytestArguments {
            select: select.iter().copied().map(str::to_owned).collect(),
            ..PytestArguments::default()
        };
        PytestProject::new(
            Path::new("/"),
            Path::new("/nonexistent"),
            Arc::new(arguments),
            PathBuf::from("python"),
            &Tools::default(),
            false,
        )
    }

    #[test]
    fn named_paths_say_which_records_count() {
        assert!(project(&[]).is_asked_for("tests/a.py"));
        assert!(project(&["-k", "x"]).is_asked_for("tests/a.py"));
        let some = project(&["etc/passwd::t[a::b]", "usr"]);
        assert!(some.is_asked_for("usr/a.py") && some.is_asked_for("etc/passwd"));
        assert!(!some.is_asked_for("tests/a.py"));
    }
}
