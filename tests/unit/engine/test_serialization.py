import subprocess
import sys
import typing
from pathlib import Path

import torch
from torch._export.serde import schema, serialize

from quantuner.engine.serialization import quickly

names = vars(serialize)
sympy = names["sympy"]


def _program() -> torch.export.ExportedProgram:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    return torch.export.export(model, (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def test_what_is_written_and_read_is_the_same(tmp_path: Path) -> None:
    program = _program()
    torch.export.save(program, tmp_path / "slowly.pt2")
    with quickly():
        torch.export.save(program, tmp_path / "quickly.pt2")
        quick = torch.export.load(tmp_path / "quickly.pt2")
    slow = torch.export.load(tmp_path / "slowly.pt2")
    assert str(quick) == str(slow)
    inputs = torch.randn(5, 4)
    assert torch.equal(quick.module()(inputs), slow.module()(inputs))
    assert torch.equal(quick.module()(inputs), program.module()(inputs))
    written, expected = (torch._C.PyTorchFileReader(str(tmp_path / f"{how}.pt2")) for how in ("quickly", "slowly"))
    names = [name for name in expected.get_all_records() if not name.endswith("serialization_id")]
    assert all(written.get_record(name) == expected.get_record(name) for name in names)


def test_annotations_are_evaluated_once_and_no_copy_is_made() -> None:
    program = object()
    with quickly():
        first, second = (names["typing"].get_type_hints(schema.Node, globalns=vars(schema)) for _ in range(2))
        assert first is second
        assert names["canonicalize"](program, set()) is program
    assert names["typing"] is typing
    assert names["canonicalize"].__name__ == "canonicalize"


def test_the_symbol_of_a_size_is_parsed_once_and_is_what_torch_makes_of_it() -> None:
    text = "Symbol('s77', integer=True, positive=True)"
    expected = sympy.sympify(text, locals={})
    with quickly():
        first, second = (names["sympy"].sympify(text, locals={}) for _ in range(2))
        assert first is second
        assert (first, first.assumptions0) == (expected, expected.assumptions0)
        other = names["sympy"].sympify(f"Mul(Integer(2), {text})", locals={})
    assert other == 2 * expected
    assert names["sympy"] is sympy


def test_no_more_is_imported_to_read_a_program(tmp_path: Path) -> None:
    torch.export.save(_program(), tmp_path / "model.pt2")
    code = f"""
import sys, torch
from quantuner.engine.serialization import quickly
with quickly():
    torch.export.load({str(tmp_path / "model.pt2")!r})
print("torch.export._trace" in sys.modules, "networkx" in sys.modules)
torch.export.load({str(tmp_path / "model.pt2")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_torch_is_as_it_was_where_blocks_overlap_or_fail() -> None:
    first, second = quickly(), quickly()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert names["typing"] is typing
