"""Arms that a space names: always run, confirmed and tested, and each a row of the result."""

import json
from dataclasses import replace

import pytest
from conftest import command
from ray.tune.search import Searcher
from rich.console import Console
from test_estimates import SPEED
from test_searcher import (
    a_plan,
    accuracy_of,
    asking,
    begin,
    failing,
    no_linear_arm,  # noqa: F401
    no_object_store,  # noqa: F401
    results_of,
    run_all,
    run_one,
)

from idat_tune import screen
from idat_tune import space as spaces
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, TEST
from idat_tune.kinds import KINDS
from idat_tune.progress import Progress
from idat_tune.recipes import RECIPES
from idat_tune.search import finish, measuring
from idat_tune.search.config import SearchConfig
from idat_tune.search.estimates import Pace, cost_key, estimated, sample_of
from idat_tune.search.plan import Plan
from idat_tune.search.standing import standings
from idat_tune.search.verdict import Findings
from idat_tune.tasks import TASKS, VTAB

ARMS = {
    "as_default": {},
    "wide": {"adapter.hidden_dim": 32},
    "wide_alone": {"adapter.hidden_dim": 32, "teacher": "none"},
    "ssf": {"recipe": "ssf", "teacher": "none"},
}
ALL = ["default", "alone", "no_distill", *ARMS]


def a_search(out, arms=ARMS, params=None, **changes):
    return a_plan(out, space={"params": params or {}, "arms": arms}, **{"trials": 0, "folds": 2, **changes})


def refused(content):
    with pytest.raises(BadInput) as caught:
        spaces.parse(content)
    return str(caught.value)


def result_of(searching):
    return finish.result(searching.plan, searching.journal, "uri", 1.0)


@pytest.mark.parametrize("params", [{}, {"optim.lr": {"choice": [0.001, 0.002]}}])
@pytest.mark.parametrize("at_once", [1, 4])
def test_with_no_trials_the_arms_are_trained_tested_and_shown_and_nothing_is_explored(tmp_path, params, at_once):
    searching = begin(a_search(tmp_path, params=params))
    payloads = run_all(searching, at_once=at_once)
    assert searching.finished
    explored = [payload for payload in payloads if payload["stage"] == EXPLORE]
    assert [arm for payload in explored for arm in payload["arms"]] == ["default", "as_default", *ALL[1:3], *ALL[4:]]
    assert [record.status for record in searching.journal.of(EXPLORE)] == [COMPLETE] * 6
    assert searching.journal.state.ended_by in ("trials", "grid")
    result = result_of(searching)
    assert result["trials"] == {"complete": 6, "stopped": 0, "failed": 0}
    assert {*ALL} <= {*result["arms"]}
    for name in ("default", "alone", *ARMS):
        row = result["arms"][name]
        assert row["test_accuracy"]["seeds"] == 2, name
        assert row["test_accuracy"]["mean"] == pytest.approx(accuracy_of(row["config"]) + 0.0005)
        assert row["confirmed"]["folds"] == 2
    assert result["winner"]["test_accuracy"]
    tests = {(found["ours"], found["theirs"]) for found in result["comparisons"] if found["split"] == "test"}
    assert tests >= {("wide", "default"), ("ssf", "default")}


def test_arms_of_one_config_are_one_run_with_a_row_each_and_that_is_said(tmp_path):
    plan = a_search(tmp_path)
    assert plan.merged() == [("as_default", "arm-default")]
    searching = begin(plan)
    run_all(searching)
    result = result_of(searching)
    assert result["arms"]["as_default"] == result["arms"]["default"]
    assert [record.id for record in searching.journal.of(FINAL) if "as_default" in record.id] == []
    said = lines_at_the_start_of(plan)
    assert "as_default is not run beside arm-default, which has the same config and stands for both" in said
    assert "nothing is explored: 6 arms are all the trials" in said


def lines_at_the_start_of(plan):
    progress, said = Progress(quiet=True), []
    progress.say = said.append
    progress.on_search_start(plan, 1, [], None)
    return said


def a_start(out, point, **changes):
    space = {"params": {"optim.lr": {"choice": [0.01, 0.02]}}, "start": [point, {"optim.lr": 0.02}], "arms": {}}
    return a_plan(out, space=space, **changes)


def test_a_start_that_is_an_arm_already_is_said_to_be_one(tmp_path):
    plan = a_start(tmp_path, {"optim.lr": 0.01})  # the default's
    assert plan.merged() == [("start-0", "arm-default")]
    assert [job.id for job in plan.first_jobs()][3:] == ["start-1"]
    assert a_start(tmp_path, {"optim.lr": 0.01}, trials=0).merged() == [("start-0", "arm-default")]
    assert a_start(tmp_path, {"optim.lr": 0.02}).merged() == [("start-1", "start-0")]


