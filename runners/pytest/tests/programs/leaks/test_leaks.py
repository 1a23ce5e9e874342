"""Each leak looks whether it is the first of its kind, and then leaves its traces. Whatever order
they run in, each finds nothing of the others and of itself."""

import ast, asyncio, atexit, builtins, codecs, contextvars, copyreg, ctypes, decimal
import faulthandler, fcntl, functools, gc, json, locale, logging, mmap, os, random, resource
import select, shutil, signal, socket, stat, struct, subprocess, sys, tempfile, termios, threading, time
import types
import unittest, unittest.mock, warnings, weakref
import multiprocessing.shared_memory

import pytest

from system import *

HERE = os.path.dirname(os.path.abspath(__file__))
BEGAN_IN = os.getcwd()
LEAKS = []


def leak(function):
    LEAKS.append(function)
    return function


def mild(function):
    """Does no harm to a pytest that runs it in its own process."""
    function.mild = True
    return leak(function)


# --- memory of the interpreter

STATE = []
CONSTANT = b"0123456789" * 3
CONTEXT = contextvars.ContextVar("CONTEXT", default=0)
LOCAL = threading.local()
CELL = weakref.WeakValueDictionary()


@functools.lru_cache(None)
def remembered(key):
    return []


class Plain:
    pass


@mild
def leak_global():
    assert STATE == []
    STATE.append(1)


@mild
def leak_default_argument(kept=[]):
    assert not kept
    kept.append(1)


@mild
def leak_class_attribute():
    assert not hasattr(Plain, "leaked")
    Plain.leaked = 1


@mild
def leak_cache():
    assert remembered(1) == []
    remembered(1).append(1)


@mild
def leak_context_variable():
    assert CONTEXT.get() == 0 and not hasattr(LOCAL, "leaked")
    CONTEXT.set(1)
    LOCAL.leaked = 1


@mild
def leak_weak_reference():
    assert "leaked" not in CELL
    CELL["leaked"] = STATE_KEEPER = Plain()
    Plain.keeper = STATE_KEEPER


@mild
def leak_environment():
    assert "LEAKED" not in os.environ
    os.environ["LEAKED"] = "1"


@mild
def leak_environment_of_c():
    assert LIBC.getenv(b"LEAKED_IN_C") is None
    LIBC.setenv(b"LEAKED_IN_C", b"1", 1)


@mild
def leak_removed_variable():
    assert "PATH" in os.environ and LIBC.getenv(b"PATH")
    os.environ.pop("PATH")


@leak
def leak_directory():
    assert os.getcwd() == BEGAN_IN
    os.chdir("/")


@mild
def leak_search_path():
    assert "/leaked" not in sys.path and not any(finder is Plain for finder in sys.meta_path)
    sys.path.insert(0, "/leaked")
    sys.meta_path.append(Plain)


@mild
def leak_module():
    assert "leaked_module" not in sys.modules
    sys.modules["leaked_module"] = types.ModuleType("leaked_module")


@mild
def leak_patched_module():
    assert isinstance(json.dumps, types.FunctionType) and json.dumps.__module__ == "json"
    json.dumps = lambda value: "leaked"


@mild
def leak_patch_that_is_not_stopped():
    assert not isinstance(ast.parse, unittest.mock.Mock)
    unittest.mock.patch("ast.parse").start()


@mild
def leak_builtin():
    assert not hasattr(builtins, "leaked")
    builtins.leaked = 1


@mild
def leak_method_of_a_builtin_type():
    assert not hasattr(str, "leaked")
    gc.get_referents(str.__dict__)[0]["leaked"] = 1
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(str))


@mild
def leak_changed_constant():
    assert CONSTANT[:1] == b"0"
    ctypes.memset(id(CONSTANT) + bytes.__basicsize__ - 1, ord("x"), 1)


@mild
def leak_seed():
    seeded = random.Random(7)
    seeded.random()
    assert random.getstate() != seeded.getstate()
    random.seed(7)
    random.random()


@mild
def leak_c_random():
    LIBC.srand(7)
    expected = LIBC.rand()
    assert not getattr(Plain, "drew", None)
    Plain.drew = expected


@mild
def leak_recursion_limit():
    assert sys.getrecursionlimit() < 5000
    sys.setrecursionlimit(5000)


