"""Which configuration comes next, is it good enough, when to stop."""

from quantuner.strategy.auto import AutoTuneStrategy
from quantuner.strategy.base import TuneStrategy
from quantuner.strategy.basic import BasicTuneStrategy
from quantuner.strategy.bayesian import BayesianTuneStrategy
from quantuner.strategy.conservative import ConservativeTuneStrategy
from quantuner.strategy.exhaustive import ExhaustiveTuneStrategy
from quantuner.strategy.hawq_v2 import HAWQ_V2TuneStrategy
from quantuner.strategy.mse import MSETuneStrategy
from quantuner.strategy.mse_v2 import MSE_V2TuneStrategy
from quantuner.strategy.random import RandomTuneStrategy
from quantuner.strategy.registry import strategies, strategy_class, strategy_registry
from quantuner.strategy.sensitivity import SensitivityTuneStrategy
from quantuner.strategy.tpe import TPETuneStrategy

__all__ = [
    "AutoTuneStrategy",
    "BasicTuneStrategy",
    "BayesianTuneStrategy",
    "ConservativeTuneStrategy",
    "ExhaustiveTuneStrategy",
    "HAWQ_V2TuneStrategy",
    "MSETuneStrategy",
    "MSE_V2TuneStrategy",
    "RandomTuneStrategy",
    "SensitivityTuneStrategy",
    "TPETuneStrategy",
    "TuneStrategy",
    "strategies",
    "strategy_class",
    "strategy_registry",
]
