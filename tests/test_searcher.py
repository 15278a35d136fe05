"""What the searcher proposes and records, stage by stage, without Ray: results are made up here."""

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from safetensors.numpy import save
from test_journal import epoch

from idat_tune import data, portfolio
from idat_tune import space as spaces
from idat_tune.errors import BadInput, IdatError
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, STOPPED, TEST, Journal
from idat_tune.journal.state import ENDED, STARTED
from idat_tune.metrics import WORST, score
from idat_tune.search import Callback, driver, finish, plan_search, searcher
from idat_tune.search import plan as plans
from idat_tune.search.config import SearchConfig, by_key
from idat_tune.search.confirm import Confirmation
from idat_tune.search.holding import locked
from idat_tune.search.manifest import JOURNAL, Manifest, check_openings
from idat_tune.search.plan import Plan
from idat_tune.search.searcher import StagedSearcher
from idat_tune.search.stages import winner
from idat_tune.worker.pool import Place

TENSORS = save({"head.bias": np.zeros(1, dtype=np.float32)})


class SilentTracker:
    """Takes trials and keeps their ids."""

    def __init__(self):
        self.logged = []

    def log_start(self, job, began):
        pass

    def log_epoch(self, trial, set_up_seconds, epoch):
        pass

    def log_trial(self, record):
        self.logged.append(record.id)


class Everywhere:
    """A pool with room for any trial, whose workers are never replaced."""

    limit, seats = None, 1

    def place(self, taken, alone, paces):
        return Place("worker", alone)

    def machine(self, name):
        return "machine"

    def replace(self, name, reason, unfit):
        return False

    def look(self):
        pass

    def leave(self, name, key):
        self.left = [*getattr(self, "left", []), (name, key)]


@pytest.fixture(autouse=True)
def no_object_store(monkeypatch):
    monkeypatch.setattr(searcher.ray, "put", lambda value: value)


@pytest.fixture(autouse=True)
def no_linear_arm(monkeypatch):
    """So that trials are counted easily; a test that is about it puts the learning rates back."""
    monkeypatch.setattr(plans, "LINEAR_RATES", ())


def a_plan(out, **changes):
    settings = {
        "name": "s",
        "task": "digits",
        "space": spaces.load("embedded"),
        "fixed": {"epochs": 2},
        "trials": 6,
        "seed": 0,
        "seeds": 2,
    }
    return Plan.checked(SearchConfig.of(**{**settings, **changes}, out=out))


def asking(plan, **options):
    """The plan of the same search, given again with other options."""
    return replace(plan, config=plan.config.updated(by_key(options)))


