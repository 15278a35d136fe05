"""Plans: a search is judged as a whole before anything starts."""

import pytest

from idat_tune import space as spaces
from idat_tune import tasks
from idat_tune.errors import BadInput
from idat_tune.search import SearchConfig, plan_search
from idat_tune.tasks import Task


def planned(out, task="digits", **changes):
    settings = {"trials": 4, "seeds": 1, "out": out, "name": "x"}
    return plan_search(SearchConfig.of(task, **{**settings, **changes}))


def refused(out, **changes):
    with pytest.raises(BadInput) as caught:
        planned(out, **changes)
    assert not out.exists()
    return str(caught.value)


def searching(**params):
    return spaces.parse({"params": {key.replace("__", "."): domain for key, domain in params.items()}}, "mine")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        # Both bounds are even, what lies between them is not.
        (
            {"adapter__kind": {"choice": ["ssf", "repadapter"]}, "adapter__hidden_dim": {"int_uniform": [4, 8]}},
            "adapter.hidden_dim cannot be 5: repadapter splits it into 2 groups",
        ),
        (
            {"distill__loss": {"choice": ["kl", "feature"]}, "teacher": {"choice": ["glyph_small", "none"]}},
            "distill.loss feature needs a teacher",
        ),
        (
            {"optim__warmup_epochs": {"int_uniform": [0, 9]}, "epochs": {"int_uniform": [5, 20]}},
            "leaves none of 5 epochs",
        ),
        (
            {"adapter__kind": {"choice": ["ssf", "vpt_deep"]}, "student": {"choice": ["vit_base", "swin_base"]}},
            "vpt_deep cannot sit in student swin_base",
        ),
    ],
)
def test_a_space_that_may_propose_what_cannot_be_run_is_refused(tmp_path, params, sentence):
    line = refused(tmp_path / "runs", space=searching(**params))
    assert "space 'mine' can propose what cannot be run" in line
    assert sentence in line


def test_what_holds_only_under_conditions_is_judged_under_them(tmp_path):
    odd = {"choice": [4, 8, 5]}
    condition = {"adapter__kind": {"choice": ["ssf", "repadapter", "lora"]}}
    assert planned(
        tmp_path, space=searching(**condition, adapter__hidden_dim={**odd, "when": {"adapter.kind": "lora"}})
    )
    assert "make it even" in refused(
        tmp_path / "runs", space=searching(**condition, adapter__hidden_dim={**odd, "unless": {"adapter.kind": "lora"}})
    )


def test_a_setting_that_does_not_go_with_the_space_is_refused(tmp_path):
    wide = searching(adapter__hidden_dim={"int_uniform": [4, 8]})
    assert planned(tmp_path, space=wide)
    assert "make it even" in refused(tmp_path / "runs", space=wide, fixed={"adapter.kind": "repadapter"})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": -1}, "--trials cannot be -1"),
        ({"trials": 10**9}, "--trials cannot be 1000000000: a search takes at most 100,000"),
        ({"seeds": 10**9}, "--seeds cannot be 1000000000"),
        ({"folds": 1}, "--folds cannot be 1"),
        ({"folds": 10**9}, "--folds cannot be 1000000000"),
        ({"seed": -1}, "--seed cannot be -1"),
        ({"seed": 2**31}, "--seed cannot be 2147483648"),
        ({"name": "a" * 300}, "has 300 bytes; 150 is the most"),
        ({"name": "a\nb"}, r"--name cannot be 'a\nb'"),
        ({"name": ".."}, "--name cannot be '..'"),
    ],
)
def test_numbers_and_names_out_of_range_are_refused(tmp_path, changes, sentence):
    assert sentence in refused(tmp_path / "runs", **changes)


@pytest.fixture
def mine(monkeypatch):
    """A task of the user's own, known but without images."""
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    monkeypatch.setattr(tasks, "_BY_KEY", dict(tasks._BY_KEY))
    monkeypatch.setattr("idat_tune.data.require", lambda task: None)
    return tasks.register(Task("mine", "mine", "own", 3, 10, 5e-3, 5e-5, 0.0))


@pytest.mark.parametrize("student", ["glyph_base", "glyph_small", "random:glyph_base"])
def test_an_embedded_student_gets_the_space_of_embedded_teachers(tmp_path, mine, student):
    plan = planned(tmp_path, "mine", fixed={"student": student})
    assert plan.space.name == "embedded"
    assert all(name.removeprefix("random:").startswith("glyph") for name in plan.backbones())


def test_other_students_get_the_space_of_vit_teachers(tmp_path, mine):
    assert planned(tmp_path, "mine").space.name == "idat"
    assert planned(tmp_path, "digits").space.name == "embedded"


def test_own_tasks_where_there_are_none_are_refused_with_the_way_to_one(monkeypatch):
    built_in = {name: task for name, task in tasks.TASKS.items() if task.group != "own"}
    monkeypatch.setattr(tasks, "TASKS", built_in)
    with pytest.raises(BadInput, match="no task of your own is imported yet; `idat-tune data import"):
        tasks.select(["own"])


@pytest.mark.parametrize("name", ["Natural", " natural ", "NATURAL"])
def test_a_group_is_known_in_any_case_and_between_spaces(name):
    assert tasks.select([name]) == tasks.select(["natural"])
