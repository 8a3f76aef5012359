"""Evaluate a numbered batch and tell its results in index order: in this process, or over ranks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import Communicator
from quantuner.distributed.protocol import Assign, Done, End

Evaluate = Callable[[Any], TrialResult]


@dataclass(frozen=True)
class Told:
    """A result as it is told: in index order, whatever the order in which ranks answered."""

    index: int
    result: TrialResult
    rank: int
    running: int
    """Trials under way when this one was told."""


Tell = Callable[[Told], bool]
"""Takes the next result; returns True where the search is decided and no further result matters."""


class Executor(Protocol):
    """Runs trials for a search."""

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        """Evaluates payload i as trial first + i and tells all of them in order.

        Returns True as soon as `tell` does; trials still under way are then forgotten.
        """

    def close(self) -> None:
        """No trial follows. Idempotent."""


class Serial:
    """Evaluates in this process, one after the other."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        return any(
            tell(Told(index, self._evaluate(payload), rank=0, running=0))
            for index, payload in enumerate(payloads, first)
        )

    def close(self) -> None:
        """Nothing is held."""


class Master:
    """Rank 0: hands each free slave the next trial and tells results in index order."""

    def __init__(self, comm: Communicator) -> None:
        if comm.size < 2:
            raise ValueError(f"a master needs at least one slave, but the world has {comm.size} rank; search serially")
        self._comm = comm
        self._free = list(range(comm.size - 1, 0, -1))  # rank 1 is taken first
        self._busy: dict[int, int] = {}
        """Rank to the trial it evaluates. Outlives a batch: a decided batch leaves trials under way."""
        self._forgotten: set[int] = set()
        """Ranks whose trial under way belongs to a decided batch."""
        self._closed = False

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        waiting = enumerate(payloads, first)  # each payload is taken when a rank is free: it may have changed by then
        answered: dict[int, tuple[TrialResult, int]] = {}
        next_to_tell = first
        self._assign(waiting)
        while next_to_tell < first + len(payloads):
            done, rank = self._receive()
            self._assign(waiting)  # before telling: no rank waits for the journal
            if rank in self._forgotten:
                self._forgotten.remove(rank)
                continue
            answered[done.index] = (done.result, rank)
            while next_to_tell in answered:
                result, by = answered.pop(next_to_tell)
                if tell(Told(next_to_tell, result, by, running=len(self._busy))):
                    self._forgotten = set(self._busy)
                    return True
                next_to_tell += 1
        return False

    def _assign(self, waiting: Iterator[tuple[int, Any]]) -> None:
        while self._free and (taken := next(waiting, None)) is not None:
            (index, payload), rank = taken, self._free.pop()
            self._comm.send(Assign(index, payload), to=rank)
            self._busy[rank] = index

    def _receive(self) -> tuple[Done, int]:
        rank, done = self._comm.receive()
        if not isinstance(done, Done) or self._busy.get(rank) != done.index:
            raise RuntimeError(f"rank {rank} sent {done!r}, but was evaluating trial {self._busy.get(rank)}")
        del self._busy[rank]
        self._free.append(rank)
        return done, rank

    def close(self) -> None:
        """Ends every slave, each after the trial it may still be evaluating."""
        if self._closed:
            return
        self._closed = True
        for rank in range(1, self._comm.size):
            self._comm.send(End(), to=rank)
        while self._busy:
            self._receive()


def serve(comm: Communicator, evaluate: Evaluate) -> int:
    """A slave's loop: evaluates what the master assigns until it says End; returns how many trials that were."""
    count = 0
    while True:
        _, message = comm.receive(source=0)
        if isinstance(message, End):
            return count
        comm.send(Done(message.index, evaluate(message.payload)), to=0)
        count += 1
