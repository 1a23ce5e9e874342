#!/usr/bin/env python3
"""Compares maelstrom-pytest with pytest, node id by node id, on published projects.

    sdists.py [--work DIR] [--maelstrom PATH] [--pytest-args ARGS] [--only-template] [--only-fresh]
              [--fresh-of-a-file N] [PROJECT...]

Each project is downloaded from PyPI as an sdist, unpacked, and installed into a virtual environment
of its own together with what its tests need. Then `pytest` runs there, and `maelstrom-pytest`
without configuration: with templates, with templates and what it knows from runs before, and with
`--no-template`. Exits with 1 if any test has another outcome than pytest gives it. The run under
pytest itself comes first; a test that it fails has to fail in containers, too.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tarfile
import time
import venv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# What the tests of each project need besides pytest and the project.
PROJECTS = {
    "click": [],
    "attrs": ["cloudpickle", "hypothesis", "pympler", "pytest-xdist[psutil]"],
    "packaging": ["hypothesis", "pretend", "tomli_w", "pip"],
    "more-itertools": [],
    "werkzeug": ["cffi", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "watchdog"],
    "jinja2": ["trio"],
}

# Tests that no run gets, and why.
LEFT_OUT = {
    "werkzeug": {
        "tests/test_serving.py::test_reloader_sys_path[watchdog]": "waits for ever under pytest itself",
    },
}

# How many tests of each file the run with fresh interpreters is limited to: packaging has 62,000
# tests, and each would take 0.4 s and more.
FRESH_OF_A_FILE = {"packaging": 25}

# pytest has no option that writes node ids with outcomes as they are, so this plugin does.
PLUGIN = """
import json
outcomes = {}
def pytest_runtest_logreport(report):
    known = outcomes.get(report.nodeid)
    if getattr(report, "context", None) is not None:
        return
    if report.failed:
        outcomes[report.nodeid] = "FAIL"
    elif known is None and report.skipped and not hasattr(report, "wasxfail"):
        outcomes[report.nodeid] = "IGNORED"
    elif known is None and report.when == "call":
        outcomes[report.nodeid] = "OK"
def pytest_sessionfinish(session):
    with open(OUTPUT, "w") as file:
        json.dump(outcomes, file)
