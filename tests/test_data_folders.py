"""Folders of images as people have them: which are splits, which are classes, and what is left out by name."""

import json
import os
import re
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from conftest import command
from hypothesis import given, settings
from hypothesis import strategies as st
from vtab import jpeg, picture

from idat_tune.data import import_, layouts
from idat_tune.data.names import split_of
from idat_tune.data.sources import class_line
from idat_tune.data.trees import Folder, Image, LeftOut
from idat_tune.data.ways import sources
from idat_tune.errors import BadInput


def lay(root, folders):
    """Folders with so many files in each, all different and images by their names only: none is decoded here."""
    for i, (name, count) in enumerate(folders.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for j in range(count):
            (root / name / f"{j:03d}.jpg").write_bytes(b"%d of %d" % (j, i))
    return root


def read(path, **choices):
    """Classes with their numbers of images, images per split and what was left out, of the one task at `path`."""
    (source,) = sources(path, ["birds"], **choices)
    return source.counts_by_name(), source.sizes, source.left_out, source.notes


def refused(path, what, **choices):
    with pytest.raises(BadInput, match=what) as failure:
        sources(path, ["birds"], **choices)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def splits_of(train, test, classes=("cat", "dog"), count=10):
    return {f"{split}/{name}": count for split in (train, test) for name in classes}


# Splits by other names


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("TRAIN", "Test"),
        ("training", "testing"),
        ("training_set", "test_set"),
        ("train_images", "test_images"),
        ("Training Images", "Testing Images"),
        ("trainset", "testset"),
        ("train2017", "test2017"),
        ("images_train", "images_test"),
        ("trainImages", "testImages"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("birds-train", "birds-test"),
        ("train/images", "test/images"),
        ("data/set/train", "data/set/test"),
    ],
)
def test_splits_are_known_by_their_names_and_the_classes_in_them(tmp_path, train, test):
    counts, sizes, left_out, _ = read(lay(tmp_path, splits_of(train, test)))
    assert counts == {"cat": 20, "dog": 20}
    assert sizes == {"train": 16, "val": 4, "test": 20}
    assert left_out == ()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", ("train", True)),
        ("val2017", ("val", True)),
        ("my_valid", ("val", False)),
        ("train_station", ("train", False)),
        ("trainer", None),
        ("constraint", None),
        ("Testudo", None),
        ("train_test", None),
        ("devices", None),
        ("bus", None),
        ("trainval", ("train", True)),
    ],
)
def test_only_whole_words_tell_a_split(name, split):
    assert split_of(name) == split


def test_a_val_split_of_another_name_is_val(tmp_path):
    folders = splits_of("train2017", "test2017") | {"val2017/cat": 3, "val2017/dog": 2}
    assert read(lay(tmp_path, folders))[1] == {"train": 20, "val": 5, "test": 20}


def test_class_names_may_be_written_otherwise_in_another_split(tmp_path):
    other = unicodedata.normalize("NFD", "Käfer")
    folders = {"seg_train/Käfer": 5, "seg_train/dog": 5, f"seg_test/{other}": 5}
    (source,) = sources(lay(tmp_path, folders), ["birds"])
    assert source.sizes["test"] == 5


# Classes that are called like splits


@pytest.mark.parametrize("classes", [("bus", "car", "train"), ("control", "test"), ("dev", "ops", "qa")])
def test_classes_may_be_called_like_a_split(tmp_path, classes):
    counts, sizes, _, notes = read(lay(tmp_path, dict.fromkeys(classes, 10)))
    assert counts == dict.fromkeys(classes, 10)
    assert sizes["test"] == round(0.2 * 10 * len(classes))
    assert any("taken as classes" in note for note in notes)


def test_names_that_only_have_a_split_s_word_in_them_are_classes_without_a_word(tmp_path):
    counts, _, _, notes = read(lay(tmp_path, {"train_station": 10, "test_tube": 10, "beach": 10}))
    assert set(counts) == {"train_station", "test_tube", "beach"}
    assert notes == ()


