//! One round: collecting tests and running them at the same time.

use super::{
    Case, Collected, Exit, Framework, LazyClient, Narration, Project, Sink, TestArtifact, Tools,
    bring_back,
    layers::RoundLayers,
    missing::Advice,
    run::Settings,
    sink::{Collecting, Plan, Ready},
};
use crate::{
    client::{JobRequest, Template},
    filter::{Pattern, Selection},
    listing::TestListing,
    metadata::Metadata,
    results::{ResultCache, ResultKey},
    ui::{RoundEnd, TestReport, UiSender, Verdict},
};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use maelstrom_node::{JobEvent, Rank};
use maelstrom_runtime::is_output;
use maelstrom_spec::{JobError, JobOutcome, JobStatus, Problem};
use std::{collections::HashSet, io::Write as _, sync::Arc, thread, time::Duration};

/// How many events may wait for the runner. Each may hold the output of a test.
const EVENTS: usize = 64;

/// How many failed tests of a round are run again to find out what they missed.
const TRACES: usize = 5;

/// How many different notes on outcomes are shown.
const NOTES: usize = 20;

/// How much longer than the first time such a run may take, since tracing slows it down.
const TRACE_FACTOR: u32 = 10;
const TRACE_GRACE: Duration = Duration::from_secs(10);

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoundResult {
    /// By itself.
    Ended(Exit),
    /// A signal asked to end, or nobody reads the output any more.
    Interrupted(i32),
}

/// What one round works with.
pub(super) struct RoundContext<'a, F> {
    pub(super) framework: &'a Arc<F>,
    pub(super) settings: &'a Arc<Settings>,
    pub(super) client: &'a Arc<LazyClient>,
    pub(super) ui: &'a UiSender,
    pub(super) signals: &'a Receiver<i32>,
    /// Results of earlier runs, if they may be used.
    pub(super) results: Option<&'a ResultCache>,
}

enum Event<F: Framework> {
    /// What the round works on, before anything is collected.
    Begun(Arc<F::Project>, Arc<Selection>, bool),
    Collecting(Collecting<F::Artifact>),
    Collected(anyhow::Result<Collected>),
    Finished(Box<Finished<F::Artifact>>),
}

/// A job that is over.
struct Finished<A> {
    test: Test<A>,
    job: u64,
    /// The node that ran it, if another than this one.
    node: Option<Arc<str>>,
    result: Result<JobOutcome, JobError>,
}

/// A test that is run.
struct Test<A> {
    artifact: Arc<A>,
    case: usize,
    plan: Arc<Plan>,
    /// Names its result, if that is to be remembered.
    key: Option<ResultKey>,
    /// The report of its failed run, if this one is only to find out what it missed.
    failed: Option<Box<TestReport>>,
}

impl<A: TestArtifact> Test<A> {
    fn case(&self) -> &Case {
        &self.artifact.cases()[self.case]
    }

    fn name(&self) -> String {
        self.artifact.display_name(self.case())
    }
}

