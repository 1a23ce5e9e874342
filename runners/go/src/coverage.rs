//! Coverage profiles: each test brings back one of its package, and all of them make one, as
//! `go test -coverprofile` would have written it.

use anyhow::{Context as _, Result};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The profiles of a round.
#[derive(Debug)]
pub(crate) struct Coverage {
    /// Where the merged profile goes.
    destination: Option<PathBuf>,
    packages: Mutex<Packages>,
}

#[derive(Debug, Default)]
struct Packages {
    mode: Option<Mode>,
    profiles: BTreeMap<String, Profile>,
    /// Lines that were none of a profile's.
    problem: Option<String>,
}

/// What the numbers at the ends of lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Whether a block ran.
    Set,
    /// How often it did.
    Count,
    /// The same, counted by atomic operations.
    Atomic,
}

/// The blocks of code that a package's tests are counted in, in the order of the file.
#[derive(Debug, Default)]
struct Profile {
    blocks: Vec<Block>,
    by_place: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Block {
    /// File and range.
    place: String,
    statements: u64,
    count: u64,
}

impl Coverage {
    /// Where a test writes its profile in its container.
    pub(crate) const FILE: &str = "/tmp/maelstrom-cover.out";

    pub(crate) fn new(destination: Option<PathBuf>) -> Coverage {
        Coverage {
            destination,
            packages: Mutex::default(),
        }
    }

    /// Adds the profile of a test of `package`.
    pub(crate) fn add(&self, package: &str, profile: &[u8]) {
        let mut packages = self.packages();
        let text = String::from_utf8_lossy(profile);
        let mut lines = text.lines();
        let Some(mode) = lines.next().and_then(Mode::of_header) else {
            packages.problem = Some(format!("a test of {package} left no profile"));
            return;
        };
        packages.mode = Some(mode);
        let merged = packages.profiles.entry(package.to_owned()).or_default();
        let bad = lines.find(|line| merged.add(line, mode).is_none());
        if let Some(line) = bad {
            packages.problem = Some(format!("a line of {package}'s profile is none: {line}"));
        }
    }

    /// Adds the profile of packages that have no tests.
    pub(crate) fn add_untested(&self, profile: &str) {
        let mut lines = profile.lines();
        let Some(mode) = lines.next().and_then(Mode::of_header) else {
            return;
        };
        let mut packages = self.packages();
        packages.mode.get_or_insert(mode);
        for line in lines {
            // `example.com/m/p/file.go:1.2,3.4 1 0`
            let package = line
                .split_once(".go:")
                .and_then(|(file, _)| file.rsplit_once('/'))
                .map(|(package, _)| package.to_owned());
            if let Some(package) = package {
                packages
                    .profiles
                    .entry(package)
                    .or_default()
                    .add(line, mode);
            }
        }
    }

    /// Writes the merged profile. Returns what is covered of each package, a line each.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn conclude(&self) -> Result<String> {
        let packages = self.packages();
        if let Some(problem) = &packages.problem {
            tracing::warn!("coverage is incomplete: {problem}");
        }
        if let Some(destination) = &self.destination {
            let mode = packages.mode.unwrap_or(Mode::Set).name();
            let mut text = format!("mode: {mode}\n");
            for profile in packages.profiles.values() {
                for block in &profile.blocks {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{} {} {}", block.place, block.statements, block.count);
                }
            }
            write(destination, text.as_bytes())
                .with_context(|| format!("writing {}", destination.display()))?;
        }
        let mut summary = String::new();
        for (package, profile) in &packages.profiles {
            let _ = writeln!(summary, "{package}\tcoverage: {}", profile.share());
        }
        Ok(summary)
    }

    /// What is covered of one package, as Go says it.
    pub(crate) fn share(&self, package: &str) -> Option<String> {
        Some(self.packages().profiles.get(package)?.share())
    }

    fn packages(&self) -> MutexGuard<'_, Packages> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never half.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)?;
    io::Write::write_all(&mut file, bytes)?;
    match file.persist(path) {
        Ok(_) => Ok(()),
        // A device, such as /dev/null.
        Err(_) => fs::write(path, bytes),
    }
}

