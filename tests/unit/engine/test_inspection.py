"""A saved program runs no code of whoever saved it: what would run some is refused before torch reads it.

The attacks are real: that torch alone falls for them is shown where it can be done without harm.
"""

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._export.serde.schema import SCHEMA_VERSION

from quantuner.api.errors import ArtifactError
from quantuner.engine import artifact, inspection, programs
from quantuner.engine.checksums import seal
from quantuner.engine.expressions import harmless
from quantuner.engine.inspection import inspect
from quantuner.engine.quantized import load
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
    seal(folder)
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
    context = {"default_factory_module": module, "default_factory_name": "x", "dict_context": []}
    return structured("collections.defaultdict", context, spec)


def structured(type_: str | None, context: Any, spec: str = "in_spec") -> Callable[[Any], None]:
    """Gives the inputs or the output a structure without parts."""

    def edit(body: Any) -> None:
        signature = body["graph_module"]["module_call_graph"][0]["signature"]
        signature[spec] = json.dumps([1, {"type": type_, "context": context, "children_spec": []}])

    return edit


def keyed(*keys: Any, spec: str = "in_spec") -> Callable[[Any], None]:
    """Gives it a part for each key, the first of which torch may take for an enum's member."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    structure = {"type": "builtins.dict", "context": json.dumps(keys), "children_spec": [leaf for _ in keys]}

    def edit(body: Any) -> None:
        body["graph_module"]["module_call_graph"][0]["signature"][spec] = json.dumps([1, structure])

    return edit


ENUM = {"__enum__": True, "fqn": "antigravity:x", "name": "x"}


def described(**metadata: str) -> Callable[[Any], None]:
    return lambda body: body["graph_module"]["graph"]["nodes"][0]["metadata"].update(metadata)


def guard(code: str) -> Callable[[Any], None]:
    return lambda body: body["guards_code"].append(code)


def test_a_program_as_it_is_saved_passes(saved: Path, tmp_path: Path) -> None:
    again = changed(saved, tmp_path / "copy")
    with torch.no_grad():
        assert torch.equal(artifact.load(again)(images()), artifact.load(saved)(images()))


def test_a_pickled_weight_is_not_read(saved: Path, tmp_path: Path) -> None:
    weight = json.loads(zipfile.ZipFile(saved / "model.pt2").read(f"archive/{WEIGHTS}"))["config"]["head.bias"]
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
        pytest.param(operand(as_string='"); std::system("id"); ("'), "the text", id="a text that becomes code in C++"),
        pytest.param(operand(as_string="m\nimport os #"), "the text 'm", id="a text that becomes a line of Python"),
        pytest.param(operand(as_strings=["''', open('x')"]), "the text", id="a text that ends another"),
        pytest.param(operand(as_string={'"); std::system("id"); ("': ""}), "the name", id="a text that is none"),
        pytest.param(operand(as_operator="torch.os.system"), "the function 'torch.os.system'", id="a function to call"),
        pytest.param(tensor_called("metadata", "f(1)(2)"), "the expression", id="a size where a text would be"),
        pytest.param(tensor_called("as_string", "f(1)(2)"), "the expression", id="another one"),
        pytest.param(made_by("antigravity"), "the structure", id="a module to import"),
        pytest.param(made_by("antigravity", "out_spec"), "the structure", id="another one to import"),
        pytest.param(made_by("builtins"), "the structure", id="a factory"),
        pytest.param(keyed(ENUM), "the structure 'builtins.dict' of ", id="an enum to import"),
        pytest.param(keyed(ENUM, spec="out_spec"), "the structure 'builtins.dict' of ", id="another enum to import"),
        pytest.param(keyed([ENUM], spec="out_spec"), "the structure", id="an enum in a list"),
        pytest.param(keyed("a", "a(b)"), "the structure", id="a key that becomes code"),
        pytest.param(structured("builtins.tuple", json.dumps(ENUM)), "the structure", id="an enum for nothing"),
        pytest.param(structured("torch.Size", "null"), "the structure 'torch.Size'", id="a class of torch"),
        pytest.param(structured("collections.namedtuple", "null"), "the structure", id="a named tuple"),
        pytest.param(described(source_fn_stack="x,torch.os.system"), "the metadata 'source_fn_stack'", id="metadata"),
        pytest.param(of_the_first_node(name="torch.load"), "the text 'torch.load'", id="a name of torch's own"),
        pytest.param(tensor_called("torch.load", "Integer(1)"), "the name 'torch.load'", id="another one of torch's"),
        pytest.param(argument("x: torch.load"), "the text 'x: torch.load'", id="an annotation"),
        pytest.param(guard("max('import antigravity', key=exec) == 1"), "the expression", id="a guard that imports"),
        pytest.param(of_the_first_node(target="torch.ops.aten.add.__class__"), "the function", id="no overload"),
        pytest.param(of_the_first_node(target="torch.ops.aten.add.overloads"), "the function", id="nor this"),
        pytest.param(of_the_first_node(target="torch.ops.higher_order.cond.py_impl"), "the function", id="a method"),
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


MESSAGE = '"), 0)); std::system("touch {}"); (true ? 0 : (throw std::runtime_error("'


class Asserting(torch.nn.Module):
    """Asserts with a message of its own."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.ops.aten._assert_async.msg(x.sum() > -1e30, self.message)
        return x * 2 + 1


