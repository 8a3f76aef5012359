"""The smallest client of the Kubernetes API that serves: get and patch one ConfigMap from inside a pod."""

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantuner.api.errors import QuantunerError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 10.0
WRITER = "quantuner.dev/written-by"
"""Annotation: the process whose ConfigMap it is."""
# The same request never goes through. Any other answer may be a server that is starting, rights that are not
# bound yet, or an object that is about to be created again.
_FINAL = (http.client.REQUEST_ENTITY_TOO_LARGE, http.client.UNPROCESSABLE_ENTITY)


class ApiUnavailableError(QuantunerError):
    """The API server did not answer, or asks to come back later; the same request may go through then."""


class ConflictError(ApiUnavailableError):
    """The object was changed since it was read; the same request may go through after it is read again."""


class ApiRefusedError(QuantunerError):
    """The API server refused the request for good."""


@dataclass(frozen=True)
class Stored:
    """A ConfigMap as the server has it."""

    data: Mapping[str, str]
    version: str
    """Another one after each change."""
    writer: str
    """Who has last written it; empty where nobody has."""


class ConfigMaps:
    """ConfigMaps of the pod's own namespace, with the pod's own ServiceAccount."""

    def __init__(self, account: Path = SERVICE_ACCOUNT, host: str = "", port: int = 0) -> None:
        """`host` and `port` default to the environment that Kubernetes gives every pod."""
        self._account = account
        self._host = host or os.environ["KUBERNETES_SERVICE_HOST"]
        self._port = port or int(os.environ["KUBERNETES_SERVICE_PORT"])
        self._namespace = (account / "namespace").read_text().strip()
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def read(self, name: str) -> Stored:
        """The ConfigMap. Raises `ApiUnavailableError` or `ApiRefusedError`."""
        return _stored(self._request("GET", name))

    def write(self, name: str, data: Mapping[str, str], *, writer: str, version: str) -> Stored:
        """Sets these keys, leaves the others, and returns all there is. Raises what `read` raises.

        `version` is the one that was read: where the object was changed since then, nothing is written and
        `ConflictError` is raised.
        """
        metadata = {"resourceVersion": version, "annotations": {WRITER: writer}}
        return _stored(self._request("PATCH", name, {"metadata": metadata, "data": dict(data)}))

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
            raise _error(response.status)(f"{method} {path}: {response.status} {_message(text) or response.reason}")
        answer = _object(text)
        if answer is None:  # of something between the server and this pod
            raise ApiUnavailableError(f"{method} {path}: {response.status} without a JSON object: {text[:80]!r}")
        return answer


def _error(status: int) -> type[ApiUnavailableError | ApiRefusedError]:
    if status == http.client.CONFLICT:
        return ConflictError
    return ApiRefusedError if status in _FINAL else ApiUnavailableError


def _stored(body: Mapping[str, Any]) -> Stored:
    metadata = body.get("metadata") or {}
    writer = (metadata.get("annotations") or {}).get(WRITER, "")
    return Stored(body.get("data") or {}, metadata.get("resourceVersion", ""), writer)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _message(text: bytes) -> str:
    status = _object(text)
    return str(status.get("message", ""))[:300] if status is not None else text[:300].decode(errors="replace")
