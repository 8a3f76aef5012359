"""Two launchers of one search and a real API server, with the rights that a launcher has: the later one is heard."""

from __future__ import annotations

import base64
import dataclasses
import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from quantuner.api.names import account_name, journal_configmap
from quantuner.controller.build import build_journal_configmap, build_role, build_role_binding, build_service_account
from quantuner.distributed.configmap import ConfigMaps, ConflictError
from quantuner.distributed.held import Held, SupersededError
from tests.e2e.kube import Kube
from tests.unit.records import tuning

pytestmark = pytest.mark.cluster

NAME = "two"
JOURNAL = journal_configmap(NAME)


@pytest.fixture
def configmaps(kube: Kube, tmp_path: Path) -> ConfigMaps:
    """As a launcher pod has them: by its ServiceAccount, whose Role names the ConfigMaps."""
    one = dataclasses.replace(tuning(name=NAME), namespace=kube.namespace, uid=str(uuid.uuid4()))
    build = (build_journal_configmap, build_service_account, build_role, build_role_binding)
    for body in (make(one) for make in build):
        body["metadata"].pop("ownerReferences", None)  # there is no such owner
        kube.apply(body)
    config = yaml.safe_load(kube.kubeconfig.read_text())["clusters"][0]["cluster"]
    account = tmp_path / "account"
    account.mkdir()
    (account / "namespace").write_text(kube.namespace)
    (account / "token").write_text(kube.run("create", "token", account_name(NAME)))
    (account / "ca.crt").write_bytes(base64.b64decode(config["certificate-authority-data"]))
    server = urlsplit(config["server"])
    assert server.hostname is not None
    return ConfigMaps(account, server.hostname, server.port or 443)


def test_the_earlier_launcher_is_refused_once_a_later_one_has_taken_the_journal(
    kube: Kube, configmaps: ConfigMaps
) -> None:
    earlier, later = (Held(configmaps, JOURNAL, writer) for writer in ("earlier", "later"))
    assert earlier.take() == {}
    assert earlier.add({"000000": "launch"}) == {"000000": "launch"}
    assert later.take() == {"000000": "launch"}
    with pytest.raises(SupersededError, match=f"{JOURNAL} is now written by later"):
        earlier.add({"000001": "of the earlier one"})
    assert later.add({"000001": "of the later one"}) == {"000000": "launch", "000001": "of the later one"}
    assert kube.get("configmap", JOURNAL)["data"]["000001"] == "of the later one"


def test_a_change_by_somebody_else_and_a_journal_created_anew_hinder_no_launcher(
    kube: Kube, configmaps: ConfigMaps
) -> None:
    held = Held(configmaps, JOURNAL, "us")
    held.take()
    kube.run("label", "configmap", JOURNAL, "changed=yes")
    assert held.add({"000000": "launch"}) == {"000000": "launch"}
    before = kube.get("configmap", JOURNAL)
    kube.run("delete", "configmap", JOURNAL)
    anew = {key: before["metadata"][key] for key in ("name", "labels")}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": anew})
    assert held.add({"000001": "trial"}) == {"000001": "trial"}


def test_what_was_changed_since_it_was_read_is_not_written_over(kube: Kube, configmaps: ConfigMaps) -> None:
    read = configmaps.read(JOURNAL)
    kube.run("patch", "configmap", JOURNAL, "--type=merge", "-p", json.dumps({"data": {"000000": "theirs"}}))
    with pytest.raises(ConflictError, match=r"409 .*the object has been modified"):
        configmaps.write(JOURNAL, {"000000": "ours"}, writer="us", version=read.version)
    assert configmaps.read(JOURNAL).data == {"000000": "theirs"}
