//! The language as a whole: errors, hints, and properties of evaluation.

use super::*;
use proptest::prelude::*;

fn error(text: &str, dialect: &Dialect) -> String {
    Pattern::parse(text, dialect).expect_err(text).to_string()
}

#[test]
fn errors_point_at_the_spot() {
    for (text, dialect, expected) in [
        (
            "name.e(x)",
            &CARGO,
            "could not parse pattern: line 1, column 6: unexpected `e`, expected `equals`, `contains`, \
             `starts_with`, `ends_with`, `matches` or `globs`\n  |\n1 | name.e(x)\n  |      ^\n\
             help: `e` is too short; the shortest form of `equals` is `eq`, of `ends_with` is `en`",
        ),
        (
            "all &&\n  pakage.eq(foo)",
            &CARGO,
            "could not parse pattern: line 2, column 3: unexpected `pakage`, expected `binary`, \
             `benchmark`, `example`, `test`, `name` or `package`\n  |\n2 |   pakage.eq(foo)\n  |   ^^^^^^\n\
             help: did you mean `package`?",
        ),
        (
            "all any",
            &CARGO,
            "could not parse pattern: line 1, column 5: unexpected `any`, expected `&&`, `||`, `-` or \
             the end of the pattern\n  |\n1 | all any\n  |     ^^^",
        ),
        (
            "(all",
            &GO,
            "could not parse pattern: line 1, column 5: unexpected end of the pattern, expected `&&`, \
             `||`, `-` or `)`\n  |\n1 | (all\n  |     ^\nhelp: the `(` at line 1, column 1 is not closed",
        ),
        (
            "name.matches(a[)",
            &GO,
            "could not parse pattern: line 1, column 14: bad regular expression: unclosed character \
             class\n  |\n1 | name.matches(a[)\n  |              ^^",
        ),
        (
            "name.globs(a[)",
            &GO,
            "could not parse pattern: line 1, column 12: bad glob: unclosed character class; missing \
             ']'\n  |\n1 | name.globs(a[)\n  |            ^^",
        ),
        (
            "",
            &GO,
            "could not parse pattern: line 1, column 1: unexpected end of the pattern, expected `all`, \
             `any`, `true`, `false`, `none`, `name`, `package_import_path`, `package_path`, \
             `package_name`, `(`, `!` or `not `\n  |\n1 | \n  | ^",
        ),
    ] {
        assert_eq!(error(text, dialect), expected, "{text:?}");
    }
}

#[test]
fn errors_help() {
    for (text, dialect, help) in [
        ("Library", &CARGO, "did you mean `library`?"),
        ("librray", &CARGO, "did you mean `library`?"),
        (
            "t",
            &CARGO,
            "`t` is too short; the shortest form of `true` is `tr`, of `test` is `te`",
        ),
        ("name", &CARGO, "for example `name.equals(text)`"),
        ("markers", &PYTEST, "for example `markers.contains(text)`"),
        (
            "m.eq(x)",
            &PYTEST,
            "`markers` is a set; one asks whether it contains something",
        ),
        (
            "library.equals(foo)",
            &CARGO,
            "`library` stands for itself and takes no matcher",
        ),
        ("name.equals \"x\"", &CARGO, ""),
        (
            "name.equals\"x\"",
            &CARGO,
            "arguments are not quoted: `name.equals(text)`",
        ),
        (
            "name.equals (x)",
            &CARGO,
            "no blanks may stand between a matcher and its argument",
        ),
        ("all AND all", &CARGO, "operators are lower case: `and`"),
        ("all and(all)", &CARGO, "`and` needs a blank on both sides"),
        ("(all)or all", &CARGO, "`or` needs a blank on both sides"),
        ("not(all)", &CARGO, "`not` needs a blank after it"),
        ("notall", &CARGO, "`not` needs a blank after it"),
        (
            "all( )",
            &CARGO,
            "a selector without a matcher takes no argument",
        ),
        (
            "n.eq(x)",
            &PYTEST,
            "`n` is too short; the shortest form of `name` is `na`, of `node_id` is `no`",
        ),
        ("n.equal(x)n.equls(y)", &CARGO, ""),
        ("n.equls(y)", &CARGO, "did you mean `equals`?"),
        ("n.xyzzy(y)", &CARGO, ""),
    ] {
        let error = Pattern::parse(text, dialect).expect_err(text);
        assert_eq!(error.help().unwrap_or_default(), help, "{error}");
    }
    let unclosed = error("n.eq(f(x)", &CARGO);
    assert!(
        unclosed.contains("unexpected end of the pattern, expected `)`"),
        "{unclosed}"
    );
    assert!(
        unclosed.contains("starts with `(` at line 1, column 5"),
        "{unclosed}"
    );
}

