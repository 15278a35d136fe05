"""What is in the store but no whole task: told as what it is, with the way out, and removed on request."""

import json
import os
import shlex
from pathlib import Path

import pytest
import vtab
from conftest import command
from test_data_own import classes_of, fill

from idat_tune import data, tasks
from idat_tune.errors import BadInput


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A store of this test's own; tasks that it makes known are forgotten after it."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(tasks, "_BY_KEY", dict(tasks._BY_KEY))
    monkeypatch.setattr(tasks, "_UNUSABLE", {})
    monkeypatch.setenv("IDAT_TUNE_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def birds(tmp_path, home):
    """A folder of images that was imported; the folder in the store."""
    data.import_(classes_of(tmp_path / "my birds", 10), ["birds"])
    return home / "birds"


def newer(birds):
    manifest = json.loads((birds / "task.json").read_text())
    (birds / "task.json").write_text(json.dumps({**manifest, "format": 2}))


def damaged(birds):
    (birds / "task.json").write_text("{")


def without_val(birds):
    (birds / "val.parquet").unlink()


def cut_off(birds):
    with (birds / "train.parquet").open("ab") as file:
        file.write(b"more")


def half(birds):
    (birds.parent / ".partial").mkdir(exist_ok=True)
    birds.rename(birds.parent / ".partial/birds-0123456789abcdef")


def renamed(birds):
    birds.rename(birds.parent / "owls")


SPOILT = [
    (newer, "unusable", "was written by another version of idat-tune (store format 2, this one reads 1)"),
    (damaged, "unusable", "task.json is damaged; remove birds with `idat-tune data remove --task birds`"),
    (without_val, "unusable", "val.parquet is missing; import birds again: `idat-tune data import --from '"),
    (cut_off, "unusable", "train.parquet is not the file that was imported; import birds again: `"),
    (half, "half imported", "the images of birds are only half imported into"),
]


@pytest.mark.parametrize(("spoil", "state", "why"), SPOILT)
def test_an_own_task_that_cannot_be_used_is_listed_and_answered_as_what_it_is(birds, spoil, state, why):
    spoil(birds)
    listed = data.listing()[-1]
    assert (listed.task.name, listed.state) == ("birds", state)
    assert why in listed.why
    assert listed.bytes > 0
    assert data.register_own() == []
    for ask in (data.require, data.task, data.verify, tasks.get, lambda name: tasks.select([name])):
        with pytest.raises(BadInput) as failure:
            ask("Birds")
        assert str(failure.value) == listed.why


@pytest.mark.parametrize("arguments", [("train",), ("search",), ("data", "verify"), ("describe",)])
def test_every_command_says_so_and_exits_2(birds, arguments, tmp_path):
    half(birds)
    done = command(*arguments, "--task", "birds", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the images of birds are only half imported into")
    assert "data remove --task birds" in done.stderr
    assert not (tmp_path / "runs").exists()


def typed(sentence):
    """The command in a sentence, as a shell would take it apart."""
    words = shlex.split(sentence.split("`")[1])
    assert words[0] == "idat-tune"
    return command(*words[1:])


@pytest.mark.parametrize("spoil", [newer, without_val])
def test_the_command_that_replaces_can_be_typed(birds, spoil):
    spoil(birds)
    done = typed(data.listing()[-1].why)
    assert done.returncode == 0, done.stderr
    assert data.verify("birds").ok


def test_the_command_that_removes_can_be_typed_and_then_all_is_imported_again(birds, tmp_path):
    damaged(birds)
    done = typed(data.listing()[-1].why)
    assert done.stdout.startswith("birds: removed, ")
    assert not birds.exists()
    assert not data.import_(tmp_path / "my birds", ["birds"])[0].already


# Remove


@pytest.mark.parametrize("spoil", [lambda birds: None, newer, damaged, without_val, half])
def test_remove_takes_all_that_there_is_of_a_task_and_nothing_else(birds, tmp_path, home, spoil):
    data.import_(classes_of(tmp_path / "other", 8, seed=1), ["birds_2"])
    for task in ("birds", "birds_2"):
        data.load(task, "train", 8)
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file() and "birds_2" not in str(file))
    spoil(birds)
    gone = data.remove("Birds")
    assert gone.task == "birds"
    assert gone.bytes <= size + 100
    assert gone.bytes > 1000
    left = [file for file in home.rglob("*") if file.is_file() and file.name != "build.lock"]
    left = [file for file in left if "birds_2" not in str(file)]
    assert left == [home / ".locks/birds.lock"]
    assert [one.state for one in data.listing() if one.task.group == "own"] == ["complete"]
    assert data.verify("birds_2").ok
    assert list((home / ".pixels").glob("birds_2-*.arrow"))


def test_files_of_others_in_a_removed_folder_stay(birds):
    (birds / "notes.txt").write_text("mine")
    data.remove("birds")
    assert [file.name for file in birds.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("digits", "digits comes with the package; it cannot be removed"),
        ("dtd", "there is nothing of dtd in"),
        ("brids", "unknown task 'brids'; did you mean 'birds'"),
        ("own", "'own' is a group of tasks; to remove some, name each"),
        ("all", "is a group"),
        ("../birds", "unknown task"),
        ("", "unknown task"),
    ],
)
def test_what_cannot_be_removed_is_said_and_nothing_is(birds, name, what):
    before = set(birds.parent.rglob("*"))
    with pytest.raises(BadInput, match=what):
        data.remove(name)
    assert set(birds.parent.rglob("*")) == before


