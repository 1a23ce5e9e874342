import gc


def identity(descriptor):
    """What a descriptor refers to."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def descriptors():
    """All open descriptors and what the system calls them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:
            pass
    return found


def traces(known, files=False):
    """What a forked process would not have, or would share with others: threads, child processes,
    timers, shared memory, open sockets and event loops, and open files if asked; each as often as
    there are such. `known` descriptors do not count."""
    found = []
    threads = os.listdir("/proc/self/task")
    found.extend(["started a thread"] * (len(threads) - 1))
    for thread in threads:
        try:
            with open("/proc/self/task/%s/children" % thread) as children:
                found.extend(["started a process"] * len(children.read().split()))
        except OSError:
            pass
    if any(signal.getitimer(kind) != (0, 0) for kind in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)):
        found.append("set a timer")
    with open("/proc/self/maps") as mappings:
        found.extend(["made memory that processes share"] * sum(line.split(None, 2)[1] == "rw-s" for line in mappings))
    for number, what in descriptors().items():
        if number in known:
            continue
        if what.startswith("socket:"):
            found.append("opened a socket")
        elif what.startswith("anon_inode:"):
            found.append("opened an event loop or the like (%s)" % what[11:])
        elif files and what.startswith("/") and not what.startswith(("/dev/", "/proc/")):
            found.append("keeps %s open" % what)
    return found


# Collecting creates objects that stay. Python, which looks through all it has for garbage ever so
# often as it has created some, would spend a quarter of the time on that.
GC_WHILE_COLLECTING = (1000000, 50, 1000)


