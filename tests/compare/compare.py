#!/usr/bin/env python3
"""Compares `cargo test` with `cargo maelstrom` on one project, test by test.

    compare.py PROJECT [--maelstrom PATH] [--lab HOSTS]

Both run the project as it is, without configuration; Maelstrom's cache and state are removed first.
Documentation tests are left out, benchmarks too. A test binary that dies half-way leaves `cargo test`
without verdicts for the rest of its tests, so each of those is run again by itself.

With `--lab 5`, `cargo maelstrom --mesh` runs on the first of five hosts of the lab (docs/LAB.md), with a
node on each of the others, and each of those must run some of the tests.

Where the directory above the project holds an `expected.toml` with a table of the project's name, both
are also held against that. Exit code 0: no difference. 1: differences, listed. 2: something could not run.
Full logs are left in PROJECT/target/compare/.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNING = re.compile(r" {5}Running (?:unittests )?\S.* \((.+)\)$")
RESULT = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)\b")
LISTED = re.compile(r"^(.+): test$")
DIED = re.compile(r"process didn't exit successfully: .*\((?:exit status: (\d+)|signal: (\d+).*)\)$")
SUMMARY = re.compile(r"^=+ Test Summary =+$")
STATUS_LINE = re.compile(r"^<?(.+?)\.+(?:OK|FAIL|TIMEOUT|ERR|IGNORED)(?: +\d+\.\d{3}s)?\s*$")
RUN_LIMIT_SECONDS = 1800


class Problem(Exception):
    """Something that keeps the comparison from being made."""


@dataclass(frozen=True)
class Binary:
    """A test binary, named as test runners name it."""

    package: str
    target: str
    kind: str

    def display(self, case: str) -> str:
        """The name in Maelstrom's listing: the target is left out where it repeats the package."""
        short = self.target.replace("_", "-") == self.package
        return f"{self.package} {case}" if short else f"{self.package} {self.target} {case}"

    def selector(self) -> list[str]:
        flags = {"library": ["--lib"], "binary": ["--bin"], "test": ["--test"], "example": ["--example"], "benchmark": ["--bench"]}
        flag = flags[self.kind]
        return flag if self.kind == "library" else [*flag, self.target]


@dataclass
class Section:
    """What `cargo test` printed between starting one test binary and the next."""

    lines: list[str] = field(default_factory=list)

    def verdicts(self) -> dict[str, str]:
        found = {}
        for line in self.lines:
            if line in ("failures:", "successes:"):
                break  # captured output follows, which may look like anything
            if match := RESULT.match(line):
                verdict = {"ok": "ok", "FAILED": "exit 101", "ignored": "ignored"}[match[2]]
                found[match[1]] = verdict
        return found

    def finished(self) -> bool:
        return any(line.startswith("test result: ") for line in self.lines)

    def whole(self) -> str:
        """The verdict of the program as one thing."""
        for line in self.lines:
            if match := DIED.search(line):
                return f"exit {match[1]}" if match[1] else f"signal {match[2]}"
        failed = any("error: test failed, to rerun pass" in line for line in self.lines)
        return "exit 101" if failed else "ok"


