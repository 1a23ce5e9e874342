//! What lies between collecting tests and running them: each artifact's tests are selected,
//! configured and given their containers, by the thread that collected them.

use super::{IgnoredTests, LazyClient, Surroundings, TestArtifact, layers::RoundLayers};
use crate::{
    client::{Client, Manner},
    filter::{Facts, Pattern, Selection},
    metadata::{Metadata, TestConfiguration},
    ui::UiSender,
};
use maelstrom_node::Container;
use maelstrom_spec::{ContainerSpec, JobError};
use std::{sync::Arc, time::Duration};

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
}

/// How tests run; shared by those of an artifact that are configured alike.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) container: Result<Arc<Container>, JobError>,
    pub(super) program: String,
    pub(super) timeout: Option<Duration>,
    pub(super) outputs: Arc<[String]>,
    pub(super) imitates_host: bool,
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
            ready.push(Ready { case: index, plan });
        }
        (self.send)(Collecting::Artifact(artifact.clone(), ready));
        Ok(())
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
        let plan = Arc::new(Plan {
            container,
            program: surroundings.program,
            timeout: self.timeout.unwrap_or(configuration.timeout),
            outputs: configuration.outputs.clone().into(),
            imitates_host: surroundings.imitates_host,
        });
        plans.push((configuration, plan.clone()));
        Ok(Some(plan))
    }

    /// Hands over what the user is shown when the round is over, such as a compiler's warning, with
    /// its line end.
    pub fn output(&self, bytes: &[u8]) {
        self.ui.collection_output(bytes);
    }

    /// Hands over everything that the build tool writes, for those who watch it.
    pub fn build_output(&self, bytes: &[u8]) {
        self.ui.build_output(bytes);
    }

    /// Says what is being done.
    pub fn status(&self, status: &str) {
        self.ui.status(status);
    }
}
