"""A world of ranks in one process: the second implementation of `Communicator`, for tests of the protocol.

Rank 0's receive waits until every other rank is idle or ended, then takes the message of a rank drawn from a seeded
generator. So each seed is one order in which slaves may have answered, and the same one at each run.
"""

from __future__ import annotations

import pickle
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from quantuner.distributed.communicator import ANY

DEADLOCK_SECONDS = 30.0  # never waited for in a test that passes


class World:
    """`size` communicators that know each other."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._boxes = {step: [{s: deque[bytes]() for s in range(size)} for _ in range(size)] for step in (False, True)}
        """Of messages, and apart from them of the steps that all ranks take, as MPI keeps them."""
        self._idle: dict[int, tuple[int, bool]] = {}
        """Rank to what it waits for."""
        self._ended: set[int] = set()

    def comm(self, rank: int) -> InMemory:
        return InMemory(self, rank)

    def end(self, rank: int) -> None:
        """The rank sends and receives nothing more."""
        with self._changed:
            self._ended.add(rank)
            self._changed.notify_all()

    def send(self, source: int, to: int, message: Any, *, step: bool = False) -> None:
        with self._changed:
            self._boxes[step][to][source].append(pickle.dumps(message))
            self._changed.notify_all()

    def receive(self, rank: int, source: int, deadline: float | None, *, step: bool = False) -> tuple[int, Any] | None:
        patience = DEADLOCK_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            self._idle[rank] = source, step
            self._changed.notify_all()
            ready = self._changed.wait_for(lambda: self._ready(rank, source, step), min(patience, DEADLOCK_SECONDS))
            del self._idle[rank]
            if ready:
                return self._take(rank, source, step)
            if deadline is None or patience > DEADLOCK_SECONDS:
                raise TimeoutError(f"rank {rank} waits for a message that never comes")
            return None

    def pending(self, rank: int, source: int) -> tuple[int, Any] | None:
        with self._changed:
            return self._take(rank, source, step=False)

    def _take(self, rank: int, source: int, step: bool) -> tuple[int, Any] | None:
        waiting = self._sources(rank, source, step)
        if not waiting:
            return None
        chosen = self._random.choice(waiting)
        return chosen, pickle.loads(self._boxes[step][rank][chosen].popleft())

    def _sources(self, rank: int, source: int, step: bool) -> list[int]:
        return [s for s, box in self._boxes[step][rank].items() if box and source in (ANY, s)]

    def _ready(self, rank: int, source: int, step: bool) -> bool:
        if not self._sources(rank, source, step):
            return False
        return rank != 0 or source != ANY or all(self._quiet(other) for other in range(1, self.size))

    def _quiet(self, rank: int) -> bool:
        return rank in self._ended or (rank in self._idle and not self._sources(rank, *self._idle[rank]))


class InMemory:
    """One rank's view of the world. Messages are pickled, as MPI does."""

    def __init__(self, world: World, rank: int) -> None:
        self._world, self.rank, self.size = world, rank, world.size
        self.evaluators: Sequence[int] = range(1, world.size)
        self.given_up: set[int] = set()
        self.mpi = Spelled(self)

    def now(self) -> float:
        return time.monotonic()

    def send(self, message: Any, to: int) -> None:
        self._world.send(self.rank, to, message)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        return self._world.receive(self.rank, source, deadline)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return self._world.pending(self.rank, source)

    def step_of(self, source: int) -> Any:
        received = self._world.receive(self.rank, source, None, step=True)
        assert received is not None
        return received[1]

    def broadcast(self, message: Any) -> Any:
        if self.rank:
            return self.step_of(0)
        for rank in range(1, self.size):
            self._world.send(self.rank, rank, message, step=True)
        return message

    def gather(self, message: Any) -> Sequence[Any] | None:
        if self.rank:
            self._world.send(self.rank, 0, message, step=True)
            return None
        return [message, *(self.step_of(rank) for rank in range(1, self.size))]


class Spelled:
    """The same view as mpi4py spells it."""

    def __init__(self, comm: InMemory) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size

    def Get_rank(self) -> int:  # noqa: N802 - mpi4py's name
        return self.rank

    def Get_size(self) -> int:  # noqa: N802
        return self.size

    def bcast(self, message: Any, root: int = 0) -> Any:
        return self._comm.broadcast(message)

    def gather(self, message: Any, root: int = 0) -> Sequence[Any] | None:
        return self._comm.gather(message)

    def Barrier(self) -> None:  # noqa: N802
        self._comm.broadcast(self._comm.gather(None))
