"""What hinders a captured model from being saved, told before it is searched and not after.

A saved model is loaded with torch alone, which makes no class of another library's and knows none of its operators.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from torch._export.serde.serialize import serialize
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import TreeSpec

from quantuner.api.conditions import Failure, shorten
from quantuner.api.errors import SearchError
from quantuner.engine.entrypoint import SAID_LIMIT
from quantuner.engine.inspection import program_problems
from quantuner.engine.permitted import is_permitted
from quantuner.engine.programs import forget_this_machine
from quantuner.engine.serialization import quickly
from quantuner.engine.structures import KEYS
from quantuner.engine.texts import is_name

_PLAIN = (tuple, list, dict, OrderedDict, defaultdict, deque)
_ALONE = "it is loaded with torch alone, and calls what torch computes with"
_LINE = re.compile(r'File "(?:.*/)?([^/"]+)", line (\d+)')


def check_structures(program: ExportedProgram) -> None:
    """Raises `SearchError` (ModelNotCapturable) where the model takes or returns what torch alone cannot make."""
    for does, structure in (("takes", program.call_spec.in_spec), ("returns", program.call_spec.out_spec)):
        if structure is None:
            continue
        if (found := next(_foreign(structure), None)) is not None:
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"forward() {does} a {found}, which torch alone cannot make, and a saved model is loaded with torch "
                "alone; wrap the model in one whose forward() takes and returns tensors, and tuples, lists and dicts "
                "of them (one of transformers does so with return_dict=False)",
            )
        if (key := next(_foreign_keys(structure, does == "takes"), None)) is not None:
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"forward() {does} a dict with the key {key}, which a saved model may not; let keys be text or numbers"
                + (", and text of letters, digits, spaces and . < > : / + - _" if does == "takes" else ""),
            )


def check_operators(model: GraphModule) -> None:
    """Raises `SearchError` (ModelNotCapturable) where the graph, or one that it chooses, calls what no saved program
    may call.
    """
    graphs = [one.graph for one in model.modules() if isinstance(one, GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        if isinstance(node.target, (OpOverload, HigherOrderOperator)) and not is_permitted(name := _name(node.target)):
            own = name.startswith("torch.ops.aten.")
            why = "it may write outside of its memory, or does more than to compute" if own else _ALONE
            raise SearchError(
                Failure.MODEL_NOT_CAPTURABLE,
                f"the model calls {name}{_where(node)}, which a saved model may not: {why}; write it with "
                f"{'others' if own else 'operators of torch'}, or call it outside of the model, in eval_func",
            )


def check_program(program: ExportedProgram) -> None:
    """Raises `SearchError` (ModelNotCapturable) where the program could not be saved, by the rule that saving has.

    torch makes code of the names of parameters, when it exports what was loaded to compile it. The program is changed
    as saving does. Weights are left out: the rule does not look at them.
    """
    forget_this_machine(program)
    try:
        with quickly():
            written = serialize(
                program, serialize_state_dict=False, serialize_constants=False, serialize_example_inputs=False
            )
    except Exception as error:  # whatever torch raises of what it cannot describe
        said = (str(error).splitlines() or [type(error).__name__])[0]  # a traceback follows
        problem: str | None = f"what torch cannot write ({shorten(said, SAID_LIMIT)})"
    else:
        problem = next(program_problems(json.loads(written.exported_program)), None)
    if problem is not None:
        raise SearchError(
            Failure.MODEL_NOT_CAPTURABLE,
            f"the captured model cannot be saved, since it has {problem}; give modules (keys of a ModuleDict, too) "
            "and parameters names of letters, digits, spaces and . < > : / + - _, let sizes be computed with "
            "+ - * // and %, and leave quotation marks and backslashes out of texts",
        )


def _name(operator: OpOverload | HigherOrderOperator) -> str:
    """As a saved program has it."""
    return f"torch.ops.{operator}" if isinstance(operator, OpOverload) else f"torch.ops.higher_order.{operator.name()}"


def _foreign(structure: TreeSpec) -> Iterator[str]:
    """Classes in the structure that are not Python's own."""
    if structure.is_leaf():
        return
    if structure.type not in _PLAIN:
        class_ = structure.context if isinstance(structure.context, type) else structure.type
        yield f"{class_.__module__}.{class_.__qualname__}"
    yield from chain.from_iterable(_foreign(part) for part in structure.children())


def _foreign_keys(structure: TreeSpec, is_given: bool) -> Iterator[str]:
    """Keys in the structure that a program may not have; torch makes code of those of what is given."""
    if structure.is_leaf():
        return
    for key in _keys(structure):
        if not isinstance(key, KEYS) or (is_given and isinstance(key, str) and not is_name(key)):
            yield f"{key!r:.80}"
    yield from chain.from_iterable(_foreign_keys(part, is_given) for part in structure.children())


def _keys(structure: TreeSpec) -> Iterable[Any]:
    if structure.type is defaultdict:
        return list(structure.context[1])
    return list(structure.context) if structure.type in (dict, OrderedDict) else ()


def _where(node: Node) -> str:
    found = [place for place in _LINE.findall(node.meta.get("stack_trace") or "") if not place[0].startswith("<")]
    return " at {}:{}".format(*found[-1]) if found else ""
