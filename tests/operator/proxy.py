"""A proxy before the API server that injects faults: it notes requests, calls a hook after each write, or is away."""

from __future__ import annotations

import base64
import http
import http.client
import http.server
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

WRITES = ("POST", "PATCH", "DELETE")
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "host"}


class Write(NamedTuple):
    method: str
    path: str
    status: int


class Proxy:
    """Speaks plain HTTP on loopback; credentials are the client's own."""

    def __init__(self, admin: Path) -> None:
        cluster = yaml.safe_load(admin.read_text())["clusters"][0]["cluster"]
        self.upstream = urllib.parse.urlsplit(cluster["server"])
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        self.writes: list[Write] = []
        self.reads: list[str] = []
        """Paths that were read; watches are not."""
        self.after_write: Callable[[Write], None] = lambda _: None
        """Called when the server has changed something and the client does not know yet."""
        self.away = False
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def _pass_on(self) -> None:
            if proxy.away:
                self.close_connection = True
                return
            url = urllib.parse.urlsplit(self.path)
            if self.command == "GET" and "watch=true" not in url.query:
                proxy.reads.append(url.path)
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size) if size else None
            connection = http.client.HTTPSConnection(proxy.upstream.netloc, context=proxy.context)
            try:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                connection.request(self.command, self.path, body, headers)
                self._answer(connection.getresponse())
            except (OSError, http.client.HTTPException):  # the client was killed, or the server went away
                self.close_connection = True
            finally:
                connection.close()

        def _answer(self, response: http.client.HTTPResponse) -> None:
            if self.command in WRITES:
                write = Write(self.command, urllib.parse.urlsplit(self.path).path, response.status)
                proxy.writes.append(write)
                if response.status < http.HTTPStatus.BAD_REQUEST:
                    proxy.after_write(write)
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()
            while (chunk := response.read1(1 << 16)) and not proxy.away:
                self.wfile.write(chunk)
                self.wfile.flush()

        do_GET = do_POST = do_PATCH = do_DELETE = _pass_on  # noqa: N815 the base class calls them so

    return Handler
