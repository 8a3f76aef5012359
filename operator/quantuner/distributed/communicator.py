"""What the protocol needs of MPI, and mpi4py's world as that."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, Protocol

ANY = -1  # any source; MPI.ANY_SOURCE in Open MPI too, and the conversion below does not rely on it


class Communicator(Protocol):
    """Point-to-point messages of plain Python objects between numbered ranks, in order per pair."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def send(self, message: Any, to: int) -> None: ...

    def receive(self, source: int = ANY) -> tuple[int, Any]:
        """Blocks for a message; returns its source and itself."""

    def broadcast(self, message: Any) -> Any:
        """Gives rank 0's message to every rank; all ranks call it."""

    def gather(self, message: Any) -> Sequence[Any] | None:
        """Gives rank 0 every rank's message in rank order, the others None; all ranks call it."""


class MpiWorld:
    """An MPI communicator. Importing mpi4py initializes MPI, so it is done here, not with the module."""

    def __init__(self, comm: Any = None) -> None:
        """`comm` is mpi4py's; None takes MPI.COMM_WORLD."""
        from mpi4py import MPI

        self._any = MPI.ANY_SOURCE
        self._status = MPI.Status
        self._comm = comm or MPI.COMM_WORLD
        self._processor = MPI.Get_processor_name()

    @property
    def rank(self) -> int:
        rank: int = self._comm.Get_rank()
        return rank

    @property
    def size(self) -> int:
        size: int = self._comm.Get_size()
        return size

    @property
    def host(self) -> str:
        """Name of the host that this rank runs on: in a pod, the pod's."""
        return str(self._processor)

    def send(self, message: Any, to: int) -> None:
        self._comm.send(message, dest=to)

    def receive(self, source: int = ANY) -> tuple[int, Any]:
        status = self._status()
        message = self._comm.recv(source=self._any if source == ANY else source, status=status)
        return status.Get_source(), message

    def broadcast(self, message: Any) -> Any:
        return self._comm.bcast(message, root=0)

    def gather(self, message: Any) -> Sequence[Any] | None:
        gathered: Sequence[Any] | None = self._comm.gather(message, root=0)
        return gathered

    def abort(self, code: int) -> None:
        """Ends every rank of the job; for an error after which the ranks no longer agree."""
        self._comm.Abort(code)


class Solo:
    """A world of one rank, for a search without MPI."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self.host = socket.gethostname()

    def send(self, message: Any, to: int) -> None:
        raise ValueError(f"there is no rank {to} in a world of one")

    def receive(self, source: int = ANY) -> tuple[int, Any]:
        raise ValueError("there is nobody to receive from in a world of one")

    def broadcast(self, message: Any) -> Any:
        return message

    def gather(self, message: Any) -> Sequence[Any] | None:
        return [message]


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


def communicator(comm: Any) -> Communicator:
    """`comm` as the protocol needs it: one of mpi4py's is wrapped, any other is taken as it is."""
    return MpiWorld(comm) if hasattr(comm, "Get_rank") else comm


LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")
"""Environment variables that MPI's launchers set for the ranks they start."""


def world() -> Communicator:
    """All ranks where a launcher of MPI started this process, else this process alone; MPI is not initialized then."""
    return MpiWorld() if any(name in os.environ for name in LAUNCHERS) else Solo()
