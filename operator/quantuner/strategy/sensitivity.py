"""The sensitivity strategy: a cheap proxy ranks the ops, true accuracy finds the smallest fallback set."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import ClassVar

from quantuner.space import samplers
from quantuner.space.capability import PRECISIONS, Mode
from quantuner.space.config import OpConfig, TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry

PROBES = 3  # sizes of the fallback set that are tried together: two halvings at once, and work for three ranks


@strategy_registry
class SensitivityTuneStrategy(TuneStrategy):
    """Finds the configuration with most compute quantized that meets the criterion, in few trials.

    Each op has the options that distort its own output least. The error at the model's output with one op quantized at
    a time (no trial: calibration data, no evaluation) ranks the ops. Fallback sets are heads of that ranking. The first
    size tried is the one that the errors predict, the smallest is then found by bisection on true accuracy. Then ops
    are given back, each alone and together, while the criterion is met. Ops fall back to bf16, where no set of them
    meets to fp16, and then to fp32, as far as the space has these.

    The ranking by output error with one op quantized is that of Nahshan et al. 2019 (arXiv:1911.07190, section 3)
    and of mixed-precision practice; bisection needs the accuracy to rise with the size of the set only near the
    target, and giving back repairs where it does not.
    """

    accepts = ("metric",)
    checks: ClassVar[Mapping[str, arguments.Check]] = {"metric": arguments.distance}
    refines = True

    def reads_accuracy(self, config: TuneConfig) -> bool:
        """The loss with everything quantized tells how many ops to try first."""
        return not self.has_fallen(config)

    def stages(self) -> Iterator[list[TuneConfig]]:
        for size in self.tuning_space.calib_sampling_sizes:
            base, errors = self._least_error(self.start(size))
            yield [base]
            if self.meets(base):
                return
            for precision in PRECISIONS:
                ranked = self._ranked(base, errors, precision)
                fallen = yield from self._smallest(base, ranked, errors, OpConfig(precision))
                if fallen:
                    yield from self._give_back(base, fallen, OpConfig(precision))
                    return

    def _least_error(self, default: TuneConfig) -> tuple[TuneConfig, dict[str, float]]:
        """Every op with the options that distort its own output least, and the error of the model's output then."""
        chosen, least = default, self.engine.probes.own_errors(default)
        for config in self._alternatives(default):
            for name, error in self.engine.probes.own_errors(config).items():
                if error < least[name]:
                    least[name] = error
                    chosen = chosen.having({name: config[name]})
        return chosen, self._errors(chosen)

    def _errors(self, config: TuneConfig) -> dict[str, float]:
        metric = str(self.tuning.tuning_criterion.strategy_kwargs.get("metric", "mse"))
        return self.engine.probes.single_op_errors(config, metric)

    def _alternatives(self, default: TuneConfig) -> Iterator[TuneConfig]:
        """Configurations that together show every op each of its quantized options once."""
        candidates = samplers.op_wise_candidates(self.tuning_space.capabilities)
        for number in range(1, max(len(options) for options in candidates.values())):
            picked: dict[str, OpConfig] = {
                name: options[min(number, len(options) - 1)] for name, options in candidates.items()
            }
            yield self.recipes.keep(default.having(picked))

    def _ranked(self, base: TuneConfig, errors: dict[str, float], precision: Mode) -> list[str]:
        """Ops that may fall back, the one with most error first; ties in the order of the model."""
        names = samplers.fallback_candidates(self.tuning_space.capabilities, base, precision)
        names.reverse()
        return sorted(names, key=lambda name: -errors[name])

    def _smallest(
        self, base: TuneConfig, ranked: Sequence[str], errors: Mapping[str, float], high: OpConfig
    ) -> Generator[list[TuneConfig], None, list[str]]:
        """The shortest head of the ranking that is found to meet the criterion; empty where none does."""
        low, top = 0, len(ranked) + 1  # a set of `low` fails, one of `top` meets
        sizes = around(self._predicted(base, [errors[name] for name in ranked]), len(ranked))
        while sizes:
            heads = {k: base.having(dict.fromkeys(ranked[:k], high)) for k in sizes}
            yield list(heads.values())
            top = min([top, *(k for k in sizes if self.meets(heads[k]))])
            low = max([low, *(k for k in sizes if k < top)])
            sizes = between(low, top) if top <= len(ranked) else gallop(len(ranked), beyond=low)
        return list(ranked[: top if top <= len(ranked) else 0])

    def _predicted(self, base: TuneConfig, errors: Sequence[float]) -> int:
        """How many ops must fall back, told by the loss with none of them; `errors` are those of the ranking."""
        accuracy = self.accuracy_of(base) if self.has_told(base) else None
        if accuracy is None or self.baseline is None:
            return 1
        reference = self.baseline.accuracy
        allowed, lost = self.tuning.accuracy_criterion.target(reference) - reference, accuracy - reference
        return predicted_size(errors, allowed / lost if lost else 0.0)

    def _give_back(self, base: TuneConfig, fallen: Sequence[str], high: OpConfig) -> Iterator[list[TuneConfig]]:
        """Quantizes again what the criterion allows: each op alone, then together, most compute first."""
        while len(fallen) > 1:
            weight = {name: self.engine.cost(base.having({name: high})) for name in fallen}
            order = sorted(fallen, key=lambda name: -weight[name])
            without = {name: _kept(base, fallen, [name], high) for name in order}
            yield list(without.values())
            free = [name for name in order if self.meets(without[name])]
            sets = [free[:count] for count in range(1, len(free) + 1)]
            yield [_kept(base, fallen, names, high) for names in sets]
            met = [names for names in sets if self.meets(_kept(base, fallen, names, high))]
            if not met:
                return
            fallen = [name for name in fallen if name not in met[-1]]


def _kept(base: TuneConfig, fallen: Sequence[str], given_back: Sequence[str], high: OpConfig) -> TuneConfig:
    """`base` with the ops that are fallen and not given back at a high precision."""
    return base.having(dict.fromkeys([name for name in fallen if name not in given_back], high))


def predicted_size(errors: Sequence[float], kept: float) -> int:
    """The least number of leading errors without which at most the share `kept` of the loss of all is left.

    `errors` are squared and descend. They add up where ops are independent, and the loss is taken to be
    proportional to their root: a small perturbation moves an output in proportion to its size.
    """
    total = left = sum(errors)
    for count, error in enumerate(errors, 1):
        left -= error
        if left <= max(kept, 0.0) ** 2 * total:
            return count
    return max(1, len(errors))


def around(size: int, count: int) -> list[int]:
    """Sizes to try first: the predicted one, half and twice of it, as far as there are so many."""
    return [k for k in dict.fromkeys((size, size // 2, 2 * size)) if 1 <= k <= count]


def gallop(count: int, beyond: int = 0) -> list[int]:
    """The next sizes to try while none has met: doubling from `beyond`, ending at `count`; empty at the end."""
    sizes: list[int] = []
    size = beyond
    while size < count and len(sizes) < PROBES:
        size = min(max(1, 2 * size), count)
        sizes.append(size)
    return sizes


def between(low: int, high: int) -> list[int]:
    """Up to PROBES sizes that divide what lies between a failing and a meeting one evenly; empty where nothing does."""
    return sorted({low + (high - low) * i // (PROBES + 1) for i in range(1, PROBES + 1)} - {low, high})
