"""The mse_v2 strategy: ops fall back one after the other, each chosen anew by the error at the model's output."""

from collections.abc import Generator, Iterator, Mapping
from itertools import islice
from typing import ClassVar

from quantuner.space import samplers
from quantuner.space.capability import PRECISIONS, Mode
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.basic import BasicTuneStrategy
from quantuner.strategy.registry import strategy_registry

OP_TYPE_WISE_TRIALS = 2
CONFIDENCE_BATCHES = 2  # calibration batches that an error is averaged over; strategy_kwargs may say otherwise


@strategy_registry
class MSE_V2TuneStrategy(BasicTuneStrategy):  # noqa: N801 - the name that users know
    """Falls back the op whose fallback leaves the smallest output error, until the target is met; then gives back.

    Source: Neural Compressor 2.x's MSE_V2TuneStrategy. There max_trials does not end these two phases, and the first
    of the confidence batches has no say.
    """

    accepts = ("confidence_batches",)
    checks: ClassVar[Mapping[str, arguments.Check]] = {"confidence_batches": arguments.whole}
    refines = True

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False

    def stages(self) -> Iterator[list[TuneConfig]]:
        for size in self.tuning_space.calib_sampling_sizes:
            self.re_quant = False  # a success before any fallback ends the search
            yield list(islice(self.op_type_wise(size), OP_TYPE_WISE_TRIALS))
            yield from self.static_to_dynamic(size)
            base = self.best_with(size)
            if self.tuning.tuning_criterion.timeout_seconds:
                yield [base]  # what met the target with an earlier size may need no more with this one
            yield from self._in_any_precision(base)
            if self.winner_config is not None and not self.tuning.tuning_criterion.timeout_seconds:
                return

    def _in_any_precision(self, base: TuneConfig) -> Iterator[list[TuneConfig]]:
        """Falls back in one precision after the other, until that meets; nothing where `base` does."""
        if self.meets(base):
            return
        for precision in PRECISIONS:
            self.re_quant = True
            if (yield from self._fall_back(base, precision)):
                return
            self.re_quant = False

    @property
    def _batches(self) -> int:
        return arguments.count(self.tuning.tuning_criterion.strategy_kwargs, "confidence_batches", CONFIDENCE_BATCHES)

    def _fall_back(self, base: TuneConfig, precision: Mode) -> Generator[list[TuneConfig], None, bool]:
        """One op more at a time, most sensitive first, until the target is met; then ops are given back.

        Returns whether it was met.
        """
        config, fallen = base, list[str]()
        while names := samplers.fallback_candidates(self.tuning_space.capabilities, config, precision):
            errors = self.engine.probes.leave_one_out_errors(config, self._batches)
            worst = min(reversed(names), key=lambda name: errors[name])  # ties in the order of the model
            config = config.having({worst: OpConfig(precision)})
            fallen.append(worst)
            yield [config]
            if self.meets(config):
                yield from self._give_back(base, config, fallen)
                return True
        return False

    def _give_back(self, base: TuneConfig, config: TuneConfig, fallen: list[str]) -> Iterator[list[TuneConfig]]:
        """While the target is met, the op whose quantization adds the least error is quantized again."""
        while len(fallen) > 1:
            errors = self.engine.probes.put_back_errors(config, {name: base[name] for name in fallen}, self._batches)
            for name in sorted(fallen, key=lambda name: errors[name]):
                tried = config.having({name: base[name]})
                if not self.has_told(tried):
                    break
            else:
                return
            yield [tried]
            if not self.meets(tried):
                return
            config, fallen = tried, [other for other in fallen if other != name]
