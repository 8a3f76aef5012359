"""A captured model that computes as its int8 models do, with ops that can be switched one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.graphs import flat_inputs
from quantuner.engine.quantize import Activations, activation_observer, weight_observer
from quantuner.space.capability import Mode
from quantuner.space.config import OpConfig

Values = dict[Node, Any]
"""Every node's value for one batch."""


class Simulated:
    """Rounds inputs and weights of quantized ops to their int8 grids and computes in fp32: no graph is rewritten.

    Source: simulated quantization, Jacob et al. 2018 (arXiv:1712.05877), section 3.
    """

    def __init__(self, graph: GraphModule, activations: Activations) -> None:
        self.graph = graph
        self._activations = activations
        self.names = {node: name for name, _, node in quantizable_nodes(graph.graph)}
        self._weights: dict[tuple[str, OpConfig], torch.Tensor] = {}
        self._later: dict[str, list[Node]] = {}

    def run(self, inputs: tuple[Any, ...], config: Mapping[str, OpConfig]) -> Values:
        """All nodes' values under `config`; an op that it does not name is fp32."""
        interpreter = _Run(self, config)
        interpreter.args_iter = flat_inputs(self.graph, inputs)
        for node in self.graph.graph.nodes:
            interpreter.env[node] = interpreter.run_node(node)
        return interpreter.env

    def rerun(self, values: Values, config: Mapping[str, OpConfig], name: str) -> Any:
        """The model's output under `config`, which differs only in op `name` from the one that gave `values`."""
        interpreter = _Run(self, config)
        interpreter.env = dict(values)
        for node in self._from(name):
            interpreter.env[node] = interpreter.run_node(node)
        return self.output(interpreter.env)

    def output(self, values: Values) -> Any:
        return values[self.graph.graph.output_node()]

    def _from(self, name: str) -> list[Node]:
        """The op's nodes and all that depend on them, in the order of the model."""
        if name not in self._later:
            reached = {node for node, other in self.names.items() if other == name}
            for node in self.graph.graph.nodes:
                if reached.intersection(node.all_input_nodes):
                    reached.add(node)
            self._later[name] = [node for node in self.graph.graph.nodes if node in reached]
        return self._later[name]

    def activation(self, name: str, config: OpConfig, value: torch.Tensor) -> torch.Tensor:
        """An op's input `(N, …)` rounded to its grid."""
        scheme = config.get("activation", "scheme")
        quant_max = self._activations.quant_max
        if config.mode is Mode.DYNAMIC:
            observer = activation_observer(scheme, quant_max)
            observer(value)
            scale, zero_point = observer.calculate_qparams()
            return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), 0, quant_max)
        scale, zero_point = self._activations.qparams(name, scheme, config.get("activation", "algorithm"))
        return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, 0, quant_max)

    def weight(self, name: str, config: OpConfig, value: torch.Tensor) -> torch.Tensor:
        """An op's weight `(out, in, …)` rounded to its grid; kept, since it is the same in every batch."""
        if (name, config) not in self._weights:
            self._weights[name, config] = rounded_weight(config, value)
        return self._weights[name, config]


def rounded_weight(config: OpConfig, value: torch.Tensor) -> torch.Tensor:
    observer = weight_observer(config)
    observer(value)
    scale, zero_point = observer.calculate_qparams()
    zero_point = zero_point.to(torch.int32)
    if config.get("weight", "granularity") == "per_channel":
        return torch.fake_quantize_per_channel_affine(value, scale, zero_point, 0, -128, 127)
    return torch.fake_quantize_per_tensor_affine(value, float(scale), int(zero_point), -128, 127)


class _Run(Interpreter):
    def __init__(self, simulated: Simulated, config: Mapping[str, OpConfig]) -> None:
        super().__init__(simulated.graph, garbage_collect_values=False)
        self._simulated = simulated
        self._config = config

    def run_node(self, n: Node) -> Any:
        name = self._simulated.names.get(n)
        config = self._config.get(name) if name is not None else None
        if name is None or config is None or config.mode.is_precision:
            return super().run_node(n)
        (value, weight, *others), named = self.fetch_args_kwargs_from_env(n)
        return self.call_function(
            n.target,
            (
                self._simulated.activation(name, config, value),
                self._simulated.weight(name, config, weight),
                *others,
            ),
            named,
        )
