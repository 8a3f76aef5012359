"""The operator as a process of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.e2e.patience import PATIENCE_SECONDS, eventually

QUIET_RECONCILES = 1  # the first that ends well has done all there was to do
TUNER_IMAGE = "localhost/quantuner-test/never-there:1"


class OperatorProcess:
    """`python -m quantuner.controller` for one namespace; may be killed and started again."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, *flags: str) -> None:
        self.kubeconfig = kubeconfig
        self.metrics_port, self.health_port = free_port(), free_port()
        self._log = log
        self._command = [
            sys.executable, "-m", "quantuner.controller", "--namespace", namespace,
            "--metrics-port", str(self.metrics_port), "--health-port", str(self.health_port),
            "--tuner-image", TUNER_IMAGE, "--tuner-image-pull-policy", "Never", *flags,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """As the kernel does it: no handler runs. Only signals; `wait` reaps."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def await_end_or_quiet(self) -> bool:
        """Until the process was killed, or has reconciled and has nothing to do; whether it was killed."""

        def ended_or_quiet() -> bool:
            if not self.is_running():
                return True
            try:
                return _count(self.metrics(), 'quantuner_reconcile_total{result="success"}') >= QUIET_RECONCILES
            except (urllib.error.URLError, ConnectionError):
                return False

        eventually(ended_or_quiet, "the operator is dead or quiet")
        if self.is_running():
            self.stop()
            return False
        return True

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text()

    def metrics(self) -> str:
        return self._read(f"http://127.0.0.1:{self.metrics_port}/metrics")

    def health(self) -> str:
        return self._read(f"http://127.0.0.1:{self.health_port}/healthz")

    def _read(self, url: str) -> str:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    def await_health(self) -> None:
        def healthy() -> bool:
            try:
                return bool(self.health())
            except (urllib.error.URLError, ConnectionError):
                return False

        eventually(healthy, "the operator is healthy")


def _count(metrics: str, series: str) -> float:
    found = (line for line in metrics.splitlines() if line.startswith(series))
    return float(next(found, "0").rsplit(" ", 1)[-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
