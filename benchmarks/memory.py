"""Peak memory of a search against that of one evaluation of the fp32 model, each in a process of its own.

What is resident counts, the interpreter and torch included, in the search's process and in the one that loads the saved
model, at the same moment; a page that both have, as those of torch's libraries, counts once (PSS of
/proc/PID/smaps_rollup, asked for every 20 ms). The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("resnet", "minilm")
POLL_SECONDS = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--side", nargs=2, metavar=("WHAT", "PROBLEM"), help="search or evaluation: run it alone")
    arguments = parser.parse_args()
    if arguments.side:
        _run(*arguments.side)
        return
    ratios = {}
    for name in NAMES:
        evaluation, search = (_peak(what, name) for what in ("evaluation", "search"))
        print(f"{name}: one evaluation {evaluation} MiB, a search of 30 trials {search} MiB", flush=True)
        ratios[name] = round(search / evaluation, 2)
    print(
        json.dumps({"bench": "memory", "ratio": max(ratios.values()), **{f"ratio_{n}": r for n, r in ratios.items()}})
    )


def _run(what: str, name: str) -> None:
    from benchmarks.search import ours  # not in the process that watches, which would share torch's pages
    from benchmarks.search_problems import PROBLEMS

    if what == "search":
        ours(name)
    else:
        problem = PROBLEMS[name]()
        problem.evaluate(problem.model)


def _peak(what: str, name: str) -> int:
    """MiB."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.memory", "--side", what, name])
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _family(process.pid))))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{what} of {name} ended with {process.returncode}")
    return peak // 1024


def _family(pid: int) -> list[int]:
    """A process and its children, as long as they live."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _resident(pid: int) -> int:
    """KiB; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
