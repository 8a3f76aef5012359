"""Measuring the baseline, trials and shares of trials of one engine."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from quantuner.api.task import Task
from quantuner.api.trial import Limit, TrialResult
from quantuner.engine.entrypoint import failed_trial
from quantuner.engine.evaluate import evaluate, listening
from quantuner.engine.footprint import MEBI, Footprint
from quantuner.engine.metrics import Bounded, Evaluation
from quantuner.engine.shares import TrialShare
from quantuner.engine.sizes import bytes_of
from quantuner.space.config import TuneConfig

SHARES = 8  # of an evaluation of which it is not known how many batches it has: the record knew the baseline


class Measuring(ABC):
    """What an engine measures; how it makes the models is its own."""

    task: Task
    objectives: tuple[str, ...]
    judge: Callable[[Any], float]
    """Model to accuracy."""
    between_batches: Callable[[], None] | None = None
    """Called before each batch of a trial; raises what is to break it off."""

    @abstractmethod
    def size(self, config: TuneConfig) -> float:
        """Modelled MiB of parameters and buffers."""

    @abstractmethod
    def _for_evaluation(self, config: TuneConfig) -> Any:
        """A model that computes as the quantized one does, to the bit."""

    @abstractmethod
    def _is_switched(self, config: TuneConfig) -> bool:
        """Whether that is made without converting."""

    def baseline(self) -> TrialResult:
        """Measures the user's own fp32 model, in evaluation mode as every trial. Raises what `evaluate` raises."""
        model = copy.deepcopy(self.task.model).eval()  # a copy: the user's is not changed
        measured = self.measure(model)
        return replace(measured, rows=self.judge.rows) if isinstance(self.judge, Evaluation) else measured

    def measure(
        self, model: Any, config: TuneConfig | None = None, judge: Callable[[Any], float] | None = None
    ) -> TrialResult:
        """Evaluates a model, and what was configured to be measured of it. Raises what `evaluate` raises.

        `judge` evaluates instead of the task's function.
        """
        with Footprint("footprint" in self.objectives) as footprint:
            accuracy, seconds = evaluate(model, judge or self.judge)
        known = {"performance": seconds, "accuracy": accuracy, "footprint": footprint.mebi}
        known["modelsize"] = bytes_of(model) / MEBI if config is None else self.size(config)
        return TrialResult(accuracy=accuracy, objectives={o: known[o] for o in self.objectives}, seconds=seconds)

    def trial(self, config: TuneConfig, limit: Limit | None = None) -> TrialResult:
        """Quantizes and measures; what fails in it is the trial's result, not an error of the search.

        Where a limit is given and a built-in metric judges, a trial that is proven to be worse is abandoned.
        """
        started = time.monotonic()
        judge = self.judge
        bounded = Bounded(judge, limit) if limit is not None and isinstance(judge, Evaluation) else None
        try:
            model = self._for_evaluation(config)
            with listening(model, self.between_batches):
                measured = self.measure(model, config, bounded)
        except Exception as error:  # one configuration that fails must not end a search of thousands
            return failed_trial(
                error, "the trial", time.monotonic() - started, None if bounded is None else bounded.bound
            )
        abandoned = bounded is not None and bounded.abandoned
        return replace(measured, is_bound=abandoned, seconds=time.monotonic() - started)

    def shares(self, config: TuneConfig) -> int:
        """Into how many shares a trial can be divided, one a batch; 1 where it cannot.

        The accuracy must be made of sums over rows, and the model be switched: to convert, correct or train it on
        every rank would cost more than is divided, and objectives that trials are compared by are those of one rank.
        """
        judge = self.judge
        if not (isinstance(judge, Evaluation) and judge.divisible and self._is_switched(config)):
            return 1
        return max(1, SHARES if judge.batches is None else judge.batches)

    def trial_part(self, config: TuneConfig, part: int, parts: int) -> TrialShare:
        """Quantizes, and evaluates one share of the batches. Raises what fails in it: the whole trial then says why."""
        started = time.monotonic()
        judge = self._divided_judge()
        model = self._for_evaluation(config)
        with Footprint("footprint" in self.objectives) as footprint, listening(model, self.between_batches):
            evaluating = time.monotonic()
            with torch.no_grad():
                share = judge.share(model, part, parts)
            ended = time.monotonic()
        return TrialShare(share, ended - started, ended - evaluating, footprint.mebi)

    def trial_of_parts(
        self, config: TuneConfig, shares: Sequence[TrialShare], limit: Limit | None = None
    ) -> TrialResult:
        """What `trial` gives, the accuracy to the bit, of all shares in order; seconds are those of all ranks.

        Uses nothing that changes while another thread evaluates. Raises `ValueError` where shares are of other data
        than each other or than the limit's rows, so that only a whole trial tells.
        """
        accuracy, rows = self._divided_judge().together([one.share for one in shares])
        if limit is not None and rows != limit.rows:
            raise ValueError(f"eval_dataloader gave {rows} rows, and {limit.rows} for the baseline")
        if not math.isfinite(accuracy):
            raise ValueError(f"the accuracy is {accuracy}, which is no finite number")
        known = {
            "performance": sum(one.evaluation_seconds for one in shares),
            "accuracy": accuracy,
            "footprint": max(one.footprint for one in shares),
            "modelsize": self.size(config),
        }
        seconds = sum(one.seconds for one in shares)
        return TrialResult(accuracy=accuracy, objectives={o: known[o] for o in self.objectives}, seconds=seconds)

    def _divided_judge(self) -> Evaluation:
        if not (isinstance(self.judge, Evaluation) and self.judge.divisible):
            raise ValueError("only an evaluation by built-in metrics can be divided")
        return self.judge
