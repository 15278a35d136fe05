"""The command that exports a student of a finished search, on a real search."""

import json

import pytest
import torch
from conftest import command, glyphs, noise

import idat_tune
from idat_tune.errors import BadInput
from idat_tune.export import latency
from idat_tune.journal import Journal
from idat_tune.predictions import read
from idat_tune.run import to_device
from idat_tune.search import exporting
from idat_tune.search.manifest import JOURNAL


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search and its result."""
    out = tmp_path_factory.mktemp("runs")
    few = ["--trials", "3", "--epochs", "2", "--seeds", "2", "--folds", "3", "--top-k", "1"]
    done = command("search", "--task", "digits", *few, "--out", out, "--name", "one", "--json")
    assert done.returncode == 0, done.stderr
    return out / "one", json.loads(done.stdout)


def exported(folder, to, *options):
    done = command("export", folder.name, "--out", folder.parent, "--to", to, *options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(folder, to, *options):
    done = command("export", folder.name, "--out", folder.parent, "--to", to, *options)
    assert done.returncode == 2, done.stderr
    assert not to.exists()
    return done.stderr


def test_a_search_keeps_what_its_runs_said_of_every_image(searched):
    folder, result = searched
    journal, said = Journal(folder / JOURNAL), {found.run.trial: found for found in read(folder)}
    confirmed = [record for record in journal.records if record.stage == "confirm"]
    assert said.keys() == {record.id for record in confirmed} | {name for name in journal.tested() if "+" not in name}
    for record in confirmed:
        assert said[record.id].hits.mean() == pytest.approx(record.val_accuracy, abs=0.006)
        assert (said[record.id].teacher is None) == (record.config["teacher"] == "none")
    images = [image for fold in range(3) for image in said[f"confirm-{fold}-arm-default"].images]
    assert len(set(images)) == len(images)
    for name, found in said.items():
        if found.run.stage == "final":
            assert found.hits.mean() == pytest.approx(journal.tested()[name][0], abs=1e-6)
    assert result["arms"]["linear"]["test_accuracy"]["seeds"] == 2
    assert result["together"] is None or result["together"]["two_students"]["pairs"] == 2


def test_the_winner_is_exported_as_it_was_by_the_search(searched, tmp_path):
    folder, result = searched
    found = exported(folder, tmp_path / "winner")
    assert found["test_accuracy"] == pytest.approx(result["winner"]["test_accuracy"])
    pixels, _ = to_device(noise(20), torch.device("cpu"))
    assert torch.equal(idat_tune.load(tmp_path / "winner")(pixels), idat_tune.load(folder / "best")(pixels))


def test_a_limit_takes_the_best_of_those_within_it(searched, tmp_path):
    folder, result = searched
    linear = result["arms"]["linear"]
    found = exported(folder, tmp_path / "small", "--max-params", f"{linear['trainable_params'] / 1000}k")
    assert found["config"]["adapter.kind"] == "linear"
    assert found["test_accuracy"] == pytest.approx(linear["test_accuracy"])
    assert idat_tune.load(tmp_path / "small").metrics["trainable_params"] == linear["trainable_params"]
    sentence = refused(folder, tmp_path / "none", "--max-params", "3")
    assert f"the smallest has {linear['trainable_params']:,}" in sentence


def test_a_confirmed_student_that_was_not_trained_to_the_end_is_trained_and_says_so(searched, tmp_path):
    folder, result = searched
    journal, tensors = Journal(folder / JOURNAL), folder / "final"
    tensors.rename(folder / "away")
    try:
        found = exported(folder, tmp_path / "again", "--trial", result["winner"]["trial"])
    finally:
        (folder / "away").rename(tensors)
    assert found["trained"]
    assert Journal(folder / JOURNAL).records == journal.records  # the test stayed closed
    assert "were trained again" in (tmp_path / "again/README.md").read_text()
    pixels, _ = to_device(noise(20), torch.device("cpu"))
    assert torch.equal(idat_tune.load(tmp_path / "again")(pixels), idat_tune.load(folder / "best")(pixels))
    if "no_distill" in result["arms"]:  # confirmed, and never trained on all images
        found = exported(folder, tmp_path / "other", "--trial", result["arms"]["no_distill"]["trial"])
        assert (found["trained"], found["test_accuracy"], found["format"]["name"]) == (True, None, "folder")
        assert found["config"]["distill.weight"] == 0
        assert "was not tested: the test split stayed closed" in (tmp_path / "other/README.md").read_text()
        assert "test_accuracy" not in idat_tune.load(tmp_path / "other").metrics


def test_a_limit_of_time_takes_the_best_of_those_within_it_on_this_device(searched, tmp_path, monkeypatch):
    folder, result = searched
    slow = result["winner"]["config"]["adapter.kind"]
    monkeypatch.setattr(exporting, "milliseconds", lambda config, *_: 9.0 if config.adapter.kind == slow else 1.0)
    found = exporting.export_student(folder, tmp_path / "fast", exporting.Wanted(most_milliseconds=5))
    assert found["config"]["adapter.kind"] != slow
    assert found["milliseconds"] == 1.0
    assert "at most 5 ms per image on this device" in (tmp_path / "fast/README.md").read_text()
    with pytest.raises(BadInput, match=r"no confirmed student of at most 0\.5 ms .*; the smallest has .*takes 1 ms"):
        exporting.export_student(folder, tmp_path / "none", exporting.Wanted(most_milliseconds=0.5))
    found = exporting.export_student(folder, tmp_path / "any", exporting.Wanted(most_milliseconds=10))
    assert found["trial"] == result["winner"]["trial"]


def test_the_time_of_an_image_is_measured():
    config = glyphs(adapter__kind="lora")
    assert 0 < latency.milliseconds(config, merged=True, pair=False) < latency.milliseconds(config, False, True) * 10


def test_the_last_search_of_a_task_is_exported_in_any_format_and_so_is_an_export(searched, tmp_path):
    folder, result = searched
    done = command("export", "--task", "Digits", "--out", folder.parent, "--to", tmp_path / "x", "--format", "merged")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{result['winner']['trial']} of search one")
    assert "merged with adapters" in done.stdout
    pixels, _ = to_device(noise(20), torch.device("cpu"))
    torch.testing.assert_close(idat_tune.load(tmp_path / "x")(pixels), idat_tune.load(folder / "best")(pixels))
    done = command("export", folder / "best", "--to", tmp_path / "y", "--format", "torch-export", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"]["largest_difference"] < 1e-4
    done = command("export", folder / "best", "--to", tmp_path / "z")
    assert (done.returncode, "is an export already" in done.stderr) == (2, True)


def test_the_card_of_a_winner_has_its_interval_and_the_verdict(searched):
    folder, _ = searched
    said = (folder / "best/README.md").read_text()
    assert "over 2 seeds" in said or "mean of 2 seeds" in said
    assert "The test split was opened once." in said
    assert "The search's verdict: " in said
    assert idat_tune.load(folder / "best").metrics["confirmed_folds"] == 3


def test_a_student_is_exported_with_its_teacher_where_it_has_one(searched, tmp_path):
    folder, result = searched
    if result["winner"]["config"]["teacher"] == "none":
        assert "no teacher goes with the student" in refused(folder, tmp_path / "pair", "--with-teacher")
        return
    found = exported(folder, tmp_path / "pair", "--with-teacher")
    assert found["test_accuracy"] == pytest.approx(result["together"]["test_accuracy"])
    assert isinstance(idat_tune.load(tmp_path / "pair").model, idat_tune.export.Pair)


def test_what_is_no_finished_search_is_refused(searched, tmp_path):
    folder, _ = searched
    assert "there are one" in refused(folder.with_name("two"), tmp_path / "any")
    for wrong in ("0", "many", "-3k", "nan"):
        assert "is no number of parameters" in refused(folder, tmp_path / "any", "--max-params", wrong)
    for wrong in ("0", "fast", "-3ms", "5m"):
        assert "is no time" in refused(folder, tmp_path / "any", "--max-latency", wrong)


def test_what_contradicts_itself_is_refused(searched, tmp_path):
    folder, _ = searched
    assert "two ways to choose" in refused(folder, tmp_path / "any", "--trial", "x", "--max-params", "3k")
    assert "has no trial 'x' that trained; confirmed are" in refused(folder, tmp_path / "any", "--trial", "x")
    assert "one of the two" in refused(folder, tmp_path / "any", "--task", "digits")
    assert "unknown format 'onxx'" in refused(folder, tmp_path / "any", "--format", "onxx")
    with pytest.raises(BadInput, match="no finished search of task dtd in"):
        exporting.finished_last(folder.parent, "dtd")
