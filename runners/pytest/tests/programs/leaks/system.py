"""The C library and system calls, for what Python has no functions for."""

import ctypes
import errno
import os
import platform
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
LIBM = ctypes.CDLL("libm.so.6")
IS_X86 = platform.machine() == "x86_64"
PAGE = os.sysconf("SC_PAGESIZE")
LIBC.mmap.restype = LIBC.sbrk.restype = LIBC.shmat.restype = LIBC.mremap.restype = ctypes.c_void_p
LIBC.getenv.restype = LIBC.setlocale.restype = ctypes.c_char_p
LIBC.sbrk.argtypes = [ctypes.c_long]
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mprotect.argtypes = LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
LIBC.syscall.restype = ctypes.c_long

# Of x86-64 and of everything newer.
NUMBERS = {
    "add_key": (248, 217), "keyctl": (250, 219), "ioprio_set": (251, 30), "ioprio_get": (252, 31),
    "set_mempolicy": (238, 237), "get_mempolicy": (239, 236), "io_setup": (206, 0),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446), "arch_prctl": (158, None), "inotify_init1": (294, 26),
    "timerfd_create": (283, 85), "signalfd4": (289, 74), "fanotify_init": (300, 262),
    "mq_open": (240, 180), "perf_event_open": (298, 241), "capget": (125, 90), "capset": (126, 91),
}


class Refused(Exception):
    """The kernel does not let us leak this."""


REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV, errno.EROFS, errno.EINVAL, errno.ENXIO)


def checked(result):
    if result in (-1, None) or result == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        if number in REFUSALS:
            raise Refused(os.strerror(number))
        raise OSError(number, os.strerror(number))
    return result


def call(name, *arguments):
    number = NUMBERS[name][0 if IS_X86 else 1]
    if number is None:
        raise Refused("another architecture")
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return LIBC.syscall(ctypes.c_long(number), *converted)


def prctl(option, *arguments):
    padded = list(arguments) + [0] * (4 - len(arguments))
    return LIBC.prctl(option, *(ctypes.c_ulong(value) if isinstance(value, int) else value for value in padded))


def status(*names):
    """Lines of /proc/self/status."""
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {name: lines.get(name) for name in names}


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError as error:
        return errno.errorcode[error.errno]


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return found


def mappings():
    """Bounds, permissions and name of each mapping."""
    with open("/proc/self/maps") as file:
        for line in file:
            fields = line.rstrip("\n").split(maxsplit=5)
            low, high = (int(bound, 16) for bound in fields[0].split("-"))
            yield low, high, fields[1], fields[5] if len(fields) > 5 else ""


def permissions(address):
    return next((entry[2] for entry in mappings() if entry[0] <= address < entry[1]), "")


def processes():
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def capabilities():
    """Effective, permitted and inheritable, as the kernel's structure for the first 32."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    checked(call("capget", header, data))
    return header, data


def snapshot():
    """What can be seen of a process and its surroundings that no test may find changed, by what a
    process that is used again for other tests may do."""
    import resource
    import signal
    import time

    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    return {
        "signals": status("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"),
        "locked memory": status("VmLck"),
        "privileges": status("Seccomp", "NoNewPrivs"),
        "speculation": status("Speculation_Store_Bypass", "SpeculationIndirectBranch"),
        "user": os.getresuid() + os.getresgid() + tuple(os.getgroups()),
        "umask": status("Umask"),
        "directory": os.getcwd(),
        "limits": limits,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "scheduler": (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority),
        "timers": [signal.getitimer(kind) for kind in (0, 1, 2)],
        "name": read("/proc/self/comm"),
        "personality": read("/proc/self/personality"),
        "memory killer": read("/proc/self/oom_score_adj"),
        "core dumps": read("/proc/self/coredump_filter"),
        "timer slack": read("/proc/self/timerslack_ns"),
        "host": os.uname().nodename,
        "rounding": LIBM.fegetround(),
        "time zone": time.tzname,
        "locale": LIBC.setlocale(6, None),
        "root": os.stat("/").st_mode,
        "threads": len(os.listdir("/proc/self/task")),
    }


def close_snapshot():
    """The same and what only calls tell that the kernel reports to whoever would use the process
    again, so that this one is not."""
    return {
        **snapshot(),
        "personality as called": LIBC.personality(ctypes.c_ulong(0xFFFFFFFF)),
        "ioprio": call("ioprio_get", 1, 0),
        "timer slack as called": prctl(30),
        "subreaper": option_value(37),
        "death signal": option_value(2),
        "secure bits": prctl(27),
        "huge pages": prctl(42),
        "write or execute": prctl(66),
        "machine checks": prctl(34),
        "speculation as called": prctl(52, 0),
    }


def option_value(option):
    value = ctypes.c_int(0)
    return value.value if prctl(option, ctypes.byref(value)) == 0 else None