def test_no_trials_leave_starting_points_out(tmp_path):
    plan = a_start(tmp_path, {"optim.lr": 0.02}, trials=0, folds=0)
    assert [job.id for job in plan.first_jobs()] == ["arm-default", "arm-alone", "arm-no_distill"]
    assert not plan.explores
    searching = begin(plan)
    run_all(searching)
    assert searching.finished
    assert len(searching.journal.of(EXPLORE)) == 3


def test_an_arm_may_win_and_nothing_ends_it_early(tmp_path):
    searching = begin(a_search(tmp_path, folds=5))
    for number in range(1000):
        payload = searching.suggest(str(number))
        if payload == Searcher.FINISHED:
            break
        better = {**payload, "config": {**payload.get("config", {}), "optim.lr": 0.1}}
        lifted = "arm-ssf" in (payload["id"], payload.get("contender"))
        run_one(searching, str(number), payload, results_of(better) if lifted else None)
    assert searching.journal.state.winner == "arm-ssf"
    assert result_of(searching)["winner"]["trial"] == "arm-ssf"


def test_an_arm_that_failed_has_a_row_that_says_so_and_is_not_trained_again(tmp_path):
    searching = begin(a_search(tmp_path))
    while (payload := searching.suggest("t")) != Searcher.FINISHED:
        run_one(searching, "t", payload, failing(payload) if payload["id"] == "arm-ssf" else None)
    row = result_of(searching)["arms"]["ssf"]
    assert (row["status"], row["reason"], row["test_accuracy"]) == (FAILED, "Diverged: nan", None)
    assert not any("ssf" in record.id for record in searching.journal.records if record.stage != EXPLORE)
    console = Console(width=200, record=True)
    console.print(screen.comparison(result_of(searching)))
    assert "arm-ssf (failed)" in console.export_text()


def test_the_report_has_a_row_for_every_arm(tmp_path):
    searching = begin(a_search(tmp_path))
    while (payload := searching.suggest("t")) != Searcher.FINISHED:
        run_one(searching, "t", payload, failing(payload) if payload["id"] == "arm-wide" else None)
    remarks = []
    finish.write_page(searching.plan, searching.journal, searching.manifest, result_of(searching), remarks.append)
    assert remarks == []
    page = (searching.plan.folder / "report.html").read_text()
    assert "default = as_default" in page
    assert ">ssf<" in page


def test_arms_do_not_take_the_places_of_the_best_explored_ones(tmp_path):
    params = {"optim.lr": {"choice": [0.001, 0.002, 0.03, 0.04]}}
    searching = begin(a_search(tmp_path, params=params, trials=9, top_k=2, stopping="none"))
    run_all(searching)
    explored = [record for record in searching.journal.of(EXPLORE) if not record.arms]
    assert len(explored) == 3
    confirmed = {record.contender for record in searching.journal.of(CONFIRM)}
    assert {"arm-wide", "arm-ssf"} <= confirmed
    assert len(confirmed & {record.id for record in explored}) == 2


def test_more_trials_may_be_asked_for_after_none(tmp_path):
    params = {"optim.lr": {"choice": [0.001, 0.002, 0.03, 0.04]}}
    plan = a_search(tmp_path, params=params)
    searching = begin(plan)
    while not searching.journal.state.winner:
        run_all(searching, most=1)
    again = begin(asking(plan, trials=8))
    run_all(again)
    assert len(again.journal.of(EXPLORE)) == 8
    assert again.finished
    with pytest.raises(BadInput, match="opened its test split with --trials 8, so it cannot go on to 9"):
        begin(asking(plan, trials=9))


def test_a_search_of_no_trials_that_opened_its_test_is_not_gone_on_with_unasked(tmp_path):
    plan = a_search(tmp_path, params={"optim.lr": {"choice": [0.001, 0.002]}})
    run_all(begin(plan))
    with pytest.raises(BadInput, match="opened its test split with --trials 0, so it cannot go on to 8"):
        begin(asking(plan, trials=8))


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ([], "`params` is empty"),
        ([1], "`arms` is a mapping of name to a mapping of key to value"),
        ({"Arc": {}}, "an arm cannot be named 'Arc'"),
        ({1: {}}, "an arm cannot be named '1'"),
        ({"a" * 41: {}}, "have 40 characters at most"),
        ({"winner": {}}, "an arm cannot be named 'winner': every search calls one of its own so"),
        ({"a": {"adapter.knd": "ssf"}}, "unknown setting 'adapter.knd'; did you mean 'adapter.kind'?"),
        ({"a": {"recipe": "acr"}}, "unknown recipe 'acr'; did you mean 'arc'?"),
        ({"a": {"recipe": "arc", "adapter.kind": "ssf"}}, "recipe arc is one of adapter.kind arc"),
        ({"a": {"epochs": 3}}, "arm 'a' sets epochs to 3, and `fixed` to 2; keep one"),
        ({"a": "ssf"}, "`arms` holds mappings of key to value, not ssf"),
    ],
)
def test_arms_that_cannot_be_are_refused_in_a_sentence(arms, sentence):
    assert sentence in refused({"params": {}, "fixed": {"epochs": 2}, "arms": arms})


