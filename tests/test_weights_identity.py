"""Which weights a student and a search depend on: told by their hash, and nothing goes on with others."""

import json
from pathlib import Path

import pytest
import torch
from conftest import glyphs, noise
from safetensors.torch import load_file, save_file
from test_weights import SMALL, folder, values_of  # noqa: F401 - a fixture

import idat_tune
from idat_tune import data, embedded, export, run, space, weights
from idat_tune.errors import BadInput, Unfit
from idat_tune.journal import Journal, TrialRecord
from idat_tune.journal.state import DONE
from idat_tune.search import SearchConfig, plan_search
from idat_tune.search.driver import check_models, held_weights
from idat_tune.search.manifest import JOURNAL, Manifest
from idat_tune.search.plan import Plan
from idat_tune.weights import identity
from idat_tune.worker import trial

HASH = 64  # digits


def written(folder, seed_shift=0.0):  # noqa: F811
    path = folder / f"{SMALL}.safetensors"
    save_file({key: value + seed_shift for key, value in values_of(SMALL).items()}, path)
    return path


@pytest.fixture
def exported(folder, tmp_path):  # noqa: F811
    """A student on weights of the user's own."""
    written(folder)
    config = glyphs(student=SMALL, teacher="glyph_small", image_size=32, epochs=1).without_teacher()
    training = run.run(config, noise(32, channels=3))
    list(training)
    export.save(tmp_path / "student", config, training.student.trained_state(), {})
    return tmp_path / "student"


# Files


def test_a_file_is_hashed_once_until_it_changes(folder, monkeypatch):  # noqa: F811
    path, opened, really = written(folder), [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (opened.append(self), really(self, *a, **k))[1])
    first = weights.identify(SMALL)
    assert weights.identify(SMALL) == first
    assert opened.count(path) == 1
    assert len(first.sha256) == HASH
    monkeypatch.undo()
    assert identity._sha256.cache_info().hits >= 1


def test_other_bytes_are_another_identity_and_another_name_is_not(folder):  # noqa: F811
    path = written(folder)
    before = weights.identify(SMALL)
    path.rename(folder / "test_vit.safetensors.kept")
    (folder / SMALL).mkdir()
    (folder / "test_vit.safetensors.kept").rename(folder / SMALL / "model.safetensors")
    assert weights.identify(SMALL).same_as(before.as_dict())
    save_file({key: value + 1 for key, value in values_of(SMALL).items()}, folder / SMALL / "model.safetensors")
    assert not weights.identify(SMALL).same_as(before.as_dict())


def test_embedded_and_random_weights_are_identified_too():
    shipped = weights.identify("glyph_base")
    assert shipped.sha256 == embedded.backbones.read_recipe()["backbones"]["glyph_base"]["sha256"]
    drawn = weights.identify("random:vit_small")
    assert (drawn.sha256, drawn.file) == (None, weights.RULE)
    assert not drawn.same_as(shipped.as_dict())


# Exports


def test_an_export_says_which_weights_it_stands_on_and_its_card_does_too(exported):
    held = json.loads((exported / "provenance.json").read_text())["weights"]
    assert held == {"student": {"backbone": SMALL, **weights.identify(SMALL).as_dict()}}
    assert (
        f"| student | `{SMALL}` | {SMALL}.safetensors | {held['student']['sha256']} |"
        in (exported / "README.md").read_text()
    )
    assert idat_tune.load(exported).config.image_size == 32


def test_an_export_is_not_loaded_on_other_weights(exported, folder):  # noqa: F811
    before = weights.identify(SMALL).sha256
    written(folder, seed_shift=1.0)
    with pytest.raises(BadInput) as caught:
        idat_tune.load(exported)
    for part in (
        before[:12],
        weights.identify(SMALL).sha256[:12],
        f"{SMALL}.safetensors",
        "--weights",
        "train it again",
    ):
        assert part in str(caught.value)


def test_a_student_that_holds_its_whole_backbone_needs_no_weights_to_be_the_same(folder, tmp_path):  # noqa: F811
    written(folder)
    config = glyphs(student=SMALL, teacher="none", image_size=32, epochs=1, adapter__kind="full")
    training = run.run(config, noise(32, channels=3))
    list(training)
    export.save(tmp_path / "student", config, training.student.trained_state(), {})
    written(folder, seed_shift=1.0)
    idat_tune.load(tmp_path / "student")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[", "provenance.json cannot be read"),
        ("{}", "provenance.json cannot be read"),
        ('{"weights": {"student": {"file": "x", "sha256": 3}}}', "provenance.json cannot be read"),
        (None, "is incomplete"),
    ],
)
def test_an_export_that_does_not_say_is_refused(exported, content, sentence):
    (exported / "provenance.json").unlink()
    if content is not None:
        (exported / "provenance.json").write_text(content)
    with pytest.raises(BadInput, match=sentence):
        idat_tune.load(exported)


