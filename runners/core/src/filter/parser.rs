//! Reads patterns.

use super::{
    AndOperator, Comparison, Dialect, Node, Pattern, PatternError,
    dialect::{Alone, Compares},
};
use maelstrom_spec::Excerpt;
use std::ops::Range;

/// How deep parentheses may nest. Keeps parsing, evaluating and dropping off the end of the stack.
const MAX_DEPTH: usize = 200;

/// The matchers and their shortest forms.
const MATCHERS: [(&str, &str); 6] = [
    ("equals", "eq"),
    ("contains", "c"),
    ("starts_with", "s"),
    ("ends_with", "en"),
    ("matches", "m"),
    ("globs", "g"),
];

/// What opens an argument, and what closes it.
const DELIMITERS: [(char, char); 5] = [('(', ')'), ('[', ']'), ('{', '}'), ('<', '>'), ('/', '/')];

/// Operators of one rank, longer ones before their beginnings.
type Operators<T> = [(&'static str, T)];

const OR_OPERATORS: &Operators<()> = &[("||", ()), ("|", ()), ("or", ())];

const AND_OPERATORS: &Operators<AndOperator> = &[
    ("&&", AndOperator::And),
    ("&", AndOperator::And),
    ("+", AndOperator::And),
    ("and", AndOperator::And),
    ("\\", AndOperator::Minus),
    ("-", AndOperator::Minus),
    ("minus", AndOperator::Minus),
];

pub(super) fn parse(text: &str, dialect: &Dialect) -> Result<Pattern, PatternError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        dialect,
        grouping_hint: None,
    };
    parser.skip_blanks();
    let node = parser.or()?;
    parser.skip_blanks();
    if parser.at < text.len() {
        return Err(parser.no_operator());
    }
    Ok(Pattern {
        node,
        grouping_hint: parser.grouping_hint,
    })
}

