"""Recipes: what is published of a kind, over a task's defaults and below what is set, in runs and in searches."""

import json

import pytest
from conftest import command
from test_arms import result_of
from test_plan import planned
from test_searcher import a_plan, begin, no_linear_arm, no_object_store, run_all  # noqa: F401
from test_space import draw

from idat_tune import recipes
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.kinds import KINDS
from idat_tune.recipes import RECIPES, Recipe
from idat_tune.search.config import SearchConfig, read, write


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_run_that_uses_all_it_sets(name):
    settings = RECIPES[name].settings
    config = RunConfig.for_task("dtd", {"teacher": "none"}, name)
    assert config.in_use().items() >= settings.items()
    changed = {key: value for key, value in config.flat().items() if RunConfig.for_task("dtd").flat()[key] != value}
    assert {*changed} <= {*settings, "teacher"}
    assert settings[recipes.KIND] in KINDS


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("arc", {"optim.lr": 1e-2, "optim.weight_decay": 0, "adapter.hidden_dim": 50, "adapter.dropout": 0.1}),
        ("mosa", {"optim.lr": 5e-3, "optim.weight_decay": 0.01, "batch_size": 128, "adapter.hidden_dim": 16}),
        ("adapter_plus", {"optim.lr": 1e-3, "optim.weight_decay": 1e-4, "batch_size": 64, "model.drop_path": 0.1}),
        ("mona", {"optim.lr": 3.1e-5, "optim.weight_decay": 0.05, "adapter.dropout": 0.1}),
        ("dora", {"adapter.hidden_dim": 8}),
        ("vera", {"adapter.hidden_dim": 256}),
        ("gist", {"adapter.kind": "parallel_shared", "gist.token": True}),
    ],
)
def test_a_recipe_is_what_was_published(name, settings):
    assert RunConfig.for_task("clevr_dist", recipe=name).flat().items() >= settings.items()


def test_a_recipe_lies_over_the_tasks_defaults_and_below_what_is_set():
    plain, arc = RunConfig.for_task("svhn"), RunConfig.for_task("svhn", {"optim.lr": 3e-3}, "arc")
    assert (arc.adapter.kind, arc.adapter.hidden_dim, arc.optim.lr) == ("arc", 50, 3e-3)
    assert (arc.teacher, arc.epochs, arc.model.drop_path) == (plain.teacher, plain.epochs, plain.model.drop_path)
    assert RunConfig.for_task("svhn", {"epochs": 3}, "arc").optim.warmup_epochs == 1
    assert RunConfig.for_task("svhn", {"adapter.kind": "arc"}, "arc") == RunConfig.for_task("svhn", recipe="arc")


def test_an_unknown_recipe_and_another_kind_are_refused_in_a_sentence():
    with pytest.raises(BadInput, match=r"unknown recipe 'acr'; did you mean 'arc'\? known: ssf, lora, "):
        RunConfig.for_task("dtd", recipe="acr")
    with pytest.raises(BadInput, match="recipe arc is one of adapter.kind arc, and adapter.kind is set to ssf"):
        RunConfig.for_task("dtd", {"adapter.kind": "ssf"}, "arc")
    with pytest.raises(BadInput, match=r"unknown recipe 'acr'; did you mean 'arc'\?"):
        SearchConfig.of("dtd", recipe="acr")


def test_a_search_starts_at_the_recipe_holds_its_kind_and_searches_what_the_space_searches(tmp_path):
    plan = a_plan(tmp_path, recipe="mosa", fixed={"epochs": 2, "batch_size": 16})
    default = plan.config_of({})
    assert (default.adapter.kind, default.adapter.hidden_dim, default.optim.weight_decay) == ("mosa", 16, 0.01)
    assert default.batch_size == 16  # as --set says
    searched = {param.key for param in plan.space.params}
    assert "adapter.kind" not in searched
    assert {"optim.lr", "adapter.hidden_dim"} <= searched
    searching = begin(plan)
    run_all(searching)
    configs = [record.config for record in searching.journal.records if record.config["adapter.kind"] != "linear"]
    assert {config["adapter.kind"] for config in configs} == {"mosa"}
    assert {config["adapter.dropout"] for config in configs} == {0.1}
    assert len({config["optim.lr"] for config in configs}) > 2
    assert result_of(searching)["arms"]["default"]["config"]["optim.lr"] == 5e-3


