"""The parts of torchao's PT2E that the engine stands on; the one place that imports torchao."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.quiet import quiet

with quiet():
    from torch.ao.quantization.fx.utils import assert_and_get_unique_device as _device_of
    from torchao.quantization.pt2e import (
        FakeQuantize,
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
        PlaceholderObserver,
    )
    from torchao.quantization.pt2e.constant_fold import ConstantFolder, replace_node_with_constant
    from torchao.quantization.pt2e.quantize_pt2e import _quant_node_constraint as _is_quantize
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e as _convert_pt2e
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e as _prepare_pt2e
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e as _prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import (
        FixedQParamsQuantizationSpec,
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
        SharedQuantizationSpec,
    )
    from torchao.utils import _assert_and_get_unique_device as _other_device_of

__all__ = [
    "FakeQuantize",
    "FixedQParamsQuantizationSpec",
    "HistogramObserver",
    "MinMaxObserver",
    "PerChannelMinMaxObserver",
    "PlaceholderObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "Quantizer",
    "SharedQuantizationSpec",
    "convert_pt2e",
    "prepare_pt2e",
    "prepare_qat_pt2e",
]


def _forgotten(step: Callable[..., GraphModule], *arguments: Any) -> GraphModule:
    """Takes a step after which no model is held: torch and torchao remember the device of each that they ever saw, by
    the model itself, so that all of a search's would stay in memory.
    """
    try:
        return step(*arguments)
    finally:
        _device_of.cache_clear()
        _other_device_of.cache_clear()


def prepare_pt2e(model: GraphModule, quantizer: Quantizer) -> GraphModule:
    """torchao's. Changes the model."""
    return _forgotten(_prepare_pt2e, model, quantizer)


def convert_pt2e(prepared: GraphModule, *, store: bool = True) -> GraphModule:
    """torchao's, without its search for batch norms beside convolutions: see `_without_norms`.

    With `store`, what can be computed beforehand is stored: int8 weights instead of fp32 ones. All of it is in memory
    at once.
    """
    return _without_norms(partial(_converted, store=store), prepared)


def _converted(prepared: GraphModule, *, store: bool) -> GraphModule:
    model: GraphModule = _convert_pt2e(prepared, fold_quantize=False)
    if store:
        _store_quantized(model)
    return model


class _Folder(ConstantFolder):  # type: ignore[misc]
    """torchao's, which makes fp32 weights of the int8 ones, too, only to drop them."""

    def _deduce_value(self, node: Node) -> Any:
        return self.unknown_value if self.is_impure(node) else super()._deduce_value(node)


def _store_quantized(model: GraphModule) -> None:
    """What torchao's `constant_fold` does where it converts: quantized weights are computed and replace fp32 ones."""
    folder = _Folder(model, skip_constructors=True)
    folder.run()
    for node, value in folder.node_replacements.items():
        if _is_quantize(node):
            replace_node_with_constant(model, node, value)
    for node in model.graph.find_nodes(op="get_attr"):
        if not node.users:
            if hasattr(model, node.target):
                delattr(model, node.target)
            model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()


def prepare_qat_pt2e(model: GraphModule, quantizer: Quantizer) -> GraphModule:
    """torchao's, without its search for batch norms beside convolutions: see `_without_norms`."""
    return _without_norms(_prepare_qat_pt2e, model, quantizer)


def _without_norms(step: Callable[..., GraphModule], model: GraphModule, *more: Any) -> GraphModule:
    """Takes a step with batch norms under a name that torchao does not know.

    Those that can be folded have been, before anything is prepared. For any other one, torchao searches 20 to 100 s for
    patterns of training that cannot be there.
    """
    _rename(model, torch.ops.aten.batch_norm.default, _batch_norm)
    try:
        result = _forgotten(step, model, *more)
    finally:
        _rename(model, _batch_norm, torch.ops.aten.batch_norm.default)
    _rename(result, _batch_norm, torch.ops.aten.batch_norm.default)
    return result


def _batch_norm(*args: Any) -> Any:
    return torch.ops.aten.batch_norm.default(*args)


def _rename(model: GraphModule, old: Any, new: Any) -> None:
    for node in model.graph.nodes:
        if node.target is old:
            node.target = new
    model.recompile()
