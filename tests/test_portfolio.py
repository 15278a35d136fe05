"""The starting configs: which a task gets, and where those of the embedded tasks come from."""

import pytest
import toy

from benchmarks import portfolio as derivation
from idat_tune import data, portfolio, space
from idat_tune.config import RunConfig
from idat_tune.recipes import RECIPES
from idat_tune.replay import greedy, table
from idat_tune.search import SearchConfig, plan_search
from idat_tune.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_five_different_starting_configs_that_are_valid(task):
    configs = {RunConfig.for_task(task, start) for start in portfolio.starts(task)}
    assert len(configs) == 5
    assert RunConfig.for_task(task) not in configs


def test_a_task_of_the_users_own_starts_as_vtab_does():
    assert portfolio.starts("digits") != portfolio.starts("dtd") == portfolio.VTAB


FACT_TT = [(32, 1.0, 1e-3, 1e-3), (8, 0.1, 1e-2, 1e-4)]
KEYS = ("adapter.hidden_dim", "adapter.scale", "optim.lr", "optim.weight_decay")


def test_a_kind_that_is_searched_alone_starts_from_what_is_known_of_it():
    found = portfolio.starts("dtd", ["fact_tt"])
    assert [tuple(start[key] for key in KEYS) for start in found] == FACT_TT
    assert [start["adapter.hidden_dim"] for start in portfolio.starts("svhn", ["fact_tk"])] == [64, 32]
    assert portfolio.starts("dtd", ["arc"]) == (RECIPES["arc"].settings,)
    assert portfolio.starts("dtd", ["sequential"]) == portfolio.starts("dtd") == portfolio.VTAB


def test_what_is_known_of_kinds_comes_behind_where_they_are_some_of_several():
    found = portfolio.starts("dtd", ["parallel", "mosa", "fact_tt"])
    assert found[:5] == portfolio.VTAB
    assert {start["adapter.kind"] for start in found[5:]} == {"mosa", "fact_tt"}
    assert portfolio.starts("digits", ["fact_tt", "mosa"]) == portfolio.starts("digits")


@pytest.mark.parametrize("kind", portfolio.OF_KIND)
def test_what_is_known_of_a_kind_is_a_valid_run_that_uses_it(kind):
    for start in portfolio.OF_KIND[kind]:
        assert RunConfig.for_task("dtd", {"teacher": "none", **start}).in_use().items() >= start.items()


def test_a_search_of_all_kinds_tries_what_is_known_of_those_in_its_domains(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "require", lambda task: None)  # as if it were imported
    plan = plan_search(SearchConfig.of("dtd", space="kinds", out=tmp_path, name="k"))
    kinds = [job.config.adapter.kind for job in plan.first_jobs() if job.id.startswith("portfolio")]
    # Of fact_tk rank 64, and arc's 50, lie outside.
    assert kinds == ["parallel"] * 5 + ["fact_tt"] * 2 + ["fact_tk", "mosa", "adapter_plus"]
    held = SearchConfig.of("dtd", space="kinds", fixed={"adapter.kind": "fact_tk"}, out=tmp_path, name="f")
    found = [job.config for job in plan_search(held).first_jobs() if job.id.startswith("portfolio")]
    assert [(one.adapter.hidden_dim, one.optim.lr) for one in found] == [(32, 1e-3)]


@pytest.mark.parametrize("task", TASKS)
def test_starting_configs_lie_in_the_space_so_that_the_sampler_learns_from_them(task):
    searched = space.load("embedded" if TASKS[task].embedded else "idat")
    for start in portfolio.starts(task):
        config = RunConfig.for_task(task, {**dict(searched.fixed), **start})
        assert searched.labels_of(config.flat()) is not None


def test_the_embedded_starting_configs_are_what_the_recorded_table_yields():
    assert derivation.derived() == portfolio.EMBEDDED, "after a new recording, take over what this prints"


def curves(values):
    """One run per config, with that validation accuracy."""
    return {
        name: table.Curves("any", name, {}, 1, {0: table.RecordedRun("any", name, 0, {}, 1, 0, (v,), (0,), v, 0)})
        for name, v in values.items()
    }


def test_the_first_is_best_in_the_mean_and_the_next_adds_the_most_to_it():
    arms = dict.fromkeys(table.ARMS, 0.5)
    one = curves({**arms, "both": 0.7, "both too": 0.69, "only one": 0.9, "only other": 0.4})
    other = curves({**arms, "both": 0.7, "both too": 0.69, "only one": 0.4, "only other": 0.8})
    assert greedy.portfolio([one, other]) == ["both", "only one", "only other", "both too"]


def test_the_arms_are_taken_as_tried_and_never_chosen():
    arms = {**dict.fromkeys(table.ARMS, 0.5), "alone": 0.9}
    assert greedy.portfolio([curves({**arms, "same": 0.8, "worse": 0.7})]) == ["same", "worse"]


def test_a_portfolio_of_one_task_is_its_five_best():
    known = table.curves_of(list(toy.recordings(tasks=("digits",), noise=0.0)), "digits")
    chosen = greedy.portfolio([known])
    by_truth = sorted((n for n in known if n not in table.ARMS), key=lambda n: known[n].truth, reverse=True)
    assert [known[n].truth for n in chosen] == pytest.approx([known[n].truth for n in by_truth[:5]], abs=0.005)


def test_numbers_are_rounded_to_three_digits():
    assert greedy.rounded({"optim.lr": 0.0123456, "adapter.hidden_dim": 16, "teacher": "none"}) == {
        "optim.lr": 0.0123,
        "adapter.hidden_dim": 16,
        "teacher": "none",
    }
