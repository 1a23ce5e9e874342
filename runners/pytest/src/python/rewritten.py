import importlib.util
import marshal
import tempfile
import time

# A rewritten module is kept for so long after its last use, and its use is noticed so often.
KEPT_SECONDS = 14 * 24 * 3600
NOTICED_SECONDS = 24 * 3600


class Rewritten:
    """Test modules as pytest has rewritten and compiled them, by what their sources say. Where
    Python is told not to write compiled modules, and in containers, which do not have them, pytest
    would do that anew every time."""

    def __init__(self, directory, is_kept, version):
        self.directory = directory
        self.is_kept = is_kept
        self.version = version
        self.is_swept = False

    def place(self, source):
        import hashlib

        with open(source, "rb") as file:
            content = hashlib.blake2b(file.read(), digest_size=20)
        for part in (importlib.util.MAGIC_NUMBER, self.version, str(source), sys.flags.optimize):
            content.update(b"\0%r" % (part,))
        return os.path.join(self.directory, content.hexdigest())

    def read(self, source):
        try:
            with open(self.place(source), "rb") as file:
                code = marshal.load(file)
                if self.is_kept and os.fstat(file.fileno()).st_mtime < time.time() - NOTICED_SECONDS:
                    os.utime(file.name)
            return code
        except (OSError, EOFError, TypeError, ValueError):
            return None

    def write(self, source, code):
        if not self.is_kept:
            return
        try:
            place = self.place(source)
            self.sweep()
            with tempfile.NamedTemporaryFile(dir=self.directory, delete=False) as file:
                marshal.dump(code, file)
            os.replace(file.name, place)
        except (OSError, ValueError):
            # The next run does it again.
            pass

    def sweep(self):
        """Before the first is written: drops what nobody has used for long."""
        if self.is_swept:
            return
        self.is_swept = True
        os.makedirs(self.directory, exist_ok=True)
        for entry in os.scandir(self.directory):
            if entry.stat().st_mtime < time.time() - KEPT_SECONDS:
                os.unlink(entry.path)


def keep_rewritten(pytest, directory, is_kept):
    """Has pytest find rewritten modules in a directory, and keep them there if asked."""
    from _pytest.assertion import rewrite

    own_read, own_rewrite = getattr(rewrite, "_read_pyc", None), getattr(rewrite, "_rewrite_test", None)
    if own_read is None or own_rewrite is None:
        return
    rewritten = Rewritten(directory, is_kept, pytest.__version__)

    def read(source, *others, **named):
        code = rewritten.read(source)
        if code is None:
            code = own_read(source, *others, **named)
            if code is not None:
                rewritten.write(source, code)
        return code

    def rewrite_test(source, *others, **named):
        status, code = own_rewrite(source, *others, **named)
        rewritten.write(source, code)
        return status, code

    rewrite._read_pyc, rewrite._rewrite_test = read, rewrite_test


