"""A saved int8 model compiled for this CPU: torch's inductor turns rounding around ops into int8 kernels.

Source: torchao's PT2E tutorial for x86 with inductor. Its patterns want fixed shapes, frozen weights and, for
convolutions, channels last.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import TreeSpec, tree_leaves, tree_unflatten

from quantuner.engine.devices import Features, sums_overflow
from quantuner.engine.graphs import flat_count, flat_inputs, structured_inputs
from quantuner.engine.hoisting import hoist_rounding
from quantuner.engine.layout import IMAGES, computes_channels_last
from quantuner.engine.overwriting import sparing_what_is_read
from quantuner.engine.padding import pad_before
from quantuner.engine.products import has_small_products, products_of_convolutions
from quantuner.engine.quiet import quiet
from quantuner.engine.reaching import reach_zero
from quantuner.engine.sums import scale_before_sums
from quantuner.engine.transposed import folding_none, store_weights_in_fp32

SHAPES = 8  # for which a compiled model is kept; compiling takes seconds to a minute each
_PLAIN = (int, float, complex, bool, str, type(None))
_ONE_AT_A_TIME = threading.RLock()
"""Compiling changes settings and functions of inductor's, which all threads share."""
_ASSERTIONS = (torch.ops.aten._assert_async.default, torch.ops.aten._assert_async.msg)
_PRODUCTS = {"max_autotune_gemm": True, "max_autotune_gemm_backends": "CPP"}  # one backend: nothing is timed


class Lowered(torch.nn.Module):
    """Compiles at the first call with inputs of new shapes, so let the first call be no user's.

    Without gradients, in one mode. Needs a C++ compiler, as all of inductor on a CPU does; without one the first call
    raises torch's `InvalidCxxCompiler`.
    """

    def __init__(self, model: GraphModule, *, max_autotune: bool = False) -> None:
        """Raises `ValueError` where this CPU's kernels would compute something else than the model does."""
        super().__init__()
        _check_sums(model, torch.cpu.get_capabilities())
        self._model = model
        self._max_autotune = max_autotune
        self._images = torch.channels_last if computes_channels_last(model) else torch.contiguous_format
        self._signature = inspect.signature(model.forward)
        self._flat_count = flat_count(model)
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def train(self, mode: bool = True) -> Lowered:
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Raises `TypeError` for other inputs than the model was captured with."""
        given = self._signature.bind(*inputs, **named).args if named else inputs
        is_flat = len(given) == self._flat_count and all(isinstance(value, torch.Tensor) for value in given)
        leaves = [self._laid_out(value) for value in (given if is_flat else flat_inputs(self._model, given))]
        key = tuple((v.shape, v.dtype, v.device) if isinstance(v, torch.Tensor) else v for v in leaves)
        with torch.no_grad():
            return (self._compiled.get(key) or self._compile(key, leaves))(leaves)

    def _compile(self, key: Hashable, leaves: list[Any]) -> Callable[..., Any]:
        with _ONE_AT_A_TIME:
            if key not in self._compiled:  # nor has another thread compiled it meanwhile
                if len(self._compiled) >= SHAPES:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[key] = _compiled(self._model, structured_inputs(self._model, leaves), self._max_autotune)
            return self._compiled[key]

    def _laid_out(self, value: Any) -> Any:
        """A tensor in the layout that is compiled for."""
        if isinstance(value, _PLAIN):
            return value
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"an input holds a {type(value).__module__}.{type(value).__qualname__}; give tensors (torch.as_tensor "
                "makes one), and numbers where the model was captured with them"
            )
        return value.contiguous(memory_format=self._images if value.dim() == IMAGES else torch.contiguous_format)


def _check_sums(model: GraphModule, found: Features) -> None:
    if sums_overflow(found) and any(_rounds_to_8_bits(node) for node in model.graph.nodes):
        raise ValueError(
            f"this processor ({found.get('cpu_name')}) has no VNNI: its int8 kernels add two products in 16 bits, "
            "where inputs of 8 bits overflow, and the model would not have the accuracy that was measured; call it as "
            "it is, compile it on another processor, or search anew with reduce_range (in a resource "
            "quantization.reduceRange), which rounds inputs to 7 bits"
        )


def _rounds_to_8_bits(node: Node) -> bool:
    """Whether it rounds an op's input, or reads one that is stored so: weights go from -128 to 127."""
    return "quantize_per_tensor" in str(node.target) and bool(node.args[4] == 255)


def _only_checks(node: Node) -> bool:
    """Whether it is a guard, or an assertion, whose message inductor would write into C++ as it is."""
    return not node.users and (node.op == "call_module" or node.target in _ASSERTIONS)


def _compiled(model: GraphModule, inputs: tuple[Any, ...], max_autotune: bool) -> Callable[..., Any]:
    """Takes the leaves of inputs that are shaped like `inputs`.

    Without torch.compile, which at every call looks for what has changed since the last one: here only shapes may.
    """
    with quiet():
        fixed, structure = for_shapes_of(model, inputs)
        own = max_autotune and (products_of_convolutions(fixed) > 0 or has_small_products(fixed))
        fixed.graph.set_codegen(torch.fx.graph.CodeGen())
        fixed.recompile()
        leaves = tree_leaves(inputs)
        with torch._inductor.config.patch({"freezing": True, **(_PRODUCTS if own else {})}):
            with sparing_what_is_read(), folding_none():
                compute = torch._inductor.compile(fixed, leaves)
            compute(*leaves)  # the first call makes what later ones use again

    return lambda leaves: tree_unflatten(compute(*leaves), structure)


def for_shapes_of(model: GraphModule, inputs: tuple[Any, ...]) -> tuple[GraphModule, TreeSpec]:
    """The model for inputs of these shapes alone, as inductor's patterns want it, and the structure of its outputs."""
    program = torch.export.export(model, inputs)
    fixed = program.module()
    if not isinstance(fixed, GraphModule):
        raise TypeError(f"torch.export gave a {type(fixed).__name__}, not a GraphModule")
    for node in [node for node in fixed.graph.nodes if _only_checks(node)]:
        fixed.graph.erase_node(node)
    pad_before(fixed)
    reach_zero(fixed)
    scale_before_sums(fixed)
    hoist_rounding(fixed)
    store_weights_in_fp32(fixed)
    return fixed, program.call_spec.out_spec