@mild
def leak_interpreter_settings():
    assert sys.getswitchinterval() < 0.1 and sys.get_int_max_str_digits() != 640
    sys.setswitchinterval(0.1)
    sys.set_int_max_str_digits(640)


@mild
def leak_garbage_collector():
    assert gc.isenabled() and gc.get_threshold()[0] != 12345 and not gc.callbacks
    gc.set_threshold(12345)
    gc.callbacks.append(lambda *_: None)
    gc.disable()


@mild
def leak_fault_handler():
    assert faulthandler.is_enabled()
    faulthandler.disable()


@mild
def leak_delayed_traceback():
    assert not getattr(Plain, "delayed", None)
    Plain.delayed = True
    # Would end the process that a later test runs in.
    faulthandler.dump_traceback_later(300, exit=True)


@leak
def leak_trace_function():
    assert sys.gettrace() is None and sys.getprofile() is None
    threading.setprofile(lambda *_: None)
    sys.setprofile(lambda *_: None)
    sys.settrace(lambda *_: None)


@mild
def leak_hooks():
    assert sys.displayhook is sys.__displayhook__ and not hasattr(sys, "leaked")
    sys.displayhook = sys.unraisablehook = threading.excepthook = lambda *_: None
    sys.leaked = 1


@mild
def leak_time_zone():
    assert os.environ.get("TZ") != "XYZ5" and time.tzname[0] != "XYZ"
    os.environ["TZ"] = "XYZ5"
    time.tzset()


@mild
def leak_decimal_context():
    assert decimal.getcontext().prec == 28
    decimal.getcontext().prec = 7


@mild
def leak_event_loop():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not getattr(asyncio, "leaked", False)
        asyncio.leaked = True
        asyncio.set_event_loop(asyncio.new_event_loop())


@mild
def leak_warning_filter():
    assert not hasattr(warnings, "leaked") and warnings.showwarning.__name__ != "<lambda>"
    warnings.leaked = 1
    warnings.showwarning = lambda *_: None
    warnings.simplefilter("ignore")


@mild
def leak_logging():
    assert logging.getLogger("leaked").level == logging.NOTSET and logging.root.manager.disable == 0
    logging.getLogger("leaked").setLevel(1)
    logging.disable(logging.CRITICAL)
    logging.addLevelName(77, "LEAKED")


@mild
def leak_socket_timeout():
    assert socket.getdefaulttimeout() is None
    socket.setdefaulttimeout(3)


@mild
def leak_codec():
    with pytest.raises(LookupError):
        codecs.lookup("leaked")
    codecs.register(lambda name: codecs.lookup("utf-8") if name == "leaked" else None)


@mild
def leak_exit_handler():
    assert not getattr(atexit, "leaked", False)
    atexit.leaked = True
    atexit.register(lambda: None)


@mild
def leak_standard_streams():
    assert not hasattr(sys.stdout, "leaked")
    sys.stdout.leaked = sys.stdin.leaked = True
    sys.__stdout__ = None


@mild
def leak_temporary_directory():
    assert tempfile.tempdir != "/leaked"
    tempfile.tempdir = "/leaked"


@mild
def leak_locale():
    assert not hasattr(locale, "leaked") and LIBC.setlocale(6, None) == BEGAN_WITH["locale"]
    locale.leaked = True
    # Times, and then how characters are told apart.
    LIBC.setlocale(5 if LIBC.setlocale(5, None) == b"C.UTF-8" else 2, b"C.UTF-8")
    LIBC.setlocale(0, b"C")


@mild
def leak_copier():
    assert Plain not in copyreg.dispatch_table
    copyreg.pickle(Plain, lambda value: (Plain, ()))


@mild
def leak_large_allocation(kept=[]):
    assert not kept and int(status("VmData")["VmData"].split()[0]) < 300_000
    kept.append(bytearray(300 << 20))


@leak
def leak_fast_rounding():
    assert LIBM.fegetround() == 0 and 1.0 + 2.0**-60 == 1.0
    LIBM.fesetround(0x800 if IS_X86 else 0x400000)


@leak
def leak_segment_register():
    value = ctypes.c_ulong(1)
    checked(call("arch_prctl", 0x1004, ctypes.byref(value)))
    assert value.value == 0
    checked(call("arch_prctl", 0x1001, 0x123000))


