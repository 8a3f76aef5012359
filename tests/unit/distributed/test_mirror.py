"""What a search tells reaches the cluster, through any absence of the API server; a new pod goes on from there."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from quantuner.api.described import described
from quantuner.api.journal import encode, line_key, lines_of
from quantuner.api.names import ANSWERED_KEY, LOSSES_KEY
from quantuner.api.trial import TrialResult
from quantuner.distributed.answered import ANSWERED_FILE, Answered
from quantuner.distributed.configmap import ApiRefusedError, ConfigMaps
from quantuner.distributed.held import SupersededError
from quantuner.distributed.journal import BEST_FILE, JOURNAL_FILE, JournalFolder
from quantuner.distributed.losses import LOSSES_FILE, Losses
from quantuner.distributed.mirror import LINES_PER_PATCH, Mirror
from tests.unit.distributed.api_server import ApiServer
from tests.unit.records import launched, told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def mirror(folder: Path, configmaps: ConfigMaps) -> Mirror:
    return Mirror(folder, configmaps, "journal", "result")


def searched(folder: Path, trials: range) -> list[str]:
    """Tells these trials into the folder's journal, with a launch before the first, and gives all lines."""
    journal = JournalFolder(folder)
    if not journal.history.launches:
        journal.append(launched())
    for index in trials:
        journal.describe_best({"trial": index})
        journal.append(told(index, 0.5))
    journal.close()
    return (folder / JOURNAL_FILE).read_text().splitlines()


def test_lines_arrive_in_order_and_the_best_configuration_before_them(
    api: ApiServer, mirror: Mirror, folder: Path
) -> None:
    mirror.restore()
    mirror.start()
    lines = searched(folder, range(3))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert api.maps["result"] == {"best.yaml": (folder / BEST_FILE).read_text()}
    assert api.patches[0][0] == "result"


def test_one_that_is_told_to_stop_does_not_wait_for_the_server(mirror: Mirror, folder: Path, api: ApiServer) -> None:
    api.faults.extend([503] * 100)
    stop = threading.Event()
    stop.set()
    assert not mirror.restore(stop)
    assert not folder.exists()


