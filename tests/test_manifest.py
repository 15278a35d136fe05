"""What is refused before a search touches anything: names, and manifests and journals that are damaged."""

import json

import pytest
from conftest import command
from test_journal import record
from test_searcher import a_plan, asking, begin, no_linear_arm, run_all  # noqa: F401

from idat_tune.errors import BadInput
from idat_tune.journal import Journal
from idat_tune.journal.state import OPENED
from idat_tune.search import SearchConfig, plan_search
from idat_tune.search.config import check_name
from idat_tune.search.manifest import JOURNAL, NAME, check_resumable


@pytest.mark.parametrize("name", ["a", "first-1", "Größe_2.b", "a" * 150, "7"])
def test_a_name_of_letters_digits_and_a_few_signs_is_taken(name):
    check_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it names a folder, of letters"),
        ("..", "with a letter or digit at both ends"),
        (".hidden", "with a letter or digit at both ends"),
        ("-x", "with a letter or digit at both ends"),
        ("a/b", "it names a folder"),
        ("a b", "it names a folder"),
        ("a\n", "it names a folder"),
        ("a" * 300, "has 300 bytes; 150 is the most"),
        ("ü" * 150, "has 300 bytes; 150 is the most"),
        ("artifacts", "belongs to all searches under --out"),
        ("Artifacts", "belongs to all searches"),
        ("mlflow.db", "belongs to all searches"),
        ("mlflow.db-wal", "belongs to all searches"),
        ("many.parquet", "belongs to all searches"),
    ],
)
def test_a_name_that_cannot_be_a_folder_of_its_own_is_refused(tmp_path, name, why):
    with pytest.raises(BadInput) as caught:
        plan_search(SearchConfig.of("digits", out=tmp_path, name=name))
    assert str(caught.value).startswith("--name cannot be '")
    assert why in str(caught.value)
    assert len(str(caught.value)) < 250
    assert list(tmp_path.iterdir()) == []


def test_an_empty_name_is_refused_for_several_tasks_too(tmp_path):
    done = command("search", "--task", "digits", "--task", "sprites_loc", "--name", "", "--out", tmp_path / "runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --name cannot be ''")
    assert list(tmp_path.iterdir()) == []


def test_an_out_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    done = command("search", "--task", "digits", "--out", tmp_path / "caf\udce9")
    assert done.returncode == 2
    assert "is not UTF-8, which the tracking store needs; choose another folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def begun(tmp_path):
    """A search that has run two trials."""
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=2)
    return conducting.plan


def changed(plan, **entries):
    path = plan.folder / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        ({"hints": [["a", 1]]}, "hints.0.1: "),
        ({"left_out": [["a"]]}, "left_out.0.1: Field required"),
        ({"weights": None}, "weights: Input should be an object, not null"),
        ({"format": "2"}, "format: "),
        ({"search_id": None}, "search_id: "),
    ],
)
def test_a_manifest_with_values_of_a_wrong_type_is_named_and_left_as_it_is(begun, entries, where):
    changed(begun, **entries)
    before = (begun.folder / NAME).read_bytes()
    for use in (lambda: check_resumable(begun, "hash"), lambda: begin(begun)):
        with pytest.raises(BadInput) as caught:
            use()
        assert f"{NAME} is damaged ({where}" in str(caught.value)
        assert str(caught.value).endswith("put that right, or give this search another --name")
    assert (begun.folder / NAME).read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\xff"])
def test_a_manifest_that_is_no_object_is_named(begun, text):
    (begun.folder / NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match="is damaged"):
        check_resumable(begun, "hash")


def test_other_images_and_more_trials_than_the_test_was_opened_for_are_refused_before_anything_starts(begun):
    with pytest.raises(BadInput, match="was begun with other images of digits than are there now"):
        check_resumable(begun, "other")
    Journal(begun.folder / JOURNAL).decide(OPENED, winner="arm-default", by="final run")
    more = asking(begun, trials=begun.config.explore.trials + 1)
    with pytest.raises(BadInput, match=r"has opened its test split with --trials \d+, so it cannot go on to"):
        check_resumable(more, "hash")
    check_resumable(begun, "hash")
    check_resumable(asking(more, reopen_test=True), "hash")


def test_a_manifest_of_a_newer_version_is_left_to_it(begun):
    changed(begun, format=4, weights="in another way")
    with pytest.raises(BadInput, match=r"was written by a newer idat-tune \(format 4, this one knows 3\); update"):
        check_resumable(begun, "hash")


def test_a_manifest_of_an_older_version_is_left_to_it(begun):
    content = json.loads((begun.folder / NAME).read_text())
    del content["format"]
    (begun.folder / NAME).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=r"written by an older idat-tune \(format 1, this one writes 3\); its tables"):
        check_resumable(begun, "hash")


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ('{"decision": "won", "time": 1.0}', "decision is 'won', not one of begun, "),
        ('{"decision": "winner", "time": 1.0}', "'trial' is missing"),
        ('{"decision": "winner", "trial": 3, "time": 1.0}', "trial is 3"),
        ('{"decision": "opened", "winner": "arm-default", "by": "final run"}', "'time' is missing"),
    ],
)
def test_a_damaged_decision_is_named_and_not_to_be_left_out(begun, line, how):
    with (begun.folder / JOURNAL).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInput) as caught:
        check_resumable(begun, "hash")
    assert how in str(caught.value)
    assert "put it back as it was" in str(caught.value)


def test_a_search_that_lost_its_manifest_is_not_begun_anew_over_its_journal(begun):
    (begun.folder / NAME).unlink()
    with pytest.raises(BadInput, match="is gone, which says what search 's' is; put it back"):
        check_resumable(begun, "hash")


@pytest.mark.parametrize(
    ("entries", "how"),
    [
        ({"stage": "elsewhere"}, "stage is 'elsewhere', not one of explore, confirm, final, test"),
        ({"status": None}, "status is None"),
        ({"id": 3}, "id is 3"),
        ({"config": []}, "config is []"),
        ({"epochs": None}, "not iterable"),
        ({"epochs": [{}]}, "'epoch' is missing"),
        ({"tested": []}, "has no attribute 'items'"),
        ({"arms": 1}, "not iterable"),
        ({"val_images": "200"}, "val_images is '200'"),
        ({"of a newer version": 1}, "unexpected keyword argument"),
    ],
)
def test_a_journal_line_with_values_of_a_wrong_type_is_named(tmp_path, entries, how):
    path = tmp_path / JOURNAL
    journal = Journal(path)
    journal.append(record("trial-000"))
    line = json.loads(path.read_text()) | entries
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(BadInput) as caught:
        Journal(path)
    assert f"{JOURNAL}, line 2 is damaged (" in str(caught.value)
    assert how in str(caught.value)
    assert "delete that line: its trial then was not run" in str(caught.value)
