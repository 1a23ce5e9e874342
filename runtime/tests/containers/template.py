"""A template program: prepares once, then forks for every request. The protocol is in docs/TEMPLATES.md.

As a program it runs each request's payload as Python source. To be used by others: `Template` and its `serve`.
"""

import ctypes
import gc
import os
import socket
import sys
import threading

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWPID = 0x20000000
PR_CAPBSET_DROP = 24
PR_SET_DUMPABLE = 4
_CAPABILITY_VERSION_3 = 0x20080522
_DESCRIPTORS_MAX = 8
_PACKET_MAX = (64 << 10) + 64


def _checked(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _setns(descriptor, kind=0):
    _checked(_libc.setns(descriptor, kind))  # os.setns came with Python 3.12


class Template:
    def __init__(self):
        take = lambda name: os.environ.pop("MAELSTROM_TEMPLATE_" + name)
        self._socket = socket.socket(fileno=int(take("FD")))
        self._socket.set_inheritable(False)
        self._capabilities = int(take("CAPABILITIES"), 16)
        self._leads_session = take("SESSION") == "1"
        take("FILTER")
        self._directory = os.getcwd()

    def serve(self, run):
        """Calls `run(payload)` in a fork for each request; the code that it returns is the fork's exit code."""
        if reason := cannot_fork():
            self._say(f"refuse {reason}")
            return
        gc.collect()
        gc.freeze()  # so that collections in forks do not copy what they share
        self._say("ready")
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, _PACKET_MAX, _DESCRIPTORS_MAX)
            if not packet:
                return
            line, _, payload = packet.partition(b"\n")
            number = line.split()[1].decode()
            try:
                _setns(descriptors[3], CLONE_NEWPID)
                child = os.fork()
            except OSError as error:
                self._say(f"failed {number} {error}")
                continue
            finally:
                if "child" not in locals() or child != 0:
                    for descriptor in descriptors:
                        os.close(descriptor)
            if child == 0:
                self._become_fork(descriptors, run, payload)
            self._say(f"ended {number} {os.waitpid(child, 0)[1]}")
            del child

    def _become_fork(self, descriptors, run, payload):
        code = 70
        try:
            streams, (_, user, ipc, mount, *network) = descriptors[:3], descriptors[3:]
            for namespace in [*network, user, ipc, mount]:
                _setns(namespace)
            os.chdir(self._directory)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            self._socket.detach()
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            if self._leads_session:
                os.setsid()
            else:
                os.setpgid(0, 0)
            self._drop_capabilities()
            _checked(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
            code = run(payload)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _drop_capabilities(self):
        for number in range(64):
            if not self._capabilities >> number & 1 and _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
                break  # past the last that this kernel knows
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        low, high = self._capabilities & 0xFFFFFFFF, self._capabilities >> 32 & self._known_high()
        sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
        _checked(_libc.capset(header, sets))

    def _known_high(self):
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)()
        _checked(_libc.capget(header, sets))
        return sets[4]

    def _say(self, text):
        self._socket.send(text.encode(errors="replace")[:4000])


def cannot_fork():
    """Why forks could not do what fresh processes can, if there is a reason."""
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others:
        return f"threads are running: {', '.join(others)}"
    if len(os.listdir("/proc/self/task")) > 1:
        return "threads are running that Python does not know of"
    return None


def _run_source(payload):
    exec(compile(payload, "payload", "exec"), {"__name__": "__main__"})
    return 0


if __name__ == "__main__":
    for name in sys.argv[1:]:
        __import__(name)
    Template().serve(_run_source)
