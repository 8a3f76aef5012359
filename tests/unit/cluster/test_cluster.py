"""What an existing cluster gives to tests, and what it cannot."""

from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterError, ensure_up


@pytest.fixture
def existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    (tmp_path / "kubeconfig").touch()
    monkeypatch.setenv("QUANTUNER_TEST_KUBECONFIG", str(tmp_path / "kubeconfig"))
    return ensure_up()


def test_an_existing_cluster_is_used_as_it_is(existing: Cluster, tmp_path: Path) -> None:
    assert existing.kubeconfig == tmp_path / "kubeconfig"
    assert existing.program("sh").is_file()


def test_its_images_must_be_named(existing: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="push both images to a registry that it can pull from"):
        _ = existing.images
    monkeypatch.setenv("QUANTUNER_TEST_OPERATOR_IMAGE", "example.test/operator:1")
    monkeypatch.setenv("QUANTUNER_TEST_TUNER_IMAGE", "example.test/tuner:1")
    assert existing.images.tuner == "example.test/tuner:1"


def test_its_processes_are_not_ours_to_stop(existing: Cluster) -> None:
    with pytest.raises(ClusterError, match="unset QUANTUNER_TEST_KUBECONFIG"):
        existing.stop_process("apiserver")


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTUNER_TEST_KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match=r"absent.* which is no file: name a kubeconfig or unset it"):
        ensure_up()
