
# Imports and collects once, stops before the first test, and forks for every test that it is asked
# to run: `python -c THIS LEFT_OUT REWRITTEN ARGUMENTS...`, started as the documentation of templates
# says. LEFT_OUT is a list of functions of which there is no test to run, as JSON, and REWRITTEN the
# directory that may hold rewritten modules.

import ctypes
import errno
import random
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWPID = 0x20000000
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_REWIND = 0x4D534D52
PAYLOAD_MAX_BYTES = 64 << 10
# Of `seccomp` and `userfaultfd`.
CALLS = {"x86_64": (317, 323)}
MADV_COLLAPSE = 25
HUGE_PAGE_BYTES = 2 << 20
MAX_PACKET_BYTES = 80 << 10
# Plugins that end a session without a say in how it ended.
HARMLESS = {"_pytest", "_hypothesis_pytestplugin", "anyio", "pytest_asyncio", "pytest_cov", "pytest_timeout", "xdist"}


def check(result, doing):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (doing, os.strerror(number)))
    return result


class Runtime:
    """The other end: who asks for forks."""

    def __init__(self):
        take = os.environ.pop
        self.socket = socket.socket(fileno=int(take("MAELSTROM_TEMPLATE_FD")))
        self.socket.set_inheritable(False)
        self.capabilities = int(take("MAELSTROM_TEMPLATE_CAPABILITIES"), 16)
        self.leads_session = take("MAELSTROM_TEMPLATE_SESSION") == "1"
        self.filter = bytes.fromhex(take("MAELSTROM_TEMPLATE_FILTER", ""))
        self.buffer = ctypes.create_string_buffer(PAYLOAD_MAX_BYTES)
        self.rewinds = bool(self.filter) and os.uname().machine in CALLS
        self.kept = None

    def say(self, text):
        self.socket.send(text.encode(errors="replace")[:4096])

    def receive(self):
        """The number of the next fork, what it is told, and its descriptors."""
        size = struct.calcsize("8i")
        packet, ancillary, _, _ = self.socket.recvmsg(MAX_PACKET_BYTES, socket.CMSG_SPACE(size))
        received = []
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                count = len(data) // struct.calcsize("i")
                received.extend(struct.unpack_from("%di" % count, data))
        if not packet:
            os._exit(0)
        line, _, payload = packet.partition(b"\n")
        word, number = line.decode().split()
        return word == "stand", number, payload, received

    def stand(self, number, kept, payload, shared):
        """From here on the kernel reports what would outlive this process's memory, and whoever
        asked for this fork can set it back to where this returns with the next payload."""
        seccomp, userfaultfd = CALLS[os.uname().machine]
        # For faults of programs only, which needs no privilege.
        faults = LIBC.syscall(ctypes.c_long(userfaultfd), ctypes.c_long(os.O_CLOEXEC | os.O_NONBLOCK | 1))
        if faults < 0:
            return payload
        program = ctypes.create_string_buffer(self.filter, len(self.filter))
        description = struct.pack("HxxxxxxP", len(self.filter) // 8, ctypes.addressof(program))
        arguments = ctypes.c_long(1), ctypes.c_ulong(8), ctypes.c_char_p(description)
        listener = LIBC.syscall(ctypes.c_long(seccomp), *arguments)
        if listener < 0:
            return payload
        packed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("2i", listener, faults))]
        self.socket.sendmsg([b"watch %s" % number.encode()], packed)
        self.kept = kept
        close_all_but(kept)
        size = self.prctl(0, ctypes.addressof(self.buffer), len(self.buffer), shared)
        return payload if size < 0 else self.buffer.raw[:size]

    def end(self, code):
        """The test has ended. Returns if this process has to exit."""
        if self.kept is not None:
            close_all_but(self.kept)
            self.prctl(1, code, 0, 0)

    def prctl(self, *arguments):
        return LIBC.prctl(PR_REWIND, *[ctypes.c_ulong(argument) for argument in arguments])

    def enter(self, received, mirrored, kept, directory):
        """Makes this process, which was just forked, one of the container's."""
        streams, (_, user, ipc, mount), network = received[:3], received[3:7], received[7:]
        for namespace in network + [user, ipc, mount]:
            check(LIBC.setns(namespace, 0), "entering a namespace")
        os.chdir(directory)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for number, stream in mirrored.items():
            os.dup2(stream, number, inheritable=False)
        for number in received:
            os.close(number)
        close_all_but(kept | {self.socket.fileno()})
        if self.leads_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
        drop_capabilities(self.capabilities)
        check(LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "allowing to be traced")