/// Runs one round. `listing` is updated, whatever happens.
///
/// # Errors
/// Fatal ones.
pub(super) fn run_round<F: Framework>(
    context: &RoundContext<'_, F>,
    listing: &mut TestListing,
) -> anyhow::Result<RoundResult> {
    let tools = Tools::default();
    let (sender, receiver) = bounded(EVENTS);
    let collector = Collector {
        framework: context.framework.clone(),
        settings: context.settings.clone(),
        client: context.client.clone(),
        ui: context.ui.clone(),
        tools: tools.clone(),
        sender: sender.clone(),
        results: context.results.cloned(),
    };
    let handle = thread::Builder::new()
        .name("collecting".into())
        .spawn(move || collector.run())?;
    let mut round = Round {
        context,
        listing,
        sender,
        project: None,
        configured: false,
        collected: None,
        running: 0,
        failures: 0,
        first_failure: None,
        traces: TRACES,
        notes: HashSet::new(),
        refusals: HashSet::new(),
    };
    let result = round.handle_events(&receiver);
    let all_queued = round.collected == Some(Collected::Everything);
    let stopped = match result {
        Ok(End::Finished) => !all_queued,
        Ok(End::Interrupted(_) | End::StoppedAfter) | Err(_) => {
            tools.kill_all();
            true
        }
    };
    let exit = round.exit();
    let inventory = round.project.as_ref().map(|project| project.inventory());
    // From here on nobody waits for a place in the channel.
    drop(receiver);
    if stopped && let Some(client) = context.client.started() {
        client.cancel_all();
    }
    if let Some(results) = context.results {
        results.flush();
    }
    let project = round.project.take();
    match result? {
        End::Interrupted(signal) => return Ok(RoundResult::Interrupted(signal)),
        End::StoppedAfter | End::Finished => {
            // What it was killed in the middle of does not matter.
            let _ = handle.join();
        }
    }
    if let Some(inventory) = inventory {
        prune(listing, &inventory);
    }
    let narrates = context.framework.narrates();
    if let Some(remark) = context.client.started().and_then(|client| client.remark()) {
        if narrates {
            tracing::info!("{remark}");
        } else {
            let line = format!("{remark}\n");
            context.ui.collection_output(line.as_bytes());
        }
    }
    if let Some(project) = project.filter(|_| !context.settings.mode.is_list()) {
        let conclusion = project.conclude()?;
        if narrates {
            tell(context.ui, &conclusion);
        } else {
            context.ui.collection_output(conclusion.as_bytes());
        }
    }
    if narrates {
        return Ok(RoundResult::Ended(exit));
    }
    context.ui.end_round(if stopped {
        RoundEnd::Stopped { all_queued }
    } else {
        RoundEnd::Complete
    });
    Ok(RoundResult::Ended(exit))
}

fn tell(ui: &UiSender, lines: &str) {
    if !lines.is_empty() {
        ui.line(lines);
    }
}

/// Forgets what the project no longer has.
fn prune(listing: &mut TestListing, inventory: &[(String, Option<Vec<String>>)]) {
    listing.retain_packages(|package| inventory.iter().any(|(name, _)| name == package));
    for (package, keys) in inventory {
        if let Some(keys) = keys {
            listing.retain_artifacts(package, |key| keys.iter().any(|known| known == key));
        }
    }
}

/// The thread that reads the project and collects tests.
struct Collector<F: Framework> {
    framework: Arc<F>,
    settings: Arc<Settings>,
    client: Arc<LazyClient>,
    ui: UiSender,
    tools: Tools,
    sender: Sender<Event<F>>,
    results: Option<ResultCache>,
}

impl<F: Framework> Collector<F> {
    fn run(self) {
        let collected = self.collect();
        // The round may be over already.
        let _ = self.sender.send(Event::Collected(collected));
    }

