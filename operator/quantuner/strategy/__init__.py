"""Which configuration comes next, is it good enough, when to stop."""

from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.basic import BasicTuneStrategy
from quantuner.strategy.registry import strategy_class, strategy_registry

__all__ = ["BasicTuneStrategy", "TuneStrategy", "strategy_class", "strategy_registry"]
