"""A real HTTPS server that answers as the Kubernetes API does for ConfigMaps, and fails as it may fail."""

import json
import socket
import ssl
import subprocess
import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from quantuner.distributed.configmap import WRITER

WAIT_SECONDS = 30.0  # never waited for in a test that passes
TOKEN = "secret-token"
NAMESPACE = "team"


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-keyout", str(key), "-out", str(cert), "-subj", "/CN=test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(key.read_text() + cert.read_text())
    return both


def service_account(folder: Path, pem: Path, token: str = TOKEN) -> Path:
    """What the kubelet mounts into a pod."""
    folder.mkdir()
    (folder / "namespace").write_text(NAMESPACE)
    (folder / "token").write_text(token + "\n")
    (folder / "ca.crt").write_text((pem.parent / "cert.pem").read_text())
    return folder


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate hangs up, as it should."""


class ApiServer:
    """ConfigMaps by name. `faults` are answered, one a request, before requests are served again."""

    def __init__(self, pem: Path, port: int = 0) -> None:
        self.maps: dict[str, dict[str, str]] = {}
        self.faults: deque[int | str] = deque()
        """A status code (200 serves the request), "hang up", "half an answer", or the text of a 200."""
        self.patches: list[tuple[str, list[str]]] = []
        """Name and keys of every patch that was applied to data."""
        self.writers: dict[str, str] = {}
        """By name, where one has written."""
        self._versions: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._pem = pem
        self._start(port)

    def _start(self, port: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pem)
        self._server = _Server(("127.0.0.1", port), _handler_of(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """Connections are refused from now on."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reopen(self) -> None:
        """Answers again, at the same port."""
        self._start(self.port)

    def wait_until(self, name: str, lines: int) -> None:
        """Returns when the ConfigMap has so many keys."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.maps.get(name, {})) >= lines, WAIT_SECONDS)
        assert arrived, f"{name} has {len(self.maps.get(name, {}))} keys, not {lines}"

    def wait_until_faults_are_over(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: not self.faults, WAIT_SECONDS), f"still to come: {self.faults}"

    def create_anew(self, name: str) -> None:
        """As the operator does when somebody has deleted it."""
        with self._changed:
            self.maps[name] = {}
            self.writers.pop(name, None)
            self._versions[name] += 100

    def touch(self, name: str) -> None:
        """Somebody changes a label."""
        with self._changed:
            self._versions[name] += 1

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int | str, dict[str, Any]]:
        with self._changed:
            self._changed.notify_all()
            fault = self.faults.popleft() if self.faults else 200
            if fault != 200:
                return fault, {"kind": "Status", "message": f"made to fail with {fault}"}
            if headers["Authorization"] != f"Bearer {TOKEN}":
                return 401, {"kind": "Status", "message": "Unauthorized"}
            name = path.removeprefix(f"/api/v1/namespaces/{NAMESPACE}/configmaps/")
            if name not in self.maps:
                return 404, {"kind": "Status", "message": f'configmaps "{name}" not found'}
            if method == "PATCH":
                assert headers["Content-Type"] == "application/merge-patch+json"
                patch = json.loads(body)
                if patch["metadata"]["resourceVersion"] != str(self._versions[name]):
                    return 409, {"kind": "Status", "message": "the object has been modified"}
                self._merge(name, patch["metadata"]["annotations"], patch["data"])
            return 200, {"kind": "ConfigMap", "metadata": self._metadata(name), "data": self.maps[name] or None}

    def _metadata(self, name: str) -> dict[str, Any]:
        writer = self.writers.get(name)
        annotations = {"annotations": {WRITER: writer}} if writer else {}
        return {"name": name, "resourceVersion": str(self._versions[name]), **annotations}

    def _merge(self, name: str, annotations: dict[str, str], data: dict[str, str | None]) -> None:
        """RFC 7396: null removes a key, another value sets it, what is not named stays."""
        before = dict(self.maps[name]), self.writers.get(name)
        self.writers[name] = annotations[WRITER]
        if data:
            self.patches.append((name, list(data)))
        for key, value in data.items():
            if value is None:
                self.maps[name].pop(key, None)
            else:
                self.maps[name][key] = value
        self._versions[name] += (self.maps[name], self.writers[name]) != before


def _handler_of(api: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, answer = api.answer(self.command, self.path, self.headers, body)
            text = json.dumps(answer).encode()
            if status == "hang up":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if status == "half an answer":
                self._reply(200, text[: len(text) // 2], len(text))
                return
            if isinstance(status, str):
                self._reply(200, status.encode(), len(status.encode()))
                return
            self._reply(status, text, len(text))

        def _reply(self, status: int, text: bytes, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PATCH = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Tests print nothing."""

    return Handler
