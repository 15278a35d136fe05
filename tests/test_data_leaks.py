"""Images in two splits, and splits too small to tell anything: refused, or said."""

import shutil

import pytest
import vtab
from birds import classes_of, home  # noqa: F401
from conftest import command
from PIL import Image

from idat_tune import data, tasks
from idat_tune.data import checks
from idat_tune.errors import BadInput


@pytest.fixture
def birds(tmp_path):
    """Folders for train, val and test, with nothing in common: 30, 15 and 60 images."""
    for seed, (split, count) in enumerate([("train", 10), ("val", 5), ("test", 20)]):
        classes_of(tmp_path / "birds" / split, count, seed)
    return tmp_path / "birds"


def copied(birds, first, second, count, name="copy{}.jpg"):
    """Put images of one split into another too."""
    for i in range(count):
        shutil.copy(birds / first / f"owl/{i:03d}.jpg", birds / second / "owl" / name.format(i))


@pytest.mark.parametrize("first", ["train", "val"])
def test_test_images_that_are_trained_on_are_refused(birds, first):
    copied(birds, first, "test", 4)
    sentence = (
        r"4 of 64 test images of birds are in train or val too, .*test/owl/copy0\.jpg for one, which looks exactly "
        rf"like .*{first}/owl/000\.jpg; leave each image in one split"
    )
    with pytest.raises(BadInput, match=sentence):
        data.import_(birds, ["birds"])


def test_so_are_those_that_only_look_the_same(birds):
    for i in range(4):
        Image.open(birds / f"train/owl/{i:03d}.jpg").save(birds / f"test/owl/look{i}.png")
    with pytest.raises(BadInput, match="4 of 64 test images of birds are in train or val too"):
        data.import_(birds, ["birds"])


def test_a_few_are_taken_and_told(birds):
    copied(birds, "train", "test", 3)
    (one,) = data.import_(birds, ["birds"])
    assert any("3 images of test are in trainval too" in sentence for sentence in one.report.findings)


def test_a_test_that_is_train_is_refused_by_the_command(birds):
    shutil.rmtree(birds / "test")
    shutil.copytree(birds / "train", birds / "test")
    done = command("data", "import", "--from", birds, "--task", "birds")
    assert done.returncode == 2
    assert "30 of 30 test images of birds are in train or val too" in done.stderr


def test_benchmarks_are_taken_as_they_are_and_told(tmp_path):
    source = vtab.make(tmp_path, ["svhn"]) / "svhn"
    for i in range(8):
        shutil.copy(source / f"images/train800/{i:06d}.jpg", source / f"images/test/{i:06d}.jpg")
    (one,) = data.import_(source, any_size=True)
    assert any("8 images of test are in trainval too" in sentence for sentence in one.report.findings)


# Too small


def test_few_images_are_said_at_the_import_with_their_real_numbers(tmp_path):
    (one,) = data.import_(classes_of(tmp_path / "birds", 4), ["birds"])
    assert one.report.images == {"train": 8, "val": 2, "test": 2}
    assert one.report.cautions == (
        "8 images to train with are fewer than a batch of 32: a step takes all of them",
        "val has 2 images: accuracy on it comes in steps of 50 points, too coarse to choose by; give it more",
    )
    assert checks.cautions(one.task, batch=8) == one.report.cautions[1:]
    assert checks.cautions(tasks.get("digits")) == ()


def test_a_run_on_fewer_images_than_a_batch_works_and_says_so(tmp_path):
    data.import_(classes_of(tmp_path / "birds", 4), ["birds"])
    held = [word for key in ("student=glyph_base", "teacher=none", "epochs=1") for word in ("--set", key)]
    done = command("train", "--task", "birds", *held, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 images to train with are fewer than a batch of 32: a step takes all of them" in done.stderr
    assert "val has 2 images: accuracy on it comes in steps of 50 points" in done.stderr


@pytest.mark.parametrize("arguments", [("search",), ("train",), ("data", "import")])
def test_no_help_counts_the_images_of_a_task_that_it_does_not_know(arguments):
    assert "1,000" not in command(*arguments, "--help").stdout