def opened(plan, gpus=0.0, clock=time.time):
    """Journal and manifest of a search that begins there, or goes on."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.folder / JOURNAL, clock)
    journal.path.touch()
    manifest = Manifest(plan, "hash")
    check_openings(plan, journal)
    driver.begin(plan, journal)
    journal.decide(STARTED, gpus_per_trial=gpus, stacked=1, precision=None)
    return journal, manifest


def begin(plan):
    journal, manifest = opened(plan)
    plan = driver.held(plan, journal)
    return StagedSearcher(plan, journal, manifest, SilentTracker(), Callback(), Everywhere())


def accuracy_of(config):
    """A made-up landscape: the higher the learning rate and the wider the adapter, the better; a bit by the seed."""
    return min(0.99, 0.5 + 4 * config["optim.lr"] + config["adapter.hidden_dim"] / 200) + config["seed"] % 3 / 1000


def results_of(payload):
    if payload["stage"] == TEST:
        rows = [[name, accuracy_of(given["config"]), 0.1, None] for name, given in payload["students"].items()]
        return [{"epoch": 0, "score": WORST, "status": COMPLETE, "done": True, "tested": rows}]
    accuracy = accuracy_of(payload["config"])
    results = []
    for number in range(payload["config"]["epochs"]):
        last = number + 1 == payload["config"]["epochs"]
        result = {**epoch(number, accuracy, 0.5).as_dict(), "score": score(accuracy, 0.5, 200), "val_images": 200}
        result |= {"status": COMPLETE if last else "running", "trainable_params": 7, "done": last}
        results.append(result | ({"state": TENSORS} if last and payload["stage"] == FINAL else {}))
    return results


def run_one(conducting, tune_id, payload, results=None):
    *before, last = results or results_of(payload)
    for result in before:
        conducting.on_trial_result(tune_id, result)
    conducting.on_trial_complete(tune_id, last)


def run_all(conducting, most=1000, at_once=1):
    """Play Ray Tune: at most `most` trials, `at_once` in flight; the payloads in order."""
    numbers, live, payloads = itertools.count(), [], []
    while len(payloads) < most:
        tune_id = f"tune-{next(numbers)}"
        payload = conducting.suggest(tune_id)
        if payload == Searcher.FINISHED:
            break
        if payload is not None:
            payloads.append(payload)
            live.append((tune_id, payload))
        if payload is None or len(live) == at_once:
            run_one(conducting, *live.pop(0))
    while live:
        run_one(conducting, *live.pop(0))
    return payloads


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_a_search_explores_with_its_arms_first_then_confirms_then_trains_and_tests_once(tmp_path, at_once):
    conducting = begin(a_plan(tmp_path))
    payloads = run_all(conducting, at_once=at_once)
    assert conducting.finished
    stages = [payload["stage"] for payload in payloads]
    assert stages.count(EXPLORE) == 6
    assert stages.count(TEST) == 1
    assert stages[-1] == TEST
    assert set(stages[6:-1]) == {CONFIRM, FINAL}
    assert stages.count(FINAL) == 8  # winner, its twin, default and alone, with 2 seeds
    assert [payload["id"] for payload in payloads[:3]] == ["arm-default", "arm-alone", "arm-no_distill"]
    assert len({payload["id"] for payload in payloads}) == len(payloads)
    assert conducting.tracker.logged == [record.id for record in conducting.journal.records]


def test_final_runs_learn_from_the_winners_config_with_other_seeds(tmp_path):
    conducting = begin(a_plan(tmp_path))
    payloads = run_all(conducting)
    chosen = winner(conducting.plan, conducting.journal)
    finals = [payload["config"] for payload in payloads if payload["arms"] == ["winner"]]
    assert [config["seed"] for config in finals] == [0, 1]
    assert all({**config, "seed": 0} == dict(chosen.config) for config in finals)


def test_the_test_split_stays_sealed_until_the_winner_is_frozen(tmp_path):
    plan = a_plan(tmp_path)
    conducting = begin(plan)
    while not conducting.journal.state.winner:
        assert conducting.journal.state.openings == []
        run_all(conducting, most=1)
    run_all(conducting)
    (opening,) = conducting.journal.state.openings
    assert opening["winner"] == winner(conducting.plan, conducting.journal).id
    assert Journal(plan.folder / JOURNAL).state.openings == [opening]


def test_the_result_sets_the_winner_beside_default_and_alone(tmp_path):
    plan = a_plan(tmp_path)
    conducting = begin(plan)
    run_all(conducting)
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert result["trials"] == {"complete": 6, "stopped": 0, "failed": 0}
    assert set(result["arms"]) == {"default", "alone", "no_distill", "winner_alone"}
    assert result["winner"]["test_accuracy"]["seeds"] == 2
    assert result["winner"]["test_accuracy"]["mean"] == pytest.approx(accuracy_of(result["winner"]["config"]) + 0.0005)
    assert result["arms"]["default"]["test_accuracy"]["mean"] == pytest.approx(0.5605)
    assert result["winner"]["val_accuracy"] > result["arms"]["default"]["val_accuracy"]
    assert "+" in result["verdict"]


def test_differences_are_paired_by_seed_where_a_final_run_failed(tmp_path):
    plan = a_plan(tmp_path, seeds=3)
    conducting = begin(plan)
    failed = {"epoch": 0, "score": WORST, "status": FAILED, "reason": "Diverged: nan", "done": True}
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        run_one(conducting, "t", payload, [failed] if payload["id"] == "final-0-default" else None)
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert result["arms"]["default"]["test_accuracy"]["seeds"] == 2
    on_test = [found for found in result["comparisons"] if found["split"] == "test" and "default" in found.values()]
    assert {found["pairs"] for found in on_test} == {2}
    assert ", 2 seeds)" in result["verdict"]


RATES = (1e-3, 1e-2, 1e-1)


def test_the_linear_arm_is_tried_at_some_rates_and_its_best_goes_on_without_counting_as_a_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "LINEAR_RATES", RATES)
    monkeypatch.setattr(plans, "LINEAR_EPOCHS", 3)
    plan = a_plan(tmp_path)
    conducting = begin(plan)
    payloads = run_all(conducting, at_once=3)
    linear = [payload for payload in payloads if payload["config"]["adapter.kind"] == "linear"]
    explored = [payload for payload in linear if payload["stage"] == EXPLORE]
    assert [payload["config"]["optim.lr"] for payload in explored] == list(RATES)
    assert {payload["config"]["epochs"] for payload in linear} == {3}
    assert {payload["config"]["teacher"] for payload in linear} == {"none"}
    beyond = [payload for payload in linear if payload["stage"] != EXPLORE and payload["stage"] != TEST]
    assert {payload["config"]["optim.lr"] for payload in beyond} == {1e-1}  # the higher the better, here
    assert {payload["stage"] for payload in beyond} == {CONFIRM, FINAL}
    assert sum(payload["stage"] == EXPLORE for payload in payloads) == 6 + 3
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert sum(result["trials"].values()) == 6
    assert result["arms"]["linear"]["test_accuracy"]["seeds"] == 2
    assert result["winner"]["config"]["adapter.kind"] == "linear"  # if it wins, it wins
    asked = [f"final-{seed}-linear" for seed in range(2)]
    assert [record.id for record in conducting.journal.of(FINAL) if "linear" in record.id] == asked
    assert conducting.journal.state.tested.keys() >= set(asked)


def test_the_winners_twin_runs_all_splits_and_all_final_seeds_however_bad_it_is(tmp_path):
    plan = a_plan(tmp_path)
    conducting = begin(plan)
    twins = []
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        twin = payload["id"].endswith("-alone") and not payload["arms"] and "arm-" not in payload["id"]
        twins += [payload["id"]] * twin
        worse = {**payload, "config": {**payload["config"], "optim.lr": 1e-6, "adapter.hidden_dim": 1}}
        run_one(conducting, "t", payload, results_of(worse) if twin else None)
    of = conducting.journal.state.winner
    wanted = [f"confirm-{fold}-{of}-alone" for fold in range(5)]
    assert twins == wanted + [f"final-{seed}-{of}-alone" for seed in range(2)]
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    asked = [one for one in result["comparisons"] if one["theirs"] == "winner_alone"]
    assert {one["split"] for one in asked} == {"confirm", "test"}


def test_without_confirming_too_the_winners_twin_has_its_final_runs(tmp_path):
    plan = a_plan(tmp_path, folds=0)
    conducting = begin(plan)
    ids = [payload["id"] for payload in run_all(conducting)]
    of = conducting.journal.state.winner
    assert [name for name in ids if name.endswith(f"{of}-alone")] == [f"final-0-{of}-alone", f"final-1-{of}-alone"]
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert result["arms"]["winner_alone"]["test_accuracy"]["seeds"] == 2


def test_when_the_default_wins_it_is_not_trained_twice(tmp_path):
    plan = a_plan(tmp_path, trials=1)
    conducting = begin(plan)
    payloads = run_all(conducting)
    assert conducting.journal.state.winner == "arm-default"
    assert [payload["stage"] for payload in payloads].count(FINAL) == 4  # default and alone, with 2 seeds
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert result["winner"]["test_accuracy"] == result["arms"]["default"]["test_accuracy"]
    assert "default is the winner" in result["verdict"]


def whole_search(tmp_path):
    """The ids of all trials of the search that the tests below cut."""
    return [payload["id"] for payload in run_all(begin(a_plan(tmp_path / "whole", top_k=2, folds=3)))]


@pytest.mark.parametrize("cut", range(0, 34, 3))
def test_a_search_cut_anywhere_goes_on_and_ends_with_the_same_trials(tmp_path, cut):
    plan = a_plan(tmp_path, top_k=2, folds=3)
    first = begin(plan)
    before = run_all(first, most=cut)
    if cut > 4:  # one more is running when the driver is killed
        first.suggest("cut off")
    second = begin(plan)
    after = run_all(second)
    assert second.finished
    done = [payload["id"] for payload in before + after]
    assert len(done) == len(set(done))
    assert len(second.journal.of(EXPLORE)) == 6
    assert len(second.journal.of(FINAL)) == 8
    assert len(second.journal.state.openings) == 1
    if cut > 6:  # before, the sampler is seeded anew and may propose other trials
        assert sorted(done) == sorted(whole_search(tmp_path))


def test_a_trial_that_an_interrupt_cut_off_is_not_a_result(tmp_path):
    conducting = begin(a_plan(tmp_path))
    payload = conducting.suggest("t")
    conducting.on_trial_result("t", results_of(payload)[0])
    conducting.on_trial_complete("t", results_of(payload)[0])
    assert conducting.journal.records == []


def test_a_failed_trial_is_recorded_with_its_reason_and_the_search_goes_on(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=3)
    payload = conducting.suggest("bad")
    failure = {"epoch": 1, "score": WORST, "status": FAILED, "reason": "Diverged: nan", "done": True}
    run_one(conducting, "bad", payload, [results_of(payload)[0], failure])
    bad = conducting.journal.records[-1]
    assert (bad.status, bad.reason, len(bad.epochs), bad.score) == (FAILED, "Diverged: nan", 1, WORST)
    run_all(conducting)
    assert conducting.finished
    assert len(conducting.journal.of(EXPLORE)) == 6
    assert all(trial.state.is_finished() for trial in conducting.study.trials)


def test_a_search_in_which_every_trial_fails_ends_and_names_the_first_reason(tmp_path):
    plan = a_plan(tmp_path, trials=3)
    conducting = begin(plan)
    for number in range(3):
        payload = conducting.suggest(f"t{number}")
        failure = {"epoch": 0, "score": WORST, "status": FAILED, "reason": f"reason {number}", "done": True}
        run_one(conducting, f"t{number}", payload, [failure])
    while (payload := conducting.suggest("final")) != Searcher.FINISHED:
        run_one(conducting, "final", payload, [{**failure, "reason": "late"}])
    result = finish.result(plan, conducting.journal, "uri", 1.0)
    assert result["winner"] is None
    assert "reason 0" in result["verdict"]
    assert conducting.journal.state.openings == []
    assert conducting.journal.of(CONFIRM) == conducting.journal.of(FINAL) == []
    assert not finish.export_winner(plan, conducting.journal, conducting.manifest)


GONE = {"status": "gone", "begun": True, "reason": "killed", "done": True}
FAULT = {"status": "fault", "unfit": False, "reason": "RuntimeError: no idea", "done": True}


@pytest.mark.parametrize(("arm", "times"), [("arm-default", 10), ("arm-alone", 3)])
@pytest.mark.parametrize("end", [GONE, FAULT])
def test_a_trial_whose_worker_ends_three_times_has_failed_and_is_alone_at_the_last(tmp_path, arm, times, end):
    """But one of the default only after ten times, as all others are held against it."""
    conducting, alone = begin(a_plan(tmp_path)), []
    if arm == "arm-alone":
        run_one(conducting, "first", conducting.suggest("first"))
    conducting.pool.place = lambda taken, only, paces: alone.append(only) or Place("worker", only)
    for number in range(times):
        assert conducting.suggest(f"t{number}")["id"] == arm
        conducting.on_trial_complete(f"t{number}", end)
    record = conducting.journal.records[-1]
    reason = f"its worker died, {times} times over" if end is GONE else FAULT["reason"]
    assert (record.id, record.status, record.reason) == (arm, FAILED, reason)
    assert alone == [False] * (times - 1) + [True]


def test_without_confirming_a_default_that_failed_leaves_a_search_with_a_winner_and_a_verdict(tmp_path):
    conducting = begin(a_plan(tmp_path, folds=0))
    failure = {"epoch": 0, "score": WORST, "status": FAILED, "reason": "Diverged: nan", "done": True}
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        run_one(conducting, "t", payload, [failure] if payload["id"] == "arm-default" else None)
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    assert result["winner"]["test_accuracy"]["seeds"] == 2
    assert "nothing to compare the winner with" in result["verdict"]


def test_without_confirming_the_default_may_win(tmp_path):
    conducting = begin(a_plan(tmp_path, folds=0, trials=3))
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        worse = {**payload, "config": {**payload["config"], "optim.lr": 1e-6}}
        other = payload["stage"] != TEST and payload["config"]["teacher"] == "none"
        run_one(conducting, "t", payload, results_of(worse) if other else None)
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    assert "default is the winner" in result["verdict"]


def test_a_trial_whose_seat_died_is_taken_from_its_worker_which_would_keep_it(tmp_path):
    conducting = begin(a_plan(tmp_path))
    conducting.suggest("t0")
    conducting.on_trial_complete("t0", error=True)
    assert conducting.pool.left == [("worker", "t0")]
    assert conducting.suggest("t1")["id"] == "arm-default"


def test_a_failure_inside_is_the_answer_to_all_that_tune_asks_afterwards(tmp_path):
    conducting = begin(a_plan(tmp_path))
    conducting.suggest("t0")

    def no_machine(name, reason, unfit):
        raise IdatError("no machine is left")

    conducting.pool.replace = no_machine
    for ask in (
        lambda: conducting.on_trial_complete("t0", GONE),
        lambda: conducting.on_trial_complete("t0", error=True),
        lambda: conducting.suggest("t1"),
    ):
        with pytest.raises(IdatError, match="no machine is left"):
            ask()
    assert str(conducting.failure) == "no machine is left"


@pytest.mark.parametrize("end", [GONE, {**GONE, "begun": False}, {**FAULT, "unfit": True}])
def test_a_trial_of_a_machine_that_is_lost_or_cannot_train_begins_again_as_often_as_it_takes(tmp_path, end):
    conducting = begin(a_plan(tmp_path))
    conducting.pool.replace = lambda name, reason, unfit: end is GONE or unfit  # a lost machine
    for number in range(9):
        assert conducting.suggest(f"t{number}")["id"] == "arm-default"
        conducting.on_trial_complete(f"t{number}", end)
    assert conducting.journal.records == []
    payload = conducting.suggest("t")
    run_one(conducting, "t", payload)
    assert [(r.id, r.status) for r in conducting.journal.records] == [("arm-default", COMPLETE)]


def test_a_trial_that_was_begun_is_not_left_out_when_exploring_ends_before_it_begins_again(tmp_path):
    conducting = begin(a_plan(tmp_path, trials=4, stopping="none"))
    for number in range(3):
        run_one(conducting, f"t{number}", conducting.suggest(f"t{number}"))
    conducting.pool.replace = lambda name, reason, unfit: True
    cut = conducting.suggest("cut")
    assert cut["id"] == "trial-003" or not cut["arms"]
    conducting.on_trial_complete("cut", GONE)
    conducting.journal.decide(ENDED, by="hours")
    assert conducting.suggest("again")["id"] == cut["id"]


def test_a_trial_waits_until_there_is_a_place_for_it_and_none_is_lost(tmp_path):
    conducting, most = begin(a_plan(tmp_path, trials=9)), []

    def place(taken, alone, paces):
        taken = list(taken)
        most.append(len(taken))
        return Place(len(taken), alone) if len(taken) < 2 else None

    conducting.pool.place = place
    payloads = run_all(conducting, at_once=5)
    assert conducting.finished
    assert {payload["worker"] for payload in payloads} == {0, 1}
    assert max(most) == 2
    explored = [payload["id"] for payload in payloads if payload["stage"] == EXPLORE]
    assert len(explored) == len(set(explored)) == 9


def test_a_trial_has_its_last_chance_in_a_place_of_its_own(tmp_path):
    conducting, asked = begin(a_plan(tmp_path)), []

    def place(taken, alone, paces):
        asked.append(alone)
        return Place(0, alone)

    run_one(conducting, "default", conducting.suggest("default"))  # which has more chances
    conducting.pool.place = place
    ids = []
    for number in range(3):
        ids.append(conducting.suggest(f"t{number}")["id"])
        conducting.on_trial_complete(f"t{number}", error=True)
    ids.append(conducting.suggest("other")["id"])
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert asked == [False, False, True, False]


def test_a_trial_whose_worker_died_begins_again_up_to_twice(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=3)
    first = conducting.suggest("one")
    conducting.on_trial_result("one", results_of(first)[0])
    conducting.on_trial_complete("one", None, error=True)
    second = conducting.suggest("two")
    assert second == {**first, "key": "two"}
    conducting.on_trial_complete("two", None, error=True)
    run_one(conducting, "three", conducting.suggest("three"))
    assert conducting.journal.records[-1].id == first["id"]
    assert [each.epoch for each in conducting.journal.records[-1].epochs] == [0, 1]


def test_a_worker_that_was_told_to_stop_with_the_search_has_not_failed(tmp_path):
    conducting = begin(a_plan(tmp_path))
    for number in range(2):
        conducting.suggest(f"t{number}")
        conducting.on_trial_complete(f"t{number}", None, error=True)
    conducting.suggest("last")
    with pytest.raises(KeyboardInterrupt):
        conducting.interrupts()
    with pytest.raises(KeyboardInterrupt):
        conducting.on_trial_complete("last", None, error=True)
    assert conducting.journal.records == []


def test_a_trial_that_takes_every_worker_down_is_a_failure(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=3)
    for number in range(3):
        conducting.suggest(f"t{number}")
        conducting.on_trial_complete(f"t{number}", None, error=True)
    assert (conducting.journal.records[-1].status, conducting.journal.records[-1].epochs) == (FAILED, ())
    assert "died, 3 times over" in conducting.journal.records[-1].reason
    run_all(conducting)
    assert len(conducting.journal.of(EXPLORE)) == 6


def test_the_sampler_learns_of_arms_and_of_stopped_trials_as_pruned(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=3)
    payload = conducting.suggest("slow")
    first, last = results_of(payload)
    conducting.on_trial_result("slow", first)
    conducting.scheduler.stopped.add("slow")
    conducting.on_trial_complete("slow", {**last, "status": "running"})
    assert conducting.journal.records[-1].status == STOPPED
    states = [trial.state for trial in conducting.study.trials]
    # Of the arms `no_distill` has a weight of 0, outside the space: the sampler cannot be told of it.
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert conducting.study.trials[-1].intermediate_values


def test_a_replayed_study_knows_what_the_first_one_knew(tmp_path):
    plan = a_plan(tmp_path, trials=10)
    first = begin(plan)
    run_all(first, most=9)
    second = begin(plan)
    facts = [{(trial.value, str(trial.params)) for trial in each.study.trials} for each in (first, second)]
    assert facts[0] == facts[1]
    assert second.study.trials


def test_the_same_seed_proposes_the_same_trials(tmp_path):
    runs = [run_all(begin(a_plan(tmp_path / str(number), seed=seed))) for number, seed in enumerate((0, 0, 1))]
    configs = [[payload["config"]["optim.lr"] for payload in run] for run in runs]
    assert configs[0] == configs[1] != configs[2]


def test_starting_points_of_a_space_are_tried_right_after_the_arms(tmp_path):
    start = [{"teacher": "none", "optim.lr": 0.03}]
    space = spaces.parse({"params": {"optim.lr": {"log_uniform": [1e-3, 1e-1]}}, "start": start})
    payloads = run_all(begin(a_plan(tmp_path, space=space)))
    assert payloads[3]["id"] == "start-0"
    assert (payloads[3]["config"]["teacher"], payloads[3]["config"]["optim.lr"]) == ("none", 0.03)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seed": 1}, "was begun with another seed (0, not 1)"),
        ({"task": "sprites_loc"}, "another task (digits, not sprites_loc)"),
        ({"fixed": {"epochs": 3}}, "another space (fixed: epochs: 2, not 3)"),
    ],
)
def test_a_resume_that_differs_is_refused_with_the_difference(tmp_path, changes, sentence):
    begin(a_plan(tmp_path))
    with pytest.raises(BadInput) as caught:
        begin(a_plan(tmp_path, **changes))
    assert sentence in str(caught.value)


def test_more_trials_may_be_asked_for_until_the_test_is_opened(tmp_path):
    run_all(begin(a_plan(tmp_path)), most=6)
    conducting = begin(a_plan(tmp_path, trials=8))
    run_all(conducting)
    assert len(conducting.journal.of(EXPLORE)) == 8
    with pytest.raises(BadInput, match="has opened its test split with --trials 8, so it cannot go on to 9"):
        begin(a_plan(tmp_path, trials=9))
    with pytest.raises(BadInput, match="has opened its test split with --seeds 2, so it cannot go on to 3"):
        begin(a_plan(tmp_path, trials=8, seeds=3))


def test_asking_for_more_trials_takes_a_winner_back_that_was_not_tested(tmp_path):
    first = begin(a_plan(tmp_path))
    while not first.journal.state.winner:
        run_all(first, most=1)
    conducting = begin(a_plan(tmp_path, trials=9))
    assert conducting.journal.state.winner is None
    run_all(conducting)
    assert len(conducting.journal.of(EXPLORE)) == 9
    assert len(conducting.journal.state.openings) == 1


def test_the_test_is_opened_again_only_on_request_and_that_is_recorded(tmp_path):
    run_all(begin(a_plan(tmp_path)))
    conducting = begin(a_plan(tmp_path, trials=9, seeds=3, reopen_test=True))
    payloads = run_all(conducting)
    assert len(conducting.journal.of(EXPLORE)) == 9
    assert payloads[-1]["id"] == "test-2"
    assert [opening["by"] for opening in conducting.journal.state.openings] == ["final run", "--reopen-test"]
    chosen = winner(conducting.plan, conducting.journal)
    assert sum(payload["stage"] == FINAL for payload in payloads) >= 3  # of the winner, with one seed more
    found = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    assert found["test_openings"] == 2
    assert found["winner"]["trial"] == chosen.id
    assert found["winner"]["test_accuracy"]["seeds"] == 3


def cut_short_at_its_test(tmp_path):
    first = begin(a_plan(tmp_path))
    while not first.journal.state.openings:
        payload = first.suggest("t")
        if payload["stage"] != TEST:
            run_one(first, "t", payload)


def test_an_opening_that_a_crash_cut_short_is_finished_and_not_counted_twice(tmp_path):
    cut_short_at_its_test(tmp_path)
    second = begin(a_plan(tmp_path))
    (payload,) = run_all(second)
    assert payload["stage"] == TEST
    assert len(second.journal.state.openings) == 1


def test_without_confirming_the_best_on_validation_wins_and_is_marked(tmp_path):
    conducting = begin(a_plan(tmp_path, folds=0))
    payloads = run_all(conducting)
    assert CONFIRM not in [payload["stage"] for payload in payloads]
    chosen = winner(conducting.plan, conducting.journal)
    assert chosen.score == max(record.score for record in conducting.journal.of(EXPLORE))
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    assert result["winner"]["confirmed"] is None
    assert "Unconfirmed" in result["verdict"]


def test_a_lucky_trial_is_found_out_when_it_is_confirmed(tmp_path):
    """The best on validation is no better than the default on other splits, so the default wins."""
    conducting = begin(a_plan(tmp_path, trials=4))
    run_all(conducting, most=3)
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        lucky = payload["stage"] == EXPLORE
        honest = {**payload, "config": {**payload["config"], "optim.lr": 0.01, "adapter.hidden_dim": 4}}
        run_one(conducting, "t", payload, None if lucky else results_of(honest if "fold" in honest else payload))
    assert conducting.journal.state.winner == "arm-default"
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    assert "No reliable gain" in result["verdict"]


def test_every_contender_is_confirmed_on_the_same_splits_with_the_same_seeds(tmp_path):
    conducting = begin(a_plan(tmp_path, folds=3, top_k=1, seed=40))
    payloads = [payload for payload in run_all(conducting) if payload["stage"] == CONFIRM]
    assert {(payload["fold"], payload["config"]["seed"]) for payload in payloads} == {(0, 40), (1, 41), (2, 42)}
    assert {record.contender for record in conducting.journal.of(CONFIRM)} > {"arm-default", "arm-alone"}


@pytest.mark.parametrize(("drop_path", "run"), [(0.0, False), (0.1, True)])
def test_the_arm_without_distillation_shares_the_runs_of_alone_where_its_student_is_the_same(tmp_path, drop_path, run):
    conducting = begin(a_plan(tmp_path, fixed={"epochs": 2, "model.drop_path": drop_path}))
    run_all(conducting)
    confirmed = {record.contender for record in conducting.journal.of(CONFIRM)}
    assert "arm-alone" in confirmed
    assert ("arm-no_distill" in confirmed) == run
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    shared = result["arms"]["no_distill"]["confirmed"] == result["arms"]["alone"]["confirmed"]
    assert shared or run
    assert ("default", "no_distill") in {(found["ours"], found["theirs"]) for found in result["comparisons"]}


def test_the_winner_is_set_beside_its_twin_without_a_teacher(tmp_path):
    fixed = {"epochs": 2, "teacher": "glyph_small"}
    conducting = begin(a_plan(tmp_path, fixed=fixed))
    run_all(conducting)
    result = finish.result(conducting.plan, conducting.journal, "uri", 1.0)
    ours, twin = result["winner"], result["arms"]["winner_alone"]
    assert twin["trial"] == f"{ours['trial']}-alone"
    assert {key for key in twin["config"] if twin["config"][key] != ours["config"][key]} == {"teacher"}
    pairs = {(found["ours"], found["theirs"], found["split"]) for found in result["comparisons"]}
    assert pairs >= {("winner", "default", "confirm"), ("winner", "winner_alone", "confirm")}
    assert "The winner's teacher against the same config alone" in result["verdict"]
    assert result["teacher_cost"]["memory"] > 1


def test_a_twin_that_is_better_without_the_teacher_wins_and_can_be_tested(tmp_path):
    conducting = begin(a_plan(tmp_path, fixed={"epochs": 2, "teacher": "glyph_small"}))
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        better = payload["id"].startswith("confirm") and payload["id"].endswith("-alone") and "trial" in payload["id"]
        higher = {**payload, "config": {**payload.get("config", {}), "optim.lr": 0.1}}
        run_one(conducting, "t", payload, results_of(higher) if better else None)
    chosen = winner(conducting.plan, conducting.journal)
    assert chosen.id.startswith("trial")
    assert chosen.id.endswith("-alone")
    assert chosen.config["teacher"] == "none"
    again = begin(conducting.plan)
    assert run_all(again) == []
    result = finish.result(again.plan, again.journal, "uri", 1.0)
    assert result["winner"]["test_accuracy"]["seeds"] == 2


def test_a_contender_that_fails_on_a_split_is_not_the_winner(tmp_path):
    conducting = begin(a_plan(tmp_path))
    run_all(conducting, most=6)
    failed = {"epoch": 0, "score": WORST, "status": FAILED, "reason": "Diverged: nan", "done": True}
    best = max(conducting.journal.of(EXPLORE), key=lambda record: record.score).id
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        run_one(conducting, "t", payload, [failed] if payload["id"] == f"confirm-1-{best}" else None)
    assert conducting.journal.state.winner not in (best, None)
    assert conducting.finished


def test_what_won_elsewhere_is_tried_after_the_arms_as_far_as_it_lies_in_the_space(tmp_path):
    won = {"task": "dtd", "optim.lr": 0.02, "adapter.kind": "parallel", "adapter.scale": 0.5, "epochs": 77}
    outside = {"optim.lr": 7.0}
    plan = a_plan(tmp_path).hinted({"from-dtd": won, "from-svhn": outside})
    payloads = run_all(begin(plan))
    assert payloads[3]["id"] == "from-dtd"
    config = payloads[3]["config"]
    assert [config[key] for key in ("task", "optim.lr", "adapter.scale", "epochs")] == ["digits", 0.02, 0.5, 2]
    assert "from-svhn" not in [payload["id"] for payload in payloads]


def test_two_searches_cannot_share_a_name_at_the_same_time(tmp_path):
    with locked(tmp_path / "s"), pytest.raises(BadInput, match="is running already"), locked(tmp_path / "s"):
        pass
    with locked(tmp_path / "s"):
        pass


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": -1}, "--trials cannot be -1"),
        ({"seeds": 0}, "--seeds cannot be 0"),
        ({"seed": -1}, "--seed cannot be -1"),
        ({"fixed": {"epochs": 0}}, "epochs cannot be 0"),
        ({"fixed": {"optim.warmup_epochs": 200}}, "leaves none of 10 epochs"),
    ],
)
def test_a_plan_with_an_impossible_trial_is_refused(tmp_path, changes, sentence):
    with pytest.raises(BadInput) as caught:
        a_plan(tmp_path, **changes)
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_portfolio_is_tried_right_after_the_arms_where_it_lies_in_the_space(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "require", lambda task: None)  # as if it were imported

    def first(**fixed):
        plan = plan_search(SearchConfig.of("dtd", space="idat", trials=16, fixed=fixed, out=tmp_path, name="p"))
        return {job.id: job.config.flat() for job in plan.first_jobs()}

    jobs = first()
    assert list(jobs) == ["arm-default", "arm-alone", "arm-no_distill", *(f"portfolio-{index}" for index in range(5))]
    best = portfolio.starts("dtd")[0]
    assert all(jobs["portfolio-0"][key] == best[key] for key in ("adapter.kind", "adapter.hidden_dim", "optim.lr"))
    held = first(**{"adapter.kind": "sequential", "optim.lr": 0.01})
    assert {config["optim.lr"] for config in held.values()} == {0.01}
    assert {config["adapter.hidden_dim"] for config in held.values()} == {4, 16, 32}


def failing(payload, reason="Diverged: nan"):
    return [{"epoch": 0, "score": WORST, "status": FAILED, "reason": reason, "done": True}]


def until_through(conducting, fails):
    """Play on to the end; `fails(payload)` says which trials fail."""
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        run_one(conducting, "t", payload, failing(payload) if fails(payload) else None)


def test_a_number_that_yaml_reads_as_text_does_not_blind_the_sampler(tmp_path):
    plan = a_plan(tmp_path, fixed={"epochs": "2", "optim.lr": "1e-3"})
    first = begin(plan)
    run_all(first, most=6)
    assert all(record.labels is not None for record in first.journal.records if "no_distill" not in record.arms)
    assert len(begin(plan).study.trials) == len(first.study.trials)


def test_a_resume_keeps_the_hints_that_the_search_began_with(tmp_path):
    hints = {f"from-{number}": {"optim.lr": 0.02 + number / 1000} for number in range(3)}
    asked = a_plan(tmp_path)
    asked.folder.mkdir()
    first = begin(Manifest(asked.hinted(hints), "hash").hinted(asked.hinted(hints)))
    run_all(first, most=5)
    second = begin(Manifest(asked, "hash").hinted(asked))  # without its hints, as after a search of one task alone
    run_all(second)
    explored = [record.id for record in second.journal.of(EXPLORE)]
    assert len(explored) == 6
    assert {"from-0", "from-1", "from-2"} <= set(explored)


def test_hints_are_left_out_when_the_budget_is_spent(tmp_path):
    plan = a_plan(tmp_path, trials=20).hinted({"from-dtd": {"optim.lr": 0.011}})
    conducting = begin(asking(plan, hours=1e-9))
    payloads = run_all(conducting)
    assert [payload["id"] for payload in payloads if payload["stage"] == EXPLORE] == [
        "arm-default", "arm-alone", "arm-no_distill",
    ]  # fmt: skip


def test_a_test_that_failed_is_tried_again_as_the_same_opening(tmp_path):
    until_through(begin(a_plan(tmp_path)), lambda payload: payload["stage"] == TEST)
    conducting = begin(a_plan(tmp_path))
    (payload,) = run_all(conducting)
    assert payload["id"] == "test"
    assert conducting.journal.tested()
    assert len(conducting.journal.state.openings) == 1


def gathered(conducting, said=None):
    """What the driver makes of a search that ran."""
    callback = Callback()
    callback.on_remark = (said if said is not None else []).append
    tracked = SimpleNamespace(uri="", close=lambda: None)
    return driver._gather(conducting.plan, conducting.journal, conducting.manifest, tracked, callback, 1.0)


def test_a_reopening_whose_test_failed_is_not_done_and_goes_on_as_the_same_opening(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "export_winner", lambda *search: True)
    first = begin(a_plan(tmp_path))
    run_all(first)
    assert gathered(first)["finished"]
    second, said = begin(a_plan(tmp_path, reopen_test=True)), []
    payload = second.suggest("t")
    assert payload["id"] == "test-2"
    run_one(second, "t", payload, [{"epoch": 0, "score": WORST, "status": FAILED, "reason": "no room", "done": True}])
    assert second.suggest("t") == Searcher.FINISHED
    assert not gathered(second, said)["finished"]
    assert said == ["the test could not be evaluated (test-2: no room); the same command tries it again"]
    assert second.journal.state.result is None
    third = begin(a_plan(tmp_path))
    assert [payload["id"] for payload in run_all(third)] == ["test-2"]
    assert gathered(third)["finished"]
    assert len(third.journal.state.openings) == 2


def test_fewer_seeds_count_until_the_test_is_opened_and_not_after(tmp_path):
    cut = begin(a_plan(tmp_path, seeds=3))
    while not cut.journal.state.winner:
        run_one(cut, "t", cut.suggest("t"))
    run_all(begin(a_plan(tmp_path, seeds=2)))
    journal = Journal(cut.journal.path)
    assert journal.state.seeds == 2
    assert {record.config["seed"] for record in journal.of(FINAL) if record.id in journal.tested()} == {0, 1}
    again = begin(a_plan(tmp_path, seeds=1, reopen_test=True))
    assert again.plan.config.final.seeds == 2


def test_fewer_trials_than_were_explored_are_not_more_later(tmp_path):
    cut = begin(a_plan(tmp_path, trials=6))
    while not cut.journal.state.explored:
        run_one(cut, "t", cut.suggest("t"))
    run_all(begin(a_plan(tmp_path, trials=4)))
    check_openings(a_plan(tmp_path, trials=6), Journal(cut.journal.path))


def test_an_opening_that_was_cut_short_and_is_asked_for_anew_is_one_pass_over_the_test(tmp_path):
    cut_short_at_its_test(tmp_path)
    second = begin(a_plan(tmp_path, seeds=3, reopen_test=True))
    tests = [payload["id"] for payload in run_all(second) if payload["stage"] == TEST]
    assert tests == ["test-2"]
    assert [opening["by"] for opening in second.journal.state.openings] == ["final run", "--reopen-test"]


def test_an_opening_that_was_cut_short_is_recorded_anew_for_another_winner(tmp_path):
    cut_short_at_its_test(tmp_path)
    asked = a_plan(tmp_path, trials=9, reopen_test=True)
    second = begin(asked)
    better = 0.2
    while (payload := second.suggest("t")) != Searcher.FINISHED:
        new = payload["id"] in ("trial-005", "trial-006", "trial-007") or "trial-005" in payload["id"]
        lifted = {**payload, "config": {**payload["config"], "optim.lr": better}}
        run_one(second, "t", payload, results_of(lifted) if new and payload["stage"] != TEST else None)
    openings = second.journal.state.openings
    assert len(openings) == 2
    assert openings[0]["winner"] != openings[1]["winner"] == second.journal.state.winner


def test_a_reopening_that_was_cut_off_goes_on_without_being_asked_for_again(tmp_path):
    run_all(begin(a_plan(tmp_path)))
    run_all(begin(a_plan(tmp_path, trials=9, reopen_test=True)), most=2)
    conducting = begin(a_plan(tmp_path, trials=9))
    run_all(conducting)
    assert len(conducting.journal.state.openings) == 2
    assert conducting.journal.of(TEST)[-1].id == "test-2"


def test_the_default_must_be_beaten_also_where_it_does_not_distill(tmp_path):
    conducting = begin(a_plan(tmp_path, fixed={"epochs": 2, "distill.weight": 0}))
    run_all(conducting, at_once=3)
    race = Confirmation(conducting.plan, conducting.journal).race
    assert race.default in {contender.id for contender in race.contenders}


def test_a_default_that_failed_is_not_confirmed(tmp_path):
    conducting = begin(a_plan(tmp_path))
    until_through(conducting, lambda payload: payload["id"] == "arm-default")
    assert "arm-default" not in {record.contender for record in conducting.journal.of(CONFIRM)}
    assert conducting.journal.state.winner not in (None, "arm-default")


def test_copies_of_a_config_do_not_take_the_places_of_others_in_the_race(tmp_path):
    space = spaces.parse({"params": {"adapter.hidden_dim": {"choice": [4, 8, 16]}}})
    conducting = begin(a_plan(tmp_path, space=space, trials=24, top_k=2, sampler="random"))
    run_all(conducting)
    widths = {c.config["adapter.hidden_dim"] for c in conducting.journal.of(CONFIRM)}
    assert widths == {4, 8, 16}


@pytest.mark.parametrize("place", ["fixed", "params"])
def test_the_seed_is_not_a_setting_of_the_space(tmp_path, place):
    space = spaces.parse({"params": {"seed": {"choice": [1, 2]}}}) if place == "params" else spaces.load("embedded")
    fixed = {"seed": 5} if place == "fixed" else {}
    with pytest.raises(BadInput, match="the seed is chosen with --seed"):
        a_plan(tmp_path, space=space, fixed=fixed)


def test_an_interrupt_that_got_lost_is_raised_again_and_the_running_trial_is_no_result(tmp_path):
    """Ray may swallow a KeyboardInterrupt, as one that came while a destructor ran."""
    conducting = begin(a_plan(tmp_path))
    payload = conducting.suggest("t")
    with pytest.raises(KeyboardInterrupt):
        conducting.interrupts()
    with pytest.raises(KeyboardInterrupt):
        conducting.on_trial_result("t", results_of(payload)[0])
    with pytest.raises(KeyboardInterrupt):
        conducting.suggest("another")
    assert conducting.journal.records == []
