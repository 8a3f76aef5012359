"""A rank's main: resource → task → strategy → result. The same on a laptop and in a pod."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import InvalidResourceError, JournalError, SearchError
from quantuner.api.journal import HOSTS_LIMIT, NOT_KEPT, Failed, Finished, Launched
from quantuner.api.spec import Tuning, search_digest
from quantuner.api.timestamps import utc_now
from quantuner.api.validation import admit
from quantuner.distributed.communicator import Communicator, MpiWorld, Solo
from quantuner.distributed.journal import JournalFolder
from quantuner.engine.artifact import write_report
from quantuner.engine.engine import Engine, cpu_kind, libraries, use_threads
from quantuner.engine.entrypoint import code_digest, load_task, user_error
from quantuner.strategy import TuneStrategy, strategy_class

logger = logging.getLogger("quantuner.run")
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What rank 0 reads and every rank needs."""

    tuning: Tuning
    search: str
    code: Path | None


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.run", description=__doc__)
    parser.add_argument("--tuning", type=Path, required=True, help="the resource, as YAML; read by rank 0")
    parser.add_argument("--code", type=Path, help="folder with the task's modules, on every rank")
    parser.add_argument("--workspace", type=Path, required=True, help="folder for journal and model, of rank 0")
    parser.add_argument("--output", type=Path, help="folder for the winning model; default: WORKSPACE/model")
    parser.add_argument("--in-pod", action="store_true", help="name the model by its volume, not its path")
    parser.add_argument("--serial", action="store_true", help="search in this process, without MPI")
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 when the journal has ended, finished or failed; else 1."""
    args = arguments().parse_args(argv)
    comm: MpiWorld | Solo = Solo() if args.serial else MpiWorld()
    form = f"%(asctime)s rank {comm.rank} %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    try:
        return _run(comm, comm.host, args)
    except BaseException:
        # The ranks no longer agree on what comes next: end them all, and let the supervisor resume.
        logger.exception("this rank cannot go on")
        if isinstance(comm, MpiWorld):
            comm.abort(1)
        return 1


def _run(comm: Communicator, host: str, args: argparse.Namespace) -> int:
    journal = JournalFolder(args.workspace) if comm.rank == 0 else None
    try:
        end = _end_of(comm, host, args, journal)
        if journal is not None and end is not None:
            journal.append(end)
    finally:
        if journal is not None:
            journal.close()
    return 0


def _end_of(
    comm: Communicator, host: str, args: argparse.Namespace, journal: JournalFolder | None
) -> Finished | Failed | None:
    """How the search ended; None on slaves."""
    try:
        return _search(comm, host, args, journal)
    except SearchError as error:  # all ranks agreed on it
        if comm.rank == 0:
            logger.error("%s: %s", error.reason, error.message)
        return _failure(error)


def _search(comm: Communicator, host: str, args: argparse.Namespace, journal: JournalFolder | None) -> Finished | None:
    order: Order = _on_rank_0(comm, lambda: _read(args))
    tuning = order.tuning
    use_threads(tuning.threads_per_rank)
    strategy = _agreed(comm, lambda: _strategy(order))
    _same_everywhere(comm, strategy.engine.digest)
    hosts = comm.gather(host)
    strategy.engine.use_ranges(_on_rank_0(comm, strategy.engine.calibrate))
    _on_rank_0(comm, lambda: _begin(journal, order, strategy, hosts or ()))
    strategy.comm = comm
    if journal is None:
        strategy.slave_worker_handle(comm)
        return None
    strategy.recorder = journal
    strategy.folder = (args.output or args.workspace) / "model"
    strategy.artifact_name = _artifact_name(args, tuning)
    finished = strategy.traverse() if comm.size == 1 else strategy.master_worker_handle(comm)
    try:
        write_report(strategy.folder, _report(journal, finished))
    except OSError as error:
        raise SearchError(Failure.WRITE_FAILED, f"the model's report cannot be written: {error}") from error
    return finished


def _artifact_name(args: argparse.Namespace, tuning: Tuning) -> str:
    """In a pod the folder's path says nothing to a user; the claim that holds it does."""
    if not args.in_pod:
        return ""
    return f"persistentvolumeclaim/{tuning.output.claim}/{tuning.output.path}/model" if tuning.output else NOT_KEPT


