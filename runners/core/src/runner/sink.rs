//! What lies between collecting tests and running them: each artifact's tests are selected,
//! configured and given their containers, by the thread that collected them.

use super::{IgnoredTests, LazyClient, Surroundings, TestArtifact, layers::RoundLayers};
use crate::{
    client::{Client, JobRequest, Manner, Template, TemplateProgram},
    filter::{Facts, Pattern, Selection},
    metadata::{Metadata, TestConfiguration},
    results::{ContainerKey, ResultCache, ResultKey},
    ui::UiSender,
};
use maelstrom_node::{Container, JobEvent};
use maelstrom_spec::{ContainerSpec, JobError, JobOutcome};
use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::Duration,
};

/// Where a [`Project`](super::Project) hands over what it collects. Blocks while the runner is
/// busy.
pub struct Sink<A> {
    pub(super) selection: Arc<Selection>,
    /// Whether there is a metadata file.
    pub(super) configured: bool,
    pub(super) metadata: Arc<Metadata<Pattern>>,
    pub(super) client: Arc<LazyClient>,
    pub(super) layers: RoundLayers,
    pub(super) ignored_tests: IgnoredTests,
    /// Replaces the limits of the metadata file.
    pub(super) timeout: Option<Option<Duration>>,
    /// Whether nothing is to be run.
    pub(super) only_list: bool,
    /// Results of earlier runs, if they may be used.
    pub(super) results: Option<ResultCache>,
    pub(super) inline_limit_bytes: u64,
    /// Whether standard output is for what the framework narrates alone.
    pub(super) narrates: bool,
    pub(super) ui: UiSender,
    pub(super) send: Box<dyn Fn(Collecting<A>) + Send + Sync>,
}

/// What collecting reports.
pub(super) enum Collecting<A> {
    /// An artifact, and those of its tests that are selected.
    Artifact(Arc<A>, Vec<Ready>),
}

/// A selected test.
pub(super) struct Ready {
    /// Which of its artifact's cases.
    pub(super) case: usize,
    /// How it runs. `None`: it is ignored, or only listed.
    pub(super) plan: Option<Arc<Plan>>,
    /// Names its result, if that may be remembered.
    pub(super) key: Option<ResultKey>,
    /// The result, if it is known.
    pub(super) known: Option<JobOutcome>,
}

/// How tests run; shared by those of an artifact that are configured alike.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) container: Result<Arc<Container>, JobError>,
    pub(super) program: String,
    pub(super) timeout: Option<Duration>,
    pub(super) outputs: Arc<[String]>,
    pub(super) imitates_host: bool,
    /// Names what is common to the results, if they may be remembered.
    key: Option<ContainerKey>,
    pub(super) template: Option<Arc<TemplateProgram>>,
}

impl<A: TestArtifact> Sink<A> {
    /// The client that jobs will be given to. Starts it if that has not been done yet.
    ///
    /// # Errors
    /// Why this machine cannot run containers, or the cache cannot be used.
    pub fn client(&self) -> anyhow::Result<&Client> {
        self.client.get()
    }

    /// Starts when it is first needed.
    pub fn lazy_client(&self) -> &Arc<LazyClient> {
        &self.client
    }

    /// Which tests are selected.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What the metadata file says, or the default one.
    pub fn metadata(&self) -> &Metadata<Pattern> {
        &self.metadata
    }

    /// Whether there is a metadata file.
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// Whether nothing is to be run, so that only the names of tests matter.
    pub fn only_lists(&self) -> bool {
        self.only_list
    }

    /// Hands over an artifact. Makes the containers of its selected tests.
    ///
    /// # Errors
    /// When there is no client to make them with.
    pub fn artifact(&self, artifact: Arc<A>) -> anyhow::Result<()> {
        let mut plans: Vec<(TestConfiguration, Arc<Plan>)> = Vec::new();
        let mut ready = Vec::new();
        for (index, case) in artifact.cases().iter().enumerate() {
            let facts = artifact.facts(case);
            let selected = self.selection.evaluate(&facts).is_true();
            if !selected || (self.ignored_tests == IgnoredTests::RunOnly && !case.ignored) {
                continue;
            }
            let plan =
                if self.only_list || (case.ignored && self.ignored_tests == IgnoredTests::Report) {
                    None
                } else {
                    self.plan(&*artifact, &facts, &mut plans)?
                };
            ready.push(Ready {
                case: index,
                plan,
                key: None,
                known: None,
            });
        }
        for (_, plan) in &plans {
            self.look_up(&artifact, plan, &mut ready);
        }
        (self.send)(Collecting::Artifact(artifact.clone(), ready));
        Ok(())
    }

    /// Has the template of an artifact's first test started in as many slots as there are, or
    /// tests, ahead of jobs that will need it. Whatever goes wrong with that shows when they run.
    /// One of them is told `question`, if that is anything, and what becomes of that comes out of
    /// the receiver. It is asked for when the container has been made.
    ///
    /// # Errors
    /// When there is no client to start them with.
    pub fn start_template(
        &self,
        artifact: &A,
        tests: usize,
        question: impl FnOnce() -> Vec<u8>,
    ) -> anyhow::Result<Option<Receiver<Result<JobOutcome, JobError>>>> {
        // With results of earlier runs there may be nothing to run.
        if self.only_list || self.results.is_some() {
            return Ok(None);
        }
        let Some(case) = artifact.cases().first() else {
            return Ok(None);
        };
        let plan = self.plan(artifact, &artifact.facts(case), &mut Vec::new())?;
        let Some(plan) = plan else {
            return Ok(None);
        };
        let (Ok(container), Some(program)) = (&plan.container, &plan.template) else {
            return Ok(None);
        };
        let client = self.client.get()?;
        let slots = client.own_slots().min(tests);
        if slots == 0 {
            return Ok(None);
        }
        let question = question();
        let is_asked = !question.is_empty();
        let (tell, answer) = mpsc::channel();
        let questions = std::iter::once((question, Some(tell)));
        for (payload, tell) in questions
            .chain(std::iter::repeat((Vec::new(), None)))
            .take(slots)
        {
            let mut request = JobRequest::new(container.clone(), plan.program.clone(), Vec::new());
            request.template = Some(Template {
                program: program.clone(),
                payload,
            });
            client.submit(request, move |_, event| {
                if let (JobEvent::Completed(result), Some(tell)) = (event, &tell) {
                    // Nobody may wait for it any more.
                    let _ = tell.send(result);
                }
            });
        }
        Ok(is_asked.then_some(answer))
    }