# --- mappings

PRIVATE = checked(LIBC.mmap(None, 16 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))
ctypes.memset(PRIVATE, 0x5A, 16 * PAGE)


def page(number):
    """A page that was written before the first test, as it was."""
    address = PRIVATE + number * PAGE
    assert permissions(address)[:2] == "rw"
    assert ctypes.string_at(address, PAGE) == b"\x5a" * PAGE
    return address


@mild
def leak_written_page():
    ctypes.memset(page(0), 1, 1)


@mild
def leak_protected_page():
    checked(LIBC.mprotect(page(2), PAGE, 1))


@mild
def leak_executable_page():
    assert "x" not in permissions(page(4))
    checked(LIBC.mprotect(page(4), PAGE, 7))


@mild
def leak_unmapped_page():
    checked(LIBC.munmap(page(6), PAGE))


@mild
def leak_dropped_page():
    checked(LIBC.madvise(page(8), PAGE, mmap.MADV_DONTNEED))


@mild
def leak_page_mapped_over():
    checked(LIBC.mmap(page(10), PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, 0))


@mild
def leak_moved_page():
    checked(LIBC.mremap(page(12), PAGE, 8 * PAGE, 1))


@mild
def leak_page_that_forks_do_not_get():
    address = page(14)
    with open("/proc/self/smaps") as file:
        lines = file.read().split("\n%x-" % address)
    assert len(lines) < 2 or " dc" not in lines[1].split("VmFlags:")[1].splitlines()[0]
    checked(LIBC.madvise(address, PAGE, mmap.MADV_DONTFORK))


@mild
def leak_new_mapping():
    where = 0x2AAA_0000_0000
    assert permissions(where) == ""
    checked(LIBC.mmap(where, 64 << 20, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, 0))
    ctypes.memset(where, 1, PAGE)


@mild
def leak_shared_mapping():
    where = 0x2ABA_0000_0000
    assert permissions(where) == ""
    checked(LIBC.mmap(where, PAGE, 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x10, -1, 0))


@mild
def leak_heap():
    assert sum(high - low for low, high, _, name in mappings() if name == "[heap]") < 200 << 20
    checked(LIBC.sbrk(256 << 20))


@mild
def leak_locked_memory():
    checked(LIBC.mlock(page(0), PAGE))


@mild
def leak_changed_code():
    # swab(3), which nobody needs.
    address = ctypes.cast(LIBC.swab, ctypes.c_void_p).value
    start = address // PAGE * PAGE
    assert "w" not in permissions(address) and ctypes.string_at(address, 1) == SWAB
    checked(LIBC.mprotect(start, PAGE, 7))
    ctypes.memset(address, 0xC3, 1)


SWAB = ctypes.string_at(ctypes.cast(LIBC.swab, ctypes.c_void_p).value, 1)


@mild
def leak_memory_policy():
    mode = ctypes.c_int(0)
    checked(call("get_mempolicy", ctypes.byref(mode), None, 0, None, 0))
    assert mode.value == 0
    checked(call("set_mempolicy", 4, None, 0))


@mild
def leak_asynchronous_io():
    assert not any(name.startswith("/[aio]") for *_, name in mappings())
    checked(call("io_setup", 8, ctypes.byref(ctypes.c_ulong(0))))


# --- signals and timers


@leak
def leak_signal_handler():
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    signal.signal(signal.SIGUSR2, lambda *_: None)


@leak
def leak_ignored_signal():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@leak
def leak_signal_handler_of_c():
    old = LIBC.signal(signal.SIGHUP, ctypes.c_void_p(1))
    assert old == 0


@leak
def leak_blocked_signals():
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD])


@leak
def leak_pending_signal():
    assert not signal.sigpending()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)


