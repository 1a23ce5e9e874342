use maelstrom_spec::{
    CONTAINER_KEYS, ContainerFields, ContainerSpec, Fields, Node, ParseOptions, Problem,
    parse_outputs, parse_timeout, toml_string_span,
};
use std::{ops::Range, time::Duration};

/// The keys of a directive besides those of its container.
const DIRECTIVE_KEYS: [&str; 5] = [
    "filter",
    "ignore",
    "timeout",
    "include_shared_libraries",
    "outputs",
];

/// One element of `directives`. `F` is a parsed filter.
#[derive(Clone, Debug)]
pub(super) struct Directive<F> {
    /// `None` matches every test.
    pub(super) filter: Option<F>,
    ignore: Option<bool>,
    /// `Some(None)`, written 0, clears an earlier one.
    timeout: Option<Option<Duration>>,
    include_shared_libraries: Option<bool>,
    outputs: Option<Vec<String>>,
    container: ContainerChange,
}

#[derive(Clone, Debug)]
enum ContainerChange {
    /// With a parent: this container and nothing else.
    Replace(Box<ContainerSpec>),
    /// Without: single fields.
    Update(Box<ContainerFields>),
}

/// What the directives so far make of a test.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidate {
    pub(super) container: ContainerSpec,
    pub(super) ignore: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) include_shared_libraries: Option<bool>,
    pub(super) outputs: Vec<String>,
}

impl<F> Directive<F> {
    /// Parses a directive of the file `text`. With it comes where the name of its parent stands.
    pub(super) fn parse(
        node: &Node,
        text: &str,
        options: ParseOptions<'_>,
        parse_filter: impl Fn(&str) -> Result<F, Problem>,
    ) -> Result<(Self, Option<Range<usize>>), Problem> {
        let fields = Fields::new(node, "a directive")?;
        fields.allow_only(&[&DIRECTIVE_KEYS, &CONTAINER_KEYS])?;
        let filter = |node: &Node| {
            parse_filter(node.string()?).map_err(|problem| Problem {
                span: toml_string_span(text, &node.span, problem.span.clone()),
                ..problem
            })
        };
        let container = ContainerFields::parse(&fields, options)?;
        let parent_span = container.parent_span();
        let directive = Directive {
            filter: fields.optional("filter", filter)?,
            ignore: fields.optional("ignore", Node::boolean)?,
            timeout: fields.optional("timeout", parse_timeout)?,
            include_shared_libraries: fields.optional("include_shared_libraries", Node::boolean)?,
            outputs: fields.optional("outputs", parse_outputs)?,
            container: if container.has_parent() {
                ContainerChange::Replace(Box::new(container.into_container()?))
            } else {
                ContainerChange::Update(Box::new(container))
            },
        };
        Ok((directive, parent_span))
    }

    /// The container that replaces the candidate's.
    pub(super) fn replacement(&self) -> Option<&ContainerSpec> {
        match &self.container {
            ContainerChange::Replace(container) => Some(container),
            ContainerChange::Update(_) => None,
        }
    }

    pub(super) fn apply_to(&self, candidate: &mut Candidate) {
        match &self.container {
            ContainerChange::Replace(container) => candidate.container = (**container).clone(),
            ContainerChange::Update(fields) => fields.apply_to(&mut candidate.container),
        }
        if let Some(ignore) = self.ignore {
            candidate.ignore = ignore;
        }
        if let Some(timeout) = self.timeout {
            candidate.timeout = timeout;
        }
        if self.include_shared_libraries.is_some() {
            candidate.include_shared_libraries = self.include_shared_libraries;
        }
        if let Some(outputs) = &self.outputs {
            candidate.outputs.clone_from(outputs);
        }
    }
}
