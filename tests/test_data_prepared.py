"""Importing the prepared layout of VTAB-1K, whole or spoilt."""

import shutil
import zipfile

import numpy as np
import pytest
import vtab

from idat_tune import data, tasks
from idat_tune.errors import BadInput


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """All 19 tasks, small."""
    return vtab.make(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def dtd(prepared, tmp_path):
    """A copy of one task that a test may spoil."""
    return shutil.copytree(prepared / "dtd", tmp_path / "vtab-1k" / "dtd")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def edit(path, change):
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def refused(source, what, **options):
    with pytest.raises(BadInput, match=what) as failure:
        data.import_(source, **{"any_size": True, **options})
    assert "\n" not in str(failure.value)
    return str(failure.value)


def test_all_19_tasks_are_imported_in_the_paper_s_order(prepared, store):
    imported = data.import_(prepared, any_size=True)
    assert [one.task.name for one in imported] == [task.name for task in tasks.select(["all"])]
    for one in imported:
        images = data.load(one.task.name, "trainval", 16)
        assert images.pixels.shape == (32, 3, 16, 16)
        assert one.report.ok


def test_a_zip_gives_the_same_as_its_folder(prepared, store, tmp_path):
    whole = tmp_path / "vtab-1k.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for file in sorted(prepared.rglob("*")):
            if "kitti" in file.parts:
                archive.write(file, f"vtab-1k/{file.relative_to(prepared)}")
    data.import_(whole, any_size=True, folder=tmp_path / "a")
    data.import_(prepared, ["kitti"], any_size=True, folder=tmp_path / "b")
    assert data.content_hash("kitti", tmp_path / "a") == data.content_hash("kitti", tmp_path / "b")


def test_pixels_are_those_of_the_files_in_the_order_of_the_lists(dtd, store):
    from PIL import Image

    data.import_(dtd, any_size=True)
    for split, name in vtab.LISTS.items():
        images = data.load("dtd", split, 32)
        lines = [line.split() for line in (dtd / f"{name}.txt").read_text().splitlines()]
        assert images.labels.tolist() == [int(label) for _, label in lines]
        for pixels, (path, _) in zip(images.pixels, lines, strict=True):
            expected = Image.open(dtd / path).resize((32, 32), Image.Resampling.BICUBIC)
            assert np.array_equal(pixels, np.asarray(expected).transpose(2, 0, 1))


def test_a_task_of_the_benchmark_s_sizes_is_complete(tmp_path, store):
    vtab.make(tmp_path / "source", ["kitti"], vtab.full("kitti"), pixels=8)
    (one,) = data.import_(tmp_path / "source")
    assert one.report.images == {"train": 800, "val": 200, "test": 711}
    assert not one.report.stand_in
    assert {listed.task.name: listed.state for listed in data.listing()}["kitti"] == "complete"


def test_other_sizes_than_the_benchmark_s_are_refused_unless_asked_for(dtd, store):
    refused(dtd, r"the train split of dtd has 24 images, the benchmark's has 800; .* --any-size", any_size=False)
    assert not (store / "dtd").exists()
    (one,) = data.import_(dtd, any_size=True)
    assert one.report.stand_in
    assert data.task("dtd").test == 16
    assert tasks.get("dtd").test == 1880


@pytest.mark.parametrize("folder", ["cifar100", "pets", "flowers102", "Retinopathy", "camelyon", "clevr-count"])
def test_folders_may_go_by_any_name_of_the_task(prepared, tmp_path, store, folder):
    name = tasks.get(folder).name
    shutil.copytree(prepared / name, tmp_path / "copy" / folder)
    assert [one.task.name for one in data.import_(tmp_path / "copy", [folder], any_size=True)] == [name]


def test_one_task_s_folder_may_have_any_name_when_the_task_is_named(dtd, store):
    other = dtd.rename(dtd.parent / "something")
    assert [one.task.name for one in data.import_(other, ["dtd"], any_size=True)] == ["dtd"]


def test_a_task_that_is_not_there_is_named_with_those_that_are(dtd, store):
    refused(dtd.parent, r"no svhn/train800.txt in .*; found there: dtd", names=["svhn"])


def test_paths_may_have_spaces(dtd, store):
    (dtd / "images/test/000000.jpg").rename(dtd / "images/test/a b  c.jpg")
    edit(dtd / "test.txt", lambda lines: ["images/test/a b  c.jpg 0\n", *lines[1:]])
    data.import_(dtd, any_size=True)
    assert len(data.load("dtd", "test", 8)) == 16


def test_windows_line_ends_and_empty_lines_do_no_harm(dtd, store):
    text = (dtd / "val200.txt").read_text()
    (dtd / "val200.txt").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    data.import_(dtd, any_size=True)
    assert len(data.load("dtd", "val", 8)) == 8


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("/etc/a.jpg 0", "'/etc/a.jpg' is an absolute path"),
        ("C:\\a.jpg 0", "is an absolute path"),
        ("../dtd/images/test/000003.jpg 0", "leads out of its folder"),
        ("images/test/000003.jpg", "is not a path, a space and a label"),
        ("images/test/with space.jpg", "is not a path, a space and a label"),
        ("images/test/000003.jpg one", "is not a path, a space and a label"),
        ("images/test/000003.jpg 1.5", "is not a path, a space and a label"),
        ("3", "no path|is not a path"),
        ("images/test/000003.jpg -1", r"label -1 is not in 0\.\.46"),
        ("images/test/000003.jpg 47", r"label 47 is not in 0\.\.46; take 1 off each if these begin at 1"),
        ("images/test/000003.jpg 48", r"label 48 is not in 0\.\.46$"),
        ("images/test/nowhere.jpg 0", "'images/test/nowhere.jpg' is missing"),
        ("images/test/000001.jpg 1", "is listed in line 2 already"),
        ("images/train800/000001.jpg 1", "is in train800.txt too"),
        ("images/val200/000001.jpg 1", "is in val200.txt too"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(dtd, store, line, what):
    edit(dtd / "test.txt", lambda lines: [*lines[:3], line + "\n", *lines[4:]])
    refused(dtd, rf"dtd/test\.txt line 4: .*{what}")
    assert data.listing()[2].state == "missing"


def test_a_val_image_from_train_is_refused(dtd, store):
    edit(dtd / "val200.txt", lambda lines: ["images/train800/000000.jpg 0\n", *lines[1:]])
    refused(dtd, r"val200\.txt line 1: 'images/train800/000000\.jpg' is in train800\.txt too")


@pytest.mark.parametrize("blank", ["\t", "   ", " \t"])
def test_lists_may_have_tabs_or_several_spaces(dtd, store, blank):
    for name in ("train800", "val200", "train800val200", "test"):
        edit(dtd / f"{name}.txt", lambda lines: [line.replace(" ", blank) for line in lines])
    assert data.import_(dtd, any_size=True)[0].images == 48


def test_val_images_that_are_copies_of_train_images_are_refused_where_they_are_many(dtd, store):
    shutil.copy(dtd / "images/train800/000000.jpg", dtd / "images/val200/000000.jpg")
    refused(dtd, r"1 of 8 val images of dtd are in train too, .*000000\.jpg")


def test_an_empty_split_is_refused(dtd, store):
    (dtd / "val200.txt").write_text("\n")
    refused(dtd, "the val split of dtd has no images")


def test_a_missing_list_is_named(dtd, store):
    (dtd / "test.txt").unlink()
    refused(dtd, r"dtd/test\.txt is missing")


def test_a_list_that_is_no_text_is_named(dtd, store):
    (dtd / "test.txt").write_bytes(b"\xff\xfe\x00")
    refused(dtd, r"test\.txt is not a text file in UTF-8")


def test_the_list_of_both_must_have_the_labels_of_its_parts(dtd, store):
    edit(dtd / "train800val200.txt", lambda lines: [lines[0].replace(" 0", " 7"), *lines[1:]])
    refused(dtd, r"train800val200\.txt does not have the labels")


def test_the_list_of_both_may_be_missing(dtd, store):
    (dtd / "train800val200.txt").unlink()
    (one,) = data.import_(dtd, any_size=True)
    assert one.report.notes == ("no train800val200.txt: trainval was put together from train and val, unchecked",)


def test_a_truncated_image_stops_the_import_and_is_named(dtd, store):
    image = dtd / "images/test/000005.jpg"
    image.write_bytes(image.read_bytes()[:200])
    message = refused(dtd, "--skip-bad")
    assert str(image) in message
    assert not (store / "dtd").exists()
    assert not list((store / ".partial").iterdir())


def test_bad_images_may_be_left_out_up_to_a_number(dtd, store):
    for name in ("test/000005", "train800/000003"):
        (dtd / f"images/{name}.jpg").write_bytes(b"nothing")
    refused(dtd, "--skip-bad", skip_bad=1)
    (one,) = data.import_(dtd, any_size=True, skip_bad=2)
    assert len(one.report.skipped) == 2
    assert one.report.images == {"train": 23, "val": 8, "test": 15}
    assert data.load("dtd", "train", 8).labels.tolist()[:4] == [0, 1, 2, 4]


def test_zip_entries_that_escape_are_refused(tmp_path, store):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("dtd/train800.txt", "")
        archive.writestr("../../outside.jpg", b"x")
    refused(tmp_path / "bad.zip", r"bad\.zip, entry '\.\./\.\./outside\.jpg': .* leads out")


def test_a_copy_that_has_only_the_list_of_all_training_images_is_told_what_it_lacks(dtd, store):
    (dtd / "train800.txt").unlink()
    refused(dtd.parent, r"dtd/train800\.txt is missing")


def test_a_list_that_is_far_too_long_is_not_read(tmp_path, store):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kitti/train800.txt", b"\n" * (17 * 2**20))
    refused(tmp_path / "bad.zip", r"train800\.txt has 17,825,792 bytes, more than")


@pytest.mark.parametrize("form", ["tar", "gztar"])
def test_a_tar_of_a_copy_is_one_too(dtd, tmp_path, store, form):
    path = shutil.make_archive(str(tmp_path / "copy"), form, dtd.parent)
    (one,) = data.import_(path, any_size=True)
    assert one.task.name == "dtd"
    assert one.images == sum(one.class_counts.values()) > 0


def test_a_zip_of_something_else_is_no_prepared_copy(tmp_path, store):
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as archive:
        archive.writestr("owl/1.jpg", b"x")
    refused(tmp_path / "birds.zip", r"no task in .*birds\.zip; expected <task>/train800\.txt", kind="prepared")


def test_a_broken_zip_is_refused(dtd, tmp_path, store):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for file in sorted(dtd.rglob("*.*")):
            archive.write(file, file.relative_to(dtd.parent))
    whole = (tmp_path / "whole.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "half.zip", "is not a zip|not a whole zip")
    (tmp_path / "spoilt.zip").write_bytes(whole.replace(b"\xff\xd8\xff", b"\xff\xd8\xfe"))
    refused(tmp_path / "spoilt.zip", r"spoilt\.zip/dtd/images/.*cannot be read")


def test_a_folder_without_anything_of_use_is_refused(tmp_path, store):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "becomes one task; name it")
    refused(tmp_path / "empty", "no images in", names=["mine"])
    refused(tmp_path / "nowhere", "does not exist")