@leak
def leak_signal_stack():
    old = (ctypes.c_ulong * 3)()
    checked(LIBC.sigaltstack(None, old))
    assert old[2] != 1 << 20
    new = (ctypes.c_ulong * 3)(page(0), 0, 16 * PAGE)
    new[0] = LIBC.mmap(None, 1 << 20, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    new[2] = 1 << 20
    checked(LIBC.sigaltstack(new, None))


@leak
def leak_wakeup_descriptor():
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    assert signal.set_wakeup_fd(writer.fileno()) == -1
    Plain.wakeup = reader, writer


@leak
def leak_timer():
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    signal.setitimer(signal.ITIMER_REAL, 300)


@leak
def leak_profiling_timer():
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    signal.setitimer(signal.ITIMER_PROF, 300)


@leak
def leak_posix_timer():
    assert not getattr(Plain, "has_timer", False) and read("/proc/self/timers") in ("", "ENOENT")
    Plain.has_timer = True
    timer = ctypes.c_void_p()
    checked(LIBC.timer_create(1, None, ctypes.byref(timer)))


# --- descriptors


def leak_descriptor(kind, make):
    def leak():
        assert not [what for what in descriptors().values() if kind in what]
        Plain.kept = make()

    leak.__name__ = "leak_descriptor_%s" % kind.strip("[]:/").replace("/", "_")
    leak.mild = True
    LEAKS.append(leak)


leak_descriptor("[eventpoll]", lambda: select.epoll())
leak_descriptor("[eventfd]", lambda: checked(LIBC.eventfd(0, 0)))
leak_descriptor("inotify", lambda: checked(call("inotify_init1", 0)))
leak_descriptor("[timerfd]", lambda: checked(call("timerfd_create", 1, 0)))
leak_descriptor("[signalfd]", lambda: checked(call("signalfd4", -1, ctypes.byref(ctypes.c_ulong(0)), 8, 0)))
leak_descriptor("[fanotify]", lambda: checked(call("fanotify_init", 0x200, 0)))
leak_descriptor("[userfaultfd]", lambda: checked(call("userfaultfd", 1)))
leak_descriptor("[pidfd]", lambda: os.pidfd_open(os.getpid()))
leak_descriptor("[io_uring]", lambda: checked(call("io_uring_setup", 4, ctypes.create_string_buffer(120))))
leak_descriptor("/memfd:", lambda: os.memfd_create("leaked"))
leak_descriptor("/dev/zero", lambda: os.open("/dev/zero", os.O_RDWR))
leak_descriptor("/ptmx", lambda: os.openpty())
leak_descriptor("/etc/passwd", lambda: os.open("/etc/passwd", os.O_RDONLY))


@mild
def leak_pipe():
    assert not getattr(Plain, "pipe", None) and len(descriptors()) < 24
    Plain.pipe = [os.pipe() for _ in range(10)]


@mild
def leak_high_descriptor():
    assert max(descriptors()) < 900
    os.dup2(0, 900)


@leak
def leak_nonblocking_output():
    numbers = [number for number, what in descriptors().items() if what.startswith("pipe:")] + [0, 1, 2]
    for number in numbers:
        assert not os.get_blocking(number) is False
    for number in numbers:
        os.set_blocking(number, False)


@leak
def leak_flags_of_descriptors():
    for number in (0, 1, 2):
        assert os.get_inheritable(number)
        os.set_inheritable(number, False)


@leak
def leak_appending_output():
    for number in (1, 2):
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        assert not flags & os.O_APPEND
        fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_APPEND)


@leak
def leak_output_elsewhere():
    target = os.open("/dev/null", os.O_WRONLY)
    assert os.fstat(1).st_rdev != os.fstat(target).st_rdev
    os.dup2(target, 1)
    os.dup2(target, 2)


@leak
def leak_closed_output():
    os.fstat(1)
    os.close(1)


@leak
def leak_closed_errors():
    os.fstat(2)
    os.close(2)


@leak
def leak_closed_input():
    os.fstat(0)
    os.close(0)


@leak
def leak_input_elsewhere():
    assert os.read(0, 10) == b""
    reader, writer = os.pipe()
    os.write(writer, b"leaked")
    os.dup2(reader, 0)


@leak
def leak_every_descriptor():
    assert os.fstat(1) and os.fstat(2) and not hasattr(Plain, "duplicates")
    # What others kept open, too: nothing of a test's output may be lost for that.
    Plain.duplicates = [os.dup(number) for number in range(3)]


@leak
def leak_position_of_output():
    if stat.S_ISREG(os.fstat(1).st_mode):
        assert os.lseek(1, 0, os.SEEK_CUR) == 0
    print("said but never ended", end="", flush=True)
    os.write(1, b"x" * 100_000)


