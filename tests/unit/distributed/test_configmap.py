"""The small client: merge patches over verified TLS, and errors sorted by whether trying again may help."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from quantuner.distributed.configmap import ApiRefusedError, ApiUnavailableError, ConfigMaps, ConflictError, Stored
from tests.unit.distributed.api_server import ApiServer, certificate

FRESH = "0"
"""Version of a ConfigMap that nobody has written."""


def data_of(configmaps: ConfigMaps) -> Mapping[str, str]:
    return configmaps.read("journal").data


def write(configmaps: ConfigMaps, data: dict[str, str], version: str = FRESH) -> Stored:
    return configmaps.write("journal", data, writer="us", version=version)


def test_a_patch_sets_its_keys_and_leaves_the_others(api: ApiServer, configmaps: ConfigMaps) -> None:
    api.maps["journal"] = {"000000": "first", "000001": "second"}
    write(configmaps, {"000001": "zweite", "000002": "third 界"})
    assert data_of(configmaps) == {"000000": "first", "000001": "zweite", "000002": "third 界"}


def test_who_has_written_is_known(configmaps: ConfigMaps) -> None:
    assert configmaps.read("journal").writer == ""
    assert write(configmaps, {}) == configmaps.read("journal")
    assert configmaps.read("journal").writer == "us"


def test_nothing_is_written_over_what_was_not_read(api: ApiServer, configmaps: ConfigMaps) -> None:
    first = write(configmaps, {"000000": "line"})
    with pytest.raises(ConflictError, match="409 the object has been modified"):
        write(configmaps, {"000000": "other", "000001": "line"})
    assert api.maps["journal"] == {"000000": "line"}
    assert write(configmaps, {"000000": "other"}, first.version).data == {"000000": "other"}


@pytest.mark.parametrize("text", ["<html>a proxy's page</html>", "[]", '"text"'])
def test_an_answer_that_is_no_object_is_none_of_the_servers(api: ApiServer, configmaps: ConfigMaps, text: str) -> None:
    api.faults.append(text)
    with pytest.raises(ApiUnavailableError, match="200 without a JSON object: b"):
        configmaps.read("journal")
    assert data_of(configmaps) == {}


def test_a_configmap_without_data_has_none(configmaps: ConfigMaps) -> None:
    assert data_of(configmaps) == {}


@pytest.mark.parametrize("fault", [429, 500, 503, 504, "hang up", "half an answer"])
def test_what_may_pass_is_unavailable(api: ApiServer, configmaps: ConfigMaps, fault: int | str) -> None:
    api.faults.append(fault)
    with pytest.raises(ApiUnavailableError, match="GET /api/v1/namespaces/team/configmaps/journal: "):
        configmaps.read("journal")
    assert data_of(configmaps) == {}


def test_nobody_there_is_unavailable(api: ApiServer, configmaps: ConfigMaps) -> None:
    api.close()
    with pytest.raises(ApiUnavailableError, match="Connection refused"):
        configmaps.read("journal")
    api.reopen()
    assert data_of(configmaps) == {}


@pytest.mark.parametrize("fault", [413, 422])
def test_what_does_not_pass_is_refused_with_the_servers_message(
    api: ApiServer, configmaps: ConfigMaps, fault: int
) -> None:
    api.faults.append(fault)
    with pytest.raises(ApiRefusedError, match=f"PATCH .*/configmaps/journal: {fault} made to fail with {fault}"):
        write(configmaps, {"000000": "line"})
    assert api.maps["journal"] == {}


@pytest.mark.parametrize("fault", [400, 401, 403, 409])
def test_what_may_pass_another_time_is_unavailable(api: ApiServer, configmaps: ConfigMaps, fault: int) -> None:
    api.faults.append(fault)
    with pytest.raises(ApiUnavailableError, match=f"made to fail with {fault}"):
        write(configmaps, {"000000": "line"})
    assert write(configmaps, {"000000": "line"}).data == {"000000": "line"}


def test_a_configmap_that_is_not_there_yet_is_unavailable_by_name(configmaps: ConfigMaps) -> None:
    with pytest.raises(ApiUnavailableError, match='404 configmaps "nowhere" not found'):
        configmaps.read("nowhere")


def test_a_rotated_token_is_read_anew(configmaps: ConfigMaps, account: Path) -> None:
    token = (account / "token").read_text()
    (account / "token").write_text("expired")
    with pytest.raises(ApiUnavailableError, match="401 Unauthorized"):
        configmaps.read("journal")
    (account / "token").write_text(token)
    assert data_of(configmaps) == {}


def test_a_server_with_another_certificate_is_not_trusted(api: ApiServer, account: Path, tmp_path: Path) -> None:
    other = certificate(tmp_path)
    (account / "ca.crt").write_text((other.parent / "cert.pem").read_text())
    with pytest.raises(ApiUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        ConfigMaps(account, "127.0.0.1", api.port).read("journal")


def test_host_and_port_are_those_of_the_pod(api: ApiServer, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    assert ConfigMaps(account).read("journal").data == {}
