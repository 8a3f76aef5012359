"""A saved program runs no code of whoever saved it: what would run some is refused before torch reads it.

The attacks are real: that torch alone falls for them is shown where it can be done without harm.
"""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quantuner.api.errors import ArtifactError
from quantuner.engine import artifact
from quantuner.engine.inspection import harmless, inspect
from quantuner.engine.quiet import quiet
from quantuner.space.samplers import initial
from tests.unit.engine.models import Net, engine_of, images, seeded

WEIGHTS, PROGRAM, INPUTS = "data/weights/model_weights_config.json", "models/model.json", "data/sample_inputs/model.pt"


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = engine_of(seeded(Net))
    engine.calibrate()
    folder = tmp_path_factory.mktemp("saved") / "model"
    engine.save(initial(engine.space), folder)
    return folder


def changed(saved: Path, folder: Path, **records: Callable[[bytes], bytes]) -> Path:
    """A copy of the artifact with other records in its program, and checksums that fit."""
    shutil.copytree(saved, folder)
    file = folder / artifact.MODEL_FILE
    with zipfile.ZipFile(saved / artifact.MODEL_FILE) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            change = records.get(info.filename.partition("/")[2], lambda content: content)
            new.writestr(info.filename, change(old.read(info)))
    artifact._seal(folder)
    return folder


