"""A Prometheus server of the test's own, asked over its HTTP API."""

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 30.0
POLL_SECONDS = 0.25  # Prometheus has no way to be told of a scrape; it scrapes every second


@dataclass(frozen=True)
class Prometheus:
    port: int

    @classmethod
    @contextlib.contextmanager
    def started(cls, program: Path, folder: Path, port: int) -> Iterator["Prometheus"]:
        command = [
            str(program),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        server = cls(port)
        try:
            server.until(server.is_ready, START_SECONDS, "Prometheus ready")
            yield server
        finally:
            process.terminate()
            process.wait()

    def is_ready(self) -> bool:
        try:
            return bool(self._get("/-/ready"))
        except urllib.error.URLError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Result vector of an instant query."""
        answer = json.loads(self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expr: str) -> float | None:
        """The one value of a query, None where it has no series."""
        found = self.query(expr)
        assert len(found) <= 1, f"{expr} has {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            time.sleep(POLL_SECONDS)

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            text: str = response.read().decode()
            return text
