"""Names, retention and listings of images; building them is what the cluster tests do."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.base_image import name_in
from tests.cluster.containers import image_of, image_table
from tests.cluster.errors import ClusterError
from tests.cluster.images import latest, names
from tests.cluster.layout import REPOSITORY


def test_the_images_of_the_same_sources_have_the_same_names() -> None:
    assert names() == names()
    assert names().operator.startswith("localhost/quantuner-operator:test-")


def test_both_images_stand_on_one_base() -> None:
    recipes = sorted(REPOSITORY.glob("images/*/Containerfile"))
    assert len({name_in(recipe) for recipe in recipes}) == 1


def test_a_containerfile_without_a_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    with pytest.raises(ClusterError, match="has no line `ARG BASE="):
        name_in(tmp_path / "Containerfile")


@pytest.mark.parametrize(
    ("earlier", "kept"),
    [([], ["new"]), (["a", "b"], ["a", "b", "new"]), (["a", "b", "c"], ["b", "c", "new"]),
     (["new", "a"], ["a", "new"])],
)  # fmt: skip
def test_the_latest_images_are_kept(earlier: list[str], kept: list[str]) -> None:
    assert latest(earlier, "new", kept=3) == kept


def test_the_listing_of_images_gives_digests_by_name() -> None:
    listing = "REF TYPE DIGEST SIZE\nlocalhost/pause:1 application/x sha256:12 1.4 MiB linux/amd64 -\n"
    assert image_table(listing) == {"localhost/pause:1": "sha256:12"}


def test_a_program_becomes_an_image_that_starts_it(tmp_path: Path) -> None:
    (tmp_path / "pause").write_bytes(b"program")
    with tarfile.open(fileobj=io.BytesIO(image_of(tmp_path / "pause", "localhost/pause:1"))) as archive:
        configuration = archive.extractfile("config.json")
        assert configuration is not None
        assert json.load(configuration)["config"]["Entrypoint"] == ["/pause"]
