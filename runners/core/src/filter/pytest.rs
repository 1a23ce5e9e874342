//! Selecting pytest tests.

use super::dialect::{Compares, Dialect, Fact, Facts, Field, Selector, constant, text};

/// Selectors of `maelstrom-pytest`.
pub static PYTEST: Dialect = Dialect {
    selectors: &[
        constant("all", "al", true),
        constant("any", "an", true),
        constant("true", "tr", true),
        constant("false", "f", false),
        constant("none", "n", false),
        text("name", "na", Field::Name),
        text("package", "p", Field::Package),
        text("file", "f", Field::File),
        text("node_id", "no", Field::NodeId),
        Selector {
            name: "markers",
            shortest: "m",
            alone: None,
            compares: Some(Compares::Set(Field::Markers)),
        },
    ],
};

/// What is known of a pytest test. Its package is always `default`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PytestFacts<'a> {
    /// File, relative to the project.
    pub file: Option<&'a str>,
    /// Name as pytest reports it.
    pub case: Option<&'a str>,
    /// Node id.
    pub node_id: Option<&'a str>,
    /// Names of its markers.
    pub markers: Option<&'a [String]>,
}

impl Facts for PytestFacts<'_> {
    fn fact(&self, field: Field) -> Fact<'_> {
        match field {
            Field::Name => self.case.into(),
            Field::Package => Fact::Text("default"),
            Field::File => self.file.into(),
            Field::NodeId => self.node_id.into(),
            Field::Markers => self.markers.map_or(Fact::Unknown, Fact::Set),
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

    /// The rows of the specification; row 21 differs, because `markers` may be shortened.
    #[test]
    fn table() {
        let markers = ["slow".to_owned(), "db".to_owned()];
        let base = PytestFacts {
            file: Some("tests/test_a.py"),
            case: Some("test_one"),
            node_id: Some("tests/test_a.py::TestX::test_one"),
            markers: Some(&markers),
        };
        let method = PytestFacts {
            case: Some("TestX.test_one"),
            ..base
        };
        let parametrised = PytestFacts {
            node_id: Some("tests/test_a.py::TestX::test_one[a-b]"),
            ..base
        };
        let rows: &[(&str, PytestFacts<'_>, &[&str], Row)] = &[
            ("1", base, &["all"], T),
            ("2", base, &["a", "library"], E),
            ("3", base, &["f", "fa", "n", "none"], F),
            ("4", base, &["file", "markers", "node_id", "na"], E),
            ("5", base, &["n.eq(test_one)"], E),
            ("6", base, &["na.eq(test_one)"], T),
            ("7", method, &["name.equals(TestX.test_one)"], T),
            ("8", base, &["no.en(::test_one)"], T),
            (
                "9",
                base,
                &["node_id.equals(tests/test_a.py::TestX::test_one)"],
                T,
            ),
            ("10", base, &["node_id.equals/tests/"], F),
            ("11", parametrised, &["node_id.contains<[a-b]>"], T),
            ("12", parametrised, &["node_id.contains[[a-b]]"], T),
            ("13", base, &["f.eq(tests/test_a.py)"], T),
            ("14", base, &["fi.c(test_a)"], T),
            (
                "15",
                base,
                &["file.globs(tests/*.py)", "file.globs(*.py)"],
                T,
            ),
            ("16", base, &["file.matches(^tests/)"], T),
            ("17", base, &["package.equals(default)"], T),
            ("18", base, &["p.eq(tests)"], F),
            ("19", base, &["markers.contains(slow)", "markers.c{db}"], T),
            ("20", base, &["markers.contains(slo)", "m.c(slo)"], F),
            ("21", base, &["m.c(slow)", "mark.c(slow)"], T),
            (
                "22",
                base,
                &[
                    "markers.equals(slow)",
                    "m.eq(slow)",
                    "markers.matches(slow)",
                ],
                E,
            ),
            (
                "23",
                base,
                &["markers.contains(slow) && !markers.contains(db)"],
                F,
            ),
            (
                "24",
                base,
                &["markers.contains(slow) - markers.contains(net)"],
                T,
            ),
            (
                "25",
                base,
                &["markers.contains(x) || name.starts_with(test_)"],
                T,
            ),
            ("26", base, &["not markers.contains(slow)"], F),
            ("27", base, &["node.eq(x)"], F),
        ];
        for (number, facts, patterns, row) in rows {
            check(number, &PYTEST, facts, patterns, *row);
        }
    }

    #[test]
    fn with_only_the_file_known() {
        let file = PytestFacts {
            file: Some("a.py"),
            ..PytestFacts::default()
        };
        assert_eq!(
            truth(&PYTEST, &file, "file.eq(b.py) && m.c(slow)"),
            Truth::False
        );
        assert_eq!(
            truth(&PYTEST, &file, "markers.contains(slow)"),
            Truth::Unknown
        );
        assert_eq!(truth(&PYTEST, &file, "package.eq(default)"), Truth::True);
    }
}