def asserting(message: str, folder: Path) -> Path:
    program = torch.export.export(Asserting(message), (torch.ones(4, 4),))
    program.example_inputs = None
    artifact.write(folder, program, {})
    return folder


def test_a_message_of_an_assertion_does_not_become_code_when_it_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor writes it into C++ as it is."""
    marker = tmp_path / "run"
    monkeypatch.setattr(programs, "_quotable", lambda message: message)
    with pytest.raises(ArtifactError, match="the text"):
        asserting(MESSAGE.format(marker), tmp_path / "refused")
    monkeypatch.setattr(inspection, "is_quotable", lambda _: True)  # there is a second lock behind the first
    model = load(asserting(MESSAGE.format(marker), tmp_path / "model"))
    assert torch.equal(model.compiled()(torch.ones(4, 4)), torch.full((4, 4), 3.0))
    assert not marker.exists()


def test_a_users_own_message_is_saved_without_its_marks(tmp_path: Path) -> None:
    graph = load(asserting('no "x" in C:\\\n', tmp_path / "model")).model.graph
    (assertion,) = graph.find_nodes(op="call_function", target=torch.ops.aten._assert_async.msg)
    assert assertion.args[1] == "no 'x' in C:/ "


def test_what_torch_reads_is_what_is_inspected(saved: Path, tmp_path: Path) -> None:
    """torch takes a record's name for another one's that differs in case."""
    folder = shutil.copytree(saved, tmp_path / "model")
    marker = tmp_path / "run"
    with zipfile.ZipFile(saved / "model.pt2") as old, zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
            if info.filename == f"archive/{PROGRAM}":
                program = json.loads(old.read(info))
                size(f"__import__('pathlib').Path('{marker}').touch()")(program)
                new.writestr("archive/MODELS/model.json", json.dumps(program))
    seal(folder)
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
        archive.writestr(f"archive/{name}", "")
    seal(folder)
    with pytest.raises(ArtifactError, match=f"it holds '{name}', which no saved model has"):
        artifact.load(folder)


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS, INPUTS, "archive_format", "archive_version"])
def test_a_record_that_is_missing_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    """torch.export.load unpickles what it finds in place of a program."""
    folder = shutil.copytree(saved, tmp_path / "model")
    with zipfile.ZipFile(saved / "model.pt2") as old, zipfile.ZipFile(folder / "model.pt2", "w") as new:
        for info in old.infolist():
            if info.filename != f"archive/{name}":
                new.writestr(info.filename, old.read(info))
    seal(folder)
    with pytest.raises(ArtifactError, match=f"it has no {name}" if name != "archive_format" else "is no program"):
        artifact.load(folder)


def archived(records: dict[str, bytes]) -> tuple[bytes, bytes, int]:
    """The records of an archive, the list of them, and how many there are."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    content = made.getvalue()
    count, size, start = struct.unpack("<HII", content[-12:-2])
    return content[:start], content[start : start + size], count


def listed(entries: bytes, count: int, shift: int, length: int) -> bytes:
    """The list of records that lie `shift` bytes further on, as long as `length` says."""
    moved, at, last = bytearray(entries), 0, 0
    for _ in range(count):
        names = struct.unpack_from("<HHH", moved, at + 28)
        struct.pack_into("<I", moved, at + 42, struct.unpack_from("<I", moved, at + 42)[0] + shift)
        last, at = at, at + 46 + sum(names)
    struct.pack_into("<H", moved, last + 32, length - len(entries))  # as a comment
    return bytes(moved.ljust(length))


def with_two_lists(torchs: dict[str, bytes], pythons: dict[str, bytes]) -> bytes:
    """An archive in which torch and Python find other records: torch believes where their list is said to be, Python
    that it lies before the archive's end. Torch's take more room."""
    (first, seen, count), (second, other, others) = archived(torchs), archived(pythons)
    length = max(len(seen), len(other))
    before = listed(seen, count, 0, length)
    behind = listed(other, others, len(first) - len(second), length)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, len(first), 0)
    return first + before + second + behind + end


