"""Repeated stratified splits of the training images."""

import numpy as np
import pytest

from idat_tune import data
from idat_tune.data import Images
from idat_tune.data.folds import fold_of


def numbered(labels: np.ndarray) -> Images:
    """Images whose first pixel is their number."""
    pixels = np.zeros((len(labels), 1, 2, 2), np.uint16)
    pixels[:, 0, 0, 0] = np.arange(len(labels))
    return Images(pixels, labels)


def numbers(images: Images) -> set[int]:
    return set(images.pixels[:, 0, 0, 0].tolist())


@pytest.fixture
def splits() -> tuple[Images, Images]:
    labels = np.random.default_rng(3).integers(0, 7, 1000)
    everything = numbered(labels)
    return Images(everything.pixels[:800], labels[:800]), Images(everything.pixels[800:], labels[800:])


def test_every_image_is_a_val_image_once_in_five_folds(splits):
    folds = [data.fold(*splits, number) for number in range(5)]
    assert [len(val) for _, val in folds] == [200] * 5
    assert set.union(*(numbers(val) for _, val in folds)) == set(range(1000))
    for train, val in folds:
        assert numbers(train) | numbers(val) == set(range(1000))
        assert not numbers(train) & numbers(val)


def test_folds_keep_the_shares_of_the_classes(splits):
    whole = np.bincount(data.joined(*splits).labels)
    for number in range(5):
        share = np.bincount(data.fold(*splits, number)[1].labels, minlength=7)
        assert (abs(share - whole / 5) < 1).all()


def test_the_next_five_folds_are_another_partition(splits):
    first, second = ([numbers(data.fold(*splits, number)[1]) for number in r] for r in (range(5), range(5, 10)))
    assert set.union(*second) == set(range(1000))
    assert not any(one == other for one in first for other in second)


def test_folds_are_the_same_each_time(splits):
    assert numbers(data.fold(*splits, 3)[1]) == numbers(data.fold(*splits, 3)[1])


def test_labels_and_pixels_stay_together(splits):
    labels = data.joined(*splits).labels
    train, val = data.fold(*splits, 2)
    for part in (train, val):
        assert (part.labels == labels[part.pixels[:, 0, 0, 0]]).all()


def test_more_classes_than_a_fold_has_images_are_dealt_out_as_well():
    labels = np.arange(1000) % 397  # as sun397: two or three images per class
    masks = [fold_of(labels, 5, number) for number in range(5)]
    assert [int(mask.sum()) for mask in masks] == [200] * 5
    assert sum(masks).tolist() == [1] * 1000


def test_pictures_of_the_same_pixels_stay_together(splits):
    train, val = splits
    train.pixels[:40] = val.pixels[:40]
    for number in range(5):
        of_train, of_val = data.fold_rows(train, val, number)
        assert set(of_train) | set(of_val) == set(range(1000))
        assert all((i in of_val) == (800 + i in of_val) for i in range(40))
        assert 190 <= len(of_val) <= 210


def test_groups_stay_together_and_classes_keep_their_shares(splits):
    train, val = (
        Images(part.pixels, part.labels, (numbers // 4).astype(str))
        for part, numbers in zip(splits, (np.arange(800), np.arange(800, 1000)), strict=True)
    )
    seen, whole = [], np.bincount(data.joined(train, val).labels)
    for number in range(5, 10):
        of_train, of_val = data.fold_rows(train, val, number)
        assert not set(of_train // 4) & set(of_val // 4)
        assert abs(len(of_val) - 200) <= 8
        share = np.bincount(data.joined(train, val).labels[of_val], minlength=7)
        assert (abs(share - whole / 5) < 6).all()
        seen += of_val.tolist()
    assert sorted(seen) == list(range(1000))


def test_fewer_groups_than_folds_leave_no_fold_empty(splits):
    train, val = (Images(part.pixels, part.labels, np.arange(len(part)) % 3) for part in splits)
    train, val = (Images(part.pixels, part.labels, part.groups.astype(str)) for part in (train, val))
    for number in range(6):
        assert all(len(rows) for rows in data.fold_rows(train, val, number))
