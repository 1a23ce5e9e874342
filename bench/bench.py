#!/usr/bin/env python3
"""Compares this project's runners with their peers, in turns, and prints Markdown tables of medians.

    bench.py                          everything, five rounds
    bench.py --rounds 3 trivial run   some sections

Sections: trivial (a crate of 1,000 tests), itertools (as published), run (1,000 jobs of a static program),
latency (from Cargo's end to the first test of an unchanged project), memory (10,000 tests).

Our programs come from target/release (build them first, or run `just bench`), peers from the directory in
MAELSTROM_BENCH_PEERS and then from PATH. What is missing is named and left out. See docs/BENCHMARKS.md.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import projects
from measure import Measurement, measure

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = {
    "trivial": ("ours", "nextest", "maelstrom-0.14"),
    "itertools": ("ours", "nextest"),
    "run": ("ours-run", "maelstrom-run-0.14"),
    "latency": ("ours", "nextest"),
    "memory": ("ours", "nextest"),
}
SECTIONS = list(CONTENDERS)
REFERENCE_VERSION = "0.14"
INSTALL = {
    "nextest": "cargo install --locked --root PEERS cargo-nextest",
    "maelstrom-0.14": "cargo install --locked --root PEERS cargo-maelstrom@0.14.0",
    "maelstrom-run-0.14": "cargo install --locked --root PEERS maelstrom-run@0.14.0",
    "ours": "cargo build --release -p cargo-maelstrom",
    "ours-run": "cargo build --release -p maelstrom-run",
}

CARGO_SHIM = """\
#!/bin/sh
"{cargo}" "$@"
code=$?
echo "$(date +%s%N) $*" >> "{log}"
exit $code
"""


@dataclass(frozen=True)
class Tool:
    """One contender."""

    name: str
    program: Path
    arguments: tuple[str, ...]
    version: str

    def command(self) -> list[str]:
        return [str(self.program), *self.arguments]


class Bench:
    """The contenders that are here, a directory to work in, and what was said so far."""

    def __init__(self, work: Path, rounds: int, ours: Path, peers: list[Path]):
        self.work = work
        self.rounds = rounds
        self.missing: dict[str, str] = {}
        self.complaints: list[str] = []
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("MAELSTROM_", "CARGO_MAELSTROM_", "NEXTEST"))}
        self.env.pop("CARGO_TARGET_DIR", None)
        self.env["CARGO_TERM_COLOR"] = "never"
        work.mkdir(parents=True, exist_ok=True)
        depot = ("--config-file", "-", "--container-image-depot-root", str(work / "images"))
        reference_run = (*depot, "--log-level", "error", "--cache-root", str(work / "run-cache-0.14"))
        our_run = (*depot, "--log-level", "error", "--cache-root", str(work / "run-cache-ours"))
        self.tools = {
            "ours": self._find("ours", "cargo-maelstrom", ours, (), (*depot, "--ui", "simple")),
            "nextest": self._find("nextest", "cargo-nextest", None, tuple(peers), ("nextest", "run", "--no-fail-fast")),
            "maelstrom-0.14": self._find("maelstrom-0.14", "cargo-maelstrom", None, tuple(peers), (*depot, "--ui", "simple")),
            "ours-run": self._find("ours-run", "maelstrom-run", ours, (), our_run),
            "maelstrom-run-0.14": self._find("maelstrom-run-0.14", "maelstrom-run", None, tuple(peers), reference_run),
        }

    def _find(self, name: str, program: str, only: Path | None, peers: tuple[Path, ...], arguments: tuple[str, ...]) -> Tool | None:
        for directory in [only] if only else peers:
            path = directory / program
            if not os.access(path, os.X_OK):
                continue
            asked = [str(path), "--version"]
            words = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.split()
            version = words[1] if len(words) > 1 else "unknown"
            # This project's programs may be on PATH under the same names.
            if name.endswith("0.14") and not version.startswith(REFERENCE_VERSION):
                continue
            return Tool(name, path, arguments, version)
        self.missing[name] = INSTALL[name]
        return None

    def present(self, *names: str) -> list[Tool]:
        return [tool for name in names if (tool := self.tools[name])]

    def once(self, tool: Tool, cwd: Path, label: str, stdin: Path | None = None, env: dict[str, str] | None = None, codes: tuple[int, ...] = (0,)) -> tuple[Measurement, Path]:
        log = self.work / f"{label}-{tool.name}.log"
        result = measure(tool.command(), cwd, env or self.env, log, stdin)
        if result.exit_code not in codes:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{label}: {' '.join(tool.command())} in {cwd} exited with {result.exit_code}:\n{tail}")
        if result.left_running:
            self.complaints.append(f"{label}: {tool.name} left {result.left_running} processes running")
        return result, log

    def in_turns(self, label: str, places: list[tuple[Tool, Path]], stdin: Path | None = None) -> dict[str, list[Measurement]]:
        """One unmeasured run each, then rounds in turns, each round beginning with another tool."""
        for tool, cwd in places:
            progress(f"{label}: warming up {tool.name}")
            self.once(tool, cwd, label, stdin)
        results: dict[str, list[Measurement]] = {tool.name: [] for tool, _ in places}
        for number in range(self.rounds):
            shift = number % len(places)
            for tool, cwd in places[shift:] + places[:shift]:
                result, _ = self.once(tool, cwd, label, stdin)
                results[tool.name].append(result)
                progress(f"{label}: round {number + 1}, {tool.name}: {result.wall_seconds:.2f} s")
        return results

    def copies(self, prefix: str, tools: list[Tool], tests: int, with_first: bool = False) -> list[tuple[Tool, Path]]:
        """A copy of the generated crate for each tool: their directories must not clash."""
        places = []
        for tool in tools:
            directory = projects.trivial_crate(self.work / f"{prefix}-{tool.name.replace('.', '')}", tests, with_first)
            self.build(directory)
            places.append((tool, directory))
        return places

    def build(self, directory: Path) -> None:
        progress(f"building {directory.name}")
        built = subprocess.run(["cargo", "test", "--no-run"], cwd=directory, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if built.returncode != 0:
            raise SystemExit(f"cargo test --no-run in {directory} failed:\n{built.stderr}")

    # Sections

    def trivial(self, tools: list[Tool]) -> str:
        places = self.copies("trivial", tools, 1000)
        results = self.in_turns("trivial", places)
        return table("A crate with 1,000 trivial tests", results, {"nextest": 0.75, "maelstrom-0.14": 0.25})

    def itertools(self, tools: list[Tool]) -> str:
        places = []
        for tool in tools:
            directory = projects.published_crate(self.work, "itertools", tool.name)
            self.build(directory)
            places.append((tool, directory))
        title = f"`{places[0][1].name.rsplit('-', 1)[0]}`"
        return table(title, self.in_turns("itertools", places), {"nextest": 1.0})

    def run(self, tools: list[Tool]) -> str:
        projects.static_program(self.work)
        jobs = projects.static_jobs(self.work, 1000)
        places = [(tool, self.work) for tool in tools]
        results = self.in_turns("run", places, stdin=jobs)
        return table("1,000 jobs of a static program", results, {"maelstrom-run-0.14": 0.6}, ours="ours-run")

    def latency(self, tools: list[Tool]) -> str:
        """Cargo is started through a shim that notes when it ends; the first test prints when it began."""
        shim_log = self.work / "cargo-ends.log"
        shim = self.work / "shim/cargo"
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(CARGO_SHIM.format(cargo=shutil.which("cargo"), log=shim_log))
        shim.chmod(0o755)
        env = dict(self.env, PATH=f"{shim.parent}:{self.env['PATH']}", CARGO=str(shim))
        places = self.copies("latency", tools, 1000, with_first=True)
        rows: dict[str, list[float]] = {tool.name: [] for tool, _ in places}
        for number in range(self.rounds + 1):
            for tool, cwd in places:
                shim_log.unlink(missing_ok=True)
                _, log = self.once(tool, cwd, "latency", env=env, codes=(1, 100, 101))
                began = re.search(r"first test began at (\d+) ns", log.read_text(errors="replace"))
                ends = [int(line.split()[0]) for line in shim_log.read_text().splitlines() if "test" in line.split()]
                if not began or not ends:
                    raise SystemExit(f"latency: {tool.name} did not show its first test or did not start cargo; see {log}")
                milliseconds = (int(began[1]) - ends[-1]) / 1e6
                progress(f"latency: round {number}, {tool.name}: {milliseconds:.1f} ms")
                if number > 0:
                    rows[tool.name].append(milliseconds)
        lines = ["### From Cargo's end to the first test, nothing changed since the last run", ""]
        lines += ["| tool | median | lowest to highest | goal |", "|---|--:|--:|---|"]
        for name, values in rows.items():
            goal = f"≤ 100 ms: {met(statistics.median(values) <= 100)}" if name == "ours" else ""
            lines.append(f"| {name} | {statistics.median(values):.0f} ms | {min(values):.0f} to {max(values):.0f} ms | {goal} |")
        return "\n".join(lines)

    def memory(self, tools: list[Tool]) -> str:
        places = self.copies("memory", tools, 10_000)
        lines = ["### Peak memory of the runner's own process, 10,000 tests, one run", ""]
        lines += ["| tool | peak memory | wall | goal |", "|---|--:|--:|---|"]
        for tool, cwd in places:
            result, _ = self.once(tool, cwd, "memory")
            mebibytes = result.peak_bytes / 2**20
            goal = f"≤ 64 MiB: {met(mebibytes <= 64)}" if tool.name == "ours" else ""
            lines.append(f"| {tool.name} | {mebibytes:.1f} MiB | {result.wall_seconds:.2f} s | {goal} |")
            progress(f"memory: {tool.name}: {mebibytes:.1f} MiB")
        return "\n".join(lines)


def met(yes: bool) -> str:
    return "met" if yes else "**not met**"


def table(title: str, results: dict[str, list[Measurement]], goals: dict[str, float], ours: str = "ours") -> str:
    """Medians; the ratio is our wall time over the tool's."""
    middle = statistics.median
    lines = [f"### {title}", ""]
    lines += ["| tool | wall | lowest to highest | CPU | peak memory | ours ÷ it | goal |", "|---|--:|--:|--:|--:|--:|---|"]
    for name, runs in results.items():
        walls = [run.wall_seconds for run in runs]
        ratio, goal = "", ""
        if ours in results and name != ours:
            value = middle([run.wall_seconds for run in results[ours]]) / middle(walls)
            ratio = f"{value:.2f}"
            goal = f"≤ {goals[name]}: {met(value <= goals[name])}" if name in goals else ""
        lines.append(
            f"| {name} | {middle(walls):.2f} s | {min(walls):.2f} to {max(walls):.2f} s "
            f"| {middle([run.cpu_seconds for run in runs]):.2f} s "
            f"| {middle([run.peak_bytes for run in runs]) / 2**20:.1f} MiB | {ratio} | {goal} |"
        )
    return "\n".join(lines)


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.split(":", 1)[1].strip()
            break
    rustc = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout.split()[1]
    load = os.getloadavg()[0]
    busy = " — **the machine was not idle; run again when it is**" if load > 0.5 else ""
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}, rustc {rustc}, as {user}; load at the start {load:.1f}{busy}"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=ROOT / "target/bench", help="default: target/bench")
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release", help="where our programs are (default: target/release)")
    args = parser.parse_intermixed_args()
    if unknown := set(args.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")

    given = os.environ.get("MAELSTROM_BENCH_PEERS")
    peers = [Path(given)] if given else []
    peers += [Path(directory) for directory in os.environ.get("PATH", "").split(":") if directory]
    head = machine()
    bench = Bench(args.work.resolve(), args.rounds, args.ours.resolve(), peers)
    tables = []
    for section in args.sections or SECTIONS:
        if bench.present(*CONTENDERS[section]):
            tables.append(getattr(bench, section)(bench.present(*CONTENDERS[section])))
        else:
            tables.append(f"Section {section}: none of {', '.join(CONTENDERS[section])} is here.")
    print(f"{head}.", f"Medians of {args.rounds}.", ", ".join(f"{t.name} {t.version}" for t in bench.tools.values() if t) + ".\n")
    print("\n\n".join(tables))
    for name, how in bench.missing.items():
        then = ", then MAELSTROM_BENCH_PEERS=PEERS/bin" if "PEERS" in how else ""
        print(f"\nMissing: {name}. `{how}`{then}")
    for complaint in bench.complaints:
        print(f"\nNote: {complaint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