def _report(journal: JournalFolder, finished: Finished) -> dict[str, Any]:
    baseline = journal.history.baseline
    return {
        "baseline": baseline.accuracy if baseline else None,
        "accuracy": finished.accuracy,
        "trial": finished.best,
        "outcome": finished.outcome,
        "search": journal.history.launches[0].search,
        "model": journal.history.launches[0].model,
        "versions": {**libraries(), "cpu": cpu_kind()},
    }


def _read(args: argparse.Namespace) -> Order:
    body = admit(yaml.safe_load(args.tuning.read_text(encoding="utf-8")))
    return Order(Tuning.from_body(body), search_digest(body), args.code)


def _strategy(order: Order) -> TuneStrategy:
    tuning = order.tuning
    task = load_task(tuning.task, order.code)  # first, since it may register a strategy of its own
    chosen = strategy_class(tuning.tuning_criterion.strategy)
    engine = Engine(task, tuning.quantization, tuning.tuning_criterion.objectives)
    strategy: TuneStrategy = chosen(engine, tuning)
    return strategy


def _begin(journal: JournalFolder | None, order: Order, strategy: TuneStrategy, hosts: Any) -> None:
    if journal is None:
        return
    launched = Launched(
        search=order.search,
        model=strategy.engine.digest,
        ops=len(strategy.engine.captured.ops),
        ranks=len(hosts),
        hosts=tuple(hosts[:HOSTS_LIMIT]),
        time=utc_now(),
        code=code_digest(order.tuning.task, order.code),
        ranges=strategy.engine.ranges_digest,
        versions=", ".join(f"{name} {version}" for name, version in libraries().items()),
    )
    try:
        journal.append(launched)
    except JournalError as error:
        raise SearchError(Failure.JOURNAL_MISMATCH, str(error)) from error


def _agreed(comm: Communicator, step: Callable[[], T]) -> T:
    """Runs a step on every rank; where it fails on any of them, all raise the lowest such rank's error."""
    value: T | None = None
    error: SearchError | None = None
    try:
        value = step()
    except BaseException as raised:  # a rank that just ended would leave the others waiting
        error = _as_search_error(raised)
    errors = comm.gather(error)
    first = next(((rank, e) for rank, e in enumerate(errors or ()) if e is not None), None)
    failed = comm.broadcast(first)
    if failed is not None:
        rank, error = failed
        raise SearchError(error.reason, f"{error.message} (on rank {rank})" if rank else error.message, error.traceback)
    return value  # type: ignore[return-value]  # the step returned, since no rank failed


def _on_rank_0(comm: Communicator, step: Callable[[], T]) -> T:
    """Runs a step on rank 0 and gives every rank its result, or its error."""
    value = _agreed(comm, lambda: step() if comm.rank == 0 else None)
    result: T = comm.broadcast(value)
    return result


def _same_everywhere(comm: Communicator, digest: str) -> None:
    """Raises `SearchError` on every rank where ranks captured different models."""
    digests = comm.gather(digest)
    other = next(((r, d) for r, d in enumerate(digests or ()) if digests and d != digests[0]), None)
    found = comm.broadcast(other)
    if found is not None:
        raise SearchError(
            Failure.TASK_INVALID,
            f"rank {found[0]} has a model other than rank 0's (digest {found[1]}); every rank must get the same "
            "weights: seed what the task trains or load them from a file",
        )


def _as_search_error(error: BaseException) -> SearchError:
    if isinstance(error, SearchError):
        return error
    if isinstance(error, (InvalidResourceError, OSError)):
        return SearchError(Failure.INTERNAL_ERROR, f"the resource cannot be read: {error}")
    return user_error(Failure.INTERNAL_ERROR, "setting up", error)


def _failure(error: SearchError) -> Failed:
    return Failed(reason=error.reason, message=error.message, traceback=error.traceback, time=utc_now())


if __name__ == "__main__":
    sys.exit(main())
