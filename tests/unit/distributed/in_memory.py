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
        self._boxes: list[dict[int, deque[bytes]]] = [{s: deque() for s in range(size)} for _ in range(size)]
        self._idle: set[int] = set()
        self._ended: set[int] = set()

    def comm(self, rank: int) -> InMemory:
        return InMemory(self, rank)

    def end(self, rank: int) -> None:
        """The rank sends and receives nothing more."""
        with self._changed:
            self._ended.add(rank)
            self._changed.notify_all()

    def send(self, source: int, to: int, message: Any) -> None:
        with self._changed:
            self._boxes[to][source].append(pickle.dumps(message))
            self._changed.notify_all()

    def receive(self, rank: int, source: int, deadline: float | None) -> tuple[int, Any] | None:
        patience = DEADLOCK_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        with self._changed:
            self._idle.add(rank)
            self._changed.notify_all()
            ready = self._changed.wait_for(lambda: self._ready(rank, source), min(patience, DEADLOCK_SECONDS))
            self._idle.discard(rank)
            if ready:
                return self._take(rank, source)
            if deadline is None or patience > DEADLOCK_SECONDS:
                raise TimeoutError(f"rank {rank} waits for a message that never comes")
            return None

    def pending(self, rank: int, source: int) -> tuple[int, Any] | None:
        with self._changed:
            return self._take(rank, source)

    def _take(self, rank: int, source: int) -> tuple[int, Any] | None:
        waiting = [s for s, box in self._boxes[rank].items() if box and source in (ANY, s)]
        if not waiting:
            return None
        chosen = self._random.choice(waiting)
        return chosen, pickle.loads(self._boxes[rank][chosen].popleft())

    def _ready(self, rank: int, source: int) -> bool:
        if not any(box for s, box in self._boxes[rank].items() if source in (ANY, s)):
            return False
        return rank != 0 or source != ANY or all(self._quiet(other) for other in range(1, self.size))

    def _quiet(self, rank: int) -> bool:
        return rank in self._ended or (rank in self._idle and not any(self._boxes[rank].values()))


class InMemory:
    """One rank's view of the world. Messages are pickled, as MPI does."""

    def __init__(self, world: World, rank: int) -> None:
        self._world, self.rank, self.size = world, rank, world.size
        self.evaluators: Sequence[int] = range(1, world.size)
        self.given_up: set[int] = set()

    def now(self) -> float:
        return time.monotonic()

    def send(self, message: Any, to: int) -> None:
        self._world.send(self.rank, to, message)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        return self._world.receive(self.rank, source, deadline)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return self._world.pending(self.rank, source)

    def await_from(self, source: int) -> Any:
        received = self.receive(source)
        assert received is not None
        return received[1]

    def broadcast(self, message: Any) -> Any:
        if self.rank:
            return self.await_from(0)
        for rank in range(1, self.size):
            self.send(message, to=rank)
        return message

    def gather(self, message: Any) -> Sequence[Any] | None:
        if self.rank:
            self.send(message, to=0)
            return None
        return [message, *(self.await_from(rank) for rank in range(1, self.size))]
