"""The store: whole or not at all, shared by processes, mapped into memory."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vtab

from idat_tune import data, tasks
from idat_tune.data import cache, examined
from idat_tune.errors import BadInput


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return vtab.make(tmp_path_factory.mktemp("prepared"), ["svhn", "kitti"])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def svhn(source, home):
    data.import_(source, ["svhn"], any_size=True)
    return home / "svhn"


def python(code, **environment):
    """Run code in a fresh process; what it prints, as lines."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout.splitlines()


def states():
    return {one.task.name: one.state for one in data.listing()}


# Names and places


def test_the_folder_is_the_given_one_else_the_environment_s_else_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("IDAT_TUNE_DATA", "/one")
    assert data.folder(tmp_path) == tmp_path
    assert str(data.folder()) == "/one"
    monkeypatch.delenv("IDAT_TUNE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(data.folder()) == "/cache/idat-tune/data"


def test_a_task_that_is_not_imported_says_where_it_was_looked_for_and_how_to_import_it(home):
    with pytest.raises(BadInput, match=rf"the images of dtd are not in {home}; .* --from PATH --task dtd`"):
        data.require("dtd")
    with pytest.raises(BadInput, match="--task dtd"):
        data.load("dtd", "train")


def test_an_unknown_task_is_answered_with_the_nearest(home):
    with pytest.raises(BadInput, match="did you mean 'svhn'"):
        data.require("svhm")


def test_embedded_tasks_are_always_there(home):
    data.require("digits")
    assert states()["digits"] == "embedded"


def test_asking_for_a_task_loads_nothing_heavy(svhn):
    loaded = python(
        """
        import sys
        from idat_tune import data
        data.require("svhn"); data.task("svhn"); data.content_hash("svhn"); data.register_own(); data.listing()
        print([name for name in ("numpy", "pyarrow", "PIL", "torch", "sklearn") if name in sys.modules])
        """
    )
    assert loaded == ["[]"]


# Loading


def test_trainval_is_train_followed_by_val(svhn):
    train, val, both = (data.load("svhn", split, 16) for split in ("train", "val", "trainval"))
    assert np.array_equal(both.pixels, np.concatenate([train.pixels, val.pixels]))
    assert np.array_equal(both.labels, np.concatenate([train.labels, val.labels]))
    assert both.pixels.dtype == np.uint8
    assert both.labels.dtype == np.int64


def test_pixels_are_mapped_not_copied(svhn):
    data.load("svhn", "train", 16)
    again = data.load("svhn", "val", 16).pixels
    while again.base is not None and not isinstance(again, np.memmap):
        again = again.base
    assert isinstance(again, np.memmap)


def test_what_a_process_writes_to_pixels_stays_in_it(svhn):
    first = data.load("svhn", "train", 16).pixels
    before = first.copy()
    first[:] = 0
    assert np.array_equal(data.load("svhn", "train", 16).pixels, before)


def test_a_warm_cache_needs_neither_arrow_nor_pil_nor_torch(svhn):
    data.load("svhn", "train", 16)
    loaded = python(
        """
        import sys
        from idat_tune import data
        assert len(data.load("svhn", "trainval", 16)) == 32
        print([name for name in ("pyarrow", "PIL", "torch") if name in sys.modules])
        """
    )
    assert loaded == ["[]"]


def test_the_cache_is_an_arrow_file_that_any_tool_reads(svhn, home):
    images = data.load("svhn", "trainval", 16)
    (path,) = (home / ".pixels").glob("*.arrow")
    table = pa.ipc.open_file(path).read_all()
    assert table["label"].to_pylist() == images.labels.tolist()
    assert np.array_equal(np.array(table["pixels"].to_pylist()).reshape(images.pixels.shape), images.pixels)


def test_the_store_is_parquet_that_any_tool_reads(svhn, source):
    table = pq.read_table(svhn / "val.parquet")
    assert table.schema.field("image").type == pa.binary()
    assert table["image"][0].as_py() == (source / "svhn/images/val200/000000.jpg").read_bytes()
    about = json.loads(table.schema.metadata[b"idat-tune"])
    assert about["class_names"] == list("0123456789")
    assert about["source"] == {"kind": "prepared", "path": str(source / "svhn")}


@pytest.mark.parametrize("shape", [(8, 3, "bicubic"), (16, 1, "bicubic"), (16, 3, "bilinear")])
def test_each_size_channels_and_interpolation_has_its_own_cache(svhn, shape):
    plain, other = data.load("svhn", "train", 16).pixels, data.load("svhn", "train", *shape).pixels
    assert other.shape == (24, shape[1], shape[0], shape[0])
    assert other.shape != plain.shape or not np.array_equal(plain, other)


def test_the_cache_is_rebuilt_when_the_source_changes(svhn, source, tmp_path, home):
    before = data.load("svhn", "train", 16).pixels.copy()
    other = vtab.make(tmp_path / "other", ["svhn"], pixels=30)
    data.import_(other, any_size=True, replace=True)
    assert not np.array_equal(data.load("svhn", "train", 16).pixels, before)
    assert len(list((home / ".pixels").glob("*.arrow"))) == 1


def test_a_damaged_cache_is_built_again(svhn, home):
    before = data.load("svhn", "train", 16).pixels.copy()
    (path,) = (home / ".pixels").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:-10])
    assert np.array_equal(data.load("svhn", "train", 16).pixels, before)


