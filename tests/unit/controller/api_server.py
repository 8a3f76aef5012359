"""As much of an API server as the operator speaks to: objects in a dictionary, over HTTP on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from quantuner.controller.cluster import Answered, Cluster

Object = dict[str, Any]
Answer = tuple[int, str]


class ApiServer:
    """`faults` answers a (verb, plural) in place of the server; `hidden` paths are not found when read."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.faults: dict[tuple[str, str], Answer] = {}
        self.closed: dict[str, list[Answer]] = {}
        """By namespace what is answered there, one after the other and the last for good."""
        self.hidden: set[str] = set()
        self.drops: set[str] = set()
        """Fields that a status loses, as with an older CRD."""
        self.writes: list[str] = []
        self._url = ""

    def plurals(self) -> list[str]:
        """Of all objects, events aside."""
        found = (path.split("/")[-2] for path in self.objects)
        return sorted(plural for plural in found if plural != "events")

    def find(self, plural: str, name: str) -> Object:
        return next(o for path, o in self.objects.items() if path.endswith(f"/{plural}/{name}"))

    @asynccontextmanager
    async def serve(self, *answered: Answered) -> AsyncIterator[Cluster]:
        """A client of this server."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with TestServer(app) as server:
            self._url = str(server.make_url("")).rstrip("/")
            cluster = Cluster(ApiClient(Configuration(host=self._url)), *answered)
            try:
                yield cluster
            finally:
                await cluster.close()

    def kubeconfig(self, folder: Path) -> str:
        """A file that leads to this server, while it serves."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self._url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(config))
        return str(path)

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path.removesuffix("/status")
        namespace, plural = path.split("/namespaces/")[1].split("/")[:2]
        if request.method != "GET":
            self.writes.append(f"{request.method} {plural}")
        if (request.method, plural) in self.faults:
            return _status(*self.faults[request.method, plural])
        if answers := self.closed.get(namespace):
            return _status(*(answers.pop(0) if len(answers) > 1 else answers[0]))
        body = json.loads(await request.text() or "{}")
        handle = {"GET": self._get, "POST": self._post, "PATCH": self._patch, "DELETE": self._delete}
        return handle[request.method](path, body)

    def _get(self, path: str, _: Object) -> web.Response:
        if path.endswith(("/pods", "/quantizationtunings")):
            return web.json_response({"items": []})
        if path in self.hidden or path not in self.objects:
            return _status(404, "not found")
        return web.json_response(self.objects[path])

    def _post(self, path: str, body: Object) -> web.Response:
        path = f"{path}/{body['metadata']['name']}"
        if path in self.objects:
            return _status(409, "already exists")
        self.objects[path] = merged(body, {"metadata": {"uid": f"uid-{len(self.objects)}", "resourceVersion": "1"}})
        return web.json_response(self.objects[path], status=201)

    def _patch(self, path: str, body: Object) -> web.Response:
        old = self.objects[path]
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, old["metadata"]["resourceVersion"]):
            return _status(409, "the object has been modified")
        new = merged(old, body)
        for field in self.drops:
            new.get("status", {}).pop(field, None)
        new["metadata"]["resourceVersion"] = str(int(old["metadata"]["resourceVersion"]) + 1)
        self.objects[path] = new
        return web.json_response(new)

    def _delete(self, path: str, _: Object) -> web.Response:
        if self.objects.pop(path, None) is None:
            return _status(404, "not found")
        return web.json_response({})


def merged(old: Mapping[str, Any], patch: Mapping[str, Any]) -> Object:
    """A JSON merge patch (RFC 7386)."""
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, Mapping):
            before = new.get(key)
            new[key] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            new[key] = value
    return new


def _status(code: int, message: str) -> web.Response:
    if message.startswith("<"):  # a proxy's page
        return web.Response(status=code, text=message)
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)
