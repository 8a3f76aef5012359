"""A Prometheus server of the test's own, asked over its HTTP API."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.patience import PATIENCE_SECONDS, eventually


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
            eventually(server.is_ready, "Prometheus ready")
            yield server
        finally:
            process.terminate()
            process.wait()

    def is_ready(self) -> bool:
        try:
            return bool(self._get("/-/ready"))
        except (urllib.error.URLError, ConnectionError):
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

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_SECONDS) as response:
            text: str = response.read().decode()
            return text