def test_a_read_only_store_is_cached_in_the_user_s_folder(svhn, home, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: path != home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert len(data.load("svhn", "train", 16)) == 24
    assert list((tmp_path / "user/idat-tune/pixels").glob("svhn-*.arrow"))


def test_test_is_streamed_in_batches_and_never_cached(svhn, home):
    batches = list(data.batches("svhn", "test", 16, batch=7))
    assert [len(batch) for batch in batches] == [7, 7, 2]
    whole = data.load("svhn", "test", 16)
    assert np.array_equal(np.concatenate([batch.pixels for batch in batches]), whole.pixels)
    assert np.concatenate([batch.labels for batch in batches]).tolist() == whole.labels.tolist()
    assert not (home / ".pixels").exists()


def test_an_abandoned_stream_of_test_leaves_no_threads(svhn):
    before = threading.active_count()
    stream = data.batches("svhn", "test", 16, batch=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_other_splits_come_in_batches_too(svhn):
    assert [len(batch) for batch in data.batches("svhn", "val", 16, batch=5)] == [5, 3]


def test_bad_questions_are_refused_before_any_work(svhn):
    for arguments, what in [
        (("svhn", "dev"), "unknown split 'dev'"),
        (("svhn", "train", 0), "size 0"),
        (("svhn", "train", 16, 2), "not 2"),
        (("svhn", "test", 16, 3, "sharp"), "unknown interpolation"),
    ]:
        with pytest.raises(BadInput, match=what):
            data.load(*arguments)
        with pytest.raises(BadInput, match=what):
            data.batches(*arguments)


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_embedded_tasks_load_at_their_own_size_and_any_other(split):
    pytest.importorskip("idat_tune.embedded")
    own = data.load("digits", split, 32, 1)
    assert own.pixels.shape[1:] == (1, 32, 32)
    other = data.load("digits", split, 16, 3)
    assert other.pixels.shape == (len(own), 3, 16, 16)
    assert np.array_equal(other.labels, own.labels)
    assert len(data.content_hash("digits")) == 64


# Whole or not at all


def test_importing_again_from_the_same_source_does_nothing(svhn, source):
    before = (svhn / "task.json").stat().st_mtime_ns
    (one,) = data.import_(source, ["svhn"], any_size=True)
    assert one.already
    assert (svhn / "task.json").stat().st_mtime_ns == before


def test_importing_from_another_source_must_be_asked_for(svhn, tmp_path):
    other = vtab.make(tmp_path / "other", ["svhn"], pixels=30)
    again = f"`idat-tune data import --from {other / 'svhn'} --task svhn --any-size --replace`"
    with pytest.raises(BadInput, match="svhn is in .* already, imported from .*; import over it with") as failure:
        data.import_(other, any_size=True)
    assert again in str(failure.value)
    assert not data.import_(other, any_size=True, replace=True)[0].already


def test_progress_counts_all_images_of_all_tasks(source, home):
    seen = []
    data.import_(source, any_size=True, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (96, 96)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


class Interrupted(BaseException):
    """As KeyboardInterrupt is: not an Exception."""


def test_an_interrupted_import_is_no_import_and_goes_on_where_it_was(source, home, monkeypatch):
    def stop_within_test(done, total):
        if done > 40:
            raise Interrupted

    with pytest.raises(Interrupted):
        data.import_(source, ["svhn"], any_size=True, progress=stop_within_test)
    assert states()["svhn"] == "half imported"
    with pytest.raises(BadInput, match="only half imported"):
        data.require("svhn")

    looked_at = []
    examine = examined.examine
    monkeypatch.setattr(examined, "examine", lambda one: looked_at.append(one.name) or examine(one))
    (one,) = data.import_(source, ["svhn"], any_size=True)
    assert len(looked_at) == 16  # train and val were kept
    assert one.report.ok
    assert one.report.images == {"train": 24, "val": 8, "test": 16}
    data.import_(source, ["svhn"], any_size=True, folder=home / "anew")
    assert data.content_hash("svhn") == data.content_hash("svhn", home / "anew")


def test_a_killed_import_is_no_import_and_leaves_nothing_in_a_later_one(source, home):
    python(
        f"""
        import os
        from idat_tune import data
        data.import_({str(source)!r}, ["svhn"], any_size=True, progress=lambda done, _: os.kill(os.getpid(), 9))
        """
    )
    assert states()["svhn"] == "half imported"
    data.import_(source, ["svhn"], any_size=True)
    names = {"task.json", "train.parquet", "val.parquet", "test.parquet"}
    assert {file.name for file in (home / "svhn").iterdir()} == names
    assert not list((home / ".partial").iterdir())


def test_a_full_disk_leaves_nothing_half_written(source, home):
    # A limit on the size of files stands for the full disk: the write fails in the middle, for real.
    said = python(
        f"""
        import resource
        from idat_tune import data
        from idat_tune.errors import IdatError
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            data.import_({str(source)!r}, ["svhn"], any_size=True)
        except IdatError as failure:
            print(failure)
        """
    )
    assert said[0].startswith("the disk is full: ")
    assert [file for file in home.rglob("*") if file.is_file()] == [home / ".locks/svhn.lock"]


def test_a_full_disk_while_caching_leaves_nothing_half_written(svhn, home):
    said = python(
        """
        import resource
        from idat_tune import data
        from idat_tune.errors import IdatError
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            data.load("svhn", "train", 64)
        except IdatError as failure:
            print(failure)
        """
    )
    assert said[0].startswith("the disk is full: ")
    assert [file.name for file in (home / ".pixels").iterdir()] == ["build.lock"]


def test_two_processes_may_import_the_same_at_once(source, home):
    code = f"from idat_tune import data; print(data.import_({str(source)!r}, ['svhn'], any_size=True)[0].already)"
    with ThreadPoolExecutor() as pool:
        said = [line for lines in pool.map(python, [code] * 2) for line in lines]
    assert sorted(said) == ["False", "True"]
    assert data.verify("svhn").ok


def test_two_threads_build_the_cache_once(svhn, monkeypatch):
    built = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda *arguments: built.append(1) or build(*arguments))
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: data.load("svhn", "train", 16).pixels, range(2)))
    assert np.array_equal(*both)
    assert built == [1]


