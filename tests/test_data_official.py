"""The exact benchmark from its sources: slices and labels, on small stand-ins shaped like the real features.

The real data sets are never read here: what TFDS itself does is not tested.
"""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from vtab import encode, jpeg, picture

from idat_tune import data, tasks
from idat_tune.data import importing, official, tfds
from idat_tune.data.official import OFFICIAL, Rows, label
from idat_tune.errors import BadInput

# Images per split of the source, of those data sets whose slices run to an end or are taken from within.
FULL = {
    "cifar": {"train": 50000, "test": 10000},
    "dtd": {"train": 1880, "validation": 1880, "test": 1880},
    "oxford_flowers102": {"train": 1020, "validation": 1020, "test": 6149},
    "svhn": {"train": 73257, "test": 26032},
    "eurosat": {"train": 27000},
    "resisc45": {"train": 31500},
    "clevr_count": {"train": 70000, "validation": 15000, "test": 15000},
    "clevr_dist": {"train": 70000, "validation": 15000, "test": 15000},
    "dmlab": {"train": 65550, "validation": 22628, "test": 22735},
    "kitti": {"train": 6347, "validation": 423, "test": 711},
    "dsprites_loc": {"train": 737280},
    "dsprites_ori": {"train": 737280},
    "smallnorb_azi": {"train": 24300, "test": 24300},
    "smallnorb_ele": {"train": 24300, "test": 24300},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))


def test_every_task_of_the_benchmark_has_a_source():
    assert set(OFFICIAL) == {task.name for task in tasks.select(["all"])}


@pytest.mark.parametrize("name", FULL)
def test_slices_of_the_whole_source_have_the_benchmark_s_sizes(name):
    found = tfds.sliced(tasks.get(name), lambda rows: iter(()), FULL[name], "here", any_size=False)
    task = tasks.get(name)
    assert found.sizes == {"train": 800, "val": 200, "test": task.test}


def test_a_source_with_other_splits_or_sizes_is_refused():
    read = lambda rows: iter(())  # noqa: E731
    with pytest.raises(BadInput, match="has no split 'validation', which dtd needs; found: train, test"):
        tfds.sliced(tasks.get("dtd"), read, {"train": 1880, "test": 1880}, "here", False)
    with pytest.raises(BadInput, match=r"the val split of cifar has 100 images, the benchmark's has 200"):
        tfds.sliced(tasks.get("cifar"), read, {"train": 45100, "test": 10000}, "here", False)


def test_no_training_image_is_in_val_or_test():
    for name, where in OFFICIAL.items():
        if name in FULL:
            places = [
                {(rows.split, i) for i in range(FULL[name][rows.split])[rows.first : rows.last]}
                for rows in (where.train, where.val, where.test)
            ]
            assert len(set.union(*places)) == sum(map(len, places)), name


def objects(**fields):
    return {"objects": fields}


@pytest.mark.parametrize(("count", "expected"), [(3, 0), (7, 4), (10, 7)])
def test_clevr_count_counts_from_three(count, expected):
    assert label("clevr_count", objects(pixel_coords=np.zeros((count, 3))), "row") == expected


@pytest.mark.parametrize(
    ("nearest", "expected"), [(7.9, 0), (8.0, 0), (8.01, 1), (8.5, 1), (8.7, 2), (9.3, 3), (9.9, 4), (10.0, 4), (11, 5)]
)
def test_clevr_distance_is_that_of_the_nearest_object(nearest, expected):
    places = [[1.0, 2.0, 12.0], [0.0, 0.0, nearest]]
    assert label("clevr_dist", objects(pixel_coords=np.array(places)), "row") == expected


def test_objects_may_come_as_a_list_as_hugging_face_has_them():
    row = {"objects": [{"pixel_coords": [1, 2, 9.7]}, {"pixel_coords": [1, 2, 8.2]}, {"pixel_coords": [1, 2, 9.1]}]}
    assert label("clevr_dist", row, "row") == 1
    assert label("clevr_count", row, "row") == 0


@pytest.mark.parametrize(
    ("kinds", "depths", "expected"),
    [
        ([0], [8.0], 0),
        ([1, 2], [30.0, 8.1], 1),
        ([2], [20.0], 1),
        ([0], [20.1], 2),
        ([3, 7], [2.0, 3.0], 3),  # a pedestrian and something else: no vehicle
        ([3, 0], [2.0, 25.0], 2),
        ([], [], 3),
    ],
)
def test_kitti_is_the_distance_of_the_nearest_car_van_or_truck(kinds, depths, expected):
    row = objects(type=np.array(kinds), location=np.array([[0, 0, depth] for depth in depths]).reshape(-1, 3))
    assert label("kitti", row, "row") == expected


def test_dsprites_positions_make_16_even_buckets():
    found = [label("dsprites_loc", {"label_x_position": value}, "row") for value in range(32)]
    assert np.bincount(found).tolist() == [2] * 16
    assert found == sorted(found)


def test_dsprites_orientations_make_16_buckets_of_three_and_two():
    found = [label("dsprites_ori", {"label_orientation": value}, "row") for value in range(40)]
    assert found == [int(value / 2.5) for value in range(40)]
    assert np.bincount(found).tolist() == [3, 2] * 8