# Others may run this outside of containers at the same time.
PORT = 20_000 + os.getpid() % 20_000 if os.environ.get("TEST_LEAK_MILD") else 47123


@mild
def leak_port(kept=[]):
    server = socket.socket()
    server.bind(("127.0.0.1", PORT))
    server.listen()
    kept.append(server)


@leak
def leak_datagram_port(kept=[]):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        one.bind(("::1", 47124))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise Refused("no IPv6") from error
        raise
    kept.append(one)


@leak
def leak_closed_connection():
    # Stays in the kernel for a minute, and whoever wants the port has to wait.
    server = socket.socket()
    server.bind(("127.0.0.1", 47125))
    server.listen()
    client = socket.create_connection(("127.0.0.1", 47125))
    accepted, _ = server.accept()
    accepted.close()
    client.close()
    server.close()


@leak
def leak_abstract_socket(kept=[]):
    one = socket.socket(socket.AF_UNIX)
    one.bind("\0leaked-by-a-test")
    kept.append(one)


@leak
def leak_socket_in_flight(kept=[]):
    # A descriptor that nobody has, kept alive by a queue.
    left, right = socket.socketpair()
    server = socket.socket()
    server.bind(("127.0.0.1", 47126))
    socket.send_fds(left, [b"x"], [server.fileno()])
    server.close()
    kept.append((left, right))


# --- what a process is


@leak
def leak_umask():
    old = os.umask(0o777)
    assert old != 0o777


@leak
def leak_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft != 99
    resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))


@leak
def leak_core_limit():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 12 << 20
    resource.setrlimit(resource.RLIMIT_FSIZE, (12 << 20, 12 << 20))
    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))


@leak
def leak_nice():
    assert os.getpriority(os.PRIO_PROCESS, 0) < 19
    os.nice(19)


@leak
def leak_processors():
    processors = os.sched_getaffinity(0)
    if os.cpu_count() > 1:
        assert len(processors) > 1
    os.sched_setaffinity(0, [max(processors)])


@leak
def leak_scheduler():
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@leak
def leak_io_priority():
    assert call("ioprio_get", 1, 0) >> 13 != 3
    checked(call("ioprio_set", 1, 0, 3 << 13))


@leak
def leak_name():
    assert read("/proc/self/comm") != "leaked"
    prctl(15, ctypes.c_char_p(b"leaked"))


@leak
def leak_not_dumpable():
    assert prctl(3) == 1
    checked(prctl(4, 0))


@leak
def leak_death_signal():
    assert option_value(2) == 0
    checked(prctl(1, signal.SIGTERM))


@leak
def leak_subreaper():
    assert option_value(37) == 0
    checked(prctl(36, 1))


@leak
def leak_timer_slack():
    assert prctl(30) < 10**9
    checked(prctl(29, 10**9))


@leak
def leak_huge_pages():
    assert prctl(42) == 0
    checked(prctl(41, 1))


@leak
def leak_write_or_execute():
    assert prctl(66) in (0, -1)
    checked(prctl(65, 1))


@leak
def leak_machine_checks():
    assert prctl(34) == 2
    checked(prctl(33, 1, 1))


@leak
def leak_speculation():
    assert prctl(52, 0) & 4 == 0
    checked(prctl(53, 0, 4))


@leak
def leak_personality():
    assert LIBC.personality(ctypes.c_ulong(0xFFFFFFFF)) == 0
    checked(LIBC.personality(ctypes.c_ulong(0x0040000)))


@leak
def leak_capabilities():
    header, data = capabilities()
    assert Plain.__dict__.get("capable", data.raw) == data.raw
    Plain.capable = data.raw
    checked(call("capset", header, ctypes.create_string_buffer(24)))
    assert os.getuid() != 0 or capabilities()[1].raw != data.raw or data.raw == bytes(24)


@leak
def leak_system_call_filter():
    # getpriority(2) fails from now on.
    assert LIBC.getpriority(0, 0) != -1 or ctypes.get_errno() != 77
    number = 140 if IS_X86 else 141
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x5004D), (6, 0, 0, 0x7FFF0000)]
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)), 16)
    checked(prctl(22, 2, ctypes.addressof(header)))