def test_a_store_of_a_newer_version_is_refused(svhn):
    manifest = json.loads((svhn / "task.json").read_text())
    (svhn / "task.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(BadInput, match=r"store format 99, this one reads 1\); update idat-tune"):
        data.load("svhn", "train")
    assert states()["svhn"] == "unusable"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "task": {"colour": 1}}'])
def test_a_damaged_manifest_is_refused(svhn, text):
    (svhn / "task.json").write_text(text)
    with pytest.raises(
        BadInput, match=r"task\.json is damaged; remove svhn with `idat-tune data remove --task svhn` and"
    ):
        data.require("svhn")


def test_a_file_that_was_changed_is_refused(svhn):
    (svhn / "val.parquet").write_bytes(b"short")
    with pytest.raises(BadInput, match=r"val\.parquet is not the file that was imported"):
        data.load("svhn", "val")


def test_a_damaged_store_can_be_replaced(svhn, source):
    (svhn / "task.json").write_text("{}")
    data.import_(source, ["svhn"], any_size=True, replace=True)
    data.require("svhn")


# Verify


def test_verify_finds_nothing_in_a_whole_task(svhn):
    report = data.verify("svhn")
    assert report.ok
    assert report.content_hash == data.content_hash("svhn")
    assert report.mean_size == (24, 18)
    assert report.missing_classes == ()


