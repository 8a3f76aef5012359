"""`quantuner run`: the same resource and the same ranks as on a cluster, on this computer."""

import argparse
import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Finished, History
from quantuner.api.spec import Tuning, search_digest
from quantuner.api.validation import admit
from quantuner.cli.progress import Progress
from quantuner.cli.report import STATUS_FILE, TUNING_FILE, outcome_text, status_of, trials_table
from quantuner.distributed import forking, mpirun
from quantuner.distributed.journal import (
    BEST_FILE,
    JOURNAL_FILE,
    free_number,
    read_history,
    read_lines,
    replace_text,
    sole_search,
)
from quantuner.distributed.supervisor import Supervisor
from quantuner.distributed.timeline import TIMELINE_FILE

_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA's and AMD's drivers


def run(args: argparse.Namespace, manifest: object, console: Console) -> int:
    """Searches, or goes on with an unfinished search; 0 when it is complete, 1 when it failed or was stopped."""
    _require_tuner()
    body = admit(manifest)
    tuning = Tuning.from_body(body)
    workers = tuning.workers if args.workers is None else args.workers
    if workers < 0:
        raise QuantunerError(f"--workers must be 0 (serial) or more, not {workers}")
    ranks = tuning.ranks(workers)
    workspace: Path = args.workspace or Path("quantuner_workspace") / tuning.name
    with sole_search(workspace):
        return _run(args, workspace, body, ranks, console)


def _run(args: argparse.Namespace, workspace: Path, body: dict[str, Any], ranks: int, console: Console) -> int:
    arguments = [
        *("--tuning", str(workspace / TUNING_FILE)),
        *("--workspace", str(workspace), "--code", str((args.code or args.file.parent).resolve())),
    ]
    tuning = Tuning.from_body(body)
    supervisor = Supervisor(workspace, lambda _: mpirun.local(ranks, [*program, *arguments]), relay=args.verbose)
    # Signals are heeded before and after the ranks, too: they would leave the fork server's folder behind.
    with supervisor.listening():
        _prepare(workspace, body, console, fresh=args.fresh)
        with _program(ranks, tuning.quantization.device) as program, Progress(workspace, tuning, console):
            code = supervisor.run()
        return _conclude(workspace, body, console, code)


@contextlib.contextmanager
def _program(ranks: int, device: str) -> Iterator[list[str]]:
    """What each rank runs. Several are forks of one process that imports, but not where there is a GPU.

    What has begun CUDA cannot use it in its forks, and whatever is imported may have asked for devices.
    """
    has_devices = device != "cpu" or any(Path(file).exists() for file in _DEVICES)
    if ranks == 1 or has_devices or not forking.wanted(default=True):
        yield mpirun.python("-m", forking.PROGRAM)
        return
    # In a folder of its own, since a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="quantuner-") as folder, forking.serving(Path(folder)):
        yield forking.client(Path(folder), forking.PROGRAM)


def _require_tuner() -> None:
    missing = [name for name in ("torch", "torchao", "mpi4py") if importlib.util.find_spec(name) is None]
    if missing:
        raise QuantunerError(
            f"`quantuner run` needs {', '.join(missing)}; install it in Quantuner's checkout: pip install '.[tuner]'"
        )


def _prepare(workspace: Path, body: dict[str, Any], console: Console, *, fresh: bool) -> None:
    """An unfinished journal of this very search is continued, a failed one too; any other is kept under a new name."""
    journal = workspace / JOURNAL_FILE
    told = bool(read_lines(journal))
    history = History() if fresh else read_history(journal)  # a damaged one is no reason not to start anew
    same = bool(history.launches) and history.launches[0].search == search_digest(body)
    if told and same and not isinstance(history.end, Finished) and not fresh:
        console.print(f"going on after {len(history.tried)} told trials of {journal}", soft_wrap=True, markup=False)
    elif told:
        number = free_number(workspace)
        kept = workspace / f"journal.{number}.jsonl"
        journal.rename(kept)
        if (workspace / TIMELINE_FILE).exists():
            (workspace / TIMELINE_FILE).rename(workspace / f"timeline.{number}.jsonl")
        console.print(f"the earlier search is kept in {kept}", soft_wrap=True, markup=False)
        for name in (BEST_FILE, STATUS_FILE):
            (workspace / name).unlink(missing_ok=True)
    replace_text(workspace / TUNING_FILE, yaml.safe_dump(body, sort_keys=False))


def _conclude(workspace: Path, body: dict[str, Any], console: Console, code: int) -> int:
    tuning, history = Tuning.from_body(body), read_history(workspace / JOURNAL_FILE)
    status = {**body, "status": status_of(workspace, body)}
    replace_text(workspace / STATUS_FILE, yaml.safe_dump(status, sort_keys=False))
    if history.trials:
        console.print(trials_table(tuning, history))
    console.print(outcome_text(tuning, history), soft_wrap=True)
    console.print(f"status: {workspace / STATUS_FILE}", soft_wrap=True, markup=False)
    return 0 if code == 0 and isinstance(history.end, Finished) else 1
