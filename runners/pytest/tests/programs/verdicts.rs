//! Verdicts, selection and errors as pytest has them.

use crate::support::{Project, Run};

const KINDS: &str = r#"
import os
import pytest

def test_ok(session_directory, module_number):
    assert session_directory.exists() and module_number == 1

def test_again(module_number):
    assert module_number == 1

def test_fails():
    print("said before")
    assert 1 == 2

@pytest.mark.skip
def test_skip(): pass

@pytest.mark.skipif("os.sep == '/'", reason="here")
def test_skipif(): pass

def test_skips_itself():
    pytest.skip("not today")

@pytest.mark.xfail
def test_xfail():
    assert False

@pytest.mark.xfail(strict=True)
def test_strict(): pass

@pytest.mark.parametrize("x", ["a::b", "a b", "é", "a/b[c]", "", "x\ny", "-k", "$HOME"])
def test_parameters(x): pass

class TestClass:
    def test_method(self, tmp_path):
        (tmp_path / "x").write_text("x")

@pytest.fixture
def broken():
    raise RuntimeError("no such luck")

def test_error(broken): pass

def test_exit():
    os._exit(3)
"#;

const CONFTEST: &str = r#"
import pytest

@pytest.fixture(scope="session")
def session_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("session")

@pytest.fixture(scope="module")
def module_number(counter=[]):
    counter.append(1)
    return len(counter)
"#;

const UNITTEST: &str = "
import unittest

class Case(unittest.TestCase):
    def setUp(self):
        self.x = 1

    def test_one(self):
        self.assertEqual(self.x, 1)

    @unittest.skip('x')
    def test_skipped(self): pass

    def test_two(self):
        self.fail('told so')
";

#[test]
fn verdicts_are_pytests() {
    let project = Project::new(&[
        ("tests/test_kinds.py", KINDS),
        ("tests/conftest.py", CONFTEST),
        ("tests/sub/test_unit.py", UNITTEST),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\naddopts = '-n 2'\npythonpath = ['src']\n",
        ),
        ("src/package/__init__.py", ""),
        ("src/space/part.py", "value = 7"),
        (
            "tests/test_layout.py",
            "import package, space.part\ndef test_import(): assert space.part.value == 7\n",
        ),
    ]);
    let run = project.run(&[]);
    let kinds = |name: &str| format!("tests/test_kinds.py::{name}");
    for (name, verdict) in [
        ("test_ok", "OK"),
        ("test_again", "OK"),
        ("test_fails", "FAIL"),
        ("test_skip", "IGNORED"),
        ("test_skipif", "IGNORED"),
        ("test_skips_itself", "IGNORED"),
        ("test_xfail", "OK"),
        ("test_strict", "FAIL"),
        ("test_parameters[a::b]", "OK"),
        ("test_parameters[a b]", "OK"),
        ("test_parameters[\\xe9]", "OK"),
        ("test_parameters[a/b[c]]", "OK"),
        ("test_parameters[]", "OK"),
        ("test_parameters[x\\ny]", "OK"),
        ("test_parameters[-k]", "OK"),
        ("test_parameters[$HOME]", "OK"),
        ("TestClass::test_method", "OK"),
        ("test_error", "FAIL"),
        ("test_exit", "FAIL"),
    ] {
        assert_eq!(run.verdict(&kinds(name)), verdict, "{name}");
    }
    let unit = |name: &str| format!("tests/sub/test_unit.py::Case::{name}");
    assert_eq!(run.verdict(&unit("test_one")), "OK");
    assert_eq!(run.verdict(&unit("test_skipped")), "IGNORED");
    assert_eq!(run.verdict(&unit("test_two")), "FAIL");
    assert_eq!(run.verdict("tests/test_layout.py::test_import"), "OK");
    let below = run.below(&kinds("test_fails"));
    assert!(
        below.contains("assert 1 == 2") && below.contains("said before"),
        "{below}"
    );
    assert!(!below.contains("test session starts") && !below.contains("short test summary"));
    assert!(run.below(&kinds("test_error")).contains("no such luck"));
    assert!(
        run.stdout.contains("Successful Tests:        14\n"),
        "{}",
        run.stdout
    );
    assert!(matches!(run.code, Some(1 | 3)), "{:?}", run.code);
    // Nothing of the tests stays behind.
    assert!(!project.path(".pytest_cache").exists());
}