def close_all_but(kept):
    numbers = sorted(kept)
    for low, high in zip(numbers, numbers[1:] + [1 << 16]):
        if high - low > 1:
            os.closerange(low + 1, high)


def drop_capabilities(mask):
    for number in range(64):
        if not mask >> number & 1 and LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    check(LIBC.capget(header, data), "reading capabilities")
    low, high = mask & 0xFFFFFFFF, mask >> 32
    permitted = struct.unpack_from("I", data, 4)[0] & low, struct.unpack_from("I", data, 16)[0] & high
    struct.pack_into("6I", data, 0, permitted[0], permitted[0], 0, permitted[1], permitted[1], 0)
    check(LIBC.capset(header, data), "dropping capabilities")


def gather_memory(usual_threshold):
    """Leaves little for forks to copy: drops garbage, and makes page tables small by huge pages."""
    if gc.get_threshold() == GC_WHILE_COLLECTING:
        gc.set_threshold(*usual_threshold)
    gc.collect()
    gc.collect()
    gc.freeze()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
    with open("/proc/self/maps") as maps:
        lines = maps.readlines()
    for line in lines:
        fields = line.split()
        if fields[1] != "rw-p" or len(fields) > 5 and fields[5] != "[heap]":
            continue
        low, high = (int(bound, 16) for bound in fields[0].split("-"))
        low = -(-low // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        while low + HUGE_PAGE_BYTES <= high:
            where, size = ctypes.c_void_p(low), ctypes.c_size_t(HUGE_PAGE_BYTES)
            if LIBC.madvise(where, size, MADV_COLLAPSE) < 0 and ctypes.get_errno() == errno.EINVAL:
                # Linux has this since 6.1.
                return
            low += HUGE_PAGE_BYTES


def listing(directory):
    try:
        return set(os.listdir(directory)) - {"__pycache__", ".hypothesis", ".pytest_cache"}
    except OSError:
        return set()


def others(hook, *known):
    """Whether a hook has implementations that are neither pytest's own nor known to change nothing
    but what is reported of a whole session."""
    for implementation in hook.get_hookimpls():
        plugin = implementation.plugin
        module = getattr(plugin, "__module__", None) or getattr(plugin, "__name__", "")
        if plugin not in known and module.split(".")[0] not in HARMLESS:
            return True
    return False


class Template:
    """A plugin that takes the place of running all tests."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.usual_threshold = gc.get_threshold()
        self.known = set(descriptors())
        self.places = {place: listing(place) for place in ("/tmp", os.getcwd(), os.path.expanduser("~"))}
        self.forked = False
        self.ends_plainly = False
        self.outcomes = set()
        self.words = None

    def run(self, session, loop):
        """Serves, and in forks runs the chosen test with pytest's own `loop`. Returns what the hook
        for running tests returns."""
        config = session.config
        self.session = session
        manager = config.pluginmanager
        capture = manager.getplugin("capturemanager")
        # Of the hooks that end a session, pytest's own matter to no test that passed.
        self.ends_plainly = not others(config.hook.pytest_unconfigure, self)
        ends_early = self.ends_plainly and not others(config.hook.pytest_sessionfinish)
        ends_early = ends_early and getattr(config.option, "max_warnings", None) is None
        has_own_loop = others(config.hook.pytest_runtestloop, self)
        if capture is not None:
            capture.stop_global_capturing()
        if config.getoption("capture", None) in ("no", "tee-sys"):
            print_at_once()
        # These remember results for the next run, of which no test knows.
        for name in ("lfplugin", "nfplugin", "stepwiseplugin"):
            plugin = manager.getplugin(name)
            if plugin is not None:
                manager.unregister(plugin)
        # Deselected tests are many and of no use.
        reporter = manager.getplugin("terminalreporter")
        getattr(reporter, "stats", {}).pop("deselected", None)
        getattr(session, "_collection_cache", {}).clear()
        items = {}
        for item in session.items:
            items.setdefault(item.nodeid, []).append(item)
        learn_what_hypothesis_draws_from()
        gather_memory(self.usual_threshold)
        self.refuse_what_forks_would_miss()
        sys.stdout.flush()
        sys.stderr.flush()
        self.serve(session, items)
        if capture is not None:
            self.words.lend()
            capture.start_global_capturing()
            capture.suspend_global_capture()
        if has_own_loop:
            return None
        loop(session)
        if ends_early and self.outcomes == {"passed"}:
            self.end(capture, 0)
        if session.testsfailed == 0:
            # Nobody reads what is said of a test that passed.
            config.hook.pytest_terminal_summary = lambda **_: []
        return True

    def end(self, capture, code):
        """Ends the fork here."""
        if capture is not None:
            capture.stop_global_capturing()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.words.done()
        self.runtime.end(code)
        os._exit(code)

    def tell_what_is_collected(self, session):
        if session.testsfailed == 0:
            write(1, json.dumps(fingerprints(map(describe, session.items))).encode())
        self.end(None, 0)

    def unconfigure(self, config):
        """What pytest does from here on concerns the process alone, and the kernel would remember it."""
        if self.forked and self.ends_plainly:
            self.end(config.pluginmanager.getplugin("capturemanager"), int(self.session.exitstatus))

    def refuse_what_forks_would_miss(self):
        found = traces(self.known)
        for place, before in self.places.items():
            new = listing(place) - before
            if new:
                found.append("created %s" % os.path.join(place, min(new)))
        if found:
            self.runtime.say("refuse collecting the tests %s" % found[0])
            os._exit(0)

    def serve(self, session, items):
        """Returns in forked processes only."""
        directory = os.getcwd()
        streams = {identity(number): number for number in (2, 1)}
        self.words = words = LastWords()
        mirrored, kept = {}, {0, 1, 2}.union(words.numbers)
        for number, what in descriptors().items():
            if number < 3:
                continue
            try:
                stream = streams.get(identity(number))
            except OSError:
                continue
            if stream is not None:
                mirrored[number] = stream
            if stream is not None or what in ("/dev/null", "/dev/urandom", "/dev/random"):
                kept.add(number)
        shared = ctypes.addressof(ctypes.c_char.from_buffer(words.page))
        self.runtime.say("ready rewind" if self.runtime.rewinds else "ready")
        while True:
            stands, request, payload, received = self.runtime.receive()
            try:
                wanted = json.loads(payload).get("node_id")
                if wanted is not None and wanted not in items:
                    raise LookupError("the template has not collected this test")
                check(LIBC.setns(received[3], CLONE_NEWPID), "entering a PID namespace")
                words.renew()
                child = os.fork()
            except BaseException as error:
                self.runtime.say("failed %s %s" % (request, error))
                for number in received:
                    os.close(number)
                continue
            if child == 0:
                self.forked = True
                self.runtime.enter(received, mirrored, kept, directory)
                if stands:
                    payload = self.runtime.stand(request, kept, payload, shared)
                words.begin()
                close_all_but(kept)
                self.runtime.socket.detach()
                wanted = json.loads(payload).get("node_id")
                if wanted is None:
                    self.tell_what_is_collected(session)
                # The list of all tests stays, or each of them would be written to.
                self.collected, session.items = session.items, items[wanted]
                session.testscollected = len(session.items)
                # As in any other process, no two tests get the same numbers.
                random.seed()
                if "numpy.random" in sys.modules:
                    sys.modules["numpy.random"].seed()
                return
            for number in received[3:]:
                os.close(number)
            _, status = os.waitpid(child, 0)
            status = words.tell(status, *received[1:3])
            for number in received[:3]:
                os.close(number)
            self.runtime.say("ended %s %d" % (request, status))


def main():
    runtime = Runtime()
    import pytest

    from _pytest.main import pytest_runtestloop as loop

    left_out = frozenset(json.loads(sys.argv.pop(1)))
    keep_rewritten(pytest, sys.argv.pop(1), False)

    class Plugin(Template):
        @pytest.hookimpl(tryfirst=True)
        def pytest_pycollect_makeitem(self, collector, name):
            return [] if left_out and "%s::%s" % (collector.nodeid, name) in left_out else None

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session):
            return self.run(session, loop)

        @pytest.hookimpl(tryfirst=True)
        def pytest_unconfigure(self, config):
            self.unconfigure(config)

        def pytest_runtest_logreport(self, report):
            self.outcomes.add(report.outcome)
            self.words.note(report)

    plugin = Plugin(runtime)
    gc.set_threshold(*GC_WHILE_COLLECTING)
    code = 3
    try:
        code = start(pytest, sys.argv[1:], plugin)
    except BaseException:
        import traceback

        traceback.print_exc()
    if plugin.forked:
        plugin.words.done()
    else:
        runtime.say("refuse pytest ended with code %d while it collected the tests" % code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    runtime.end(code)
    os._exit(code)


main()
