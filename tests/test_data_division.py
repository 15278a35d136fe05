"""Divisions made here: classes in proportion, groups whole, no picture on two sides, none under two labels."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from birds import BIRDS, classes_of, fill, home, refused, sizes  # noqa: F401
from PIL import Image

from idat_tune import data
from idat_tune.data import parquet, store
from idat_tune.data.dealing import dealt, joined_groups, whole_groups
from idat_tune.data.division import Said, divide
from idat_tune.data.sources import Choices
from idat_tune.data.ways import sources
from idat_tune.errors import BadInput


def divided(labels, groups=None, splits=None, **choices):
    count = len(labels)
    said = Said(labels, splits or [None] * count, groups or [None] * count, [f"row {i}" for i in range(count)], ())
    return divide(said, Choices(**choices), Path("birds"))


def patients(count=60, seed=0, classes=3):
    """Labels and groups of images: patients with 1 to 9 images each, of one or two classes."""
    random = np.random.default_rng(seed)
    labels, groups = [], []
    for patient in range(count):
        own = random.integers(0, classes, 2)
        for _ in range(random.integers(1, 10)):
            labels.append(int(random.choice(own)))
            groups.append(f"patient {patient}")
    return labels, groups


def groups_of(division, groups):
    return {split: {groups[i] for i in rows} for split, rows in division.splits.items()}


# Groups


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_in_two_splits_and_classes_keep_their_shares(seed):
    labels, groups = patients(seed=seed)
    division = divided(labels, groups, seed=seed)
    found = groups_of(division, groups)
    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]
    assert not found["val"] & found["test"]
    whole = np.bincount(labels) / len(labels)
    for split, share in (("train", 0.64), ("val", 0.16), ("test", 0.2)):
        rows = division.splits[split]
        assert abs(len(rows) / len(labels) - share) < 0.03
        assert abs(np.bincount([labels[i] for i in rows], minlength=3) / len(rows) - whole).max() < 0.12


def test_another_seed_divides_groups_otherwise():
    labels, groups = patients()
    first, other = (groups_of(divided(labels, groups, seed=seed), groups)["test"] for seed in (0, 1))
    assert first != other
    assert first == groups_of(divided(labels, groups, seed=0), groups)["test"]


@pytest.mark.parametrize("given", [("train", "test"), ("train", "val")])
def test_what_is_cut_from_train_shares_no_group_with_it(given):
    labels, groups = patients()
    splits = [given[int(group.split()[1]) % 3 == 0] for group in groups]
    found = groups_of(divided(labels, groups, splits), groups)
    assert all(found.values())
    assert not found["train"] & found["val"]
    assert not found["train"] & found["test"]


def test_a_group_in_two_given_splits_is_refused_by_name():
    with pytest.raises(BadInput, match=r"the group 'b' is in train \(row 1\) and in test \(row 3\)"):
        divided([0, 1, 0, 1], ["a", "b", "c", "b"], ["train", "train", "test", "test"])


def test_too_few_groups_are_refused():
    with pytest.raises(BadInput, match="has 2 groups, too few for train, val, test"):
        divided([0, 1] * 10, ["a", "b"] * 10)


def test_three_groups_are_enough_and_images_without_one_stand_alone():
    found = divided([0, 1] * 15, ["a", "b", "c"] * 10)
    assert all(len(rows) == 10 for rows in found.splits.values())
    found = divided([0, 1] * 15, [*["a"] * 24, *["b"] * 3, *["c"] * 3])
    assert [len(rows) for rows in found.splits.values()] == [24, 3, 3]
    found = divided([0, 1] * 15, [*["a"] * 6, *[None] * 24])
    assert {len(rows) for rows in found.splits.values()} == {19, 5, 6}


def test_the_classes_of_few_groups_are_for_training():
    labels, groups = patients()
    drawn, _ = whole_groups([*labels, 3, 3], [*groups, "rare", "rare"], (0.1, 0.9), 0)
    assert {len(labels), len(labels) + 1} <= set(drawn)


def test_dealing_leaves_no_part_empty_if_there_are_as_many_groups():
    labels, groups = np.zeros(100, int), np.repeat(np.arange(5), [92, 2, 2, 2, 2])
    assert set(dealt(labels, groups, [0.2] * 5, 0)) == {0, 1, 2, 3, 4}


def test_images_with_any_key_in_common_are_one_group():
    group = joined_groups(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8]))
    assert group.tolist() == [0, 0, 0, 3, 4]


def test_groups_of_a_list_are_stored_with_the_images(tmp_path):
    classes_of(tmp_path / "images", 10)
    rows = [f"images/{name}/{i:03d}.jpg,{name},{i // 2}" for name in BIRDS for i in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,patient", *rows]))
    assert "--group-column 'patient' keeps them in one split" in sources(tmp_path / "list.csv", ["birds"])[0].notes[0]
    data.import_(tmp_path / "list.csv", ["birds"], group_column="patient")
    found = {split: set(parquet.groups(store.place("birds") / f"{split}.parquet")) for split in store.STORED}
    assert set.union(*found.values()) == set("01234")
    assert sum(map(len, found.values())) == 5
    train = data.load("birds", "train", 8)
    assert set(train.groups) == found["train"]
    assert len(train.groups) == len(train)
    hashed = data.content_hash("birds")
    assert data.verify("birds").content_hash == hashed
    data.import_(tmp_path / "list.csv", ["other"])
    assert data.load("other", "train", 8).groups is None


def test_no_fold_tears_a_group_apart(tmp_path):
    classes_of(tmp_path / "images", 30)
    rows = [f"images/{name}/{i:03d}.jpg,{name},{i // 3}" for name in BIRDS for i in range(30)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,patient", *rows]))
    data.import_(tmp_path / "list.csv", ["birds"], group_column="patient")
    train, val = data.load("birds", "train", 8), data.load("birds", "val", 8)
    groups, held_out = data.joined(train, val).groups, []
    for number in range(len(groups) // len(val)):
        of_train, of_val = data.fold_rows(train, val, number)
        assert not set(groups[of_train]) & set(groups[of_val])
        held_out += of_val.tolist()
    assert sorted(held_out) == list(range(len(train) + len(val)))


def test_a_store_without_groups_is_read(tmp_path):
    data.import_(classes_of(tmp_path / "birds", 10), ["birds"])
    for split in store.STORED:
        file = store.place("birds") / f"{split}.parquet"
        table = pq.read_table(file).drop_columns(["group"])
        pq.write_table(table, file)
        assert parquet.groups(file) == [None] * len(table)
        assert [one.group for some in parquet.read(file) for one in some] == [None] * len(table)


# Copies


def recoded(path, suffix=".png"):
    """The same pixels in another file."""
    encoded = io.BytesIO()
    Image.open(path).convert("RGB").save(encoded, suffix[1:])
    return encoded.getvalue()


def test_pictures_of_the_same_pixels_never_fall_on_both_sides_of_a_division(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    for i in range(10):
        (source / f"owl/copy{i}.png").write_bytes(recoded(source / f"owl/{i:03d}.jpg"))
    (one,) = data.import_(source, ["birds"])
    assert sum(sizes(one.task)) == 30
    assert "10 images with the same pixels as others were left out" in one.report.notes
    assert one.report.ok
    assert all(pair.pixels == 0 for pair in one.report.duplicates)
    assert data.verify("birds").ok


def test_given_splits_keep_their_copies(tmp_path):
    for seed, split in enumerate(store.STORED):
        classes_of(tmp_path / "birds" / split, 10, seed)
    folder = tmp_path / "birds/train/owl"
    (folder / "copy.png").write_bytes(recoded(folder / "000.jpg"))
    assert sizes(data.import_(tmp_path / "birds", ["birds"])[0].task) == (31, 30, 30)


def test_val_that_is_cut_from_train_has_no_copies_of_it(tmp_path):
    for seed, split in enumerate(("train", "test")):
        classes_of(tmp_path / "birds" / split, 10, seed)
    for i in range(10):
        shutil.copy(tmp_path / f"birds/train/owl/{i:03d}.jpg", tmp_path / f"birds/train/owl/copy{i}.jpg")
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert sizes(one.task) == (24, 6, 30)
    assert one.report.duplicates[0].pixels == 0


def test_an_import_that_goes_on_knows_the_pictures_of_what_was_done(tmp_path, monkeypatch):
    source = classes_of(tmp_path / "birds", 10)
    for i in range(10):
        (source / f"owl/copy{i}.png").write_bytes(recoded(source / f"owl/{i:03d}.jpg"))
    write = parquet.write

    def interrupted(path, images, about):
        if path.stem == "test":
            raise KeyboardInterrupt
        write(path, images, about)

    monkeypatch.setattr(parquet, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.import_(source, ["birds"])
    monkeypatch.setattr(parquet, "write", write)
    (one,) = data.import_(source, ["birds"])
    assert sum(sizes(one.task)) == 30
    assert "10 images with the same pixels as others were left out" in one.report.notes


# One picture, two labels


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_one_picture_under_two_labels_is_refused_or_left_out(tmp_path, suffix):
    source = classes_of(tmp_path / "birds", 10)
    for i in range(3):
        first = source / f"owl/{i:03d}.jpg"
        (source / f"wren/x{i}{suffix}").write_bytes(first.read_bytes() if suffix == ".jpg" else recoded(first))
    what = r"one picture under two labels, '(owl|wren)' and '(owl|wren)' \(2 more such pictures\); .*--drop-conflicts"
    refused(source, what)
    assert not store.place("birds").exists()
    (one,) = data.import_(source, ["birds"], drop_conflicts=True)
    assert sum(sizes(one.task)) == 27
    assert one.report.ok
    assert data.verify("birds").ok


def test_one_path_under_two_labels_is_refused_with_both_lines(tmp_path):
    classes_of(tmp_path / "images", 10)
    rows = [f"images/{name}/{i:03d}.jpg,{name}" for name in BIRDS for i in range(10)]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *rows, "images/crow/004.jpg,owl"]))
    refused(tmp_path / "l.csv", "l.csv line 6 and .*l.csv line 32 are one picture under two labels, 'crow' and 'owl';")
    (source,) = sources(tmp_path / "l.csv", ["birds"], drop_conflicts=True)
    assert sum(source.sizes.values()) == 29
    assert "2 pictures under two labels, such as" in source.left_out[0]


def test_a_conflict_between_given_splits_is_refused(tmp_path):
    for seed, split in enumerate(store.STORED):
        classes_of(tmp_path / "birds" / split, 10, seed)
    shutil.copy(tmp_path / "birds/train/owl/000.jpg", tmp_path / "birds/test/wren/x.jpg")
    refused(tmp_path / "birds", "are one picture under two labels")


# Small and lopsided


def test_sixty_classes_of_two_are_divided_and_it_is_said_what_lacks():
    division = divided([i // 2 for i in range(120)])
    assert {split: len(rows) for split, rows in division.splits.items()} == {"train": 77, "val": 19, "test": 24}
    assert {i // 2 for i in division.splits["train"]} == set(range(60))
    assert len(division.notes) == 2
    assert division.notes[0].startswith("val has none of 41 of the 60 classes, of which there are too few images")


def test_a_class_of_one_image_is_for_training(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    fill(source / "zebra", 1, 2, seed=9)
    (one,) = data.import_(source, ["birds"])
    assert 3 in data.load("birds", "train", 8).labels
    assert any(note.startswith("test has none of 1 of the 4 classes") for note in one.report.notes)


def test_two_images_of_two_classes_are_too_few(tmp_path):
    refused(classes_of(tmp_path / "birds", 1), "each of the 3 pictures")
    with pytest.raises(BadInput, match="2 images, so 2 cannot be for training"):
        divided([0, 1])
