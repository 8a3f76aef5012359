"""What the protocol needs of MPI, and mpi4py's world as that."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from quantuner.api.conditions import Failure
from quantuner.api.errors import QuantunerError, SearchError

ANY = -1  # any source; MPI.ANY_SOURCE in Open MPI too, and the conversion below does not rely on it


class RanksLostError(QuantunerError):
    """Ranks that will send nothing more."""

    def __init__(self, ranks: Sequence[int], message: str = "") -> None:
        super().__init__(message or f"lost rank {', '.join(map(str, ranks))}")
        self.ranks = tuple(ranks)


class Messages(Protocol):
    """Point-to-point messages of plain Python objects between numbered ranks, in order per pair: what trials need."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def evaluators(self) -> Sequence[int]:
        """Ranks that have a slave."""

    @property
    def given_up(self) -> set[int]:
        """Ranks that were given up though they live: nobody waits for them, and the job ends by `abort`."""

    def send(self, message: Any, to: int) -> None:
        """One to a rank that is lost goes nowhere; `receive` tells of the loss."""

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        """Blocks for a message; returns its source and itself, or None where `deadline` (of `now`) has passed.

        Raises `RanksLostError` where ranks are lost, once for each of them; later calls go on with the others.
        """

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        """A message that is there already; None where there is none. Does not block."""

    def now(self) -> float:
        """Seconds of a clock that never goes back."""


class Communicator(Messages, Protocol):
    """Messages, and steps that all ranks take together: what setting up needs."""

    @property
    def mpi(self) -> Any:
        """The same ranks in mpi4py's spelling, for code that was written for an MPI communicator."""

    def broadcast(self, message: Any) -> Any:
        """Gives rank 0's message to every rank; all ranks call it."""

    def gather(self, message: Any) -> Sequence[Any] | None:
        """Gives rank 0 every rank's message in rank order, the others None; all ranks call it."""


_WAKE = "wake"
PROBES = 4
"""After so many that find nothing, nothing has come: Open MPI 5 reads the sockets after it has looked."""


class _Timer:
    """Sends this rank a message at a time, so that a blocked receive ends. One thread, started when first needed."""

    def __init__(self, ring: Any) -> None:
        self._ring = ring
        self._at: float | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, at: float) -> None:
        """Rings at `at`, or earlier: whoever is woken looks at the clock."""
        with self._changed:
            if self._at is not None and self._at <= at:
                return
            self._at = at
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="receive-timer", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """It does not ring any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        while self._due():
            self._ring()

    def _due(self) -> bool:
        """Waits until it is time to ring; False where it is not to ring any more."""
        with self._changed:
            while not self._closed and (self._at is None or self._at > time.monotonic()):
                self._changed.wait(None if self._at is None else self._at - time.monotonic())
            self._at = None
            return not self._closed


def _check_threads(mpi: Any) -> None:
    """A receive with a deadline is ended by a message that another thread sends, and rank 0's own slave is a thread."""
    if mpi.Query_thread() < mpi.THREAD_MULTIPLE:
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            f"MPI gives thread level {mpi.Query_thread()}, and a search needs {mpi.THREAD_MULTIPLE} "
            "(MPI_THREAD_MULTIPLE); leave mpi4py.rc.thread_level as it is, and let mpi4py begin MPI",
        )


_own_key: int | None = None
"""MPI's key for the duplicate that a communicator has."""


def _own(mpi: Any, comm: Any) -> Any:
    """A duplicate of `comm`, the same at each call: what a search sends there nobody else receives.

    All of its ranks call it. It lives as long as `comm`: to free it is a step of all ranks, too, and some may be lost.
    """
    global _own_key  # noqa: PLW0603 (as MPI begins, once in a process)
    if _own_key is None:
        _own_key = mpi.Comm.Create_keyval()
    own = comm.Get_attr(_own_key)
    if own is None:
        own = comm.Dup()
        comm.Set_attr(_own_key, own)
    return own


