"""A rank's main: resource → task → strategy → result. The same on a laptop and in a pod."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.journal import NOT_KEPT, Failed, Finished, History
from quantuner.api.spec import Tuning, search_digest
from quantuner.api.timeline import Ending, Kind, Span
from quantuner.api.timestamps import utc_now
from quantuner.distributed.answered import Answered
from quantuner.distributed.begun import Begun
from quantuner.distributed.communicator import Communicator, MpiWorld, Solo
from quantuner.distributed.hosts import all_answer, read_hostfile
from quantuner.distributed.journal import JournalFolder
from quantuner.distributed.leaving import leaving
from quantuner.distributed.losses import Losses
from quantuner.distributed.processors import take_devices
from quantuner.distributed.timeline import Quiet, Timeline, observed
from quantuner.engine.allocation import freed_memory_kept, objects_set_aside
from quantuner.engine.artifact import write_report
from quantuner.engine.engine import use_threads
from quantuner.engine.entrypoint import code_digest, load_task
from quantuner.engine.fresh import FreshProcess
from quantuner.engine.modulewise.engine import engine_of
from quantuner.engine.warming import warm
from quantuner.strategy import TuneStrategy, strategy_class
from quantuner.strategy.meeting import meet, threads_of
from quantuner.strategy.overridden import traversed
from quantuner.strategy.ranks import agreed, on_rank_0
from quantuner.strategy.recording import Identity
from quantuner.strategy.reporting import report

logger = logging.getLogger("quantuner.run")


@dataclass(frozen=True)
class Order:
    """What rank 0 reads and every rank needs."""

    tuning: Tuning
    search: str
    code: Path | None
    threads: int | None
    """None leaves the number to the machines."""


@dataclass(frozen=True)
class Loaded:
    """What a rank has before it meets the others."""

    strategy: TuneStrategy
    seconds: float
    """That loading and capturing took."""
    code: str
    """Digest of the task's modules, those that calibrating imported included."""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantuner.run", description=__doc__)
    parser.add_argument("--tuning", type=Path, required=True, help="the resource, as YAML; read by rank 0")
    parser.add_argument("--code", type=Path, help="folder with the task's modules, on every rank")
    parser.add_argument("--workspace", type=Path, required=True, help="folder for journal and model, of rank 0")
    parser.add_argument("--output", type=Path, help="folder for the winning model; default: WORKSPACE/model")
    parser.add_argument("--hostfile", type=Path, help="the ranks' hosts, this one first; default: all ranks are here")
    parser.add_argument("--in-pod", action="store_true", help="name the model by its volume, not its path")
    parser.add_argument("--serial", action="store_true", help="search in this process, without MPI")
    return parser


def prepare_to_fork() -> None:
    """Of a process whose forks call `main`: imports what they would, as far as it is not the task's."""
    import quantuner.api.validation  # noqa: F401

    warm()


def main(argv: list[str] | None = None) -> int:
    """0 when the journal has ended, finished or failed; else 1."""
    args = arguments().parse_args(argv)
    take_devices(os.environ)
    comm: MpiWorld | Solo = Solo() if args.serial else MpiWorld()
    form = f"%(asctime)s rank {comm.rank} %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)
    try:
        with freed_memory_kept(), objects_set_aside():
            code = _run(comm, comm.host, args)
    except BaseException:
        # The ranks no longer agree on what comes next: end them all, and let the supervisor resume.
        logger.exception("this rank cannot go on")
        if isinstance(comm, MpiWorld):
            comm.abort(1)
        return 1
    if isinstance(comm, MpiWorld) and comm.is_damaged:  # MPI_Finalize might wait for ever; the journal has the end
        comm.abort(1)  # mpirun does not end a rank that is stopped for a code of 0
    comm.close()
    return code


def _run(comm: Communicator, host: str, args: argparse.Namespace) -> int:
    journal = JournalFolder(args.workspace) if comm.rank == 0 else None
    timeline = Quiet() if journal is None else _timeline(comm, args, journal)
    try:
        end = _end_of(comm, host, args, journal, timeline)
        if journal is not None and end is not None:
            journal.append(end)
    finally:
        timeline.close()
        if journal is not None:
            journal.close()
    return 0


def _timeline(comm: Communicator, args: argparse.Namespace, journal: JournalFolder) -> Timeline:
    """Beside the journal, and with the model, since the workspace may end with its pod.

    One left by another search, whose journal somebody moved away, is not added to.
    """
    return Timeline(args.workspace, comm.size, anew=not journal.history.launches, beside=args.output)


def _end_of(
    comm: Communicator, host: str, args: argparse.Namespace, journal: JournalFolder | None, timeline: Timeline | Quiet
) -> Finished | Failed | None:
    """How the search ended; None on slaves."""
    try:
        return _search(comm, host, args, journal, timeline)
    except SearchError as error:  # all ranks agreed on it
        if comm.rank == 0:
            logger.error("%s: %s", error.reason, error.message)
        return _failure(error)