def test_a_test_folder_among_classes_may_be_unlabelled_images_so_it_is_asked(tmp_path):
    refused(lay(tmp_path / "other", {"cat": 10, "dog": 10, "val": 6}), "two ways: val may be images without labels")
    tmp_path = lay(tmp_path / "set", {"cat": 10, "dog": 10, "test": 6})
    refused(tmp_path, r"two ways: test may be images without labels.*--layout splits.*a class \(--layout classes\)")
    assert read(tmp_path, layout="classes")[0] == {"cat": 10, "dog": 10, "test": 6}
    counts, _, left_out, _ = read(tmp_path, layout="splits")
    assert counts == {"cat": 10, "dog": 10}
    assert left_out == ("folder test without labels (6 files)",)


def test_splits_that_have_no_class_folders_may_be_classes_only_if_it_is_said(tmp_path):
    lay(tmp_path, {"train": 10, "test": 10})
    refused(tmp_path, "no class folders in test, train: as splits they have no labels; .* --layout classes")
    assert read(tmp_path, layout="classes")[0] == {"test": 10, "train": 10}


def test_train_in_train_is_a_wrapper_and_no_class(tmp_path):
    refused(
        lay(tmp_path, {"train/train": 10, "test1/test1": 10}),
        "no class folders in test1, train: as splits they have no labels",
    )


def test_splits_that_share_no_class_may_be_classes(tmp_path):
    lay(tmp_path, {"train/freight": 5, "train/local": 5, "test/lamp": 5, "test/tube": 5})
    refused(tmp_path, "may be a split, though no other has its folders .--layout splits., or a class .--layout classes")
    assert read(tmp_path, layout="classes")[0] == {"test": 10, "train": 10}
    assert read(tmp_path, layout="splits")[1]["test"] == 10


# What stands beside splits


def test_class_folders_beside_splits_are_asked_about(tmp_path):
    lay(tmp_path, splits_of("train", "test") | {"cat": 5, "dog": 5})
    refused(tmp_path, "two ways: --layout splits takes test, train as splits and leaves out cat, dog, --layout classes")
    counts, sizes, left_out, _ = read(tmp_path, layout="splits")
    assert counts == {"cat": 20, "dog": 20}
    assert sizes["test"] == 20
    assert left_out == ("folder cat (5 files)", "folder dog (5 files)")
    assert set(read(tmp_path, layout="classes")[0]) == {"cat", "dog", "test", "train"}


def test_a_folder_that_might_be_another_split_is_left_out_only_if_it_is_said(tmp_path):
    lay(tmp_path, {"train/cat": 10, "train/dog": 10, "my_test/fox": 5, "my_test/owl": 5})
    refused(tmp_path, "--layout splits takes train as splits and leaves out my_test, --layout classes takes each")
    counts, _, left_out, _ = read(tmp_path, layout="splits")
    assert counts == {"cat": 10, "dog": 10}
    assert left_out == ("folder my_test (10 files)",)


@pytest.mark.parametrize("extra", ["seg_pred/seg_pred", "single_prediction", "unlabeled", "sample_images"])
def test_folders_of_images_without_labels_beside_splits_are_left_out_by_name(tmp_path, extra):
    counts, _, left_out, _ = read(lay(tmp_path, splits_of("seg_train", "seg_test") | {extra: 7}))
    assert counts == {"cat": 20, "dog": 20}
    assert left_out == (f"folder {extra.partition('/')[0]} (7 files)",)


@pytest.mark.parametrize(("one", "other"), [("val", "validation"), ("train", "Train"), ("test", "test_images")])
def test_two_folders_for_one_split_are_joined_only_if_it_is_said(tmp_path, one, other):
    folders = splits_of("train", "test") | {f"{name}/{label}": 4 for name in (one, other) for label in ("cat", "dog")}
    lay(tmp_path, folders)
    refused(tmp_path, "would all be (train|val|test): --layout splits joins them")
    assert sum(read(tmp_path, layout="splits")[0].values()) == sum(folders.values())


@pytest.mark.parametrize("flat", ["test", "test1", "test/unknown", "test/test"])
def test_a_test_without_labels_is_left_out_and_said_and_one_is_cut_from_train(tmp_path, flat):
    counts, sizes, left_out, notes = read(lay(tmp_path, {"train/cat": 20, "train/dog": 20, flat: 9}))
    assert counts == {"cat": 20, "dog": 20}
    assert sizes == {"train": 26, "val": 6, "test": 8}
    assert left_out == (f"folder {flat.partition('/')[0]} without labels (9 files)",)
    assert any("train" in note and "test" in note for note in notes)


