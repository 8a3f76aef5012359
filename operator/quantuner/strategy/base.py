"""TuneStrategy: what every strategy shares. A strategy asks in stages; this class runs, tells and stops."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantuner.api.journal import Finished, History, Outcome, Trial
from quantuner.api.spec import Tuning
from quantuner.api.task import Task
from quantuner.api.trial import TrialResult
from quantuner.distributed.communicator import Communicator, MpiWorld
from quantuner.distributed.executors import Executor, Master, Serial, serve
from quantuner.engine.engine import Engine
from quantuner.space.config import TuneConfig
from quantuner.space.samplers import initial
from quantuner.strategy.search import MemoryRecorder, Recorder, Search


class TuneStrategy(ABC):
    """Base of all strategies, with the members of Neural Compressor 2.x's class of this name.

    A subclass implements `stages`: lists of configurations whose members do not depend on each other's
    results. Between two lists it may read `cur_best_tuning_cfg`, `accuracy_of` and `last_tune_result`;
    all results of a list are told, in order, before the next list is asked for. So a search is the same
    for any number of ranks.
    """

    def __init__(
        self,
        model: Any,
        conf: Tuning,
        q_dataloader: Any = None,
        q_func: Callable[..., Any] | None = None,
        eval_dataloader: Any = None,
        eval_func: Callable[[Any], float] | None = None,
        resume: History | None = None,
        q_hooks: Any = None,
    ) -> None:
        """Captures the model and creates the tuning space.

        `model` is a torch.nn.Module or an `Engine` that has one; `conf` the resource; `q_dataloader` the
        calibration batches; `eval_func(model) -> float` the accuracy; `resume` the history to continue.
        Raises `ValueError` for arguments that this version does not take, `SearchError` where the model
        cannot be captured.
        """
        for name, value in (("q_func", q_func), ("eval_dataloader", eval_dataloader), ("q_hooks", q_hooks)):
            if value is not None:
                raise ValueError(f"{name} is not supported yet; calibrate with q_dataloader and judge with eval_func")
        if isinstance(model, Engine):
            self.engine = model
        else:
            if eval_func is None or q_dataloader is None:
                raise ValueError("a search needs q_dataloader (calibration batches) and eval_func (model -> accuracy)")
            task = Task(model=model, calib_dataloader=q_dataloader, eval_func=eval_func)
            self.engine = Engine(task, conf.quantization, conf.tuning_criterion.objectives)
        self.conf = conf
        self.recorder: Recorder = MemoryRecorder(resume or History())
        """Where the search is recorded; set it before `traverse` to keep the record."""
        self.folder = Path("quantuner_workspace") / "model"
        """Where the best model is saved."""
        self.artifact_name = ""
        """How the record names that folder; empty takes its path."""
        self.comm: Communicator | None = None
        """The ranks of `distributed_traverse`; None takes MPI's world."""
        self.baseline: TrialResult | None = None
        self.last_tune_result: TrialResult | None = None
        self.last_tune_cfg: TuneConfig | None = None
        self.cur_best_acc = self.initial_best_acc()
        self.trials_count = 0
        self.set_tuning_space(conf)
        self.cur_best_tuning_cfg = initial(self.tuning_space)
        self._accuracies: dict[str, float | None] = {}
        self._started = self._elapsed_before = 0.0

    # --- what a strategy decides

    @abstractmethod
    def stages(self) -> Iterator[list[TuneConfig]]:
        """Yields lists of configurations that are independent of each other."""

    def next_tune_cfg(self) -> Iterator[TuneConfig]:
        """Yields the configurations one by one, each after the result of the one before it was told."""
        for stage in self.stages():
            yield from stage

    def distributed_next_tune_cfg_lst(self, comm: Communicator) -> Iterator[list[TuneConfig]]:
        """Yields the lists that ranks evaluate together. `comm` has no influence on them, by design."""
        yield from self.stages()

    # --- what a strategy may ask

    def set_tuning_space(self, conf: Tuning) -> None:
        """Creates the tuning space from the model's capability and the user's constraints."""
        self.tuning_space = self.engine.space

    def initial_best_acc(self) -> float:
        """The accuracy that every other one beats: -inf, or +inf where lower is better."""
        return float("-inf") if self.conf.accuracy_criterion.higher_is_better else float("inf")

    def accuracy_of(self, config: TuneConfig) -> float | None:
        """Accuracy told for `config`; None where it failed. Raises `KeyError` for one that was not told."""
        return self._accuracies[config.digest]

    def meet_acc_req(self, eval_res: TrialResult) -> bool:
        """Whether a result's accuracy meets the criterion against the baseline; exactly on target does.

        Raises `RuntimeError` before the baseline is known.
        """
        if self.baseline is None or self.baseline.accuracy is None:
            raise RuntimeError("the baseline is measured before the first trial is judged")
        return eval_res.accuracy is not None and self.conf.accuracy_criterion.meets(
            eval_res.accuracy, self.baseline.accuracy
        )

    def update_best_op_tuning_cfg(self, op_tuning_cfg: TuneConfig) -> tuple[float, TuneConfig]:
        """Compares the last result with the best so far; a tie goes to the later configuration.

        Returns the best accuracy and its configuration. Source: tuning order of Neural Compressor 2.x.
        """
        accuracy = self.last_tune_result.accuracy if self.last_tune_result else None
        better = self.conf.accuracy_criterion.better
        if accuracy is not None and not better(self.cur_best_acc, than=accuracy):
            self.cur_best_acc, self.cur_best_tuning_cfg = accuracy, op_tuning_cfg
        return self.cur_best_acc, self.cur_best_tuning_cfg

    def stop(self, timeout: float, trials_count: int) -> Outcome | None:
        """Why the search ends after `trials_count` told trials, or None where it goes on.

        `timeout` is in seconds of searching, 0 for no limit. The first configuration that meets the
        criterion ends it.
        """
        if self.last_tune_result is not None and self.meet_acc_req(self.last_tune_result):
            return Outcome.TARGET_MET
        if trials_count >= self.conf.tuning_criterion.max_trials:
            return Outcome.MAX_TRIALS
        return Outcome.TIMEOUT if timeout and self.elapsed() >= timeout else None

    def elapsed(self) -> float:
        """Seconds of searching, those of earlier launches included."""
        return self._elapsed_before + time.monotonic() - self._started

    # --- the search

    def traverse(self) -> Finished:
        """Searches in this process and returns how it ended. Raises what `Search.run` raises."""
        return self._search(Serial(self._evaluate))

    def distributed_traverse(self) -> Finished | None:
        """Searches on all ranks of `self.comm`; returns the end on rank 0 and None elsewhere."""
        comm = self.comm or MpiWorld()
        if comm.size == 1:
            return self.traverse()
        if comm.rank == 0:
            return self.master_worker_handle(comm)
        self.slave_worker_handle(comm)
        return None

    def master_worker_handle(self, comm: Communicator) -> Finished:
        """Rank 0: assigns trials to the slaves and tells their results in index order.

        Raises `ValueError` for a world of one rank, and what `Search.run` raises.
        """
        return self._search(Master(comm))

    def slave_worker_handle(self, comm: Communicator) -> int:
        """Every other rank: evaluates what the master assigns, until it ends; returns how many trials."""
        return serve(comm, self._evaluate)

    def _evaluate(self, payload: dict[str, Any]) -> TrialResult:
        return self.engine.trial(TuneConfig.from_plain(payload))

    def _search(self, executor: Executor) -> Finished:
        told = self.recorder.history.trials
        self._elapsed_before = told[-1].elapsed if told else 0.0
        self._started = time.monotonic()
        try:
            return Search(self, executor, self.recorder).run(self.folder)
        finally:
            executor.close()

    def tell(self, config: TuneConfig, trial: Trial) -> None:
        """Takes a told trial, live or from the journal, into what `stages` may read."""
        self.trials_count += 1
        self.last_tune_cfg = config
        self.last_tune_result = TrialResult(
            accuracy=trial.accuracy,
            objectives=dict(trial.objectives),
            seconds=trial.seconds,
            error=trial.error,
        )
        self._accuracies[config.digest] = trial.accuracy
        self.update_best_op_tuning_cfg(config)
