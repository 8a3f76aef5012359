"""The fork server of a worker pod, beside its first process, sshd, at whose end all others end.

A shell starts both. So a pod whose image has no such module, as that of an older Quantuner, or whose server fails, is a
worker still: its ranks import by themselves.
"""

import argparse
import os
import sys
from pathlib import Path

from quantuner.distributed import forking
from quantuner.distributed.library_variables import without


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.distributed.worker", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True, help="folder for the fork server's socket")
    parser.add_argument("--variable", action="append", default=[], help="variable that mpirun gives to every rank")
    parser.add_argument("--program", default=forking.PROGRAM, help="module whose main a rank runs")
    return parser


def main() -> int:
    args = arguments().parse_args()
    try:
        # sshd starts ranks without the pod's variables, but for those that mpirun passes on.
        forking.become(args.workspace, without(os.environ, args.variable), args.program)
    except OSError as error:
        sys.stderr.write(f"no fork server, ranks import by themselves: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
