"""TuneStrategy: what every strategy shares. A strategy asks in stages; this class runs, tells and stops."""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, History, Outcome, Selection
from quantuner.api.spec import Tuning
from quantuner.api.task import Task
from quantuner.api.trial import Limit, TrialResult
from quantuner.config import Config, config_of, tuning_of
from quantuner.distributed.answered import Answered
from quantuner.distributed.begun import Begun
from quantuner.distributed.communicator import Communicator, OneRank, communicator
from quantuner.distributed.executors import Executor, Serial
from quantuner.distributed.losses import Losses
from quantuner.distributed.timeline import Observer, Quiet, Watched
from quantuner.engine.data import first_batch_digest
from quantuner.engine.engine import Engine, threads, threads_in_use
from quantuner.engine.judging import judged_by
from quantuner.engine.modulewise.engine import engine_of
from quantuner.engine.ranges import RANGES_FILE, KeptRanges
from quantuner.space.config import TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.distribution import master, slave
from quantuner.strategy.evaluating import evaluated
from quantuner.strategy.head_start import HeadStart
from quantuner.strategy.meeting import meet, recorded_threads, same_everywhere
from quantuner.strategy.objectives import Objectives
from quantuner.strategy.overridden import WAYS
from quantuner.strategy.ranks import agreed, on_rank_0
from quantuner.strategy.recording import Identity, launch
from quantuner.strategy.resuming import history_from, ranges_beside
from quantuner.strategy.search import MemoryRecorder, Recorder, Search
from quantuner.strategy.spaced import Spaced
from quantuner.strategy.state import State

logger = logging.getLogger(__name__)

DEPLOYED = ("inputs", "outputs", "backend", "quant_format", "domain")
"""Settings of the model that `deploy.yaml` repeats."""


