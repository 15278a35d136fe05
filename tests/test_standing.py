"""How searches stand, by their folders: each state, and folders that are broken."""

import json
import shutil

import pytest
from conftest import command
from test_searcher import a_plan, begin, no_linear_arm, no_object_store, run_all  # noqa: F401

from idat_tune.errors import BadInput
from idat_tune.journal.state import BEGUN, BROKE, DONE, INTERRUPTED
from idat_tune.search.holding import locked
from idat_tune.search.standing import standings


@pytest.fixture
def explored(tmp_path):
    """A search that is through with exploring and half through with what follows."""
    searching = begin(a_plan(tmp_path, name="s"))
    run_all(searching, most=12)
    return searching.journal


def state(journal, **about):
    (found,) = standings(journal.path.parent.parent, clock=lambda: journal.state.last + 60)
    return found


def test_what_is_running_says_how_far_it_is_and_who_drives_it(explored):
    with locked(explored.path.parent):
        found = state(explored)
    assert found["state"] == "running"
    assert found["task"] == "digits"
    assert found["trials"]["ended"] <= found["trials"]["asked"]
    assert found["stage"] in ("explore", "confirm", "final")
    assert 0 < found["val_accuracy"] < 1
    assert found["age"] == 60
    assert found["process"]


@pytest.mark.parametrize(
    ("kind", "about", "wanted", "reason"),
    [
        (INTERRUPTED, {}, "interrupted", None),
        (BROKE, {"reason": "no disk", "result": None}, "failed", "no disk"),
        (DONE, {"result": {"winner": {"test_accuracy": {"mean": 0.9}}}}, "finished", None),
    ],
)
def test_what_has_ended_says_how(explored, kind, about, wanted, reason):
    assert state(explored)["state"] == "died"  # nothing says that it ended, and nobody drives it
    explored.decide(kind, **about)
    found = state(explored)
    assert (found["state"], found["reason"], found["process"]) == (wanted, reason, None)
    assert found["test_accuracy"] == (0.9 if kind == DONE else None)
    explored.decide(BEGUN, trials=9, seeds=1, reopen_test=False, sampler="tpe", stopping="none")
    assert state(explored)["state"] == "died"  # of the next session that is true again


def test_broken_folders_hide_no_others(explored, tmp_path):
    for name, files in {
        "garbage": {"manifest.json": b"{}", "journal.jsonl": b"\x00\xff not json\n{}\n"},
        "half": {"journal.jsonl": b""},
        "empty": {},
    }.items():
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
    shutil.copytree(explored.path.parent, tmp_path / "cut")
    (tmp_path / "cut" / "journal.jsonl").write_bytes(explored.path.read_bytes() + b'{"decision": "wi')
    found = {one["name"]: one for one in standings(tmp_path)}
    assert {name: one["state"] for name, one in found.items()} == {
        "s": "died",
        "cut": "died",
        "garbage": "damaged",
        "half": "damaged",
    }
    assert found["garbage"]["reason"]


def test_one_that_is_not_there_is_asked_for_in_vain(explored, tmp_path):
    with pytest.raises(BadInput, match="no search at .*/none; there are s; --out names the folder"):
        standings(tmp_path, "none")
    assert standings(tmp_path / "nowhere") == []


def test_the_command_answers_fast_and_without_anything_heavy(explored, tmp_path):
    done = command("status", "--out", tmp_path, "--json")
    assert [one["name"] for one in json.loads(done.stdout)] == ["s"]
    done = command("status", "s", "--out", tmp_path)
    assert "digits" in done.stdout
    assert "died" in done.stdout
    done = command("status", "--out", tmp_path / "none")
    assert "no searches in" in done.stdout
    done = command("status", "other", "--out", tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
