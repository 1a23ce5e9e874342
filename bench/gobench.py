#!/usr/bin/env python3
"""Compares maelstrom-go-test with `go test` and Maelstrom 0.14's, in turns, and prints a Markdown table of medians.

    gobench.py                       everything, five rounds
    gobench.py --rounds 3 trivial    some sections

Sections: trivial (one package of 1,000 tests), many (forty packages of ten tests, cold results and warm
builds), text (golang.org/x/text without the packages whose tests start `go`), cached (the same, when every
result is known to all).

Ours comes from target/release, Maelstrom 0.14 from the directory in MAELSTROM_BENCH_PEERS and then from PATH.
See docs/BENCHMARKS.md.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from measure import measure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/compare"))
SECTIONS = ["trivial", "many", "text", "cached"]
# Their tests build programs, which takes much longer than anything that is compared here.
STARTS_GO = "message/pipeline|unicode/norm|internal/export|feature/plural|language/display"


def trivial(work: Path, packages: int, tests: int) -> Path:
    """A module of so many packages with so many tests each, most of which need a part of the standard library."""
    project = work / f"go-{packages}x{tests}"
    if not project.exists():
        project.mkdir(parents=True)
        (project / "go.mod").write_text("module example.com/bench\n\ngo 1.21\n")
        for package in range(packages):
            directory = project / f"p{package}"
            directory.mkdir()
            (directory / "p.go").write_text(f"package p{package}\n\nfunc Double(n int) int {{ return 2 * n }}\n")
            cases = "\n".join(f"func Test{case}(t *testing.T) {{\n\tif Double({case}) != {2 * case} {{\n\t\tt.Fail()\n\t}}\n}}\n" for case in range(tests))
            (directory / "p_test.go").write_text(f'package p{package}\n\nimport "testing"\n\n{cases}')
    return project


def text(work: Path) -> Path:
    from go import lay_out

    return lay_out(work, "golang.org/x/text")


class Bench:
    def __init__(self, work: Path, rounds: int, ours: Path):
        self.work, self.rounds, self.ours = work, rounds, ours
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("MAELSTROM_")}
        self.old = next((path for directory in [os.environ.get("MAELSTROM_BENCH_PEERS", ""), *os.environ["PATH"].split(":")] if os.access(path := Path(directory) / "maelstrom-go-test", os.X_OK) and path != ours), None)

    def contenders(self, cached: bool) -> dict[str, list[str]]:
        fresh = [] if cached else ["-count=1"]
        found = {"ours": [str(self.ours), "--config-file", "-", *fresh], "go test": ["go", "test", *fresh]}
        if self.old and not cached:
            found["0.14"] = [str(self.old), "--config-file", "-"]
        return found

    def compare(self, section: str, project: Path, packages: list[str], cached: bool = False) -> None:
        times: dict[str, list[float]] = {}
        broken: dict[str, str] = {}
        contenders = self.contenders(cached)
        # 0.14 keeps its files where ours does.
        places = {name: project if name != "0.14" else self.copy(project) for name in contenders}
        for turn in range(self.rounds + 1):
            names = list(contenders)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name in broken:
                    continue
                arguments = packages if name != "0.14" else []
                log = self.work / f"go-{section}-{name.replace(' ', '-')}.log"
                result = measure([*contenders[name], *arguments], places[name], self.env, log)
                if result.exit_code != 0:
                    broken[name] = log.read_text(errors="replace").strip().splitlines()[-1][:200] if log.stat().st_size else f"exit code {result.exit_code}"
                elif turn:
                    times.setdefault(name, []).append(result.wall_seconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        base = medians.get("go test")
        for name, median in medians.items():
            spread = f"{min(times[name]):.2f}–{max(times[name]):.2f}"
            ratio = f"{median / base:.2f}" if base else ""
            print(f"| {section} | {name} | {median:.3f} s | {spread} | {ratio} |", flush=True)
        for name, why in broken.items():
            print(f"| {section} | {name} | fails: {why} | | |", flush=True)

    def copy(self, project: Path) -> Path:
        place = project.with_name(project.name + "-0.14")
        if not place.exists():
            shutil.copytree(project, place, symlinks=True, ignore=shutil.ignore_patterns(".maelstrom-go-test"))
        return place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"default: {' '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=ROOT / "target/bench")
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release/maelstrom-go-test")
    args = parser.parse_intermixed_args()
    sections = args.sections or SECTIONS
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(work, args.rounds, args.ours.resolve())
    if not bench.old:
        print("Maelstrom 0.14 is not here: cargo install --locked --root PEERS maelstrom-go-test@0.14.0\n")
    print("| section | program | median | range | × go test |\n|---|---|---|---|---|")
    if "trivial" in sections:
        bench.compare("trivial", trivial(work, 1, 1000), ["./..."])
    if "many" in sections:
        bench.compare("many", trivial(work, 40, 10), ["./..."])
    if {"text", "cached"} & set(sections):
        project = text(work)
        listed = subprocess.run(["go", "list", "./..."], cwd=project, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        packages = [package for package in listed if not any(part in package for part in STARTS_GO.split("|"))]
        if "text" in sections:
            bench.compare("text", project, packages)
        if "cached" in sections:
            bench.compare("cached", project, packages, cached=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