def test_train_alone_is_divided_and_that_is_said(tmp_path):
    _, sizes, _, notes = read(lay(tmp_path, {"train/cat": 20, "train/dog": 20}))
    assert sizes == {"train": 26, "val": 6, "test": 8}
    assert len(notes) == 1


def test_train_and_val_without_test_give_a_test_from_train_and_say_it(tmp_path):
    folders = {f"{split}/{name}": 20 for split in ("train2017", "val2017") for name in ("cat", "dog")}
    _, sizes, _, notes = read(lay(tmp_path, folders))
    assert sizes == {"train": 32, "val": 40, "test": 8}
    assert any("test" in note for note in notes)


def test_train_without_class_folders_is_refused(tmp_path):
    refused(lay(tmp_path, {"train": 20, "test/cat": 5, "test/dog": 5}), "train in .* has images but no class folders")


# Wrappers, depths


@pytest.mark.parametrize("wrapper", ["mush", "mush/mush", "a/b/c", "birds-train", "test"])
def test_wrapping_folders_are_passed_through(tmp_path, wrapper):
    folders = {f"{wrapper}/cat": 10, f"{wrapper}/dog": 10}
    if wrapper == "test":
        folders = {f"test/{split}": count for split, count in splits_of("train", "val").items()}
        folders |= {"test/test/cat": 3, "test/test/dog": 3}
    counts, *_ = read(lay(tmp_path, folders))
    assert set(counts) == {"cat", "dog"}


def test_what_lies_beside_a_wrapped_set_is_named(tmp_path):
    lay(tmp_path, {"mush/cat": 10, "mush/dog": 10, "docs": 0})
    (tmp_path / "docs/a.txt").write_text("x")
    (tmp_path / "licence.md").write_text("x")
    (tmp_path / "preview.jpg").write_bytes(b"x")
    assert read(tmp_path)[2] == ("1 .md", "folder docs (1 file)", "1 image in no class folder (preview.jpg)")


def test_folders_within_folders_may_be_upper_or_lower_classes(tmp_path):
    lay(tmp_path, {"animals/cat": 5, "animals/dog": 5, "vehicles/bus": 5, "vehicles/car": 5})
    refused(
        tmp_path,
        r"animals holds .* \(cat, dog\): --layout classes takes animals as one class among 2; .*--layout parts",
    )
    assert set(read(tmp_path, layout="classes")[0]) == {"animals", "vehicles"}
    assert set(read(tmp_path, layout="parts")[0]) == {"bus", "car", "cat", "dog"}


@pytest.mark.parametrize("extra", ["test", "test/test", "thumbs"])
def test_a_wrapped_set_with_something_beside_it_is_not_taken_for_a_class(tmp_path, extra):
    for kind in (
        {"set/set/train/cat": 5, "set/set/train/dog": 5, "set/set/valid/cat": 5},
        {"set/cat": 5, "set/dog": 5},
    ):
        lay(tmp_path / str(len(kind)), kind | {extra: 6})
        refused(tmp_path / str(len(kind)), r"set holds folders of images \((train, valid|cat, dog)\)")


def test_parts_of_a_set_that_share_classes_are_asked_about_and_pooled(tmp_path):
    lay(tmp_path, splits_of("2019", "2020"))
    refused(tmp_path, "two ways")
    assert read(tmp_path, layout="parts")[0] == {"cat": 20, "dog": 20}


def test_upper_and_lower_classes_within_splits_are_asked_about(tmp_path):
    lay(tmp_path, {f"{split}/{letter}/{letter}{i}": 4 for split in ("train", "test") for letter in "ab" for i in "12"})
    refused(tmp_path, r"/a holds .* \(a1, a2\): --layout splits takes a as one class among 2; .* move what")
    assert set(read(tmp_path, layout="splits")[0]) == {"a", "b"}


@pytest.mark.parametrize("names", [("images", "annotations/trimaps"), ("img", "masks"), ("Images_data", "cat")])
def test_folders_that_no_class_is_called_like_are_asked_about(tmp_path, names):
    lay(tmp_path, dict.fromkeys(names, 10))
    refused(tmp_path, f"two ways: .*{names[0]}.* may hold images without labels, .*--layout classes")
    assert read(tmp_path, layout="classes")[0][names[0]] == 10