#[test]
fn selecting_as_pytest_users_do() {
    let project = Project::new(&[
        (
            "a/test_a.py",
            "import pytest\n@pytest.mark.slow\ndef test_slow(): pass\ndef test_quick(): pass\nclass TestX:\n    def test_m(self): pass\n",
        ),
        ("b/test_b.py", "def test_quick(): pass\n"),
        ("pytest.ini", "[pytest]\nmarkers = slow: takes long\n"),
    ]);
    for (arguments, expected) in [
        (
            &[][..],
            &[
                "a/test_a.py::test_slow",
                "a/test_a.py::test_quick",
                "a/test_a.py::TestX::test_m",
                "b/test_b.py::test_quick",
            ][..],
        ),
        (&["-m", "slow"], &["a/test_a.py::test_slow"]),
        (
            &["-m", "not slow", "-k", "quick", "b"],
            &["b/test_b.py::test_quick"],
        ),
        (&["a/test_a.py::TestX"], &["a/test_a.py::TestX::test_m"]),
        (
            &["-i", "markers.contains(slow)"],
            &["a/test_a.py::test_slow"],
        ),
        (
            &["-i", "name.equals(TestX.test_m)"],
            &["a/test_a.py::TestX::test_m"],
        ),
        (
            &["-x", "file.starts_with(a/)"],
            &["b/test_b.py::test_quick"],
        ),
        (&["--deselect", "a"], &["b/test_b.py::test_quick"]),
    ] {
        let mut all = vec!["--list"];
        all.extend(arguments);
        let run = project.run(&all);
        let listed: Vec<&str> = run.stdout.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(listed, expected, "{arguments:?} {}", run.stderr);
        assert_eq!(run.code, Some(0));
    }
}

#[test]
fn collection_errors_are_shown_as_pytest_shows_them() {
    let project = Project::new(&[("test_a.py", "import nonsense_that_is_not_there\n")]);
    let run = project.run(&[]);
    assert_eq!(run.code, project.pytest(&[]).code);
    assert!(
        run.stdout.contains("ERROR collecting test_a.py")
            && run
                .stdout
                .contains("No module named 'nonsense_that_is_not_there'"),
        "{}",
        run.stdout
    );
    let empty = Project::new(&[]);
    assert_eq!(empty.run(&[]).code, Some(5));
    assert_eq!(empty.run(&["gone.py"]).code, Some(4));
    let run = project.run_without_path(&[]);
    assert!(
        run.code == Some(1) && run.stderr.contains("python"),
        "{}",
        run.stderr
    );
}

#[test]
fn init_writes_a_file_that_changes_nothing() {
    let project = Project::new(&[("test_a.py", "def test_a(): pass\n")]);
    assert_eq!(project.run(&["--init"]).code, Some(0));
    assert_eq!(project.run(&["--init"]).code, Some(1));
    let run = project.run(&[]);
    assert_eq!(run.verdict("test_a.py::test_a"), "OK");
    assert_eq!(run.code, Some(0), "{}", run.stdout);
}

#[test]
fn results_are_remembered_with_what_the_template_did() {
    let project = Project::new(&[(
        "test_a.py",
        "def test_one(): pass\ndef test_two(): assert 0\n",
    )]);
    let cached = |run: &Run| run.stdout.matches("(cached)").count();
    let first = project.run(&["--cached"]);
    assert_eq!(cached(&first), 0, "{}", first.stdout);
    // What failed runs again.
    let second = project.run(&["--cached"]);
    assert_eq!(cached(&second), 1, "{}", second.stdout);
    assert_eq!(second.verdict("test_a.py::test_two"), "FAIL");
    // Neither without the template nor with other options is it the same result.
    for other in [
        &["--cached", "--no-template"][..],
        &["--cached", "--", "--tb=short"],
    ] {
        let run = project.run(other);
        assert_eq!(cached(&run), 0, "{}", run.stdout);
    }
}