def test_every_name_that_searches_give_is_taken(tmp_path):
    searching = begin(a_plan(tmp_path))
    run_all(searching)
    assert {*Findings(searching.plan, searching.journal, None).named, *result_of(searching)["arms"]} <= {*spaces.TAKEN}


@pytest.mark.parametrize("changes", [{"fixed": {"adapter.kind": "lora"}}, {"recipe": "lora"}])
def test_nothing_makes_another_kind_of_a_named_arm(tmp_path, changes):
    with pytest.raises(BadInput, match="arm 'ssf' of space 'space' has adapter.kind ssf, and lora is held by --set"):
        a_search(tmp_path, **changes)


def test_an_arm_that_does_not_fit_the_student_is_named(tmp_path):
    arms = {"prompts": {"adapter.kind": "vpt_deep", "teacher": "none"}}
    with pytest.raises(BadInput, match="arm 'prompts' of space 'space' cannot be run: adapter.kind vpt_deep cannot"):
        a_search(tmp_path, arms, fixed={"student": "swin_base"})


def test_what_is_set_holds_for_arms_too(tmp_path):
    plan = a_search(tmp_path, fixed={"epochs": 3, "optim.lr": 0.004})
    assert {(config.epochs, config.optim.lr) for config in plan.arms().values()} == {(3, 0.004)}


def test_the_arms_are_part_of_what_a_resume_must_have_in_common(tmp_path):
    plan = a_search(tmp_path)
    run_all(begin(plan), most=2)
    with pytest.raises(BadInput, match="was begun with another space"):
        begin(a_search(tmp_path, {**ARMS, "wide": {"adapter.hidden_dim": 16}}))
    assert "arms" not in a_plan(tmp_path / "other").identity()["space"]  # as manifests of before have it


def test_backbones_that_only_arms_use_are_known(tmp_path):
    plan = a_search(tmp_path, {"big": {"teacher": "glyph_base"}}, fixed={"epochs": 2})
    assert plan.backbones() == ["glyph_base", "glyph_small"]
    assert {(config.student, config.teacher) for config in plan.pairs()} >= {("glyph_base", "glyph_base")}


@pytest.mark.parametrize("params", [{}, {"optim.lr": {"choice": [0.001, 0.002]}}])
def test_what_a_search_of_arms_takes_is_foreseen_exactly(tmp_path, params):
    plan = a_search(tmp_path, params=params, folds=0)
    keys = {cost_key(config.flat()) for config in plan.arms().values()}
    pace = Pace(dict.fromkeys(keys, SPEED), sample_of(plan))
    foreseen = {stage: found.epochs for stage, found in estimated(plan, 1, pace).stages.items()}
    searching = begin(plan)
    run_all(searching)
    ran = {stage: sum(len(r.epochs) for r in searching.journal.of(stage)) for stage in (EXPLORE, FINAL)}
    assert (foreseen[EXPLORE], foreseen[FINAL], foreseen[CONFIRM]) == (ran[EXPLORE], ran[FINAL], 0)
    speed = replace(SPEED, val=1.0)
    pace = Pace(dict.fromkeys(keys, speed), sample_of(plan))
    (test,) = searching.journal.of(TEST)
    assert estimated(plan, 1, pace).stages[TEST].busy == len(test.tested) * plan.task.test


def test_a_dry_run_measures_every_arm_that_differs_in_cost(tmp_path):
    kinds = ("ssf", "lora", "bitfit", "ln", "ia3", "parallel", "convpass", "repadapter")
    arms = {kind: {"adapter.kind": kind, "teacher": "none"} for kind in kinds}
    plan = a_search(tmp_path, arms)
    costs = measuring._costs([*plan.arms().values()])
    chosen = {cost_key(config.flat()) for config in measuring._chosen(plan, costs)}
    assert chosen == {cost_key(config.flat()) for config in plan.arms().values()}
    assert len(chosen) > measuring.PROBES


