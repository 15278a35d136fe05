"""Small made-up tasks of somebody's own: pictures of three birds in folders."""

import numpy as np
import pytest
from vtab import jpeg, picture

from idat_tune import data, tasks
from idat_tune.errors import BadInput

BIRDS = ("crow", "owl", "wren")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A store of this test's own; tasks that it makes known are forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(tasks, "_BY_KEY", dict(tasks._BY_KEY))
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def fill(folder, count, label=0, seed=0):
    """Different images in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, label])
    for i in range(count):
        (folder / f"{i:03d}.jpg").write_bytes(jpeg(picture(rng, label, 3, 16)))
    return folder


def classes_of(folder, count, seed=0):
    for label, name in enumerate(BIRDS):
        fill(folder / name, count, label, seed)
    return folder


def sizes(task):
    return task.train, task.val, task.test


def refused(path, what, **options):
    with pytest.raises(BadInput, match=what) as failure:
        data.import_(path, ["birds"], **options)
    assert "\n" not in str(failure.value)