/// What one run remembers for the next, which starts its templates by it, is out of date as soon as
/// the project is changed.
#[test]
fn what_the_last_run_knew_is_not_relied_upon() {
    let many = "import pytest\n@pytest.mark.many\n@pytest.mark.parametrize('i', range(150))\n\
                def test_many(i): assert i != 149\ndef test_one(): assert 1 + 1 == 2\n";
    let project = Project::new(&[
        ("test_a.py", "def test_a(): assert 1 == 1\n"),
        ("test_many.py", many),
        ("pytest.ini", "[pytest]\nmarkers = many: more than one\n"),
    ]);
    let passes = |run: &Run, names: &[&str]| {
        assert!(
            !run.stderr.contains("without its template"),
            "{}",
            run.stderr
        );
        for name in names {
            assert_eq!(run.verdict(name), "OK", "{name}");
        }
    };
    let (a, one, b) = (
        "test_a.py::test_a",
        "test_many.py::test_one",
        "test_b.py::test_b",
    );
    // The function is left out of the template, then it is not.
    let without = ["-m", "not many"];
    for _ in 0..2 {
        let run = project.run(&without);
        passes(&run, &[a, one]);
        assert_eq!(run.code, Some(0));
    }
    let run = project.run(&[]);
    passes(&run, &[a, one, "test_many.py::test_many[0]"]);
    assert_eq!(run.verdict("test_many.py::test_many[149]"), "FAIL");
    // Other contents, one file more, and one less.
    project.write(
        "test_a.py",
        "def test_a():\n    two = 2\n    assert 1 == two\n",
    );
    project.write("test_b.py", "def test_b(): pass\n");
    let run = project.run(&without);
    passes(&run, &[one, b]);
    assert_eq!(run.verdict(a), "FAIL");
    assert!(run.below(a).contains("assert 1 == 2"), "{}", run.stdout);
    std::fs::remove_file(project.path("test_a.py")).unwrap();
    let run = project.run(&without);
    passes(&run, &[one, b]);
    assert_eq!(run.code, Some(0));
    // A module that no template can take.
    project.write(
        "test_b.py",
        "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()\n\
         def test_b(): pass\n",
    );
    let run = project.run(&without);
    passes(&run, &[one, b]);
    // What was remembered is damaged.
    let cache = project.path(".maelstrom-pytest/cache");
    for (directory, damaged) in [("collections-1", "{"), ("rewritten-1", "")] {
        for file in std::fs::read_dir(cache.join(directory)).unwrap() {
            std::fs::write(file.unwrap().path(), damaged).unwrap();
        }
    }
    passes(&project.run(&without), &[one, b]);
}

/// A conftest that says outside of the project that tests are collected, and makes tests of what
/// lies there. Of both, containers see nothing.
const COUNTING: &str = r#"
import os, pathlib, pytest

outside = pathlib.Path(__file__).parent.with_suffix(".outside")

def pytest_sessionstart(session):
    if outside.exists():
        with open(outside / "collections", "a") as file:
            file.write("+")

def pytest_generate_tests(metafunc):
    if "found" in metafunc.fixturenames:
        metafunc.parametrize("found", range(len(list(outside.glob("data*")))))
    if "chosen" in metafunc.fixturenames:
        metafunc.parametrize("chosen", os.environ.get("CHOSEN", "a b").split())
"#;

