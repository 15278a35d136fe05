"""What the samplers propose, and in which order a grid is gone through."""

import itertools
import json

import pytest
from optuna.trial import TrialState
from test_searcher import a_plan, begin, no_linear_arm, run_all, run_one  # noqa: F401

from idat_tune import space as spaces
from idat_tune.errors import BadInput
from idat_tune.journal import EXPLORE
from idat_tune.search import grid
from idat_tune.search.config import GRID, RULES, SAMPLERS, TPE
from idat_tune.search.sampler import SAMPLERS as SAMPLER_TABLE
from idat_tune.search.sampler import reseed
from idat_tune.search.stopping import RULES as RULE_TABLE

CONDITIONAL = {
    "teacher": {"choice": ["none", "glyph_small"]},
    "adapter.hidden_dim": {"int_log_uniform": [2, 5]},
    "distill.weight": {"log_uniform": [0.1, 10], "unless": {"teacher": "none"}},
}


def proposals(conducting, most=1000):
    payloads = run_all(conducting, most)
    return [payload["config"] for payload in payloads if payload["stage"] == EXPLORE and not payload["arms"]]


def test_every_name_that_a_plan_knows_stands_for_something():
    assert set(SAMPLER_TABLE) == set(SAMPLERS)
    assert set(RULE_TABLE) == set(RULES)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("space", ["embedded", "kinds"])
def test_every_sampler_explores_every_space_and_repeats_itself(tmp_path, sampler, space):
    changes = {"sampler": sampler, "space": spaces.load(space), "trials": 20}
    changes["fixed"] = {"epochs": 2, **({"teacher": "glyph_small"} if space == "kinds" else {})}
    runs = [begin(a_plan(tmp_path / str(number), **changes)) for number in range(2)]
    first, second = map(proposals, runs)
    assert first == second
    assert len({str(config) for config in first}) == 17


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cut", [5, 15])
def test_one_trial_at_a_time_a_search_goes_on_after_a_restart_as_if_there_had_been_none(tmp_path, sampler, cut):
    whole = begin(a_plan(tmp_path / "whole", sampler=sampler, trials=20))
    before = begin(a_plan(tmp_path / "cut", sampler=sampler, trials=20))
    done = proposals(before, most=cut)
    before.suggest("cut off")
    again = begin(a_plan(tmp_path / "cut", sampler=sampler, trials=20))
    assert done + proposals(again) == proposals(whole)


def test_trials_at_once_do_not_share_their_random_numbers(tmp_path):
    conducting = begin(a_plan(tmp_path, sampler="random", trials=8))
    run_all(conducting, most=3)
    live = [conducting.suggest(f"t{number}")["config"]["optim.lr"] for number in range(5)]
    assert len(set(live)) == 5


def test_after_a_restart_nothing_is_drawn_twice(tmp_path):
    first = begin(a_plan(tmp_path, sampler="random", trials=8))
    run_all(first, most=3)
    first.suggest("lost")
    for number in range(3):
        run_one(first, f"t{number}", first.suggest(f"t{number}"))
    second = begin(a_plan(tmp_path, sampler="random", trials=8))
    run_all(second)
    drawn = [dict(record.config)["optim.lr"] for record in second.journal.of(EXPLORE) if not record.arms]
    assert len(set(drawn)) == len(drawn) == 5


def test_a_grid_has_every_valid_combination_once_and_nothing_else():
    points = grid.points(spaces.parse({"params": CONDITIONAL}))
    assert len({str(point) for point in points}) == len(points) == 4 * (1 + grid.LEVELS)
    for point in points:
        assert ("distill.weight" in point) == (point["teacher"] != "none")
    assert sorted({point["adapter.hidden_dim"] for point in points}) == [2, 3, 4, 5]
    weights = sorted({point["distill.weight"] for point in points if "distill.weight" in point})
    assert (weights[0], weights[-1]) == (0.1, 10)
    factors = [b / a for a, b in itertools.pairwise(weights)]
    assert factors == pytest.approx([10**0.5] * 4)


def test_a_grid_that_is_exhausted_ends_exploring_and_the_search_goes_on(tmp_path):
    space = spaces.parse({"params": CONDITIONAL, "fixed": {"epochs": 2}})
    conducting = begin(a_plan(tmp_path, space=space, sampler=GRID, trials=100))
    tried = proposals(conducting)
    assert conducting.finished
    # Two of the 24 points were tried as arms.
    assert len({str(config) for config in tried}) == len(tried) == 22
    assert conducting.journal.state.openings


def test_a_grid_cut_off_early_has_gone_over_the_whole_space(tmp_path):
    tried = proposals(begin(a_plan(tmp_path, sampler=GRID, trials=35)))
    assert len(tried) == 32
    for key, values in (("adapter.kind", 3), ("adapter.hidden_dim", 4), ("distill.loss", 4), ("optim.lr", grid.LEVELS)):
        assert len({config[key] for config in tried}) == values


