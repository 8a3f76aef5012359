"""Peak memory of a search against that of one evaluation of the fp32 model, each in a process of its own.

What is resident counts, the interpreter and torch included, and the peak of the process that loads the saved model, as
if both came at once. The last line is one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys

from benchmarks.search import ours
from benchmarks.search_problems import PROBLEMS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--side", nargs=2, metavar=("WHAT", "PROBLEM"), help="search or evaluation: run it alone")
    arguments = parser.parse_args()
    if arguments.side:
        print(_peak(*arguments.side))
        return
    ratios = {}
    for name in PROBLEMS:
        evaluation, search = (_alone(what, name) for what in ("evaluation", "search"))
        print(f"{name}: one evaluation {evaluation} MiB, a search of 30 trials {search} MiB", flush=True)
        ratios[name] = round(search / evaluation, 2)
    print(
        json.dumps({"bench": "memory", "ratio": max(ratios.values()), **{f"ratio_{n}": r for n, r in ratios.items()}})
    )


def _peak(what: str, name: str) -> int:
    if what == "search":
        ours(name)
    else:
        problem = PROBLEMS[name]()
        problem.evaluate(problem.model)
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024


def _alone(what: str, name: str) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", "--side", what, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
