"""torchao's import and torch's export complain about things a user of Quantuner cannot act on."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

# Loggers that report, at import, GPU libraries that a CPU does not load, and torch's own deprecations.
# The last two say in their own terms what the error behind them says in ours.
_LOGGERS = (
    "torchao",
    "torch.utils._pytree",
    "torch.fx.experimental.symbolic_shapes",
    "torch._export.non_strict_utils",
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the complaints of torch's internals about each other while the block runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|torchao)(\.|$)")
            # raised while copying a graph, so the module in sight is the stdlib's copyreg
            warnings.filterwarnings("ignore", category=FutureWarning, message=r".*LeafSpec.*")
            # a recurrent module keeps its parameters in a list, too, which export puts aside and back
            warnings.filterwarnings("ignore", category=UserWarning, message=r".*_flat_weights.* assigned during export")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