def test_an_adapter_that_holds_nan_is_refused_by_name(exported):
    path = exported / "adapter.safetensors"
    state = load_file(path)
    state["head.bias"][2] = torch.nan
    save_file(state, path)
    with pytest.raises(BadInput, match=r"adapter.safetensors.*tensor 'head.bias' holds 1 values that are NaN"):
        idat_tune.load(exported)


# Searches


def planned(tmp_path, **changes):
    fixed = {"student": SMALL, "teacher": "none", "image_size": 32, **changes.pop("fixed", {})}
    return plan_search(SearchConfig.of("digits", fixed=fixed, seeds=1, out=tmp_path / "runs", name="one", **changes))


def begin(plan):
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / JOURNAL).touch()
    return Manifest(plan, data.content_hash("digits"), held_weights(plan))


def test_a_search_keeps_which_weights_it_began_with_and_goes_on_with_no_others(folder, tmp_path):  # noqa: F811
    written(folder)
    manifest = begin(planned(tmp_path))
    assert manifest.content["weights"] == {SMALL: weights.identify(SMALL).as_dict()}
    begin(planned(tmp_path))
    before = weights.identify(SMALL).sha256
    written(folder, seed_shift=1.0)
    with pytest.raises(BadInput, match=f"search 'one' was begun with the weights .*{before[:12]}.* another --name"):
        held_weights(planned(tmp_path))


def test_a_search_that_is_finished_is_read_without_any_weights(folder, tmp_path):  # noqa: F811
    path = written(folder)
    plan = planned(tmp_path)
    begin(plan)
    Journal(plan.folder / JOURNAL).decide(DONE, result={"winner": {}, "arms": {}, "verdict": "", "test_openings": 1})
    path.unlink()
    assert held_weights(planned(tmp_path)) == {}


def test_a_worker_whose_weights_differ_trains_nothing(folder):  # noqa: F811
    written(folder)
    held = weights.identify(SMALL)
    assert trial.check_weights({"weights": [[SMALL, held.as_dict()]]}, [SMALL, "glyph_small", SMALL]) == [
        [SMALL, held.sha256],
        ["glyph_small", weights.identify("glyph_small").sha256],
    ]
    other = {"file": "other.npz", "sha256": "f" * HASH}
    with pytest.raises(Unfit, match=r"this search was begun with the weights other.npz \(sha256 ffffffffffff\)"):
        trial.check_weights({"weights": [[SMALL, other]]}, [SMALL])


def test_the_journal_keeps_what_each_worker_built_on(tmp_path):
    record = TrialRecord("arm-default", "explore", (), {}, "complete", weights={"glyph_base": "ab"})
    Journal(tmp_path / "journal.jsonl").append(record)
    assert Journal(tmp_path / "journal.jsonl").records == [record]


def wanting(tmp_path, *teachers, **fixed):
    """A plan over a space of these teachers."""
    searched = space.parse({"params": {"teacher": {"choice": list(teachers)}}, "start": [{"teacher": teachers[-1]}]})
    fixed = {"student": SMALL, **fixed}
    return Plan.checked(SearchConfig.of("dtd", name="one", space=searched, fixed=fixed, seeds=1, out=tmp_path / "runs"))


def test_teachers_that_cannot_be_had_are_left_out_and_stay_so(folder, tmp_path):  # noqa: F811
    written(folder)
    plan = wanting(tmp_path, "none", SMALL, "random:glyph_small", "vit_large", image_size=160)
    left = plan.without_absent_teachers()
    assert [param.domain.values for param in left.space.params] == [("none", SMALL)]
    assert left.space.start == ()
    assert [name for name, _ in left.left_out] == ["random:glyph_small", "vit_large"]
    sized, absent = (why for _, why in left.left_out)
    assert "both see the same" in sized
    assert "are not here" in absent
    assert {config.teacher for config in left.pairs()} == {"none", SMALL}
    # The weights have come since, but the search goes on as it was begun.
    before = begin(left).content["left_out"]
    assert plan.without_absent_teachers(before) == left
    assert plan.without_absent_teachers([]) is plan


def test_teachers_that_ship_with_the_package_are_never_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("idat_tune.model.check", lambda *a, **k: pytest.fail("a model was built"))
    plan = wanting(tmp_path, "none", "glyph_small", "glyph_base", student="glyph_base")
    assert plan.without_absent_teachers() is plan


def test_what_a_space_of_the_users_own_wants_is_said_to_be_the_spaces_wish(folder, tmp_path):  # noqa: F811
    written(folder)
    mine = tmp_path / "mine.yaml"
    mine.write_text("params:\n  teacher: {choice: [none, vit_large]}\n")
    fixed = {"student": SMALL, "image_size": 160}
    plan = plan_search(SearchConfig.of("digits", space=mine, fixed=fixed, out=tmp_path / "runs", name="one"))
    with pytest.raises(BadInput, match="space 'mine' wants vit_large as a teacher: the weights of vit_large_patch16"):
        check_models(plan)