    /// Makes everything that a container without named parents needs. `imitates_host`: it stands
    /// in for the client's machine.
    ///
    /// # Errors
    /// What is wrong with the container, or which file is missing.
    pub fn prepare(
        &self,
        client: &Client,
        mut container: ContainerSpec,
        imitates_host: bool,
    ) -> Result<Arc<Container>, JobError> {
        self.layers.build(client, &mut container)?;
        let manner = if imitates_host {
            Manner::LikeHost
        } else {
            Manner::AsConfigured
        };
        client.prepare(&container, manner)
    }

    /// Looks for known results of the tests that run as `plan` says.
    fn look_up(&self, artifact: &A, plan: &Arc<Plan>, ready: &mut [Ready]) {
        let (Some(results), Some(container)) = (&self.results, plan.key) else {
            return;
        };
        let runs = |test: &&mut Ready| {
            let own = test.plan.as_ref();
            own.is_some_and(|own| Arc::ptr_eq(own, plan))
        };
        let mut tests: Vec<&mut Ready> = ready.iter_mut().filter(runs).collect();
        let key = |test: &Ready| {
            let arguments = artifact.arguments(&artifact.cases()[test.case]);
            container.job(&arguments, &plan.outputs)
        };
        let keys: Vec<ResultKey> = tests.iter().map(|test| key(test)).collect();
        let known = results.get(&keys);
        for ((test, key), known) in tests.iter_mut().zip(keys).zip(known) {
            test.key = Some(key);
            // A limit may have been lowered since.
            test.known = known.filter(|outcome| {
                plan.timeout
                    .is_none_or(|limit| outcome.effects.duration < limit)
            });
        }
    }

    fn plan(
        &self,
        artifact: &A,
        facts: &impl Facts,
        plans: &mut Vec<(TestConfiguration, Arc<Plan>)>,
    ) -> anyhow::Result<Option<Arc<Plan>>> {
        let configuration = self
            .metadata
            .configuration(|pattern| pattern.evaluate(facts).is_true());
        if configuration.ignore {
            return Ok(None);
        }
        if let Some((_, plan)) = plans.iter().find(|(known, _)| *known == configuration) {
            return Ok(Some(plan.clone()));
        }
        let client = self.client.get()?;
        let prepared = artifact
            .surroundings(&configuration, &self.metadata)
            .map_err(JobError::Remote)
            .and_then(|mut surroundings| {
                let container = std::mem::take(&mut surroundings.container);
                let container = self.prepare(client, container, surroundings.imitates_host)?;
                Ok((container, surroundings))
            });
        let (container, surroundings) = match prepared {
            Ok((container, surroundings)) => (Ok(container), surroundings),
            Err(error) => (Err(error), Surroundings::default()),
        };
        let mut outputs = configuration.outputs.clone();
        outputs.extend(surroundings.outputs);
        let key = container.as_ref().ok().filter(|_| self.results.is_some());
        let key = key.and_then(|container| {
            let key = ContainerKey::of(container, &surroundings.program, self.inline_limit_bytes)?;
            Some(match &surroundings.template {
                Some(command) => key.in_template(&command.program, &command.arguments),
                None => key,
            })
        });
        let timeout = self.timeout.unwrap_or(configuration.timeout);
        let unlimited = self.timeout == Some(None);
        let template = match (&container, surroundings.template) {
            (Ok(container), Some(command)) => Some(Arc::new(TemplateProgram {
                program: command.program,
                arguments: command.arguments,
                environment: container.environment.clone(),
            })),
            _ => None,
        };
        let plan = Arc::new(Plan {
            container,
            template,
            program: surroundings.program,
            timeout: timeout.or(surroundings.time_limit.filter(|_| !unlimited)),
            outputs: outputs.into(),
            key,
            imitates_host: surroundings.imitates_host,
        });
        plans.push((configuration, plan.clone()));
        Ok(Some(plan))
    }

    /// Hands over what the user is shown when the round is over, such as a compiler's warning, with
    /// its line end.
    pub fn output(&self, bytes: &[u8]) {
        if self.narrates {
            // If that cannot be told, nothing can.
            let _ = io::stderr().write_all(bytes);
        } else {
            self.ui.collection_output(bytes);
        }
    }

    /// Hands over everything that the build tool writes, for those who watch it.
    pub fn build_output(&self, bytes: &[u8]) {
        self.ui.build_output(bytes);
    }

    /// Writes lines to standard output at once, for frameworks that narrate.
    pub fn line(&self, lines: &str) {
        self.ui.line(lines);
    }

    /// Says what is being done.
    pub fn status(&self, status: &str) {
        self.ui.status(status);
    }
}