def test_lines_told_while_it_runs_are_added_and_not_sent_again(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    mirror.restore()
    mirror.start()
    searched(folder, range(2))
    api.wait_until("journal", 3)
    lines = searched(folder, range(2, 4))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    sent = [key for name, keys in api.patches if name == "journal" for key in keys]
    assert sent == [line_key(number) for number in range(len(lines))]


def test_a_line_being_written_waits_for_its_end(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    folder.mkdir()
    line = encode(launched())
    (folder / JOURNAL_FILE).write_text(f"{line}\n{line[:20]}")
    mirror.restore()
    mirror.start()
    mirror.finish()
    assert api.maps["journal"] == {"000000": line}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([500], id="an error at the first patch"),
        pytest.param([200, 503], id="an error between best and journal"),
        pytest.param(["hang up", 429], id="two absences of different kinds"),
    ],
)
def test_everything_arrives_after_failures(
    api: ApiServer, mirror: Mirror, folder: Path, faults: list[int | str]
) -> None:
    lines = searched(folder, range(3))
    mirror.restore()
    api.faults.extend(faults)
    mirror.start()
    api.wait_until_faults_are_over()
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_everything_arrives_after_an_absence_that_outlasts_the_search(
    api: ApiServer, mirror: Mirror, folder: Path
) -> None:
    mirror.restore()
    mirror.start()
    searched(folder, range(2))
    api.wait_until("journal", 3)
    api.close()
    lines = searched(folder, range(2, 5))
    api.reopen()
    api.faults.append(500)
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_a_refusal_is_logged_at_once_and_raised_at_the_end(
    api: ApiServer, mirror: Mirror, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.restore()
    searched(folder, range(2))
    api.faults.append(413)
    mirror.start()
    with pytest.raises(ApiRefusedError, match="413 made to fail with 413"):
        mirror.finish()
    assert "the journal no longer reaches the cluster" in caplog.text


@pytest.mark.parametrize("status", [413, 422])
@pytest.mark.parametrize("summary_too", [False, True])
def test_a_best_configuration_that_is_refused_keeps_nothing_else_from_the_cluster(
    api: ApiServer, mirror: Mirror, folder: Path, caplog: pytest.LogCaptureFixture, status: int, summary_too: bool
) -> None:
    mirror.restore()
    best = {"trial": 1, "summary": {"defaults": {}, "exceptions": {}}, "config": {"ops": {}}}
    lines = searched(folder, range(2))
    (folder / BEST_FILE).write_text(yaml.safe_dump(best, sort_keys=False))
    api.faults.extend([status] * (1 + summary_too))
    mirror.start()
    api.wait_until("journal", len(lines))
    assert ("best.yaml" in api.maps["result"]) != summary_too
    assert caplog.text.count("best.yaml reaches the cluster without its config") == 1
    if not summary_too:
        assert described(api.maps["result"]["best.yaml"]) == (1, best["summary"])
        assert "config" not in yaml.safe_load(api.maps["result"]["best.yaml"])
    lines = searched(folder, range(2, 4))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert api.maps["result"]["best.yaml"] == (folder / BEST_FILE).read_text()  # a shorter one


def test_a_journal_that_somebody_deleted_is_sent_again_whole(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    mirror.restore()
    lines = searched(folder, range(3))
    mirror.start()
    api.wait_until("journal", len(lines))
    api.create_anew("journal")
    lines = searched(folder, range(3, 5))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


@pytest.mark.parametrize("deleted", [["journal"], ["result"], ["journal", "result"]])
def test_what_somebody_deleted_after_the_last_line_is_there_at_the_end(
    api: ApiServer, mirror: Mirror, folder: Path, deleted: list[str]
) -> None:
    mirror.restore()
    lines = searched(folder, range(3))
    mirror.start()
    api.wait_until("journal", len(lines))
    for name in deleted:
        api.create_anew(name)
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert api.maps["result"] == {"best.yaml": (folder / BEST_FILE).read_text()}


def test_a_page_instead_of_an_answer_is_an_absence(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    lines = searched(folder, range(3))
    api.faults.append("<html>sign in first</html>")
    mirror.restore()
    api.faults.append("<html>sign in first</html>")
    mirror.start()
    api.wait_until_faults_are_over()
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_a_change_by_somebody_else_hinders_nobody(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    mirror.restore()
    api.touch("journal")
    api.touch("result")
    lines = searched(folder, range(3))
    mirror.start()
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_of_two_launchers_the_later_one_writes_and_the_other_one_is_told(
    api: ApiServer, folder: Path, tmp_path: Path, configmaps: ConfigMaps, caplog: pytest.LogCaptureFixture
) -> None:
    told_to_stop = threading.Event()
    first = Mirror(folder, configmaps, "journal", "result", told_to_stop.set)
    first.restore()
    first.start()
    lines = searched(folder, range(2))
    api.wait_until("journal", len(lines))
    anew = tmp_path / "another pod"
    second = Mirror(anew, configmaps, "journal", "result")
    second.restore()
    searched(folder, range(2, 5))
    assert told_to_stop.wait(30)
    with pytest.raises(SupersededError, match=r"ConfigMap result is now written by .*; this one ends"):
        first.finish()
    assert "another launcher of this search was started" in caplog.text
    second.start()
    lines = searched(anew, range(2, 3))
    second.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_a_new_pod_goes_on_from_the_cluster(
    api: ApiServer, folder: Path, tmp_path: Path, configmaps: ConfigMaps
) -> None:
    first = Mirror(folder, configmaps, "journal", "result")
    first.restore()
    first.start()
    searched(folder, range(3))
    first.finish()
    anew = tmp_path / "another pod"
    second = Mirror(anew, configmaps, "journal", "result")
    second.restore()
    assert (anew / JOURNAL_FILE).read_bytes() == (folder / JOURNAL_FILE).read_bytes()
    assert (anew / BEST_FILE).read_bytes() == (folder / BEST_FILE).read_bytes()
    before = len(api.patches)
    second.start()
    lines = searched(anew, range(3, 4))
    second.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert api.patches[before:] == [("result", ["best.yaml"]), ("journal", [line_key(4)])]


def test_a_pod_that_is_ahead_of_the_cluster_keeps_its_own(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    lines = searched(folder, range(4))
    api.maps["journal"] = {line_key(i): lines[i] for i in range(2)}
    mirror.restore()
    assert (folder / JOURNAL_FILE).read_text().splitlines() == lines
    mirror.start()
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines


def test_a_long_journal_is_sent_in_several_patches(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    folder.mkdir()
    lines = [encode(launched()), *(encode(told(index, 0.5)) for index in range(LINES_PER_PATCH + 10))]
    (folder / JOURNAL_FILE).write_text("".join(f"{line}\n" for line in lines))
    mirror.restore()
    mirror.start()
    mirror.finish()
    assert [len(keys) for _, keys in api.patches] == [LINES_PER_PATCH, 11]
    assert lines_of(api.maps["journal"]) == lines


# --- results that wait to be told


def kept(folder: Path, *indices: int) -> str:
    """Keeps these trials' results as rank 0 does, and gives the file's text."""
    answered = Answered(folder)
    answered.begin("this search")
    answered.expect(dict.fromkeys(indices, "a digest"))
    answered.keep({index: (TrialResult(accuracy=0.5, seconds=60.0), 1) for index in indices}, told=0)
    return (folder / ANSWERED_FILE).read_text()


def test_a_new_pod_knows_what_waited_in_the_one_before(
    api: ApiServer, folder: Path, tmp_path: Path, configmaps: ConfigMaps
) -> None:
    first = Mirror(folder, configmaps, "journal", "result")
    first.restore()
    searched(folder, range(2))
    text = kept(folder, 3, 4)
    first.start()
    first.finish()
    assert api.maps["result"][ANSWERED_KEY] == text
    anew = tmp_path / "another pod"
    second = Mirror(anew, configmaps, "journal", "result")
    second.restore()
    assert (anew / ANSWERED_FILE).read_text() == text
    before = len(api.patches)
    second.start()
    second.finish()
    assert api.patches[before:] == []


def test_a_pod_that_is_ahead_keeps_what_waits_in_it(api: ApiServer, mirror: Mirror, folder: Path) -> None:
    searched(folder, range(2))
    text = kept(folder, 3, 4)
    api.maps["result"][ANSWERED_KEY] = "older"
    mirror.restore()
    assert (folder / ANSWERED_FILE).read_text() == text
    mirror.start()
    mirror.finish()
    assert api.maps["result"][ANSWERED_KEY] == text


def test_a_server_that_refuses_what_waits_has_the_journal_all_the_same(
    api: ApiServer, mirror: Mirror, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.restore()
    lines = searched(folder, range(2))
    kept(folder, 3, 4)
    api.faults.extend([200, 200, 413])
    mirror.start()
    api.wait_until_faults_are_over()
    lines = searched(folder, range(2, 3))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert ANSWERED_KEY not in api.maps["result"]
    assert caplog.text.count("answered.jsonl no longer reaches the cluster") == 1


def test_a_new_pod_knows_which_trials_took_ranks_with_them(
    api: ApiServer, folder: Path, tmp_path: Path, configmaps: ConfigMaps
) -> None:
    first = Mirror(folder, configmaps, "journal", "result")
    first.restore()
    searched(folder, range(2))
    Losses(folder).record(3, 1)
    first.start()
    first.finish()
    assert api.maps["result"][LOSSES_KEY] == (folder / LOSSES_FILE).read_text()
    anew = tmp_path / "another pod"
    second = Mirror(anew, configmaps, "journal", "result")
    second.restore()
    assert Losses(anew).known == {3: 1}
    before = len(api.patches)
    second.start()
    second.finish()
    assert api.patches[before:] == []


# --- files that cannot be read


@pytest.fixture
def warned() -> Iterator[threading.Event]:
    """Set when the mirror has logged that it tries again."""
    event, handler = threading.Event(), logging.Handler()

    def see(record: logging.LogRecord) -> bool:
        if "not flushed this time" in record.getMessage():
            event.set()
        return False

    handler.addFilter(see)
    logger = logging.getLogger("quantuner.distributed.mirror")
    logger.addHandler(handler)
    yield event
    logger.removeHandler(handler)


@pytest.mark.parametrize("name", [JOURNAL_FILE, BEST_FILE, ANSWERED_FILE, LOSSES_FILE])
def test_a_file_that_cannot_be_read_once_is_read_the_next_time(
    api: ApiServer, mirror: Mirror, folder: Path, name: str, warned: threading.Event
) -> None:
    mirror.restore()
    (folder / name).mkdir(parents=True)  # no file, for now: reading fails
    mirror.start()
    assert warned.wait(30)
    (folder / name).rmdir()
    lines = searched(folder, range(3))
    mirror.finish()
    assert lines_of(api.maps["journal"]) == lines
    assert api.maps["result"][BEST_FILE] == (folder / BEST_FILE).read_text()


def test_a_file_that_cannot_be_read_at_the_end_either_is_an_error(mirror: Mirror, folder: Path) -> None:
    mirror.restore()
    (folder / BEST_FILE).mkdir(parents=True)
    mirror.start()
    with pytest.raises(IsADirectoryError):
        mirror.finish()
