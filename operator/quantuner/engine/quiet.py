"""torchao's import and torch's export complain about things a user of Quantuner cannot act on."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

# Loggers that report, at import, GPU libraries that a CPU does not load, and torch's own deprecations.
# The last three say in their own terms what the error behind them says in ours.
_LOGGERS = {
    "torchao": logging.ERROR,
    "torch.utils._pytree": logging.ERROR,
    "torch.fx.experimental.symbolic_shapes": logging.ERROR,
    "torch._export.non_strict_utils": logging.ERROR,
    "torch._subclasses.fake_tensor": logging.CRITICAL,
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the complaints of torch's internals about each other while the block runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger, level in zip(loggers, _LOGGERS.values(), strict=True):
        logger.setLevel(level)
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


@contextlib.contextmanager
def printing_nothing(module: ModuleType) -> Iterator[None]:
    """What the module's own code prints is lost while the block runs; what it calls may print."""
    names = vars(module)
    before = {"print": names["print"]} if "print" in names else {}
    names["print"] = lambda *_, **__: None
    try:
        yield
    finally:
        del names["print"]
        names.update(before)
