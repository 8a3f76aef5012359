"""Quantizes a model on the meta device from its checkpoint: one fp32 weight is in memory at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantuner.api.conditions import Failure
from quantuner.api.errors import SearchError
from quantuner.api.spec import Quantization
from quantuner.engine import artifact, recipes
from quantuner.engine.allocation import release
from quantuner.engine.batches import inputs_wanted
from quantuner.engine.calibrate import InputObserver, Ranges, calibration_inputs, check_finite, first_inputs
from quantuner.engine.capture import graph_of, op_nodes
from quantuner.engine.entrypoint import users_code
from quantuner.engine.evaluate import evaluate
from quantuner.engine.graphs import is_dequantize
from quantuner.engine.layer_wise.checkpoint import Checkpoint
from quantuner.engine.layer_wise.stored import Linear, StoredInt8
from quantuner.engine.layer_wise.streaming import Weights
from quantuner.engine.pt2e import QuantizationAnnotation, convert_pt2e, prepare_pt2e
from quantuner.engine.quantize import Activations, ConfigQuantizer, callable_like_a_module
from quantuner.engine.quantized import QuantizedModel
from quantuner.engine.quiet import quiet
from quantuner.engine.routing import allow_empty
from quantuner.engine.shapes import SHAPES_SEEN
from quantuner.engine.sums import scale_after_sums
from quantuner.engine.weight_only.inputs import Inputs
from quantuner.engine.weight_only.weights import Weights as FewBits
from quantuner.space.capability import Mode, Op
from quantuner.space.config import FP32, TuneConfig
from quantuner.space.constraints import constrain
from quantuner.space.samplers import initial

APPROACHES = ("static", "dynamic", "weight_only")


class LayerWise:
    """A model whose weights stay in their checkpoint until each is quantized."""

    def __init__(self, model: nn.Module, checkpoint: str | Path, loader: Iterable[Any], quantization: Quantization):
        """`model` is on the meta device and stays there; its names are the checkpoint's.

        Raises `SearchError` where the model has weights already, the checkpoint lacks some, the approach is none of
        static, dynamic and weight_only, or the constraints do not fit.
        """
        if quantization.approach not in APPROACHES:
            raise SearchError(
                Failure.CONFIGURATION_INVALID,
                f"layer_wise_quant goes with the approaches {', '.join(APPROACHES)}, not {quantization.approach}",
            )
        self.model = copy.deepcopy(model).eval()  # on the meta device this copies no weight
        self.linears = {name: module for name, module in self.model.named_modules() if _is_empty_fp32(module)}
        if not self.linears:
            raise SearchError(
                Failure.TASK_INVALID,
                "layer_wise_quant is for models without weights; make the model under torch.device('meta'), with some "
                "torch.nn.Linear in float32 in it; what is in bf16 or fp16 stays so",
            )
        self.quantization = quantization
        self.weights = Weights(self.model, Checkpoint(checkpoint))
        self.loader = loader
        ops = [Op(name, "Linear", module.weight.numel()) for name, module in self.linears.items()]
        size = quantization.calibration_sampling_sizes[0]
        self.config: TuneConfig = initial(constrain(ops, quantization)).calibrated_with(size)
        self.config = self.config.with_recipes({"layer_wise_quant": True})
        """What the model is quantized with: each op's first options."""

    def accuracy(self, judge: Callable[[Any], float]) -> float:
        """Of the fp32 model, its weights read for each batch; before `quantized`. Raises what `evaluate` raises."""
        with torch.no_grad(), self.weights.streamed(self.model) as model:
            return evaluate(model, judge)[0]

    def quantized(self) -> QuantizedModel:
        """The quantized model, all of it in memory. To be called once: the weights are read into `self.model`."""
        inputs = first_inputs(self.loader, inputs_wanted(self.model), SHAPES_SEEN)
        ranges = self._ranges(len(inputs[0])) if self.quantization.approach == "static" else {}
        self._store(len(inputs[0]))
        graph, called = graph_of(self.model, inputs[0], inputs[1:])
        activations = Activations(ranges, reduce_range=self.quantization.reduce_range)
        with quiet(), torch.no_grad():  # whatever the approach, it folds batch norms
            model = convert_pt2e(prepare_pt2e(graph, _Inputs(self.config, activations)), store=False)
        callable_like_a_module(allow_empty(scale_after_sums(recipes.finished(model, self.quantization.recipes))))
        config = self.config
        return QuantizedModel(model, config.plain(), lambda folder: artifact.save(folder, model, called, config))

    def _store(self, count: int) -> None:
        """Makes every stored weight, one after the other, puts them in place, and reads what stays in fp32."""
        few_bits = FewBits(_Read(self), lambda names: self._inputs(names, count))
        stored: dict[str, Linear] = {}  # in place they would change what later ones see of the fp32 model
        with torch.no_grad():
            for name, module in self.linears.items():
                config = self.config.get(name, FP32)
                if config.mode.is_precision:
                    continue
                weight: nn.Module
                if config.mode is Mode.WEIGHT_ONLY:
                    weight = few_bits.stored(name, config)
                else:
                    weight = StoredInt8(self.weights.read(module, "weight"), config)
                bias = None if module.bias is None else self.weights.read(module, "bias")
                stored[name] = Linear(weight, bias)
                release()
            for name, linear in stored.items():
                self.model.set_submodule(name, linear)
            for other in self.model.modules():
                self.weights.fill(other)

    def _ranges(self, count: int) -> Ranges:
        """Of the inputs of all linears in the fp32 model, as `calibrate` finds them."""
        observers = {name: InputObserver(dtype=torch.uint8, quant_min=0, quant_max=255) for name in self.linears}
        self._see(observers, count)
        ranges = {name: seen.range for name, seen in observers.items() if seen.range is not None}  # others never ran
        check_finite({count: ranges}, [name for name, op in self.config.items() if op.mode is Mode.STATIC])
        return ranges

    def _inputs(self, names: Iterable[str], count: int) -> Mapping[str, Inputs]:
        """What GPTQ and AWQ want to know of the inputs of some linears."""
        found = {name: Inputs.none_of(self.linears[name].in_features) for name in names}
        self._see({name: inputs.see for name, inputs in found.items()}, count)
        return found

    def _see(self, visitors: Mapping[str, Callable[[torch.Tensor], object]], count: int) -> None:
        """Runs the calibration data through the fp32 model and shows each visitor the inputs of its linear."""

        def shown(visit: Callable[[torch.Tensor], object]) -> Any:
            def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
                visit(arguments[0])

            return hook

        handles = [self.linears[name].register_forward_pre_hook(shown(visit)) for name, visit in visitors.items()]
        samples = self.quantization.calibration_sampling_sizes[0]
        try:
            with quiet(), torch.no_grad(), self.weights.streamed(self.model) as model:
                for inputs in calibration_inputs(self.loader, samples, count):
                    with users_code(Failure.CALIBRATION_FAILED, "calibrating"):
                        model(*inputs)
        finally:
            for handle in handles:
                handle.remove()


def _is_empty_fp32(module: nn.Module) -> bool:
    """Whether it is a linear without weights, in the type that all grids round to."""
    return type(module) is nn.Linear and module.weight.is_meta and module.weight.dtype is torch.float32


class _Read(Mapping[str, torch.Tensor]):
    """The fp32 weights of all linears, each read when it is asked for."""

    def __init__(self, of: LayerWise) -> None:
        self._of = of

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._of.weights.read(self._of.linears[name], "weight")

    def __iter__(self) -> Iterator[str]:
        return iter(self._of.linears)

    def __len__(self) -> int:
        return len(self._of.linears)


class _Inputs(ConfigQuantizer):
    """Annotates the inputs of linears whose weight is stored in int8 already."""

    def annotate(self, model: GraphModule) -> GraphModule:
        for name, type_, node in op_nodes(model.graph):
            config = self.config.get(name, FP32)
            if type_ == "Linear" and is_dequantize(node.args[1]) and config.mode in (Mode.STATIC, Mode.DYNAMIC):
                specs = {node.args[0]: self._activation(name, config)}
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model
