"""The few requests that building a cluster makes of its API server."""

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

TIMEOUT_SECONDS = 10.0
FIELD_MANAGER = "quantuner-test-cluster"


class UnavailableError(Exception):
    """The server did not do what was asked, and may yet do it if asked again."""


class Api:
    """A client of one API server as the user of a kubeconfig with embedded certificates."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._server: str = cluster["server"]
        self._context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            self._context.load_cert_chain(pair.name)
        # No proxy: the machine's environment may name one, and it knows no way to this address.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )

    def get(self, path: str) -> Any:
        """The object at a path, or None when there is none."""
        answer = self._request("GET", path)
        return None if answer is None else json.loads(answer)

    def is_ready(self) -> bool:
        try:
            return self._request("GET", "/readyz") == b"ok"
        except UnavailableError:
            return False

    def apply(self, path: str, manifest: str | dict[str, Any]) -> None:
        """Server-side apply of one object; its path is the one it will be read from."""
        body = manifest if isinstance(manifest, str) else json.dumps(manifest)
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        if self._request("PATCH", path + query, body.encode()) is None:
            raise UnavailableError(f"{path}: its namespace or its kind is not there")

    def condition(self, path: str, kind: str) -> bool:
        """Whether the object at the path is there and its condition of this type is True."""
        try:
            found = self.get(path)
        except UnavailableError:
            return False
        # The field is null, and not absent, while the server has set none yet.
        conditions = (found or {}).get("status", {}).get("conditions") or []
        return any(c["type"] == kind and c["status"] == "True" for c in conditions)

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes | None:
        request = urllib.request.Request(self._server + path, data=body, method=method)
        request.add_header("Accept", "application/json")
        if body is not None:
            request.add_header("Content-Type", "application/apply-patch+yaml")
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                answer: bytes = response.read()
                return answer
        except urllib.error.HTTPError as error:
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            raise UnavailableError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from None
        except OSError as error:
            raise UnavailableError(f"{method} {path}: {error}") from None