#[test]
fn positions_count_characters() {
    let error = Pattern::parse("n.eq(äöü) |\n  n.eq(ß)漢", &CARGO).unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 10));
    assert_eq!(error.span(), 25..28);
}

#[test]
fn grouping_that_may_surprise_is_hinted_at() {
    for text in [
        "all",
        "all - none",
        "all && none - all",
        "(all - none) - all",
        "all - none || all - all",
    ] {
        assert_eq!(
            Pattern::parse(text, &CARGO).unwrap().grouping_hint(),
            None,
            "{text}"
        );
    }
    let hint = |text| {
        Pattern::parse(text, &CARGO)
            .unwrap()
            .grouping_hint()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        hint("none | l - n.c(a) - n.c(b)"),
        "operators group to the right: `l - n.c(a) - n.c(b)` means `l - (n.c(a) - n.c(b))`; \
         put parentheses to say what you mean"
    );
    assert!(hint("all - l && n.c(b)").contains("`all - (l && n.c(b))`"));
    let selection = Selection::parse(&["all"], &["l - te - e"], &CARGO).unwrap();
    assert_eq!(selection.grouping_hints().len(), 1);
}

#[test]
fn deep_nesting_is_an_error_and_long_chains_are_not() {
    let nested = |depth: usize| format!("{}all{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Pattern::parse(&nested(200), &CARGO).is_ok());
    for depth in [201, 100_000] {
        let error = error(&nested(depth), &CARGO);
        assert!(
            error.contains("column 201: parentheses nested deeper than 200"),
            "{error}"
        );
    }
    // Depth counts what is open at one time.
    let flat = vec![nested(100); 10].join(" & ");
    assert!(Pattern::parse(&flat, &CARGO).is_ok());

    let facts = CargoFacts::default();
    for (text, truth) in [
        ("!".repeat(100_001) + "all", Truth::False),
        ("not ".repeat(100_000) + "all", Truth::True),
        (vec!["all"; 100_001].join(" - "), Truth::True),
        (vec!["all"; 100_000].join(" - "), Truth::False),
        (vec!["none"; 100_000].join("|"), Truth::False),
        (
            format!("n.eq({}{})", "(".repeat(100_000), ")".repeat(100_000)),
            Truth::Unknown,
        ),
    ] {
        let pattern = Pattern::parse(&text, &CARGO).unwrap();
        assert_eq!(pattern.clone().evaluate(&facts), truth, "{}", &text[..20]);
    }
}

#[test]
fn selections_are_includes_without_excludes() {
    let case = |name| CargoFacts {
        package: Some("p"),
        target: Some((TargetKind::Library, "p")),
        case: Some(name),
    };
    let selects = |include: &[&str], exclude: &[&str], name| {
        let selection = Selection::parse(include, exclude, &CARGO).unwrap();
        selection.evaluate(&case(name)).is_true()
    };
    assert!(selects(&[], &[], "a"));
    assert!(selects(&["n.eq(a)", "n.eq(b)"], &[], "b"));
    assert!(!selects(&["n.eq(a)", "n.eq(b)"], &[], "c"));
    assert!(!selects(&[], &["n.eq(a)", "n.eq(b)"], "b"));
    assert!(!selects(&["l"], &["n.eq(a)"], "a"));
    assert!(selects(&["l"], &["n.eq(a)"], "b"));
    for (include, exclude) in [(["x"], ["l"]), (["l"], ["x"])] {
        assert!(Selection::parse(&include, &exclude, &CARGO).is_err());
    }
    let narrowed = Selection::new(vec![], vec![]).and(Pattern::contains(Field::Name, "a("));
    assert!(narrowed.evaluate(&case("a(b")).is_true());
    assert!(!narrowed.evaluate(&case("b")).is_true());
    let built = Pattern::any_of([
        Pattern::has(Field::Binary),
        Pattern::equals(Field::Package, "p"),
    ]);
    assert!(
        built
            .minus(Pattern::equals(Field::Name, "x"))
            .evaluate(&case("y"))
            .is_true()
    );
}

/// A pattern as it was thought of, with the truth it has when `a`, `b` and `c` are the truths of
/// the three conditions it is made of.
#[derive(Clone, Debug)]
enum Thought {
    Condition(usize),
    Not(Box<Thought>),
    /// Operands and the operators between them, in the order they are written.
    Chain(Vec<Thought>, Vec<&'static str>),
}

impl Thought {
    fn text(&self) -> String {
        match self {
            Thought::Condition(index) => ["package.eq(x)", "binary", "n.eq(x)"][*index].into(),
            Thought::Not(thought) => format!("!({})", thought.text()),
            Thought::Chain(operands, operators) => {
                let mut text = format!("({})", operands[0].text());
                for (operand, operator) in operands[1..].iter().zip(operators) {
                    text += &format!(" {operator} ({})", operand.text());
                }
                text
            }
        }
    }

    /// The obvious way, one operator at a time as the grammar has it.
    fn value(&self, conditions: [bool; 3]) -> bool {
        fn chain(operands: &[bool], operators: &[&str]) -> bool {
            if let Some(position) = operators.iter().position(|operator| *operator == "||") {
                let left = chain(&operands[..=position], &operators[..position]);
                return left || chain(&operands[position + 1..], &operators[position + 1..]);
            }
            match operators.first() {
                None => operands[0],
                Some(&"&&") => operands[0] && chain(&operands[1..], &operators[1..]),
                Some(_) => operands[0] && !chain(&operands[1..], &operators[1..]),
            }
        }
        match self {
            Thought::Condition(index) => conditions[*index],
            Thought::Not(thought) => !thought.value(conditions),
            Thought::Chain(operands, operators) => {
                let operands: Vec<bool> = operands
                    .iter()
                    .map(|operand| operand.value(conditions))
                    .collect();
                chain(&operands, operators)
            }
        }
    }
}

fn thoughts() -> impl Strategy<Value = Thought> {
    let operator = prop::sample::select(vec!["&&", "-", "||"]);
    (0..3usize)
        .prop_map(Thought::Condition)
        .prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|thought| Thought::Not(thought.into())),
                (
                    prop::collection::vec(inner, 2..6),
                    prop::collection::vec(operator.clone(), 5)
                )
                    .prop_map(|(operands, mut operators)| {
                        operators.truncate(operands.len() - 1);
                        Thought::Chain(operands, operators)
                    }),
            ]
        })
}