def test_a_folder_called_otherwise_than_its_task_is_told_so(birds):
    renamed(birds)
    (listed,) = [one for one in data.listing() if one.task.group == "own"]
    assert (listed.task.name, listed.state) == ("owls", "unusable")
    assert listed.why.endswith("store/owls holds the task birds; give the folder that name")
    data.remove("owls")
    assert not (birds.parent / "owls").exists()


def test_a_command_names_the_store_and_never_a_folder_above_what_is_gone(birds, tmp_path):
    store = tmp_path / "other store"
    data.import_(tmp_path / "my birds", ["birds"], folder=store)
    without_val(store / "birds")
    (listed,) = [one for one in data.listing(store) if one.task.group == "own"]
    assert f"--from '{tmp_path / 'my birds'}' --task birds --replace --data '{store}'`" in listed.why
    (tmp_path / "my birds").rename(tmp_path / "moved")
    assert "--from PATH --task birds" in data.listing(store)[-1].why
    damaged(store / "birds")
    assert f"`idat-tune data remove --task birds --data '{store}'`" in data.listing(store)[-1].why


def test_removing_nothing_writes_nothing(home):
    with pytest.raises(BadInput, match="there is nothing of dtd in"):
        data.remove("dtd")
    assert not home.exists()


def test_a_folder_beside_the_tasks_is_no_task(birds, home):
    fill(home / "photos", 3)
    assert [one.task.name for one in data.listing() if one.task.group == "own"] == ["birds"]
    with pytest.raises(BadInput, match="unknown task 'photos'"):
        data.remove("photos")
    assert len(list((home / "photos").iterdir())) == 3


def test_a_benchmark_s_task_is_removed_too(tmp_path, home):
    data.import_(vtab.make(tmp_path / "vtab", ["svhn"]), any_size=True)
    assert data.remove("SVHN").where == (home / "svhn",)
    assert {one.state for one in data.listing() if one.task.name == "svhn"} == {"missing"}


# Verify


def test_verify_of_nothing_says_so(home):
    done = command("data", "verify")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: there is nothing to verify in {home}: no task is imported")


def test_verify_of_all_names_those_that_cannot_be_verified(birds, tmp_path):
    data.import_(classes_of(tmp_path / "other", 8, seed=1), ["owls"])
    damaged(birds)
    done = command("data", "verify")
    assert done.returncode == 1
    assert "owls: whole, content " in done.stdout
    assert "birds: unusable: " in done.stdout
    done = command("data", "verify", "--json")
    assert [report["task"] for report in json.loads(done.stdout)] == ["owls"]
    assert "birds: unusable: " in done.stderr


# Names that are no text


