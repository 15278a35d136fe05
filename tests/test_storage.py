"""A copy of a search elsewhere: whole at any moment, and enough to go on with on another machine."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import command

from idat_tune.errors import BadInput
from idat_tune.journal import Journal
from idat_tune.search import _free_name, storage
from idat_tune.search.storage import Copies, Storage, copied, fetch


@pytest.fixture
def there(tmp_path):
    return Storage(f"file://{tmp_path}/there")


@pytest.fixture
def folder(tmp_path):
    """Of a search: a journal of two lines, of which the second speaks of a file."""
    made = tmp_path / "here" / "n"
    for name, content in {
        "manifest.json": "{}",
        "journal.jsonl": "one\nfinal/a\n",
        "final/a": "tensors",
        "best/config.yaml": "x",
        ".lock": "",
        "best/adapter.partial": "half",
        "tune/state.json": "of Tune",
    }.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return made


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


COPIED = {"manifest.json", "journal.jsonl", "final/a", "best/config.yaml"}


def test_what_makes_a_search_is_copied_and_comes_back_elsewhere(there, folder, tmp_path):
    Copies(there, folder).copy()
    elsewhere = tmp_path / "elsewhere" / "n"
    assert fetch(there, elsewhere) is True
    assert contents(elsewhere) == {name: text for name, text in contents(folder).items() if name in COPIED}
    assert fetch(there, elsewhere) is False
    assert fetch(there, tmp_path / "elsewhere" / "another") is False


def test_only_what_changed_is_copied_and_the_journal_last(there, folder, monkeypatch):
    written, write = [], there.write
    monkeypatch.setattr(there, "write", lambda name, content: written.append(name) or write(name, content))
    copies = Copies(there, folder)
    copies.copy()
    assert sorted(written) == sorted(f"n/{name}" for name in COPIED)
    assert written[-1] == "n/journal.jsonl"
    written.clear()
    copies.copy()
    assert written == []
    (folder / "final" / "b").write_text("more")
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("final/b\n")
    copies.copy()
    assert written == ["n/final/b", "n/journal.jsonl"]


@pytest.mark.parametrize("most", range(5))
def test_a_copy_that_breaks_off_anywhere_speaks_of_nothing_that_is_not_there(there, folder, tmp_path, most):
    copies, write, count = Copies(there, folder), there.write, []

    def breaks_off(name, content):
        count.append(name)
        if len(count) > most:
            raise OSError("the line was cut")
        write(name, content)

    there.write = breaks_off
    if most < len(COPIED):
        with pytest.raises(OSError, match="cut"):
            copies.copy()
    fetched = tmp_path / "elsewhere" / "n"
    if fetch(there, fetched):
        lines = (fetched / "journal.jsonl").read_text().split()
        assert all((fetched / line).exists() for line in lines if "/" in line)
    there.write = write
    copies.copy()
    assert fetch(there, fetched) or most == len(COPIED)
    assert set(contents(fetched)) == COPIED


def test_the_longer_of_two_histories_goes_on_and_two_that_differ_are_refused(there, folder):
    Copies(there, folder).copy()
    journal = folder / "journal.jsonl"
    whole = journal.read_text()
    journal.write_text(whole + "newer\n")
    assert fetch(there, folder) is False
    assert journal.read_text().endswith("newer\n")
    journal.write_text("one\n")  # as on an old head that comes back
    (folder / "final" / "a").unlink()
    assert fetch(there, folder) is True
    assert journal.read_text() == whole
    assert (folder / "final" / "a").exists()
    journal.write_text("one\nanother\n")
    with pytest.raises(BadInput, match=r"search 'n' went on differently in .*/here/n and at file://.*/there; move one"):
        fetch(there, folder)
    assert journal.read_text() == "one\nanother\n"


def test_two_drivers_do_not_write_one_copy(there, folder):
    first, second = Copies(there, folder), Copies(there, folder)
    first.copy()
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("more\n")
    second.copy()
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("and more\n")
    with pytest.raises(BadInput, match="another driver writes search 'n' at file://"):
        first.copy()


def test_a_copy_whose_answer_was_lost_is_no_other_drivers(there, folder):
    copies, write = Copies(there, folder), there.write
    copies.copy()
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write("more\n")

    def answers_never(name, content):
        write(name, content)
        raise OSError("no answer")

    there.write = answers_never
    with pytest.raises(OSError, match="no answer"):
        copies.copy()
    there.write = write
    copies.copy()
    assert there.read("n/journal.jsonl").endswith(b"more\n")


def waited(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_failure_is_told_once_stops_nothing_and_is_made_up_for(there, folder, monkeypatch):
    said, fails, write = [], [True], Storage.write

    def writes(self, name, content):
        if fails:
            fails.append(name)
            raise OSError("the line is cut")
        write(self, name, content)

    monkeypatch.setattr(Storage, "write", writes)
    with copied(there.uri, folder, said.append, every=0.01):
        waited(lambda: len(fails) > 3)
        fails.clear()
        waited(lambda: len(said) > 1)
    assert [sentence.partition(there.uri)[2] for sentence in said] == [
        " is not up to date: the line is cut; it is tried again",
        " is up to date again",
    ]
    assert there.has("n")


def test_the_last_of_it_is_copied_at_the_end_and_else_it_is_said(there, folder, monkeypatch):
    said = []
    with copied(there.uri, folder, said.append):
        (folder / "report.html").write_text("<p>")
    assert there.read("n/report.html") == b"<p>"
    assert said == []
    monkeypatch.setattr(Storage, "write", lambda self, name, content: Path("/none").stat())
    (folder / "report.html").write_text("<p>more")
    with copied(there.uri, folder, said.append):
        pass
    assert said[0].endswith("No such file or directory: '/none'; the same command copies it")
    with copied(None, folder, said.append):
        pass
    assert len(said) == 1


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("runs", "cannot be reached: "),
        ("nowhere://x", "cannot be reached: "),
        ("s3://", "cannot be reached: "),
        ("file:///proc/none", "cannot be written: "),
        ("/dev/null/x", "cannot be written: "),
    ],
)
def test_a_place_that_takes_no_copy_is_refused_before_anything_is_begun(tmp_path, uri, cause):
    done = command("search", "--task", "digits", "--storage", uri, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --storage {uri} {cause}")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_only_the_copies_have_is_taken(there, folder):
    Copies(there, folder).copy()
    there.write("digits-1/manifest.json", b"{}")
    assert _free_name(folder.parent, "digits", there) == "digits-2"
    assert _free_name(folder.parent, "digits", None) == "digits-1"


def lines(out):
    return {
        (record.id, record.stage, record.status) for record in Journal(out / "runs" / "n" / storage.JOURNAL).records
    }


@pytest.mark.slow
def test_a_search_goes_on_on_a_new_head_from_its_copy(tmp_path):
    words = [
        "search",
        "--task",
        "digits",
        "--trials",
        "5",
        "--epochs",
        "4",
        "--folds",
        "2",
        "--seeds",
        "1",
        "--name",
        "n",
    ]
    words += ["--stopping", "none", "--max-concurrent", "1", "--storage", f"file://{tmp_path}/there"]
    old, new = tmp_path / "old", tmp_path / "new"
    for head in (old, new):
        head.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "idat_tune.cli", *words],
        cwd=old,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = old / "runs" / "n" / "journal.jsonl"
    while not (journal.exists() and "portfolio-0" in journal.read_text()):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=180)
    assert running.returncode == 130
    done = command(*words, "--json", cwd=new)
    assert done.returncode == 0, done.stderr
    assert journal.read_text() == "".join(
        (new / "runs" / "n" / "journal.jsonl")
        .read_text()
        .splitlines(keepends=True)[: len(journal.read_text().splitlines())]
    )
    undisturbed = command(*words[:-2], cwd=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert lines(new) == lines(tmp_path)
    copies = {str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert {"n/best/adapter.safetensors", "n/trials.parquet", "n/journal.jsonl", "n/search.yaml"} <= copies
    assert json.loads(done.stdout)["finished"]
