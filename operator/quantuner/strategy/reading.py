"""What a strategy may read of its search, by the names that Neural Compressor's users know."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished, Trial
from quantuner.api.spec import Tuning
from quantuner.config.recipes import checked_recipes
from quantuner.engine.engine import Engine
from quantuner.engine.quantized import QuantizedModel
from quantuner.engine.quiet import quiet
from quantuner.space.config import TuneConfig
from quantuner.space.forms import as_dict, from_dict
from quantuner.space.tree import TuningSpace
from quantuner.strategy.objectives import Objectives, Result
from quantuner.strategy.recipes import Recipes, of_one_trial, said_by_ops
from quantuner.strategy.search import Recorder
from quantuner.strategy.state import State

logger = logging.getLogger(__name__)


class Reading:
    """The told results, and configurations in both forms. Changes nothing but what its setters say."""

    tuning: Tuning
    engine: Engine
    model: Any
    tuning_space: TuningSpace
    recipes: Recipes
    objectives: Objectives
    recorder: Recorder
    state: State
    folder: Path
    tune_data: dict[str, list[float]]
    end: Finished | None
    """How the search ended; None before."""

    if not TYPE_CHECKING:  # mypy refuses such an assignment itself

        def __setattr__(self, name: str, value: Any) -> None:
            found = getattr(type(self), name, None)
            if isinstance(found, property) and found.fset is None:
                raise AttributeError(
                    f"{type(self).__name__}.{name} follows from what the search was told and cannot be set; leave the "
                    "assignment out, or keep a value of your own under another name"
                )
            super().__setattr__(name, value)

    def as_dict(self, config: TuneConfig) -> dict[Any, Any]:
        """A configuration in the form of Neural Compressor; a fresh dict."""
        return as_dict(config, self.tuning_space)

    def as_config(self, body: TuneConfig | Mapping[Any, Any]) -> TuneConfig:
        """A configuration from that form, with the user's recipes. Raises `SearchError` for what does not fit."""
        if isinstance(body, TuneConfig):
            return body
        try:
            recipes = of_one_trial(checked_recipes(body.get("recipe_cfgs") or {}))
        except ValueError as error:
            raise SearchError(Failure.CONFIGURATION_INVALID, f"recipe_cfgs {error}") from error
        return said_by_ops(self.recipes.keep(from_dict({**body, "recipe_cfgs": recipes}, self.tuning_space)))

    @property
    def evaluation_result(self) -> Result:
        """Evaluates a copy of `self.model` now, in evaluation mode, and returns its accuracy and objectives."""
        with quiet():  # copying a graph warns
            model = copy.deepcopy(self.model).eval()
        return self.objectives.result(self.engine.measure(model))

    @property
    def baseline(self) -> Result | None:
        """Result of the fp32 model; None before it is measured."""
        return self.state.objectives.baseline

    @property
    def best_config(self) -> TuneConfig:
        """The most accurate configuration so far, the later one at a tie; before the first, the default one."""
        return self.state.best_config

    @property
    def cur_best_acc(self) -> float:
        """The accuracy of `best_config`; before the first, `initial_best_acc()`."""
        return self.state.cur_best_acc

    @property
    def winner_config(self) -> TuneConfig | None:
        """The last one that met the criterion with no objective worse than the one before it."""
        return self.state.winner_config

    @property
    def best_tune_result(self) -> Result | None:
        """The result of `winner_config`."""
        return self.state.best_tune_result

    @property
    def last_tune_result(self) -> Result | None:
        """The result told last, or given to `meet_acc_req` since."""
        return self.state.last_tune_result

    @property
    def trials_count(self) -> int:
        """Told trials, the baseline not counted."""
        return self.state.trials_count

    tuning_times = trials_count

    @property
    def metric_met_point(self) -> int:
        """Number of the trial that first met the criterion; 0 before."""
        return self.state.metric_met_point

    @property
    def re_quant(self) -> bool:
        """While true, a success does not end the search. A search in which it was ever true ends with its cheapest."""
        return self.state.re_quant

    @re_quant.setter
    def re_quant(self, value: bool) -> None:
        self.state.re_quant = value
        self.state.has_refined = self.state.has_refined or value

    @property
    def cur_best_tuning_cfg(self) -> dict[Any, Any]:
        """The most accurate configuration so far, the later one at a tie; a fresh dict.

        Setting it to what it is, or to None, changes nothing, as where a strategy of Neural Compressor takes the
        master's. Raises `AttributeError` for anything else.
        """
        return self.as_dict(self.best_config)

    @cur_best_tuning_cfg.setter
    def cur_best_tuning_cfg(self, value: Mapping[Any, Any] | None) -> None:
        if value is not None and self.as_config(value) != self.as_config(self.cur_best_tuning_cfg):
            raise AttributeError(
                f"{type(self).__name__}.cur_best_tuning_cfg is the most accurate configuration told and cannot be "
                "another; leave the assignment out, or keep a value of your own under another name"
            )

    @property
    def last_tune_cfg(self) -> dict[Any, Any] | None:
        """The configuration told last; None before the first."""
        return self.as_dict(self.state.last_config) if self.state.last_config else None

    @property
    def best_tuning_cfg(self) -> dict[Any, Any] | None:
        """The winner so far; None where no configuration meets the criterion yet."""
        return self.as_dict(self.winner_config) if self.winner_config else None

    @property
    def best_qmodel(self) -> QuantizedModel | None:
        """The winner's model, loaded anew from where it was saved; None before the search ended, or without winner."""
        return self.engine.load(self.folder) if self.end is not None and self.winner_config is not None else None

    @property
    def tuning_history(self) -> list[Trial]:
        """The told trials, the baseline first."""
        return self.recorder.history.trials

    def initial_best_acc(self) -> float:
        """The accuracy that every other one beats: -inf, or +inf where lower is better."""
        return self.objectives.worst

    def show_baseline_info(self) -> None:
        """Logs accuracy and objectives of the fp32 model and keeps them in `tune_data`, the accuracy as `baseline` too.

        Raises `RuntimeError` before the baseline is measured.
        """
        if self.baseline is None:
            raise RuntimeError("the baseline is not measured yet; traverse() does so first")
        names = ["Accuracy", *self.objectives.representation]
        values = [self.baseline.accuracy, *self.baseline.objectives]
        self.tune_data = {"baseline": values[:1], **{name: [value] for name, value in zip(names, values, strict=True)}}
        logger.info("fp32 baseline: %s", ", ".join(f"{n} {v:.6g}" for n, v in zip(names, values, strict=True)))

    def accuracy_of(self, config: TuneConfig) -> float | None:
        """Accuracy told for `config`; None where it failed. Raises `KeyError` for one that was not told."""
        return self.state.told[config.digest].accuracy

    def has_told(self, config: TuneConfig) -> bool:
        """Whether the result of `config` is known; a search that reached its limit may not have asked it."""
        return config.digest in self.state.told

    def meets(self, config: TuneConfig) -> bool:
        """Whether `config` was told and meets the criterion."""
        trial = self.state.told.get(config.digest)
        return trial is not None and trial.meets

    def meet_acc_req(self, eval_res: Result) -> bool:
        """Whether the accuracy of `(accuracy, [objectives])` meets the criterion against the baseline.

        Exactly on target does. Makes it the last result. Raises `RuntimeError` before the baseline is known. A search
        asks on rank 0 of every trial that did not fail, and records the answer; a subclass may have a rule of its own.
        """
        self.state.last_tune_result = Result(*eval_res)
        return self.objectives.accuracy_meet_req(eval_res)

    @property
    def judges_itself(self) -> bool:
        """Whether a subclass has a `meet_acc_req` of its own, so that no target is known beforehand."""
        return type(self).meet_acc_req is not Reading.meet_acc_req

    def update_best_op_tuning_cfg(self, op_tuning_cfg: Any) -> tuple[float, dict[Any, Any]]:
        """Compares the last result with the best so far; a tie goes to the later configuration.

        Returns the best accuracy and its configuration. A search calls it with each told `TuneConfig`, those of its
        record included. Source: tuning order of Neural Compressor 2.x.
        """
        self.state.keep_if_best(self.as_config(op_tuning_cfg))
        return self.cur_best_acc, self.cur_best_tuning_cfg

    def keep_if_best(self, config: TuneConfig) -> None:
        """As `update_best_op_tuning_cfg` does, which a subclass may have changed; without a dict that nobody reads."""
        if type(self).update_best_op_tuning_cfg is Reading.update_best_op_tuning_cfg:
            self.state.keep_if_best(config)
        else:
            self.update_best_op_tuning_cfg(config)
