"""Predictions: a Parquet file per run, in a folder that any reader of Parquet takes for one table."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from idat_tune import predictions, tasks
from idat_tune.predictions import Predictions, Run


def some(trial, classes=3, images=5, teacher=True, **about):
    rng = np.random.default_rng(len(trial))
    run = Run(**{"trial": trial, "stage": "confirm", "contender": "a", "fold": 1, "seed": 4, **about})
    labels = rng.integers(classes, size=images)
    logits = [rng.standard_normal((images, classes)).astype("float32") for _ in range(2)]
    return Predictions(run, np.arange(images) * 3, labels, logits[0], logits[1] if teacher else None)


def same(one, other):
    assert one.run == other.run
    for name in ("images", "labels", "student"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert (one.teacher is None) == (other.teacher is None)
    assert one.teacher is None or np.array_equal(one.teacher, other.teacher)


def test_what_is_kept_is_read_as_it_was_and_the_folder_is_one_table(tmp_path):
    runs = [some("b"), some("a", teacher=False), some("final-0-c", stage="final", fold=None, contender=None)]
    for found in runs:
        predictions.keep(tmp_path, found.run.trial, predictions.encoded("digits", found))
    for found, wanted in zip(predictions.read(tmp_path), [runs[1], runs[0], runs[2]], strict=True):
        same(found, wanted)
        assert (found.hits == (found.student.argmax(axis=1) == found.labels)).all()
    table = pq.read_table(tmp_path / predictions.FOLDER)
    assert table.num_rows == 15
    assert set(table["trial"].to_pylist()) == {"a", "b", "final-0-c"}


def test_a_run_that_is_kept_again_takes_the_place_of_the_first(tmp_path):
    for images in (5, 9):
        predictions.keep(tmp_path, "a", predictions.encoded("digits", some("a", images=images)))
    (found,) = predictions.read(tmp_path)
    assert len(found.labels) == 9
    assert [path.name for path in (tmp_path / predictions.FOLDER).iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(("task", "number"), [("digits", "float"), ("sun397", "halffloat")])
def test_where_the_test_is_large_all_of_a_search_is_in_half_precision(tmp_path, task, number):
    found = some("a", classes=tasks.get(task).classes)
    predictions.keep(tmp_path, "a", predictions.encoded(task, found))
    assert str(pq.read_schema(tmp_path / predictions.FOLDER / "a.parquet").field("logits").type.value_type) == number
    (read,) = predictions.read(tmp_path)
    assert np.allclose(read.student, found.student, atol=2e-3)
