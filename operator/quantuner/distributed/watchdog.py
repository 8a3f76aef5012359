"""Ends a slave that is stuck in a trial, from outside of Python: it may hold the interpreter's lock."""

from __future__ import annotations

import faulthandler
import signal
import sys


class Alarm:
    """After a time dumps all stacks to stderr and ends the process by SIGALRM.

    By a signal, since Open MPI 5.0.11 does not end a job one of whose ranks has left by itself (`_exit`): mpirun
    then waits for ever. Whoever uses SIGALRM in an evaluation takes the watchdog away.
    """

    def __init__(self) -> None:
        """Once in a process."""
        faulthandler.register(signal.SIGALRM, file=sys.__stderr__ or sys.stderr, all_threads=True, chain=True)

    def start(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
