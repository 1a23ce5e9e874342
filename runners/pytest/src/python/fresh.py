import faulthandler
import resource

# Runs one test in a fresh interpreter: `python -c THIS ARGUMENTS...`. A process of its own waits for
# the test's, to tell what that cannot when it crashes.

# How long the test's process has to say where it is, when its time is over.
ANSWER_SECONDS = 0.3


class Plugin:
    def __init__(self, words):
        self.words = words

    def pytest_runtest_logreport(self, report):
        self.words.note(report)


def run(words):
    import pytest

    words.begin()
    words.lend()
    print_at_once()
    try:
        return start(pytest, sys.argv[1:], Plugin(words))
    finally:
        words.done()


def wait(words, child):
    """Waits for the test's process, and ends as it has ended."""
    # The signal that the time is over goes to both processes.
    faulthandler.disable()
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.signal(signal.SIGABRT, lambda *_: signal.setitimer(signal.ITIMER_REAL, ANSWER_SECONDS))
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    status = words.tell(status, 1, 2)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        # One core is enough.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def main():
    words = LastWords()
    # Threads that something started before would not be in a fork.
    if len(sys._current_frames()) == 1:
        leads_session = os.getsid(0) == os.getpid()
        child = os.fork()
        if child != 0:
            wait(words, child)
        elif leads_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
    sys.exit(run(words))


main()
