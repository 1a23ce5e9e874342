//! What a runner brings to the language: its selectors, and what it knows of a test.

/// Something that is known of a test or may become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// Name of the case.
    Name,
    /// Package, in whatever sense the runner has it.
    Package,
    /// Name of the Cargo library target; other targets have none. So for the next four.
    Library,
    /// Name of the Cargo binary target.
    Binary,
    /// Name of the Cargo integration test.
    Test,
    /// Name of the Cargo benchmark.
    Benchmark,
    /// Name of the Cargo example.
    Example,
    /// Directory of the Go package relative to the module's root.
    PackagePath,
    /// The name that the Go package declares.
    PackageName,
    /// Python file, relative to the project.
    File,
    /// Node id of pytest.
    NodeId,
    /// Markers of pytest.
    Markers,
}

/// What is known of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// Nothing yet.
    Unknown,
    /// That the test does not have it.
    Absent,
    /// Its text.
    Text(&'a str),
    /// Its elements.
    Set(&'a [String]),
}

impl<'a> From<Option<&'a str>> for Fact<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Fact::Unknown, Fact::Text)
    }
}

/// What is known of a test. As more becomes known, unknown fields get values, and known ones keep
/// theirs.
pub trait Facts {
    /// What is known of a field; for fields that the runner does not have, that they are absent.
    fn fact(&self, field: Field) -> Fact<'_>;
}

/// The selectors of a runner.
#[derive(Debug)]
pub struct Dialect {
    /// All of them.
    pub selectors: &'static [Selector],
}

/// A word that starts a condition. It can be written as any beginning of its name that is at least
/// as long as `shortest`.
#[derive(Clone, Copy, Debug)]
pub struct Selector {
    /// Its name.
    pub name: &'static str,
    /// Its shortest form.
    pub shortest: &'static str,
    /// What it means by itself, if anything.
    pub(super) alone: Option<Alone>,
    /// What it compares when a matcher follows, if anything.
    pub(super) compares: Option<Compares>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Alone {
    Constant(bool),
    Has(Field),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Compares {
    Text(Field),
    /// Only with the matcher `contains`.
    Set(Field),
}

/// A selector that is always true or always false.
pub(super) const fn constant(name: &'static str, shortest: &'static str, value: bool) -> Selector {
    Selector {
        name,
        shortest,
        alone: Some(Alone::Constant(value)),
        compares: None,
    }
}

/// A selector that needs a matcher.
pub(super) const fn text(name: &'static str, shortest: &'static str, field: Field) -> Selector {
    Selector {
        name,
        shortest,
        alone: None,
        compares: Some(Compares::Text(field)),
    }
}

impl Selector {
    fn is_written_as(&self, word: &str) -> bool {
        self.name.starts_with(word) && word.len() >= self.shortest.len()
    }
}

impl Dialect {
    /// The selector that `word` stands for by itself, and its meaning.
    pub(super) fn alone(&self, word: &str) -> Option<Alone> {
        self.selectors
            .iter()
            .filter(|selector| selector.is_written_as(word))
            .find_map(|selector| selector.alone)
    }

    /// The selector that `word` stands for before a matcher, and what it compares.
    pub(super) fn compares(&self, word: &str) -> Option<(&Selector, Compares)> {
        self.selectors
            .iter()
            .filter(|selector| selector.is_written_as(word))
            .find_map(|selector| Some((selector, selector.compares?)))
    }
}
