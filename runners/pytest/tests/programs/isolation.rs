//! Modules that a template cannot import, and tests that share a process.

use crate::support::{Project, can_rewind};

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
        (
            "test_memory.py",
            "import mmap\nmemory = mmap.mmap(-1, 4096)\ndef test_first():\n    assert memory[0] == 0\n    memory[0] = 1\ndef test_second(): test_first()\n",
        ),
        (
            "test_lock.py",
            "import multiprocessing\nlock = multiprocessing.Lock()\ndef test_first(): assert lock.acquire(timeout=1)\ndef test_second(): test_first()\n",
        ),
        (
            "test_timer.py",
            "import signal\nsignal.alarm(1000)\ndef test_alarm(): assert signal.alarm(0) > 0\n",
        ),
        (
            "test_thread_too.py",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\ndef test(): pass\n",
        ),
        ("test_plain.py", "def test_plain(): pass\n"),
    ]);
    let run = project.run(&[]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let told = |what: &str| run.stdout.matches(what).count();
    assert_eq!(told("importing it started a thread"), 2, "{}", run.stdout);
    assert_eq!(told("importing it opened a socket"), 1, "{}", run.stdout);
    assert_eq!(told("importing it made memory that"), 2, "{}", run.stdout);
    assert_eq!(told("importing it set a timer"), 1, "{}", run.stdout);
    assert_eq!(told("without its template"), 0, "{}", run.stdout);
}

/// Most of these leave nothing but memory behind, so that one process runs many of them.
const MEMORY: &str = r#"
import decimal, gc, locale, logging, os, random, signal, sys, warnings
import pytest

STATE = []

def birth():
    with open("/proc/self/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[19]

def state():
    return (
        list(STATE), hasattr(sys, "left"), sys.getrecursionlimit(), gc.isenabled(), len(sys.path),
        "wave" in sys.modules, "LEFT" in os.environ, len(warnings.filters), decimal.getcontext().prec,
        logging.getLogger("left").handlers, sys.gettrace(), signal.getsignal(signal.SIGUSR1),
        open("/proc/self/comm").read(),
        os.path.exists("/tmp/left"),
    )

PRISTINE = state()

@pytest.mark.parametrize("number", range(24))
def test_leaves(number, capsys):
    assert state() == PRISTINE
    STATE.append(number)
    sys.left = [bytearray(50_000) for _ in range(number * 10)]
    sys.setrecursionlimit(5000)
    gc.disable()
    sys.path.append("/left")
    import wave
    os.environ["LEFT"] = "left"
    warnings.simplefilter("error")
    decimal.getcontext().prec = 5
    logging.getLogger("left").addHandler(logging.NullHandler())
    kept = open("/proc/self/comm")
    sys.left.append(kept)
    if number % 8 == 7:
        open("/tmp/left", "w").close()
    sys.settrace(lambda *_: None)

@pytest.mark.parametrize("number", range(12))
def test_tells(number):
    assert state() == PRISTINE
    pytest.fail("born %s drew %d" % (birth(), random.getrandbits(60)))
"#;

#[test]
fn tests_that_share_a_process_do_not_notice() {
    let project = Project::new(&[("test_memory.py", MEMORY)]);
    let run = project.run(&["--slots", "1"]);
    assert_eq!(run.code, Some(1));
    let text = |number: u32, test: &str| format!("test_memory.py::test_{test}[{number}]");
    for number in 0..24 {
        let name = text(number, "leaves");
        assert_eq!(run.verdict(&name), "OK", "{}", run.below(&name));
    }
    let (mut born, mut drawn) = (Vec::new(), Vec::new());
    for number in 0..12 {
        let below = run.below(&text(number, "tells"));
        let told = below
            .lines()
            .find_map(|line| line.split_once("Failed: born "));
        let (_, told) = told.unwrap_or_else(|| panic!("{below}"));
        let (birth, number) = told.split_once(" drew ").unwrap();
        born.push(birth.to_owned());
        drawn.push(number.to_owned());
    }
    for told in [&mut born, &mut drawn] {
        told.sort();
        told.dedup();
    }
    assert_eq!(drawn.len(), 12, "{drawn:?}");
    if can_rewind() {
        assert!(born.len() <= 3, "{born:?}");
    }
}
