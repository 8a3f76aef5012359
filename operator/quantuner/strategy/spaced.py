"""What a strategy searches: its tuning space, recipes on a configuration, and training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quantuner.api.conditions import Failure
from quantuner.api.errors import MissingArgumentError
from quantuner.api.spec import Tuning
from quantuner.config import tuning_of
from quantuner.options import checked_seed, options
from quantuner.space.capability import Mode
from quantuner.space.config import TuneConfig
from quantuner.space.constraints import constrain
from quantuner.space.forms import caps_of, initial_tuning_cfg
from quantuner.space.samplers import initial
from quantuner.space.tree import TuningSpace
from quantuner.strategy.overridden import refuse_unread
from quantuner.strategy.reading import Reading
from quantuner.strategy.recipes import Recipes


class Spaced(Reading):
    """The members of TuneStrategy that make and change configurations, and prepare the engine for them."""

    conf: Any
    """What the search was configured with."""
    q_func: Callable[[Any], Any] | None
    q_hooks: Mapping[str, Callable[[Any], Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.initial_tuning_cfg is not Spaced.initial_tuning_cfg:
            refuse_unread(cls)

    def set_tuning_space(self, conf: Any) -> None:
        """Creates capability, tuning space and recipes from the model and the user's configuration.

        Another `conf` than the strategy's own replaces its approach, constraints and recipes; calibration sizes stay
        those that ranges are made for. Before the first trial is told, `best_config` follows. Raises `SearchError`
        where they do not fit the model.
        """
        if conf is self.conf:
            quantization, capabilities = self.tuning.quantization, self.engine.space
        else:
            quantization = (conf if isinstance(conf, Tuning) else tuning_of(conf)).quantization
            capabilities = constrain(self.engine.captured.ops, quantization, self.engine.precisions)
        self.tuning_space = TuningSpace(capabilities, self.engine.quantization.calibration_sampling_sizes)
        capable = {c.op.name for c in self.tuning_space.capabilities if Mode.FP32 in c.modes}
        ops = {name: [op for op in ops if op in capable] for name, ops in self.engine.recipe_ops.items()}
        self.recipes = Recipes(quantization.recipes, ops)
        if "state" in vars(self):  # else the constructor is still at it
            self.state.begin_with(self._default())

    @property
    def seed(self) -> int:
        """Of whatever a strategy draws: `strategy_kwargs.seed`, else `options.set_random_seed`'s."""
        return checked_seed(self.tuning.tuning_criterion.strategy_kwargs.get("seed", options().random_seed))

    @property
    def capability(self) -> dict[str, Any]:
        """What each op can do, by op (`opwise`) and by type (`optypewise`), and the ops of each fallback recipe.

        A list with a dict for each mode; of a type that of its first op.
        """
        opwise = {(c.op.name, c.op.type): caps_of(c) for c in self.tuning_space.capabilities}
        return {
            "opwise": opwise,
            "optypewise": {type_: caps for (_, type_), caps in reversed(opwise.items())},
            "recipes_ops": {name: list(ops) for name, ops in self.engine.recipe_ops.items()},
        }

    def initial_tuning_cfg(self) -> tuple[Any, Any, Any]:
        """(op to its first mode, mode to the items it claimed, op to its first options): where a search begins.

        Source: the modes of an approach claim ops in the order static, dynamic, bf16, fp16, fp32.
        """
        return initial_tuning_cfg(self.tuning_space)

    def start(self, size: int) -> TuneConfig:
        """Every op with its first options, ranges of `size` calibration samples, and the user's recipes."""
        return self.recipes.keep(initial(self.tuning_space.capabilities).calibrated_with(size))

    def _default(self) -> TuneConfig:
        return self.start(self.tuning_space.calib_sampling_sizes[0])

    def has_fallen(self, config: TuneConfig) -> bool:
        """Whether an op is at high precision that could be quantized, and is not left there by the user's recipes."""
        capable = (c.op.name for c in self.tuning_space.capabilities if c.quantized_modes)
        return any(config[name].mode.is_precision for name in capable if name not in self.recipes.off)

    # --- recipes

    def apply_all_tuning_recipes(self, tune_cfg: Any) -> Any:
        """`tune_cfg` with every tuned recipe at its last option: the ops of the fallback recipes in fp32.

        Takes and gives a `TuneConfig` or a dict, which has the options in its `recipe_cfgs`; the argument is not
        changed. Where a subclass has its own, `basic` gives it a dict.
        """
        applied = self._same_form(tune_cfg, self.recipes.all_applied(self.as_config(tune_cfg)))
        if isinstance(applied, dict):
            applied["recipe_cfgs"] |= dict.fromkeys(self.recipes.tuned, False)
        return applied

    def apply_recipe_one_by_one(self, tune_cfg: Any) -> Iterator[Any]:
        """Yields for each smooth-quant alpha to try, then for each tuned recipe, `tune_cfg` with this alone applied."""
        config = self.as_config(tune_cfg)
        smoothed = (self.recipes.with_alpha(config, alpha) for alpha in self.recipes.alphas)
        for applied in itertools.chain(smoothed, self.recipes.one_by_one(config)):
            yield self._same_form(tune_cfg, applied)

    def with_all_recipes(self, config: TuneConfig) -> TuneConfig:
        """`config` by `apply_all_tuning_recipes`, be it a subclass's own."""
        return self.as_config(self.apply_all_tuning_recipes(self._as_taken("apply_all_tuning_recipes", config)))

    def with_each_recipe(self, config: TuneConfig) -> list[TuneConfig]:
        """`config` with each tuned recipe alone; what a subclass's own `apply_recipe_one_by_one` yields, if it has one.

        Alphas, which the base class's yields too, are a stage of their own.
        """
        body = self._as_taken("apply_recipe_one_by_one", config)
        if isinstance(body, TuneConfig):
            return list(self.recipes.one_by_one(config))
        return [self.as_config(applied) for applied in self.apply_recipe_one_by_one(body)]

    def _as_taken(self, member: str, config: TuneConfig) -> Any:
        """A configuration as the member takes it: where it is a subclass's own, in Neural Compressor's form."""
        return config if getattr(type(self), member) is getattr(Spaced, member) else self.as_dict(config)

    def _same_form(self, like: Any, config: TuneConfig) -> Any:
        return config if isinstance(like, TuneConfig) else self.as_dict(config)

    def set_param_for_pre_quantization_algos(self, algo_scheduler: Any, tune_cfg: Any, fp32_model: Any) -> None:
        """Fills the scheduler anew with the algorithms that change `fp32_model`, the captured graph: smooth quant.

        `tune_cfg` is the trial's configuration, a `TuneConfig`; a dict is taken, too. Called for every trial, on the
        rank that evaluates it; a subclass calls this and then appends algorithms of its own.
        """
        config = self.as_config(tune_cfg)
        algo_scheduler.start(fp32_model, fp32_model, self.engine.calibration_inputs(config))
        self.engine.schedule_pre_quantization(algo_scheduler, config, fp32_model)

    def set_param_for_post_quantization_algos(
        self, algo_scheduler: Any, tune_cfg: Any, pre_optimized_model: Any, q_model: Any
    ) -> None:
        """Fills the scheduler anew with those that correct `q_model`: fast bias correction, weight correction."""
        config = self.as_config(tune_cfg)
        algo_scheduler.start(pre_optimized_model, q_model, self.engine.calibration_inputs(config))
        self.engine.schedule_post_quantization(algo_scheduler, config, pre_optimized_model, q_model)

    @property
    def rewrites_models(self) -> bool:
        """Whether a subclass has a say in the algorithms after quantization; each trial is then converted."""
        own = type(self).set_param_for_post_quantization_algos
        return own is not Spaced.set_param_for_post_quantization_algos

    def set_q_func(self) -> None:
        """Gives the engine the training function and hooks of quantization-aware training.

        Raises `ValueError` where the approach is training and there is no function, or the other way round; and for
        hooks that nothing would call.
        """
        training = self.tuning.quantization.approach == "qat"
        function = self.q_func or self.engine.task.train_func
        if training and function is None:
            raise MissingArgumentError(
                Failure.TASK_INVALID,
                "quantization-aware training needs a training function; give q_func (or Task.train_func), "
                "called with the prepared model",
            )
        unasked = {"q_func trains the model": self.q_func, "q_hooks are called around training": self.q_hooks or None}
        for does, given in unasked.items():
            if given is not None and not training:
                raise ValueError(
                    f"{does}, but the approach is {self.tuning.quantization.approach}; use "
                    f"QuantizationAwareTrainingConfig (spec.quantization.approach: qat) or leave {does.split()[0]} out"
                )
        self.engine.train_with(function, self.q_hooks)
