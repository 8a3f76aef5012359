"""kubectl as these tests use it: commands, objects, and waiting on a watch instead of a clock."""

import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.patience import PATIENCE_SECONDS

Object = dict[str, Any]


@dataclass(frozen=True)
class Kube:
    """One cluster, one namespace."""

    kubectl: Path
    kubeconfig: Path
    namespace: str

    def run(self, *args: str, stdin: str | None = None, ok: bool = True) -> str:
        """kubectl's output; a failure raises with what kubectl said, unless `ok` is False."""
        done = subprocess.run(
            self.command(*args),
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=PATIENCE_SECONDS + 60,
        )
        if ok and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout if not done.returncode else done.stdout + done.stderr

    def command(self, *args: str) -> list[str]:
        return [str(self.kubectl), "--namespace", self.namespace, *args]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def apply(self, *objects: Object) -> None:
        self.run("apply", "-f", "-", stdin="\n---\n".join(json.dumps(o) for o in objects))

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def items(self, kind: str, *args: str) -> list[Object]:
        found: list[Object] = json.loads(self.run("get", kind, "-o", "json", *args))["items"]
        return found

    def await_end(self, *which: str) -> None:
        """Until the objects are gone; they may be already."""
        self.run("wait", "--for=delete", *which, f"--timeout={PATIENCE_SECONDS:.0f}s")

    def await_object(self, kind: str, name: str, holds: Callable[[Object], bool], what: str) -> Object:
        """The object as soon as `holds` is true of it. Follows a watch; out of patience, fails with its state."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        last: Object = {}
        while time.monotonic() < deadline:  # a watch may end before its time; then there is a next one
            for last in self._watch(kind, name, deadline):
                if holds(last):
                    return last
        status = json.dumps(last.get("status", {}), indent=2)
        raise AssertionError(f"{kind}/{name} not {what} within {PATIENCE_SECONDS:.0f} s; last status: {status}")

    def _watch(self, kind: str, name: str, deadline: float) -> Iterator[Object]:
        args = ("get", kind, "--field-selector", f"metadata.name={name}", "--watch", "-o", "json")
        process = subprocess.Popen(
            self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment()
        )
        assert process.stdout is not None
        try:
            yield from _objects(process.stdout.fileno(), deadline)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _objects(descriptor: int, deadline: float) -> Iterator[Object]:
    """JSON objects of a stream as they become whole, until its end or the deadline."""
    text, decoder = "", json.JSONDecoder()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                return
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return
            text += chunk.decode(errors="ignore")
            while text.strip():
                try:
                    value, end = decoder.raw_decode(text.lstrip())
                except ValueError:
                    break
                text = text.lstrip()[end:]
                yield value


def condition(body: Object, type_: str) -> Object:
    """The condition of this type, or an empty object."""
    conditions = body.get("status", {}).get("conditions") or []  # null, not absent, in a CRD that is new
    found: Object = next((c for c in conditions if c["type"] == type_), {})
    return found


def is_true(type_: str) -> Callable[[Object], bool]:
    return lambda body: condition(body, type_).get("status") == "True"


def has_ended(body: Object) -> bool:
    return is_true("Complete")(body) or is_true("Failed")(body)


def has_succeeded(pod: Object) -> bool:
    return bool(pod["status"].get("phase") == "Succeeded")