    fn collect(&self) -> anyhow::Result<Collected> {
        self.ui.status("starting...");
        let framework = &*self.framework;
        let settings = &*self.settings;
        let project = Arc::new(framework.project(&self.tools, self.ui.has_color())?);
        let dialect = framework.dialect();
        let options = project.metadata_options();
        let parse_filter = |text: &str| {
            Pattern::parse(text, dialect).map_err(|error| {
                let problem = Problem::new(error.span(), error.problem());
                match error.help() {
                    Some(help) => problem.with_help(help),
                    None => problem,
                }
            })
        };
        let path = framework.places().project.join(framework.metadata_file());
        let found = Metadata::load(&path, &options, parse_filter)?;
        let configured = found.is_some();
        let metadata = match found {
            Some(metadata) => metadata,
            None => Metadata::parse(
                "the default metadata",
                framework.default_metadata(),
                &options,
                parse_filter,
            )?,
        };
        let selection = Selection::parse(&settings.include, &settings.exclude, dialect)?;
        for hint in selection.grouping_hints() {
            tracing::warn!("{hint}");
        }
        let selection = Arc::new(framework.narrow(selection));
        let _ = self
            .sender
            .send(Event::Begun(project.clone(), selection.clone(), configured));
        if let Some(lines) = settings.mode.lists_without_building(&*project, &selection) {
            lines.iter().for_each(|line| self.ui.line(line));
            return Ok(Collected::Everything);
        }
        self.ui.status(framework.collecting_status());
        let sender = self.sender.clone();
        let sink = Sink {
            selection,
            configured,
            metadata: Arc::new(metadata),
            client: self.client.clone(),
            layers: RoundLayers::default(),
            ignored_tests: framework.ignored_tests(),
            timeout: settings.timeout,
            only_list: settings.mode.is_list(),
            results: self.results.clone(),
            inline_limit_bytes: settings.client.inline_limit.bytes(),
            narrates: framework.narrates(),
            ui: self.ui.clone(),
            send: Box::new(move |collecting| {
                // The runner drops its end when it has no use for more.
                let _ = sender.send(Event::Collecting(collecting));
            }),
        };
        let collected = thread::scope(|scope| {
            if !sink.only_list {
                // Takes a while, and is needed before any test. Without it there is nothing to
                // build for.
                scope.spawn(|| sink.client().map_err(|_| self.tools.kill_all()).map(drop));
            }
            project.collect(&sink)
        });
        if sink.lazy_client().failed() {
            sink.client()?;
        }
        collected
    }
}

/// Why the loop ended.
enum End {
    Finished,
    StoppedAfter,
    Interrupted(i32),
}

struct Round<'a, F: Framework> {
    context: &'a RoundContext<'a, F>,
    listing: &'a mut TestListing,
    sender: Sender<Event<F>>,
    project: Option<Arc<F::Project>>,
    configured: bool,
    collected: Option<Collected>,
    /// Jobs that were submitted and are not over.
    running: usize,
    failures: u32,
    first_failure: Option<Exit>,
    /// How many more failed tests may be run again.
    traces: usize,
    /// What was told about outcomes.
    notes: HashSet<String>,
    /// Why containers could not be made, as far as it has been told in full.
    refusals: HashSet<String>,
}

