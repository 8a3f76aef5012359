"""Steps that all ranks take together: where one of them fails, all raise the same error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quantuner.api.conditions import Failure
from quantuner.api.errors import InvalidResourceError, SearchError
from quantuner.distributed.communicator import Communicator
from quantuner.distributed.leaving import forget, leaving
from quantuner.engine.entrypoint import user_error

T = TypeVar("T")


def agreed(comm: Communicator, step: Callable[[], T]) -> T:
    """Runs a step on every rank; where it fails on any of them, all raise the lowest such rank's error."""
    value: T | None = None
    error: SearchError | None = None
    try:
        value = step()
    except BaseException as raised:  # a rank that just ended would leave the others waiting
        error = _as_search_error(raised)
    errors = comm.gather(error)
    first = next(((rank, e) for rank, e in enumerate(errors or ()) if e is not None), None)
    failed = comm.broadcast(first)
    if failed is not None:
        rank, error = failed
        raise SearchError(error.reason, f"{error.message} (on rank {rank})" if rank else error.message, error.traceback)
    return value  # type: ignore[return-value]  # the step returned, since no rank failed


def on_rank_0(comm: Communicator, step: Callable[[], T]) -> T:
    """Runs a step on rank 0 and gives every rank its result, or its error."""
    value = agreed(comm, lambda: step() if comm.rank == 0 else None)
    result: T = comm.broadcast(value)
    return result


def searched(comm: Communicator, search: Callable[[], T]) -> T:
    """`agreed` for a search, in which rank 0 is the others' master: where one leaves it with an error, all do."""

    def leave() -> T:
        with leaving(comm):
            try:
                return search()
            except BaseException as raised:
                raise _as_search_error(raised, "searching") from raised

    try:
        return agreed(comm, leave)
    except SearchError:
        forget(comm)
        raise


def _as_search_error(error: BaseException, doing: str = "setting up") -> SearchError:
    if isinstance(error, SearchError):
        return error
    if isinstance(error, InvalidResourceError):
        return SearchError(Failure.INTERNAL_ERROR, f"the resource cannot be read: {error}")
    if isinstance(error, OSError):
        remedy = "every rank needs the right to that path, and room on its disk"
        return SearchError(Failure.INTERNAL_ERROR, f"a file cannot be read or written: {error}; {remedy}")
    return user_error(Failure.INTERNAL_ERROR, doing, error)
