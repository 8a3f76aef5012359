"""Configuration objects with the names, arguments and defaults that users of Neural Compressor 2.x know.

Each maps one to one onto a part of the resource: `tuning_of` and `config_of` convert. Values are checked when they
are set. Source: neural_compressor.config, 2.x.
"""

from quantuner.config.criteria import AccuracyCriterion, TuningCriterion
from quantuner.config.manifest import body_of, manifest_of
from quantuner.config.quantization import Config, PostTrainingQuantConfig, QuantizationAwareTrainingConfig
from quantuner.config.resource import config_of, tuning_of

__all__ = [
    "AccuracyCriterion",
    "Config",
    "PostTrainingQuantConfig",
    "QuantizationAwareTrainingConfig",
    "TuningCriterion",
    "body_of",
    "config_of",
    "manifest_of",
    "tuning_of",
]
