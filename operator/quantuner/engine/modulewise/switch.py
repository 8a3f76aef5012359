"""One copy of a model that is switched between configurations by putting modules in place of its Linears."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import nn

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.engine.modulewise.modules import Make, linears, places_of, quantized_linear
from quantuner.engine.weight_only.inputs import Inputs
from quantuner.space.config import FP32, OpConfig, TuneConfig

Values = dict[Any, Any]
"""Op name to its output, `(op name, "input")` to its input, `INPUTS` and `OUTPUT` to the model's.

Of a module that is called more than once the last call.
"""
INPUTS, OUTPUT = ("model", "inputs"), ("model", "output")
"""No op's name, whatever the user's modules are called, and no `(op name, "input")`."""


class ModuleSwitch:
    """Answers what `Switchable` answers, by running the whole model."""

    def __init__(self, model: nn.Module, make: Make, *, reduce_range: bool) -> None:
        """`model` is in fp32 and evaluation mode; it is copied."""
        self._model = copy.deepcopy(model)
        self._make, self._reduce_range = make, reduce_range
        self._fp32 = dict(linears(self._model))
        self._places = places_of(self._model)
        self._last: dict[str, tuple[OpConfig, nn.Module]] = {name: (FP32, one) for name, one in self._fp32.items()}
        self.names = {name: name for name in self._fp32}

    def model(self, config: Mapping[str, OpConfig]) -> nn.Module:
        """The model under `config`, called like the user's, until the next one is asked for."""
        for name, places in self._places.items():
            module = self._module(name, config.get(name, FP32))
            for parent, attribute in places:
                setattr(parent, attribute, module)
        return self._model.eval()

    def _module(self, name: str, config: OpConfig) -> nn.Module:
        """Of an op that is as it was before, the same module."""
        if config == FP32:
            return self._fp32[name]
        if self._last[name][0] != config:
            stored = self._make(name, config)
            module = quantized_linear(self._fp32[name], config, stored, reduce_range=self._reduce_range)
            self._last[name] = (config, module)
        return self._last[name][1]

    # --- for probes

    def run(self, inputs: tuple[Any, ...], config: Mapping[str, OpConfig]) -> Values:
        """What the model and every op that it calls gave for one batch under `config`."""
        model = self.model(config)
        values: Values = {INPUTS: inputs}
        with _hooked({name: model.get_submodule(name) for name in self.names}, _recorder(values)):
            values[OUTPUT] = model(*inputs)
        return values

    def rerun(self, values: Values, config: TuneConfig, name: str) -> Any:
        """The model's output under `config` for the batch that gave `values`."""
        return self.model(config)(*values[INPUTS])

    def output(self, values: Values) -> Any:
        """What the model returns, of a run's values."""
        return values[OUTPUT]

    def own_output(self, node: str, config: OpConfig, values: Values) -> Any:
        """An op's output under `config`, its input as in `values`."""
        return self._module(node, config)(values[node, "input"])

    @property
    def program(self) -> NoReturn:
        """There is none. Raises `SearchError` (ConfigurationInvalid)."""
        raise SearchError(
            Failure.CONFIGURATION_INVALID,
            "the model cannot be captured, and traces of the Hessian are taken of a captured graph; choose another "
            "strategy than hawq_v2",
        )


Hook = Callable[[str, Any, Any], None]
"""Takes an op's name, its input and its output."""


def _recorder(values: Values) -> Hook:
    def record(name: str, given: Any, output: Any) -> None:
        values[name, "input"], values[name] = given, output

    return record


@contextmanager
def _hooked(modules: Mapping[str, nn.Module], see: Hook) -> Iterator[None]:
    def hook_of(name: str) -> Any:
        return lambda _, inputs, output: see(name, inputs[0], output)

    hooks = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def inputs_seen(model: nn.Module, batches: Iterable[tuple[Any, ...]], names: Sequence[str]) -> dict[str, Inputs]:
    """Runs the batches through an fp32 model; of an op that is called more than once all inputs count."""
    modules = {name: module for name, module in linears(model) if name in names}
    seen = {name: Inputs.none_of(one.in_features, one.weight.device) for name, one in modules.items()}
    with torch.no_grad(), _hooked(modules, lambda name, given, _: seen[name].see(given)):
        for inputs in batches:
            model(*inputs)
    return seen
