"""The recorder of learning curves, on a handful of real runs."""

from itertools import islice

import pytest

from benchmarks import record
from idat_tune import space
from idat_tune.replay import table


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A table of the first two runs, one of them kept before the other was asked for."""
    path = tmp_path_factory.mktemp("record") / "curves.parquet"
    record.record(path, islice(record.wanted(1), 1), processes=1)
    first = path.read_bytes()
    record.record(path, islice(record.wanted(1), 2), processes=1)
    return path, first


def test_the_same_points_come_first_however_many_are_asked_for():
    searched = space.load(record.SPACE)
    assert record.points(searched, 40)[:10] == record.points(searched, 10)


def test_both_tasks_are_recorded_at_the_same_points_and_three_folds_come_before_five():
    jobs = list(record.wanted(4))
    assert len(jobs) == (3 + 4) * 5 * 2
    assert {job.fold for job in jobs[: len(jobs) * 3 // 5]} == {0, 1, 2}
    per_task = [[(j.config, j.changes) for j in jobs if j.task == t and "random" in j.config] for t in record.TASKS]
    assert per_task[0] == per_task[1]


def test_a_recording_holds_every_epoch_and_the_test_split_at_the_end(recording):
    path, _ = recording
    first, second = table.read(path)
    assert (first.task, first.config, first.fold, second.fold) == ("digits", "default", 0, 1)
    assert len(first.val_accuracy) == len(first.val_loss) == 10
    assert first.val_accuracy[-1] > 0.9
    assert first.test_accuracy > 0.9
    assert first.point["optim.lr"] == 1e-2
    assert "adapter.scale" not in first.point, "sequential adapters have no scale, so it was not searched"


def test_a_rerun_keeps_what_is_there(recording):
    path, before = recording
    assert not record.lines(path).exists()
    (kept,) = [run for run in table.read(path) if run.fold == 0]
    path.with_name("before.parquet").write_bytes(before)
    assert [kept] == table.read(path.with_name("before.parquet"))


def test_a_line_that_was_cut_short_is_recorded_again(recording, tmp_path):
    path, _ = recording
    copy = tmp_path / "curves.parquet"
    copy.write_bytes(path.read_bytes())
    record.lines(copy).write_text('{"task": "digits", "conf')
    assert len(record.kept(copy)) == 2
