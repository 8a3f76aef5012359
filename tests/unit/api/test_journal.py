"""Journal lines: what goes in comes out, nothing outgrows its ConfigMap, and no damage goes unnoticed."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantuner.api.errors import JournalError
from quantuner.api.journal import (
    ERROR_LIMIT,
    LABEL_LIMIT,
    MESSAGE_LIMIT,
    TRACEBACK_LIMIT,
    Failed,
    Finished,
    History,
    Launched,
    Outcome,
    Record,
    Trial,
    TrialState,
    decode,
    encode,
    fitting,
    line_key,
    lines_of,
)
from tests.unit.records import TIME, launched, told

CONFIGMAP_BYTES = 2**20  # the API server's bound on all keys and values of a ConfigMap
MAX_TRIALS = 2000  # the CRD's bound

anything = st.text(st.characters(codec=None))  # every code point, lone surrogates and separators included
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10_000)

trials = st.builds(
    Trial,
    index=counts,
    digest=st.text("0123456789abcdef", min_size=16, max_size=16),
    label=anything,
    state=st.sampled_from(TrialState),
    accuracy=st.none() | finite,
    objectives=st.dictionaries(st.sampled_from(["performance", "modelsize"]), finite),
    seconds=finite,
    rank=counts,
    error=anything,
    meets=st.booleans(),
    bound=st.booleans(),
    rows=st.lists(counts, max_size=2).map(tuple),
    running=counts,
    elapsed=finite,
)
hosts = st.lists(st.text("abc-.", max_size=20), max_size=4).map(tuple)
records = (
    trials
    | st.builds(
        Launched, search=st.just("5ea4c4"), model=st.just("30de1"), ops=counts, ranks=counts, hosts=hosts, time=anything
    ).filter(lambda record: record.time == fitting(record.time, 10_000))
    | st.builds(
        Finished,
        outcome=st.sampled_from(Outcome),
        best=st.none() | counts,
        accuracy=st.none() | finite,
        artifact=st.just("claim/models/digits"),
        time=st.just(TIME),
    )
    | st.builds(Failed, reason=st.just("TaskRaised"), message=anything, traceback=anything)
)


@given(records)
def test_a_record_comes_back_from_its_line_with_every_bit(record: Record) -> None:
    line = encode(record)
    assert decode(line) == record
    assert "\n" not in line
    assert line.encode().decode() == line  # a file and an API server take it


@given(trials)
def test_encoding_is_a_function_of_the_record_alone(trial: Trial) -> None:
    assert encode(decode(encode(trial))) == encode(trial)


@pytest.mark.parametrize(
    "letter",
    [
        pytest.param("a", id="a letter"),
        pytest.param('"', id="a quotation mark, which JSON spells with two bytes"),
        pytest.param("\0", id="a control character, which JSON spells with six"),
        pytest.param("é", id="two bytes of UTF-8"),
        pytest.param("界", id="three bytes of UTF-8"),
        pytest.param("🦀", id="four bytes of UTF-8"),
        pytest.param("\ud800", id="half a surrogate pair"),
    ],
)
@pytest.mark.parametrize("state", TrialState)
def test_the_longest_journal_fits_into_its_configmap(letter: str, state: TrialState) -> None:
    lengthy = -1.2345678901234567e-300
    complete = state is TrialState.COMPLETE
    longest = Trial(
        index=MAX_TRIALS,
        digest="f" * 16,
        label=letter * 1000,
        state=state,
        accuracy=lengthy if complete else None,
        objectives={"performance": 1234567.123456, "modelsize": 1234567.123456} if complete else {},
        seconds=1234567.123456,
        rank=1000,
        error="" if complete else letter * 1000,
        meets=True,
        running=1000,
        elapsed=12345678.123456,
    )
    end = Failed(reason="VerificationFailed", message=letter * 10_000, traceback=letter * 10_000, time=TIME)
    launch = launched(hosts=tuple(f"{'n' * 40}-worker-{i}" for i in range(100)))
    trial_bytes = len(encode(longest).encode()) + len(line_key(0))
    assert trial_bytes < 500
    around = sum(len(encode(record).encode()) + len(line_key(0)) for record in (launch, end))
    assert trial_bytes * (MAX_TRIALS + 1) + around < CONFIGMAP_BYTES


@given(anything, st.integers(3, 50))
def test_a_text_that_fits_is_kept_and_a_longer_one_is_cut_once(text: str, limit: int) -> None:
    fitted = fitting(text, limit)
    size = len(json.dumps(fitted, ensure_ascii=False).encode()) - 2
    assert size <= limit
    assert fitting(fitted, limit) == fitted
    if not fitted.endswith("…"):
        assert fitted == text.encode(errors="replace").decode()


def test_of_a_traceback_the_end_is_kept() -> None:
    failed = Failed(reason="TaskRaised", message="m" * 5000, traceback="x" * 9000 + "ValueError: here")
    assert failed.traceback.endswith("ValueError: here")
    assert failed.traceback.startswith("…")
    assert len(failed.traceback.encode()) <= TRACEBACK_LIMIT
    assert len(failed.message.encode()) <= MESSAGE_LIMIT


def test_a_label_and_an_error_within_their_limits_stay_as_they_are() -> None:
    trial = told(1, None, label="l" * LABEL_LIMIT, error="e" * ERROR_LIMIT)
    assert (trial.label, trial.error) == ("l" * LABEL_LIMIT, "e" * ERROR_LIMIT)


def test_a_field_of_a_later_version_is_left_out() -> None:
    assert decode('{"v":1,"op":"fail","reason":"r","message":"m","mood":"bad"}') == Failed(reason="r", message="m")


def test_what_is_no_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(told(1, math.nan))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("", "must be a JSON object", id="nothing"),
        pytest.param('{"v":1,"op":"tri', "must be a JSON object", id="a line cut short"),
        pytest.param("7", "must be a JSON object", id="a number"),
        pytest.param('["v","op"]', "must be a JSON object", id="a list"),
        pytest.param('{"op":"trial"}', "must be a JSON object with v and op", id="no version"),
        pytest.param('{"v":2,"op":"trial"}', "reads journal format 1", id="a later format"),
        pytest.param('{"v":1,"op":"pause"}', "found v=1 op='pause'", id="an unknown operation"),
        pytest.param('{"v":1,"op":[]}', r"found v=1 op=\[\]", id="an operation that is no word"),
        pytest.param('{"v":1,"op":"trial","index":1}', "a trial record with wrong fields", id="a field is missing"),
        pytest.param(
            '{"v":1,"op":"trial","index":1,"digest":"d","state":"well","accuracy":1.0}', "'well'", id="an unknown state"
        ),
        pytest.param('{"v":1,"op":"finish","best":1}', "a finish record with wrong fields", id="no outcome"),
        pytest.param('{"v":1,"op":"launch","hosts":3}', "a launch record with wrong fields", id="hosts are no list"),
        pytest.param("[" * 100_000, "must be a JSON object", id="lists without end"),
        pytest.param('{"v":' + "[" * 500 + "]" * 500 + ',"op":"trial"}', r"found v=\[\[.*\.\.\.", id="a deep version"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_refused_with_what_is_wrong(line: str, says: str) -> None:
    with pytest.raises(JournalError, match=says):
        decode(line)


LINES = {
    "trial": encode(told(1, 0.5, label="fp32", objectives={"performance": 0.1}, rows=(10,), seconds=0.5)),
    "launch": encode(launched(threads=2, cpu="AVX2")),
    "finish": encode(Finished(outcome=Outcome.EXHAUSTED, best=1, accuracy=0.5, artifact="model", time=TIME)),
    "fail": encode(Failed(reason="TaskRaised", message="a typo", traceback="Traceback")),
}


@pytest.mark.parametrize(
    ("op", "field", "spelt", "rule"),
    [
        ("trial", "seconds", '"x"', "seconds must be a finite number, not 'x'"),
        ("trial", "seconds", "null", "seconds must be a finite number, not None"),
        ("trial", "seconds", "true", "seconds must be a finite number, not True"),
        ("trial", "seconds", "9" * 400, "seconds must be a finite number, not 9999"),
        ("trial", "seconds", "9" * 5000, "must be a JSON object"),  # Python reads 4,300 digits
        ("trial", "seconds", "-Infinity", "seconds must be a finite number, not -inf"),
        ("trial", "accuracy", "NaN", "accuracy must be a finite number or null, not nan"),
        ("trial", "accuracy", "1e999", "accuracy must be a finite number or null, not inf"),
        ("trial", "index", "1.0", "index must be an integer of 64 bits, not 1.0"),
        ("trial", "running", "9" * 20, "running must be an integer of 64 bits"),
        ("trial", "label", '["x"]', r"label must be a text, not \['x'\]"),
        ("trial", "meets", "1", "meets must be true or false, not 1"),
        ("trial", "rows", '["x"]', "rows must be a list of integers"),
        ("trial", "rows", '"x"', "rows must be a list of integers"),
        ("trial", "objectives", '{"performance":NaN}', "objectives must be finite numbers by name"),
        ("trial", "objectives", "[1]", "objectives must be finite numbers by name"),
        ("trial", "state", '["complete"]', "state must be a text"),
        ("launch", "hosts", "[1]", "hosts must be a list of texts"),
        ("launch", "hosts", '"host"', "hosts must be a list of texts"),
        ("launch", "selection", "{}", "selection must be a text"),
        ("launch", "time", "0", "time must be a text"),
        ("finish", "best", "0.5", "best must be an integer of 64 bits or null"),
        ("finish", "accuracy", '"x"', "accuracy must be a finite number or null"),
        ("fail", "reason", '["x"]', "reason must be a text"),
        ("fail", "message", '{"a":1}', "message must be a text"),
    ],
)
def test_a_field_that_holds_something_else_is_refused(op: str, field: str, spelt: str, rule: str) -> None:
    line = json.dumps({**json.loads(LINES[op]), field: "@"}).replace('"@"', spelt)
    with pytest.raises(JournalError, match=rule):
        decode(line)


def test_an_integer_is_a_number_too() -> None:
    assert decode(LINES["trial"].replace('"accuracy":0.5', '"accuracy":1')) == decode(
        LINES["trial"].replace('"accuracy":0.5', '"accuracy":1.0')
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(
    st.sampled_from(["launch", "trial", "finish", "fail", "other"]), st.dictionaries(st.text(max_size=6), json_values)
)
def test_whatever_stands_in_a_line_the_answer_is_a_record_or_a_journal_error(op: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(JournalError):
        decode(json.dumps({**body, "v": 1, "op": op}))


@given(st.sampled_from(sorted(LINES)), st.data())
def test_whatever_stands_in_one_field_what_is_taken_can_be_written_again(op: str, data: st.DataObject) -> None:
    body = json.loads(LINES[op])
    field = data.draw(st.sampled_from(sorted(body.keys() - {"v", "op"})))
    with contextlib.suppress(JournalError):
        record = decode(json.dumps({**body, field: data.draw(json_values)}))
        assert decode(encode(record)) == record


# --- lines in a ConfigMap


@given(st.lists(st.text(), max_size=30))
def test_lines_come_back_from_their_keys_in_order(lines: list[str]) -> None:
    data = {line_key(number): line for number, line in enumerate(lines)}
    assert lines_of(dict(sorted(data.items(), reverse=True))) == lines


def test_lines_after_a_gap_are_not_yet_told() -> None:
    assert lines_of({line_key(0): "a", line_key(2): "c"}) == ["a"]


@pytest.mark.parametrize("data", [None, {}, {"other": "x"}])
def test_a_configmap_without_lines_has_none(data: dict[str, str] | None) -> None:
    assert lines_of(data) == []


def test_keys_sort_as_the_lines_do() -> None:
    keys = [line_key(number) for number in range(0, 12_000, 7)]
    assert keys == sorted(keys)


# --- the history they tell

BEGUN = (launched(), told(0, 0.9))
FAILURE = Failed(reason="TaskRaised", message="a typo")
FINISHED = Finished(outcome=Outcome.EXHAUSTED, best=1, accuracy=0.5, artifact="model", time=TIME)


def test_replaying_the_lines_of_a_history_gives_that_history() -> None:
    live = History()
    trials = [told(0, 0.9), told(1, None), told(2, 0.8), told(3, 0.85)]
    told_in_order: list[Record] = [launched(), *trials[:3], launched(ranks=3), trials[3], FINISHED]
    for record in told_in_order:
        live.apply(record)
    assert History.replay(encode(record) for record in told_in_order) == live


@pytest.mark.parametrize(
    ("before", "refused", "says"),
    [
        pytest.param([], told(1, 0.5), "trial 1 told, but the next index is 0", id="a trial is skipped"),
        pytest.param([told(0, 0.5)], told(0, 0.5), "trial 0 told, but the next index is 1", id="told twice"),
        pytest.param([FINISHED], told(0, 0.5), "the journal has ended; refused a further trial", id="after the end"),
        pytest.param([FINISHED], launched(), "refused a further launch", id="launched after the end"),
        pytest.param([FINISHED], FINISHED, "refused a further finish", id="ended twice"),
        pytest.param([*BEGUN], launched(search="other"), "the resource was '5ea4c4' and is now 'other'", id="search"),
        pytest.param([*BEGUN], launched(model="other"), "weights. was '30de1' and is now 'other'", id="model"),
        pytest.param([*BEGUN], launched(ops=9), "number of quantizable ops was 4 and is now 9", id="ops"),
        pytest.param(
            [*BEGUN],
            launched(precisions="bf16"),
            "beside fp32 .precisions that rank 0's processor multiplies in. was '' and is now 'bf16'. Restore it",
            id="precisions",
        ),
        pytest.param([*BEGUN], launched(code="other"), "the task's code was '' and is now 'other'", id="code"),
        pytest.param([*BEGUN], launched(ranges="other"), "no shuffling. was '' and is now 'other'", id="ranges"),
        pytest.param(
            [*BEGUN], launched(versions="torch 3"), "the libraries was '' and is now 'torch 3'", id="versions"
        ),
        pytest.param(
            [launched(threads=2), told(0, 0.9)],
            launched(threads=4),
            r"threads of a rank \(.*\) was 2 and is now 4",
            id="threads",
        ),
        pytest.param(
            [launched(cpu="AVX2"), told(0, 0.9)], launched(cpu="AVX512"), "was 'AVX2' and is now 'AVX512'", id="cpu"
        ),
        pytest.param([FAILURE], told(0, 0.5), "the journal has ended; refused a further trial", id="after a failure"),
    ],
)
def test_a_record_that_contradicts_the_history_is_refused(before: list[Record], refused: Record, says: str) -> None:
    history = History()
    for record in before:
        history.apply(record)
    with pytest.raises(JournalError, match=says):
        history.apply(refused)


def test_a_record_that_does_not_say_threads_and_cpu_is_continued() -> None:
    """One of an earlier version; what goes on is then held to what it says itself."""
    history = History()
    for record in (*BEGUN, launched(threads=2, cpu="AVX2"), told(1, 0.8)):
        history.apply(record)
    with pytest.raises(JournalError, match="was 2 and is now 3"):
        history.apply(launched(threads=3, cpu="AVX2"))


def test_what_changes_before_the_first_result_starts_the_search_anew() -> None:
    history = History()
    history.apply(launched())
    history.apply(launched(code="corrected"))
    history.apply(told(0, 0.9))
    assert history.launches[-1].code == "corrected"


def test_a_launch_goes_on_after_a_failure_and_keeps_what_was_told() -> None:
    history = History()
    for record in (*BEGUN, FAILURE, FAILURE, launched(), told(1, 0.8)):
        history.apply(record)
    assert history.end is None
    assert history.failures == 2
    assert [t.index for t in history.trials] == [0, 1]


def test_another_number_of_ranks_continues_the_same_search() -> None:
    history = History()
    history.apply(launched())
    history.apply(launched(ranks=8, hosts=("elsewhere",), time="2026-02-02T00:00:00Z"))
    assert len(history.launches) == 2


def test_the_baseline_is_no_try() -> None:
    history = History(trials=[told(0, 0.9), told(1, 0.5)])
    assert history.baseline is history.trials[0]
    assert [trial.index for trial in history.tried] == [1]
    assert (History().baseline, History().tried) == (None, [])
