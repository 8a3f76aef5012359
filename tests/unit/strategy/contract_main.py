"""Ranks of one world search in one workspace after the other: starting them takes longer than such a search."""

import sys

from quantuner import run
from quantuner.engine import fresh
from tests.unit import fresh_forks

TUNING = "tuning.yaml"

prepare_to_fork = run.prepare_to_fork


def main() -> int:
    """Every argument is a workspace with its resource in it; `--serial` is for all of them."""
    fresh.begin = fresh_forks.begin
    arguments = sys.argv[1:]
    options = [argument for argument in arguments if argument.startswith("--")]
    workspaces = [argument for argument in arguments if argument not in options]
    return max(run.main(["--tuning", f"{w}/{TUNING}", "--workspace", w, *options]) for w in workspaces)


if __name__ == "__main__":
    sys.exit(main())