@leak
def leak_file_restriction():
    with open("/tmp/unrestricted", "w"):
        pass
    # All of what writes files.
    rules = checked(call("landlock_create_ruleset", ctypes.create_string_buffer(struct.pack("Q", 0x1FF2), 8), 8, 0))
    checked(prctl(38, 1))
    checked(call("landlock_restrict_self", rules, 0))


@leak
def leak_session():
    try:
        os.setsid()
    except PermissionError as error:
        raise Refused("it leads one already") from error


@leak
def leak_controlling_terminal():
    with pytest.raises(OSError):
        os.open("/dev/tty", os.O_RDWR)
    leader, follower = os.openpty()
    try:
        fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    except PermissionError as error:
        raise Refused("it leads no session") from error
    os.close(os.open("/dev/tty", os.O_RDWR))


@leak
def leak_root():
    assert os.path.exists("/usr")
    try:
        os.chroot("/tmp")
    except PermissionError as error:
        raise Refused("chroot") from error


@leak
def leak_namespaces():
    assert os.readlink("/proc/self/ns/user") == os.environ.get("LEAK_USER", os.readlink("/proc/self/ns/user"))
    assert not getattr(Plain, "alone", 0)
    Plain.alone = 1
    # User, mount, network, IPC and host name.
    checked(LIBC.unshare(0x10000000 | 0x20000 | 0x40000000 | 0x8000000 | 0x4000000))
    LIBC.sethostname(b"leaked", 6)
    LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None)


@leak
def leak_descriptor_table():
    assert not getattr(Plain, "unshared", 0)
    Plain.unshared = 1
    # Files and file system attributes.
    checked(LIBC.unshare(0x400 | 0x200))


@leak
def leak_host_name():
    assert os.uname().nodename != "leaked"
    checked(LIBC.sethostname(b"leaked", 6))


@leak
def leak_mount():
    assert "leaked" not in read("/proc/self/mountinfo")
    checked(LIBC.mount(b"leaked", b"/tmp", b"tmpfs", 0, None))


def leak_setting(path, text):
    def leak():
        assert read(path) != text
        try:
            with open(path, "w") as file:
                file.write(text)
        except OSError as error:
            raise Refused(str(error)) from error
        assert read(path) == text

    leak.__name__ = "leak_setting_%s" % path.split("/")[-1]
    LEAKS.append(leak)


leak_setting("/proc/self/oom_score_adj", "987")
leak_setting("/proc/self/coredump_filter", "00000001")
leak_setting("/proc/self/comm", "renamed")
leak_setting("/proc/sys/net/ipv4/ip_default_ttl", "77")
leak_setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", "77")
leak_setting("/proc/sys/kernel/shm_rmid_forced", "1")
leak_setting("/proc/sys/kernel/msgmax", "7777")
leak_setting("/proc/sys/fs/mqueue/msg_max", "77")
leak_setting("/proc/sys/user/max_user_namespaces", "7")


# --- what outlives a process

SHARED = ctypes.c_int(0x1EA4ED)


@leak
def leak_shared_memory():
    number = LIBC.shmget(SHARED, 1 << 16, 0o1000 | 0o2000 | 0o600)
    assert number >= 0, os.strerror(ctypes.get_errno())
    Plain.attached = checked(LIBC.shmat(number, None, 0))


@leak
def leak_semaphores():
    assert LIBC.semget(SHARED, 1, 0o1000 | 0o2000 | 0o600) >= 0


@leak
def leak_messages():
    number = LIBC.msgget(SHARED, 0o1000 | 0o2000 | 0o600)
    assert number >= 0
    LIBC.msgsnd(number, ctypes.create_string_buffer(struct.pack("l", 1) + b"leaked"), 6, 0)


@leak
def leak_message_queue():
    number = call("mq_open", ctypes.c_char_p(b"leaked"), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600, None)
    assert number >= 0, os.strerror(ctypes.get_errno())


@leak
def leak_posix_shared_memory():
    Plain.memory = multiprocessing.shared_memory.SharedMemory("leaked", create=True, size=4096)


