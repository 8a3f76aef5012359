"""A world of ranks in virtual time: the third implementation of `Communicator`, for proofs about the protocol.

Every rank is a thread, and one at a time runs: until it waits for a message or for time to pass. What happens next is
the earliest event; delays, losses and the order of what is simultaneous come from a seed. So one seed is one history
of the whole world, the same at each run, and a thousand of them take seconds.

Faults: a rank that crashes (its thread ends where it stands), one that hangs (nothing wakes it any more), one that is
held up for a while (nothing wakes it until then), rank 0's.
"""

from __future__ import annotations

import heapq
import math
import pickle
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantuner.distributed.communicator import ANY, RanksLostError


class Killed(BaseException):
    """Ends a rank's thread."""


@dataclass
class Rank:
    """One rank's thread and what it waits for."""

    number: int
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None
    waits_for: int | None = None
    """Source of the message that it waits for; None where it waits for time or runs."""
    turn: int = 0
    """Counts its waits, so that an alarm of an earlier one is known."""
    boxes: dict[int, deque[bytes]] = field(default_factory=dict)
    notices: list[int] = field(default_factory=list)
    """Losses that it was not told yet."""
    ended: bool = False
    killed: bool = False
    hung: bool = False
    held_until: float = 0.0
    value: Any = None
    error: BaseException | None = None


class Simulation:
    """`size` ranks; `latency` is the longest delay of a message, in seconds of virtual time."""

    def __init__(self, size: int, seed: int, latency: float = 0.01) -> None:
        self.random = random.Random(seed)
        self._unseen = random.Random(seed)
        self.time = 0.0
        self._latency = latency
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._count = 0
        self._ranks = [Rank(n, boxes={s: deque() for s in range(size)}) for n in range(size)]
        self._last: dict[tuple[int, int], float] = {}
        self._back = threading.Semaphore(0)
        self.lost: set[int] = set()
        """Ranks that crashed or hang."""

    # --- what tests arrange

    def at(self, time: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self.random.random(), self._count, what))

    def crash(self, rank: int) -> None:
        """The rank is gone; the others notice after a while."""
        victim = self._ranks[rank]
        if victim.ended:
            return
        victim.killed = True
        self.lost.add(rank)
        self._resume(victim)
        self.at(self.time + self.random.uniform(0.001, 0.5), lambda: self._notice(rank))

    def hang(self, rank: int) -> None:
        self.lost.add(rank)
        self._ranks[rank].hung = True

    def hold(self, rank: int, seconds: float) -> None:
        """As SIGSTOP, a frozen container or a disk that hangs does: what it waits for comes late."""
        self._ranks[rank].held_until = self.time + seconds

    def run(self, programs: Sequence[Callable[[Virtual], Any]]) -> Any:
        """Runs a program on every rank until rank 0's ends; returns its value, or raises its error."""
        for rank, program in zip(self._ranks, programs, strict=True):
            rank.thread = threading.Thread(target=self._live, args=(rank, program), daemon=True)
            rank.thread.start()
            self.at(0.0, lambda rank=rank: self._resume(rank))  # type: ignore[misc]
        first = self._ranks[0]
        try:
            while not first.ended:
                if not self._events:
                    raise AssertionError("nothing can happen any more, and rank 0 still waits")
                self.time, _, _, what = heapq.heappop(self._events)
                what()
        finally:
            self._tear_down()
        if first.error is not None:
            raise first.error
        return first.value

    # --- what ranks do

    def sleep(self, rank: int, seconds: float) -> None:
        me = self._ranks[rank]
        self.at(self.time + seconds, self._alarm(me))
        self._wait(me)

    def send(self, source: int, to: int, message: Any) -> None:
        earliest = math.nextafter(self._last.get((source, to), 0.0), math.inf)  # messages of a pair keep their order
        arrival = max(self.time + self.random.uniform(0, self._latency), earliest)
        self._last[source, to] = arrival
        text = pickle.dumps(message)
        self.at(arrival, lambda: self._deliver(source, to, text))

    def receive(self, rank: int, source: int, deadline: float | None) -> tuple[int, Any] | None:
        me = self._ranks[rank]
        if deadline is not None and self.time >= deadline and not self._sees():
            return None
        while True:
            if me.notices and (source == ANY or source in me.notices):
                lost, me.notices = me.notices, []
                raise RanksLostError(lost)
            found = self._take(rank, source)
            if found is not None:
                return found
            if deadline is not None and self.time >= deadline:
                return None
            me.waits_for = source
            if deadline is not None:
                self.at(deadline, self._alarm(me))
            self._wait(me)
            me.waits_for = None

    def pending(self, rank: int, source: int) -> tuple[int, Any] | None:
        return self._take(rank, source) if self._sees() else None

    def _sees(self) -> bool:
        """Whether a look that does not wait sees what has come: MPI may have left it in a socket."""
        return self._unseen.random() < 0.8

    def _take(self, rank: int, source: int) -> tuple[int, Any] | None:
        boxes = self._ranks[rank].boxes
        full = [s for s, box in boxes.items() if box and source in (ANY, s)]
        if not full:
            return None
        chosen = self.random.choice(full)
        return chosen, pickle.loads(boxes[chosen].popleft())

    # --- how it works

    def _live(self, rank: Rank, program: Callable[[Virtual], Any]) -> None:
        rank.go.acquire()
        try:
            if not rank.killed:
                rank.value = program(Virtual(self, rank.number))
        except Killed:
            pass
        except BaseException as error:
            rank.error = error
        finally:
            rank.ended = True
            self._back.release()

    def _wait(self, rank: Rank) -> None:
        if rank.killed:  # it cleans up, and would wait for others
            raise Killed
        rank.turn += 1
        self._back.release()
        rank.go.acquire()
        if rank.killed:
            raise Killed

    def _resume(self, rank: Rank) -> None:
        if self.time < rank.held_until and not rank.killed:
            turn = rank.turn
            self.at(rank.held_until, lambda: self._resume(rank) if rank.turn == turn else None)
            return
        if not rank.ended and not (rank.hung and not rank.killed):
            rank.go.release()
            self._back.acquire()

    def _alarm(self, rank: Rank) -> Callable[[], None]:
        turn = rank.turn + 1  # of the wait that begins now
        return lambda: self._resume(rank) if rank.turn == turn else None

    def _deliver(self, source: int, to: int, text: bytes) -> None:
        rank = self._ranks[to]
        rank.boxes[source].append(text)
        if rank.waits_for in (ANY, source):
            self._resume(rank)

    def _notice(self, lost: int) -> None:
        for rank in self._ranks:
            rank.notices.append(lost)
            if rank.waits_for in (ANY, lost):
                self._resume(rank)

    def _tear_down(self) -> None:
        for rank in self._ranks:
            if not rank.ended:
                rank.killed = True
                self._resume(rank)
            if rank.thread is not None:
                rank.thread.join()


@dataclass
class Virtual:
    """One rank's view of a simulation."""

    world: Simulation
    rank: int
    given_up: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        return len(self.world._ranks)

    @property
    def evaluators(self) -> Sequence[int]:
        return range(1, self.size)

    def now(self) -> float:
        return self.world.time

    def sleep(self, seconds: float) -> None:
        self.world.sleep(self.rank, seconds)

    def die(self) -> None:
        """Called by a rank that ends itself: a trial that kills."""
        self.world.at(self.world.time, lambda: self.world.crash(self.rank))
        self.sleep(1e9)

    def send(self, message: Any, to: int) -> None:
        self.world.send(self.rank, to, message)

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        return self.world.receive(self.rank, source, deadline)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return self.world.pending(self.rank, source)
