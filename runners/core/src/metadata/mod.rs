//! The metadata file of a test runner: what container each test gets.
//!
//! A file has named `containers` and an array of `directives`. Starting from an empty container,
//! all directives whose filter matches a test apply to it in the order of the file.

mod directive;
mod error;
mod init;

#[cfg(test)]
mod tests;

pub use error::MetadataError;
pub use init::{CARGO_DEFAULT, GO_DEFAULT, PYTEST_DEFAULT};

use crate::filter::PatternError;
use directive::Directive;
use maelstrom_spec::{
    CollapseError, ContainerParent, ContainerSpec, ContainerUse, Fields, NamedContainer, Node,
    ParseOptions, Problem, Source, SourceError, TemplateVariables, Value, ancestry, collapse,
    parse_containers, parse_toml, suggest,
};
use std::{collections::BTreeMap, fs::File, io::Read as _, ops::Range, path::Path, time::Duration};

/// Metadata files beyond this size are refused.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What a metadata file depends on besides its text.
#[derive(Clone, Debug, Default)]
pub struct MetadataOptions {
    /// What `<name>` stands for in the paths of layers.
    pub template_variables: TemplateVariables,
    /// Containers that the runner provides. Those that the file defines win over these.
    pub predefined_containers: BTreeMap<String, ContainerSpec>,
}

/// A metadata file. `F` is a parsed filter.
#[derive(Clone, Debug)]
pub struct Metadata<F> {
    directives: Vec<Directive<F>>,
    containers: BTreeMap<String, ContainerSpec>,
}

/// What the directives say about one test.
#[derive(Clone, Debug, PartialEq)]
pub struct TestConfiguration {
    /// Its container, without the layers that the runner adds.
    pub container: ContainerSpec,
    /// Whether the shared libraries of the test binary are added to its layers.
    pub include_shared_libraries: bool,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// Whether it is reported as ignored instead of being run.
    pub ignore: bool,
    /// Globs of the files that are brought back when it has ended.
    pub outputs: Vec<String>,
}

/// The place counts bytes of the pattern's text, as [`Metadata::parse`] wants it.
impl From<PatternError> for Problem {
    fn from(error: PatternError) -> Self {
        let help = error.help().map(str::to_owned);
        Problem {
            help,
            ..Problem::new(error.span(), error.problem())
        }
    }
}

impl<F> Metadata<F> {
    /// Reads the file at `path`; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Metadata::parse`], and a file that cannot be read, is not UTF-8, or is larger
    /// than 16 MiB.
    pub fn load(
        path: &Path,
        options: &MetadataOptions,
        parse_filter: impl Fn(&str) -> Result<F, Problem>,
    ) -> Result<Option<Self>, MetadataError> {
        let mut bytes = Vec::new();
        let read = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
            Ok(file) => file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes),
        };
        read.map_err(|error| MetadataError::Read {
            path: path.to_owned(),
            error,
        })?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(MetadataError::TooLarge {
                path: path.to_owned(),
                limit_bytes: MAX_FILE_BYTES,
            });
        }
        let name = path.display().to_string();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Self::parse(&name, &text, options, parse_filter)?)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let problem = Problem::new(valid..valid + 1, "the file is not valid UTF-8");
                Err(Source::new(&name, &text).error(problem).into())
            }
        }
    }

    /// Parses the text of a metadata file; `name` is what errors call it. `parse_filter` parses
    /// the text of a filter; the places of its problems count bytes of that text.
    ///
    /// # Errors
    ///
    /// Malformed TOML, unknown keys, values of the wrong type, contradicting keys, bad filters,
    /// containers that inherit from each other in a loop, and directives whose parents are unknown
    /// or whose image names are malformed.
    pub fn parse(
        name: &str,
        text: &str,
        options: &MetadataOptions,
        parse_filter: impl Fn(&str) -> Result<F, Problem>,
    ) -> Result<Self, SourceError> {
        parse_text(text, options, parse_filter)
            .map_err(|problem| Source::new(name, text).error(problem))
    }

    /// All named containers: those of the file, and the predefined ones.
    pub fn containers(&self) -> &BTreeMap<String, ContainerSpec> {
        &self.containers
    }

    /// What the directives say about the test whose filters `matches` tells.
    pub fn configuration(&self, mut matches: impl FnMut(&F) -> bool) -> TestConfiguration {
        let mut candidate = directive::Candidate::default();
        for directive in &self.directives {
            if directive.filter.as_ref().is_none_or(&mut matches) {
                directive.apply_to(&mut candidate);
            }
        }
        let include_shared_libraries = candidate
            .include_shared_libraries
            .unwrap_or_else(|| !self.has_image_layers(&candidate.container));
        TestConfiguration {
            container: candidate.container,
            include_shared_libraries,
            timeout: candidate.timeout,
            ignore: candidate.ignore,
            outputs: candidate.outputs,
        }
    }

    /// Whether a container gets layers from the named one, directly or through others.
    pub fn inherits_layers_from(&self, container: &ContainerSpec, name: &str) -> bool {
        ancestry(container, ContainerUse::Layers, |name| {
            self.containers.get(name)
        })
        .is_ok_and(|ancestry| ancestry.containers.iter().any(|ancestor| ancestor == name))
    }

    /// Whether a container gets anything at all from the named one, directly or through others.
    pub fn inherits_from(&self, container: &ContainerSpec, name: &str) -> bool {
        ContainerUse::ALL.into_iter().any(|member| {
            ancestry(container, member, |name| self.containers.get(name))
                .is_ok_and(|ancestry| ancestry.containers.iter().any(|ancestor| ancestor == name))
        })
    }

    /// Whether a container gets layers from an image, directly or through others.
    fn has_image_layers(&self, container: &ContainerSpec) -> bool {
        ancestry(container, ContainerUse::Layers, |name| {
            self.containers.get(name)
        })
        .is_ok_and(|ancestry| ancestry.image.is_some())
    }
}

