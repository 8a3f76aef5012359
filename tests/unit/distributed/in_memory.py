"""A world of ranks in one process: the second implementation of `Communicator`, for tests of the protocol.

Rank 0's receive waits until every other rank is idle or ended, then takes the message of a rank drawn from a seeded
generator. So each seed is one order in which slaves may have answered, and the same one at each run.
"""

from __future__ import annotations

import pickle
import random
import threading
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

    def receive(self, rank: int, source: int) -> tuple[int, Any]:
        with self._changed:
            self._idle.add(rank)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._ready(rank, source), DEADLOCK_SECONDS):
                raise TimeoutError(f"rank {rank} waits for a message that never comes")
            self._idle.discard(rank)
            waiting = [s for s, box in self._boxes[rank].items() if box and source in (ANY, s)]
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

    def send(self, message: Any, to: int) -> None:
        self._world.send(self.rank, to, message)

    def receive(self, source: int = ANY) -> tuple[int, Any]:
        return self._world.receive(self.rank, source)

    def broadcast(self, message: Any) -> Any:
        if self.rank:
            return self.receive(source=0)[1]
        for rank in range(1, self.size):
            self.send(message, to=rank)
        return message

    def gather(self, message: Any) -> Sequence[Any] | None:
        if self.rank:
            self.send(message, to=0)
            return None
        return [message, *(self.receive(source=rank)[1] for rank in range(1, self.size))]
