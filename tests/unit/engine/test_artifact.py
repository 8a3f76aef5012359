"""The folder of a saved model: whole, checked when it is loaded, and readable without Quantuner."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import quantuner
from quantuner.api.errors import ArtifactError
from quantuner.engine import artifact
from quantuner.engine.checksums import seal
from quantuner.engine.engine import Engine
from quantuner.engine.lowering import Lowered
from quantuner.engine.quantized import QuantizedModel
from quantuner.space.config import FP32
from quantuner.space.samplers import initial
from tests.unit.engine.models import OVERFLOWS, Net, engine_of, images, seeded

REPORT: dict[str, Any] = {
    "baseline": 0.5,
    "accuracy": 0.25,
    "meets": True,
    "trial": 3,
    "trials": 7,
    "sizes": {"fp32": 2.0, "model": 1.0},
    "cost": 0.4,
    "latency": {"fp32": 0.25, "model": 0.5},
    "versions": {"torch": "2.13.0"},
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = engine_of(seeded(Net), reduce_range=OVERFLOWS)
    made.calibrate()
    return made


@pytest.fixture
def folder(engine: Engine, tmp_path: Path) -> Path:
    engine.save(initial(engine.space).having({"head": FP32}), tmp_path / "model")
    artifact.write_report(tmp_path / "model", REPORT)
    return tmp_path / "model"


def test_an_older_artifact_is_replaced_whole(engine: Engine, folder: Path) -> None:
    (folder / "left.over").touch()
    engine.save(initial(engine.space), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "config.yaml", "model.pt2"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_with_other_things_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds something else than a saved model; name a new folder, or empty"):
        engine.save(initial(engine.space), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def written(folder: Path, number: int) -> None:
    """An artifact that is told from others by its number."""
    artifact.write_with(folder, {"number": number}, lambda staging: (staging / "model.pt2").touch())


def number_of(folder: Path) -> int:
    return int(artifact.config_of(artifact.verified(folder))["number"])


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("refused"), KeyboardInterrupt()])
def test_what_cannot_be_written_leaves_nothing_but_the_older_artifact(error: BaseException, tmp_path: Path) -> None:
    def fill(staging: Path) -> None:
        (staging / "model.pt2").write_bytes(bytes(1000))
        raise error

    for older in (False, True):
        if older:
            written(tmp_path / "model", 1)
        with pytest.raises(type(error)):
            artifact.write_with(tmp_path / "model", {}, fill)
        assert [path.name for path in tmp_path.iterdir()] == (["model"] if older else [])
    assert number_of(tmp_path / "model") == 1


class Killed(BaseException):
    """What a test raises where a process would end."""


@pytest.mark.parametrize(("at", "found"), [(1, 1), (2, 1), (3, 2)], ids=["before", "between", "after"])
def test_whoever_is_killed_leaves_a_whole_artifact(
    at: int, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the first and the second renaming, and before the older one is removed."""
    left, folder, replace = tmp_path / "left", tmp_path / "model", Path.replace
    written(folder, 1)

    def kill(path: Path, *target: Any, **_: Any) -> Path:
        nonlocal at
        at -= 1
        if at == 0:
            shutil.copytree(tmp_path, left)  # as the disk is then
            raise Killed
        return replace(path, *target)

    def remove(path: Path, **_: Any) -> None:
        if path.name == ".model.replaced" and path.exists():
            kill(path, path)
        remove_tree(path, ignore_errors=True)

    remove_tree = shutil.rmtree
    monkeypatch.setattr(Path, "replace", kill)
    monkeypatch.setattr(shutil, "rmtree", remove)
    with pytest.raises(Killed):
        written(folder, 2)
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError):
        artifact.write_with(left / "model", {}, lambda _: 1 / 0)
    assert number_of(left / "model") == found
    written(left / "model", 3)
    assert number_of(left / "model") == 3
    assert [path.name for path in left.iterdir()] == ["model"]


def test_an_artifact_that_cannot_be_put_in_place_leaves_the_older_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("Input/output error")
        return replace(path, target)

    written(tmp_path / "model", 1)
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        written(tmp_path / "model", 2)
    assert number_of(tmp_path / "model") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_users_calibration_data_are_not_in_it(folder: Path) -> None:
    assert artifact.load_program(folder).example_inputs is None


def test_the_same_model_is_saved_as_the_same_bytes(engine: Engine, folder: Path, tmp_path: Path) -> None:
    other = engine_of(seeded(Net), reduce_range=OVERFLOWS)  # captured anew
    other.calibrate()
    other.save(initial(other.space).having({"head": FP32}), tmp_path / "again")
    assert (tmp_path / "again" / "model.pt2").read_bytes() == (folder / "model.pt2").read_bytes()


def test_it_names_lines_of_code_without_their_folder(folder: Path) -> None:
    traces = [node.meta.get("stack_trace", "") for node in artifact.load_program(folder).graph.nodes]
    assert any('File "models.py", line ' in trace for trace in traces)
    assert not any(str(Path(__file__).parent) in trace or 'File "/' in trace for trace in traces)