def test_numbers_and_photos_may_be_classes(tmp_path):
    assert set(read(lay(tmp_path, {"1": 10, "photos": 10, "drawings": 10}))[0]) == {"1", "photos", "drawings"}


def test_splits_within_class_folders_are_splits(tmp_path):
    counts, sizes, _, notes = read(lay(tmp_path, {"cat/train": 10, "cat/test": 5, "dog/train": 10, "dog/test": 5}))
    assert counts == {"cat": 15, "dog": 15}
    assert sizes == {"train": 16, "val": 4, "test": 10}
    assert notes[0] == "splits were found within the classes: test, train"


def test_several_sets_with_splits_are_not_taken_for_classes(tmp_path):
    folders = {f"{version}/{place}": 4 for version in ("v1", "v2") for place in splits_of("train", "test")}
    refused(lay(tmp_path, folders), "has several sets with splits of their own: v1, v2; import one")


def test_folders_within_a_class_belong_to_it_and_that_is_said(tmp_path):
    counts, _, _, notes = read(lay(tmp_path, {"cat": 5, "cat/indoor": 5, "dog": 10}))
    assert counts == {"cat": 10, "dog": 10}
    assert notes == ("folders within classes were taken as part of them: cat/indoor",)


# What is left out


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".AppleDouble", "#recycle", "$RECYCLE.BIN", ".git", "lost+found"],
)
def test_hidden_and_system_folders_are_left_out_wherever_they_are(tmp_path, name):
    folders = splits_of("train", "test")
    places = ["", "train/", "train/cat/", "test/dog/"]
    lay(tmp_path, folders | {f"{place}{name}": 3 for place in places})
    counts, sizes, left_out, _ = read(tmp_path)
    assert counts == {"cat": 20, "dog": 20}
    assert sizes["test"] == 20
    assert left_out == (f"4 folders {name} (12 files)",)


def test_files_that_are_no_images_are_counted_by_their_kind(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 10})
    for name in ["a.txt", "b.TXT", "c.mp4", "Thumbs.db", ".DS_Store", "._000.jpg", ".x.jpg", "notes"]:
        (tmp_path / "cat" / name).write_bytes(b"x")
    left_out = read(tmp_path)[2]
    assert left_out == ("2 .txt", "1 .DS_Store", "1 ._*", "1 .mp4", "1 Thumbs.db", "1 hidden", "1 without suffix")


def test_empty_class_folders_and_loose_images_are_named(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 10, "bird": 0, ".": 4})
    assert read(tmp_path)[2] == (
        "folder bird (empty)",
        "4 images in no class folder (000.jpg, 001.jpg, 002.jpg, ...)",
    )


def test_suffixes_count_in_any_case_and_files_without_one_by_their_first_bytes(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 0})
    names = ["a.JPG", "b.jfif", "c.Jpe", "d.mpo", "e.AVIF", "f.heic", "g.jp2"]
    starts = [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"GIF89a", b"P6\n2 2", b"\0\0\0\x1cftypavif"]
    for name in names:
        (tmp_path / "dog" / name).write_bytes(name.encode())
    for i, start in enumerate(starts):
        (tmp_path / "dog" / f"IMG_{i}").write_bytes(start)
        (tmp_path / "dog" / f"photo.jpg?w={i}").write_bytes(start + b"more")
    (tmp_path / "dog/readme").write_bytes(b"no image")
    counts, _, left_out, _ = read(tmp_path)
    assert counts["dog"] == len(names) + 2 * len(starts)
    assert left_out == ("1 without suffix",)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_once_and_never_round(tmp_path):
    lay(tmp_path, {"real/bird": 6, "set/cat": 10, "set/dog": 10})
    source = tmp_path / "set"
    (source / "bird").symlink_to("../real/bird")
    (source / "cat/up").symlink_to("..")
    (source / "again").symlink_to(".")
    (source / "top").symlink_to(tmp_path)
    (source / "cat/gone.jpg").symlink_to("/nowhere/1.jpg")
    (source / "dog/self.jpg").symlink_to("self.jpg")
    counts, _, left_out, _ = read(source)
    assert counts == {"bird": 6, "cat": 10, "dog": 10}
    assert left_out == (
        "3 links back to a folder that it lies in (again, top, cat/up)",
        "2 links to nothing (dog/self.jpg, cat/gone.jpg)",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files there")
def test_what_is_no_regular_file_is_never_opened(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 10})
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    assert read(tmp_path)[2] == ("1 no regular file",)