def test_verify_names_images_that_changed_on_disk(svhn):
    path = svhn / "test.parquet"
    spoilt = bytearray(path.read_bytes())
    start = spoilt.index(b"\xff\xd8\xff")
    spoilt[start : start + 4] = b"oops"
    path.write_bytes(spoilt)
    report = data.verify("svhn")
    assert not report.ok
    assert any("test/000000.jpg is not a readable image" in sentence for sentence in report.problems)
    assert any("the images are not those that were imported" in sentence for sentence in report.problems)


def test_duplicates_are_counted_by_bytes_and_by_pixels(tmp_path, home):
    from PIL import Image

    source = vtab.make(tmp_path / "source", ["svhn"]) / "svhn"
    train = source / "images/train800/000002.jpg"
    (source / "images/test/000000.jpg").write_bytes(train.read_bytes())
    Image.open(train).save(source / "images/test/alike.png")
    (source / "images/test/000001.jpg").write_bytes((source / "images/test/alike.png").read_bytes())
    (one,) = data.import_(source, any_size=True)
    _, test = one.report.duplicates
    assert (test.first, test.second, test.bytes, test.pixels) == ("trainval", "test", 1, 2)
    assert test.example.endswith("test/000000.jpg")


def test_classes_that_train_lacks_are_listed(tmp_path, home):
    source = vtab.make(tmp_path, ["dtd"])  # 24 training images, 47 classes
    assert data.import_(source, any_size=True)[0].report.missing_classes == tuple(range(24, 47))


def test_the_content_hash_changes_with_labels_and_images(svhn, tmp_path):
    other = vtab.make(tmp_path / "other", ["svhn"]) / "svhn"
    for name, last in [("val200", "000007"), ("train800val200", "000031")]:
        text = (other / f"{name}.txt").read_text()
        (other / f"{name}.txt").write_text(text.replace(f"{last}.jpg 7", f"{last}.jpg 8"))
    data.import_(other, any_size=True, folder=tmp_path / "a")
    assert data.content_hash("svhn", tmp_path / "a") != data.content_hash("svhn")


def test_listing_has_every_task_with_its_state(svhn):
    listed = {one.task.name: one for one in data.listing()}
    assert list(listed) == list(tasks.TASKS)
    assert listed["svhn"].state == "stand-in"
    assert listed["svhn"].where == svhn
    assert listed["svhn"].bytes == sum(file.stat().st_size for file in svhn.iterdir())
    assert listed["dtd"].state == "missing"


def test_there_is_nothing_to_verify_of_an_embedded_task(home):
    with pytest.raises(BadInput, match="comes with the package"):
        data.verify("digits")


def test_a_registered_task_must_not_take_a_built_in_name():
    with pytest.raises(BadInput, match="already names the task Pets"):
        tasks.register(replace(tasks.get("dtd"), name="pets", group="own"))
