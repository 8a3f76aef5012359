"""A captured model that computes as its quantized models do, to the bit, and is switched between them at no cost."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from quantuner.engine.capture import quantizable_nodes
from quantuner.engine.graphs import attribute, path_of
from quantuner.engine.operators import channel_axis, inputs_of, range_names, weights_of
from quantuner.engine.precision import DTYPES, is_cast
from quantuner.engine.quantize import Activations
from quantuner.engine.sums import BIAS, sums_integers
from quantuner.engine.switch.flow import NOTHING, Flow, Rounded, flow, rectified
from quantuner.engine.switch.integers import InputGrid
from quantuner.engine.switch.kernels import Kernels
from quantuner.engine.switch.memory import Memory, Signature, batch_digest, interned, storages
from quantuner.engine.switch.program import Program, Values
from quantuner.engine.switch.rounding import Grid, RoundedWeights, Rounding
from quantuner.engine.switch.signs import hardly_negative
from quantuner.engine.switch.summed import Summed
from quantuner.engine.weight_only.weights import Weights
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig

Work = Mapping[str, float]
"""Op name to its floating-point operations."""


class Switchable:
    """Inputs and weights of quantized ops are rounded to their int8 grids, and computed in fp32 as what is not
    quantized; operands of ops in bf16 or fp16 are cast, and so are their outputs, back.

    What a configuration leaves as the one before had it is not computed again: the inputs of ops are kept, batch by
    batch, within the memory's budget.
    """

    def __init__(
        self,
        graph: GraphModule,
        activations: Activations,
        work: Work,
        budget: int = 0,
        weights: RoundedWeights | None = None,
        few_bits: Weights | None = None,
    ) -> None:
        """`graph` is the fp32 graph that is quantized, batch norms folded; `budget` in bytes, 0 keeps nothing.

        `weights` are shared by all that switch the same graph; they are not part of the budget. `few_bits` gives those
        of weight-only ops.
        """
        self.program = Program(graph)
        self.names = {node: name for name, _, node in quantizable_nodes(graph.graph)}
        """Node to the op's name; a module that is called twice has two nodes."""
        self.types = {node: type_ for _, type_, node in quantizable_nodes(graph.graph)}
        self.kernels = Kernels()
        self.rounding = Rounding(activations, RoundedWeights() if weights is None else weights, few_bits)
        self._rectified = rectified([node for node, type_ in self.types.items() if self._gives_numbers(node, type_)])
        self.hardly_negative = hardly_negative(graph.graph)
        self._interned: dict[OpConfig, OpConfig] = {}
        self._forward = inspect.signature(graph.forward)
        ops = tuple(dict.fromkeys(self.names.values()))
        inputs = [source for node in self.names for source in inputs_of(node)]
        kept = dict.fromkeys([*inputs, *self.program.result.all_input_nodes]) if budget else {}
        self._above = {node: self.program.above(node, ops, self.names) for node in kept}
        worth = {node: 1.0 + sum(work.get(name, 0.0) for name in above) for node, above in self._above.items()}
        self._memory = Memory(budget, worth)
        self.overwriting_steps = self.program.steps | self.program.overwriting(self._above)

    # --- whole evaluations

    def model(self, config: Mapping[str, OpConfig]) -> Switched:
        """The model under `config`, called like the user's; an op that it does not name is fp32."""
        return Switched(self, interned(self._interned, config))

    def flow(self, config: Mapping[str, OpConfig]) -> Flow:
        """What ops compute beyond themselves under `config`."""
        return flow(self._rectified, self.names, self.types, config, self._fixed_grid)

    def _gives_numbers(self, node: Node, type_: str) -> bool:
        """Whether an op that is rounded to one grid gives no NaN, whatever its input."""
        bias: Any = node.args[BIAS] if sums_integers(type_) and len(node.args) > BIAS else None
        if bias is None:
            return sums_integers(type_)
        return bias.op == "get_attr" and bool(attribute(self.program.model, path_of(bias)).isfinite().all())

    def _fixed_grid(self, name: str, config: OpConfig) -> InputGrid | None:
        grid = self.rounding.grid(name, config)
        return None if grid is None else InputGrid(*grid, self.rounding.activations.quant_max)

    def signatures(self, config: Mapping[str, OpConfig], flow: Flow) -> dict[Node, Signature]:
        """What the values that may be kept depend on."""
        return {
            node: (flow.grid(node), *(config.get(name, FP32) for name in above)) for node, above in self._above.items()
        }

    def positional(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """A call's arguments in the order of the captured model's."""
        return self._forward.bind(*inputs, **named).args if named else tuple(inputs)

    def evaluate(
        self,
        inputs: Sequence[Any],
        config: Mapping[str, OpConfig],
        flow: Flow,
        signatures: Mapping[Node, Signature],
    ) -> Any:
        """The model's output for one batch. Values that nobody needs any more are dropped on the way.

        What is kept is the memory's own: views of the caller's inputs are left out, and outputs are copied.
        """
        memory = self._memory
        bound = self.program.bind(inputs)
        batch = batch_digest(bound.values()) if memory.nodes else b""  # in the captured order, whatever the dict's
        self.program.check(bound)
        values = bound | memory.known(batch, signatures)
        needed = self.program.needed(values)
        uses = Counter(a for node in (*needed, self.program.result) for a in node.all_input_nodes)
        run, theirs = _Run(self, config, flow), storages(inputs)
        for node in needed:
            values[node] = run.value(node, values)
            if node in signatures and theirs.isdisjoint(storages(values[node])):
                memory.keep(batch, node, signatures[node], values[node])
            for argument in node.all_input_nodes:
                uses[argument] -= 1
                if not uses[argument]:
                    del values[argument]
        result = self.program.output(values)
        return tree_map(_copied, result) if memory.nodes else result

    def forget(self) -> None:
        """Drops the values that are kept."""
        self._memory.clear()

    # --- for probes: all values of a batch, and what one op changes in them

    def run(self, inputs: Sequence[Any], config: Mapping[str, OpConfig]) -> Values:
        """All nodes' values for one batch under `config`."""
        values, run = self.program.bind(inputs), _Run(self, config)
        for node in self.program.needed(values):
            values[node] = run.value(node, values)
        return values

    def rerun(self, values: Values, config: Mapping[str, OpConfig], name: str) -> Any:
        """The model's output under `config`, which differs only in op `name` from the one that gave `values`."""
        changed, run = {node for node, other in self.names.items() if other == name}, _Run(self, config)
        again = dict(values)
        for node in self.program.order:
            if node in values and (node in changed or changed.intersection(node.all_input_nodes)):
                changed.add(node)
                again[node] = run.value(node, again)
        return self.program.output(again)

    def output(self, values: Values) -> Any:
        """What the model returns, of a run's values."""
        return self.program.output(values)

    def own_output(self, node: Node, config: OpConfig, values: Values) -> Any:
        """An op's output under `config`, its input as in `values`."""
        return _Run(self, {self.names[node]: config}).value(node, values)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


class _Run:
    """Computes nodes of one batch. The last rounded input is kept: ops that share an input come one after the other."""

    def __init__(self, switchable: Switchable, config: Mapping[str, OpConfig], flow: Flow | None = None) -> None:
        """Without a `flow` every node's value is its own, in fp32, and stays."""
        self._switchable = switchable
        self._config = config
        self._flow = flow or Flow()
        self._steps = switchable.program.steps if flow is None else switchable.overwriting_steps
        self._last: tuple[tuple[object, ...] | None, torch.Tensor | None] = (None, None)

    def value(self, node: Node, values: Values) -> Any:
        if node in self._flow.computed_by:
            return values[self._flow.computed_by[node]]
        name = self._switchable.names.get(node)
        config = self._config.get(name, FP32) if name is not None else FP32
        if name is None or config.mode is Mode.FP32:
            return self._steps[node](values)
        if config.mode in DTYPES:
            return self._in_precision(node, config.mode, values)
        if config.mode is not Mode.WEIGHT_ONLY and sums_integers(self._switchable.types[node]):
            return self._sums(node, name, config, values)
        arguments = {argument: values[argument] for argument in node.all_input_nodes}
        named = zip(inputs_of(node), range_names(name, node), strict=True)
        for source, range_name in named if config.mode is not Mode.WEIGHT_ONLY else ():
            arguments[source] = self._input(source, range_name, config, values)
        weights = weights_of(node)
        for weight in weights:
            key = name if len(weights) == 1 else f"{name}:{weight.target}"
            arguments[weight] = self._switchable.rounding.weight(key, config, values[weight], channel_axis(node))
        return self._switchable.program.steps[node](arguments)

    def _in_precision(self, node: Node, mode: Mode, values: Values) -> torch.Tensor:
        """A node in bf16 or fp16, with the casts that a converted model has around it."""
        rounding = self._switchable.rounding
        arguments = {
            argument: rounding.cast(argument, mode, values[argument]) if is_cast(argument) else values[argument]
            for argument in node.all_input_nodes
        }
        result: torch.Tensor = self._switchable.program.steps[node](arguments)
        return result.to(torch.float32)

    def _sums(self, node: Node, name: str, config: OpConfig, values: Values) -> torch.Tensor | Rounded:
        rounding, kernels = self._switchable.rounding, self._switchable.kernels
        (source,), (weight_node,) = inputs_of(node), weights_of(node)
        value, fixed = values[source], rounding.grid(name, config)
        grid = value.grid if isinstance(value, Rounded) else self._grid(source, fixed, config, value)
        weight = rounding.integers(name, config, values[weight_node], channel_axis(node))
        op = Summed.of(node, self._switchable.types[node], weight, grid, values)
        after = self._flow.after.get(node, NOTHING)
        if isinstance(value, Rounded):
            found = kernels.compute(op, value.integers, lambda: value.integers, after)
            fp32 = value.fp32
        else:
            integers = partial(self._rounded, source, (fixed, "bytes"), partial(grid.bytes, value))
            found = kernels.compute(op, value, integers, after)
            fp32 = partial(self._rounded, source, (fixed, "fp32"), partial(grid.fp32, value))
        output = after.of(op.in_fp32(fp32())) if found is None else found
        return output if after.grid is None else Rounded(output, after.grid)

    def _grid(self, source: Node, fixed: Grid | None, config: OpConfig, value: torch.Tensor) -> InputGrid:
        """That of an op's input; without a zero point where it makes no difference, since kernels are quicker so."""
        grid = self._switchable.rounding.input_grid(fixed, config, value)
        if not (grid.zero_point and value.numel() and source in self._switchable.hardly_negative):
            return grid
        is_not_negative = bool(value.amin() >= 0)  # nor NaN, whose integer is not the zero point
        return grid.of_what_is_not_negative() if is_not_negative else grid

    def _input(self, source: Node, range_name: str, config: OpConfig, values: Values) -> torch.Tensor:
        rounding = self._switchable.rounding
        grid = rounding.grid(range_name, config)
        return self._rounded(source, (grid,), lambda: rounding.activation(config, grid, values[source]))

    def _rounded(self, source: Node, how: tuple[object, ...], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `compute` gives, or gave for the op before. `how` begins with the grid, None where it is a batch's."""
        key, rounded = self._last
        if how[0] is None or rounded is None or key != (source, *how):
            rounded = compute()
            self._last = ((source, *how) if how[0] else None, rounded)
        return rounded


class Switched(torch.nn.Module):
    """The model of one configuration, for as long as it is evaluated; it has one mode, and no gradients."""

    def __init__(self, switchable: Switchable, config: Mapping[str, OpConfig]) -> None:
        super().__init__()
        self.graph_module = switchable.program.model
        """In fp32: who asks the model for its parameters finds them."""
        self._switchable = switchable
        self._config = config
        self._flow = switchable.flow(config)
        self._signatures = switchable.signatures(config, self._flow)

    def train(self, mode: bool = True) -> Switched:
        """Leaves the model as it is; a captured one would refuse."""
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        with torch.no_grad():
            positional = self._switchable.positional(inputs, named)
            return self._switchable.evaluate(positional, self._config, self._flow, self._signatures)
