"""Quantization-aware training: the user trains a model that computes as the quantized one will."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.capture import Captured, op_nodes
from quantuner.engine.entrypoint import users_code
from quantuner.engine.graphs import attribute, folded, path_of
from quantuner.engine.operators import operator_of, weight_of, weights_of
from quantuner.engine.precision import cast_ops, store_weights
from quantuner.engine.pt2e import convert_pt2e, prepare_qat_pt2e
from quantuner.engine.quantize import Activations, ConfigQuantizer, callable_like_a_module
from quantuner.engine.quiet import quiet
from quantuner.space.config import TuneConfig

HOOKS = ("on_train_begin", "on_train_end")
_BATCH_NORM = torch.ops.aten.batch_norm.default
SEED = 1978  # of torch's generator when a training begins: every rank trains a configuration alike


class Training:
    """The user's training function, and callbacks around it."""

    def __init__(
        self, function: Callable[[Any], Any] | None = None, hooks: Mapping[str, Callable[[Any], Any]] | None = None
    ) -> None:
        """Raises `ValueError` for a hook of another name."""
        unknown = set(hooks or {}) - set(HOOKS)
        if unknown:
            raise ValueError(f"q_hooks may have {' and '.join(HOOKS)}, not {', '.join(sorted(map(str, unknown)))}")
        self.function = function
        self.hooks = dict(hooks or {})

    def __call__(self, model: Any) -> Any:
        """Trains, and returns the model that was trained: what the function returns, if that is one, else what it got.

        Raises `SearchError` (TrainingFailed) where it raises.
        """
        function = self.function
        if function is None:
            raise SearchError(Failure.TASK_INVALID, "quantization-aware training needs Task.train_func or q_func")
        torch.manual_seed(SEED)
        with users_code(Failure.TRAINING_FAILED, "train_func"), torch.enable_grad():
            self._call("on_train_begin", model)
            returned = function(model)
            trained = returned if isinstance(returned, GraphModule) else model
            self._call("on_train_end", trained)
        return trained

    def _call(self, hook: str, model: Any) -> None:
        if hook in self.hooks:
            self.hooks[hook](model)


KEPT = 4  # int8 models take a quarter of the fp32 one, so together about as much as that


class Trained:
    """The models that were trained last: a winner is mostly one of them, and need not be trained again to be saved."""

    def __init__(self) -> None:
        self._models: dict[str, GraphModule] = {}

    def of(self, config: TuneConfig, train: Callable[[], GraphModule]) -> GraphModule:
        """That of `config`, trained only where it is not kept."""
        model = self._models.pop(config.digest, None)
        if model is None:
            model = train()
        self._models[config.digest] = model
        if len(self._models) > KEPT:
            del self._models[next(iter(self._models))]
        return model


def train_quantized(
    captured: Captured, activations: Activations, config: TuneConfig, training: Training
) -> GraphModule:
    """The model of `config` with weights that were trained under quantization.

    What is trained computes exactly as what is returned: batch norms are folded before, as in quantizing, and a
    weight's scale is always that of the weight as it is. Source: torchao's PT2E flow, prepare_qat_pt2e, training,
    convert_pt2e; its own folding during training takes every batch norm's eps for 1e-5. What the user froze stays so.
    """
    wanted = _gradients_wanted(captured.graph)
    with quiet():
        prepared = prepare_qat_pt2e(
            copy.deepcopy(folded(captured.graph)), ConfigQuantizer(config, activations, training=True)
        )
        cast_ops(prepared, config)  # gradients pass through casts
        for name, parameter in prepared.named_parameters():
            parameter.requires_grad_(wanted.get(name, parameter.requires_grad))
        for fake in _weights(prepared):
            fake.register_forward_pre_hook(_forget_range)
        trained = training(callable_like_a_module(prepared))
    with quiet(), torch.no_grad():
        for fake, weight in _weights(trained).items():
            fake(weight)  # the last step changed it
        converted: GraphModule = convert_pt2e(trained)
        store_weights(converted)
    return callable_like_a_module(converted)


def _gradients_wanted(model: GraphModule) -> dict[str, bool]:
    """Name of a parameter to whether the user's model trains it, once batch norms are folded.

    A convolution without a bias gets one then, under a name of torchao's: in it is what the batch norm adds.
    """
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters(remove_duplicate=False)}
    for node in model.graph.nodes:
        source = node.args[0] if node.target is _BATCH_NORM else None
        if isinstance(source, Node) and operator_of(source) is not None and (weight := weight_of(source)) is not None:
            wanted[f"{weight.target}_bias"] = node.args[2] is not None and wanted.get(path_of(node.args[2]), False)
    return wanted


def _weights(prepared: GraphModule) -> dict[torch.nn.Module, torch.Tensor]:
    """Fake quantizer of every quantized weight to that weight. An input that the model holds keeps its scale."""
    found = {}
    for _, _, op in op_nodes(prepared.graph):
        for node in weights_of(op):
            source = node.args[0] if node.op == "call_module" else None
            if isinstance(source, Node) and source.op == "get_attr":
                found[prepared.get_submodule(str(node.target))] = attribute(prepared, path_of(source))
    return found


def _forget_range(fake: Any, _: Any) -> None:
    """A range that only widens would keep the scale of a weight that has long shrunk."""
    fake.activation_post_process.reset_min_max_vals()
