//! Selecting Cargo tests.

use super::dialect::{Alone, Compares, Dialect, Fact, Facts, Field, Selector, constant, text};
use std::{fmt, str::FromStr};

/// Selectors of `cargo maelstrom`.
pub static CARGO: Dialect = Dialect {
    selectors: &[
        constant("all", "al", true),
        constant("any", "an", true),
        constant("true", "tr", true),
        constant("false", "f", false),
        constant("none", "n", false),
        Selector {
            name: "library",
            shortest: "l",
            alone: Some(Alone::Has(Field::Library)),
            compares: None,
        },
        target("binary", "bi", Field::Binary),
        target("benchmark", "be", Field::Benchmark),
        target("example", "e", Field::Example),
        target("test", "te", Field::Test),
        text("name", "n", Field::Name),
        text("package", "p", Field::Package),
    ],
};

const fn target(name: &'static str, shortest: &'static str, field: Field) -> Selector {
    Selector {
        name,
        shortest,
        alone: Some(Alone::Has(field)),
        compares: Some(Compares::Text(field)),
    }
}

/// The kinds of Cargo targets that have tests. Procedural macros and other kinds of libraries
/// count as libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// A library of any sort.
    Library,
    /// A program.
    Binary,
    /// An integration test.
    Test,
    /// A benchmark.
    Benchmark,
    /// An example.
    Example,
}

impl TargetKind {
    const ALL: [TargetKind; 5] = [
        TargetKind::Library,
        TargetKind::Binary,
        TargetKind::Test,
        TargetKind::Benchmark,
        TargetKind::Example,
    ];

    /// Its name in patterns and in the test listing.
    pub const fn name(self) -> &'static str {
        match self {
            TargetKind::Library => "library",
            TargetKind::Binary => "binary",
            TargetKind::Test => "test",
            TargetKind::Benchmark => "benchmark",
            TargetKind::Example => "example",
        }
    }

    /// The field that tests of this kind have.
    pub const fn field(self) -> Field {
        match self {
            TargetKind::Library => Field::Library,
            TargetKind::Binary => Field::Binary,
            TargetKind::Test => Field::Test,
            TargetKind::Benchmark => Field::Benchmark,
            TargetKind::Example => Field::Example,
        }
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TargetKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        TargetKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or(())
    }
}

/// What is known of a Cargo test, from the outside in.
#[derive(Clone, Copy, Debug, Default)]
pub struct CargoFacts<'a> {
    /// Name of the package.
    pub package: Option<&'a str>,
    /// Kind and name of the target.
    pub target: Option<(TargetKind, &'a str)>,
    /// Name of the test in its binary.
    pub case: Option<&'a str>,
}

