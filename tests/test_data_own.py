"""Everyone's own images: folders, lists and Hugging Face copies become tasks."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from birds import BIRDS, classes_of, fill, home, refused, sizes  # noqa: F401
from vtab import jpeg, picture

from idat_tune import data, tasks
from idat_tune.config import RunConfig
from idat_tune.data.dealing import stratified
from idat_tune.data.ways import sources
from idat_tune.errors import BadInput

# Folders


def test_a_folder_per_class_is_divided_at_random_in_the_same_proportions(tmp_path):
    (one,) = data.import_(classes_of(tmp_path / "birds", 20), ["birds"])
    assert one.task.class_names == BIRDS
    assert sizes(one.task) == (38, 10, 12)
    for split, least, most in [("train", 12, 13), ("val", 3, 4), ("test", 4, 4)]:
        counts = np.bincount(data.load("birds", split, 8).labels)
        assert counts.min() >= least
        assert counts.max() <= most


def test_the_division_repeats_for_a_seed_and_changes_with_it(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    for folder, seed in [(first, 1), (again, 1), (other, 2)]:
        data.import_(source, ["birds"], seed=seed, folder=folder)
    assert data.content_hash("birds", first) == data.content_hash("birds", again)
    assert data.content_hash("birds", first) != data.content_hash("birds", other)


def test_the_number_of_training_images_may_be_chosen(tmp_path):
    (one,) = data.import_(classes_of(tmp_path / "birds", 10), ["birds"], train_images=10)
    assert sizes(one.task) == (8, 2, 20)


def test_a_thousand_images_are_for_training_where_there_are_more():
    labels = np.repeat(np.arange(3), [900, 500, 100]).tolist()
    drawn = stratified(labels, 1000, 0)
    assert len(set(drawn)) == 1000
    assert np.bincount([labels[i] for i in drawn]).tolist() in ([600, 333, 67], [600, 334, 66])


def test_every_class_is_drawn_from_where_there_are_enough_draws():
    labels = [0] * 95 + [1, 2, 3, 4, 5]
    assert {labels[i] for i in stratified(labels, 10, 0)} == {0, 1, 2, 3, 4, 5}


def test_the_only_image_of_a_class_is_for_training(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    fill(source / "zebra", 1, 2, seed=9)
    data.import_(source, ["birds"], train_images=30)
    assert 3 not in data.load("birds", "val", 8).labels


def test_splits_are_taken_as_they_are(tmp_path):
    for seed, (split, count) in enumerate([("train", 6), ("valid", 2), ("Test", 3)]):
        classes_of(tmp_path / "birds" / split, count, seed)
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert sizes(one.task) == (18, 6, 9)


def test_val_is_cut_from_train_where_there_is_none(tmp_path):
    classes_of(tmp_path / "birds/train", 10)
    classes_of(tmp_path / "birds/test", 3, seed=1)
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert sizes(one.task) == (24, 6, 9)


def test_test_is_cut_from_train_where_there_is_none(tmp_path):
    classes_of(tmp_path / "birds/train", 10)
    classes_of(tmp_path / "birds/val", 3, seed=1)
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert sizes(one.task) == (24, 9, 6)
    assert "there are no test images, so 6 of train were taken for it" in one.report.notes


def test_images_that_are_all_called_train_are_divided(tmp_path):
    classes_of(tmp_path / "birds/train", 10)
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert sizes(one.task) == (19, 5, 6)
    assert "all images are called train, so val and test were taken from them" in one.report.notes


def test_a_class_that_train_lacks_is_reported(tmp_path):
    classes_of(tmp_path / "birds/train", 5)
    classes_of(tmp_path / "birds/test", 3, seed=1)
    fill(tmp_path / "birds/test/heron", 2, seed=5)
    (one,) = data.import_(tmp_path / "birds", ["birds"])
    assert one.task.class_names == ("crow", "heron", "owl", "wren")
    assert one.report.missing_classes == (1,)
    assert "train has no image of 1 class: heron" in one.report.findings


def test_exact_copies_never_fall_on_both_sides_of_a_division(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    for i in range(5):
        (source / f"owl/copy{i}.jpg").write_bytes((source / "owl/000.jpg").read_bytes())
    (one,) = data.import_(source, ["birds"])
    assert sum(sizes(one.task)) == 30
    assert "5 exact copies of other images were left out" in one.report.notes
    assert all(pair.pixels == 0 for pair in one.report.duplicates)


def test_what_is_no_image_by_its_name_is_passed_over_and_said(tmp_path):
    source = classes_of(tmp_path / "birds", 10)
    (source / "owl/notes.txt").write_text("x")
    (source / "owl/.DS_Store").write_text("x")
    (source / "readme.md").write_text("x")
    (one,) = data.import_(source, ["birds"])
    assert one.left_out == ("1 .DS_Store", "1 .md", "1 .txt")


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    for label, name in enumerate(("10", "9", "1")):
        fill(tmp_path / "source" / name, 5, label)
    assert data.import_(tmp_path / "source", ["birds"])[0].task.class_names == ("1", "9", "10")


@pytest.mark.parametrize(
    ("folders", "what"),
    [
        (["test/owl", "test/crow"], "has test but no train images"),
        (["owl"], "has one class only, owl"),
    ],
)
def test_folders_that_make_no_task_are_refused(tmp_path, folders, what):
    for seed, folder in enumerate(folders):
        fill(tmp_path / "source" / folder, 5, seed=seed)
    refused(tmp_path / "source", what)


def test_val_with_the_images_of_train_is_refused(tmp_path):
    for split in ("train", "val"):
        classes_of(tmp_path / "birds" / split, 4)
    classes_of(tmp_path / "birds/test", 4, seed=1)
    refused(tmp_path / "birds", "12 of 12 val images of birds are in train too")


@pytest.mark.parametrize("number", [0, 1, -3, 30, 31])
def test_impossible_numbers_of_training_images_are_refused(tmp_path, number):
    refused(classes_of(tmp_path / "birds", 10), "train", train_images=number)


@pytest.mark.parametrize(
    ("name", "what"),
    [("pets", "already names the task Pets"), ("all", "is a group"), ("../x", "cannot name"), ("", "cannot name")],
)
def test_names_that_are_taken_or_no_names_are_refused(tmp_path, name, what):
    with pytest.raises(BadInput, match=what):
        data.import_(classes_of(tmp_path / "birds", 4), [name])


# Usable everywhere a VTAB task is


def test_an_own_task_is_known_to_configs_by_itself(tmp_path):
    with pytest.raises(BadInput, match="unknown task 'my_birds'; known: cifar"):
        RunConfig.for_task("my_birds")
    data.import_(classes_of(tmp_path / "source", 10), ["My Birds"])
    assert RunConfig.for_task("My-Birds").task == "my_birds"
    assert [task.name for task in tasks.select(["own"])] == ["my_birds"]
    assert "my_birds" not in [task.name for task in tasks.select(["all"])]
    data.require("my_birds")
    assert data.verify("my_birds").ok
    assert data.listing()[-1].task.name == "my_birds"


def test_a_group_and_a_sentence_name_own_tasks_that_nobody_asked_for_yet(tmp_path):
    data.import_(classes_of(tmp_path / "source", 10), ["birds"])
    with pytest.raises(BadInput, match="unknown task 'bird'; did you mean 'birds'"):
        RunConfig.for_task("bird")
    assert [task.name for task in tasks.select(["own"])] == ["birds"]


def test_python_knows_an_own_task_without_a_further_call(tmp_path):
    data.import_(classes_of(tmp_path / "source", 10), ["birds"])
    program = "import idat_tune; config = idat_tune.RunConfig.for_task('birds'); print(config.task, config.classes)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["birds", "3"]


def test_own_tasks_of_another_process_are_found_in_the_store(tmp_path):
    data.import_(classes_of(tmp_path / "source", 10), ["birds"])
    task = data.task("birds")
    assert (task.group, task.classes, task.title) == ("own", 3, "birds")
    assert len(data.load("birds", "test", 8)) == 6


# Hugging Face copies


def saved(folder, rows, names=BIRDS):
    """What `Dataset.save_to_disk` writes of the rows: an Arrow stream, and what its columns mean."""
    folder.mkdir(parents=True)
    about = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = pa.table({"image": [{"bytes": image, "path": None} for image, _ in rows], "label": [n for _, n in rows]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    half = len(rows) // 2
    for i, part in enumerate([table.slice(0, half), table.slice(half)]):
        with pa.ipc.new_stream(folder / f"data-{i:05d}-of-00002.arrow", table.schema) as writer:
            writer.write_table(part)
    (folder / "dataset_info.json").write_text("{}")


def rows_of(count, seed):
    rng = np.random.default_rng(seed)
    return [(jpeg(picture(rng, i % 3, 3, 16)), i % 3) for i in range(count)]


def test_a_saved_data_set_with_splits_becomes_a_task(tmp_path):
    for seed, (split, count) in enumerate([("train", 30), ("validation", 6), ("test", 9)]):
        saved(tmp_path / "copy" / split, rows_of(count, seed))
    (one,) = data.import_(tmp_path / "copy", ["birds"])
    assert sizes(one.task) == (30, 6, 9)
    assert one.task.class_names == BIRDS
    assert data.load("birds", "test", 8).labels.tolist() == [0, 1, 2] * 3


def test_a_saved_data_set_without_splits_is_divided(tmp_path):
    saved(tmp_path / "copy", rows_of(30, 0))
    (one,) = data.import_(tmp_path / "copy", ["birds"])
    assert sizes(one.task) == (19, 5, 6)
    assert "there is one split only, so its rows were divided into train, val and test" in one.report.notes


def test_train_and_validation_are_enough_of_a_saved_data_set(tmp_path):
    saved(tmp_path / "copy/train", rows_of(30, 0))
    saved(tmp_path / "copy/validation", rows_of(6, 1))
    assert sizes(data.import_(tmp_path / "copy", ["birds"])[0].task) == (24, 6, 6)


def test_a_split_of_another_name_is_left_out_and_told(tmp_path):
    for seed, split in enumerate(("train", "test", "extra")):
        saved(tmp_path / "copy" / split, rows_of(30, seed))
    (source,) = sources(tmp_path / "copy", ["birds"])
    assert source.sizes == {"train": 24, "val": 6, "test": 30}
    assert len(source.left_out) == 2
    assert all(told.endswith("neither train, validation nor test by its name") for told in source.left_out)


def test_names_of_labels_that_do_not_occur_make_no_classes(tmp_path):
    saved(tmp_path / "copy", rows_of(30, 0), (*BIRDS, "dodo"))
    (source,) = sources(tmp_path / "copy", ["birds"])
    assert source.task.class_names == BIRDS
    assert source.left_out == ("dodo: classes without a picture",)


def test_a_label_without_a_name_is_refused(tmp_path):
    saved(tmp_path / "copy", [*rows_of(30, 0), (b"", 3)])
    refused(tmp_path / "copy", r"00001-of-00002\.arrow row 15: label '3' is not in 0\.\.2")


def test_the_cache_of_the_library_is_read_too(tmp_path):
    place = tmp_path / "someone___birds/default/0.0.0/abc"
    saved(place, rows_of(12, 0))
    for i in range(2):
        (place / f"data-{i:05d}-of-00002.arrow").rename(place / f"birds-train-{i:05d}-of-00002.arrow")
    with pa.ipc.new_stream(place / "birds-test.arrow", pa.schema([])) as _:
        pass
    (place / "birds-test.arrow").unlink()
    saved(tmp_path / "test", rows_of(6, 1))
    for i in range(2):
        (tmp_path / f"test/data-{i:05d}-of-00002.arrow").rename(place / f"birds-test-{i:05d}-of-00002.arrow")
    (place / "cache-1234.arrow").write_bytes(b"what a map() left")
    assert sizes(data.import_(place, ["birds"])[0].task) == (10, 2, 6)


def test_two_copies_of_a_split_are_not_taken_for_one(tmp_path):
    for version in ("a", "b"):
        saved(tmp_path / "copy" / version / "train", rows_of(6, 0))
    refused(tmp_path / "copy", r"has the split train more than once: .*a/train and .*b/train; name one")


def test_images_that_are_only_absolute_paths_are_refused(tmp_path):
    (tmp_path / "copy").mkdir()
    table = pa.table({"image": [{"bytes": None, "path": "/a.jpg"}] * 10, "label": [0, 1] * 5})
    pq.write_table(table, tmp_path / "copy/train.parquet")
    refused(tmp_path / "copy", "'/a.jpg' is an absolute path; .*--allow-outside")


def test_columns_that_are_missing_are_named(tmp_path):
    (tmp_path / "copy").mkdir()
    pq.write_table(pa.table({"image": [b"x"], "name": ["owl"]}), tmp_path / "copy/train.parquet")
    refused(tmp_path / "copy", "needs the columns path and label; it has: image, name")


def test_a_task_that_is_imported_anew_is_known_anew_in_the_same_process(tmp_path):
    data.import_(classes_of(tmp_path / "birds", 20), ["birds"])
    assert RunConfig.for_task("birds").classes == len(BIRDS)
    fill(tmp_path / "birds" / "robin", 20, seed=99)
    data.import_(tmp_path / "birds", ["birds"], replace=True)
    assert RunConfig.for_task("birds").classes == len(BIRDS) + 1
