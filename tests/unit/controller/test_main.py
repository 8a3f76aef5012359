"""What the operator reads at the depth that an API server lets through. A process of its own: it may not survive."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import json, sys
import kopf
from quantuner.api.errors import InvalidResourceError
from quantuner.api.validation import admit
from quantuner.controller.__main__ import RECURSION_LIMIT
from quantuner.controller.echoes import Echoes
from quantuner.controller.handlers import kopf_settings
from quantuner.controller.objects import Key

LEVELS = 10_000  # the most that an API server decodes
sys.setrecursionlimit(RECURSION_LIMIT)
body = {"apiVersion": "quantuner.dev/v1alpha1", "kind": "QuantizationTuning", "metadata": {"name": "digits"}}
body["spec"] = {"task": {"entrypoint": "digits:task", "args": {"a": "@"}}}
for opened, closed in ("[", "]"), ('{"a":', "}"):
    text = json.dumps({"object": body}).replace('"@"', opened * LEVELS + "0" + closed * LEVELS)
    found = json.loads(text)["object"]
    echoes = Echoes()
    echoes.leave(Key("ns", "digits"), found, {})
    assert echoes.is_echo(Key("ns", "digits"), {**json.loads(text)["object"], "status": {}})
    assert len(json.dumps(found)) > LEVELS
    storage = kopf_settings(clusterwide=True).persistence.diffbase_storage
    assert storage.build(body=kopf.Body(found)) == {} and storage.fetch(body=kopf.Body(found)) is None
    try:
        admit(found)
    except InvalidResourceError as error:
        print(error)
"""


def test_the_deepest_resource_is_read_and_refused() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("spec.task.args: holds objects and lists more than 50 deep") == 2


def test_the_process_raises_its_limit_before_it_serves() -> None:
    program = (
        "import sys; from quantuner.controller import __main__ as m; m.asyncio.run = lambda c: c.close(); m.main()"
    )
    program += "; assert sys.getrecursionlimit() == m.RECURSION_LIMIT"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
