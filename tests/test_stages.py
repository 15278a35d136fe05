"""What is next is a function of the journal: wherever a search is cut off, it ends with the same trials."""

import json
import random

import pytest
from test_searcher import a_plan as planned
from test_searcher import accuracy_of, asking, begin, no_linear_arm, no_object_store, results_of, run_one  # noqa: F401

from idat_tune.journal import CONFIRM, EXPLORE, FAILED, FINAL, TEST, Decision, Journal
from idat_tune.journal.state import BEGUN, EXPLORED, OPENED, STARTED, WINNER
from idat_tune.metrics import WORST
from idat_tune.search import finish
from idat_tune.search import plan as plans
from idat_tune.search.manifest import JOURNAL
from idat_tune.search.stages import PROPOSE, next_step

NO_TRIALS = {BEGUN, STARTED}  # decisions that every session writes anew


def a_plan(out, **changes):
    # By chance, and nobody stopped, so that what is proposed and run depends on no order of results.
    return planned(out, **{"sampler": "random", "stopping": "none", "trials": 7, "folds": 3, **changes})


def play(plan, at_once=1, order=None, most=10_000):
    """Run trials, so many at once, that end in a random order; stop dead after `most` have ended."""
    searching, live = begin(plan), {}
    draw = random.Random(order)
    for number in range(10_000):
        payload = searching.suggest(str(number)) if len(live) < at_once and most else None
        if isinstance(payload, dict):
            live[str(number)] = payload
        elif not live or not most:
            break
        if len(live) == at_once or not isinstance(payload, dict):
            tune_id = draw.choice(sorted(live))
            run_one(searching, tune_id, live.pop(tune_id))
            most -= 1
    return searching


def trials(journal):
    """Id, config and accuracy of every trial, in no order."""
    return {(r.id, json.dumps(dict(r.config), sort_keys=True), r.val_accuracy) for r in journal.records}


def decisions(path):
    """The decisions that were taken, as the file has them."""
    lines = map(json.loads, path.read_text().splitlines())
    return [line["decision"] for line in lines if "decision" in line and line["decision"] in (EXPLORED, WINNER, OPENED)]


WITH_ARMS = {
    "params": {"optim.lr": {"choice": [0.001, 0.002, 0.004, 0.008]}},
    "arms": {
        "as_default": {},
        "wide": {"adapter.hidden_dim": 32},
        "wide_alone": {"adapter.hidden_dim": 32, "teacher": "none", "distill.loss": "mse"},
        "ssf": {"recipe": "ssf", "teacher": "none"},
    },
}


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        ({}, ()),
        ({"folds": 0}, (0.01, 0.02)),
        ({"fixed": {"epochs": 2, "teacher": "none"}}, (0.01,)),
        ({"space": WITH_ARMS, "trials": 0, "folds": 2, "seeds": 1}, (0.01,)),
        ({"space": WITH_ARMS, "trials": 8, "folds": 2, "seeds": 1}, ()),
        ({"space": WITH_ARMS, "trials": 0, "folds": 0}, ()),
    ],
)
def test_from_any_prefix_of_its_journal_a_search_ends_with_the_same_trials(tmp_path, monkeypatch, changes, rates):
    monkeypatch.setattr(plans, "LINEAR_RATES", rates)
    whole = play(a_plan(tmp_path / "whole", **changes))
    lines = whole.journal.path.read_bytes().splitlines(keepends=True)
    for cut in range(len(lines) + 1):
        plan = a_plan(tmp_path / str(cut), **changes)
        plan.folder.mkdir(parents=True)
        # A crash may cut a line in two; whatever was running then has left no trace.
        (plan.folder / JOURNAL).write_bytes(b"".join(lines[:cut]) + (lines[cut][:40] if cut < len(lines) else b""))
        again = play(plan)
        assert trials(again.journal) == trials(whole.journal), cut
        assert decisions(again.journal.path) == decisions(whole.journal.path) == [EXPLORED, WINNER, OPENED], cut
        assert again.journal.state.winner == whole.journal.state.winner


@pytest.mark.parametrize(
    ("changes", "order"),
    [*(({}, order) for order in range(12)), *(({"space": WITH_ARMS, "trials": 0}, order) for order in range(4))],
)
def test_whatever_runs_at_once_and_was_cut_off_the_trials_are_the_same_but_for_who_was_out_of_the_race(
    tmp_path, changes, order
):
    """Explored, final and test trials; of the race only who leaves it when depends on the order of results."""

    def lasting(journal):
        return {trial for trial in trials(journal) if not trial[0].startswith("confirm")}

    whole = play(a_plan(tmp_path / "whole", **changes))
    draw = random.Random(order)
    plan = a_plan(tmp_path / "cut", **changes)
    for session in range(4):
        play(plan, draw.choice((1, 2, 3, 5)), order=(order, session).__hash__(), most=draw.randrange(1, 9))
    again = play(plan, 3, order)
    assert lasting(again.journal) == lasting(whole.journal)
    assert again.journal.state.winner == whole.journal.state.winner
    assert decisions(again.journal.path) == [EXPLORED, WINNER, OPENED]