proptest! {
    #[test]
    fn evaluation_does_what_the_grammar_says(
        thought in thoughts(), package: bool, binary: bool, name: bool,
    ) {
        let pattern = Pattern::parse(&thought.text(), &CARGO).unwrap();
        let kind = if binary { TargetKind::Binary } else { TargetKind::Test };
        let facts = CargoFacts {
            package: Some(if package { "x" } else { "y" }),
            target: Some((kind, "t")),
            case: Some(if name { "x" } else { "y" }),
        };
        let value = Truth::from(thought.value([package, binary, name]));
        prop_assert_eq!(pattern.evaluate(&facts), value);
        // Whatever is hidden, the answer is the same or none.
        for hidden in 0..8 {
            let partial = CargoFacts {
                package: facts.package.filter(|_| hidden & 1 == 0),
                target: facts.target.filter(|_| hidden & 2 == 0),
                case: facts.case.filter(|_| hidden & 4 == 0),
            };
            let truth = pattern.evaluate(&partial);
            prop_assert!(truth == value || truth == Truth::Unknown);
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = Pattern::parse(&text, &CARGO).map_err(|error| error.to_string());
    }

    #[test]
    fn nothing_like_a_pattern_panics(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "all", "n", "name", ".", "eq", "m", "g", "(", ")", "[", "]", "{", "<", ">", "/", " ", "\n", "!", "not",
            "and", "or", "minus", "-", "&&", "|", "ä", "x", "()", "*", "\\", "markers", "c",
        ]), 0..20)
    ) {
        let text = pieces.concat();
        for dialect in [&CARGO, &GO, &PYTEST] {
            match Pattern::parse(&text, dialect) {
                Ok(pattern) => { pattern.evaluate(&CargoFacts::default()); }
                Err(error) => {
                    prop_assert!(error.span().end <= text.len());
                    prop_assert!(error.to_string().starts_with("could not parse pattern: line "));
                }
            }
        }
    }
}
