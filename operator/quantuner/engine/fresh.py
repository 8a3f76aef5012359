"""A saved model in a process of its own, where nothing is that made it: no code of the user's, no converted model."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_map

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine import serving
from quantuner.engine.allocation import keeping_freed_memory
from quantuner.engine.naming import positional

ENDING_SECONDS = 10.0  # for a process whose connection has ended to end too


@dataclass(frozen=True)
class Started:
    """A process that serves, and the connection to it."""

    process: subprocess.Popen[bytes]
    connection: Connection


def begin() -> Started:
    """Raises `OSError` where no process can be started."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-P", "-W", "ignore", serving.__file__, str(theirs.fileno())]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=keeping_freed_memory(os.environ),
        )
        return Started(process, Connection(ours.detach()))


class FreshProcess:
    """Computes with one saved model after the other. Used as a context, it is ended there."""

    def __init__(self) -> None:
        self._begun: Started | None = None
        self._calling = threading.Lock()
        """Held from a question to its answer: an evaluation may call the model from threads."""

    def start(self) -> None:
        """Begins to import torch, beside what follows here; does nothing where it has begun.

        Raises `OSError` where no process can be started.
        """
        if self._begun is not None:
            return
        self._begun = begin()

    def prepare(self) -> None:
        """Begins to import what loads a program, too; before a model is converted.

        Not earlier: it takes a processor, and torch's threads here wait for each other at every operator, so that a
        search on all processors makes no way meanwhile. Raises `OSError` where no process can be started, `SearchError`
        where it has ended.
        """
        self._send(serving.PREPARE)

    def _started(self) -> Started:
        self.start()
        assert self._begun is not None
        return self._begun

    @property
    def pid(self) -> int:
        """Of the process, which is started."""
        return self._started().process.pid

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, whatever it is at: it holds nothing. May be called again."""
        if self._begun is not None:
            self._begun.connection.close()
            self._begun.process.kill()
            self._begun.process.wait()

    def load(self, file: Path) -> None:
        """Has the program `file` loaded, with this process's threads. `loaded` waits for it."""
        settings = {"threads": torch.get_num_threads(), "precision": torch.get_float32_matmul_precision()}
        self._send({"file": str(file), **settings})

    def loaded(self) -> None:
        """Returns when the model is loaded. Raises `SearchError` where it cannot be."""
        self._answer()

    def call(self, inputs: Sequence[Any]) -> Any:
        """The model's output; inputs are by position.

        Raises `SearchError` where the model raises, or the process has ended.
        """
        with self._calling:
            self._send(tree_map(_compact, tuple(inputs)))
            return self._answer()

    def _send(self, request: Any) -> None:
        try:
            self._started().connection.send_bytes(pickle.dumps(request))
        except OSError as error:
            raise self._ended() from error

    def _answer(self) -> Any:
        try:
            succeeded, answer = pickle.loads(self._started().connection.recv_bytes())  # noqa: S301 (of a process of our own)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if not succeeded:
            raise SearchError(
                Failure.VERIFICATION_FAILED,
                f"the saved model, loaded in a process of its own, raises {str(answer).splitlines()[-1]}",
                answer,
            )
        return answer

    def _ended(self) -> SearchError:
        process = self._started().process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)
        code = process.poll()
        how = (
            "answers no more" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        )
        return SearchError(
            Failure.VERIFICATION_FAILED,
            f"the process that loads and measures the saved model {how}; it needs memory for torch and the model "
            "beside the search's own: give rank 0 more, or see its last lines in the log",
        )


class FreshModel(torch.nn.Module):
    """A saved model that computes in a `FreshProcess`; called like the one that is loaded here, whose tensors it has.

    An evaluation that moves the model to another device has it computed here: the process has that of the search.
    """

    def __init__(self, model: GraphModule, process: FreshProcess) -> None:
        """Waits until `process` has loaded it. Raises what `loaded` raises."""
        super().__init__()
        self.model = model
        self._process = process
        self._device = _device_of(model)
        process.loaded()

    def train(self, mode: bool = True) -> FreshModel:
        """Leaves the model as it is; a captured one would refuse."""
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if _device_of(self.model) != self._device:
            return self.model(*inputs, **named)
        return self._process.call(positional(self.model, inputs, named))


def _device_of(model: torch.nn.Module) -> torch.device | None:
    return next((tensor.device for tensor in model.state_dict().values()), None)


def _compact(value: Any) -> Any:
    """A tensor without gradients and without the rest of what it is a part of; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    return value if value.untyped_storage().nbytes() == value.numel() * value.element_size() else value.clone()
