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
