"""The tuning space as a tree of data, with the queries that Neural Compressor's users know.

root → `calib_sampling_size` and one item per op → quantization mode → activation or weight → data type → sign →
method, whose options are what a configuration chooses from. High precisions stand under the one mode `precision`:
op → precision → activation or weight → data type. Source: TuningSpace of Neural Compressor 2.x.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from quantuner.space.capability import Mode, OpCapability
from quantuner.space.config import OpConfig

OpKey = tuple[str, str]
"""(op name, op type)."""
Path = tuple[str, ...]
"""From below an op: `("static", "activation", "int8", "unsigned")` or `("precision", "weight", "fp32")`."""
PRECISION = "precision"


@dataclass(frozen=True)
class TuningItem:
    """A node of the tree. Its options are items, or the plain options of a method."""

    name: object
    item_type: str
    options: tuple[object, ...] = ()

    def get_option_by_name(self, name: object) -> object | None:
        """The option of that name; None where there is none."""
        for option in self.options:
            if option == name or (isinstance(option, TuningItem) and option.name == name):
                return option
        return None

    def item(self, name: object) -> TuningItem | None:
        found = self.get_option_by_name(name)
        return found if isinstance(found, TuningItem) else None

    def details(self, depth: int = 0) -> str:
        """The tree below, an item a line."""
        plain = [str(o) for o in self.options if not isinstance(o, TuningItem)]
        line = f"{'  ' * depth}{self.item_type}: {self.name}{' = ' + ', '.join(plain) if plain else ''}"
        return "\n".join([line, *(o.details(depth + 1) for o in self.options if isinstance(o, TuningItem))])


def split_dtype(dtype: str) -> tuple[str, str]:
    """`uint8` to `("int8", "unsigned")`, `int8` to `("int8", "signed")`."""
    return (dtype[1:], "unsigned") if dtype.startswith("u") else (dtype, "signed")


class TuningSpace:
    """What a search chooses from. Immutable by use: nothing changes it once made."""

    def __init__(self, capabilities: Sequence[OpCapability], calib_sampling_sizes: Sequence[int]) -> None:
        self.capabilities = tuple(capabilities)
        self.calib_sampling_sizes = tuple(calib_sampling_sizes)
        self.by_name: Mapping[str, OpCapability] = {c.op.name: c for c in self.capabilities}
        self.op_items: dict[OpKey, TuningItem] = {_key(c): _op_item(c) for c in self.capabilities}
        sizes = TuningItem("calib_sampling_size", "calib_sampling_size", self.calib_sampling_sizes)
        self.root_item = TuningItem("root", "root", (sizes, *self.op_items.values()))
        self.op_type_wise_items: dict[str, list[TuningItem]] = {}
        for (_, type_), item in self.op_items.items():
            self.op_type_wise_items.setdefault(type_, []).append(item)
        self.quant_mode_wise_items = self._by_mode()
        self.ops_data_type: dict[OpKey, dict[Path, str]] = {_key(c): _data_types(c) for c in self.capabilities}
        self.ops_path_set: dict[OpKey, set[Path]] = {key: set(types) for key, types in self.ops_data_type.items()}
        self.ops_attr: dict[str, set[OpKey]] = {
            "activation": set(self.op_items),
            "weight": {_key(c) for c in self.capabilities if _has_weight(c)},
        }

    def __str__(self) -> str:
        return self.root_item.details()

    def _by_mode(self) -> dict[str, list[TuningItem]]:
        """Precisions precede modes; the order of ops is the capability's."""
        present = {mode for c in self.capabilities for mode in c.modes}
        order = [mode for mode in Mode if mode.is_precision and mode in present]
        order += [mode for mode in Mode if not mode.is_precision and mode in present]
        return {m.value: [self.op_items[_key(c)] for c in self.capabilities if m in c.modes] for m in order}

    def query_items_by_quant_mode(self, quant_mode: str) -> list[TuningItem]:
        """Items of the ops that can do the mode or precision; empty where none can."""
        return list(self.quant_mode_wise_items.get(quant_mode, ()))

    def query_quant_mode_item_by_full_path(self, op_name_type: OpKey, path: Path) -> TuningItem | None:
        """The item at `path` under the op; None where there is none."""
        item: TuningItem | None = self.op_items.get(op_name_type)
        for name in path:
            item = item.item(name) if item else None
        return item

    def query_item_option(self, op_name_type: OpKey, path: Path, method: tuple[str, str], value: str) -> bool | None:
        """Whether `value` is among the options of a method item; None where the op has no such item there."""
        item = self.query_quant_mode_item_by_full_path(op_name_type, path)
        found = item.item(method) if item else None
        return None if found is None else value in found.options

    def get_op_default_path_by_pattern(self, op_name_type: OpKey, pattern: str | tuple[str, ...]) -> dict[str, Path]:
        """`{"activation": path, "weight": path}`: the first path of each attribute that fits the pattern.

        A pattern is a mode (`static`), a precision (`fp32`), or a pair (`("static", "int8")`, `("precision", "fp32")`).
        """
        wanted = (pattern,) if isinstance(pattern, str) else tuple(pattern)
        if wanted[0] in {mode.value for mode in Mode if mode.is_precision}:
            wanted = (PRECISION, wanted[0])
        paths: dict[str, Path] = {}
        for path in self.ops_data_type[op_name_type]:
            if path[0] == wanted[0] and (len(wanted) == 1 or path[2] == wanted[1]):
                paths.setdefault(path[1], path)
        return paths

    def get_default_config(self, op_name_type: OpKey, mode: str) -> OpConfig:
        """First options of the op in a mode or precision. Raises `KeyError` for one that it cannot do."""
        capability = self.by_name[op_name_type[0]]
        return OpConfig.first(Mode(mode), capability.modes[Mode(mode)])