fn parse_text<F>(
    text: &str,
    options: &MetadataOptions,
    parse_filter: impl Fn(&str) -> Result<F, Problem>,
) -> Result<Metadata<F>, Problem> {
    let parse_options = ParseOptions {
        template_variables: Some(&options.template_variables),
    };
    let root = parse_toml(text)?;
    let fields = Fields::new(&root, "a metadata file")?;
    fields.allow_only(&[&["containers", "directives"]])?;

    let named = fields
        .optional("containers", |node| parse_containers(node, parse_options))?
        .unwrap_or_default();
    let known = Known::new(named, &options.predefined_containers);
    known.refuse_loops()?;

    let directives = match fields.get("directives") {
        None => Vec::new(),
        Some(entry) => directive_nodes(&entry.value)?
            .iter()
            .map(|node| {
                let (directive, parent_span) =
                    Directive::parse(node, text, parse_options, &parse_filter)?;
                if let Some((container, span)) = directive.replacement().zip(parent_span) {
                    known.check_ancestors(container, span)?;
                }
                Ok(directive)
            })
            .collect::<Result<_, Problem>>()?,
    };
    Ok(Metadata {
        directives,
        containers: known.containers,
    })
}

fn directive_nodes(node: &Node) -> Result<&[Node], Problem> {
    node.array().map_err(|problem| match node.value {
        Value::Table(_) => problem.with_help("a directive starts with `[[directives]]`"),
        _ => problem,
    })
}

/// The named containers of a file, and where the names of their parents stand.
struct Known<'a> {
    containers: BTreeMap<String, ContainerSpec>,
    parent_spans: BTreeMap<String, Range<usize>>,
    predefined: &'a BTreeMap<String, ContainerSpec>,
}

impl<'a> Known<'a> {
    fn new(
        named: BTreeMap<String, NamedContainer>,
        predefined: &'a BTreeMap<String, ContainerSpec>,
    ) -> Self {
        let mut containers = predefined.clone();
        let mut parent_spans = BTreeMap::new();
        for (name, (container, parent_span)) in named {
            if let Some(span) = parent_span {
                parent_spans.insert(name.clone(), span);
            }
            containers.insert(name, container);
        }
        Known {
            containers,
            parent_spans,
            predefined,
        }
    }

    fn refuse_loops(&self) -> Result<(), Problem> {
        for (name, span) in &self.parent_spans {
            let child = ContainerSpec {
                parent: Some(ContainerParent::Container {
                    name: name.clone(),
                    members: ContainerUse::ALL.into(),
                }),
                ..ContainerSpec::default()
            };
            if let Err(error @ CollapseError::Loop { .. }) =
                collapse(&child, |name| self.containers.get(name))
            {
                return Err(self.problem(error, span));
            }
        }
        Ok(())
    }

    /// Checks what the container of a directive inherits; `span` is where its parent's name stands.
    fn check_ancestors(
        &self,
        container: &ContainerSpec,
        span: Range<usize>,
    ) -> Result<(), Problem> {
        match collapse(container, |name| self.containers.get(name)) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.problem(error, &span)),
        }
    }

    /// The problem with the chain of a container whose own parent is named at `span`.
    fn problem(&self, error: CollapseError, span: &Range<usize>) -> Problem {
        let parent_of = |child: &str| self.parent_spans.get(child).unwrap_or(span).clone();
        let message = error.to_string();
        match error {
            CollapseError::UnknownParent { name, child } => {
                let span = child.map_or(span.clone(), |child| parent_of(&child));
                let names: Vec<&str> = self.containers.keys().map(String::as_str).collect();
                let help = match names.is_empty() {
                    true => {
                        "this file defines no containers; an image is named with `image`".into()
                    }
                    false => suggest(&name, &names, "the containers are"),
                };
                Problem::new(span, message).with_help(help)
            }
            CollapseError::Loop { names } => {
                let span = names.first().map_or(span.clone(), |name| parent_of(name));
                let problem = Problem::new(span, message);
                match &names[..] {
                    [name, _] if self.predefined.contains_key(name) => {
                        problem.with_help(format!(
                            "this definition replaces the predefined container `{name}`; to build on that one, choose another name"
                        ))
                    }
                    _ => problem,
                }
            }
            CollapseError::Image(error) => {
                let child = self.containers.iter().find_map(|(child, container)| {
                    let parent = container.parent.as_ref();
                    parent
                        .is_some_and(|parent| {
                            matches!(parent, ContainerParent::Image { name, .. } if *name == error.name)
                        })
                        .then_some(child)
                });
                Problem::new(
                    child.map_or(span.clone(), |child| parent_of(child)),
                    message,
                )
            }
        }
    }
}