struct Parser<'a> {
    text: &'a str,
    /// Where to go on reading, in bytes.
    at: usize,
    /// Parentheses that are open.
    depth: usize,
    dialect: &'a Dialect,
    grouping_hint: Option<String>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips blanks; whether there were any.
    fn skip_blanks(&mut self) -> bool {
        let before = self.at;
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at > before
    }

    fn skip(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// The word at the current place: letters, digits and underscores. May be empty.
    fn word(&self) -> &'a str {
        let rest = self.rest();
        let length = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..length]
    }

    fn or(&mut self) -> Result<Node, PatternError> {
        let first = self.and()?;
        let mut nodes = vec![first];
        while self.operator(OR_OPERATORS).is_some() {
            nodes.push(self.and()?);
        }
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::Or(nodes),
        })
    }

    fn and(&mut self) -> Result<Node, PatternError> {
        let first_start = self.at;
        let first = self.not()?;
        let mut second_start = None;
        let mut rest = Vec::new();
        while let Some(operator) = self.operator(AND_OPERATORS) {
            second_start.get_or_insert(self.at);
            rest.push((operator, self.not()?));
        }
        let Some(second_start) = second_start else {
            return Ok(first);
        };
        let ambiguous = rest
            .iter()
            .rev()
            .skip(1)
            .any(|(operator, _)| *operator == AndOperator::Minus);
        if ambiguous && self.grouping_hint.is_none() {
            self.grouping_hint = Some(format!(
                "operators group to the right: `{}` means `{}({})`; put parentheses to say what you mean",
                &self.text[first_start..self.at],
                &self.text[first_start..second_start],
                &self.text[second_start..self.at],
            ));
        }
        Ok(Node::And(Box::new(first), rest))
    }

    /// Reads one of `operators` with the blanks around it, if there is one.
    fn operator<T: Copy>(&mut self, operators: &Operators<T>) -> Option<T> {
        let start = self.at;
        let blanks_before = self.skip_blanks();
        for (operator, meaning) in operators {
            let before_operator = self.at;
            if !self.skip(operator) {
                continue;
            }
            let blanks_after = self.skip_blanks();
            let is_word = operator.starts_with(char::is_alphabetic);
            if !is_word || (blanks_before && blanks_after) {
                return Some(*meaning);
            }
            self.at = before_operator;
        }
        self.at = start;
        None
    }

    fn not(&mut self) -> Result<Node, PatternError> {
        let mut negated = false;
        loop {
            if self.skip("!") || self.skip("~") {
                self.skip_blanks();
            } else if self.word() == "not" && self.rest()[3..].starts_with(char::is_whitespace) {
                self.at += 3;
                self.skip_blanks();
            } else {
                break;
            }
            negated = !negated;
        }
        let node = self.simple()?;
        Ok(match negated {
            true => Node::Not(Box::new(node)),
            false => node,
        })
    }

    fn simple(&mut self) -> Result<Node, PatternError> {
        if self.rest().starts_with('(') {
            return self.parenthesised();
        }
        let start = self.at;
        let word = self.word();
        if word.is_empty() {
            let mut error = self.unexpected(self.at, self.selector_names());
            error
                .expected
                .extend(["`(`".into(), "`!`".into(), "`not `".into()]);
            return Err(error);
        }
        self.at += word.len();
        if self.rest().starts_with('.') {
            return self.compound(start, word);
        }
        match self.dialect.alone(word) {
            Some(alone) => {
                self.skip("()");
                Ok(match alone {
                    Alone::Constant(value) => Node::Constant(value),
                    Alone::Has(field) => Node::Has(field),
                })
            }
            None => Err(self.no_simple_selector(start, word)),
        }
    }

    fn parenthesised(&mut self) -> Result<Node, PatternError> {
        let open = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let problem = format!("parentheses nested deeper than {MAX_DEPTH}");
            return Err(self.error(open..open + 1, problem));
        }
        self.skip_blanks();
        let node = self.or()?;
        self.skip_blanks();
        if !self.skip(")") {
            let mut error = self.no_operator();
            if self.at == self.text.len() {
                let (line, column) = self.place(open);
                error.help = Some(format!(
                    "the `(` at line {line}, column {column} is not closed"
                ));
            }
            return Err(error);
        }
        self.depth -= 1;
        Ok(node)
    }

    /// `selector.matcher(argument)`, from the dot on.
    fn compound(&mut self, start: usize, word: &str) -> Result<Node, PatternError> {
        let Some((selector, compares)) = self.dialect.compares(word) else {
            return Err(self.no_compound_selector(start, word));
        };
        self.at += 1;
        let matcher_start = self.at;
        let matcher_word = self.word();
        let matcher = MATCHERS
            .iter()
            .find(|(name, shortest)| {
                name.starts_with(matcher_word) && matcher_word.len() >= shortest.len()
            })
            .map(|(name, _)| *name);
        let Some(matcher) = matcher else {
            return Err(self.no_matcher(matcher_start, matcher_word));
        };
        if matches!(compares, Compares::Set(_)) && matcher != "contains" {
            let mut error = self.unexpected(matcher_start, vec!["`contains`".into()]);
            error.help = Some(format!(
                "`{}` is a set; one asks whether it contains something",
                selector.name
            ));
            return Err(error);
        }
        self.at += matcher_word.len();
        let argument_range = self.argument()?;
        let argument = &self.text[argument_range.clone()];
        let comparison = match matcher {
            "equals" => Comparison::Equals(argument.into()),
            "contains" => Comparison::Contains(argument.into()),
            "starts_with" => Comparison::StartsWith(argument.into()),
            "ends_with" => Comparison::EndsWith(argument.into()),
            "matches" => Comparison::Matches(
                regex::Regex::new(argument)
                    .map_err(|error| self.bad_regex(argument_range, &error))?,
            ),
            _ => Comparison::Globs(
                globset::Glob::new(argument)
                    .map_err(|error| {
                        self.error(argument_range, format!("bad glob: {}", error.kind()))
                    })?
                    .compile_matcher(),
            ),
        };
        let (Compares::Text(field) | Compares::Set(field)) = compares;
        Ok(Node::Compare(field, comparison))
    }

    /// Reads an argument with its delimiters. Returns the range of what is between them.
    fn argument(&mut self) -> Result<Range<usize>, PatternError> {
        let open_at = self.at;
        let delimiters = DELIMITERS
            .iter()
            .find(|(open, _)| self.rest().starts_with(*open));
        let Some(&(open, close)) = delimiters else {
            let expected = DELIMITERS
                .iter()
                .map(|(open, _)| format!("`{open}`"))
                .collect();
            let mut error = self.unexpected(self.at, expected);
            if self.rest().starts_with(['"', '\'']) {
                error.help = Some("arguments are not quoted: `name.equals(text)`".into());
            } else if self
                .rest()
                .trim_start()
                .starts_with(['(', '[', '{', '<', '/'])
            {
                error.help = Some("no blanks may stand between a matcher and its argument".into());
            }
            return Err(error);
        };
        self.at += 1;
        let start = self.at;
        let mut open_groups = 1_usize;
        for (offset, c) in self.rest().char_indices() {
            if c == close {
                open_groups -= 1;
            } else if c == open {
                open_groups += 1;
            }
            if open_groups == 0 {
                self.at = start + offset + 1;
                return Ok(start..start + offset);
            }
        }
        let (line, column) = self.place(open_at);
        let mut error = self.unexpected(self.text.len(), vec![format!("`{close}`")]);
        error.help = Some(format!(
            "the argument that starts with `{open}` at line {line}, column {column} is not closed; \
             an argument in which `{open}` and `{close}` do not pair can stand between others of `( )`, `[ ]`, `{{ }}`, `< >` and `/ /`"
        ));
        Err(error)
    }
}

