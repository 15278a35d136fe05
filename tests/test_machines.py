"""Machines of different speed: what is known of them, and which trials wait for a faster one."""

from dataclasses import replace

import pytest
from test_searcher import a_plan, begin, results_of

from idat_tune.search.machines import gets_one, paces, seconds_of


def records(tmp_path, seconds):
    """One trial of the default on each machine, whose epochs take so many seconds there, by machine."""
    plan = a_plan(tmp_path)
    searching = begin(plan)
    payload = searching.suggest("0")
    for result in results_of(payload)[:-1]:
        searching.on_trial_result("0", result)
    searching.on_trial_complete("0", results_of(payload)[-1])
    (one,) = searching.journal.records
    return [
        replace(
            one,
            id=f"{node}-{count}",
            node=node,
            seconds=len(one.epochs) * took,
            epochs=tuple(replace(epoch, seconds=took) for epoch in one.epochs),
            config={**one.config, "adapter.hidden_dim": dim},
        )
        for count, (node, dim, took) in enumerate(seconds)
    ]


def test_a_machine_is_as_slow_as_it_is_at_the_same(tmp_path):
    found = paces(records(tmp_path, [("a", 8, 1.0), ("b", 8, 3.0), ("a", 64, 10.0), ("b", 64, 30.0), ("a", 16, 2.0)]))
    assert found == {"a": 1.0, "b": pytest.approx(3.0)}


def test_machines_that_had_different_kinds_are_told_apart_by_what_they_share(tmp_path):
    shown = [("a", 8, 1.0), ("a", 8, 1.02), ("b", 8, 2.0), ("b", 64, 20.0), ("c", 64, 10.5), ("c", 64, 9.9)]
    found = paces(records(tmp_path, shown))
    assert found["a"] == found["c"] == 1.0
    assert found["b"] == pytest.approx(2.0, rel=0.05)


def test_what_may_be_chance_makes_no_difference_and_nothing_is_known_of_nothing(tmp_path):
    assert paces(records(tmp_path, [("a", 8, 1.0), ("b", 8, 1.2)])) == {"a": 1.0, "b": 1.0}
    assert paces([]) == {}


def test_what_a_run_takes_is_as_others_of_its_kind_did_on_the_fastest(tmp_path):
    shown = records(tmp_path, [("a", 8, 1.0), ("b", 8, 3.0), ("a", 64, 10.0)])
    epochs = len(shown[0].epochs)
    assert seconds_of(shown, shown[1].config, {"b": 3.0}) == epochs
    assert seconds_of(shown, {**shown[0].config, "adapter.hidden_dim": 32}, {"b": 3.0}) == epochs
    assert seconds_of([], shown[0].config, {}) == 0.0


@pytest.mark.parametrize(
    ("pace", "others", "trials", "gets"),
    [
        (3.0, [], 1, True),  # nobody else is there
        (3.0, [(1.0, 1.0)], 1, False),  # 30 seconds here, 11 there
        (3.0, [(25.0, 1.0)], 1, True),  # 30 here, 35 there
        (3.0, [(1.0, 1.0)], 2, False),  # 11 and 21 there
        (3.0, [(1.0, 1.0)], 3, True),  # the third would be done in 31 there
        (3.0, [(1.0, 1.0), (2.0, 1.0)], 4, False),
        (3.0, [(1.0, 1.0), (2.0, 1.0)], 5, True),
        (1.0, [(0.0, 1.0)], 1, True),
    ],
)
def test_a_slow_machine_gets_a_trial_only_where_that_ends_the_stage_sooner(pace, others, trials, gets):
    assert gets_one(10.0, pace, others, trials) is gets
