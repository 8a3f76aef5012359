"""The API server, as plain dictionaries: five verbs, one error tree."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from quantuner.api.errors import QuantunerError
from quantuner.controller.objects import Kind, Manifest

REQUEST_TIMEOUT_SECONDS = 30
MERGE_PATCH = "application/merge-patch+json"

Answered = Callable[[str, str], None]
"""Hears of every request: its method, and the HTTP status of the answer, `none` where there was none."""


def _unheard(_method: str, _code: str) -> None:
    pass


class ClusterError(QuantunerError):
    """The API server did not do what was asked; trying again later may help."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {message} (HTTP {status})" if status else f"{what}: {message}")
        self.status = status
        self.message = message


class NotFoundError(ClusterError):
    """The object, its namespace or its kind is not there."""


class ConflictError(ClusterError):
    """Somebody was faster: the object exists already, or changed since it was read."""


class ForbiddenError(ClusterError):
    """RBAC, a quota, a policy or an admission webhook says no; an administrator can change that."""


class InvalidError(ClusterError):
    """The object itself is wrong; sending it again cannot help."""


# A webhook that gives no code says no with 400, a ValidatingAdmissionPolicy that gives no reason with 422.
_ERRORS = {400: ForbiddenError, 403: ForbiddenError, 404: NotFoundError, 409: ConflictError, 422: InvalidError}
_DENIED = re.compile(r"denied (the )?request")


class Cluster:
    """A connection to one API server. Close it in the loop that opened it."""

    def __init__(self, api: aio_client.ApiClient, answered: Answered = _unheard) -> None:
        self._api = api
        self._answered = answered

    @classmethod
    async def connect(cls, answered: Answered = _unheard) -> Cluster:
        """As KUBECONFIG says, else as a pod's service account."""
        configuration = aio_client.Configuration()
        path = os.environ.get("KUBECONFIG")
        if path:
            await aio_config.load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            aio_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        return cls(aio_client.ApiClient(configuration), answered)

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        """None where it does not exist."""
        try:
            return await self._request("GET", kind.path(namespace, name))
        except NotFoundError:
            return None

    async def list(self, kind: Kind, namespace: str, selector: str) -> list[dict[str, Any]]:
        answer = await self._request("GET", kind.path(namespace), query={"labelSelector": selector})
        items: list[dict[str, Any]] = answer["items"]
        return items

    async def create(self, kind: Kind, namespace: str, manifest: Manifest) -> dict[str, Any]:
        return await self._request("POST", kind.path(namespace), body=manifest)

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Manifest, subresource: str = ""
    ) -> dict[str, Any]:
        """A JSON merge patch: lists are replaced, None removes."""
        path = kind.path(namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._request("PATCH", path, body=patch, content_type=MERGE_PATCH)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Deletes that very object and, before it vanishes, what it owns; success where it is gone."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Foreground"}
        try:
            await self._request("DELETE", kind.path(namespace, name), body=options)
        except NotFoundError:
            return

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        call = await self._api.param_serialize(
            method, path, query_params=list((query or {}).items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            response = await self._api.call_api(*call, _request_timeout=REQUEST_TIMEOUT_SECONDS)
            text: bytes = await response.read()  # type: ignore[no-untyped-call]
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._answered(method, "none")
            reason = str(error) or type(error).__name__
            raise ClusterError(f"{method} {path}", 0, f"no answer from the API server: {reason}") from error
        self._answered(method, str(response.status))
        if response.status >= 300:
            raise _error(f"{method} {path}", response.status, text)
        answer: dict[str, Any] = json.loads(text)
        return answer


def _error(what: str, status: int, text: bytes) -> ClusterError:
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):  # a proxy's page is no Status and may hold secrets
        message = "an answer that is no Kubernetes Status"
    if status == 422 and _DENIED.search(message):
        return ForbiddenError(what, status, message)
    return _ERRORS.get(status, ClusterError)(what, status, message)