class MpiWorld:
    """An MPI communicator's ranks. Importing mpi4py initializes MPI, so it is done here, not with the module.

    Where Open MPI runs with ULFM (`mpirun --with-ft ulfm`), a rank that dies is noticed by the others' receives.
    """

    def __init__(self, comm: Any = None) -> None:
        """`comm` is mpi4py's, and all of its ranks make one of this; None takes MPI.COMM_WORLD.

        Raises `SearchError` where MPI was begun without the right to be called by several threads.
        """
        from mpi4py import MPI

        _check_threads(MPI)
        self._mpi = MPI
        self._given = comm or MPI.COMM_WORLD
        self._comm = _own(MPI, self._given)
        self._processor = MPI.Get_processor_name()
        self._timer = _Timer(self._ring)
        self._known_lost: set[int] = set()
        self._sending: list[Any] = []
        """Requests that hold what is not yet sent."""
        self._sends = threading.Lock()  # a slave beside the master sends, too, and a dropped request loses its message
        self.given_up: set[int] = set()

    @property
    def rank(self) -> int:
        rank: int = self._comm.Get_rank()
        return rank

    @property
    def size(self) -> int:
        size: int = self._comm.Get_size()
        return size

    @property
    def evaluators(self) -> Sequence[int]:
        return range(1, self.size)

    @property
    def mpi(self) -> Any:
        """The communicator that this was made of. What is sent there no search receives."""
        return self._given

    @property
    def host(self) -> str:
        """Name of the host that this rank runs on: in a pod, the pod's."""
        return str(self._processor)

    @property
    def is_damaged(self) -> bool:
        """Whether ranks were lost or given up. Such a job ends by `abort`: Open MPI 5.0's MPI_Finalize waits for ranks
        that were given up, and after a loss, though seldom, for ever."""
        return bool(self.given_up or self._known_lost)

    def now(self) -> float:
        return time.monotonic()

    def send(self, message: Any, to: int) -> None:
        """Does not wait for the receiver, which may be stuck."""
        with self._sends:
            self._sending = [request for request in self._sending if not self._sent(request.Test)]
            self._sent(lambda: self._sending.append(self._comm.isend(message, dest=to)))

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        while deadline is None or self.now() < deadline:
            if deadline is not None:
                self._timer.set(deadline)
            received = self._received(source)
            if received is not None:
                return received
        return self._probed(source, PROBES)

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return self._probed(source, 1)  # more would cost quick trials a fifth of their speed

    def _probed(self, source: int, probes: int) -> tuple[int, Any] | None:
        for _ in range(probes):
            while self._alert(self._comm.iprobe, source=self._source(source)):
                received = self._received(source)
                if received is not None:
                    return received
        return None

    def _received(self, source: int) -> tuple[int, Any] | None:
        """The next message, waited for; None for one that only wakes, for this receive or for one long over."""
        status = self._mpi.Status()
        message = self._alert(self._comm.recv, source=self._source(source), status=status)
        if message == _WAKE and status.Get_source() == self.rank:
            return None
        return status.Get_source(), message

    def _source(self, source: int) -> int:
        return int(self._mpi.ANY_SOURCE) if source == ANY else source

    def _alert(self, call: Any, **arguments: Any) -> Any:
        """A call of MPI; raises `RanksLostError` where it fails since ranks are lost."""
        try:
            return call(**arguments)
        except self._mpi.Exception as error:
            if not self._is_loss(error):
                raise
            raise RanksLostError(self._newly_lost()) from error

    def broadcast(self, message: Any) -> Any:
        return self._comm.bcast(message, root=0)

    def gather(self, message: Any) -> Sequence[Any] | None:
        gathered: Sequence[Any] | None = self._comm.gather(message, root=0)
        return gathered

    def abort(self, code: int) -> None:
        """Ends every rank of the job; for an error after which the ranks no longer agree."""
        self._given.Abort(code)

    def close(self) -> None:
        """Nothing is received with a deadline any more."""
        self._timer.close()

    def _ring(self) -> None:
        self._comm.send(_WAKE, dest=self.rank)

    def _sent(self, call: Callable[[], Any]) -> bool:
        """What a call of MPI says of a message; one to a rank that is lost counts as sent."""
        try:
            return bool(call())
        except self._mpi.Exception as error:
            if not self._is_loss(error):
                raise
            return True

    def _is_loss(self, error: Any) -> bool:
        return error.Get_error_class() in (self._mpi.ERR_PROC_FAILED, self._mpi.ERR_PROC_FAILED_PENDING)

    def _newly_lost(self) -> list[int]:
        """Ranks that died since the last time. After it, receives from any source go on without them."""
        group = self._comm.Get_failed()
        self._comm.Ack_failed(group.Get_size())
        ranks = self._mpi.Group.Translate_ranks(group, range(group.Get_size()), self._comm.Get_group())
        lost = [int(rank) for rank in ranks if rank not in self._known_lost]
        self._known_lost.update(lost)
        return lost


class Solo:
    """A world of one rank, for a search without MPI."""

    rank, size = 0, 1
    evaluators: Sequence[int] = ()

    def __init__(self) -> None:
        self.host = socket.gethostname()
        self.mpi = OneRank()
        self.given_up: set[int] = set()

    def now(self) -> float:
        return time.monotonic()

    def send(self, message: Any, to: int) -> None:
        raise ValueError(f"there is no rank {to} in a world of one")

    def receive(self, source: int = ANY, deadline: float | None = None) -> tuple[int, Any] | None:
        raise ValueError("there is nobody to receive from in a world of one")

    def pending(self, source: int = ANY) -> tuple[int, Any] | None:
        return None

    def broadcast(self, message: Any) -> Any:
        return message

    def gather(self, message: Any) -> Sequence[Any] | None:
        return [message]

    def close(self) -> None:
        """There is nothing to close."""


class OneRank:
    """A world of one in mpi4py's spelling, for code that was written for an MPI communicator."""

    rank, size = 0, 1

    def Get_rank(self) -> int:  # noqa: N802 - mpi4py's name
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def bcast(self, message: Any, root: int = 0) -> Any:
        return message

    def gather(self, message: Any, root: int = 0) -> list[Any]:
        return [message]

    def Barrier(self) -> None:  # noqa: N802
        """Nobody is waited for."""


@contextlib.contextmanager
def communicator(comm: Any) -> Iterator[Communicator]:
    """`comm` as the protocol needs it: one of mpi4py's is wrapped until the block is left, and for None `world` made.

    Any other is taken as it is, and whoever made it closes it.
    """
    if comm is not None and not hasattr(comm, "Get_rank"):
        yield comm
        return
    with contextlib.closing(world() if comm is None else MpiWorld(comm)) as made:
        yield made


LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")
"""Environment variables that MPI's launchers set for the ranks they start."""


def world() -> MpiWorld | Solo:
    """All ranks where a launcher of MPI started this process, else this process alone; MPI is not initialized then."""
    return MpiWorld() if any(name in os.environ for name in LAUNCHERS) else Solo()