impl<F: Framework> Round<'_, F> {
    fn handle_events(&mut self, receiver: &Receiver<Event<F>>) -> anyhow::Result<End> {
        while self.collected.is_none() || self.running > 0 {
            select! {
                recv(self.context.signals) -> signal => {
                    if let Ok(signal) = signal {
                        return Ok(End::Interrupted(signal));
                    }
                }
                recv(receiver) -> event => self.handle(event?)?,
            }
            if self.context.ui.is_closed() {
                return Ok(End::Interrupted(signal_hook::consts::SIGPIPE));
            }
            if self.stops() {
                return Ok(End::StoppedAfter);
            }
        }
        Ok(End::Finished)
    }

    fn handle(&mut self, event: Event<F>) -> anyhow::Result<()> {
        match event {
            Event::Begun(project, selection, configured) => {
                self.configured = configured;
                if !self.context.settings.mode.is_list() {
                    self.expect(&project, &selection);
                }
                self.project = Some(project);
            }
            Event::Collecting(Collecting::Artifact(artifact, ready)) => {
                self.queue(&artifact, ready);
            }
            Event::Collected(collected) => {
                self.collected = Some(collected?);
                self.context.ui.status("");
            }
            Event::Finished(finished) => {
                self.running -= 1;
                self.finish(*finished);
            }
        }
        Ok(())
    }

    /// Predicts how many tests there will be.
    fn expect(&self, project: &F::Project, selection: &Selection) {
        let mut runs = 0;
        self.listing.count(|package, artifact, case, metadata| {
            let selected = project.selects_recorded(selection, package, artifact, case, metadata);
            if selected {
                runs += u64::from(self.context.settings.repeat.get());
            }
            selected
        });
        self.context.ui.expect(runs);
    }

    fn queue(&mut self, artifact: &Arc<F::Artifact>, ready: Vec<Ready>) {
        let (package, key) = (artifact.package(), artifact.key());
        let cases = artifact.cases().iter().enumerate();
        self.listing.set_cases(
            package,
            key,
            cases.map(|(index, case)| (case.name.as_str(), artifact.case_metadata(index))),
        );
        let ui = self.context.ui;
        if self.context.settings.mode.is_list() {
            for test in &ready {
                ui.line(&artifact.display_name(&artifact.cases()[test.case]));
            }
            return;
        }
        let repeat = self.context.settings.repeat.get();
        let runs = |test: &Ready| {
            if test.plan.is_some() {
                u64::from(repeat)
            } else {
                1
            }
        };
        let tests: u64 = ready.iter().map(runs).sum();
        ui.queued(tests);
        self.narrate(Narration::Collected {
            artifact,
            tests: usize::try_from(tests).unwrap_or(usize::MAX),
        });
        for Ready {
            case,
            plan,
            key,
            mut known,
        } in ready
        {
            let Some(plan) = plan else {
                ui.pending();
                let case = &artifact.cases()[case];
                let report = TestReport::ignored(artifact.display_name(case));
                self.narrate(Narration::Finished {
                    artifact,
                    case,
                    report: &report,
                });
                self.report(report);
                continue;
            };
            for _ in 0..repeat {
                let test = Test {
                    artifact: artifact.clone(),
                    case,
                    plan: plan.clone(),
                    key,
                    failed: None,
                };
                match known.take().filter(|_| repeat == 1) {
                    Some(outcome) => {
                        ui.pending();
                        self.finish_known(test, outcome);
                    }
                    None => self.start(test),
                }
                if self.stops() {
                    return;
                }
            }
        }
    }

    fn start(&mut self, test: Test<F::Artifact>) {
        self.context.ui.pending();
        let schedule = self.listing.schedule(
            test.artifact.package(),
            test.artifact.key(),
            &test.case().name,
        );
        let rank = Rank {
            priority: schedule.priority,
            estimate: schedule.estimate,
        };
        let timeout = test.plan.timeout;
        self.submit(test, rank, timeout);
    }

    fn submit(&mut self, test: Test<F::Artifact>, rank: Rank, timeout: Option<Duration>) {
        let (container, client) = match (&test.plan.container, self.context.client.started()) {
            (Ok(container), Some(client)) => (container.clone(), client),
            (Ok(_), None) => {
                return self.refuse(test, JobError::System("there is no client".into()));
            }
            (Err(error), _) => {
                let error = error.clone();
                return self.refuse_alike(test, error);
            }
        };
        let arguments = test.artifact.arguments(test.case());
        let mut request = JobRequest::new(container, test.plan.program.clone(), arguments);
        request.timeout = timeout;
        request.rank = rank;
        request.outputs = test.plan.outputs.clone();
        request.trace_missing = test.failed.is_some();
        request.template = test.plan.template.as_ref().map(|program| Template {
            program: program.clone(),
            payload: test.artifact.template_payload(test.case()),
        });
        let (sender, ui) = (self.sender.clone(), self.context.ui.clone());
        let mut test = Some(test);
        self.running += 1;
        let (mut again, mut node) = (false, None);
        client.submit(request, move |id, event| match event {
            JobEvent::Running { on } => {
                if let Some(test) = test.as_ref().filter(|test| test.failed.is_none()) {
                    ui.running(id.0, &test.name(), on.as_deref(), again);
                }
                again = true;
                node = on;
            }
            JobEvent::Completed(result) => {
                if let Some(test) = test.take() {
                    // After an early end nobody listens.
                    let _ = sender.send(Event::Finished(Box::new(Finished {
                        test,
                        job: id.0,
                        node: node.take(),
                        result,
                    })));
                }
            }
        });
    }

    /// Reports a test that cannot be run.
    fn refuse(&mut self, test: Test<F::Artifact>, error: JobError) {
        self.finish(Finished {
            test,
            job: 0,
            node: None,
            result: Err(error),
        });
    }

    /// Reports a test whose container cannot be made, which is often so of thousands: what takes
    /// many lines is told of the first only.
    fn refuse_alike(&mut self, test: Test<F::Artifact>, error: JobError) {
        let error = match error {
            JobError::Remote(message) if message.contains('\n') => {
                let first = message.lines().next().unwrap_or_default().to_owned();
                if self.refusals.contains(&message) {
                    JobError::Remote(format!("{first} (and so on, as above)"))
                } else {
                    if self.refusals.len() < NOTES {
                        self.refusals.insert(message.clone());
                    }
                    JobError::Remote(message)
                }
            }
            error => error,
        };
        self.refuse(test, error);
    }

    fn finish(&mut self, finished: Finished<F::Artifact>) {
        let Finished {
            mut test,
            job,
            node,
            mut result,
        } = finished;
        if let Some(report) = test.failed.take() {
            return self.finish_trace(*report, &test.plan, &result);
        }
        if let Ok(outcome) = &mut result {
            if let (Some(key), Some(results)) = (test.key, self.context.results) {
                results.put(key, outcome);
            }
            self.bring_back_outputs(&test, outcome);
            for note in std::mem::take(&mut outcome.effects.notes) {
                // What holds for one test often holds for thousands.
                if self.notes.len() < NOTES && self.notes.insert(note.clone()) {
                    tracing::warn!("{}: {note}", test.name());
                }
            }
            let passed = outcome.status.is_success();
            let (artifact, case) = (&test.artifact, test.case());
            let duration = outcome.effects.duration;
            self.listing.record(
                artifact.package(),
                artifact.key(),
                &case.name,
                passed,
                duration,
            );
        }
        let exit = match Exit::of_test(&result) {
            Some(Exit::Code(code)) => Some(Exit::Code(self.context.framework.failure_code(code))),
            exit => exit,
        };
        let traced = self.trace_request(&test, &result);
        let mut report = self.report_of(&test, job, result, false);
        report.node = node;
        if let Some(exit) = exit {
            self.failures += 1;
            self.first_failure.get_or_insert(exit);
        }
        match traced {
            Some(timeout) => {
                test.failed = Some(Box::new(report));
                let rank = Rank {
                    priority: i8::MAX,
                    ..Rank::default()
                };
                self.submit(test, rank, Some(timeout));
            }
            None => self.report(report),
        }
    }

    /// Finishes a test whose result is known from before.
    fn finish_known(&mut self, test: Test<F::Artifact>, outcome: JobOutcome) {
        let mut outcome = outcome;
        self.bring_back_outputs(&test, &mut outcome);
        let report = self.report_of(&test, 0, Ok(outcome), true);
        self.report(report);
    }

    /// What is told of a test that has ended.
    fn report_of(
        &self,
        test: &Test<F::Artifact>,
        job: u64,
        result: Result<JobOutcome, JobError>,
        cached: bool,
    ) -> TestReport {
        let (artifact, case) = (&*test.artifact, test.case());
        let mut report = TestReport::of_job(test.name(), job, result);
        report.cached = cached;
        if report.verdict == Verdict::Ok && artifact.was_skipped(case, &report.stdout.bytes) {
            report.verdict = Verdict::Ignored;
        }
        self.narrate(Narration::Finished {
            artifact,
            case,
            report: &report,
        });
        let cleaned = artifact.clean_stdout(case, &report.stdout.bytes);
        if cleaned.len() != report.stdout.bytes.len() {
            report.stdout.bytes = cleaned.to_vec();
        }
        report
    }

    fn narrate(&self, event: Narration<'_, F::Artifact>) {
        if self.context.framework.narrates()
            && let Some(project) = &self.project
        {
            tell(self.context.ui, &project.narrate(event));
        }
    }

    /// How long a failed test may be run again to find out what it missed, if it is to be.
    fn trace_request(
        &mut self,
        test: &Test<F::Artifact>,
        result: &Result<JobOutcome, JobError>,
    ) -> Option<Duration> {
        let Ok(outcome) = result else { return None };
        let failed = match outcome.status {
            JobStatus::Exited(code) => code != 0,
            JobStatus::Signaled(_) => true,
            JobStatus::TimedOut | JobStatus::OutOfMemory => false,
        };
        if !failed
            || !test.plan.imitates_host
            || self.traces == 0
            || self.context.settings.stop_after.is_some()
        {
            return None;
        }
        self.traces -= 1;
        Some(
            outcome
                .effects
                .duration
                .saturating_mul(TRACE_FACTOR)
                .saturating_add(TRACE_GRACE),
        )
    }

    fn finish_trace(
        &self,
        mut report: TestReport,
        plan: &Plan,
        result: &Result<JobOutcome, JobError>,
    ) {
        if let Ok(outcome) = result
            && let Ok(container) = &plan.container
            && let Some(client) = self.context.client.started()
        {
            let framework = self.context.framework;
            let library_path = container
                .environment
                .iter()
                .find(|(name, _)| name == "LD_LIBRARY_PATH");
            let advice = Advice {
                is_noise: &|path| framework.is_noise(path),
                project: &framework.places().project,
                metadata_file: framework.metadata_file(),
                configured: self.configured,
                parent: framework.imitating_container(),
                program_path: &client.build_context().program_path,
                library_path: library_path
                    .map(|(_, path)| std::env::split_paths(path).collect())
                    .unwrap_or_default(),
            };
            report.notes.extend(advice.about(&outcome.effects.missing));
        }
        self.report(report);
    }

    fn report(&self, mut report: TestReport) {
        let framework = self.context.framework;
        let shown = matches!(report.verdict, Verdict::Ok | Verdict::Ignored)
            && framework.shows_output_of_passed()
            && !framework.narrates();
        let (stdout, stderr) = if shown {
            (
                std::mem::take(&mut report.stdout.bytes),
                std::mem::take(&mut report.stderr.bytes),
            )
        } else {
            Default::default()
        };
        self.context.ui.finished(report);
        for stream in [stdout, stderr].iter().filter(|stream| !stream.is_empty()) {
            // Nobody reading any more is noticed elsewhere.
            let _ = self.context.ui.log_writer().write_all(stream);
        }
    }

    fn bring_back_outputs(&self, test: &Test<F::Artifact>, outcome: &mut JobOutcome) {
        for output in std::mem::take(&mut outcome.effects.outputs) {
            // Outcomes may come from other machines.
            let asked_for = test.plan.container.as_ref().is_ok_and(|container| {
                is_output(
                    &container.working_directory,
                    &test.plan.outputs,
                    &output.path,
                )
            });
            if !asked_for {
                tracing::warn!(
                    "{}: {} is left out, since no `outputs` pattern matches it",
                    test.name(),
                    output.path.display()
                );
                continue;
            }
            let Some(output) = test.artifact.take_output(test.case(), output) else {
                continue;
            };
            if let Err(message) = bring_back(&output, &self.context.framework.places().project) {
                tracing::warn!("{message}");
            }
        }
    }

    fn stops(&self) -> bool {
        self.context
            .settings
            .stop_after
            .is_some_and(|limit| self.failures >= limit.get())
    }

    fn exit(&self) -> Exit {
        match self.collected {
            Some(Collected::Failed(exit)) => exit,
            _ => self.first_failure.unwrap_or(Exit::SUCCESS),
        }
    }
}
