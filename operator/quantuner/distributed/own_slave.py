"""A slave beside the master, in a thread of rank 0, so that its processor evaluates too."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from quantuner.distributed.communicator import ANY, Messages
from quantuner.distributed.executors import Evaluate
from quantuner.distributed.protocol import Broken, Work
from quantuner.distributed.slave import Slave

logger = logging.getLogger(__name__)


class _Within:
    """The slave's view of the world: the master, in this process."""

    def __init__(self, comm: Messages) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size
        self.evaluators: Sequence[int] = ()
        self.given_up: set[int] = set()
        self._messages: deque[Any] = deque()
        self._changed = threading.Condition()
        self._idle = False
        self._ended = False

    def now(self) -> float:
        return self._comm.now()

    def put(self, message: Any) -> None:
        with self._changed:
            self._messages.append(message)
            self._idle = False
            self._changed.notify_all()

    def send(self, message: Any, to: int) -> None:
        self._comm.send(message, to=to)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        with self._changed:
            while not self._messages:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait()
            return self.rank, self._messages.popleft()

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        with self._changed:
            return (self.rank, self._messages.popleft()) if self._messages else None

    def quiesce(self, seconds: float | None) -> bool:
        """Returns when the slave waits for a message, or has ended; False where it does neither for so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._idle or self._ended, seconds)

    def end(self) -> None:
        """Called by the slave's thread, which is alive until after it: so `quiesce` does not ask whether it is."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class WithOwnSlave:
    """A communicator whose rank 0 is a slave, too. The two take turns with what they share, as `quiesce` says.

    Needs MPI_THREAD_MULTIPLE, which mpi4py asks for and Open MPI gives: the slave answers by a message to its own rank.
    """

    def __init__(self, comm: Messages, work: Evaluate | Work) -> None:
        self._comm = comm
        self._within = _Within(comm)
        self.slave = Slave(self._within, work)  # without a watchdog: it would end the master
        self._thread = threading.Thread(target=self._run, name="own-slave", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.slave.run()
        except BaseException as error:  # the master raises it
            logger.exception("the slave beside the master has ended")
            self._comm.send(Broken(f"{type(error).__name__}: {error}"), to=self.rank)
        finally:
            self._within.end()

    @property
    def rank(self) -> int:
        return self._comm.rank

    @property
    def size(self) -> int:
        return self._comm.size

    @property
    def evaluators(self) -> Sequence[int]:
        """The others first: rank 0 is given what they cannot take at once."""
        return (*self._comm.evaluators, self.rank)

    @property
    def given_up(self) -> set[int]:
        return self._comm.given_up

    def quiesce(self, seconds: float | None = None) -> bool:
        """Waits until the slave has nothing to do, so that the master may use what both evaluate with.

        False where it is at work after so many seconds still; None waits for ever.
        """
        return self._within.quiesce(seconds)

    def now(self) -> float:
        return self._comm.now()

    def send(self, message: Any, to: int) -> None:
        if to == self.rank:
            self._within.put(message)
        else:
            self._comm.send(message, to=to)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        return self._comm.receive(source, deadline)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return self._comm.pending(source)