def test_the_status_of_a_search_that_was_asked_for_no_trials_counts_its_arms(tmp_path):
    run_all(begin(a_search(tmp_path)), most=7)
    (standing,) = standings(tmp_path)
    console = Console(width=200, record=True)
    console.print(screen.standing_table([standing]))
    assert standing["trials"] == {"ended": 6, "failed": 0, "asked": 0}
    assert " 6 " in console.export_text()


@pytest.mark.slow
def test_the_command_runs_the_arms_and_gives_a_row_for_each(tmp_path):
    space = tmp_path / "mine.yaml"
    space.write_text("# mine\narms:\n  plain: {}\n  ours: {recipe: mosa, teacher: none}\n")
    words = ("--trials", 0, "--epochs", 1, "--no-confirm", "--seeds", 1, "--out", tmp_path / "runs", "--name", "a")
    done = command("search", "--task", "digits", "--space", space, *words, "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "plain is not run beside arm-default" in done.stderr
    assert result["trials"] == {"complete": 4, "stopped": 0, "failed": 0}
    assert result["arms"]["plain"] == result["arms"]["default"]
    assert 0.1 < result["arms"]["ours"]["test_accuracy"]["mean"] < 1
    assert result["arms"]["ours"]["config"]["batch_size"] == 128
    file = tmp_path / "runs" / "a" / "search.yaml"
    done = command("search", "--config", file, "--out", tmp_path / "runs", "--name", "a", "--json", timeout=600)
    assert json.loads(done.stdout)["arms"] == result["arms"]


class TestTable3:
    """The shipped space of the paper's Table 3."""

    @pytest.mark.parametrize("task", [task.name for task in TASKS.values() if task.group in VTAB])
    def test_it_is_a_search_of_its_arms_on_every_task(self, tmp_path, task):
        plan = Plan.checked(SearchConfig.of(task, space="table3", trials=0, out=tmp_path, name="t"))
        assert not plan.explores
        assert {*plan.named_arms} <= {arm for job in plan.first_jobs() for arm in job.arms}
        assert len(plan.first_jobs()) == 18  # without the linear ones
        assert plan.merged() == [("idat_s_kl", "arm-default"), ("sequential", "arm-alone")]

    def test_what_a_recipe_says_stands_in_its_arm(self):
        arms = {name: dict(point) for name, point in spaces.load("table3").arms}
        for name in ("lora", "ssf", "arc", "mosa", "repadapter"):
            assert arms[name].items() >= RECIPES[name].settings.items()

    def test_it_trains_as_many_parameters_as_the_papers_table_has_where_it_can(self, tmp_path):
        from idat_tune import cost

        plan = Plan.checked(SearchConfig.of("dtd", space="table3", trials=0, out=tmp_path, name="t"))
        head, said = 38_045, {"arc": "0.13", "vpt_deep": "0.60", "res_tuning": "0.54"}  # of the 19 tasks in the mean
        for name, millions in said.items():
            adapters = cost.describe(plan.arms()[name])["student"]["adapter_params"]
            assert f"{(adapters + head) / 1e6:.2f}" == millions, name

    def test_several_tasks_end_with_a_row_of_means_for_each_arm(self):
        rows = finish.overview([a_result("digits", 0.5), a_result("sprites_loc", 0.7)])
        assert [row["ssf_test"] for row in rows][:2] == [0.5, 0.7]
        overall = next(row for row in rows if row["row"] == "overall mean")
        assert overall["ssf_test"] == pytest.approx(0.6)
        assert "winner_alone_test" not in rows[0]
        assert list(screen.arms_table(rows).columns[-1].cells) == ["60.00 %"]
        assert screen.arms_table([{"row": "digits", "winner_test": 0.5}]) is None


def a_result(task, accuracy):
    row = {"val_accuracy": 0.5, "test_accuracy": {"mean": accuracy}}
    return {"task": task, "name": task, "winner": row, "arms": dict.fromkeys(("default", "ssf", "winner_alone"), row)}


def test_the_space_of_all_kinds_has_all_and_searches_of_each_what_it_uses():
    params = spaces.load("kinds").params
    (kinds,) = (param.domain.values for param in params if param.key == "adapter.kind")
    assert {*kinds} == {*KINDS}
    for kind, known in KINDS.items():
        chosen = {"adapter.kind": kind, "teacher": "none"}
        searched = {param.key for param in params if param.key.startswith("adapter.") and param.active(chosen)}
        wanted = {*known.uses} & {"adapter.hidden_dim", "adapter.scale", "adapter.targets"}
        assert searched - {"adapter.kind"} == wanted, kind
        assert RunConfig.for_task("dtd", chosen)