def test_a_resume_knows_the_recipe_and_what_it_said(tmp_path, monkeypatch):
    plan = a_plan(tmp_path, recipe="mosa")
    run_all(begin(plan), most=2)
    write(tmp_path / "search.yaml", plan.as_config())
    assert read(tmp_path / "search.yaml")["recipe"] == "mosa"
    manifest = json.loads((plan.folder / "manifest.json").read_text())
    assert manifest["recipe"] == {"mosa": dict(RECIPES["mosa"].settings)}
    begin(plan)
    with pytest.raises(BadInput, match="was begun with another recipe"):
        begin(a_plan(tmp_path, fixed={"epochs": 2, "adapter.kind": "mosa"}))
    other = Recipe({**RECIPES["mosa"].settings, "optim.lr": 1e-3}, "")
    monkeypatch.setitem(recipes.RECIPES, "mosa", other)
    with pytest.raises(BadInput, match="was begun with another recipe"):
        begin(a_plan(tmp_path, recipe="mosa"))


def test_a_search_of_before_there_were_recipes_goes_on(tmp_path):
    plan = a_plan(tmp_path)
    run_all(begin(plan), most=2)
    path = plan.folder / "manifest.json"
    content = json.loads(path.read_text())
    assert content.pop("recipe") is None
    path.write_text(json.dumps(content))
    begin(plan)


def test_in_a_search_another_kind_than_the_recipes_is_refused(tmp_path):
    with pytest.raises(BadInput, match="recipe arc is one of adapter.kind arc, and adapter.kind is set to ssf"):
        a_plan(tmp_path, recipe="arc", fixed={"adapter.kind": "ssf"})


def test_a_recipe_too_wide_for_a_backbone_can_be_narrowed(tmp_path):
    from idat_tune import model

    with pytest.raises(BadInput, match="hidden_dim"):
        model.check(RunConfig.for_task("digits", recipe="arc"))
    model.check(RunConfig.for_task("digits", {"adapter.hidden_dim": 16}, "arc"))


def test_points_of_a_space_may_begin_from_a_recipe(tmp_path):
    import random

    space = {
        "params": {"adapter.kind": {"choice": ["mosa", "ssf"]}, "optim.lr": {"log_uniform": [1e-3, 1e-1]}},
        "start": [{"recipe": "mosa", "optim.lr": 0.02}],
    }
    plan = planned(tmp_path, space=space, trials=8)
    (start,) = (job.config for job in plan.first_jobs() if job.id == "start-0")
    assert start.flat().items() >= {**RECIPES["mosa"].settings, "optim.lr": 0.02}.items()
    assert "recipe" not in str(plan.space.written())
    assert plan.space.propose(draw(random.Random(0)))


def test_the_commands_know_recipes():
    done = command("describe", "--recipe", "arc", "--teacher", "none", "--classes", 100, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["student"]["adapter_params"] == 96_432
    done = command("describe", "--recipes", "--json")
    assert json.loads(done.stdout)["arc"]["settings"]["adapter.hidden_dim"] == 50
    assert [*json.loads(done.stdout)] == [*RECIPES]
    for words in (["train", "--task", "digits"], ["search", "--task", "digits"], ["describe"]):
        done = command(*words, "--recipe", "acr")
        assert (done.returncode, "unknown recipe 'acr'; did you mean 'arc'?" in done.stderr) == (2, True), words


def test_the_documents_say_of_every_recipe_what_it_sets():
    from test_repository import ROOT

    text = (ROOT / "docs" / "recipes.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert [*rows] == [*RECIPES]
    for name, recipe in RECIPES.items():
        for key, value in recipe.settings.items():
            word = f"`{key}={value:g}`" if isinstance(value, float) else f"`{key}={str(value).lower()}`"
            assert word in rows[name], name


@pytest.mark.slow
def test_a_run_with_a_recipe_trains_with_it():
    words = ("--set", "adapter.hidden_dim=8", "--set", "epochs=1", "--set", "teacher=none")
    done = command("train", "--task", "digits", "--recipe", "arc", *words, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert (config["adapter.kind"], config["adapter.hidden_dim"], config["adapter.dropout"]) == ("arc", 8, 0.1)