def test_names_that_would_move_the_cursor_are_shown_as_escapes(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 10, "a\x1b[2J\nb": 0})
    assert read(tmp_path)[2] == (r"folder a\x1b[2J\nb (empty)",)


def test_a_folder_without_class_folders_says_what_it_has(tmp_path):
    lay(tmp_path, {".": 5})
    assert "table" not in refused(tmp_path, "5 images in .*, but no class folders, so they have no labels")
    (tmp_path / "labels.csv").write_text("x")
    assert "archive" not in refused(tmp_path, "there is a table in it, which is imported by its own name")


def test_a_table_beside_images_without_labels_is_pointed_at_also_within_an_archive(tmp_path):
    lay(tmp_path / "kaggle", {"train": 5, "test": 5})
    (tmp_path / "kaggle/train.csv").write_text("x")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "kaggle")
    assert "archive" not in refused(tmp_path / "kaggle", "there is a table in it")
    refused(tmp_path / "packed.zip", "there is a table in it, which is imported by its own name once .* unpacked")


# Groups


def test_a_pattern_on_paths_gives_groups(tmp_path, monkeypatch):
    folders = {"cat": 10, "dog": 10}
    lay(tmp_path, folders)
    seen = {}
    monkeypatch.setattr("idat_tune.data.folders.source", lambda *given: seen.update(rows=given[3], notes=given[6]))
    sources(tmp_path, ["birds"], group_pattern=r"(cat|x)/00(\d)")
    assert [row.group for row in seen["rows"]] == ["cat"] * 10 + [None] * 10
    assert seen["notes"][0].startswith("10 images are a group of their own")


@pytest.mark.parametrize(
    ("pattern", "what"),
    [("(", "is no regular expression"), ("cat", r"has no group; put what names"), ("(fox)", "matches none of the 20")],
)
def test_patterns_that_give_no_groups_are_refused(tmp_path, pattern, what):
    refused(lay(tmp_path, {"cat": 10, "dog": 10}), what, group_pattern=pattern)


# Choices that do nothing


@pytest.mark.parametrize("choice", [{"label_column": "kind"}, {"group_column": "patient"}, {"allow_outside": True}])
def test_choices_for_lists_are_refused_of_folders(tmp_path, choice):
    refused(lay(tmp_path, {"cat": 10, "dog": 10}), f"--{next(iter(choice)).replace('_', '-')} does nothing", **choice)