def leak_key(ring):
    def leak():
        found = call("keyctl", 10, ring, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"leaked"), 0)
        assert found < 0
        checked(call("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"leaked"), ctypes.c_char_p(b"x"), 1, ring))

    leak.__name__ = "leak_key_%d" % -ring
    LEAKS.append(leak)


for ring in (-1, -2, -3, -4, -5):
    leak_key(ring)


@leak
def leak_keyring():
    name = ctypes.c_char_p(b"leaked-session")
    assert not getattr(Plain, "joined", 0)
    Plain.joined = 1
    checked(call("keyctl", 1, name))


# --- other processes and threads


@leak
def leak_thread():
    assert threading.active_count() == 1
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


@leak
def leak_busy_thread():
    assert not getattr(Plain, "count", 0) and len(os.listdir("/proc/self/task")) == 1

    def spin():
        while True:
            Plain.count = getattr(Plain, "count", 0) + 1
            CELL_LIST.append(bytearray(1000))
            os.environ["LEAKED_BY_THREAD"] = "1"
            time.sleep(0)

    assert not CELL_LIST and "LEAKED_BY_THREAD" not in os.environ
    threading.Thread(target=spin, daemon=True).start()
    while not CELL_LIST:
        time.sleep(0.001)


CELL_LIST = []


@leak
def leak_thread_of_c():
    assert len(os.listdir("/proc/self/task")) == 1
    thread = ctypes.c_ulong()
    # pause(2) in a thread that the interpreter does not know.
    LIBC.pthread_create(ctypes.byref(thread), None, LIBC.pause, None)


def alone():
    assert len(processes()) <= 3, processes()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@leak
def leak_child():
    alone()
    if os.fork() == 0:
        time.sleep(1000)
        os._exit(0)


@leak
def leak_zombie():
    alone()
    if os.fork() == 0:
        os._exit(0)


@leak
def leak_stopped_child():
    alone()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)


@leak
def leak_daemon():
    alone()
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            os.write(writer, b"x")
            while True:
                with open("/tmp/daemon", "a") as file:
                    file.write("x")
                time.sleep(0.001)
        os._exit(0)
    os.wait()
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    assert not os.path.exists("/tmp/daemon-was-here")
    open("/tmp/daemon-was-here", "x").close()


@leak
def leak_server():
    # Keeps the output of its test open.
    server = socket.socket()
    server.bind(("127.0.0.1", 47127))
    server.listen()
    subprocess.Popen(["sleep", "1000"], start_new_session=True, pass_fds=[server.fileno()])


@leak
def leak_traced_child():
    alone()
    child = os.fork()
    if child == 0:
        LIBC.ptrace(0, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, 0)


@leak
def leak_lock_of_a_child():
    with open(os.path.join(HERE, "system.py")) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fork() == 0:
            time.sleep(1000)


# --- files


def leak_file(path):
    def leak():
        with open(path, "x") as file:
            file.write("x")

    leak.__name__ = "leak_file_in_%s" % os.path.dirname(path).strip("/").split("/")[-1]
    LEAKS.append(leak)


for place in ("/tmp", "/dev/shm", "/", "/usr", "/etc", os.path.dirname(pytest.__file__), "/var/tmp"):
    if os.access(place, os.W_OK):
        leak_file(os.path.join(place, "leaked"))


@mild
def leak_project_file():
    with open(os.path.join(HERE, "leaked.txt"), "x") as file:
        file.write("x")


@leak
def leak_home_file():
    os.makedirs(os.path.expanduser("~"), exist_ok=True)
    with open(os.path.expanduser("~/leaked.txt"), "x") as file:
        file.write("x")


@leak
def leak_changed_source():
    with open(os.path.join(HERE, "system.py"), "r+") as file:
        assert "# leaked here\n" not in file.readlines()
        file.write("# leaked here\n")


@leak
def leak_removed_source():
    os.remove(os.path.join(HERE, "removed.txt"))


@leak
def leak_truncated_source():
    with open(os.path.join(HERE, "truncated.txt"), "r+") as file:
        assert file.read() == "whole\n"
        file.truncate(0)


@leak
def leak_shared_mapping_of_a_source():
    with open(os.path.join(HERE, "mapped.txt"), "r+") as file:
        Plain.mapped = mmap.mmap(file.fileno(), 6)
    assert Plain.mapped[:] == b"whole\n"
    Plain.mapped[:] = b"holes\n"


@leak
def leak_mode():
    path = os.path.join(HERE, "mode.txt")
    assert os.stat(path).st_mode & 0o777 != 0
    os.chmod(path, 0)


@leak
def leak_mode_of_directory():
    assert os.stat(HERE).st_mode & 0o7777 != 0o1777
    os.chmod(HERE, 0o1777)


@leak
def leak_mode_of_temporary_directory():
    assert os.stat("/tmp").st_mode & 0o7777 != 0o777
    os.chmod("/tmp", 0o777)


@leak
def leak_times():
    path = os.path.join(HERE, "times.txt")
    assert os.stat(path).st_mtime != 77
    os.utime(path, (77, 77))
    os.utime(HERE, (77, 77))


@leak
def leak_links():
    os.symlink("/etc", os.path.join(HERE, "symlink"))
    os.link(os.path.join(HERE, "linked.txt"), os.path.join(HERE, "link"))
    os.mkfifo(os.path.join(HERE, "fifo"))


@leak
def leak_renamed_directory():
    shutil.move(os.path.join(HERE, "directory"), os.path.join(HERE, "renamed"))


@leak
def leak_attribute():
    path = os.path.join(HERE, "attribute.txt")
    try:
        assert os.listxattr(path) == []
        os.setxattr(path, "user.leaked", b"x")
    except OSError as error:
        raise Refused(str(error)) from error


@leak
def leak_directory_that_is_gone():
    assert os.getcwd() == BEGAN_IN
    os.mkdir("/tmp/gone")
    os.chdir("/tmp/gone")
    os.rmdir("/tmp/gone")


@leak
def leak_much_memory_on_disk():
    assert os.statvfs("/tmp").f_bavail > 0 and not os.path.exists("/tmp/large")
    with open("/tmp/large", "x") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)


