"""A task's images as files again: what is written is what was there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from idat_tune import data, tasks
from idat_tune.cli.commands import app
from idat_tune.data import exporting
from idat_tune.errors import BadInput


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A task of classes with names that no file system takes as they are, and where its images came from."""
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    random = np.random.default_rng(0)
    (tmp_path / "i").mkdir()
    lines = ["path,label"]
    for label in ("a/b", "a:b", "plain"):
        for i in range(10):
            path = tmp_path / "i" / f"{len(lines)}.{'png' if i % 2 else 'jpg'}"
            Image.fromarray(random.integers(0, 256, (9, 9), dtype=np.uint8)).save(path)
            lines.append(f"i/{path.name},{label}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    data.import_(tmp_path / "own.csv", ["mine"])
    return tmp_path


def test_embedded_images_are_those_of_the_split_and_each_lies_in_the_folder_of_its_class(tmp_path):
    files = data.export("digits", "val", tmp_path / "new", count=12)
    held = data.load("digits", "val", 32, 1)
    assert len(files) == 12
    for i, file in enumerate(files):
        assert file.parent.name == str(held.labels[i])
        assert np.array_equal(np.asarray(Image.open(file)), held.pixels[i, 0])


def test_own_images_are_written_byte_by_byte_as_they_were_imported(own):
    files = data.export("mine", "trainval", own / "new") + data.export("mine", "test", own / "test")
    assert sorted(file.read_bytes() for file in files) == sorted(file.read_bytes() for file in (own / "i").iterdir())
    assert {file.suffix for file in files} == {".png", ".jpg"}
    assert {file.parent.name for file in files} == {"a_b_0", "a_b_1", "plain"}


def test_classes_never_share_a_folder_however_they_are_called():
    names = ("A:", "A?", "A__1", "a__1_", "\u4e2d" * 100 + "a", "\u4e2d" * 100 + "b")
    places = exporting._places(replace(tasks.TASKS["digits"], classes=len(names), class_names=names))
    assert len({place.casefold() for place in places}) == len(names)
    assert all(len(place.encode()) < 255 for place in places)


def test_a_photo_that_pillow_does_not_read_by_itself_is_written_as_what_it_is(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    random = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / f"i/{'ab'[i % 2]}/{i}.heic"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow_heif.from_pillow(Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))).save(path)
    data.import_(tmp_path / "i", ["photos"])
    monkeypatch.setattr(Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"})
    assert {file.suffix for file in data.export("photos", "train", tmp_path / "new")} == {".heic"}


def test_nothing_is_ever_written_over(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds something already"):
        data.export("digits", "val", tmp_path, count=1)
    with pytest.raises(BadInput, match="holds something already"):
        data.export("digits", "val", tmp_path / "mine.txt", count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("task", "split", "count", "sentence"),
    [
        ("digit", "test", None, "unknown task 'digit'; did you mean 'digits'"),
        ("digits", "tset", None, "unknown split 'tset'; did you mean 'test'"),
        ("digits", "test", 0, "0 images cannot be exported"),
        ("dtd", "test", None, "the images of dtd are not in"),
    ],
)
def test_what_is_not_there_is_refused_and_writes_nothing(task, split, count, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    with pytest.raises(BadInput, match=sentence):
        data.export(task, split, tmp_path / "new", count)
    assert not (tmp_path / "new").exists()


def test_the_command_says_where_they_are_and_how_to_go_on(tmp_path):
    folder = tmp_path / "two words"
    done = CliRunner().invoke(app, ["data", "export", str(folder), "--task", "digits", "--count", "3"])
    assert done.exit_code == 0
    assert "3 images of digits test" in done.stdout
    assert f"predict EXPORT '{folder}'" in done.stdout
    again = ["data", "export", str(tmp_path / "b"), "--task", "digits", "--count", "2", "--json"]
    files = json.loads(CliRunner().invoke(app, again).stdout)
    assert [(tmp_path / "b") in Path(file).parents for file in files] == [True, True]