def test_layouts_are_for_folders_and_known(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n")
    refused(tmp_path / "list.csv", "--layout does nothing", layout="classes")
    refused(lay(tmp_path / "set", {"cat": 10, "dog": 10}), "unknown layout 'class'; did you mean", layout="class")


def test_images_beside_a_table_are_not_taken_for_a_data_set(tmp_path):
    lay(tmp_path, {"cat": 10, "dog": 10})
    (tmp_path / "meta.parquet").write_bytes(b"x")
    refused(tmp_path, "say which to import with --kind images or --kind huggingface")
    assert read(tmp_path, kind="images")[2] == ("1 .parquet",)


# What is shown


@pytest.fixture
def photos(tmp_path):
    """Real images, and things beside them."""
    rng = np.random.default_rng(0)
    for label, (name, count) in enumerate({"cep": 12, "chanterelle": 8}.items()):
        for i in range(count):
            lay(tmp_path / "photos", {name: 0})
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(jpeg(picture(rng, label, 2, 16)))
    for i in range(3):
        (tmp_path / f"photos/cep/{i}.txt").write_text("x")
    return lay(tmp_path / "photos", {"@eaDir": 6, "bird": 0})


def test_a_dry_run_shows_what_an_import_then_does(photos, tmp_path):
    store = {"IDAT_TUNE_DATA": str(tmp_path / "store")}
    line = ["data", "import", "--from", photos, "--task", "mushrooms"]
    planned = command(*line, "--dry-run", **store)
    assert planned.stdout.splitlines() == [
        f"mushrooms: 20 images would be imported from {photos}",
        "  2 classes: cep 12, chanterelle 8",
        "  train 13, val 3, test 4",
        "  left out: 3 .txt, folder @eaDir (6 files), folder bird (empty)",
    ]
    assert not (tmp_path / "store").exists()
    for state in ("20 images imported", "was there already"):
        done = command(*line, **store)
        assert done.stdout.splitlines()[0].startswith(f"mushrooms: {state}")
        assert done.stdout.splitlines()[1:4] == planned.stdout.splitlines()[1:4]


def test_a_dry_run_says_the_same_in_json(photos, tmp_path):
    done = command("data", "import", "--from", photos, "--task", "mushrooms", "--dry-run", "--json")
    (planned,) = json.loads(done.stdout)
    assert planned["dry_run"] is True
    assert planned["class_counts"] == {"cep": 12, "chanterelle": 8}
    assert planned["splits"] == {"train": 13, "val": 3, "test": 4}
    assert planned["left_out"] == ["3 .txt", "folder @eaDir (6 files)", "folder bird (empty)"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_dry_run_shows_names_in_bytes_that_are_no_text(photos, tmp_path):
    spoilt = photos.rename(tmp_path / os.fsdecode(b"photos\xe9"))
    (spoilt / "cep").rename(spoilt / os.fsdecode(b"c\xe8pe"))
    for shape in ([], ["--json"]):
        done = command("data", "import", "--from", spoilt, "--task", "mushrooms", "--dry-run", *shape)
        assert done.returncode == 0, done.stderr
        assert "pe" in done.stdout


def test_counts_after_an_import_are_of_what_was_stored(photos, tmp_path):
    (photos / "cep/0.jpg").write_bytes(b"spoilt")
    (photos / "cep/2.jpg").write_bytes((photos / "cep/1.jpg").read_bytes())
    for _ in range(2):
        (one,) = import_(photos, ["mushrooms"], skip_bad=1, folder=tmp_path / "store")
        assert one.class_counts == {"cep": 10, "chanterelle": 8}
        assert one.images == 18


def test_of_many_classes_the_largest_and_the_smallest_are_shown():
    line = class_line({f"c{i}": 1000 + i for i in range(397)})
    assert (
        line == "397 classes: the largest c396 1,396, c395 1,395, c394 1,394; the smallest c2 1,002, c1 1,001, c0 1,000"
    )


# Whatever there is


NAMES = st.sampled_from(
    ["train", "test", "val", "Train", "seg_train", "seg_test", "cat", "dog", "2019", "bus", "empty"]
)


def trees():
    def folder(children):
        return st.tuples(st.integers(0, 3), st.integers(0, 2), st.dictionaries(NAMES, children, max_size=4))

    return st.recursive(st.tuples(st.integers(0, 3), st.integers(0, 2), st.just({})), folder, max_leaves=12)


def grown(shape, path=""):
    images, others, folders = shape
    tree = Folder(path)
    tree.images = [Image(f"{path}/{i}.jpg", "", 1, bytes) for i in range(images)]
    tree.others[".txt"] += others
    tree.folders = {name: grown(inner, f"{path}/{name}".lstrip("/")) for name, inner in folders.items()}
    return tree


@settings(max_examples=300, deadline=None)
@given(shape=trees(), layout=st.sampled_from(layouts.LAYOUTS))
def test_every_file_is_taken_once_or_told_of_or_all_is_refused(shape, layout):
    tree, left = grown(shape), LeftOut()
    try:
        found = layouts.find(tree, "here", layout, left)
    except BadInput:
        return
    taken = [image.path for part in found.parts for image in part.folder.all_images()]
    assert len(set(taken)) == len(taken) > 0
    phrases = [phrase for phrase in left.phrases() if "(empty)" not in phrase]
    told = [re.search(r"\(([\d,]+) files?\)|^([\d,]+)", phrase) for phrase in phrases]
    counts = [int((match.group(1) or match.group(2)).replace(",", "")) for match in told]
    assert len(taken) + sum(counts) == tree.files()
    assert len({part.split is None for part in found.parts}) == 1
