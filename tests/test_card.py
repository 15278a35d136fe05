"""The model card of an export: the hub reads it, and it says what was measured, on what, and with what."""

import json

import pytest
from conftest import glyphs
from huggingface_hub import ModelCard
from scipy.stats import binomtest

from idat_tune import data, export, tasks, weights
from idat_tune.export import card
from idat_tune.model import build
from idat_tune.tasks import Task

COMPARISON = {"ours": "winner", "theirs": "winner_alone", "split": "test", "mean": 0.012, "interval": [0.001, 0.023]}


def card_of(folder, config, metrics, **more):
    student = build(config.student, config.classes, config, seed=0)
    export.save(folder, config, student.trained_state(), metrics, **more)
    return (folder / "README.md").read_text()


def test_the_hub_reads_the_front_matter(tmp_path):
    metrics = {"test_accuracy": 0.975, "val_accuracy": 0.98}
    read = ModelCard(card_of(tmp_path / "best", glyphs(adapter__kind="lora"), metrics)).data
    assert (read.license, read.library_name, read.pipeline_tag) == ("other", "idat-tune", "image-classification")
    assert read.metrics == ["accuracy"]
    assert "adapter-lora" in read.tags
    found = {result.dataset_split: (result.dataset_name, result.metric_value) for result in read.eval_results}
    assert found == {"test": ("Digits", 0.975), "val": ("Digits", 0.98)}
    assert read.base_model is None  # the package brings it


def test_a_base_model_is_named_where_the_hub_has_it():
    origin = weights.origin("vit_base")
    assert (origin.repository, origin.licence) == ("timm/vit_base_patch16_224.augreg_in21k", "apache-2.0")
    assert weights.origin("random:vit_base").repository is None
    config = glyphs(student="vit_base", teacher="vit_small", adapter__kind="lora")
    held = {"student": {"backbone": "vit_base", "file": "f", "sha256": "a" * 64}}
    held["teacher"] = {**held["student"], "backbone": "vit_small"}
    form = {"name": "folder", "adapters": "apart", "with_teacher": False, "library": "idat-tune", "file": "f"}
    about = {"images": None, "sha256": None}
    provenance = {"format": form, "weights": held, "data": about, "protocol": {}}
    said = card.card("best", config, ["a", "b"], {}, provenance)
    assert ModelCard(said).data.base_model == "timm/vit_base_patch16_224.augreg_in21k"
    assert ModelCard(said).data.base_model_relation == "adapter"
    assert "`vit_small` under apache-2.0" in said
    both = card.card("best", config, ["a", "b"], {}, {**provenance, "format": {**form, "with_teacher": True}})
    assert len(ModelCard(both).data.base_model) == 2


def test_it_says_on_what_how_and_how_well(tmp_path):
    metrics = {
        "test_accuracy": 717 / 797,
        "test_accuracy_mean": 0.91,
        "test_accuracy_std": 0.01,
        "test_seeds": 3,
        "confirmed_accuracy": 0.92,
        "confirmed_standard_error": 0.005,
        "confirmed_folds": 5,
        "trainable_params": 12345,
        "comparisons": [COMPARISON],
    }
    how = {"trained_on": "trainval", "chosen": "Trial trial-3, by hand", "test_openings": 1, "verdict": "It paid."}
    said = card_of(tmp_path / "best", glyphs(), metrics, protocol=how)
    assert data.content_hash("digits") in said
    assert weights.identify("glyph_base").sha256 in said
    low, high = (100 * bound for bound in binomtest(717, 797).proportion_ci(method="wilson"))
    assert f"| test accuracy | 89.96 % | {low:.2f} to {high:.2f} (797 images) |" in said
    assert "mean of 3 seeds | 91.00 % | standard deviation 1.00 |" in said
    assert "5 disjoint splits of the training images | 92.00 % | standard error 0.50 |" in said
    assert "| winner against winner alone | test | +1.20 | +0.10 to +2.30 |" in said
    assert "Trial trial-3, by hand. The test split was opened once." in said
    assert "the train and val splits together" in said
    assert "It paid." in said
    assert json.loads((tmp_path / "best/provenance.json").read_text())["protocol"]["test_openings"] == 1


def test_what_was_not_measured_is_not_claimed(tmp_path):
    said = card_of(tmp_path / "best", glyphs(), {})
    assert "Nothing was measured." in said
    assert "verdict" not in said
    assert ModelCard(said).data.eval_results is None


@pytest.mark.parametrize("bad", ["a|b", "line\nbreak", "](x)", "<script>", "---"])
def test_names_of_a_users_classes_stay_in_their_cell(bad, tmp_path, monkeypatch):
    mine = Task("mine", bad, "own", 2, 0, 5e-3, 5e-5, 0.0, class_names=(bad, "other"))
    monkeypatch.setitem(tasks.TASKS, "mine", mine)
    monkeypatch.setitem(tasks._BY_KEY, "mine", mine)
    said = card_of(tmp_path / "best", glyphs(task="mine"), {"val_accuracy": 0.5})
    (row,) = [line for line in said.splitlines() if line.startswith("| 2 classes")]
    assert row.replace("\\|", "").count("|") == 3
    assert f"| {card._cell(bad)}, other |" in row
    assert ModelCard(said).data.eval_results[0].dataset_name == bad


def test_what_a_user_named_is_escaped():
    assert card._cell("a|b<i>\n[x](y)") == r"a\|b\<i\>\\n\[x\](y)"


def test_of_many_classes_the_first_are_named(tmp_path):
    names = [f"class {number}" for number in range(397)]
    rows = card._data("digits", names, {"images": None, "sha256": None})
    assert "class 39 and 357 more" in " ".join(rows)