def test_names_in_bytes_that_are_no_text_are_imported_listed_verified_and_printed(tmp_path, home):
    root = tmp_path / os.fsdecode(b"dr\xe9 ")
    for label, name in enumerate([b"caf\xe9", b"th\xe9 [b]"]):
        folder = fill(root / os.fsdecode(name), 8, label)
        (folder / "000.jpg").rename(folder / os.fsdecode(b"p\xe9.jpg"))
    done = command("data", "import", "--from", root, "--task", "drinks")
    assert done.returncode == 0, done.stderr
    assert data.task("drinks").class_names == (r"caf\xe9", r"th\xe9 [b]")
    assert data.import_(root, ["drinks"])[0].already
    for arguments in (("verify",), ("verify", "--json"), ("list",), ("list", "--json")):
        done = command("data", *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        if "--json" in arguments:
            assert json.loads(done.stdout)
    (folder / os.fsdecode(b"p\xe9.jpg")).write_bytes(b"")
    with pytest.raises(BadInput, match=r"p\\xe9\.jpg is empty"):
        data.import_(root, ["drinks"], replace=True)


def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(birds, tmp_path):
    folder = birds.parent.parent / "sto\u0142owka"
    done = command("data", "verify", "--data", folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    data.import_(tmp_path / "my birds", ["birds"], folder=folder)
    done = command("data", "list", "--data", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"sto\u0142owka" in done.stdout


# Files that change


def test_a_file_changed_in_place_is_noticed_by_the_same_import(birds, tmp_path):
    assert data.import_(tmp_path / "my birds", ["birds"])[0].already
    before = data.content_hash("birds")
    changed = tmp_path / "my birds/owl/003.jpg"
    other = fill(tmp_path / "more", 1, seed=9) / "000.jpg"
    encoded = other.read_bytes()
    # Of the same size, so that only its time tells.
    size = changed.stat().st_size
    changed.write_bytes((encoded + bytes(size))[: max(size, len(encoded))])
    os.utime(changed, ns=(1, 1))
    with pytest.raises(BadInput, match="files in .*my birds changed since|or with other options") as failure:
        data.import_(tmp_path / "my birds", ["birds"])
    done = typed(str(failure.value))
    assert done.returncode == 0, done.stderr
    assert data.content_hash("birds") != before
    assert data.import_(tmp_path / "my birds", ["birds"])[0].already


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_so_is_a_changed_table_or_archive(tmp_path, kind):
    source = vtab.make(tmp_path / "vtab", ["svhn"])
    if kind == "zip":
        import shutil

        path = Path(shutil.make_archive(str(tmp_path / "copy"), "zip", source))
        options = {"names": ["svhn"], "any_size": True}
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        images = [file.read_bytes() for file in sorted((source / "svhn/images/train800").iterdir())]
        path = tmp_path / "list.parquet"
        pq.write_table(pa.table({"image": images, "label": [i % 2 for i in range(len(images))]}), path)
        options = {"names": ["birds"]}
    data.import_(path, **options)
    assert data.import_(path, **options)[0].already
    os.utime(path, ns=(1, 1))
    with pytest.raises(BadInput, match="--replace"):
        data.import_(path, **options)


class Killed(BaseException):
    """As an interrupt is: not an Exception."""


def test_an_import_cut_off_and_repeated_with_other_files_mixes_nothing(tmp_path, home):
    source = classes_of(tmp_path / "source", 10)

    def stop_within_test(done, total):
        if done > total - 3:
            raise Killed

    with pytest.raises(Killed):
        data.import_(source, ["birds"], progress=stop_within_test)
    for file in source.rglob("*.jpg"):  # names and sizes stay
        encoded = file.read_bytes()
        file.write_bytes(encoded[:-2] + encoded[-2:])
        os.utime(file, ns=(1, 1))
    changed = source / "owl/000.jpg"
    changed.write_bytes((fill(tmp_path / "more", 1, seed=9) / "000.jpg").read_bytes())
    data.import_(source, ["birds"])
    data.import_(source, ["birds"], folder=tmp_path / "anew")
    assert data.content_hash("birds") == data.content_hash("birds", tmp_path / "anew")
    assert list((home / ".partial").iterdir()) == []


def test_of_several_names_none_is_removed_where_one_is_unknown(birds):
    failed = command("data", "remove", "--task", "birds", "--task", "nope")
    assert failed.returncode == 2
    assert "unknown task 'nope'" in failed.stderr
    assert (birds / "task.json").exists()


def test_the_command_that_imports_again_has_what_was_decided(tmp_path, home):
    source = classes_of(tmp_path / "my birds", 10)
    pattern = r"(\d+)\.jpg"
    data.import_(source, ["birds"], group_pattern=pattern, seed=3)
    (home / "birds/val.parquet").unlink()
    with pytest.raises(BadInput) as failure:
        data.require("birds")
    words = shlex.split(str(failure.value).split("`")[1])
    assert words[2:] == [
        *("import", "--from", str(source), "--task", "birds", "--seed", "3", "--group-pattern", pattern, "--replace")
    ]


def test_what_a_manifest_says_of_options_is_words_and_no_shell(birds):
    manifest = json.loads((birds / "task.json").read_text())
    manifest["source"]["options"] = "--seed 3; touch /tmp/x $(id)"
    (birds / "task.json").write_text(json.dumps(manifest))
    without_val(birds)
    with pytest.raises(BadInput, match=r"--seed '3;' touch /tmp/x '\$\(id\)' --replace"):
        data.require("birds")
