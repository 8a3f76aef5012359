"""What a search needs of those who evaluate: results of a numbered batch, told in index order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import Answered
from quantuner.distributed.begun import Begun
from quantuner.distributed.losses import Losses
from quantuner.distributed.protocol import Work

Evaluate = Callable[[Any], TrialResult]


@dataclass(frozen=True)
class Told:
    """A result as it is told: in index order, whatever the order in which ranks answered."""

    index: int
    result: TrialResult
    rank: int
    running: int
    """Ranks at work when this one was told."""
    earlier: bool = False
    """Whether an earlier launch has measured it."""


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

    def __init__(
        self,
        evaluate: Evaluate,
        answered: Answered | None = None,
        losses: Losses | None = None,
        begun: Begun | None = None,
    ) -> None:
        """`answered` has what an earlier launch, of more ranks, measured and did not tell; `losses` which trials took
        ranks with them before; `begun` is where this one is told which trial it is at.
        """
        self._evaluate = evaluate
        self._answered = answered or Answered()
        self._losses = losses or Losses()
        self._begun = begun or Begun()

    def run(self, first: int, payloads: Sequence[Any], tell: Tell) -> bool:
        known = self._answered.known(range(first, first + len(payloads)))
        return any(
            tell(Told(index, *known[index], running=0, earlier=True))
            if index in known
            else tell(Told(index, self._losses.failed(index) or self._measured(index, payload), rank=0, running=0))
            for index, payload in enumerate(payloads, first)
        )

    def _measured(self, index: int, payload: Any) -> TrialResult:
        with self._begun.trial(index):
            return self._evaluate(payload)

    def close(self) -> None:
        self._begun.close()


def work_of(evaluate: Evaluate | Work) -> Work:
    """A function alone is work that cannot be divided."""
    return evaluate if isinstance(evaluate, Work) else Work(evaluate)