impl Mode {
    fn of_header(line: &str) -> Option<Mode> {
        match line.strip_prefix("mode: ")? {
            "set" => Some(Mode::Set),
            "count" => Some(Mode::Count),
            "atomic" => Some(Mode::Atomic),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Mode::Set => "set",
            Mode::Count => "count",
            Mode::Atomic => "atomic",
        }
    }
}

impl Profile {
    /// Adds a line: `file.go:1.2,3.4 statements count`.
    fn add(&mut self, line: &str, mode: Mode) -> Option<()> {
        let mut words = line.rsplitn(3, ' ');
        let count: u64 = words.next()?.parse().ok()?;
        let statements: u64 = words.next()?.parse().ok()?;
        let place = words.next()?;
        let index = match self.by_place.get(place) {
            Some(&index) => index,
            None => {
                self.by_place.insert(place.to_owned(), self.blocks.len());
                self.blocks.push(Block {
                    place: place.to_owned(),
                    statements,
                    count: 0,
                });
                self.blocks.len() - 1
            }
        };
        let total = &mut self.blocks[index].count;
        *total = match mode {
            Mode::Set => (*total).max(count),
            Mode::Count | Mode::Atomic => total.saturating_add(count),
        };
        Some(())
    }

    /// Which part of the statements ran.
    fn share(&self) -> String {
        let all: u64 = self.blocks.iter().map(|block| block.statements).sum();
        if all == 0 {
            return "[no statements]".into();
        }
        let ran = self.blocks.iter().filter(|block| block.count > 0);
        let ran: u64 = ran.map(|block| block.statements).sum();
        format!("{:.1}% of statements", 100.0 * ran as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "mode: set\nm/a.go:1.1,2.2 3 1\nm/a.go:4.1,5.2 1 0\n";
    const TWO: &str = "mode: set\nm/a.go:1.1,2.2 3 0\nm/a.go:4.1,5.2 1 0\n";

    fn merged(profiles: &[(&str, &str)]) -> (String, String) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("c.out");
        let coverage = Coverage::new(Some(path.clone()));
        for (package, profile) in profiles {
            coverage.add(package, profile.as_bytes());
        }
        let summary = coverage.conclude().unwrap();
        (fs::read_to_string(path).unwrap(), summary)
    }

    #[test]
    fn a_block_is_covered_if_any_test_covers_it() {
        let (profile, summary) = merged(&[("m", TWO), ("m", ONE), ("m", TWO)]);
        assert_eq!(profile, ONE);
        assert_eq!(summary, "m\tcoverage: 75.0% of statements\n");
    }

    #[test]
    fn counts_add_up_and_packages_stay_apart() {
        let count = |number| format!("mode: count\nm/a b.go:1.1,2.2 3 {number}\n");
        let (profile, _) = merged(&[("n", &count(1)), ("m", &count(2)), ("m", &count(5))]);
        assert_eq!(
            profile,
            "mode: count\nm/a b.go:1.1,2.2 3 7\nm/a b.go:1.1,2.2 3 1\n"
        );
    }

    #[test]
    fn packages_without_tests_count() {
        let coverage = Coverage::new(None);
        coverage.add("m", ONE.as_bytes());
        coverage.add_untested("mode: set\nm/p/x.go:1.1,2.2 3 0\nm/q/y.go:1.1,2.2 1 0\n");
        coverage.add_untested("");
        assert_eq!(
            coverage.conclude().unwrap(),
            "m\tcoverage: 75.0% of statements\nm/p\tcoverage: 0.0% of statements\nm/q\tcoverage: 0.0% of statements\n"
        );
    }

    #[test]
    fn rubbish_is_left_out() {
        let (profile, summary) = merged(&[("m", "rubbish"), ("n", "mode: set\nx\n"), ("k", ONE)]);
        assert_eq!(profile, ONE);
        assert!(
            summary.contains("n\tcoverage: [no statements]"),
            "{summary}"
        );
    }
}
