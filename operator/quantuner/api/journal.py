"""The record of a search: append-only lines, one reducer for live and replay.

A line is one JSON object: `v` (format version), `op` (kind of record) and the record's fields. Rank 0
writes them while ranks run, the launcher's supervisor in between; nobody ever changes one. On a
cluster a line is a key of a ConfigMap, `line_key(n)` for line n from 0.

Size: a ConfigMap holds 1 MiB. Records cut their texts to limits that count bytes as a line spells them, so
that a trial stays under 500 bytes in any language and 2,000 trials (the CRD's bound on maxTrials) fit.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from quantuner.api import names
from quantuner.api.errors import JournalError
from quantuner.api.kinds import Kind, kind_of

FORMAT = 1
HOSTS_LIMIT = 32  # hosts that a launch names: a wide search must not fill its journal by relaunching
LABEL_LIMIT = 60  # bytes, as the limits below
ERROR_LIMIT = 160
LEFT_OUT_LIMIT = 240
MESSAGE_LIMIT = 2000  # of the one Failed record
NOT_KEPT = "not kept: spec.output is not set"  # artifact of a search whose model ended with its pod
TRACEBACK_LIMIT = 4000  # of the one Failed record; its end is kept


class TrialState(StrEnum):
    COMPLETE = "complete"
    FAILED = "failed"


class Outcome(StrEnum):
    """Why a finished search ended."""

    TARGET_MET = "target-met"
    EXHAUSTED = "exhausted"  # the strategy has no further configuration
    MAX_TRIALS = "max-trials"
    TIMEOUT = "timeout"
    STOPPED = "stopped"  # by a stop rule of the user's own strategy


class Selection(StrEnum):
    """Which of the trials that meet the criterion wins."""

    FIRST = "first"  # the lowest index
    CHEAPEST = "cheapest"  # the lowest cost, of a strategy that goes on to quantize more after its first success
    OBJECTIVES = "objectives"  # the best objectives, of a search with a time limit or weighted objectives


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Ranks were started; the first launch begins the search, a later one resumes it."""

    search: str
    """`search_digest` of the resource."""
    model: str
    """Digest of the captured model's ops and weights."""
    code: str = ""
    """Digest of the task's own modules."""
    ranges: str = ""
    """Digest of what calibration collected."""
    versions: str = ""
    """Of the libraries that compute the accuracies."""
    precisions: str = ""
    """Precisions beside fp32 that ops may fall back to: those asked for that rank 0's processor is fast at."""
    left_out: str = ""
    """Those asked for that it is not fast at, and why."""
    ops: int
    """Quantizable ops."""
    ranks: int
    """Processes, rank 0 included."""
    hosts: tuple[str, ...]
    """Host of each rank, the first HOSTS_LIMIT of them."""
    time: str
    """RFC 3339, UTC."""
    selection: Selection = Selection.FIRST
    """How the winner is chosen."""
    threads: int = 0
    """Threads that each rank computes with; 0 where a record does not say."""
    cpu: str = ""
    """Instruction set that torch computes with; empty where a record does not say."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "left_out", fitting(self.left_out, LEFT_OUT_LIMIT))

    @property
    def identity(self) -> list[Any]:
        """What must not change between results."""
        return [getattr(self, name) for name in _IDENTITY]

    @property
    def measuring(self) -> list[Any]:
        """What decides a result, whatever is measured beside the accuracy included: with a time limit, which may change
        between launches, models are converted as a whole so that their seconds compare."""
        return [*self.identity, self.selection]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration told. Index 0 is the fp32 baseline."""

    index: int
    digest: str
    """Digest of the configuration."""
    label: str = ""
    """The configuration for people, cut to LABEL_LIMIT."""
    state: TrialState
    accuracy: float | None = None
    """None if and only if the trial failed."""
    bound: bool = False
    """Whether the trial was abandoned: `accuracy` is what the true one was proven not to exceed (or undercut)."""
    rows: tuple[int, ...] = ()
    """Of the baseline: rows that each built-in metric counted; empty where the user's own function judges."""
    objectives: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    """Wall seconds: quantizing and evaluating."""
    rank: int = 0
    error: str = ""
    meets: bool = False
    """Whether the accuracy meets the criterion."""
    cost: float = 1.0
    """Modelled latency of the quantizable ops, relative to fp32. Never measured, so always the same."""
    size: float = 0.0
    """Modelled MiB of parameters and buffers."""
    running: int = 0
    """Trials under way on other ranks when this one was told."""
    elapsed: float = 0.0
    """Seconds of searching when it was told, those of earlier launches included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", fitting(self.label, LABEL_LIMIT))
        object.__setattr__(self, "error", fitting(self.error, ERROR_LIMIT))


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The search ended by its own rules."""

    outcome: Outcome
    best: int | None
    """Index of the winner, or of the most accurate trial where none meets the criterion."""
    accuracy: float | None
    """Accuracy of the saved and reloaded model of `best`."""
    artifact: str
    time: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The search cannot go on."""

    reason: str
    message: str
    traceback: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", fitting(self.message, MESSAGE_LIMIT))
        object.__setattr__(self, "traceback", fitting(self.traceback[::-1], TRACEBACK_LIMIT)[::-1])


Record = Launched | Trial | Finished | Failed
_OPS: dict[str, type[Record]] = {"launch": Launched, "trial": Trial, "finish": Finished, "fail": Failed}
_NAMES = {cls: op for op, cls in _OPS.items()}
_FIELDS = {op: {f.name: kind_of(str(f.type)) for f in dataclasses.fields(cls)} for op, cls in _OPS.items()}


def fitting(text: str, limit: int) -> str:
    """`text` as a journal line can hold it: at most `limit` bytes of JSON, the end cut and marked.

    Half of a surrogate pair (Python's stand-in for an undecodable byte of a file name) becomes a question mark.
    """
    text = text[: limit + 1].encode(errors="replace").decode()  # a character has at least a byte
    if _size(text) <= limit:
        return text
    sizes = [_size(character) for character in text]
    room, kept = limit - len("…".encode()), 0
    while sizes[kept] <= room:
        room -= sizes[kept]
        kept += 1
    return text[:kept] + "…"


def _size(text: str) -> int:
    """Bytes that it has in a line."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def encode(record: Record) -> str:
    """One line, without its newline. Floats keep every bit (shortest repr that round-trips)."""
    fields = {
        f.name: getattr(record, f.name)
        for f in dataclasses.fields(record)
        if f.default is dataclasses.MISSING or getattr(record, f.name) != f.default
    }
    return json.dumps(
        {"v": FORMAT, "op": _NAMES[type(record)], **fields},
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def decode(line: str) -> Record:
    """Raises `JournalError` for a line that is damaged or of another format.

    Fields that this version does not know are left out: a later one may have added them. One that would mislead those
    who do not know it comes with another format.
    """
    try:
        body: dict[str, Any] = json.loads(line)
        version, op = body.pop("v"), body.pop("op")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise JournalError(f"a journal line must be a JSON object with v and op, not {line[:80]!r}") from error
    if version != FORMAT or not isinstance(op, str) or op not in _OPS:
        raise JournalError(
            f"this version reads journal format {FORMAT} with {', '.join(_OPS)}; found v={reprlib.repr(version)} "
            f"op={reprlib.repr(op)}. "
            "Continue the search with the version that wrote it, or start a new one"
        )
    try:
        return _record(op, _known(body, _FIELDS[op]))
    except (KeyError, TypeError, ValueError) as error:
        raise JournalError(f"a {op} record with wrong fields ({error}): {line[:80]!r}") from error


def _known(body: dict[str, Any], fields: Mapping[str, Kind]) -> dict[str, Any]:
    """The fields that this version knows. Raises `ValueError` for one that holds something else than it should."""
    known = {}
    for name, value in body.items():
        if name in fields:
            if not fields[name].holds(value):
                raise ValueError(f"{name} must be {fields[name].name}, not {reprlib.repr(value)}")
            known[name] = value
    return known


def _record(op: str, body: dict[str, Any]) -> Record:
    if op == "trial":
        return Trial(**{**body, "state": TrialState(body["state"]), "rows": tuple(body.get("rows", ()))})
    if op == "finish":
        return Finished(**{**body, "outcome": Outcome(body["outcome"])})
    if op == "launch":
        selection = Selection(body.get("selection", Selection.FIRST))
        return Launched(**{**body, "hosts": tuple(body["hosts"]), "selection": selection})
    return Failed(**body)


def line_key(number: int) -> str:
    """ConfigMap key of line `number`; keys sort as the lines do."""
    return f"{number:06d}"


def lines_of(data: Mapping[str, str] | None) -> list[str]:
    """Journal lines of a ConfigMap's data, in order; stops before the first gap."""
    found = data or {}
    lines: list[str] = []
    while line_key(len(lines)) in found:
        lines.append(found[line_key(len(lines))])
    return lines


_IDENTITY = {
    "search": "the resource",
    "model": "the model (its ops and weights)",
    "ops": "the number of quantizable ops",
    "code": "the task's code",
    "ranges": "what calibration collects (its data must be the same at each pass: no shuffling)",
    "versions": "the libraries",
    "threads": "the number of threads of a rank (spec.threadsPerRank, or torch.set_num_threads in a script)",
    "cpu": "the CPU's instruction set, as torch names it",
    "precisions": "what ops may fall back to beside fp32 (precisions that rank 0's processor multiplies in)",
}
"""Fields of a launch that must not change between results, and what they are."""
_NOT_ALWAYS_SAID = ("threads", "cpu")
"""Of these, those that records of an earlier version lack."""


@dataclass
class History:
    """What a journal says, built record by record. Only `apply` changes it."""

    launches: list[Launched] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    end: Finished | Failed | None = None
    failures: int = 0
    """Failed records so far; a launch may follow one, once somebody has acted."""

    @classmethod
    def replay(cls, lines: Iterable[str]) -> History:
        history = cls()
        for line in lines:
            history.apply(decode(line))
        return history

    def apply(self, record: Record) -> None:
        """Raises `JournalError` where the record contradicts what was told before."""
        reopens = isinstance(self.end, Failed) and isinstance(record, (Launched, Failed))
        if self.end is not None and not reopens:
            raise JournalError(f"the journal has ended; refused a further {_NAMES[type(record)]} record")
        if isinstance(record, Launched):
            self._launch(record)
        elif isinstance(record, Trial):
            if record.index != len(self.trials):
                raise JournalError(f"trial {record.index} told, but the next index is {len(self.trials)}")
            self.trials.append(record)
        else:
            self.end = record
            self.failures += isinstance(record, Failed)

    def _launch(self, record: Launched) -> None:
        if self.trials and self.launches:  # before the first result there is nothing that a change could falsify
            last = self.launches[-1]
            for name, what in _IDENTITY.items():
                unsaid = name in _NOT_ALWAYS_SAID and not getattr(last, name)
                if getattr(last, name) != getattr(record, name) and not unsaid:
                    raise JournalError(
                        f"the {len(self.trials)} results in the journal are of another search: {what} was "
                        f"{getattr(last, name)!r} and is now {getattr(record, name)!r}. Restore it, or search anew: "
                        "under another name on a cluster, with --fresh of `quantuner run`, in another workspace "
                        "(quantuner.options.set_workspace) with fit"
                    )
        self.launches.append(record)
        self.end = None

    @property
    def baseline(self) -> Trial | None:
        return self.trials[0] if self.trials else None

    @property
    def tried(self) -> list[Trial]:
        """Trials but the baseline."""
        return self.trials[names.BASELINE_TRIAL + 1 :]