@leak
def leak_locked_file():
    Plain.locked = open("/etc/passwd")
    fcntl.flock(Plain.locked, fcntl.LOCK_SH)
    own = open(os.path.join(HERE, "locked.txt"), "r+")
    fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
    Plain.own = own


# --- pytest itself


@mild
def leak_terminal_reporter(kept=[]):
    assert not kept
    kept.append(sys.modules["_pytest"])
    assert not hasattr(sys.modules["_pytest"], "leaked")
    sys.modules["_pytest"].leaked = 1


# ---

SEED = os.environ.get("TEST_LEAK_SEED", "")
CASES = [(one, time_) for one in LEAKS for time_ in ("first", "second")]
if SEED:
    random.Random(SEED).shuffle(CASES)
# Looking closely is a call that processes are not used again after. So only every third does, and
# may run where another has left its traces.
CASES = [case + (number % 3 == 0,) for number, case in enumerate(CASES)]
BEGAN_WITH = close_snapshot()


def parameters(leak, time_, closely):
    return pytest.param(leak, time_, closely, id="%s-%s" % (leak.__name__[5:], time_))


def birth():
    with open("/proc/self/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[19]


@pytest.mark.parametrize("leak, time_, closely", [parameters(*case) for case in CASES])
def test(leak, time_, closely):
    if os.environ.get("TEST_LEAK_MILD"):
        if not hasattr(leak, "mild"):
            pytest.skip("would harm pytest")
        leak()
        return
    tells = os.environ.get("TEST_LEAK_TELL")
    look = close_snapshot if closely and not tells else snapshot
    different = {name: (value, BEGAN_WITH[name]) for name, value in look().items() if BEGAN_WITH[name] != value}
    assert not different
    if tells and not hasattr(leak, "mild"):
        pytest.skip("might not be able to")
    born = birth()
    try:
        leak()
    except Refused as refused:
        pytest.skip("refused: %s" % refused)
    if tells:
        pytest.fail("born %s" % born)
    if time_ == "second":
        # It would have been noticed: so the other tests can fail.
        with pytest.raises(BaseException):
            leak()
            assert close_snapshot() == BEGAN_WITH


@pytest.fixture(scope="session")
def session_list():
    return []


@pytest.fixture(scope="module")
def module_list():
    return []


@pytest.mark.parametrize("time_", ["first", "second"])
def test_fixtures(session_list, module_list, request, time_):
    assert session_list == module_list == []
    session_list.append(1)
    module_list.append(1)
    assert not hasattr(request.config, "leaked")
    request.config.leaked = 1
    request.node.parent.leaked = request.session.leaked = 1
