"""The trials of one batch and what is known of them, until they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quantuner.api.trial import TrialResult
from quantuner.distributed.protocol import Task, Work


@dataclass
class Batch:
    """Collects answers in any order and gives results in index order."""

    first: int
    payloads: Sequence[Any]
    work: Work | None
    next: int
    """The trial that is told next."""
    answered: dict[int, tuple[TrialResult, int]] = field(default_factory=dict)
    """Trial to its result and the rank that gave it; of those that are not told yet."""
    _fresh: list[int] = field(default_factory=list)
    _shares: dict[int, dict[int, Any]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.next == self.first + len(self.payloads)

    def payload(self, index: int) -> Any:
        return self.payloads[index - self.first]

    def answer(self, index: int, result: TrialResult, rank: int) -> None:
        """Takes a trial's result; what is known of its shares is forgotten."""
        self._shares.pop(index, None)
        self.answered[index] = (result, rank)
        self._fresh.append(index)

    def share(self, task: Task, value: Any, rank: int) -> None:
        """Takes a share's result; with the last one the trial has its own."""
        if self.work is None or self.work.combine is None:
            raise TypeError(f"{task} was answered, but nobody knows how to put shares together")
        shares = self._shares.setdefault(task.index, {})
        shares[task.part] = value
        if len(shares) == task.parts:
            ordered = [shares[part] for part in range(task.parts)]
            self.answer(task.index, self.work.combine(self.payload(task.index), ordered), rank)

    def waiting(self) -> dict[int, tuple[TrialResult, int]]:
        """Results that came since the last call and wait for earlier ones."""
        fresh, self._fresh = self._fresh, []
        return {index: self.answered[index] for index in fresh if index in self.answered}

    def forget_shares(self, index: int) -> None:
        self._shares.pop(index, None)

    def take(self) -> tuple[int, TrialResult, int] | None:
        """Index, result and rank of the next trial to tell; None where it is not answered yet."""
        if self.next not in self.answered:
            return None
        index, self.next = self.next, self.next + 1
        return (index, *self.answered.pop(index))