"""


def lay_out(work: Path, name: str) -> tuple[Path, Path]:
    """The unpacked sdist and its environment."""
    environment = work / f"{name}-venv"
    python = environment / "bin/python"
    sources = work / "sdists" / name
    if not any(sources.glob("*/PKG-INFO")):
        if not python.exists():
            venv.create(environment, with_pip=True, symlinks=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        sources.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", name, "--dest", sources, name], check=True
        )
        [archive] = sources.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(sources, filter="data")
        [project] = [entry.parent for entry in sources.glob("*/PKG-INFO")]
        subprocess.run(
            [*pip, "install", "pytest", *PROJECTS[name], "--editable", project], check=True
        )
    [project] = [entry.parent for entry in sources.glob("*/PKG-INFO")]
    return project, environment


def surroundings(environment: Path) -> dict[str, str]:
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": str(environment)}


def plain(work: Path, project: Path, environment: Path, arguments: list[str]) -> dict[str, str]:
    import json

    output = work / f"{project.name}-outcomes.json"
    output.unlink(missing_ok=True)
    plugin = work / "plugin"
    plugin.mkdir(exist_ok=True)
    (plugin / "maelstrom_outcomes.py").write_text(f"OUTPUT = {str(output)!r}\n{PLUGIN}")
    env = {**surroundings(environment), "PYTHONPATH": str(plugin)}
    subprocess.run(
        [environment / "bin/python", "-m", "pytest", "-q", "-p", "maelstrom_outcomes", *arguments],
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return json.loads(output.read_text())


VERDICT = re.compile(r"^(.*?)\.+(OK|FAIL|TIMEOUT|ERR|IGNORED)(?: +[0-9.]+s)? *$")


def ours(maelstrom: str, project: Path, environment: Path, arguments: list[str]) -> dict[str, list[str]]:
    """Verdicts by node id. Where lines have no room for a node id, by `<` and its end, which may be
    that of several."""
    run = subprocess.run(
        [maelstrom, "--ui", "simple", *arguments],
        cwd=project,
        env=surroundings(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    outcomes: dict[str, list[str]] = {}
    for line in run.stdout.splitlines():
        found = VERDICT.match(line)
        if found and (line.startswith("<") or "::" in found[1]):
            outcomes.setdefault(found[1], []).append(found[2])
        elif line.startswith("the test looked in vain") or " WARN " in line:
            print("    " + line.strip())
    return outcomes


def differences(expected: dict[str, str], found: dict[str, list[str]]) -> list[str]:
    lines = []
    ends = {name[1:]: verdicts for name, verdicts in found.items() if name.startswith("<")}
    lengths = {len(end) for end in ends}
    taken = {id(verdicts): list(verdicts) for verdicts in found.values()}
    for node_id, outcome in expected.items():
        verdicts = found.get(node_id)
        if verdicts is None:
            known = [ends[node_id[-n:]] for n in lengths if len(node_id) > n and node_id[-n:] in ends]
            verdicts = known[0] if known else []
        left = taken.get(id(verdicts), [])
        if outcome in left:
            left.remove(outcome)
        else:
            lines.append(f"    {node_id}: pytest {outcome}, maelstrom-pytest {'/'.join(left) or 'nothing'}")
    for name, verdicts in found.items():
        if taken[id(verdicts)]:
            lines.append(f"    {name}: only in maelstrom-pytest, {'/'.join(taken[id(verdicts)])}")
    return lines


def sample(outcomes: dict[str, str], of_a_file: int) -> dict[str, str]:
    """Some tests of each file, evenly spread."""
    files: dict[str, list[str]] = {}
    for node_id in outcomes:
        files.setdefault(node_id.split("::")[0], []).append(node_id)
    chosen = (ids[:: -(-len(ids) // of_a_file)] for ids in files.values())
    return {node_id: outcomes[node_id] for ids in chosen for node_id in ids}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "target/compare-python")
    parser.add_argument("--maelstrom", default=str(ROOT / "target/release/maelstrom-pytest"))
    parser.add_argument("--pytest-args", type=shlex.split, default=[], help="for all runs, such as paths, -k and -m")
    parser.add_argument("--fresh-of-a-file", type=int, metavar="N", help="fresh interpreters for N tests of each file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only-template", action="store_true", help="leave out the run with fresh interpreters")
    which.add_argument("--only-fresh", action="store_true", help="leave out the run with templates")
    parser.add_argument("projects", nargs="*", choices=[[], *PROJECTS], metavar="PROJECT")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    work = options.work.resolve()
    failed = False
    for name in options.projects or PROJECTS:
        project, environment = lay_out(work, name)
        arguments = list(options.pytest_args)
        for node_id, why in LEFT_OUT.get(name, {}).items():
            print(f"{project.name}: {node_id} is left out: it {why}", flush=True)
            arguments += ["--deselect", node_id]
        started = time.monotonic()
        expected = plain(work, project, environment, arguments)
        print(f"{project.name}, pytest: {len(expected)} tests, {time.monotonic() - started:.1f} s", flush=True)
        ways = {"templates": [], "templates again": [], "fresh interpreters": ["--no-template"]}
        if options.only_template or options.only_fresh:
            ways = {what: how for what, how in ways.items() if bool(how) == options.only_fresh}
        for what, how in ways.items():
            if what == "templates again":
                # Where functions are left out of templates, this one collects once more.
                ours(options.maelstrom, project, environment, [*how, *arguments])
            of_a_file = options.fresh_of_a_file or FRESH_OF_A_FILE.get(name)
            if how and of_a_file:
                expected = sample(expected, of_a_file)
                print(f"{project.name}, fresh interpreters: at most {of_a_file} tests of a file", flush=True)
                arguments += expected
            started = time.monotonic()
            found = ours(options.maelstrom, project, environment, [*how, *arguments])
            lines = differences(expected, found)
            failed |= bool(lines)
            seconds = time.monotonic() - started
            print(f"{project.name}, {what}: {len(expected)} tests, {len(lines)} differences, {seconds:.1f} s", flush=True)
            print("".join(line + "\n" for line in lines[:40]), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