def edited(edit: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        body = json.loads(content)
        edit(body)
        return json.dumps(body).encode()

    return change


def pickled_weight(body: Any) -> None:
    body["config"]["head.bias"]["use_pickle"] = True


def of_the_first_node(**fields: Any) -> Callable[[Any], None]:
    return lambda body: body["graph_module"]["graph"]["nodes"][0].update(fields)


def size(expression: str) -> Callable[[Any], None]:
    def edit(body: Any) -> None:
        body["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = expression

    return edit


def argument(name: str) -> Callable[[Any], None]:
    def edit(body: Any) -> None:
        body["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [name]

    return edit


def tensor_called(name: str, expression: str) -> Callable[[Any], None]:
    """Gives the input a name that stands for a text elsewhere in a program, and its size an expression."""

    def edit(body: Any) -> None:
        values = body["graph_module"]["graph"]["tensor_values"]
        values[name] = json.loads(json.dumps(values["x"]))
        values[name]["sizes"][0]["as_expr"]["expr_str"] = expression

    return edit


def operand(**value: Any) -> Callable[[Any], None]:
    return lambda body: body["graph_module"]["graph"]["nodes"][0]["inputs"][0].update(arg=value)


def made_by(module: str, spec: str = "in_spec") -> Callable[[Any], None]:
    context = json.dumps({"default_factory_module": module, "default_factory_name": "x"})

    def edit(body: Any) -> None:
        signature = body["graph_module"]["module_call_graph"][0]["signature"]
        signature[spec] = json.dumps([1, {"type": "collections.defaultdict", "context": context}])

    return edit


def guard(code: str) -> Callable[[Any], None]:
    return lambda body: body["guards_code"].append(code)


def test_a_program_as_it_is_saved_passes(saved: Path, tmp_path: Path) -> None:
    again = changed(saved, tmp_path / "copy")
    with torch.no_grad():
        assert torch.equal(artifact.load(again)(images()), artifact.load(saved)(images()))


def test_a_pickled_weight_is_not_read(saved: Path, tmp_path: Path) -> None:
    weight = json.loads(zipfile.ZipFile(saved / "model.pt2").read(f"model/{WEIGHTS}"))["config"]["head.bias"]
    marker = tmp_path / "run"
    record = f"data/weights/{weight['path_name']}"
    torch.save(Payload(marker), tmp_path / "payload")
    attack: Any = {record: lambda _: (tmp_path / "payload").read_bytes(), WEIGHTS: edited(pickled_weight)}
    folder = changed(saved, tmp_path / "model", **attack)
    with pytest.raises(
        ArtifactError, match=r"might run code: the tensor 'head\.bias' would be unpickled; save the model"
    ):
        artifact.load(folder)
    assert not marker.exists()
    with quiet(), pytest.raises(Exception):  # noqa: B017, PT011  # whatever: the harm is done before
        torch.export.load(folder / "model.pt2")
    assert marker.exists()


def test_pickled_example_inputs_are_not_read(saved: Path, tmp_path: Path) -> None:
    attack: Any = {INPUTS: lambda _: pickle.dumps(Payload(tmp_path / "run"))}
    with pytest.raises(ArtifactError, match="it has example inputs, which would be unpickled"):
        artifact.load(changed(saved, tmp_path / "model", **attack))
    assert not (tmp_path / "run").exists()


class Named(Net):
    """Returns what it calls as people do."""

    def forward(self, x: torch.Tensor) -> Any:
        return {"acc@1 (top)": super().forward(x), "[draft": x}


def test_what_is_returned_may_be_called_anything(tmp_path: Path) -> None:
    engine = engine_of(seeded(Named), eval_func=lambda model: float(model(images())["acc@1 (top)"].sum()))
    engine.calibrate()
    engine.save(initial(engine.space), tmp_path / "model")
    with torch.no_grad():
        assert list(artifact.load(tmp_path / "model")(images())) == ["acc@1 (top)", "[draft"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        pytest.param(of_the_first_node(target="torch.os.system"), "the function 'torch.os.system'", id="a function"),
        pytest.param(of_the_first_node(target="torch.ops.load_library"), "the function", id="a library"),
        pytest.param(of_the_first_node(target="torch.ops.aten.from_file.default"), "the function", id="a file"),
        pytest.param(of_the_first_node(target="torch.ops.aten.save.default"), "the function", id="a file to write"),
        pytest.param(operand(as_operator="torch.os.system"), "the function 'torch.os.system'", id="a function to call"),
        pytest.param(tensor_called("metadata", "f(1)(2)"), "the expression", id="a size where a text would be"),
        pytest.param(tensor_called("as_string", "f(1)(2)"), "the expression", id="another one"),
        pytest.param(made_by("antigravity"), "the module 'antigravity'", id="a module to import"),
        pytest.param(made_by("antigravity", "out_spec"), "the module 'antigravity'", id="another one to import"),
        pytest.param(of_the_first_node(target="torch.ops.aten.add.__class__"), "the function", id="no overload"),
        pytest.param(of_the_first_node(target="_operator.methodcaller"), "the function", id="an operator"),
        pytest.param(of_the_first_node(name='x"); import os #'), "the text", id="a name"),
        pytest.param(size("__import__('os').getcwd()"), "the expression", id="a size"),
        pytest.param(guard("__import__('os').getcwd() == 1"), "the expression", id="a guard"),
        pytest.param(argument("x=__import__('os').getcwd()"), "the text", id="an argument"),
        pytest.param(lambda body: body.update({"f(x)": 1}), "the name 'f\\(x\\)'", id="a key"),
    ],
)
def test_what_would_run_is_refused(saved: Path, tmp_path: Path, edit: Any, says: str) -> None:
    folder = changed(saved, tmp_path / "model", **{PROGRAM: edited(edit)})
    with pytest.raises(ArtifactError, match=f"might run code: {says}"):
        artifact.load(folder)


def test_what_torch_reads_is_what_is_inspected(saved: Path, tmp_path: Path) -> None:
    """torch takes a record's name for another one's that differs in case."""
    folder = shutil.copytree(saved, tmp_path / "model")
    marker = tmp_path / "run"
    with zipfile.ZipFile(saved / "model.pt2") as old, zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
            if info.filename == f"model/{PROGRAM}":
                program = json.loads(old.read(info))
                size(f"__import__('pathlib').Path('{marker}').touch()")(program)
                new.writestr("model/MODELS/model.json", json.dumps(program))
    artifact._seal(folder)
    with pytest.raises(ArtifactError, match="might run code"):
        artifact.load(folder)
    assert not marker.exists()
    with quiet(), pytest.raises(Exception):  # noqa: B017, PT011  # whatever: the harm is done before
        torch.export.load(folder / "model.pt2")
    assert marker.exists()


@pytest.mark.parametrize(
    "name", ["data/SAMPLE_INPUTS/model.pt", "data/weights/model.pt", "data/aotinductor/model/x.so"]
)
def test_records_that_no_saved_model_has_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    with zipfile.ZipFile(folder / "model.pt2", "a") as archive:
        archive.writestr(f"model/{name}", "")
    artifact._seal(folder)
    with pytest.raises(ArtifactError, match=f"it holds '{name}', which no saved model has"):
        artifact.load(folder)


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match="it cannot be read"):
        inspect(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Integer(-1), Mul(Integer(2), Symbol('s77', positive=True)))",
        "2*s77 // 4",
        "L['batch']['x'].size()[1] <= 10 and not L['y'].stride()[0] == 1",
        "math.floor(L['x'].size()[0] / 2) == 3",
    ],
)
def test_expressions_of_sizes_are_harmless(expression: str) -> None:
    assert harmless(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "eval('1')",
        "open('x')",
        "L['x'].__class__",
        "().__class__",
        "Symbol('__import__(1)')",
        "(lambda: 1)()",
        "[x for x in L]",
        "print(1)",
        "x :=",
        "f'{x}'",
    ],
)
def test_other_expressions_are_not(expression: str) -> None:
    assert not harmless(expression)
