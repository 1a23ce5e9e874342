import json
import os
import sys


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
    open sockets and event loops, and open files if asked. `known` descriptors do not count."""
    found = []
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        found.append("started a thread")
    for thread in threads:
        try:
            with open("/proc/self/task/%s/children" % thread) as children:
                if children.read().strip():
                    found.append("started a process")
        except OSError:
            pass
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


def start(pytest, arguments, plugin):
    """What `python -m pytest` does."""
    sys.path[0] = os.getcwd()
    sys.argv[:] = [os.path.join(os.path.dirname(pytest.__file__), "__main__.py")] + arguments
    return int(pytest.main(list(arguments), plugins=[plugin]))


