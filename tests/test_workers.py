"""Where trials go: how much room there is for them, and which host takes the next one."""

import pytest
from conftest import command

from idat_tune.errors import BadInput
from idat_tune.search.cluster import Room, room
from idat_tune.search.plan import Resources
from idat_tune.search.workers import Hosts, Place


@pytest.mark.parametrize(
    ("cores", "gpus", "each", "resources", "wanted"),
    [
        (8, 0, 0.0, Resources(), Room(8, 8, 0.0)),
        (8, 0, 0.0, Resources(max_concurrent=20), Room(20, 20, 0.0)),
        (16, 2, 1.0, Resources(), Room(2, 2, 1.0)),
        (16, 2, 0.25, Resources(gpus_per_trial=0.25), Room(8, 8, 0.25)),
        (8, 0, 0.0, Resources(stacked=4), Room(32, 8, 0.0, 4)),
        (16, 2, 1.0, Resources(stacked=4), Room(8, 2, 1.0, 4)),
        (16, 2, 1.0, Resources(stacked=4, max_concurrent=6), Room(6, 2, 1.0, 4)),
        (16, 2, 1.0, Resources(stacked=4, max_concurrent=3), Room(3, 1, 1.0, 4)),
        (2, 0, 0.0, Resources(stacked=8, max_concurrent=32), Room(16, 2, 0.0, 8)),
    ],
)
def test_the_room_for_trials(cores, gpus, each, resources, wanted):
    assert room(cores, gpus, each, resources) == wanted


@pytest.mark.parametrize(
    ("resources", "each", "whole"),
    [(Resources(), 0.5, 2.0), (Resources(stacked=4), 1.0, 2.0), (Resources(stacked=8, max_concurrent=2), 1.0, 1.0)],
)
def test_trials_are_charged_all_that_their_processes_take(resources, each, whole):
    found = room(4, 2, each, resources)
    assert found.gpus_per_trial * found.trials == pytest.approx(whole)


@pytest.mark.parametrize("changes", [{"stacked": 0}, {"stacked": 17}, {"stacked": 2, "gpus_per_trial": 0.5}])
def test_what_cannot_be_stacked_is_refused(changes):
    with pytest.raises(BadInput, match="--stacked"):
        Resources(**changes)


def hosts(there, seats=2):
    """Hosts of which some have answered, without Ray."""
    found = Hosts.__new__(Hosts)
    found.seats, found._coming, found._there = seats, {}, set(there)
    return found


def on(*numbers):
    return [Place(number, alone=False) for number in numbers]


@pytest.mark.parametrize(
    ("there", "taken", "alone", "wanted"),
    [
        ([], [], False, None),
        ([1], [], False, 1),
        ([0, 1], on(0), False, 1),
        ([0, 1], on(0, 1, 1), False, 0),
        ([0, 1], on(0, 0, 1, 1), False, None),
        ([0, 1], on(0), True, 1),
        ([0, 1], on(0, 1), True, None),
        ([0, 1], [Place(0, alone=True)], False, 1),
        ([0], [Place(0, alone=True)], False, None),
    ],
)
def test_a_trial_goes_where_the_fewest_are_and_alone_once_its_host_died(there, taken, alone, wanted):
    place = hosts(there).place(taken, alone)
    assert (place and place.host) == wanted
    assert place is None or place.alone is alone


def test_a_dry_run_says_that_it_foresees_no_stacked_trials(tmp_path):
    done = command("search", "--task", "digits", "--dry-run", "--stacked", "2", "--out", tmp_path)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
    assert "--stacked" in done.stderr
    assert not list(tmp_path.iterdir())
