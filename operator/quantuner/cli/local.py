"""`quantuner run`: the same resource and the same ranks as on a cluster, on this computer."""

import argparse
import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from quantuner.api.errors import QuantunerError
from quantuner.api.journal import Finished
from quantuner.api.spec import Tuning
from quantuner.api.validation import admit
from quantuner.cli.earlier import keep, prepare
from quantuner.cli.progress import Progress
from quantuner.cli.report import STATUS_FILE, TUNING_FILE, outcome_text, status_of, trials_table
from quantuner.distributed import forking, mpirun, tied
from quantuner.distributed.journal import JOURNAL_FILE, read_history, sole_search
from quantuner.distributed.supervisor import Supervisor

_DEVICES = ("/dev/nvidiactl", "/dev/kfd")  # of NVIDIA's and AMD's drivers


def run(args: argparse.Namespace, manifest: object, console: Console) -> int:
    """Searches, goes on with what is unfinished, or shows what has finished.

    0 when the search is complete, 1 when it failed or was stopped.
    """
    _require_tuner()
    body = admit(manifest)
    tuning = Tuning.from_body(body)
    workers = tuning.workers if args.workers is None else args.workers
    if workers < 0:
        raise QuantunerError(f"--workers must be 0 (serial) or more, not {workers}")
    ranks = tuning.ranks(workers)
    workspace: Path = args.workspace or Path("quantuner_workspace") / tuning.name
    _check_folders(args.code, workspace)
    _check_file(args.file, workspace / TUNING_FILE)
    with sole_search(workspace):
        return _run(args, workspace, body, ranks, console)


def _check_file(file: Path, copy: Path) -> None:
    if copy.exists() and copy.samefile(file):
        raise QuantunerError(
            f"{file} is where the workspace keeps its own copy of the resource; name another --workspace, or give the "
            "file another name"
        )


def _check_folders(code: Path | None, workspace: Path) -> None:
    """Makes the workspace. Raises `QuantunerError` where there can be none, or no code."""
    if code is not None and not code.is_dir():
        raise QuantunerError(
            f"--code must be a folder, the one with the task's modules, and {code} is none; correct it"
        )
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuantunerError(
            f"the workspace must be a folder that can be made and written, and {workspace} is not: {error.strerror}; "
            "name another one with --workspace"
        ) from error


def _run(args: argparse.Namespace, workspace: Path, body: dict[str, Any], ranks: int, console: Console) -> int:
    code_folder = (args.code or args.file.parent).resolve()
    arguments = [
        *("--tuning", str(workspace / TUNING_FILE), "--workspace", str(workspace), "--code", str(code_folder)),
    ]
    tuning = Tuning.from_body(body)
    supervisor = Supervisor(workspace, lambda _: mpirun.local(ranks, [*program, *arguments]), relay=args.verbose)
    # Signals are heeded before and after the ranks, too: they would leave the fork server's folder behind.
    with supervisor.listening():
        if not prepare(workspace, body, code_folder, console, fresh=args.fresh):
            return _conclude(workspace, body, console, 0)
        with _program(ranks, tuning.quantization.device) as program, Progress(workspace, tuning, console):
            code = supervisor.run()
        return _conclude(workspace, body, console, code)


@contextlib.contextmanager
def _program(ranks: int, device: str) -> Iterator[list[str]]:
    """What each rank runs. Several are forks of one process that imports, but not where there is a GPU.

    What has begun CUDA cannot use it in its forks, and whatever is imported may have asked for devices.
    """
    has_devices = device != "cpu" or any(Path(file).exists() for file in _DEVICES)
    if ranks == 1:  # mpirun ends its ranks where this process is killed; nothing else would end this one
        yield mpirun.python("-m", tied.__name__, str(os.getpid()), forking.PROGRAM)
        return
    if has_devices or not forking.wanted(default=True):
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


def _conclude(workspace: Path, body: dict[str, Any], console: Console, code: int) -> int:
    tuning, history = Tuning.from_body(body), read_history(workspace / JOURNAL_FILE)
    if history.trials:
        console.print(trials_table(tuning, history))
    console.print(outcome_text(tuning, history, workspace), soft_wrap=True)
    keep(workspace / STATUS_FILE, {**body, "status": status_of(workspace, body)})  # last: a disk may be full
    console.print(f"status: {workspace / STATUS_FILE}", soft_wrap=True, markup=False)
    return 0 if code == 0 and isinstance(history.end, Finished) else 1