#[test]
fn unchanged_tests_are_not_collected_twice() {
    let one =
        "import pytest\ndef test_one(chosen): pass\n@pytest.mark.skip\ndef test_two(): pass\n";
    let project = Project::new(&[("conftest.py", COUNTING), ("test_one.py", one)]);
    let outside = project.path("").with_extension("outside");
    std::fs::create_dir(&outside).unwrap();
    let collections = || {
        let counted = std::fs::read(outside.join("collections"));
        counted.map_or(0, |counted| counted.len())
    };
    let (a, b) = ("test_one.py::test_one[a]", "test_one.py::test_one[b]");
    let passes = |run: &Run, names: &[&str]| {
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        assert_eq!(run.verdict("test_one.py::test_two"), "IGNORED");
        let verdicts = run.stdout.matches("..OK").count();
        assert_eq!(verdicts, names.len(), "{}", run.stdout);
        for name in names {
            assert_eq!(run.verdict(name), "OK", "{name}");
        }
    };
    for _ in 0..3 {
        passes(&project.run(&[]), &[a, b]);
        assert_eq!(collections(), 1);
    }
    // What pytest remembers changes nothing; a variable may, although no test sees it.
    project.pytest(&["-q"]);
    let before = collections();
    passes(&project.run(&[]), &[a, b]);
    assert_eq!(collections(), before);
    let run = project.run_with(&[("CHOSEN", "b")], &[]);
    passes(&run, &[b]);
    passes(&project.run(&[]), &[a, b]);
    assert_eq!(collections(), before + 2);
    // Other contents, other arguments.
    project.write("test_one.py", &format!("{one}def test_three(): pass\n"));
    let three = "test_one.py::test_three";
    passes(&project.run(&[]), &[a, b, three]);
    passes(&project.run(&["-k", "not three"]), &[a, b]);
    assert_eq!(collections(), before + 4);
    passes(&project.run(&[]), &[a, b, three]);
    passes(&project.run(&["-k", "not three"]), &[a, b]);
    assert_eq!(collections(), before + 4);
    // What containers do not see is asked for every time, in vain only once.
    project.write(
        "test_one.py",
        &format!("{one}def test_found(found): pass\n"),
    );
    std::fs::write(outside.join("data1"), "").unwrap();
    let found = "test_one.py::test_found[0]";
    for collected in 5..8 {
        let run = project.run(&[]);
        assert_eq!(run.verdict(a), "OK");
        assert_eq!(run.verdict(found), "FAIL");
        assert_eq!(collections(), before + collected);
    }
    std::fs::remove_dir_all(&outside).unwrap();
}

#[test]
fn what_templates_leave_out_is_not_collected_twice_either() {
    let project = Project::new(&[
        ("conftest.py", COUNTING),
        ("a/test_a.py", "def test_a(): pass\n"),
        (
            "test_threads.py",
            "import threading, time\nthreading.Thread(target=time.sleep, args=[60], daemon=True).start()\n\
             def test_b(): pass\n",
        ),
        (
            "test_skipped.py",
            "import pytest\n@pytest.mark.skip\ndef test_c(): pass\n",
        ),
        (".gitignore", "test_ignored.py\n"),
        (".git/HEAD", "ref: refs/heads/main\n"),
    ]);
    let outside = project.path("").with_extension("outside");
    std::fs::create_dir(&outside).unwrap();
    let run = |arguments: &[&str], collections: usize| {
        let run = project.run(arguments);
        assert_eq!(run.verdict("a/test_a.py::test_a"), "OK");
        let counted = std::fs::read(outside.join("collections")).unwrap();
        assert_eq!(counted.len(), collections, "{arguments:?}");
        run
    };
    let all = |run: &Run| {
        assert_eq!(run.verdict("test_threads.py::test_b"), "OK");
        assert_eq!(run.verdict("test_skipped.py::test_c"), "IGNORED");
        assert_eq!(run.code, Some(0), "{}", run.stdout);
    };
    all(&run(&[], 1));
    all(&run(&[], 1));
    let some = run(&["-i", "file.equals(a/test_a.py)"], 1);
    assert!(!some.stdout.contains("test_b"), "{}", some.stdout);
    all(&run(&[], 1));
    // Which tests have failed is for pytest to look up.
    run(&["--extra-pytest-args=--lf"], 2);
    run(&["--extra-pytest-args=--lf"], 3);
    // Version control ignores it, so it is not in containers; pytest finds it.
    project.write("test_ignored.py", "def test_d(): pass\n");
    for collections in 4..6 {
        let run = run(&[], collections);
        assert_eq!(run.verdict("test_ignored.py::test_d"), "FAIL");
    }
    std::fs::remove_dir_all(&outside).unwrap();
}