def test_a_grid_knows_what_was_tried_before_a_restart(tmp_path):
    space = spaces.parse({"params": CONDITIONAL, "fixed": {"epochs": 2}})
    plan = a_plan(tmp_path, space=space, sampler=GRID, trials=100)
    before = proposals(begin(plan), most=12)
    tried = before + proposals(begin(plan))
    assert len({str(config) for config in tried}) == len(tried) == 22


TWO_BY_THREE = {"adapter.hidden_dim": {"choice": [4, 8]}, "adapter.kind": {"choice": ["sequential", "parallel", "ssf"]}}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_config_is_run_twice_and_a_space_of_few_points_ends_exploring(tmp_path, sampler):
    space = spaces.parse({"params": TWO_BY_THREE, "fixed": {"epochs": 2}})
    conducting = begin(a_plan(tmp_path, space=space, sampler=sampler, trials=50))
    run_all(conducting, at_once=2)
    explored = [json.dumps(dict(record.config)) for record in conducting.journal.of(EXPLORE)]
    assert len(set(explored)) == len(explored)
    points = {(r.config["adapter.hidden_dim"], r.config["adapter.kind"]) for r in conducting.journal.of(EXPLORE)}
    assert len(points) == 6
    assert conducting.journal.state.ended_by == GRID
    assert conducting.finished


def test_what_a_restart_finds_in_the_journal_is_not_run_again_either(tmp_path):
    space = spaces.parse({"params": TWO_BY_THREE, "fixed": {"epochs": 2}})
    whole = begin(a_plan(tmp_path / "whole", space=space, trials=50))
    run_all(whole)
    for cut in (3, 5, 7):
        plan = a_plan(tmp_path / str(cut), space=space, trials=50)
        run_all(begin(plan), most=cut)
        again = begin(plan)
        run_all(again)
        wanted = [(record.id, dict(record.config)) for record in whole.journal.of(EXPLORE)]
        assert [(record.id, dict(record.config)) for record in again.journal.of(EXPLORE)] == wanted


def test_a_proposal_of_something_known_leaves_the_sampler_as_it_was(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=4)
    proposer, space = conducting.proposer, conducting.plan.space
    reseed(conducting.study, TPE, conducting.plan.seed, 7, space)
    first, config = proposer._ask()
    conducting.study.tell(first, state=TrialState.FAIL)
    _, other = proposer.propose(7, {config})
    assert other != config
    _, again = proposer.propose(7, set())
    assert again == config


def test_a_grid_too_large_to_go_through_is_refused(tmp_path):
    wide = {f"{key}": {"uniform": [0.1, 0.9]} for key in ("optim.lr", "adapter.scale", "optim.weight_decay")}
    wide |= {key: {"uniform": [0.1, 0.9]} for key in ("distill.weight", "distill.temperature", "optim.min_lr")}
    wide |= {key: {"uniform": [0.1, 0.9]} for key in ("model.drop_path", "optim.warmup_lr")}
    with pytest.raises(BadInput, match="more than 100,000 points"):
        a_plan(tmp_path, space=spaces.parse({"params": wide}), sampler=GRID)


def test_a_search_may_go_on_with_another_sampler_and_says_so_in_the_journal(tmp_path):
    run_all(begin(a_plan(tmp_path)), most=5)
    conducting = begin(a_plan(tmp_path, sampler="random", stopping="none"))
    run_all(conducting)
    begun = [json.loads(line) for line in conducting.journal.path.read_text().splitlines() if '"begun"' in line]
    assert [(one["sampler"], one["stopping"]) for one in begun] == [("tpe", "halving"), ("random", "none")]
    assert len(conducting.journal.of(EXPLORE)) == 6


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sampler": "tpee"}, "unknown --sampler 'tpee'; did you mean 'tpe'?"),
        ({"stopping": "asha"}, "unknown --stopping 'asha'; known: halving, median, none"),
    ],
)
def test_an_unknown_sampler_or_rule_is_refused(tmp_path, changes, sentence):
    with pytest.raises(BadInput) as caught:
        a_plan(tmp_path, **changes)
    assert sentence in str(caught.value)


def test_the_gaussian_process_models_what_every_trial_has_and_leaves_conditions_to_tpe(tmp_path):
    conducting = begin(a_plan(tmp_path, sampler="gp", trials=20))
    run_all(conducting, most=18)
    conducting.suggest("one more")
    proposal = next(iter(conducting.live.values())).proposal
    assert set(proposal.relative_params) == {"teacher", "adapter.kind", "adapter.hidden_dim", "optim.lr"}
    assert {trial.state for trial in conducting.study.trials} == {TrialState.COMPLETE, TrialState.RUNNING}