/// Errors.
impl Parser<'_> {
    fn place(&self, at: usize) -> (usize, usize) {
        let excerpt = Excerpt::new(self.text, at..at);
        (excerpt.line(), excerpt.column())
    }

    fn error(&self, span: Range<usize>, problem: String) -> PatternError {
        PatternError {
            excerpt: Box::new(Excerpt::new(self.text, span.clone())),
            span,
            problem,
            expected: Vec::new(),
            help: None,
        }
    }

    /// The token at a place is none of those that could stand there.
    fn unexpected(&self, at: usize, expected: Vec<String>) -> PatternError {
        let parser = Parser {
            at,
            grouping_hint: None,
            ..*self
        };
        let word = parser.word();
        let (length, problem) = match (word, parser.rest().chars().next()) {
            ("", None) => (0, "unexpected end of the pattern".into()),
            ("", Some(c)) if c.is_whitespace() => (c.len_utf8(), "unexpected blank".into()),
            ("", Some(c)) => (c.len_utf8(), format!("unexpected `{}`", c.escape_debug())),
            (word, _) => (word.len(), format!("unexpected `{word}`")),
        };
        PatternError {
            expected,
            ..self.error(at..at + length, problem)
        }
    }

    fn selector_names(&self) -> Vec<String> {
        let selectors = self.dialect.selectors.iter();
        selectors
            .map(|selector| format!("`{}`", selector.name))
            .collect()
    }

    /// Something stands where only an operator or the end can.
    fn no_operator(&self) -> PatternError {
        let end = match self.depth {
            0 => "the end of the pattern",
            _ => "`)`",
        };
        let operators = ["`&&`", "`||`", "`-`"].map(str::to_owned).to_vec();
        let mut error = self.unexpected(self.at, operators);
        error.expected.push(end.into());
        let word = self.word();
        let lower = word.to_lowercase();
        let is_operator = ["and", "or", "minus"].contains(&lower.as_str());
        if is_operator && lower != word {
            error.help = Some(format!("operators are lower case: `{lower}`"));
        } else if is_operator {
            error.help = Some(format!("`{word}` needs a blank on both sides"));
        } else if self.rest().starts_with('(') {
            error.help = Some("a selector without a matcher takes no argument".into());
        }
        error
    }

    fn no_simple_selector(&self, start: usize, word: &str) -> PatternError {
        if let Some((selector, _)) = self.dialect.compares(word) {
            let mut error = self.unexpected(start + word.len(), vec!["`.` and a matcher".into()]);
            error.help = Some(match selector.compares {
                Some(Compares::Set(_)) => format!("for example `{}.contains(text)`", selector.name),
                _ => format!("for example `{}.equals(text)`", selector.name),
            });
            return error;
        }
        let mut error = self.unexpected(start, self.selector_names());
        error.help = match word.strip_prefix("not") {
            Some("") => Some("`not` needs a blank after it".into()),
            Some(rest) if self.dialect.alone(rest).is_some() => {
                Some("`not` needs a blank after it".into())
            }
            _ => self.selector_help(word, |_| true),
        };
        error
    }

    fn no_compound_selector(&self, start: usize, word: &str) -> PatternError {
        let compares = |selector: &super::Selector| selector.compares.is_some();
        let mut comparing = self
            .dialect
            .selectors
            .iter()
            .filter(|selector| compares(selector));
        let too_short = comparing.any(|selector| selector.name.starts_with(word));
        if !too_short && self.dialect.alone(word).is_some() {
            let mut error = self.no_operator();
            error.help = Some(format!("`{word}` stands for itself and takes no matcher"));
            return error;
        }
        let selectors = self
            .dialect
            .selectors
            .iter()
            .filter(|selector| compares(selector));
        let names = selectors
            .map(|selector| format!("`{}`", selector.name))
            .collect();
        let mut error = self.unexpected(start, names);
        error.help = self.selector_help(word, compares);
        error
    }

    fn selector_help(
        &self,
        word: &str,
        eligible: impl Fn(&super::Selector) -> bool,
    ) -> Option<String> {
        let selectors = self
            .dialect
            .selectors
            .iter()
            .filter(|selector| eligible(selector));
        help_for(
            word,
            selectors.map(|selector| (selector.name, selector.shortest)),
        )
    }

    fn no_matcher(&self, start: usize, word: &str) -> PatternError {
        let names = MATCHERS
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        let mut error = self.unexpected(start, names);
        error.help = help_for(word, MATCHERS.into_iter());
        error
    }

    fn bad_regex(&self, span: Range<usize>, error: &regex::Error) -> PatternError {
        // The message of a syntax error has several lines, a drawing of its own among them.
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default();
        let reason = last.strip_prefix("error: ").unwrap_or(last);
        self.error(span, format!("bad regular expression: {reason}"))
    }
}

/// Which of `names`, given with their shortest forms, may have been meant by `word`.
fn help_for<'n>(
    word: &str,
    names: impl Iterator<Item = (&'n str, &'n str)> + Clone,
) -> Option<String> {
    if word.is_empty() {
        return None;
    }
    let too_short: Vec<String> = names
        .clone()
        .filter(|(name, _)| name.starts_with(word))
        .map(|(name, shortest)| format!("`{name}` is `{shortest}`"))
        .collect();
    if !too_short.is_empty() {
        return Some(format!(
            "`{word}` is too short; the shortest form of {}",
            too_short.join(", of ")
        ));
    }
    let lower = word.to_lowercase();
    names
        .map(|(name, _)| (strsim::damerau_levenshtein(&lower, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| format!("did you mean `{name}`?"))
}