def test_its_checksums_are_those_that_sha256sum_checks(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{n}: OK" for n in ("README.md", "config.yaml", "model.pt2", "report.json")]


def test_the_card_and_the_report_say_how_the_model_was_found(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "trial 3 of 7, which meets the accuracy criterion" in card
    assert "| accuracy | 0.5 | 0.25 |" in card
    assert "seconds" not in card  # the saved model's evaluation is its first, which takes longer
    assert "Ops: 1 static, 1 fp32." in card
    assert json.loads((folder / "report.json").read_text()) == REPORT


def test_it_loads_with_torch_alone_as_the_card_says(folder: Path) -> None:
    code = (folder / "README.md").read_text().split("```python\n")[2].split("```")[0].replace("FOLDER", str(folder))
    code += "\nimport sys; print(model(torch.ones(2, 2, 4, 4)).shape, 'torchao' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "torch.Size([2, 3]) False", done.stderr


def test_the_package_loads_it(folder: Path) -> None:
    model = quantuner.load(folder)
    with torch.no_grad():
        assert torch.equal(model(images()), artifact.load(folder)(images()))


def test_packed_for_another_rank_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    again = artifact.unpack(artifact.packed(folder), tmp_path / "elsewhere")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_it_is_loaded_to_be_compiled(folder: Path) -> None:
    """Compiling itself is the lowering's; here it is not called."""
    assert isinstance(quantuner.load(folder, compile=True), Lowered)
    assert isinstance(quantuner.load(folder, compile=False), QuantizedModel)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.pt2", "config.yaml", "report.json", "README.md"])
@pytest.mark.parametrize(("harm", "says"), [(damage, "its SHA-256 is [0-9a-f]{64}, "), (Path.unlink, "is missing")])
def test_a_file_that_is_not_what_was_saved_is_refused(
    folder: Path, name: str, harm: Callable[[Path], None], says: str
) -> None:
    harm(folder / name)
    with pytest.raises(ArtifactError, match=f"{name} is not what was saved: .*{says}.*copy the folder again"):
        quantuner.load(folder)


def test_a_file_that_was_not_saved_is_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("of the user's")
    with torch.no_grad():
        assert quantuner.load(folder)(images()).shape == (8, 3)


@pytest.mark.parametrize("unlisted", [("model.pt2",), ("config.yaml",), ("model.pt2", "config.yaml", "README.md")])
def test_a_model_that_is_not_listed_is_refused(folder: Path, unlisted: tuple[str, ...]) -> None:
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if not line.strip().endswith(unlisted)))
    with pytest.raises(
        ArtifactError, match=r"SHA256SUMS lists .*, and must list config\.yaml and either model\.pt2 or"
    ):
        quantuner.load(folder)


def test_an_empty_list_is_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("")
    with pytest.raises(ArtifactError, match=r"SHA256SUMS lists no file, and must list config\.yaml and either"):
        quantuner.load(folder)


@pytest.mark.parametrize("line", ["0123  ../model/model.pt2", "0123  /etc/hostname", "0123  ", "0123 model.pt2"])
def test_a_list_of_other_things_is_refused(folder: Path, line: str) -> None:
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{line}\n")
    with pytest.raises(ArtifactError, match=r"has the line '0123.*where a SHA-256 and a file's name are"):
        quantuner.load(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "is no YAML"),
        (b"!!python/object/apply:os.getcwd []", "is no YAML"),
        (b"\xff", "is no YAML"),
        (b"- 1", r"holds \[1\], and must hold a mapping"),
        (b"", "holds None"),
    ],
)
def test_a_configuration_that_is_none_is_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "config.yaml").write_bytes(content)
    seal(folder)
    with pytest.raises(ArtifactError, match=rf"config\.yaml {says}.*; copy the folder again"):
        quantuner.load(folder)


class Payload:
    def __reduce__(self) -> Any:
        return print, ("it runs",)


@pytest.mark.parametrize("held", [{"a": Payload()}, [1], {"a": 1}, None])
def test_weights_that_are_none_are_refused_without_advice_to_run_them(folder: Path, held: Any) -> None:
    (folder / "model.pt2").unlink()
    torch.save(held, folder / "weights.pt")
    seal(folder)
    with pytest.raises(ArtifactError, match=r"weights\.pt holds something else than tensors by name") as raised:
        quantuner.load(folder, torch.nn.Linear(1, 1))
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_weights_that_are_not_listed_are_not_read(folder: Path) -> None:
    torch.save({"x": torch.ones(1)}, folder / "weights.pt")
    assert isinstance(quantuner.load(folder), QuantizedModel)


def test_loading_from_a_folder_without_a_model_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="SHA256SUMS does not exist; name the folder of a saved model"):
        quantuner.load(tmp_path)


class Ceiling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: math.ceil(x.shape[0] / 3)]


def test_what_torch_cannot_write_is_said_without_its_traceback(tmp_path: Path) -> None:
    program = torch.export.export(Ceiling(), (torch.ones(6),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    with pytest.raises(ArtifactError, match=r"since torch cannot write it: .*ceil.*; leave its recipe") as raised:
        artifact.write(tmp_path / "model", program, {})
    assert "Traceback" not in str(raised.value)
    assert not (tmp_path / "model").exists()