def _key(capability: OpCapability) -> OpKey:
    return capability.op.name, capability.op.type


def _has_weight(capability: OpCapability) -> bool:
    quantized = [options for mode, options in capability.modes.items() if not mode.is_precision]
    return all(any(attribute == "weight" for attribute, _ in options) for options in quantized)


def _op_item(capability: OpCapability) -> TuningItem:
    precisions = [mode.value for mode in capability.modes if mode.is_precision]
    modes = [_mode_item(mode, options) for mode, options in capability.modes.items() if not mode.is_precision]
    attributes = ("activation", "weight") if _has_weight(capability) else ("activation",)
    dtypes = tuple(TuningItem(precision, "data_type") for precision in precisions)
    high = TuningItem(PRECISION, "quant_mode", tuple(TuningItem(a, "attribute", dtypes) for a in attributes))
    return TuningItem(_key(capability), "op", (high, *modes) if precisions else tuple(modes))


def _mode_item(mode: Mode, options: Mapping[tuple[str, str], tuple[str, ...]]) -> TuningItem:
    return TuningItem(mode.value, "quant_mode", tuple(_attribute_items(options)))


def _attribute_items(options: Mapping[tuple[str, str], tuple[str, ...]]) -> Iterator[TuningItem]:
    for attribute in dict.fromkeys(a for a, _ in options):
        methods = tuple(
            TuningItem((a, item), "method", values)
            for (a, item), values in options.items()
            if a == attribute and item != "dtype"
        )
        types: dict[str, list[TuningItem]] = {}
        for dtype in options.get((attribute, "dtype"), ()):
            name, sign = split_dtype(dtype)
            types.setdefault(name, []).append(TuningItem(sign, "sign", methods))
        yield TuningItem(attribute, "attribute", tuple(TuningItem(n, "data_type", tuple(s)) for n, s in types.items()))


def _data_types(capability: OpCapability) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for mode, options in capability.modes.items():
        if mode.is_precision:
            for attribute in ("activation", "weight") if _has_weight(capability) else ("activation",):
                found[PRECISION, attribute, mode.value] = mode.value
            continue
        for (attribute, item), values in options.items():
            for dtype in values if item == "dtype" else ():
                found[(mode.value, attribute, *split_dtype(dtype))] = dtype
    return found
