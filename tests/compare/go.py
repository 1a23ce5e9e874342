#!/usr/bin/env python3
"""Compares maelstrom-go-test with `go test`, test by test and subtest by subtest, on published modules.

    go.py                            five modules and the fixture, as the module proxy has them
    go.py [--work DIR] [MODULE...]   these modules, or directories of modules
    go.py --coverage [MODULE...]     also compares merged coverage profiles line by line

Both run with -json; what is compared is how each test and subtest ended, by package and name. Nothing is
configured. Go does the downloading (`go mod download`); modules are copied, since the module cache is
read-only.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ["tests/fixtures/go"]
MODULES = [
    "github.com/spf13/cobra",
    "github.com/google/go-cmp",
    "github.com/stretchr/testify",
    "github.com/go-chi/chi/v5",
    "golang.org/x/text",
]
# Not go-cmp, which decides at random what it runs, so that `go test` gives another profile each time;
# nor cobra, where tests go on with what others have left in the process.
COVERED = ["github.com/stretchr/testify", "github.com/go-chi/chi/v5"]
ENDS = ("pass", "fail", "skip")
# Addresses and the time of day, which some subtests have in their names.
CHANGING = re.compile(r"0x[0-9a-f]{6,}|time\.Date\([^)]*\)")


def lay_out(work: Path, module: str) -> Path:
    """Copies a module to WORK/NAME-VERSION; an existing copy stays."""
    name, _, version = module.partition("@")
    asked = ["go", "mod", "download", "-json", f"{name}@{version or 'latest'}"]
    found = json.loads(subprocess.run(asked, cwd=work, check=True, stdout=subprocess.PIPE).stdout)
    project = work / f"{name.replace('/', '-')}-{found['Version']}"
    if not project.exists():
        partial = work / f".{project.name}.partial"
        subprocess.run(["rm", "-rf", str(partial)], check=True)
        shutil.copytree(found["Dir"], partial, symlinks=True)
        for directory, _, files in os.walk(partial):
            for path in [directory, *(os.path.join(directory, file) for file in files)]:
                os.chmod(path, os.stat(path).st_mode | 0o200)
        partial.rename(project)
    return project


def run(command: list[str], project: Path) -> tuple[dict[tuple[str, str], str], int]:
    """How each test ended, and the exit code."""
    ran = subprocess.run(command, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    ends: dict[tuple[str, str], str] = {}
    for line in ran.stdout.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            print(f"    not JSON: {line[:200]!r}")
            continue
        if event.get("Test") and event["Action"] in ENDS:
            ends[event["Package"], CHANGING.sub("*", event["Test"])] = event["Action"]
    if not ends and ran.returncode:
        sys.stdout.buffer.write(ran.stderr[-2000:])
    return ends, ran.returncode


def profile(command: list[str], project: Path) -> list[str]:
    """The lines of a coverage profile. Packages are in no particular order."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "cover.out"
        subprocess.run([*command, f"-coverprofile={path}"], cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return sorted(path.read_text().splitlines())


def compare(project: Path, ours: Path, arguments: list[str]) -> bool:
    expected, expected_code = run(["go", "test", "-json", "-count=1", *arguments, "./..."], project)
    found, found_code = run([str(ours), "-json", "-count=1", *arguments, "./..."], project)
    # A test that brings its process down keeps `go test` from running those after it, which have
    # containers of their own here: they are run without it.
    for _ in range(5):
        unreached = {key for key in found.keys() - expected.keys() if "/" not in key[1]}
        if not unreached:
            break
        fatal = {test for (_, test), end in expected.items() if end == "fail" and "/" not in test}
        skip = "^(" + "|".join(sorted(fatal)) + ")$"
        packages = sorted({package for package, _ in unreached})
        more, _ = run(["go", "test", "-json", "-count=1", f"-skip={skip}", *arguments, *packages], project)
        print(f"    {project.name}: {len(unreached)} tests come after one that ends the process; run without {skip}")
        if not more.keys() - expected.keys():
            break
        expected = {**more, **expected}
    different = 0
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            different += 1
            if different <= 20:
                print(f"    {key[0]} {key[1]}: go test {expected.get(key)}, ours {found.get(key)}")
    counts = {end: sum(1 for value in expected.values() if value == end) for end in ENDS}
    shown = ", ".join(f"{count} {end}" for end, count in counts.items())
    codes = "" if expected_code == found_code else f"; exit codes {expected_code} and {found_code}"
    print(f"{project.name}: {len(expected)} tests and subtests ({shown}), {different} differ{codes}", flush=True)
    return different == 0 and not codes and bool(expected)


def compare_coverage(project: Path, ours: Path, arguments: list[str]) -> bool:
    expected = profile(["go", "test", "-count=1", *arguments, "./..."], project)
    found = profile([str(ours), "-count=1", *arguments, "./..."], project)
    different = len(set(expected) ^ set(found)) + abs(len(expected) - len(found))
    for line in sorted(set(expected) ^ set(found))[:10]:
        print(f"    {'go test' if line in expected else 'ours'}: {line}")
    print(f"{project.name}: {len(expected)} lines of coverage, {different} differ", flush=True)
    return different == 0 and len(expected) > 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"default: {' '.join(MODULES)}")
    parser.add_argument("--work", type=Path, default=ROOT / "target/compare", help="default: target/compare")
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release/maelstrom-go-test")
    parser.add_argument("--coverage", action="store_true", help="compare coverage profiles, too")
    parser.add_argument("--flag", action="append", default=[], help="a flag for both, such as --flag=-short")
    args = parser.parse_intermixed_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    names = args.modules or [*MODULES, *(str(ROOT / fixture) for fixture in FIXTURES)]
    failed = []
    for name in names:
        is_directory = Path(name).is_dir()
        project = Path(name).resolve() if is_directory else lay_out(work, name)
        agrees = compare(project, args.ours.resolve(), args.flag)
        if args.coverage and (args.modules or name in COVERED):
            agrees &= compare_coverage(project, args.ours.resolve(), args.flag)
        if not agrees:
            failed.append(project.name)
    print(f"{len(names) - len(failed)} modules agree, {len(failed)} differ" + "".join(f"\n  {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
