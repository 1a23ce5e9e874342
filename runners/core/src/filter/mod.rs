//! The language that selects tests: `package.equals(foo) && !name.starts_with(slow_)`.
//!
//! ```text
//! pattern    = or
//! or         = and  [ or-op or ]
//! and        = not  [ (and-op | minus-op) and ]
//! not        = { "!" blanks | "~" blanks | "not" blank blanks } simple
//! simple     = "(" or ")" | selector "." matcher argument | selector [ "()" ]
//! and-op     = "&&" | "&" | "+" | "and"
//! minus-op   = "\" | "-" | "minus"
//! or-op      = "||" | "|" | "or"
//! argument   = "(" text ")" | "[" text "]" | "{" text "}" | "<" text ">" | "/" text "/"
//! ```
//!
//! `not` binds tightest, then `and` and `minus`, then `or`. Blanks, line ends included, may stand
//! around operators, inside grouping parentheses and at both ends, but not inside `selector.matcher(argument)`;
//! operators that are words need a blank on both sides. An argument is taken as it is, without
//! escapes; the delimiter it starts with nests where the pair is unlike.
//!
//! **Operators group to the right.** `A - B - C` is `A - (B - C)`, and `A - B && C` is
//! `A - (B && C)`. The manual of Maelstrom says otherwise, but its programs do so, and patterns
//! that work keep their meaning; [`Pattern::grouping_hint`] finds the ones whose author may have
//! thought otherwise.
//!
//! Selectors and matchers can be shortened, each to a fixed shortest form: see [`CARGO`], [`GO`]
//! and [`PYTEST`].
//!
//! Beyond what Maelstrom 0.14 accepts: blanks after `!` and `~` and at both ends of a pattern,
//! text after a nested group in an argument (`name.equals(a(b)c)`), and `markers` shortened to as
//! little as `m`.
//!
//! Patterns are evaluated with as much as is [known](Facts) of a test. What they need and do not
//! have makes the answer [`Truth::Unknown`]: a package is left unbuilt only when no test of it can
//! match.

mod cargo;
mod dialect;
mod error;
mod go;
mod parser;
mod pytest;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod truth;

pub use cargo::{CARGO, CargoFacts, TargetKind};
pub use dialect::{Dialect, Fact, Facts, Field, Selector};
pub use error::PatternError;
pub use go::{GO, GoFacts};
pub use pytest::{PYTEST, PytestFacts};
pub use truth::Truth;

use globset::GlobMatcher;
use regex::Regex;

/// A parsed pattern. Evaluating it cannot fail.
#[derive(Clone, Debug)]
pub struct Pattern {
    node: Node,
    grouping_hint: Option<String>,
}