class TuneStrategy(Spaced):
    """Base of all strategies, with the members of Neural Compressor 2.x's class of this name.

    A subclass defines one of these, each a generator that may read between two yields what was told so far:

    - `stages()`: lists of configurations whose members do not depend on each other's results;
    - `next_tune_cfg()`: one configuration at a time, each asked when the one before was told;
    - `distributed_next_tune_cfg_lst(comm)`: as `stages`, in Neural Compressor's form.

    All results of a list are told, in order, before the next list is asked for. So a search is the same for any
    number of ranks, and is spread over ranks as far as its lists are long.
    """

    accepts: ClassVar[tuple[str, ...] | None] = None
    """Keys of `strategy_kwargs` that this strategy reads; where a class does not say, any."""
    checks: ClassVar[Mapping[str, arguments.Check]] = {}
    """What their values must be, by key."""
    refines = False
    """Whether the strategy goes on after a first success, to quantize more; the cheapest success then wins.

    `re_quant`, once it was set, says the same of the search.
    """

    def __init__(
        self,
        model: Any,
        conf: Tuning | Config,
        q_dataloader: Iterable[Any] | None = None,
        q_func: Callable[[Any], Any] | None = None,
        eval_dataloader: Iterable[Any] | None = None,
        eval_func: Callable[[Any], float] | None = None,
        resume: History | Mapping[str, Any] | str | Path | None = None,
        q_hooks: Mapping[str, Callable[[Any], Any]] | None = None,
        eval_metric: Any = None,
    ) -> None:
        """Captures the model and creates the tuning space.

        `model` is a torch.nn.Module in fp32, or an `Engine` that has one with its data; `conf` a
        PostTrainingQuantConfig, a QuantizationAwareTrainingConfig or a parsed resource; `q_dataloader` the
        calibration batches; `q_func(model)` trains the prepared model where the approach is training; the accuracy
        is `eval_func(model) -> float`, or comes from `eval_dataloader` and `eval_metric`; `resume` names what
        `setup_resume` takes; `q_hooks` has callbacks by the names on_train_begin and on_train_end.

        Raises `ValueError` for arguments that do not go together, `SearchError` where the model cannot be captured
        or the constraints do not fit it.
        """
        self.conf = conf
        self.tuning: Tuning = conf if isinstance(conf, Tuning) else tuning_of(conf)
        self._check_kwargs()
        self.config: Config = config_of(conf) if isinstance(conf, Tuning) else conf
        self.q_func, self.q_hooks = q_func, arguments.hooks(q_hooks)
        self.calib_dataloader, self.eval_dataloader, self.eval_metric = q_dataloader, eval_dataloader, eval_metric
        self.eval_func = eval_func
        self.engine = model if isinstance(model, Engine) else self._engine(model)
        arguments.direction(self.engine.judge, self.tuning.accuracy_criterion)
        self._take_missing(self.engine.task)
        self.model: Any = self.engine.task.model
        """What `evaluation_result` evaluates."""
        self.framework = "pytorch"
        self.recorder: Recorder = MemoryRecorder(History())
        """Where the search is recorded; set it before `traverse` to keep the record."""
        self.folder = Path("quantuner_workspace") / "model"
        """Where the best model is saved."""
        self.observer: Observer = Quiet()
        """Is told what ranks did when; set it before the search to keep that."""
        self.losses = Losses()
        """Which trials took ranks with them; set it before the search to keep that through relaunches."""
        self.begun = Begun()
        """Which trial a search in series is at; set it before the search where somebody outlives this process."""
        self.hosts_answer: Callable[[], bool] = lambda: True
        """Whether all hosts of the ranks answer; set it before the search where hosts may be lost."""
        self.answered = Answered()
        """Results that wait for earlier ones; set it before the search to keep them through relaunches."""
        self.artifact_name = ""
        """How the record names that folder; empty takes its path."""
        self.head_start = HeadStart(self)
        """What rank 0 does of the next search before it meets the other ranks."""
        self.identity = Identity.of(self.tuning)
        """What its record calls this search."""
        self.comm: Communicator | None = None
        """The ranks of `traverse`; None takes all that MPI's launcher started, or this process alone."""
        self.served: int | None = None
        """Trials that this rank evaluated as a slave; None where it was none."""
        self._is_set_up = False
        """Whether `share_setup` has run for the next search."""
        self.tune_data = {}
        self.algo_scheduler = self.engine.scheduler
        self.engine.algorithms = self
        self.set_q_func()
        self.set_tuning_space(conf)
        self.objectives = Objectives(self.tuning.tuning_criterion.objectives, self.tuning.accuracy_criterion)
        self.state = self._nothing_told()
        self.engine.timed = self.selection is Selection.OBJECTIVES
        self._started: float | None = None
        self._elapsed_before = 0.0
        self.end = None
        self.setup_resume(resume)

    def _nothing_told(self) -> State:
        criterion = self.tuning.accuracy_criterion
        return State(self.objectives, criterion, self._default(), self.initial_best_acc(), self.refines)

    def _check_kwargs(self) -> None:
        """A key that nobody reads is a mistake; the error names the nearest right one."""
        given = self.tuning.tuning_criterion.strategy_kwargs
        for key, value in given.items():
            if key in self.checks:
                self.checks[key](key, value)
        accepted: tuple[str, ...] | None = vars(type(self)).get("accepts")  # a user's subclass may read more
        if accepted is None:
            return
        for key in given:
            if key not in accepted:
                nearest = difflib.get_close_matches(key, accepted, n=1)
                hint = f" (did you mean {nearest[0]}?)" if nearest else ""
                raise SearchError(
                    Failure.TASK_INVALID,
                    f"tuningCriterion.strategyKwargs: {type(self).__name__} reads no {key!r}{hint}; "
                    f"it reads {', '.join(accepted) or 'none'}",
                )

    def _engine(self, model: Any) -> Engine:
        if self.calib_dataloader is None:
            raise ValueError("q_dataloader is missing; give calibration batches: (input, label) or input")
        judge = judged_by(self.eval_func, self.eval_dataloader, self.eval_metric)
        example = getattr(self.config, "example_inputs", None)
        task = Task(model=model, calib_dataloader=self.calib_dataloader, eval_func=judge, example_inputs=example)
        names = [o.name for o in self.tuning.tuning_criterion.objectives]
        return engine_of(task, self.tuning.quantization, names)

    def _take_missing(self, task: Task) -> None:
        """A strategy that was given an engine alone finds its data where one that was made from objects has them."""
        if self.calib_dataloader is None:
            self.calib_dataloader = task.calib_dataloader
        if self.eval_func is None and self.eval_dataloader is None:
            self.eval_func, self.eval_dataloader = task.eval_func, task.eval_dataloader
            self.eval_metric = task.eval_metric

    # --- what a strategy decides

    def stages(self) -> Iterator[Iterable[TuneConfig]]:
        """Yields lists of configurations that are independent of each other; a list may be lazy."""
        raise NotImplementedError(f"{type(self).__name__} defines none of {', '.join(WAYS)}; define one")

    def next_tune_cfg(self) -> Iterator[Any]:
        """Yields configurations one by one, each after the result of the one before was told.

        A configuration is a dict: (op name, op type) to OpTuningConfig, `calib_sampling_size` and, where they
        differ from the default, `recipe_cfgs`. Every yielded dict is the receiver's own.
        """
        for stage in self.stages():
            for config in stage:
                yield self.as_dict(config)

    def distributed_next_tune_cfg_lst(self, comm: Any) -> Iterator[list[Any]]:
        """Yields the lists of dicts that ranks evaluate together. `comm` has no influence on them, by design."""
        for stage in self.stages():
            yield [self.as_dict(config) for config in stage]

    def asked(self) -> Iterator[Iterable[TuneConfig]]:
        """The stages of this strategy, by whichever way its most derived class defines."""
        way = next(way for cls in type(self).__mro__ for way in WAYS if way in vars(cls))
        if way == "stages":
            yield from self.stages()
        elif way == "next_tune_cfg":
            for body in self.next_tune_cfg():
                yield [self.as_config(body)]
        else:
            for bodies in self.distributed_next_tune_cfg_lst(OneRank()):
                yield [self.as_config(body) for body in bodies]

    def reads_accuracy(self, config: TuneConfig) -> bool:
        """Whether what is asked depends on the accuracy with which `config` misses the criterion.

        `best_config` may: it is the same in any case. Trials of the other configurations may be abandoned before their
        evaluation ends. A class that does not define this reads all, whatever it inherits.
        """
        return True

    def may_abandon(self, config: TuneConfig) -> bool:
        """Whether a trial of `config` need not be measured to its end where it misses the criterion."""
        return "reads_accuracy" in vars(type(self)) and not self.reads_accuracy(config)

    # --- when to stop

    @property
    def selection(self) -> Selection:
        """How the winner is chosen among the trials that meet the criterion."""
        if self.tuning.tuning_criterion.timeout_seconds:
            return Selection.OBJECTIVES
        return Selection.CHEAPEST if self.refines or self.state.has_refined else Selection.FIRST

    def stop(self, timeout: float, trials_count: int) -> bool:
        """Whether the search ends after `trials_count` told trials; `timeout` is in seconds of searching.

        A timeout of 0 ends it at the first configuration that meets the criterion, unless the strategy refines;
        with one it goes on for better objectives until the time is over. `max_trials` ends it in any case.
        """
        if self.best_tune_result is not None and not timeout and not self.re_quant:
            return True
        if trials_count >= self.tuning.tuning_criterion.max_trials:
            return True
        return self.is_late(timeout)

    def is_late(self, timeout: float) -> bool:
        """Whether a time limit is set and over."""
        return timeout > 0 and self.elapsed() >= timeout

    def outcome(self, timeout: float) -> Outcome:
        """Why a search that `stop` ended has ended."""
        if self.best_tune_result is not None and not timeout and not self.re_quant:
            return Outcome.TARGET_MET
        if self.trials_count >= self.tuning.tuning_criterion.max_trials:
            return Outcome.MAX_TRIALS
        return Outcome.TIMEOUT if self.is_late(timeout) else Outcome.STOPPED

    def elapsed(self) -> float:
        """Seconds of searching, those of earlier launches included; 0 before it begins."""
        return 0.0 if self._started is None else self._elapsed_before + time.monotonic() - self._started

    # --- the search

    def setup_resume(self, resume: History | Mapping[str, Any] | str | Path | None) -> None:
        """Continues a search from its record: no told trial is evaluated again.

        `resume` is a History, the path of a journal or of the workspace that holds one, or `{"history": either}`.
        Raises `JournalError` for a damaged one; one of another search is refused when the search begins.
        """
        if resume is not None:
            known = history_from(resume)
            self.recorder = MemoryRecorder(History(launches=[*known.launches], trials=[*known.trials]))
            self.engine.kept_ranges = KeptRanges(self.engine.kept_ranges.path, ranges_beside(resume))

    def keep_ranges(self, folder: Path) -> None:
        """Calibrated ranges are kept in `folder`, and a search that finds its own there does not calibrate.

        Called on rank 0, before it calibrates; those of a search that is resumed are looked for, too.
        """
        self.engine.kept_ranges = KeptRanges(folder / RANGES_FILE, self.engine.kept_ranges.others)

    def traverse(self) -> Finished | None:
        """Searches, and returns how it ended on rank 0, None elsewhere; called again after an interruption, it goes on.

        All ranks of `self.comm` call it; where there are several, it is `distributed_traverse`. Raises what that and
        `Search.run` raise.
        """
        with self._talking_by(self.comm) as ranks:
            return self._in_series() if ranks.size == 1 else self.distributed_traverse()

    def _in_series(self) -> Finished:
        self.engine.ensure_calibrated()
        serial = Serial(functools.partial(evaluated, self), self.answered, self.losses, self.begun)
        return self._search(Watched(serial, self.observer))

    def distributed_traverse(self) -> Finished | None:
        """Searches on all ranks of `self.comm`; returns the end on rank 0 and None elsewhere.

        All ranks call it, with the same model and data. Raises what `share_setup` and `Search.run` raise.
        """
        with self._talking_by(self.comm) as ranks, self.set_up_on(ranks):
            if ranks.size == 1:
                return self._in_series()
            if ranks.rank == 0:
                return self.master_worker_handle(ranks.mpi)
            self.slave_worker_handle(ranks.mpi)
            return None

    @contextlib.contextmanager
    def _talking_by(self, comm: Any) -> Iterator[Communicator]:
        """`comm` as the protocol needs it, which within is `self.comm`: what it knows of lost ranks stays in one."""
        given = self.comm
        known = comm is not None and given is not None and comm == getattr(given, "mpi", None)
        with communicator(given if known else comm) as ranks:
            self.comm = ranks
            try:
                yield ranks
            finally:
                self.comm = given

    @contextlib.contextmanager
    def set_up_on(self, comm: Communicator) -> Iterator[None]:
        """Within, the ranks have done `share_setup` for one search, and compute with as many threads.

        All ranks enter it. What was done for this search already is not done again.
        """
        try:
            if self._is_set_up:
                yield
            elif comm.size == 1:
                self.share_setup(comm)
                yield
            else:
                with threads(meet(comm, recorded_threads(self.recorder.history))):
                    self.share_setup(comm)
                    yield
        finally:
            self._is_set_up = False

    def share_setup(self, comm: Communicator) -> None:
        """Compares the ranks' models, data and code, and gives all rank 0's precisions and calibrated ranges.

        All ranks call it; rank 0 first takes what is left of its `head_start`, and so has the baseline. Raises
        `SearchError` on every rank where they differ, a rank is not fast at a precision that rank 0 offers, or
        calibrating or measuring fails.
        """
        self.identity.hosts = same_everywhere(comm, agreed(comm, lambda: self._ready(comm)))
        self._share_precisions(comm)
        self.engine.use_ranges(on_rank_0(comm, self.head_start.calibrate))
        self._is_set_up = True

    def _ready(self, comm: Communicator) -> dict[str, str]:
        """This rank's facts, once it can compute."""
        facts = self._facts()
        if comm.rank == 0:
            self.head_start.calibrate()
            self.head_start.measure()
        return facts

    def _facts(self) -> dict[str, str]:
        """What must be the same on every rank, besides its libraries and CPU."""
        data = first_batch_digest(self.engine.task.calib_dataloader, Failure.CALIBRATION_FAILED, "calib_dataloader")
        judged_on = self.eval_dataloader if self.eval_dataloader is not None else self.engine.task.eval_dataloader
        if judged_on is not None:
            data += first_batch_digest(judged_on, Failure.EVALUATION_FAILED, "eval_dataloader")
        known = {"model": self.engine.digest, "data": data, "code": self.identity.code}
        return {**known, "threads": str(threads_in_use())}

    def _share_precisions(self, comm: Communicator) -> None:
        """Ranks of unlike processors would search unlike spaces: rank 0 decides."""
        offered = on_rank_0(comm, lambda: self.engine.precisions)

        def adopt() -> None:
            if offered != self.engine.precisions:
                self.engine.use_precisions(offered)
                self.set_tuning_space(self.conf)

        agreed(comm, adopt)

    def master_worker_handle(self, comm: Any) -> Finished:
        """Rank 0: assigns trials to the slaves and tells their results in index order; returns how the search ended.

        `comm` is an MPI communicator, whose other ranks call `slave_worker_handle`. Raises `ValueError` for a world of
        one rank, and what `share_setup` and `Search.run` raise.
        """
        with self._talking_by(comm) as ranks, self.set_up_on(ranks):
            return self._search(master(self, ranks))

    def slave_worker_handle(self, comm: Any) -> int:
        """Every other rank: evaluates what the master assigns, until it ends; returns how many trials."""
        with self._talking_by(comm) as ranks, self.set_up_on(ranks):
            self.served = slave(self, ranks)
            return self.served

    def evaluate(self, payload: Mapping[str, Any]) -> TrialResult:
        """A trial of a configuration in plain form, which may say when it is of no interest."""
        config = TuneConfig.from_plain(payload)
        if "limit" not in payload:
            return self.engine.trial(config)
        return self.engine.trial(config, Limit.from_plain(payload["limit"]))

    @property
    def evaluates_itself(self) -> bool:
        """Whether a subclass has an `evaluate` of its own: it is then asked for whole trials."""
        return type(self).evaluate is not TuneStrategy.evaluate

    def _search(self, executor: Executor) -> Finished:
        told = self.recorder.history.trials
        if self.trials_count:
            self.state = self._nothing_told()  # the record tells it again
        self._elapsed_before = told[-1].elapsed if told else 0.0
        self._started = time.monotonic() - self.head_start.seconds
        try:
            launch(self)
            self.end = Search(self, executor, self.recorder).run(self.folder)
            return self.end
        finally:
            self.head_start, self._is_set_up = HeadStart(self), False
            executor.close()

    def deploy_config(self) -> Path:
        """Writes `deploy.yaml` beside the best model: what a deployment needs to know; returns its path."""
        path = self.folder.parent / "deploy.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "model": {name: getattr(self.config, name) for name in DEPLOYED},
            "device": self.tuning.quantization.device,
            "approach": self.tuning.quantization.approach,
            "tuning": self.winner_config.plain() if self.winner_config else None,
        }
        path.write_text(yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
        return path
