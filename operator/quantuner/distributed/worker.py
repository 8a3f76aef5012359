"""First process of a worker pod: starts the pod's fork server and becomes sshd, at whose end all others end."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from quantuner.distributed import forking
from quantuner.distributed.library_variables import without


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.distributed.worker", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True, help="folder for the fork server's socket")
    parser.add_argument("--variable", action="append", default=[], help="variable that mpirun gives to every rank")
    parser.add_argument("--program", default=forking.PROGRAM, help="module whose main a rank runs")
    parser.add_argument("command", nargs="+", help="what this process becomes, after --")
    return parser


def main() -> NoReturn:
    args = arguments().parse_args()
    try:
        # sshd starts ranks without the pod's variables, but for those that mpirun passes on.
        forking.start(args.workspace, without(os.environ, args.variable), args.program)
    except OSError as error:
        sys.stderr.write(f"no fork server, ranks import by themselves: {error}\n")
    os.execv(args.command[0], args.command)  # noqa: S606


if __name__ == "__main__":
    main()
