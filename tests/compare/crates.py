#!/usr/bin/env python3
"""Fetches published crates as they are on crates.io and lays each out as a project of its own.

    crates.py fetch [--work DIR] [CRATE...]      only lay them out; prints one directory a line
    crates.py compare [--work DIR] [CRATE...]    lay them out, then compare.py on each and on the fixtures

Cargo does the downloading: a throwaway package depends on every crate, `cargo metadata` says where
the sources are, and those are copied. The copy gets an empty `[workspace]` table, so that Cargo does
not look for a workspace in the directories above it; nothing else is touched.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import projects as made  # noqa: E402
FIXTURES = ["tests/fixtures/market", "tests/fixtures/rough"]
CRATES = [
    "itertools",
    "semver",
    "smallvec",
    "hashbrown",
    "bytes",
    "indexmap",
    "petgraph",
    "url",
    "ignore",
    "globset",
]


def locate(work: Path, names: list[str]) -> dict[str, tuple[str, Path]]:
    """Has Cargo download the latest version of every crate; name -> (version, source directory)."""
    probe = work / "probe"
    (probe / "src").mkdir(parents=True, exist_ok=True)
    (probe / "src/lib.rs").write_text("")
    (probe / "Cargo.lock").unlink(missing_ok=True)
    wanted = "".join(f'{name} = "*"\n' for name in names)
    (probe / "Cargo.toml").write_text(
        '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n\n'
        f"[dependencies]\n{wanted}\n[workspace]\n"
    )
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1"],
            cwd=probe,
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
    )
    # A dependency of a dependency may bring a second, older version of the same crate along.
    [root] = [p for p in metadata["packages"] if p["name"] == "probe"]
    [node] = [n for n in metadata["resolve"]["nodes"] if n["id"] == root["id"]]
    direct = {dep["pkg"] for dep in node["deps"]}
    return {
        p["name"]: (p["version"], Path(p["manifest_path"]).parent)
        for p in metadata["packages"]
        if p["id"] in direct
    }


def lay_out(work: Path, name: str, version: str, source: Path) -> Path:
    """Copies the crate to WORK/NAME-VERSION; an existing copy stays, and with it what is built there."""
    project = work / f"{name}-{version}"
    if not project.exists():
        partial = work / f".{name}-{version}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, symlinks=True, ignore=shutil.ignore_patterns(".cargo-ok"))
        manifest = partial / "Cargo.toml"
        text = manifest.read_text()
        if "\n[workspace]" not in text:
            manifest.write_text(text.rstrip("\n") + "\n\n[workspace]\n")
        partial.rename(project)
    return project


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["fetch", "compare"])
    parser.add_argument("crates", nargs="*", metavar="CRATE", help=f"default: {' '.join(CRATES)}")
    parser.add_argument("--work", type=Path, default=ROOT / "target/compare", help="default: target/compare")
    parser.add_argument("--no-fixtures", action="store_true", help="leave tests/fixtures out")
    parser.add_argument("--maelstrom", help="passed on to compare.py")
    parser.add_argument("--trivial", type=int, metavar="TESTS", help="compare on a crate with so many trivial tests too")
    parser.add_argument("--lab", metavar="HOSTS", help="passed on to compare.py")
    args = parser.parse_intermixed_args()

    names = args.crates or CRATES
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    found = locate(work, names)
    projects = [lay_out(work, name, *found[name]) for name in names]
    if args.action == "fetch":
        print(*projects, sep="\n")
        return 0

    if not args.crates and not args.no_fixtures:
        projects += [ROOT / fixture for fixture in FIXTURES]
    if args.trivial:
        projects.append(made.trivial_crate(work / f"trivial-{args.trivial}", args.trivial))
    failed = []
    for project in projects:
        command = [sys.executable, str(HERE / "compare.py"), str(project)]
        if args.maelstrom:
            command += ["--maelstrom", args.maelstrom]
        if args.lab:
            command += ["--lab", args.lab]
        if subprocess.run(command, env=dict(os.environ, PYTHONUNBUFFERED="1")).returncode != 0:
            failed.append(project.name)
    print(f"{len(projects) - len(failed)} projects agree, {len(failed)} differ" + "".join(f"\n  {n}" for n in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
