"""Ranks compare what decides an accuracy's bits before they compute any, and agree on their number of threads."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import History
from quantuner.api.spec import Tuning
from quantuner.distributed.communicator import Communicator
from quantuner.distributed.processors import Processors, share
from quantuner.engine.engine import cpu_kind, libraries, threads_in_use

logger = logging.getLogger(__name__)

_IMAGE = "start every rank from one image or one installation"
REMEDIES = {
    "quantuner": _IMAGE,
    "torch": _IMAGE,
    "torchao": _IMAGE,
    "Python": _IMAGE,
    "CPU": "let template.nodeSelector choose nodes of one kind, whose torch uses the same instructions",
    "threads": "let the task's code leave torch's number of threads alone, or set the same on every rank",
    "code": "give every rank the same files of the task",
    "model": "every rank must get the same weights: seed what the task trains or load them from a file",
    "data": "every rank must read the same batches in the same order: no shuffling, or a seeded one",
}
"""What is compared, and what to do where it differs."""

Facts = Mapping[str, str]
"""Values of what is compared, by the names of `REMEDIES`."""


@dataclass(frozen=True)
class Card:
    """What a rank says of itself."""

    host: str
    facts: Facts


@dataclass(frozen=True)
class Machine:
    """What a rank can compute with."""

    card: Card
    processors: Processors
    threads: int
    """As torch would take, or as the user or OMP_NUM_THREADS has set."""


def this_machine() -> Machine:
    host = socket.gethostname()
    facts = {**libraries(), "Python": platform.python_version(), "CPU": cpu_kind()}
    return Machine(Card(host, facts), Processors.here(host), threads_in_use())


def meet(comm: Communicator, threads: int | None) -> int:
    """Compares the ranks' libraries and CPUs, and returns the number of threads for all; all ranks call it.

    `threads` is rank 0's word, None leaves the number to the machines: the least that any rank has. Raises
    `SearchError` (RanksDiffer) on every rank where one differs from rank 0.
    """
    machines = comm.gather(this_machine())
    found = comm.broadcast(_decided(machines, threads) if machines else None)
    if isinstance(found, str):
        raise SearchError(Failure.RANKS_DIFFER, found)
    number: int = found
    return number


def same_everywhere(comm: Communicator, facts: Facts) -> tuple[str, ...]:
    """Compares these facts of all ranks and returns the host of each on rank 0, none elsewhere; all ranks call it.

    Raises `SearchError` (RanksDiffer) on every rank where one differs from rank 0.
    """
    cards = comm.gather(Card(socket.gethostname(), facts)) or ()
    found = comm.broadcast(difference(cards))
    if found is not None:
        raise SearchError(Failure.RANKS_DIFFER, found)
    return tuple(card.host for card in cards)


def threads_of(tuning: Tuning, history: History) -> int | None:
    """Threads of a rank: as the user set them, else as results were computed, else as the pods' CPUs say.

    None leaves the number to the machines. A resource whose slots have changed so goes on with the number that it
    began with; where the user's own contradicts the record, the launch is refused.
    """
    if isinstance(tuning.threads, int):
        return tuning.threads
    return recorded_threads(history) or tuning.threads_per_rank


def recorded_threads(history: History) -> int | None:
    """With which the results of a history were computed; None where there are none, or it does not say."""
    return history.launches[-1].threads or None if history.trials and history.launches else None


def difference(cards: Sequence[Card]) -> str | None:
    """How the first rank that differs from rank 0 does so, and what to do; None where all are alike."""
    odd = [rank for rank, card in enumerate(cards) if card.facts != cards[0].facts]
    if not odd:
        return None
    first, other = cards[0], cards[odd[0]]
    names = [name for name in REMEDIES if other.facts.get(name) != first.facts.get(name)]
    found = ", ".join(f"{name} is {other.facts.get(name)} and not {first.facts.get(name)}" for name in names)
    further = f" (ranks that differ: {', '.join(map(str, odd))})" if len(odd) > 1 else ""
    remedies = "; ".join(dict.fromkeys(REMEDIES[name] for name in names))
    return f"rank {odd[0]} on {other.host} differs from rank 0 on {first.host}: {found}{further}; {remedies}"


def _decided(machines: Sequence[Machine], threads: int | None) -> int | str:
    found = difference([machine.card for machine in machines])
    if found is not None:
        return found
    most = share([machine.processors for machine in machines])
    if threads is None:
        return min(most, *(machine.threads for machine in machines))
    if threads > most:
        logger.warning(
            "%d threads a rank, but a host has CPUs for %d: threads that wait for a CPU wait for each other at every "
            "operator. Give it a higher CPU limit or fewer ranks",
            threads,
            most,
        )
    return threads
