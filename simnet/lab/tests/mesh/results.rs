//! Results that one host found out are used by others.

use crate::{BOUND, mesh};
use maelstrom_lab::{Finished, mesh::Mesh, program};
use std::{collections::BTreeMap, fs, path::Path};

pub(crate) const TESTS: &[(&str, fn())] = &[(
    "what_one_host_found_out_another_uses",
    what_one_host_found_out_another_uses,
)];

const TESTS_OF_MODULE: &str = "package counted
import (\"os\"; \"testing\")
func TestOne(t *testing.T) {}
func TestTwo(t *testing.T) { t.Run(\"inside\", func(t *testing.T) { t.Log(\"seen\") }) }
func TestLeftOut(t *testing.T) { t.Skip() }
func TestFile(t *testing.T) { if _, err := os.Stat(\"go.mod\"); err != nil { t.Fatal(err) } }
func TestWrong(t *testing.T) { t.Fatal(\"always\") }
";

/// `go env NAME` on this machine; `None`: there is no Go.
fn go_env(name: &str) -> Option<String> {
    let asked = std::process::Command::new("go")
        .args(["env", name])
        .output();
    let output = asked.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// A module at the same place on all hosts, whose users have the same name for their home: what
/// tests see is the same on all of them.
struct Module<'a> {
    mesh: &'a Mesh,
    directory: &'a Path,
    go_cache: &'a str,
}

impl Module<'_> {
    fn test(&self, host: u8, arguments: &[&str]) -> Finished {
        let program = program("maelstrom-go-test", "maelstrom-go-test").unwrap();
        let own = self.mesh.lab().host(host).unwrap();
        let home = self.directory.join("home");
        fs::create_dir_all(&home).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        own.command(program)
            .env("XDG_CONFIG_HOME", own.home().join(".config"))
            .env("HOME", home)
            .env("PATH", path)
            .env("GOCACHE", self.go_cache)
            .env("GOENV", "off")
            .env("GOTOOLCHAIN", "local")
            .current_dir(self.directory.join("counted"))
            .args(["--ui", "simple"])
            .args(arguments)
            .run(8 * BOUND)
            .unwrap()
    }

    /// Forgets what runs have kept in the module.
    fn forget(&self) {
        fs::remove_dir_all(self.directory.join("counted/.maelstrom-go-test")).unwrap();
    }
}

/// Verdicts by the names of tests, and whether each is of a result that was known.
fn verdicts(finished: &Finished) -> BTreeMap<String, (&'static str, bool)> {
    let verdict = |line: &str| {
        let name = line.strip_prefix("example.com/counted ")?;
        let verdict = [".OK ", ".IGNORED ", ".FAIL "]
            .into_iter()
            .find(|verdict| line.contains(verdict))?;
        let name = name.split('.').next()?.to_owned();
        Some((name, (verdict, line.ends_with("(cached)"))))
    };
    finished.stdout.lines().filter_map(verdict).collect()
}

fn what_one_host_found_out_another_uses() {
    let Some(go_cache) = go_env("GOCACHE") else {
        eprintln!("left out: Go is not installed (apt-get install golang-go)");
        return;
    };
    let mesh = mesh(3);
    for host in 1..=3 {
        mesh.start_node(host, 2, &[]).unwrap();
    }
    mesh.wait_members(&[1, 2, 3], 2, BOUND).unwrap();
    let directory = mesh.lab().directory().join("same");
    fs::create_dir_all(directory.join("counted")).unwrap();
    let write = |name: &str, text: &str| {
        fs::write(directory.join("counted").join(name), text).unwrap();
    };
    write("go.mod", "module example.com/counted\n\ngo 1.21\n");
    write("counted_test.go", TESTS_OF_MODULE);
    let module = Module {
        mesh: &mesh,
        directory: &directory,
        go_cache: &go_cache,
    };
    let only_verdicts = |finished: &Finished| -> Vec<(String, &'static str)> {
        let all = verdicts(finished).into_iter();
        all.map(|(name, (verdict, _))| (name, verdict)).collect()
    };
    let known = |finished: &Finished| -> Vec<String> {
        let all = verdicts(finished).into_iter();
        all.filter(|(_, (_, known))| *known)
            .map(|(name, _)| name)
            .collect()
    };
    let alone = module.test(1, &[]);
    let expected = only_verdicts(&alone);
    assert_eq!(expected.len(), 5, "{alone:#?}");
    module.forget();
    let first = module.test(1, &["--mesh"]);
    assert_eq!(only_verdicts(&first), expected, "{first:#?}");
    assert_eq!(known(&first), [""; 0], "{first:#?}");
    // Another host has never seen the module, and its node has a store of its own.
    for host in [2, 3] {
        module.forget();
        let other = module.test(host, &["--mesh"]);
        assert_eq!(only_verdicts(&other), expected, "{other:#?}");
        let known = known(&other);
        assert!(
            ["TestFile", "TestOne", "TestTwo"]
                .iter()
                .all(|name| known.iter().any(|known| known == name)),
            "{other:#?}"
        );
        assert!(!known.contains(&"TestWrong".to_owned()), "{other:#?}");
    }
    // Whoever asks for it runs everything.
    module.forget();
    let again = module.test(2, &["--mesh", "-count=1"]);
    assert_eq!(only_verdicts(&again), expected, "{again:#?}");
    assert_eq!(known(&again), [""; 0], "{again:#?}");
}
