import mmap
import tempfile

PHASES = "setup", "call", "teardown"
# Of a longer text only as much of its beginning and of its end is told.
SHOWN_BYTES = 128 << 10


class LastWords:
    """Whether pytest was done with its test, and what the test printed that pytest has not shown,
    where it outlives the test's process. Made by whoever forks that process and waits for it."""

    def __init__(self):
        # Whether pytest is done, and the phase that the test is in.
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        # What the test prints to its output and error output, as long as pytest keeps it there, and
        # what pytest has taken out since.
        self.numbers = []
        self.is_told = False
        try:
            for _ in range(3):
                with tempfile.TemporaryFile(buffering=0) as file:
                    self.numbers.append(os.dup(file.fileno()))
        except OSError:
            # Then pytest cannot capture either.
            self.numbers.clear()

    def begin(self):
        """In the test's process, before the test."""
        self.page[:2] = bytes(2)
        if self.numbers:
            self.reports = os.fstat(self.numbers[2])

    def renew(self):
        """Before another process is forked: what the one before it did to the files is not to be
        seen."""
        self.page[:2] = bytes(2)
        for number in self.numbers:
            with tempfile.TemporaryFile(buffering=0) as file:
                os.dup2(file.fileno(), number, inheritable=False)

    def lend(self):
        """The next files that pytest captures in are these."""
        import _pytest.capture as capture

        own, lent = getattr(capture, "TemporaryFile", None), self.numbers[:2]

        def lending(*_, **__):
            number = os.dup(lent.pop(0))
            if not lent:
                capture.TemporaryFile = own
            return os.fdopen(number, "w+b", buffering=0)

        if own is not None and lent:
            capture.TemporaryFile = lending

    def note(self, report):
        """A phase of the test has ended, so that pytest has taken what was printed."""
        if report.when not in PHASES:
            return
        phase = PHASES.index(report.when)
        self.page[1] = (phase + 1) % len(PHASES)
        sections = [section for section in report.sections if section[0].startswith("Captured ")]
        if not sections or not self.numbers or phase == 2:
            return
        text = b"".join(heading(name) + lines(content.encode(errors="replace")) for name, content in sections)
        number = self.numbers[2]
        try:
            # Tests may have closed it.
            if os.path.samestat(os.fstat(number), self.reports):
                os.ftruncate(number, 0)
                os.pwrite(number, text, 0)
                self.is_told = True
        except OSError:
            pass

    def done(self):
        """pytest is done with the test."""
        self.page[0] = 1
        if self.is_told:
            try:
                os.ftruncate(self.numbers[2], 0)
            except OSError:
                pass

    def tell(self, status, output, errors):
        """After the end of the test's process, with this status from `waitpid`. Returns the status
        that the test has."""
        if self.page[0]:
            return status
        text = b""
        if self.numbers:
            text = excerpt(self.numbers[2])
            for name, number in zip(("stdout", "stderr"), self.numbers):
                captured = excerpt(number)
                if captured:
                    text += heading("Captured %s %s" % (name, PHASES[self.page[1]])) + lines(captured)
        try:
            if text:
                write(output, b"\n" + text)
            if os.WIFEXITED(status):
                code = os.WEXITSTATUS(status)
                write(errors, b"the test ended its process, with code %d, before pytest was done with it\n" % code)
        except OSError:
            # Nobody wants to know.
            pass
        # What is not over has not passed.
        return status or 1 << 8


def print_at_once():
    """What pytest does not keep goes out line by line, so that nothing of it is lost in a crash."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)


def heading(name):
    return (" %s " % name).center(80, "-").encode() + b"\n"


def lines(text):
    return text if text.endswith(b"\n") else text + b"\n"


def excerpt(number):
    size = os.fstat(number).st_size
    left_out = size - 2 * SHOWN_BYTES
    if left_out <= 0:
        return os.pread(number, size, 0)
    parts = os.pread(number, SHOWN_BYTES, 0), os.pread(number, SHOWN_BYTES, size - SHOWN_BYTES)
    return parts[0] + b"\n[%d bytes left out]\n" % left_out + parts[1]


def write(descriptor, text):
    while text:
        text = text[os.write(descriptor, text) :]