class Cargo:
    """`cargo test` on a project."""

    def __init__(self, project: Path, logs: Path):
        self.project = project
        self.logs = logs
        self.packages: set[str] = set()
        # A CARGO_TARGET_DIR meant for this repository is not meant for the project.
        dropped = ("CARGO_TARGET_DIR", "RUST_TEST_THREADS")
        self.env = {name: value for name, value in os.environ.items() if name not in dropped}
        self.env["CARGO_TERM_COLOR"] = "never"

    def build(self) -> dict[Path, Binary]:
        command = ["cargo", "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
        done = subprocess.run(command, cwd=self.project, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Problem(f"{' '.join(command)} failed:\n{done.stderr}")
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        metadata = json.loads(subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=self.project, env=self.env, check=True, stdout=subprocess.PIPE).stdout)
        packages = {package["id"]: package["name"] for package in metadata["packages"]}
        self.packages = set(packages.values())
        kinds = {"bin": "binary", "test": "test", "bench": "benchmark", "example": "example"}
        return {
            Path(m["executable"]): Binary(packages[m["package_id"]], m["target"]["name"], kinds.get(m["target"]["kind"][0], "library"))
            for m in messages
            if m["reason"] == "compiler-artifact" and m["profile"]["test"] and m["executable"]
        }

    def run(self, log: str, selector: list[str], arguments: list[str]) -> dict[Path, Section]:
        command = ["cargo", "test", "--workspace", "--no-fail-fast", *selector, "--", *arguments]
        done = subprocess.run(command, cwd=self.project, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_LIMIT_SECONDS)
        with open(self.logs / log, "ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode() + done.stdout)
        sections, current = {}, Section()
        for line in done.stdout.decode(errors="replace").split("\n"):
            if match := RUNNING.search(line):
                current = sections[self.project / match[1]] = Section()
            current.lines.append(line)
        return sections

    def verdicts(self) -> tuple[Counter, dict[tuple[str, str, str], str]]:
        """Display name and verdict of every test, counted; and the same by package, artifact and case."""
        binaries = self.build()
        listing = self.run("cargo-test.log", ["--tests"], ["--list", "--format", "terse"])
        sections = self.run("cargo-test.log", ["--tests"], [])
        shown, exact = Counter(), {}
        for executable, section in sections.items():
            binary = binaries.get(executable)
            if binary is None:
                raise Problem(f"cargo test ran {executable}, which cargo test --no-run did not name")
            listed = [match[1] for line in listing[executable].lines if (match := LISTED.match(line))]
            if not listed and not section.finished():
                listed, verdicts = [""], {"": section.whole()}  # no harness: the program is the test
            else:
                verdicts = section.verdicts()
            for case in listed:
                verdict = verdicts.get(case)
                if verdict is None or not section.finished() and case != "":
                    verdict = self.alone(executable, binary, case)
                shown[(binary.display(case).strip(), verdict)] += 1
                exact[(binary.package, f"{binary.target}({binary.kind})", case)] = verdict
        return shown, exact

    def alone(self, executable: Path, binary: Binary, case: str) -> str:
        section = self.run("cargo-test-alone.log", binary.selector(), ["--exact", case])[executable]
        return section.verdicts().get(case) or section.whole()


class Maelstrom:
    """`cargo maelstrom` on a project."""

    def __init__(self, program: str, cargo: Cargo):
        self.program = program
        self.cargo = cargo

    def run(self, arguments: list[str], log: str) -> tuple[int, list[str]]:
        done = subprocess.run([self.program, "--ui", "simple", *arguments], cwd=self.cargo.project, env=self.cargo.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_LIMIT_SECONDS)
        (self.cargo.logs / log).write_bytes(done.stdout)
        return done.returncode, done.stdout.decode(errors="replace").split("\n")

    def verdicts(self) -> tuple[int, Counter]:
        """The exit code; display name and verdict of every test, counted."""
        shutil.rmtree(self.cargo.project / "target/maelstrom", ignore_errors=True)
        code, lines = self.run(["--list-tests"], "cargo-maelstrom-list.log")
        if code != 0:
            raise Problem("cargo maelstrom --list-tests failed:\n" + "\n".join(lines[-30:]))
        # The compiler's warnings follow the listing, on the same stream.
        end = next((number for number, line in enumerate(lines) if line.startswith("warning")), len(lines))
        listed = Counter(line for line in lines[:end] if line.split(" ")[0] in self.cargo.packages)
        code, lines = self.run([], "cargo-maelstrom.log")
        starts = [number for number, line in enumerate(lines) if SUMMARY.match(line)]
        if not starts:
            raise Problem("cargo maelstrom printed no summary:\n" + "\n".join(lines[-30:]))
        failed, ignored, passed = Counter(), Counter(), None
        for line in lines[starts[-1] + 1 :]:
            if match := re.match(r"^Successful Tests: +(\d+)$", line):
                passed = int(match[1])
            elif match := re.match(r"^    (.+): (failure|ignored)$", line):
                (failed if match[2] == "failure" else ignored)[match[1].rstrip()] += 1
        signals = self.signals(lines[: starts[-1]], failed)
        shown = Counter()
        for name, count in listed.items():
            for verdict, found in ((signals.get(name, "exit"), failed[name]), ("ignored", ignored[name])):
                if found:
                    shown[(name, verdict)] += found
            left = count - failed[name] - ignored[name]
            if left > 0:
                shown[(name, "ok")] += left
        for name in (failed + ignored).keys() - listed.keys():
            shown[(name, "failed or ignored, but not listed")] += 1
        ok = sum(count for (_, verdict), count in shown.items() if verdict == "ok")
        if passed != ok:
            raise Problem(f"cargo maelstrom counts {passed} successful tests, but {ok} of the listed ones neither failed nor were ignored")
        return code, shown

    @staticmethod
    def signals(lines: list[str], failed: Counter) -> dict[str, str]:
        """How those tests ended that did not simply exit. Long names are cut at their beginning."""
        found = {}
        for line, following in zip(lines, lines[1:]):
            match = STATUS_LINE.match(line)
            how = re.match(r"^(?:killed by (signal \d+)|((?:execution|system|remote) error: .*))$", following)
            if match and how:
                for name in failed:
                    if name.endswith(match[1]):
                        found[name] = how[1] or how[2]
        return found


# Starts nodes on all hosts but the first, waits until they know each other, and becomes the client.
LAB_SCRIPT = """
for ((host = 2; host <= LAB_HOSTS; host++)); do
    lab exec $host "$NODE" --slots 2 --mesh-key "$LAB_DIRECTORY/mesh.key" > "$LAB_DIRECTORY/node$host.log" 2>&1 &
done
for ((try = 0; try < 300; try++)); do
    lab exec 2 "$NODE" status --json 2>/dev/null | grep -c '"lending"' | grep -qx $((LAB_HOSTS - 2)) && break
    sleep 0.2
done
exec "$MAELSTROM" --ui simple --slots 1 --mesh --mesh-key "$LAB_DIRECTORY/mesh.key"
"""
LAB_VARIABLES = ("CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN")


class MeshedMaelstrom(Maelstrom):
    """`cargo maelstrom --mesh` on the first host of a lab."""

    def __init__(self, program: str, cargo: Cargo, hosts: int):
        super().__init__(program, cargo)
        self.hosts = hosts
        self.idle: list[str] = []

    def run(self, arguments: list[str], log: str) -> tuple[int, list[str]]:
        if arguments:
            return super().run(arguments, log)
        beside = Path(self.program).parent
        home = Path.home()
        # A host has a home of its own, and no way to the registry.
        passed = {"CARGO_HOME": str(home / ".cargo"), "RUSTUP_HOME": str(home / ".rustup"), "CARGO_NET_OFFLINE": "true"}
        passed |= {name: os.environ[name] for name in LAB_VARIABLES if name in os.environ}
        passed |= {"NODE": str(beside / "maelstrom-node"), "MAELSTROM": self.program, "CARGO_TERM_COLOR": "never"}
        for name in ("lab", "maelstrom-node"):
            if not (beside / name).exists():
                raise Problem(f"no {name} beside {self.program}: cargo build --release -p simnet -p maelstrom-daemon")
        command = [str(beside / "lab"), "--nodes", str(self.hosts), "--", "env", *(f"{n}={v}" for n, v in passed.items()), "bash", "-c", LAB_SCRIPT]
        done = subprocess.run(command, cwd=self.cargo.project, env=self.cargo.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_LIMIT_SECONDS)
        (self.cargo.logs / log).write_bytes(done.stdout)
        text = done.stdout.decode(errors="replace")
        self.idle = [f"host{host}" for host in range(2, self.hosts + 1) if not re.search(rf"\bhost{host}\b", text)]
        return done.returncode, text.split("\n")


def with_names_of_programs(theirs: Counter, ours: Counter) -> Counter:
    """A program without a harness has no case to name it by; whatever follows its target in our name is dropped."""
    result = Counter()
    for (name, verdict), count in ours.items():
        head = " ".join(name.split(" ")[:2])
        alone = any(n == head for n, _ in theirs) and not any(n == name for n, _ in theirs)
        result[(head if alone else name, verdict)] += count
    return result


def simplified(counted: Counter) -> Counter:
    """Verdicts as far as both runners tell them: which signal, but not which exit code."""
    result = Counter()
    for (name, verdict), count in counted.items():
        result[(name, "exit" if verdict.startswith("exit") else verdict)] += count
    return result


def expected(project: Path) -> dict[tuple[str, str, str], str] | None:
    path = project.parent / "expected.toml"
    if not path.exists():
        return None
    table = tomllib.loads(path.read_text()).get(project.name)
    if table is None:
        return None
    return {
        (package, artifact, case): verdict
        for package, artifacts in table.items()
        for artifact, cases in artifacts.items()
        for case, verdict in cases.items()
    }


def describe(verdicts: list[str]) -> str:
    words = {"exit": "failed", "": "absent"}
    return ", ".join(words.get(verdict, verdict) for verdict in verdicts) or "absent"


def differences(left: Counter, right: Counter, names: tuple[str, str]) -> list[str]:
    result = []
    for name in sorted({name for name, _ in (left - right) + (right - left)}):
        each = [describe(sorted(v for n, v in side.elements() if n == name)) for side in (left, right)]
        result.append(f"  {name}: {names[0]}: {each[0]}; {names[1]}: {each[1]}")
    return result


def find_maelstrom(given: str | None) -> str:
    built = [ROOT / "target" / profile / "cargo-maelstrom" for profile in ("release", "debug")]
    for candidate in [given] if given else [str(path) for path in built if path.exists()]:
        if found := shutil.which(candidate):
            return str(Path(found).resolve())
    raise Problem("no cargo-maelstrom here: build it with `cargo build --release -p cargo-maelstrom`, or name it with --maelstrom")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--maelstrom", metavar="PATH", help="the cargo-maelstrom to use (default: target/release's, then target/debug's)")
    parser.add_argument("--lab", type=int, metavar="HOSTS", help="run cargo maelstrom --mesh on so many hosts of the lab")
    parser.add_argument("--cargo-only", action="store_true", help="only hold cargo test against expected.toml")
    parser.add_argument("--print-table", action="store_true", help="print cargo test's verdicts in the form of expected.toml")
    args = parser.parse_args()
    project = args.project.resolve()
    logs = project / "target/compare"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)

    try:
        maelstrom = None if args.cargo_only or args.print_table else find_maelstrom(args.maelstrom)
        cargo = Cargo(project, logs)
        shown, exact = cargo.verdicts()
        if args.print_table:
            for package, artifact in sorted({key[:2] for key in exact}):
                print(f'\n[{json.dumps(project.name)}.{json.dumps(package)}.{json.dumps(artifact)}]')
                for key in sorted(key for key in exact if key[:2] == (package, artifact)):
                    print(f"{json.dumps(key[2], ensure_ascii=False)} = {json.dumps(exact[key])}")
            return 0
        found = []
        table = expected(project)
        if table is not None:
            as_counter = lambda verdicts: Counter((" ".join(key), verdict) for key, verdict in verdicts.items())
            found += differences(as_counter(table), as_counter(exact), ("expected.toml", "cargo test"))
        if maelstrom:
            runner = MeshedMaelstrom(maelstrom, cargo, args.lab) if args.lab else Maelstrom(maelstrom, cargo)
            code, ours = runner.verdicts()
            if args.lab and runner.idle:
                found.append(f"  no test ran on {', '.join(runner.idle)}")
            ours = with_names_of_programs(shown, ours)
            found += differences(simplified(shown), simplified(ours), ("cargo test", "cargo maelstrom"))
            failing = any(verdict not in ("ok", "ignored") for _, verdict in shown)
            if failing != (code != 0):
                found.append(f"  cargo maelstrom exited with {code} although {'some tests fail' if failing else 'no test fails'}")
    except (Problem, subprocess.TimeoutExpired) as problem:
        print(f"{project.name}: {problem}\n  logs: {logs}")
        return 2
    verdicts = Counter(verdict for _, verdict in shown.elements())
    failing = sum(count for verdict, count in verdicts.items() if verdict not in ("ok", "ignored"))
    print(f"{project.name}: {shown.total()} tests ({verdicts['ok']} pass, {failing} fail, {verdicts['ignored']} ignored), {len(found)} differences")
    print(*found, *([f"  logs: {logs}"] if found else []), sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
