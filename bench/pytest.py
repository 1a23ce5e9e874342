#!/usr/bin/env python3
"""Wall time of a pytest suite: maelstrom-pytest beside pytest, pytest-xdist and a process a test.

    pytest.py [--work DIR] [--rounds N] [--maelstrom PATH] [--all] [PROJECT...]

All are run in turns, so that what else the machine does hits them alike; the medians are printed
with their ratios to plain pytest. `--all` adds the slow ones: a fork a test (`pytest --forked`, from
pytest-forked) and one interpreter a test (`maelstrom-pytest --no-template`).
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/compare"))
import sdists  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "target/compare-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--maelstrom", default=str(ROOT / "target/release/maelstrom-pytest"))
    parser.add_argument("--all", action="store_true", help="also a fork, and an interpreter, a test")
    parser.add_argument("projects", nargs="*", default=["click", "more-itertools"], metavar="PROJECT")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.projects:
        project, environment = sdists.lay_out(options.work.resolve(), name)
        python = str(environment / "bin/python")
        extra = ["pytest-xdist"] + (["pytest-forked"] if options.all else [])
        subprocess.run(
            [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *extra], check=True
        )
        pytest = [python, "-m", "pytest", "-q"]
        commands = {
            "pytest": pytest,
            "pytest -n 2": [*pytest, "-n", "2"],
            "maelstrom-pytest": [options.maelstrom, "--ui", "quiet"],
        }
        if options.all:
            commands["pytest --forked"] = [*pytest, "--forked"]
            commands["maelstrom-pytest --no-template"] = [options.maelstrom, "--ui", "quiet", "--no-template"]
        env = sdists.surroundings(environment)
        seconds = {title: [] for title in commands}
        # The first of ours makes the layers, once for good.
        for round_number in range(options.rounds + 1):
            for title, command in commands.items():
                if round_number == 0 and title != "maelstrom-pytest":
                    continue
                started = time.monotonic()
                subprocess.run(
                    command, cwd=project, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
                )
                if round_number:
                    seconds[title].append(time.monotonic() - started)
        plain = statistics.median(seconds["pytest"])
        print(f"{project.name}, medians of {options.rounds}")
        for title, times in seconds.items():
            median = statistics.median(times)
            print(f"    {title:32} {median:7.2f} s   {median / plain:5.2f} x pytest", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
