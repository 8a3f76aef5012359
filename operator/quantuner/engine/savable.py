"""What hinders a captured model from being saved, told before it is searched and not after.

A saved model is loaded with torch alone, which makes no class of another library's and knows none of its operators.
"""

from __future__ import annotations

import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from itertools import chain

from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.utils._pytree import TreeSpec

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.inspection import is_permitted

_PLAIN = (tuple, list, dict, OrderedDict, defaultdict, deque)
_LINE = re.compile(r'File "(?:.*/)?([^/"]+)", line (\d+)')


def check_structures(program: ExportedProgram) -> None:
    """Raises `SearchError` (ModelNotCapturable) where the model takes or returns what torch alone cannot make."""
    for does, structure in (("takes", program.call_spec.in_spec), ("returns", program.call_spec.out_spec)):
        found = next(_foreign(structure), None) if structure is not None else None
        if found is not None:
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"forward() {does} a {found}, which torch alone cannot make, and a saved model is loaded with torch "
                "alone; wrap the model in one whose forward() takes and returns tensors, and tuples, lists and dicts "
                "of them (one of transformers does so with return_dict=False)",
            )


def check_operators(graph: Graph) -> None:
    """Raises `SearchError` (ModelNotCapturable) where the graph calls what no saved program may call."""
    for node in graph.nodes:
        if isinstance(node.target, OpOverload) and not is_permitted(f"torch.ops.{node.target}"):
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"the model calls torch.ops.{node.target}{_where(node)}, which a saved model may not: it is loaded "
                "with torch alone, and calls what torch computes with; write it with torch's own operators, or call it "
                "outside of the model, in eval_func",
            )


def _foreign(structure: TreeSpec) -> Iterator[str]:
    """Classes in the structure that are not Python's own."""
    if structure.is_leaf():
        return
    if structure.type not in _PLAIN:
        class_ = structure.context if isinstance(structure.context, type) else structure.type
        yield f"{class_.__module__}.{class_.__qualname__}"
    yield from chain.from_iterable(_foreign(part) for part in structure.children())


def _where(node: Node) -> str:
    found = _LINE.findall(node.meta.get("stack_trace") or "")
    return " at {}:{}".format(*found[-1]) if found else ""
