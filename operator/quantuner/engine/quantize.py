"""A configuration made into a quantized model: torchao's prepare and convert around fixed ranges."""

import types
from typing import Any

import torch
from torch.fx import GraphModule, Node

from quantuner.engine.calibrate import Range, Ranges
from quantuner.engine.capture import Captured, quantizable_nodes
from quantuner.engine.clipping import Clipping
from quantuner.engine.graphs import attribute, copied, own_tensors
from quantuner.engine.naming import take_names
from quantuner.engine.operators import channel_axis, inputs_of, range_names, weights_of
from quantuner.engine.percentile import holding, percent_of
from quantuner.engine.precision import cast_ops, store_weights
from quantuner.engine.pt2e import (
    FakeQuantize,
    FixedQParamsQuantizationSpec,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    convert_pt2e,
    prepare_pt2e,
)
from quantuner.engine.quiet import quiet
from quantuner.space.capability import Mode
from quantuner.space.config import FP32, OpConfig, TuneConfig

EPS = 2**-12  # smallest scale, that of torchao's x86 quantizer: below it int8 kernels lose their meaning
_QSCHEME = {
    ("per_tensor", "asym"): torch.per_tensor_affine,
    ("per_tensor", "sym"): torch.per_tensor_symmetric,
    ("per_channel", "sym"): torch.per_channel_symmetric,
}


class Activations:
    """Scale and zero point of every op's input under every scheme, from ranges collected once.

    uint8 in [0, 255], or [0, 127] where the range is reduced; a symmetric range has its zero point where torch has
    it for these: at 127, or 63.
    """

    def __init__(self, ranges: Ranges, *, reduce_range: bool = False) -> None:
        self.ranges = ranges
        self.quant_max = 127 if reduce_range else 255
        self._known: dict[tuple[str, str, str], tuple[float, int]] = {}

    def qparams(self, name: str, scheme: str, algorithm: str) -> tuple[float, int]:
        """(scale, zero point). `kl` is torch's histogram observer, which like Neural Compressor's kl on PyTorch
        searches the clipping range of least squared error (torch.ao HistogramObserver); `minmax` takes the range seen;
        `percentile` the part of it that holds 99.99 % of the values, `percentile:99.9` as many as it says.
        """
        key = (name, scheme, algorithm)
        if key not in self._known:
            self._known[key] = _qparams(self.ranges[name], scheme, algorithm, self.quant_max)
        return self._known[key]


def _qparams(seen: Range, scheme: str, algorithm: str, quant_max: int) -> tuple[float, int]:
    bins = len(seen.histogram) if algorithm == "kl" else 0
    observer = activation_observer(scheme, quant_max, bins)
    percent = percent_of(algorithm)
    low, high = (seen.minimum, seen.maximum) if percent is None else holding(seen, percent)
    observer.min_val, observer.max_val = low.clone(), high.clone()
    if algorithm == "kl":
        observer.histogram = seen.histogram.clone()
    scale, zero_point = observer.calculate_qparams()
    return float(scale.item()), int(zero_point.item())


def activation_observer(scheme: str, quant_max: int, bins: int = 0) -> Any:
    """An observer of uint8 activations: of the range's ends, or of a histogram with `bins` bins."""
    arguments: dict[str, Any] = {
        "dtype": torch.uint8,
        "qscheme": _QSCHEME["per_tensor", scheme],
        "quant_min": 0,
        "quant_max": quant_max,
        "eps": EPS,
    }
    return Clipping(bins=bins, **arguments) if bins else MinMaxObserver(**arguments)


def weight_observer(config: OpConfig, axis: int) -> Any:
    """An observer of an op's int8 weight, channels in dimension `axis`."""
    granularity = config.get("weight", "granularity")
    arguments: dict[str, Any] = {
        "dtype": torch.int8,
        "qscheme": _QSCHEME[granularity, config.get("weight", "scheme")],
        "quant_min": -128,
        "quant_max": 127,
        "eps": least_scale(config),
    }
    if granularity == "per_channel":
        return PerChannelMinMaxObserver(ch_axis=axis, **arguments)
    return MinMaxObserver(**arguments)