@pytest.mark.parametrize("first", ["arm-alone", "arm-no_distill"])
def test_who_is_confirmed_hangs_on_no_order_in_which_the_arms_end(tmp_path, first):
    """The student of `no_distill` is that of `alone`, whose runs count for both; whichever of the two ended first."""
    searching = begin(a_plan(tmp_path))
    payloads = {(payload := searching.suggest(str(number)))["id"]: (str(number), payload) for number in range(3)}
    for arm in sorted(payloads, key=lambda arm: arm != first):
        run_one(searching, *payloads[arm])
    play(searching.plan)
    whole = Journal(searching.journal.path)
    assert next(record.id for record in whole.records) == first
    confirmed = {record.contender for record in whole.of(CONFIRM)}
    assert "arm-alone" in confirmed
    assert "arm-no_distill" not in confirmed


def test_it_is_a_pure_function(tmp_path):
    searching = play(a_plan(tmp_path), most=9)
    plan, journal = searching.plan, searching.journal
    before = journal.path.read_bytes()
    running = [live.job for live in searching.live.values()]
    assert next_step(plan, journal, running) == next_step(plan, Journal(journal.path), running)
    assert journal.path.read_bytes() == before


def test_proposals_come_after_the_arms_and_a_decision_waits_for_what_runs(tmp_path):
    plan = a_plan(tmp_path, trials=4)
    searching = begin(plan)
    journal, running = searching.journal, []
    for arm in ("arm-default", "arm-alone", "arm-no_distill"):
        running.append(next_step(plan, journal, running))
        assert running[-1].id == arm
    assert next_step(plan, journal, running) is PROPOSE
    journal.decide("ended", by="hours")
    gap = next_step(plan, journal, running)  # exploring waits for the arms, the final runs of which need not
    assert gap.stage == FINAL
    finals = plan.arm_finals()
    assert next_step(plan, journal, [*running, *finals]) is None
    assert next_step(plan, journal, finals) is not None
    assert {job.stage for job in running} == {EXPLORE}


def test_a_failed_final_run_is_tried_again_once_the_search_is_given_again(tmp_path):
    plan = a_plan(tmp_path, seeds=1)
    searching, failed = begin(plan), []
    for number in range(1000):
        payload = searching.suggest(str(number))
        if not isinstance(payload, dict):
            break
        results = results_of(payload)
        if payload["stage"] == TEST:
            failed.append(payload["id"])
            results = [{"epoch": 0, "score": -1.0, "status": "failed", "reason": "it would not", "done": True}]
        run_one(searching, str(number), payload, results)
    assert failed == ["test"]
    again = play(plan)
    assert [r.status for r in again.journal.of(TEST)] == ["complete"]
    assert len(again.journal.state.openings) == 1


def test_more_trials_take_back_what_was_decided_on_fewer_but_not_what_was_run(tmp_path):
    plan = a_plan(tmp_path)
    first = play(plan, most=18)
    assert first.journal.state.explored
    second = play(asking(plan, trials=9))
    assert len(second.journal.of(EXPLORE)) == 9
    assert decisions(second.journal.path).count(EXPLORED) == 2
    ids = [json.loads(line).get("id") for line in second.journal.path.read_text().splitlines()]
    ran = [one for one in ids if one]
    assert len(set(ran)) == len(ran)


def test_a_decision_is_the_same_after_it_was_written(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.decide(OPENED, winner="arm-default", by="final run")
    (line,) = (tmp_path / "j").read_text().splitlines()
    assert Decision.from_dict(json.loads(line)) == Decision(OPENED, {"winner": "arm-default", "by": "final run"})
    assert Journal(tmp_path / "j").state == journal.state


@pytest.mark.parametrize("folds", [0, 3])
def test_the_default_without_a_teacher_may_win_though_its_name_ends_as_that_of_a_twin(tmp_path, folds):
    plan = a_plan(tmp_path, folds=folds, trials=0)
    searching = begin(plan)
    fails = [{"score": WORST, "status": FAILED, "done": True, "reason": "Diverged: the loss of epoch 0 is nan"}]
    for number in range(100):
        payload = searching.suggest(str(number))
        if not isinstance(payload, dict):
            break
        wins = "alone" in payload["id"] or payload["stage"] == TEST
        run_one(searching, str(number), payload, None if wins else fails)
    found = finish.result(plan, searching.journal, "", 1.0)
    assert found["winner"]["trial"] == "arm-alone"
    assert found["winner"]["test_accuracy"]
