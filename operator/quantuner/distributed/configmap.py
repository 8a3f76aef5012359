"""The smallest client of the Kubernetes API that serves: get and patch one ConfigMap from inside a pod."""

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantuner.api.errors import QuantunerError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 10.0
# The same request never goes through. Any other answer may be a server that is starting, rights that are not
# bound yet, or an object that is about to be created again.
_FINAL = (http.client.REQUEST_ENTITY_TOO_LARGE, http.client.UNPROCESSABLE_ENTITY)


class ApiUnavailableError(QuantunerError):
    """The API server did not answer, or asks to come back later; the same request may go through then."""


class ApiRefusedError(QuantunerError):
    """The API server refused the request for good."""


class ConfigMaps:
    """ConfigMaps of the pod's own namespace, with the pod's own ServiceAccount."""

    def __init__(self, account: Path = SERVICE_ACCOUNT, host: str = "", port: int = 0) -> None:
        """`host` and `port` default to the environment that Kubernetes gives every pod."""
        self._account = account
        self._host = host or os.environ["KUBERNETES_SERVICE_HOST"]
        self._port = port or int(os.environ["KUBERNETES_SERVICE_PORT"])
        self._namespace = (account / "namespace").read_text().strip()
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def data(self, name: str) -> dict[str, str]:
        """The ConfigMap's data. Raises `ApiUnavailableError` or `ApiRefusedError`."""
        found: dict[str, str] = self._request("GET", name).get("data") or {}
        return found

    def add(self, name: str, data: Mapping[str, str]) -> dict[str, str]:
        """Sets these keys, leaves the others, and returns all there are. Sending the same twice does no harm."""
        found: dict[str, str] = self._request("PATCH", name, {"data": dict(data)}).get("data") or {}
        return found

    def _request(self, method: str, name: str, body: Any = None) -> dict[str, Any]:
        token = (self._account / "token").read_text().strip()  # read anew: the kubelet rotates it
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=REQUEST_SECONDS, context=self._tls)
        path = f"/api/v1/namespaces/{self._namespace}/configmaps/{name}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiUnavailableError(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            kind = ApiRefusedError if response.status in _FINAL else ApiUnavailableError
            raise kind(f"{method} {path}: {response.status} {_message(text) or response.reason}")
        answer: dict[str, Any] = json.loads(text)
        return answer


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return text[:300].decode(errors="replace")
