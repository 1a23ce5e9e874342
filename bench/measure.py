"""Runs one command and measures it: wall time, CPU of everything it started, its own peak memory."""

import ctypes
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_SECONDS = 0.01
LEFTOVER_SECONDS = 5.0


@dataclass(frozen=True)
class Measurement:
    """What one run cost."""

    wall_seconds: float
    cpu_seconds: float  # user and system, of the command and of every descendant that was waited for
    peak_bytes: int  # the highest resident set of the command's own process
    exit_code: int
    left_running: int  # descendants that were still alive LEFTOVER_SECONDS after the command ended


def measure(command: list[str], cwd: Path, env: dict[str, str], log: Path, stdin: Path | None = None, limit_seconds: float = 900) -> Measurement:
    """Runs the command below a process of its own that adopts orphans, so that no descendant's CPU is lost."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            result = _supervise(command, cwd, env, log, stdin, limit_seconds)
            os.write(writer, json.dumps(result).encode())
            code = 0
        except BaseException as error:  # the parent must hear of everything, and nothing may return from here
            os.write(writer, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = json.loads(pipe.read())
    os.waitpid(pid, 0)
    if "error" in result:
        raise RuntimeError(f"{' '.join(command)}: {result['error']}")
    return Measurement(**result)


def _supervise(command, cwd, env, log, stdin, limit_seconds) -> dict:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with open(log, "wb") as output, open(stdin or os.devnull, "rb") as source:
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdin=source, stdout=output, stderr=subprocess.STDOUT)
        ended = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        peak, wall = 0, 0.0
        while not poll.poll(SAMPLE_SECONDS * 1000):
            peak = max(peak, _high_water(process.pid))
            if time.monotonic() - start > limit_seconds:
                process.kill()
        wall = time.monotonic() - start
        code = process.wait()
    left = _reap(LEFTOVER_SECONDS)
    times = os.times()
    return {
        "wall_seconds": wall,
        "cpu_seconds": times.children_user + times.children_system,
        "peak_bytes": peak,
        "exit_code": code,
        "left_running": left,
    }


def _high_water(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _reap(limit_seconds: float) -> int:
    """Waits for adopted orphans; returns how many had to be killed."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0:
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    return len(children)
