//! Selecting Go tests.

use super::dialect::{Dialect, Fact, Facts, Field, constant, text};

/// Selectors of `maelstrom-go-test`.
pub static GO: Dialect = Dialect {
    selectors: &[
        constant("all", "al", true),
        constant("any", "an", true),
        constant("true", "tr", true),
        constant("false", "f", false),
        constant("none", "n", false),
        text("name", "n", Field::Name),
        text("package_import_path", "p", Field::Package),
        text("package_path", "package_p", Field::PackagePath),
        text("package_name", "package_n", Field::PackageName),
    ],
};

/// What is known of a Go test.
#[derive(Clone, Copy, Debug, Default)]
pub struct GoFacts<'a> {
    /// Import path of the package.
    pub import_path: Option<&'a str>,
    /// Directory of the package relative to the module's root; empty for the root itself.
    pub path: Option<&'a str>,
    /// The name that the package declares.
    pub package_name: Option<&'a str>,
    /// Name of the test, example or fuzz target.
    pub case: Option<&'a str>,
}

impl Facts for GoFacts<'_> {
    fn fact(&self, field: Field) -> Fact<'_> {
        match field {
            Field::Name => self.case.into(),
            Field::Package => self.import_path.into(),
            Field::PackagePath => self.path.into(),
            Field::PackageName => self.package_name.into(),
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

    #[test]
    fn table() {
        let with_case = |case| GoFacts {
            import_path: Some("ex.com/m/client/rpc"),
            path: Some("client/rpc"),
            package_name: Some("client_rpc"),
            case: Some(case),
        };
        let base = with_case("TestA");
        let root = GoFacts {
            path: Some(""),
            ..base
        };
        let rows: &[(&str, GoFacts<'_>, &[&str], Row)] = &[
            ("1", base, &["all", "any()"], T),
            ("2", base, &["library", "test.equals(TestA)"], E),
            ("3", base, &["n", "none"], F),
            ("4", base, &["name", "package"], E),
            ("5", base, &["n.eq(TestA)"], T),
            ("6", base, &["p.eq(ex.com/m/client/rpc)"], T),
            ("7", base, &["p.eq/ex.com/m/"], E),
            ("8", base, &["package.ends_with(/rpc)"], T),
            ("9", base, &["package_.c(client)"], T),
            ("10", base, &["package_i.s(ex.com)"], T),
            ("11", base, &["package_p.eq(client/rpc)"], T),
            ("12", base, &["package_n.eq(client_rpc)"], T),
            ("13", base, &["package_name.equals(rpc)"], F),
            ("14", base, &["package_path.equals()"], F),
            ("14", root, &["package_path.equals()"], T),
            ("15", base, &["package_x.eq(a)"], E),
            ("16", with_case("FuzzB"), &["name.starts_with(Fuzz)"], T),
            ("17", with_case("ExampleC"), &["name.matches(^Example)"], T),
            ("18", base, &["name.globs(Test*)"], T),
            ("19", base, &["package_path.globs(client/*)"], T),
            ("20", base, &["package_path.globs(*)"], T),
            ("21", with_case("TestSlow"), &["all - n.c(Slow)"], F),
            ("22", base, &["p.c(rpc) & n.eq(TestA)"], T),
            ("23", base, &["p.c(rpc) && !n.eq(TestA)"], F),
            ("24", with_case("TestB"), &["n.eq(TestA) || n.eq(TestB)"], T),
            ("25", with_case("TestB"), &["not n.eq(TestA)"], T),
            ("26", base, &["n.eq(TestA/sub)"], F),
            ("27", base, &["n.m([A-Z]"], E),
        ];
        for (number, facts, patterns, row) in rows {
            check(number, &GO, facts, patterns, *row);
        }
    }

    /// Row 28.
    #[test]
    fn with_only_the_package_known() {
        let package = GoFacts {
            import_path: Some("ex.com/m"),
            path: Some(""),
            package_name: Some("m"),
            case: None,
        };
        assert_eq!(
            truth(&GO, &package, "package.eq(x) && name.eq(TestA)"),
            Truth::False
        );
        assert_eq!(
            truth(&GO, &package, "package_n.eq(m) && name.eq(TestA)"),
            Truth::Unknown
        );
    }
}