/// Part of a pattern. As deep as the pattern has nested parentheses, which is bounded; chains of
/// operators are flat.
#[derive(Clone, Debug)]
enum Node {
    Constant(bool),
    /// The test has this field at all.
    Has(Field),
    Compare(Field, Comparison),
    Not(Box<Node>),
    /// At least two.
    Or(Vec<Node>),
    /// The first, and then each with the operator before it. Groups to the right.
    And(Box<Node>, Vec<(AndOperator, Node)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AndOperator {
    And,
    Minus,
}

/// A matcher with its argument.
#[derive(Clone, Debug)]
enum Comparison {
    Equals(String),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Matches(Regex),
    Globs(GlobMatcher),
}

impl Comparison {
    fn matches(&self, text: &str) -> bool {
        match self {
            Comparison::Equals(argument) => text == argument,
            Comparison::Contains(argument) => text.contains(argument),
            Comparison::StartsWith(argument) => text.starts_with(argument),
            Comparison::EndsWith(argument) => text.ends_with(argument),
            Comparison::Matches(regex) => regex.is_match(text),
            Comparison::Globs(glob) => glob.is_match(text),
        }
    }

    /// Whether it matches an element of a set. Only `contains` is offered for sets, and it means
    /// membership there.
    fn matches_any(&self, elements: &[String]) -> bool {
        match self {
            Comparison::Contains(argument) => elements.contains(argument),
            other => elements.iter().any(|element| other.matches(element)),
        }
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What was found where something else was expected.
    pub fn parse(text: &str, dialect: &Dialect) -> Result<Self, PatternError> {
        parser::parse(text, dialect)
    }

    /// The pattern that matches every test.
    pub fn all() -> Self {
        Node::Constant(true).into()
    }

    /// The tests whose `field` is `text`.
    pub fn equals(field: Field, text: impl Into<String>) -> Self {
        Node::Compare(field, Comparison::Equals(text.into())).into()
    }

    /// The tests whose `field` a regular expression matches somewhere.
    pub fn matches(field: Field, regex: Regex) -> Self {
        Node::Compare(field, Comparison::Matches(regex)).into()
    }

    /// The tests whose `field` contains `text`.
    pub fn contains(field: Field, text: impl Into<String>) -> Self {
        Node::Compare(field, Comparison::Contains(text.into())).into()
    }

    /// The tests that have `field`: those of library targets with [`Field::Library`], say.
    pub fn has(field: Field) -> Self {
        Node::Has(field).into()
    }

    /// The tests that any of `patterns` matches; none if there are no patterns.
    pub fn any_of(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let mut nodes: Vec<Node> = patterns.into_iter().map(|pattern| pattern.node).collect();
        match nodes.len() {
            0 => Node::Constant(false).into(),
            1 => nodes.remove(0).into(),
            _ => Node::Or(nodes).into(),
        }
    }

    /// The tests that both match.
    pub fn and(self, other: Pattern) -> Self {
        let rest = vec![(AndOperator::And, other.node)];
        Node::And(Box::new(self.node), rest).into()
    }

    /// The tests that this matches and `other` does not.
    pub fn minus(self, other: Pattern) -> Self {
        let rest = vec![(AndOperator::Minus, other.node)];
        Node::And(Box::new(self.node), rest).into()
    }

    /// Whether the pattern matches a test of which `facts` are known.
    pub fn evaluate(&self, facts: &impl Facts) -> Truth {
        self.node.evaluate(facts)
    }

    /// A warning for a pattern whose meaning would be another if operators grouped to the left as
    /// in arithmetic, with the parentheses that say what it means here.
    pub fn grouping_hint(&self) -> Option<&str> {
        self.grouping_hint.as_deref()
    }
}

impl From<Node> for Pattern {
    fn from(node: Node) -> Self {
        Pattern {
            node,
            grouping_hint: None,
        }
    }
}

impl Node {
    fn evaluate(&self, facts: &impl Facts) -> Truth {
        match self {
            Node::Constant(value) => Truth::from(*value),
            Node::Has(field) => match facts.fact(*field) {
                Fact::Unknown => Truth::Unknown,
                Fact::Absent => Truth::False,
                Fact::Text(_) | Fact::Set(_) => Truth::True,
            },
            Node::Compare(field, comparison) => match facts.fact(*field) {
                Fact::Unknown => Truth::Unknown,
                Fact::Absent => Truth::False,
                Fact::Text(text) => comparison.matches(text).into(),
                Fact::Set(elements) => comparison.matches_any(elements).into(),
            },
            Node::Not(node) => !node.evaluate(facts),
            Node::Or(nodes) => {
                let mut truth = Truth::False;
                for node in nodes {
                    truth = truth | node.evaluate(facts);
                    if truth == Truth::True {
                        break;
                    }
                }
                truth
            }
            Node::And(first, rest) => evaluate_and(first, rest, facts),
        }
    }
}

/// `first op (second op (third …))`, without looking at anything right of an operand that is false:
/// what follows that one cannot matter.
fn evaluate_and(first: &Node, rest: &[(AndOperator, Node)], facts: &impl Facts) -> Truth {
    let mut last = first.evaluate(facts);
    let mut before: Vec<(Truth, AndOperator)> = Vec::new();
    for (operator, node) in rest {
        if last == Truth::False {
            break;
        }
        before.push((last, *operator));
        last = node.evaluate(facts);
    }
    before
        .into_iter()
        .rev()
        .fold(last, |right, (left, operator)| match operator {
            AndOperator::And => left & right,
            AndOperator::Minus => left & !right,
        })
}

/// What `--include` and `--exclude` select: the tests that an included pattern matches and no
/// excluded one.
#[derive(Clone, Debug)]
pub struct Selection {
    pattern: Pattern,
    hints: Vec<String>,
}

impl Selection {
    /// Reads the patterns. Without any to include, all tests are.
    ///
    /// # Errors
    ///
    /// The first bad pattern.
    pub fn parse(
        include: &[impl AsRef<str>],
        exclude: &[impl AsRef<str>],
        dialect: &Dialect,
    ) -> Result<Self, PatternError> {
        let parse = |text: &str| Pattern::parse(text, dialect);
        let include: Vec<Pattern> = include
            .iter()
            .map(|text| parse(text.as_ref()))
            .collect::<Result<_, _>>()?;
        let exclude: Vec<Pattern> = exclude
            .iter()
            .map(|text| parse(text.as_ref()))
            .collect::<Result<_, _>>()?;
        let hints = include
            .iter()
            .chain(&exclude)
            .filter_map(|pattern| pattern.grouping_hint.clone())
            .collect();
        Ok(Selection {
            hints,
            ..Selection::new(include, exclude)
        })
    }

    /// Combines patterns. Without any to include, all tests are.
    pub fn new(include: Vec<Pattern>, exclude: Vec<Pattern>) -> Self {
        let mut pattern = match include.is_empty() {
            true => Pattern::all(),
            false => Pattern::any_of(include),
        };
        if !exclude.is_empty() {
            pattern = pattern.minus(Pattern::any_of(exclude));
        }
        Selection {
            pattern,
            hints: Vec::new(),
        }
    }

    /// Whether a test of which `facts` are known is selected.
    pub fn evaluate(&self, facts: &impl Facts) -> Truth {
        self.pattern.evaluate(facts)
    }

    /// The [hints](Pattern::grouping_hint) of all patterns.
    pub fn grouping_hints(&self) -> &[String] {
        &self.hints
    }

    /// Narrows the selection to the tests that `pattern` matches too.
    pub fn and(self, pattern: Pattern) -> Self {
        Selection {
            pattern: self.pattern.and(pattern),
            ..self
        }
    }
}