def _search(
    comm: Communicator, host: str, args: argparse.Namespace, journal: JournalFolder | None, timeline: Timeline | Quiet
) -> Finished | None:
    with observed(timeline, Kind.SETUP):
        order: Order = on_rank_0(comm, lambda: _read(args, journal))
    use_threads(meet(comm, order.threads))  # before the task's code, which may train its model
    with FreshProcess() as fresh:
        return _searched(comm, host, args, order, journal, timeline, fresh)


def _searched(
    comm: Communicator,
    host: str,
    args: argparse.Namespace,
    order: Order,
    journal: JournalFolder | None,
    timeline: Timeline | Quiet,
    fresh: FreshProcess,
) -> Finished | None:
    tuning, began = order.tuning, timeline.now()
    loaded = agreed(comm, lambda: _loaded(order, args.workspace, journal, timeline))
    strategy = loaded.strategy
    strategy.engine.fresh = fresh
    strategy.share_setup(comm)
    hosts, seconds = zip(*(comm.gather((host, loaded.seconds)) or [("", 0.0)]), strict=True)
    _observe_loading(timeline, began, hosts, seconds)
    strategy.comm = comm
    if journal is not None:
        strategy.identity.code = loaded.code
        _keep(strategy, args, tuning, anew=not journal.history.launches)
    with leaving(comm):
        finished = traversed(strategy, comm.rank)
    if journal is None or finished is None or finished.best is None:  # a slave; or the baseline alone took all the time
        return finished
    try:
        write_report(strategy.folder, report(journal.history, finished, strategy.engine.saved_seconds))
    except OSError as error:
        raise SearchError(Failure.WRITE_FAILED, f"the model's report cannot be written: {error}") from error
    return finished


def _keep(strategy: TuneStrategy, args: argparse.Namespace, tuning: Tuning, *, anew: bool) -> None:
    """Says to rank 0's strategy where it keeps what."""
    strategy.losses, strategy.answered = Losses(args.workspace, anew=anew), Answered(args.workspace, anew=anew)
    strategy.begun = Begun(args.workspace)
    if args.hostfile is not None:
        strategy.hosts_answer = functools.partial(all_answer, read_hostfile(args.hostfile))
    strategy.folder = (args.output or args.workspace) / "model"
    strategy.artifact_name = _artifact_name(args, tuning)


def _loaded(order: Order, workspace: Path, journal: JournalFolder | None, timeline: Timeline | Quiet) -> Loaded:
    """A rank's own part; rank 0, which has the journal, calibrates and measures the baseline while others load."""
    began = time.monotonic()
    strategy = _strategy(order)
    seconds = time.monotonic() - began
    if journal is None:
        return Loaded(strategy, seconds, strategy.identity.code)
    strategy.recorder, strategy.observer = journal, timeline
    strategy.keep_ranges(workspace)
    strategy.head_start.calibrate()
    # Calibrating may have imported more of the task's modules, and so may the baseline, which a resumed search leaves.
    code = code_digest(order.tuning.task, order.code)
    strategy.head_start.measure()
    return Loaded(strategy, seconds, code)


def _observe_loading(timeline: Timeline | Quiet, began: float, hosts: Sequence[str], seconds: Sequence[float]) -> None:
    timeline.hosts(hosts)
    for rank, taken in enumerate(seconds):
        timeline.span(Span(rank, Kind.SETUP, 0, "", began, began + taken, Ending.TOLD))


def _artifact_name(args: argparse.Namespace, tuning: Tuning) -> str:
    """In a pod the folder's path says nothing to a user; the claim that holds it does."""
    if not args.in_pod:
        return ""
    return f"persistentvolumeclaim/{tuning.output.claim}/{tuning.output.path}/model" if tuning.output else NOT_KEPT


def _read(args: argparse.Namespace, journal: JournalFolder | None) -> Order:
    # On rank 0 alone: it is a twentieth of what a rank imports, and after a loss all wait for the last one.
    from quantuner.api.validation import admit

    body = admit(yaml.safe_load(args.tuning.read_text(encoding="utf-8")))
    tuning = Tuning.from_body(body)
    threads = threads_of(tuning, journal.history if journal else History())
    return Order(tuning, search_digest(body), args.code, threads)


def _strategy(order: Order) -> TuneStrategy:
    tuning = order.tuning
    task = load_task(tuning.task, order.code)  # first, since it may register a strategy of its own
    chosen = strategy_class(tuning.strategy)
    engine = engine_of(task, tuning.quantization, [o.name for o in tuning.tuning_criterion.objectives])
    strategy: TuneStrategy = chosen(engine, tuning)
    strategy.identity = Identity(search=order.search, code=code_digest(tuning.task, order.code))
    return strategy


def _failure(error: SearchError) -> Failed:
    return Failed(reason=error.reason, message=error.message, traceback=error.traceback, time=utc_now())


if __name__ == "__main__":
    sys.exit(main())
