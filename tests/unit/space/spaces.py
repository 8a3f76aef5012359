"""Small models' ops for the tests of the space, and Hypothesis' strategies over them."""

from hypothesis import strategies as st

from quantuner.api.spec import Override, Quantization
from quantuner.space.capability import Op, OpCapability
from quantuner.space.constraints import constrain

NETWORK = (Op("conv1", "Conv2d", 72), Op("conv2", "Conv2d", 144), Op("fc1", "Linear", 64), Op("fc2", "Linear", 20))
"""Two convolutions and two linears: the example of Neural Compressor's documented orders."""

TYPES = ("Conv2d", "ConvTranspose2d", "Embedding", "Linear", "MatMul")
"""One of each kind: a product over all types would take its time."""
APPROACHES = ("static", "dynamic", "auto", "weight_only")


def space_of(approach: str, *ops: Op, types: tuple[Override, ...] = (), names: tuple[Override, ...] = ()) -> tuple[
    OpCapability, ...
]:  # fmt: skip
    """The tuning space of `ops`, by default of NETWORK."""
    return constrain(ops or NETWORK, Quantization(approach, op_types=types, op_names=names))


def narrowing(pattern: str, **options: tuple[str, ...]) -> Override:
    """`narrowing("fc1", activation_scheme=("sym",))`."""
    keys = {(key.split("_")[0], key.split("_")[1]): values for key, values in options.items()}
    return Override(pattern, keys)


names = st.text("abc012._", min_size=1, max_size=6)
ops = st.lists(
    st.builds(Op, names, st.sampled_from(TYPES), st.integers(0, 1000)),
    min_size=1,
    max_size=6,
    unique_by=lambda op: op.name,
).map(tuple)


def _some(*values: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


_items = {
    "dtype": _some("int8", "uint8", "fp32"),
    "scheme": _some("asym", "sym"),
    "granularity": _some("per_channel", "per_tensor"),
    "algorithm": _some("minmax", "kl", "percentile"),
}
overrides = st.builds(
    Override,
    st.sampled_from(["Conv.*", "Linear", ".*", "a.*", ".*1", "Conv2d"]),
    st.fixed_dictionaries(
        {}, optional={(a, item): values for a in ("activation", "weight") for item, values in _items.items()}
    ),
)  # fmt: skip
quantizations = st.builds(
    Quantization,
    st.sampled_from(APPROACHES),
    op_types=st.lists(overrides, max_size=3).map(tuple),
    op_names=st.lists(overrides, max_size=3).map(tuple),
)
