"""The starting configs: which a task gets, and where those of the embedded tasks come from."""

import pytest
import toy

from benchmarks import portfolio as derivation
from idat_tune import portfolio, space
from idat_tune.config import RunConfig
from idat_tune.replay import greedy, table
from idat_tune.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_five_different_starting_configs_that_are_valid(task):
    configs = {RunConfig.for_task(task, start) for start in portfolio.starts(task)}
    assert len(configs) == 5
    assert RunConfig.for_task(task) not in configs


def test_a_task_of_the_users_own_starts_as_vtab_does():
    assert portfolio.starts("digits") != portfolio.starts("dtd") == portfolio.VTAB


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