impl Facts for CargoFacts<'_> {
    fn fact(&self, field: Field) -> Fact<'_> {
        match field {
            Field::Name => self.case.into(),
            Field::Package => self.package.into(),
            Field::Library | Field::Binary | Field::Test | Field::Benchmark | Field::Example => {
                match self.target {
                    None => Fact::Unknown,
                    Some((kind, name)) if kind.field() == field => Fact::Text(name),
                    Some(_) => Fact::Absent,
                }
            }
            _ => Fact::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Truth,
        testing::{
            Row::{self, E, F, T},
            check, truth,
        },
    };
    use super::*;
    use TargetKind::{Benchmark, Binary, Example, Library, Test};

    fn facts<'a>(target: (TargetKind, &'a str), case: &'a str) -> CargoFacts<'a> {
        CargoFacts {
            package: Some("foo"),
            target: Some(target),
            case: Some(case),
        }
    }

    /// The rows of the specification. Where they differ, it is because more is accepted: rows 28
    /// and 45, and blanks at the ends in row 48.
    #[test]
    fn table() {
        let base = facts((Library, "foo"), "m::t1");
        let with_case = |case| facts((Library, "foo"), case);
        let with_target = |kind, name| facts((kind, name), "m::t1");
        let rows: &[(&str, CargoFacts<'_>, &[&str], Row)] = &[
            (
                "1",
                base,
                &["all", "all()", "al", "any", "any()", "an", "true", "tr"],
                T,
            ),
            ("2", base, &["a", "t", "b"], E),
            ("3", base, &["none", "n", "f", "false", "no", "none()"], F),
            ("4", base, &["library", "l", "library()"], T),
            ("5", with_target(Test, "it"), &["te", "test"], T),
            ("5", base, &["te", "bi", "be", "e"], F),
            ("6", with_target(Binary, "x"), &["bi", "binary"], T),
            ("6", with_target(Benchmark, "x"), &["be", "benchmark"], T),
            ("6", with_target(Example, "x"), &["e", "example"], T),
            ("7", base, &["all( )"], E),
            ("8", base, &["ALL"], E),
            ("9", base, &["name", "package"], E),
            ("10", base, &["name.equals(m::t1)", "n.eq(m::t1)"], T),
            ("11", base, &["n.e(m::t1)"], E),
            ("12", base, &["n.en(t1)", "n.s/m::/", "n.c<t>"], T),
            ("13", base, &[r"n.m{^m::t\d$}"], T),
            ("14", with_case("m::t12"), &[r"n.m{t\d{2}}"], T),
            ("14", base, &[r"n.m{t\d{2}}"], F),
            ("15", base, &["n.g[m::*]"], T),
            ("16", with_case("a/b"), &["name.globs(a*)"], T),
            ("17", with_case("f(x)"), &["name.equals(f(x))"], T),
            ("18", base, &["name.equals(f(x)"], E),
            ("19", with_case("f(x"), &["name.equals[f(x]"], T),
            ("20", with_case("Vec<T>"), &["n.eq<Vec<T>>"], T),
            ("21", base, &["name.equals/a/b/"], E),
            ("22", base, &["name.equals( m::t1 )"], F),
            (
                "23",
                base,
                &[
                    "name.equals ( m::t1 )",
                    "name .equals(x)",
                    "name. equals(x)",
                ],
                E,
            ),
            (
                "24",
                base,
                &["name.equals \"m::t1\"", "name.equals\"m::t1\""],
                E,
            ),
            ("25", base, &["name.equals()"], F),
            ("26", base, &["name.contains()"], T),
            ("27", base, &["name.matches(*)", "name.globs([)"], E),
            ("28", with_case("acd"), &["name.globs{a{b,c}d}"], T),
            ("28", with_case("a(b)c"), &["n.eq(a(b)c)"], T),
            ("28", base, &["name.globs{a{b,c}d}", "n.eq(a(b)c)"], F),
            ("28a", with_case("acd"), &["name.globs(a{b,c}d)"], T),
            ("28a", with_case("ab"), &["name.g{a{b,c}}"], T),
            ("29", base, &["binary.equals(foo)"], F),
            ("29", with_target(Binary, "foo"), &["binary.equals(foo)"], T),
            (
                "30",
                with_target(Test, "it2"),
                &["test.matches(^it)", "tes.m(^it)"],
                T,
            ),
            ("31", base, &["library.equals(foo)", "none.equals(x)"], E),
            (
                "32",
                base,
                &[
                    "p.eq(foo)&n.eq(m::t1)",
                    "p.eq(foo)&&n.eq(m::t1)",
                    "p.eq(foo)+n.eq(m::t1)",
                    "p.eq(foo) and n.eq(m::t1)",
                    "p.eq(foo)\n\tand\n n.eq(m::t1)",
                ],
                T,
            ),
            (
                "33",
                base,
                &["p.eq(foo)and n.eq(m::t1)", "p.eq(foo) and(n.eq(m::t1))"],
                E,
            ),
            ("34", base, &["p.eq(foo) - n.eq(m::t1)"], F),
            (
                "35",
                base,
                &[r"p.eq(foo) \ n.eq(x)", "p.eq(foo) minus n.eq(x)"],
                T,
            ),
            ("36", base, &["all - all - all"], T),
            ("37", base, &["(all - all) - all"], F),
            ("38", base, &["all - none - all"], T),
            ("39", base, &["all - all && none"], T),
            ("40", base, &["all || none && none"], T),
            ("41", base, &["(all || none) && none"], F),
            ("42", base, &["none | all", "none or all", "none|all"], T),
            ("43", base, &["none or(all)"], E),
            (
                "44",
                base,
                &[
                    "!none",
                    "~none",
                    "not none",
                    "not (none)",
                    "!!all",
                    "not not all",
                ],
                T,
            ),
            ("45", base, &["not(none)", "notnone"], E),
            ("45", base, &["! all", "~ all"], F),
            ("46", base, &["!none && none"], F),
            ("46", base, &["!(none && none)"], T),
            ("47", base, &["( all )", "(\nall\n)"], T),
            (
                "48",
                base,
                &["()", "all &&", "all any", "all &&& any", "", " ", "&& all"],
                E,
            ),
            ("48", base, &[" all", "all ", "\n    all\n"], T),
        ];
        for (number, facts, patterns, row) in rows {
            check(number, &CARGO, facts, patterns, *row);
        }
    }

    #[test]
    fn with_only_the_package_known() {
        let package = |name| CargoFacts {
            package: Some(name),
            ..CargoFacts::default()
        };
        for (text, name, expected) in [
            ("package.equals(foo) && name.equals(t)", "bar", Truth::False),
            (
                "package.equals(foo) && name.equals(t)",
                "foo",
                Truth::Unknown,
            ),
            ("name.equals(t)", "foo", Truth::Unknown),
            ("package.equals(foo) || name.equals(t)", "foo", Truth::True),
            ("!name.equals(x)", "foo", Truth::Unknown),
            ("library", "foo", Truth::Unknown),
            ("binary.equals(x)", "foo", Truth::Unknown),
            ("all - name.equals(t)", "foo", Truth::Unknown),
            ("none - name.equals(t)", "foo", Truth::False),
            ("name.equals(t) && none", "foo", Truth::False),
        ] {
            assert_eq!(
                truth(&CARGO, &package(name), text),
                expected,
                "{text} for {name}"
            );
        }
        let target = CargoFacts {
            package: Some("foo"),
            target: Some((Binary, "b")),
            case: None,
        };
        assert_eq!(
            truth(&CARGO, &target, "library || test.equals(b)"),
            Truth::False
        );
        assert_eq!(
            truth(&CARGO, &target, "binary.equals(b) && name.equals(x)"),
            Truth::Unknown
        );
    }

    #[test]
    fn kinds_read_back() {
        for kind in TargetKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("bench".parse::<TargetKind>(), Err(()));
    }
}
