"""`fit`: quantizes a model in this process (or in all ranks of an MPI world), without a resource.

Source of the arguments and their meaning: neural_compressor.quantization.fit, 2.x.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import Finished
from quantuner.config import Config, PostTrainingQuantConfig, QuantizationAwareTrainingConfig, tuning_of
from quantuner.distributed.communicator import Communicator, world
from quantuner.engine.allocation import freed_memory_kept, objects_set_aside
from quantuner.engine.artifact import packed, unpack, write_report
from quantuner.engine.evaluate import evaluate
from quantuner.engine.fresh import FreshProcess
from quantuner.engine.judging import judged_by
from quantuner.engine.layer_wise.conversion import LayerWise
from quantuner.engine.quantized import QuantizedModel, load
from quantuner.engine.recording import recorded_batches
from quantuner.strategy import TuneStrategy, strategy_class
from quantuner.strategy.overridden import made, traversed
from quantuner.strategy.ranks import agreed, searched
from quantuner.strategy.reporting import report
from quantuner.workspace import kept

__all__ = ["fit", "load"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def fit(
    model: Any,
    conf: PostTrainingQuantConfig | QuantizationAwareTrainingConfig,
    calib_dataloader: Iterable[Any] | None = None,
    calib_func: Callable[[Any], Any] | None = None,
    eval_func: Callable[[Any], float] | None = None,
    eval_dataloader: Iterable[Any] | None = None,
    eval_metric: Any = None,
    q_func: Callable[[Any], Any] | None = None,
    q_hooks: Mapping[str, Callable[[Any], Any]] | None = None,
) -> QuantizedModel | None:
    """Searches for the configuration of `conf` that keeps the accuracy, and returns the quantized model.

    `model` is a torch.nn.Module in fp32; it is not changed. Calibration batches come from `calib_dataloader`, or
    from `calib_func(model)`, which runs the model on them. Accuracy is `eval_func(model) -> float`, or comes from
    `eval_dataloader` and `eval_metric`. Without any of these nothing is searched: the model is quantized with the
    default configuration. So it is with the recipe layer_wise_quant, for a model on the meta device, which is only
    measured. `q_func(model)` trains where the configuration asks for training.

    Under `mpirun` all ranks call it with the same arguments, search together, and each gets the model.

    Returns None where no configuration meets the accuracy criterion; the log says how near the best came, and the
    workspace (`quantuner.options.set_workspace`) keeps it. Raises `ValueError` for arguments that do not go
    together and `SearchError` for what stops a search; under `mpirun` always `SearchError`, on every rank.
    """
    with contextlib.closing(world()) as comm:
        judge = {"eval_func": eval_func, "eval_dataloader": eval_dataloader, "eval_metric": eval_metric}
        untuned = all(given is None for given in judge.values())
        tuning = _together(comm, lambda: tuning_of(conf))
        layer_wise = bool(tuning.quantization.recipes.get("layer_wise_quant"))
        way = "layer by layer" if layer_wise else "without a search" if untuned else "by a search"
        ways = comm.broadcast(way)

        def check() -> None:
            _check_way(way, ways)
            _check_read_again(calib_dataloader=calib_dataloader, eval_dataloader=eval_dataloader)

        def in_layers() -> QuantizedModel | None:
            check()
            judging = None if untuned else judged_by(eval_func, eval_dataloader, eval_metric)
            return _layer_wise(model, conf, calib_dataloader, judging)

        if layer_wise:
            return _together(comm, in_layers)

        def prepared() -> TuneStrategy:
            check()
            if comm.rank == 0 and not untuned:
                _start(fresh)  # it imports torch while this rank captures
            batches = _calibration(model, calib_dataloader, calib_func)
            chosen: type[TuneStrategy] = strategy_class(tuning.strategy)
            judging = {"eval_func": _nothing_judges} if untuned else judge
            return made(chosen, model, conf, q_dataloader=batches, q_func=q_func, q_hooks=q_hooks, **judging)

        with freed_memory_kept(), objects_set_aside(), FreshProcess() as fresh:
            strategy = _together(comm, prepared)
            if untuned:
                strategy.engine.ensure_calibrated()
                return strategy.engine.quantized_model(strategy.best_config)
            strategy.engine.fresh = fresh
            return _searched(strategy, comm)


def _layer_wise(
    model: Any, conf: Config, loader: Iterable[Any] | None, judge: Callable[[Any], float] | None
) -> QuantizedModel | None:
    """Quantizes with the default configuration, from the checkpoint; None where that misses the criterion."""
    path = conf.recipes.get("layer_wise_quant_args", {}).get("path") or getattr(model, "path", None)
    if path is None or loader is None:
        missing = "calib_dataloader" if path else "the recipe layer_wise_quant_args {'path': …}, or model.path,"
        raise ValueError(f"layer_wise_quant needs calibration batches and the checkpoint; give {missing} too")
    tuning = tuning_of(conf)
    layers = LayerWise(model, path, loader, tuning.quantization)
    if judge is None:
        return layers.quantized()
    baseline = layers.accuracy(judge)
    quantized = layers.quantized()
    accuracy, _ = evaluate(quantized, judge)
    if tuning.accuracy_criterion.meets(accuracy, baseline):
        return quantized
    logger.warning(
        "the model has accuracy %s, in fp32 %s, and misses the criterion; allow more loss", accuracy, baseline
    )
    return None


def _together(comm: Communicator, step: Callable[[], T]) -> T:
    """A step of all ranks: where one fails, all raise its error, and none waits for it. Alone, what it raises."""
    return agreed(comm, step) if comm.size > 1 else step()


def _start(fresh: FreshProcess) -> None:
    try:
        fresh.start()
    except OSError as error:
        raise SearchError(
            Failure.VERIFICATION_FAILED,
            f"the process that will measure the saved model cannot be started: {error}; let this user have one process "
            "more (ulimit -u), with memory for torch and the model",
        ) from error


def _check_way(way: str, first: str) -> None:
    """Ranks that go other ways take other steps together, and would wait for each other for ever."""
    if way != first:
        raise ValueError(
            f"rank 0's arguments quantize the model {first}, and this rank's {way}; give every rank the same arguments"
        )


def _check_read_again(**loaders: Any) -> None:
    for name, loader in loaders.items():
        if isinstance(loader, Iterator):
            raise ValueError(f"{name} can be read once only; give a list or a DataLoader, which every pass reads anew")


def _calibration(
    model: Any, calib_dataloader: Iterable[Any] | None, calib_func: Callable[[Any], Any] | None
) -> Iterable[Any]:
    """The batches to calibrate with. Raises `ValueError` where both or neither give them."""
    if calib_func is not None and calib_dataloader is None:
        return recorded_batches(model, calib_func)
    if calib_dataloader is not None and calib_func is None:
        return calib_dataloader
    how = "neither gives" if calib_func is None else "both give"
    raise ValueError(f"calib_dataloader and calib_func: {how} the calibration data; give one of them")


def _searched(strategy: TuneStrategy, comm: Communicator) -> QuantizedModel | None:
    strategy.comm = comm
    record = _together(comm, lambda: kept(strategy, comm.size) if comm.rank == 0 else None)
    try:
        with strategy.set_up_on(comm):  # a step of all ranks, so before anything of the user's that may fail on one
            found = comm.broadcast(_search(strategy, comm))
    finally:
        if record is not None:
            record.close()
    if found is None:
        return None
    saved = comm.broadcast(
        _together(comm, lambda: packed(strategy.folder) if comm.rank == 0 and comm.size > 1 else b"")
    )
    return _together(comm, lambda: strategy.engine.saved if comm.rank == 0 else _unpacked(strategy, saved))


def _unpacked(strategy: TuneStrategy, saved: bytes) -> QuantizedModel:
    """The model that rank 0 has saved, on a rank whose disk may be another one."""
    with tempfile.TemporaryDirectory() as folder:
        return strategy.engine.load(unpack(saved, Path(folder) / "model"))


def _search(strategy: TuneStrategy, comm: Communicator) -> dict[str, Any] | None:
    """As `_found`, on all ranks: where one fails, all raise its error. Alone, what it raises."""
    return searched(comm, lambda: _found(strategy, comm.rank)) if comm.size > 1 else _found(strategy, 0)


def _found(strategy: TuneStrategy, rank: int) -> dict[str, Any] | None:
    """Searches; on rank 0 records the end and returns the winning configuration, None where none meets or elsewhere."""
    finished = traversed(strategy, rank)
    if finished is None:
        return None
    strategy.recorder.append(finished)
    if finished.best is not None:
        write_report(strategy.folder, report(strategy.recorder.history, finished, strategy.engine.saved_seconds))
    winner = _winner(strategy, finished)
    if winner is not None:
        strategy.deploy_config()
    return winner


def _winner(strategy: TuneStrategy, finished: Finished) -> dict[str, Any] | None:
    """The winning configuration as plain data; None where none meets the criterion."""
    if strategy.winner_config is None or finished.best is None:
        logger.warning(
            "no configuration meets the accuracy criterion: the best, trial %s, has accuracy %s; allow more loss, "
            "more trials or another strategy",
            finished.best,
            finished.accuracy,
        )
        return None
    return strategy.winner_config.plain()


def _nothing_judges(_: Any) -> float:
    raise ValueError("nothing judges the model; give eval_func, or eval_dataloader and eval_metric")
