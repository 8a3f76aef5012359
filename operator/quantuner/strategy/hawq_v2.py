"""The hawq_v2 strategy: cumulative fallback in the order of the loss's curvature."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from quantuner.space import samplers
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, TuneConfig
from quantuner.strategy import arguments
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.registry import strategy_registry


@strategy_registry
class HAWQ_V2TuneStrategy(TuneStrategy):  # noqa: N801 - the name that users know
    """The default configuration, then ever more ops in fp32, the highest Hessian trace of the loss first.

    `strategy_kwargs.hawq_v2_loss` is the loss: a callable `(output, target) -> scalar`, or its name.
    Source: Dong et al. 2019, HAWQ-V2 (arXiv:1911.03852), and Neural Compressor 2.x's HAWQ_V2TuneStrategy. There
    the user's loss is ignored, the base is the second configuration, and the order turns round where lower is better.
    """

    accepts = ("seed", "hawq_v2_loss")
    checks: ClassVar[Mapping[str, arguments.Check]] = {"seed": arguments.seed, "hawq_v2_loss": arguments.loss}

    def reads_accuracy(self, config: TuneConfig) -> bool:
        return False

    def stages(self) -> Iterator[list[TuneConfig]]:
        base = self.start(self.tuning_space.calib_sampling_sizes[0])
        yield [base]
        names = samplers.fallback_candidates(self.tuning_space.capabilities, base, Mode.FP32)
        if not names:
            return
        loss = self.tuning.tuning_criterion.strategy_kwargs.get("hawq_v2_loss")
        traces = self.engine.probes.hessian_traces(loss, self.seed)
        ranked = sorted((name for name in reversed(names) if name in traces), key=lambda name: -traces[name])
        yield [base.having(dict.fromkeys(ranked[:count], FP32)) for count in range(1, len(ranked) + 1)]
