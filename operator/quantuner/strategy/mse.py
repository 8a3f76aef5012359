"""The mse strategy: fallback in the order in which quantization distorts the ops' outputs."""

from collections.abc import Iterator
from itertools import islice

from quantuner.space import samplers
from quantuner.space.capability import PRECISIONS
from quantuner.space.config import TuneConfig
from quantuner.strategy.basic import BasicTuneStrategy
from quantuner.strategy.registry import strategy_registry

OP_TYPE_WISE_TRIALS = 5


@strategy_registry
class MSETuneStrategy(BasicTuneStrategy):
    """A few op-type-wise trials, then fallback by the error of each op's output, most distorted first.

    Source: Neural Compressor 2.x's MSETuneStrategy. There the accuracies of the one-by-one stage are attributed to
    the wrong ops, which spoils the order of the accumulated stage.
    """

    accepts = ()

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return self.has_fallen(config)

    def stages(self) -> Iterator[list[TuneConfig]]:
        for size in self.tuning_space.calib_sampling_sizes:
            quantizable = sum(1 for c in self.tuning_space.capabilities if c.quantized_modes)
            yield list(islice(self.op_type_wise(size), max(1, min(OP_TYPE_WISE_TRIALS, quantizable))))
            if not quantizable:
                continue
            yield from self.static_to_dynamic(size)
            base = self.best_with(size)
            errors = self.engine.probes.activation_errors(base)
            for precision in PRECISIONS:
                names = samplers.fallback_candidates(self.tuning_space.capabilities, base, precision)
                names.reverse()  # ties in the order of the model
                yield from self.one_by_one_then_together(base, sorted(names, key=lambda n: -errors[n]), precision)