def test_no_second_list_of_records_is_read(saved: Path, tmp_path: Path) -> None:
    """torch.export.load reads with Python where torch finds no program, and unpickles what that one finds."""
    marker = tmp_path / "run"
    with zipfile.ZipFile(saved / "model.pt2") as old:
        records = {info.filename: old.read(info) for info in old.infolist()}
    kept = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
    legacy = {
        "version": ".".join(map(str, SCHEMA_VERSION)).encode(),
        "serialized_exported_program.json": records[f"archive/{PROGRAM}"],
    }
    legacy |= {f"serialized_{name}.pt": b"" for name in ("constants", "example_inputs")}
    legacy |= {"serialized_state_dict.pt": pickle.dumps(Payload(marker), protocol=2)}
    torchs = {f"archive/{name}": records[f"archive/{name}"] for name in kept} | {
        "archive/data/weights/weight_0": bytes(10**5)
    }
    folder = shutil.copytree(saved, tmp_path / "model")
    (folder / "model.pt2").write_bytes(with_two_lists(torchs, legacy))
    seal(folder)
    with pytest.raises(ArtifactError, match="it has no data/constants"):
        artifact.load(folder)
    with quiet(), pytest.raises(ArtifactError, match="it has no data"):
        artifact.program_of((folder / "model.pt2").read_bytes(), folder)
    assert not marker.exists()
    with quiet(), pytest.raises(Exception):  # noqa: B017, PT011  # whatever: the harm is done before
        torch.export.load(folder / "model.pt2")
    assert marker.exists()


def test_what_is_inspected_is_what_is_loaded(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the folder may change the file between the two."""
    folder = shutil.copytree(saved, tmp_path / "model")

    def inspected(*arguments: Any) -> None:
        inspect(*arguments)
        (folder / "model.pt2").write_bytes(b"another one")

    monkeypatch.setattr(artifact, "inspect", inspected)
    with torch.no_grad():
        assert torch.equal(artifact.load(folder)(images()), artifact.load(saved)(images()))


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match=r"model\.pt2 is no program that torch can read .*; copy the folder again"):
        inspect(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "edit",
    [
        of_the_first_node(target=5),
        of_the_first_node(inputs=None),
        of_the_first_node(outputs=[]),
        of_the_first_node(target="torch.ops.aten.relu.default"),
        size("x +"),
        lambda body: body.update(graph_module=None),
        lambda body: body["graph_module"]["graph"]["tensor_values"].clear(),
        lambda body: body["range_constraints"].update(absent=5),
        lambda body: body["graph_module"]["signature"]["input_specs"].pop(),
    ],
)
def test_a_damaged_program_is_refused(saved: Path, tmp_path: Path, edit: Any) -> None:
    folder = changed(saved, tmp_path / "model", **{PROGRAM: edited(edit)})
    with pytest.raises(ArtifactError, match="save the model anew with Quantuner"):
        artifact.load(folder)


@pytest.mark.parametrize(
    "expression",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Add(Integer(-1), Mul(Integer(2), Symbol('s77', positive=True)))",
        "2*s77 // 4",
        "L['batch']['x'].size()[1] <= 10 and not L['y'].stride()[0] == 1",
        "math.floor(L['x'].size()[0] / 2) == 3",
        "math.trunc(0.5*torch.sym_float(L['x'].size()[0])) == 4",
        "torch.sym_not(torch.sym_max(L['x'].size()[0], 2) == 4)",
        "Pow(Symbol('s77', positive=True, integer=True), Integer(2))",
        "Pow(Symbol('s77', positive=True, integer=True), Rational(-1, 2))",
        "L['x'].size()[1]**2 <= 64",
        "FloatPow(ToFloat(Symbol('s77', positive=True, integer=True)), Float('0.5', precision=53))",
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
        "max('import x', key=exec)",
        "Max('x', key=eval)",
        "Lambda(x, y)",
        "Matrix(1, 1, eval)",
        "Add(exec, 1)",
        "Symbol('s77', **L)",
        "S('x')",
        "math.__loader__",
        "math.factorial(10)",
        "math.size",
        "torch.load('x')",
        "torch.sym_fresh_size('x')",
        "torch.size",
        "Pow(9, Pow(9, 9))",
        "Pow(9, 10000000)",
        "9**9**9 == 1",
        "9**L['x'].size()[0]",
        "9 << 10000000",
        "((9**64)**64)**64",
        "Pow(Mul(2, Pow(9, 64)), 64)",
        "Pow(9)",
        "Pow(9, '9e9')",
        "Float('0.5', precision=10000000000)",
        "pow(9, 10**9)",
        "LShift(9, 10000000)",
        "1 # (",
        "(1 +\n2)",
        "f(1)(2)",
    ],
)
def test_other_expressions_are_not(expression: str) -> None:
    assert not harmless(expression)
