//! Tests that leave things behind, and tests that crash.

use crate::support::Project;

/// Each pair of tests leaks something and looks for it; whichever comes second notices.
const LEAKS: &str = r##"
import json, os, random, socket, sys, tempfile, threading, time, types
import pytest

STATE = []
HERE = os.path.dirname(os.path.abspath(__file__))

@pytest.fixture(scope="session")
def session_list():
    return []

@pytest.fixture(scope="module")
def module_list():
    return []

# What was there when the module was imported.
BEGAN_IN = os.getcwd()
RANDOM = random.getstate()

def leak_global():
    assert STATE == []
    STATE.append(1)

def leak_environment():
    assert "LEAKED" not in os.environ
    os.environ["LEAKED"] = "1"

def leak_directory():
    assert os.getcwd() == BEGAN_IN
    os.chdir("/")

def leak_temporary_file():
    with open("/tmp/leaked", "x") as file:
        file.write("x")

def leak_project_file():
    with open(os.path.join(HERE, "leaked.txt"), "x") as file:
        file.write("x")

def leak_changed_source():
    with open(__file__, "a+") as file:
        file.seek(0)
        assert "# leaked here\n" not in file.readlines()
        file.write("# leaked here\n")

def leak_port(kept=[]):
    server = socket.socket()
    server.bind(("127.0.0.1", 47123))
    server.listen()
    kept.append(server)

def leak_thread():
    assert threading.active_count() == 1
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

def leak_seed():
    # The same seed as last time would give the same number.
    random.seed(7)
    path = "/dev/shm/numbers"
    assert not os.path.exists(path)
    with open(path, "w") as file:
        file.write(str(random.random()))

def leak_patched_module():
    assert isinstance(json.dumps, types.FunctionType) and json.dumps.__module__ == "json"
    json.dumps = lambda value: "leaked"

def leak_module():
    assert "leaked_module" not in sys.modules
    sys.modules["leaked_module"] = types.ModuleType("leaked_module")

def leak_process():
    assert len([name for name in os.listdir("/proc") if name.isdigit()]) < 5
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
        os._exit(0)

LEAKS = [value for name, value in sorted(globals().items()) if name.startswith("leak_")]

@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
@pytest.mark.parametrize("time_", ["first", "second"])
def test(leak, time_):
    leak()

@pytest.mark.parametrize("time_", ["first", "second"])
def test_fixtures(session_list, module_list, time_):
    assert session_list == module_list == []
    session_list.append(1)
    module_list.append(1)
"##;

#[test]
fn leaks_are_invisible() {
    let project = Project::new(&[("test_leaks.py", LEAKS), ("pytest.ini", "[pytest]\n")]);
    for arguments in [
        &[][..],
        &["--extra-pytest-args=-p", "--extra-pytest-args=no:randomly"],
    ] {
        let run = project.run(arguments);
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        assert!(
            run.stdout.contains("Successful Tests:        26\n"),
            "{}",
            run.stdout
        );
        assert!(!run.stdout.contains("fresh interpreter"), "{}", run.stdout);
        assert!(
            !run.stdout.contains("without its template"),
            "{}",
            run.stdout
        );
    }
    assert!(!project.path("leaked.txt").exists());
    assert!(
        !std::fs::read_to_string(project.path("test_leaks.py"))
            .unwrap()
            .ends_with("leaked here\n")
    );
}

const CRASHES: &str = r#"
import ctypes, os, sys, time

def test_before(): pass

def test_segmentation_fault():
    print("said before", file=sys.__stderr__, flush=True)
    ctypes.string_at(0)

def test_exits():
    os._exit(3)

def test_aborts():
    os.abort()

def test_overflows():
    sys.setrecursionlimit(1 << 30)
    class Nested:
        def __repr__(self):
            return repr(Nested())
    repr(Nested())

def test_hangs():
    print("about to hang", file=sys.__stderr__, flush=True)
    time.sleep(1000)

def test_after(): pass
"#;

#[test]
fn crashes_are_failures_of_their_tests_alone() {
    let project = Project::new(&[
        ("test_crashes.py", CRASHES),
        (
            "maelstrom-pytest.toml",
            "[[directives]]\nparent = 'pytest'\n[[directives]]\nfilter = 'name.ends_with(hangs)'\ntimeout = 5\n",
        ),
    ]);
    for arguments in [&[][..], &["--no-template"]] {
        let run = project.run(arguments);
        let name = |name: &str| format!("test_crashes.py::test_{name}");
        for (test, verdict) in [
            ("before", "OK"),
            ("segmentation_fault", "FAIL"),
            ("exits", "FAIL"),
            ("aborts", "FAIL"),
            ("overflows", "FAIL"),
            ("hangs", "TIMEOUT"),
            ("after", "OK"),
        ] {
            assert_eq!(run.verdict(&name(test)), verdict, "{test}");
        }
        let below = run.below(&name("segmentation_fault"));
        assert!(below.contains("killed by signal 11"), "{below}");
        assert!(below.contains("Segmentation fault"), "{below}");
        assert!(run.below(&name("aborts")).contains("killed by signal 6"));
        assert!(
            !run.stdout.contains("without its template"),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn what_a_fork_cannot_take_along_gets_a_fresh_interpreter() {
    let project = Project::new(&[
        (
            "test_thread.py",
            "import threading, time\nthread = threading.Thread(target=time.sleep, args=(1000,), daemon=True)\nthread.start()\ndef test_alive(): assert thread.is_alive()\ndef test_again(): assert thread.is_alive()\n",
        ),
        (
            "test_socket.py",
            "import socket\nserver = socket.socket()\nserver.bind(('127.0.0.1', 0))\nserver.listen()\ndef test_connect():\n    with socket.create_connection(server.getsockname()): pass\n",
        ),
        ("test_plain.py", "def test_plain(): pass\n"),
    ]);
    let run = project.run(&[]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let told = |what: &str| run.stdout.matches(what).count();
    assert_eq!(told("importing it started a thread"), 1, "{}", run.stdout);
    assert_eq!(told("importing it opened a socket"), 1, "{}", run.stdout);
    assert_eq!(told("without its template"), 0, "{}", run.stdout);
}
