//! Real containers on this machine. The program that runs inside of them is this test binary
//! itself: with `probe` as its first argument it does what a test wants done in a container, with
//! `template` it forks for that.
//!
//! The launcher must be made before there are threads, so this has a `main` of its own.

mod ahead;
mod fixture;
mod isolation;
mod kept;
mod lifetime;
mod mounts;
mod networks;
mod outcomes;
mod probe;
mod rewinding;
mod template_program;
mod templates;
mod traces;

use fixture::Fixture;
use libtest_mimic::{Arguments, Trial};
use std::sync::Arc;

/// A test, by name.
type Test = (&'static str, fn(&Fixture));

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("probe") => std::process::exit(probe::run(&arguments[2..])),
        Some("template") => std::process::exit(template_program::run(&arguments[2..])),
        Some("client") => return lifetime::client(&arguments[2..]),
        _ => {}
    }
    let fixture = Arc::new(Fixture::new());
    let tests: Vec<Test> = [
        ahead::TESTS,
        isolation::TESTS,
        kept::TESTS,
        lifetime::TESTS,
        mounts::TESTS,
        networks::TESTS,
        outcomes::TESTS,
        templates::TESTS,
        rewinding::TESTS,
    ]
    .concat();
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            let fixture = fixture.clone();
            Trial::test(name, move || {
                test(&fixture);
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
