//! Tests that crash, end their process, hang, or run out of memory: each is a failure of its own,
//! with what it printed, in forks of templates and in fresh interpreters.

use crate::support::{Project, Run};
use std::{fs, path::PathBuf, process::Command};

const CRASHES: &str = r#"
import ctypes, os, resource, signal, subprocess, sys, threading, time
import pytest

@pytest.fixture
def quiet():
    print("printed by another")

def test_before(quiet):
    print("printed by another")
    os.write(2, b"printed by another")

@pytest.fixture
def loud():
    print("set up loudly")
    yield
    print("taken down loudly")
    os.kill(os.getpid(), signal.SIGKILL)

def test_takes_all_memory():
    print("about to take it")
    with open("/proc/self/statm") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    limit = used + (256 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    kept = []
    while True:
        # In steps that leave pytest enough to tell of it.
        kept.append(bytearray(100 << 20))

def test_kills_itself():
    os.write(2, b"about to die")
    os.kill(os.getpid(), signal.SIGKILL)

def test_dies_at_its_end(loud):
    print("called loudly")

def test_aborts_in_a_thread():
    print("about to start a thread")
    thread = threading.Thread(target=os.abort)
    thread.start()
    thread.join()

def test_exits_with_success():
    # Nothing was asserted yet.
    print("about to succeed")
    os._exit(0)

def test_raises_what_ends_sessions():
    raise KeyboardInterrupt("stop it all")

def test_leaves_a_thread_that_crashes():
    print("about to crash in a while")
    threading.Timer(0.5, ctypes.string_at, [0]).start()
    time.sleep(60)

def test_segmentation_fault():
    print("said before", flush=True)
    os.system("echo a child said so")
    ctypes.string_at(0)

def test_exits():
    print("about to exit")
    os._exit(3)

def test_aborts():
    print("about to abort")
    os.abort()

def test_overflows():
    print("about to overflow")
    sys.setrecursionlimit(1 << 30)
    class Nested:
        def __repr__(self):
            return repr(Nested())
    repr(Nested())

def test_hangs():
    print("about to hang", file=sys.stderr)
    time.sleep(1000)

def test_hangs_and_is_deaf():
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    print("about to hang deaf")
    time.sleep(1000)

def test_hangs_and_catches():
    signal.signal(signal.SIGABRT, lambda *_: print("caught it"))
    print("about to hang catching")
    while True:
        time.sleep(1)

def test_floods():
    for number in range(100_000):
        print("line", number)
    os.abort()

def test_leaves_a_printer():
    subprocess.Popen(["sh", "-c", "while :; do echo stray; done"])
    time.sleep(0.2)

def test_fails():
    print("printed by itself")
    assert False

def test_after(): pass
"#;

/// What is shown of each test that crashes.
const SHOWN: &[(&str, &[&str])] = &[
    ("takes_all_memory", &["MemoryError", "about to take it"]),
    (
        "kills_itself",
        &["killed by signal 9", "Captured stderr call", "about to die"],
    ),
    (
        "dies_at_its_end",
        &[
            "killed by signal 9",
            "- Captured stdout setup -",
            "set up loudly",
            "- Captured stdout call -",
            "called loudly",
            "- Captured stdout teardown -",
            "taken down loudly",
        ],
    ),
    (
        "aborts_in_a_thread",
        &[
            "killed by signal 6",
            "about to start a thread",
            "Fatal Python error: Aborted",
        ],
    ),
    (
        "exits_with_success",
        &[
            "with code 0, before pytest was done with it",
            "about to succeed",
        ],
    ),
    (
        "exits",
        &[
            "with code 3, before pytest was done with it",
            "about to exit",
        ],
    ),
    ("raises_what_ends_sessions", &["stop it all"]),
    (
        "leaves_a_thread_that_crashes",
        &["killed by signal 11", "about to crash in a while"],
    ),
    (
        "segmentation_fault",
        &[
            "killed by signal 11",
            "said before",
            "a child said so",
            "Fatal Python error: Segmentation fault",
            "in test_segmentation_fault",
        ],
    ),
    (
        "aborts",
        &["killed by signal 6", "about to abort", "in test_aborts"],
    ),
    ("overflows", &["killed by signal 11", "about to overflow"]),
    (
        "hangs",
        &["Captured stderr call", "about to hang", "in test_hangs"],
    ),
    ("hangs_and_is_deaf", &["about to hang deaf"]),
    ("hangs_and_catches", &["about to hang catching"]),
    ("floods", &["line 0\n", "bytes left out", "line 99999\n"]),
];

#[test]
fn crashes_are_failures_of_their_tests_alone() {
    let project = Project::new(&[
        ("test_crashes.py", CRASHES),
        (
            "maelstrom-pytest.toml",
            "[[directives]]\nparent = 'pytest'\n[[directives]]\nfilter = 'name.contains(hangs)'\ntimeout = 5\n",
        ),
    ]);
    for arguments in [&[][..], &["--no-template"]] {
        let run = project.run(arguments);
        let name = |test: &str| format!("test_crashes.py::test_{test}");
        for test in ["before", "leaves_a_printer", "after"] {
            assert_eq!(run.verdict(&name(test)), "OK", "{test} {arguments:?}");
        }
        for (test, shown) in SHOWN {
            let verdict = match test.starts_with("hangs") {
                true => "TIMEOUT",
                false => "FAIL",
            };
            assert_eq!(run.verdict(&name(test)), verdict, "{test} {arguments:?}");
            let below = run.below(&name(test));
            for part in *shown {
                assert!(
                    below.contains(part),
                    "{test} {arguments:?}: no {part:?} in\n{below}"
                );
            }
            for part in ["stray", "printed by another", "test session starts"] {
                assert!(!below.contains(part), "{test}: {below}");
            }
        }
        assert_eq!(run.verdict(&name("fails")), "FAIL");
        let below = run.below(&name("fails"));
        assert!(below.contains("printed by itself"), "{below}");
        assert!(
            !below.contains("stray") && !below.contains("about to"),
            "{below}"
        );
        assert!(
            !run.stdout.contains("without its template"),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn crashes_of_tests_that_are_captured_otherwise() {
    let project = Project::new(&[(
        "test_crashes.py",
        "import os\ndef test_dies():\n    print('said before')\n    os.kill(os.getpid(), 9)\ndef test_after(): pass\n",
    )]);
    for (arguments, is_shown) in [
        (&["--", "-s"][..], true),
        (&["--no-template", "--", "-s"], true),
        (&["--", "--capture=tee-sys"], true),
        // It is in the memory of the process.
        (&["--", "--capture=sys"], false),
        // Nothing says where a test hangs, and nothing is lost by that.
        (&["--", "-p", "no:faulthandler"], true),
        (&["--no-template", "--", "-p", "no:faulthandler"], true),
    ] {
        let run = project.run(arguments);
        assert_eq!(run.verdict("test_crashes.py::test_dies"), "FAIL");
        assert_eq!(run.verdict("test_crashes.py::test_after"), "OK");
        let below = run.below("test_crashes.py::test_dies");
        assert!(
            below.contains("killed by signal 9"),
            "{arguments:?} {below}"
        );
        assert_eq!(
            below.contains("said before"),
            is_shown,
            "{arguments:?} {below}"
        );
    }
}

/// A group with a limit on memory, removed when this is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Below the group that this process is in. `None`: this machine does not let it.
    fn new(limit_bytes: u64) -> Option<MemoryGroup> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        let of = |controller: &str| {
            memberships.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                (controllers == controller).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let mut places = Vec::new();
        if let Some(path) = of("memory") {
            places.push((
                PathBuf::from("/sys/fs/cgroup/memory").join(path),
                "memory.limit_in_bytes",
            ));
        }
        if let Some(path) = of("") {
            places.push((PathBuf::from("/sys/fs/cgroup").join(path), "memory.max"));
        }
        let name = format!("maelstrom-pytest-test-{}", std::process::id());
        places.into_iter().find_map(|(place, limit)| {
            let group = MemoryGroup(place.join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), limit_bytes.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[test]
fn who_is_killed_for_want_of_memory_is_told_so() {
    let Some(group) = MemoryGroup::new(400 << 20) else {
        println!("SKIPPED: no control group with a limit on memory can be made here");
        return;
    };
    let project = Project::new(&[(
        "test_memory.py",
        "import os\ndef test_takes_all():\n    print('about to take it')\n    kept = []\n    while True: kept.append(os.urandom(1 << 20) * 16)\ndef test_dies(): os.kill(os.getpid(), 9)\ndef test_after(): pass\n",
    )]);
    for arguments in [&["--slots", "1"][..], &["--slots", "1", "--no-template"]] {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"",
            group.0.display()
        );
        let program = env!("CARGO_BIN_EXE_maelstrom-pytest");
        let mut words = vec!["-c", &script, program];
        words.extend(arguments);
        let command: Command = project.command("/bin/sh".as_ref(), &words);
        let run = Run::of(command);
        let name = |test: &str| format!("test_memory.py::test_{test}");
        assert_eq!(run.verdict(&name("takes_all")), "FAIL", "{}", run.stdout);
        let below = run.below(&name("takes_all"));
        assert!(
            below.contains("killed for using more memory than it may")
                && below.contains("about to take it"),
            "{arguments:?} {below}"
        );
        assert!(run.below(&name("dies")).contains("killed by signal 9"));
        assert_eq!(run.verdict(&name("after")), "OK");
        assert!(
            !run.stdout.contains("without its template"),
            "{}",
            run.stdout
        );
    }
}