def least_scale(config: OpConfig) -> float:
    """Of a weight. One that is only looked up (an embedding) goes into no int8 kernel."""
    has_activation = any(attribute == "activation" for (attribute, _), _ in config.options)
    return EPS if has_activation else float(torch.finfo(torch.float32).eps)


class ConfigQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a captured graph as one configuration says.

    For training the observers are fake quantizers: activations keep their calibrated scale, weights follow.
    """

    def __init__(self, config: TuneConfig, activations: Activations, *, training: bool = False) -> None:
        super().__init__()
        self.training = training
        self.config = config
        self.activations = activations

    def annotate(self, model: GraphModule) -> GraphModule:
        for name, _, node in quantizable_nodes(model.graph):
            config = self.config.get(name, FP32)
            if not config.mode.is_precision and config.mode is not Mode.WEIGHT_ONLY:
                named = zip(inputs_of(node), range_names(name, node), strict=True)
                specs = {source: self._activation(range_name, config) for source, range_name in named}
                for weight in weights_of(node):
                    specs[weight] = _weight(config, channel_axis(node), training=self.training)
                node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=specs, _annotated=True)
        return model

    def validate(self, model: GraphModule) -> None:
        """What a configuration may say was decided by its space."""

    def _activation(self, name: str, config: OpConfig) -> Any:
        scheme = config.get("activation", "scheme")
        qscheme = _QSCHEME[config.get("activation", "granularity"), scheme]
        if config.mode is Mode.DYNAMIC:
            return QuantizationSpec(
                dtype=torch.uint8,
                quant_min=0,
                quant_max=self.activations.quant_max,
                qscheme=qscheme,
                is_dynamic=True,
                observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=EPS),
            )
        scale, zero_point = self.activations.qparams(name, scheme, config.get("activation", "algorithm"))
        return FixedQParamsQuantizationSpec(
            dtype=torch.uint8,
            scale=scale,
            zero_point=zero_point,
            quant_min=0,
            quant_max=self.activations.quant_max,
            qscheme=qscheme,
        )


def _weight(config: OpConfig, axis: int, *, training: bool = False) -> QuantizationSpec:
    granularity = config.get("weight", "granularity")
    per_channel = granularity == "per_channel"
    observer: Any = PerChannelMinMaxObserver if per_channel else MinMaxObserver
    eps = least_scale(config)
    constructor = FakeQuantize.with_args(observer=observer, eps=eps) if training else observer.with_args(eps=eps)
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=_QSCHEME[granularity, config.get("weight", "scheme")],
        ch_axis=axis if per_channel else None,
        observer_or_fake_quant_ctr=constructor,
    )


def quantize(captured: Captured, activations: Activations, config: TuneConfig) -> GraphModule:
    """A new model, quantized as `config` says; int8 weights are stored as int8, those of bf16 and fp16 ops as such.

    It is called like the user's model, and takes `.eval()` and `.train()` without effect.
    """
    with quiet(), torch.no_grad():
        prepared = prepare_pt2e(copied(captured.graph), ConfigQuantizer(config, activations))
        _observe_weights(prepared)
        converted: GraphModule = convert_pt2e(prepared)
        cast_ops(converted, config)  # after the batch norms are folded in
        store_weights(converted)
    own_tensors(converted, captured.graph)  # who has the model may change it
    return callable_like_a_module(converted)


def _observe_weights(prepared: GraphModule) -> None:
    """Shows every weight observer its weight; activations need none, so no data runs through the model."""
    for node in prepared.graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, Node) and source.op == "get_attr":
            prepared.get_submodule(str(node.target))(attribute(prepared, str(source.target)))


def callable_like_a_module(model: GraphModule) -> GraphModule:
    """`.eval()` and `.train()` give the model as it is; a captured one would refuse them, and has one mode only.

    It takes inputs by the names that the user's forward() gives them, too.
    """

    def unchanged(self: GraphModule, *_: bool) -> GraphModule:
        return self

    for name in ("eval", "train"):
        setattr(model, name, types.MethodType(unchanged, model))
    take_names(model)
    return model