def test_smallnorb_and_plain_labels_are_as_they_are():
    row = {"label_azimuth": np.int64(17), "label_elevation": 8, "label": 4}
    assert [label(name, row, "row") for name in ("smallnorb_azi", "smallnorb_ele", "dmlab")] == [17, 8, 4]
    assert label("cifar", {"coarse_label": 1, "fine_label": 77}, "row") == 77


def test_a_row_without_the_feature_is_named():
    with pytest.raises(BadInput, match=r"here 5: no label for kitti in features image, label"):
        label("kitti", {"image": b"", "label": 1}, "here 5")
    with pytest.raises(BadInput, match="no label for clevr_dist"):
        label("clevr_dist", objects(pixel_coords=np.zeros((0, 3))), "row")


def test_dsprites_zeros_and_ones_become_black_and_white():
    values = np.eye(4, dtype=np.uint8)
    shown = official.image("dsprites_loc", encode(Image.fromarray(values), "PNG"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown))), values * 255)
    already = encode(Image.fromarray(values * 255), "PNG")
    assert official.image("dsprites_loc", already) == already


def small(name, monkeypatch):
    """A task and its slices, cut down to a few rows of the same layout."""
    scaled = replace(
        OFFICIAL[name],
        train=Rows("train", 0, 8),
        val=replace(OFFICIAL[name].val, first=0 if OFFICIAL[name].val.first == 0 else 10, last=None),
        test=replace(OFFICIAL[name].test, first=20 if OFFICIAL[name].test.first else 0),
    )
    scaled = replace(scaled, val=replace(scaled.val, last=scaled.val.first + 4))
    monkeypatch.setitem(OFFICIAL, name, scaled)
    return tasks.get(name)


def pictures(count, seed):
    rng = np.random.default_rng(seed)
    return [jpeg(picture(rng, i % 5, 5, 16)) for i in range(count)]


def test_rows_shaped_like_those_of_tfds_become_a_task(monkeypatch):
    task = small("clevr_count", monkeypatch)
    splits = {"train": 30, "validation": 6}
    rows = {
        split: [
            {"image": image, "objects": {"pixel_coords": np.full((3 + i % 8, 3), 9.0)}}
            for i, image in enumerate(pictures(count, len(split)))
        ]
        for split, count in splits.items()
    }
    source = tfds.sliced(task, lambda of: iter(rows[of.split][of.first : of.last]), splits, "here", any_size=True)
    importing.store_all([source])
    assert data.load(task.name, "train", 8).labels.tolist() == list(range(8))
    assert data.load(task.name, "val", 8).labels.tolist() == [2, 3, 4, 5]  # rows 10 to 13
    assert len(data.load(task.name, "test", 8)) == 6


def test_a_hugging_face_copy_is_sliced_by_its_rows(tmp_path, monkeypatch):
    task = small("smallnorb_ele", monkeypatch)
    (tmp_path / "copy").mkdir()
    for split in ("train", "test"):
        rows = pictures(30, len(split))
        table = pa.table({"image": rows, "label_elevation": [i % 9 for i in range(30)], "label_azimuth": [0] * 30})
        pq.write_table(table, tmp_path / f"copy/{split}-00000-of-00001.parquet", row_group_size=7)
    (one,) = data.import_(tmp_path / "copy", ["smallnorb_ele"], any_size=True)
    assert data.load(task.name, "train", 8).labels.tolist() == list(range(8))
    assert data.load(task.name, "val", 8).labels.tolist() == [0, 1, 2, 3]
    assert data.load(task.name, "test", 8).labels.tolist() == [i % 9 for i in range(20, 30)]
    assert "rows were taken by their place" in one.report.notes[0]


def test_labels_out_of_range_in_a_copy_are_named(tmp_path, monkeypatch):
    small("dtd", monkeypatch)
    (tmp_path / "copy").mkdir()
    for split in ("train", "validation", "test"):
        pq.write_table(
            pa.table({"image": pictures(9, len(split)), "label": [99] * 9}), tmp_path / f"copy/{split}.parquet"
        )
    with pytest.raises(BadInput, match=r"train\.parquet row 0: label 99 is not in 0\.\.46"):
        data.import_(tmp_path / "copy", ["dtd"], any_size=True)


def test_a_copy_without_a_needed_split_is_refused(tmp_path):
    (tmp_path / "copy").mkdir()
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "copy/train.parquet")
    with pytest.raises(BadInput, match="has no split 'validation', which dtd needs; found: train"):
        data.import_(tmp_path / "copy", ["dtd"], any_size=True)


def test_tfds_is_recognised_and_its_library_asked_for(tmp_path, monkeypatch):
    (tmp_path / "dtd/3.0.1").mkdir(parents=True)
    (tmp_path / "dtd/3.0.1/features.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    with pytest.raises(BadInput, match=r"reading TFDS needs its library; install it with `pip install"):
        data.import_(tmp_path)
    assert tfds.there(tmp_path, list(OFFICIAL)) == ["dtd"]
