"""Where trials go: how much room there is for them, and which host takes the next one."""

import pytest
import ray
from conftest import command

from idat_tune.errors import BadInput, IdatError
from idat_tune.search import workers
from idat_tune.search.cluster import Room, room
from idat_tune.search.config import ResourcesConfig
from idat_tune.search.plan import Place
from idat_tune.search.workers import Hosts


@pytest.mark.parametrize(
    ("cores", "gpus", "each", "resources", "wanted"),
    [
        (8, 0, 0.0, ResourcesConfig(), Room(8, 8, 0.0)),
        (8, 0, 0.0, ResourcesConfig(max_concurrent=20), Room(20, 20, 0.0)),
        (16, 2, 1.0, ResourcesConfig(), Room(2, 2, 1.0)),
        (16, 2, 0.25, ResourcesConfig(gpus_per_trial=0.25), Room(8, 8, 0.25)),
        (8, 0, 0.0, ResourcesConfig(stacked=4), Room(32, 8, 0.0, 4)),
        (16, 2, 1.0, ResourcesConfig(stacked=4), Room(8, 2, 1.0, 4)),
        (16, 2, 1.0, ResourcesConfig(stacked=4, max_concurrent=6), Room(6, 2, 1.0, 4)),
        (16, 2, 1.0, ResourcesConfig(stacked=4, max_concurrent=3), Room(3, 1, 1.0, 4)),
        (2, 0, 0.0, ResourcesConfig(stacked=8, max_concurrent=32), Room(16, 2, 0.0, 8)),
    ],
)
def test_the_room_for_trials(cores, gpus, each, resources, wanted):
    assert room(cores, gpus, each, resources) == wanted


@pytest.mark.parametrize(
    ("resources", "each", "whole"),
    [
        (ResourcesConfig(), 0.5, 2.0),
        (ResourcesConfig(stacked=4), 1.0, 2.0),
        (ResourcesConfig(stacked=8, max_concurrent=2), 1.0, 1.0),
    ],
)
def test_trials_are_charged_all_that_their_processes_take(resources, each, whole):
    found = room(4, 2, each, resources)
    assert found.gpus_per_trial * found.trials == pytest.approx(whole)


@pytest.mark.parametrize("changes", [{"stacked": 0}, {"stacked": 17}, {"stacked": 2, "gpus_per_trial": 0.5}])
def test_what_cannot_be_stacked_is_refused(changes):
    with pytest.raises(BadInput, match="--stacked"):
        ResourcesConfig(**changes)


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


class Died(ray.exceptions.RayActorError):
    """Ray's error, which speaks of a trace and ends with the reason."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def __str__(self):
        return self.text


class Starting:
    """Ray, of whose hosts some have answered or failed."""

    exceptions = ray.exceptions

    def __init__(self, failing=()):
        self.failing = failing

    def wait(self, answers, num_returns, timeout):
        return answers, []

    def get(self, answer):
        if answer in self.failing:
            raise Died(f"a long trace\nValueError: no such folder on {answer}")


def starting(monkeypatch, failing):
    monkeypatch.setattr(workers, "ray", Starting(failing))
    found = hosts([])
    found._coming, found._deadline = {"a": 0, "b": 1}, float("inf")
    return found


def test_a_host_that_cannot_start_is_left_out(monkeypatch, caplog):
    place = starting(monkeypatch, ["a"]).place(on(1), alone=False)
    assert place.host == 1
    assert "ValueError: no such folder on a" in caplog.text


def test_a_search_of_which_no_host_can_start_says_why(monkeypatch):
    with pytest.raises(IdatError, match=r"no process to train in could be started: ValueError: no such folder on b$"):
        starting(monkeypatch, ["a", "b"]).place([], alone=False)


def test_a_search_does_not_wait_for_ever_for_its_first_host(monkeypatch):
    waiting = starting(monkeypatch, [])
    monkeypatch.setattr(Starting, "wait", lambda self, answers, num_returns, timeout: ([], answers))
    assert waiting.place([], alone=False) is None
    waiting._deadline = 0.0
    with pytest.raises(IdatError, match="was ready within 30 minutes"):
        waiting.place([], alone=False)


def test_a_dry_run_says_that_it_foresees_no_stacked_trials(tmp_path):
    done = command("search", "--task", "digits", "--dry-run", "--stacked", "2", "--out", tmp_path)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
    assert "--stacked" in done.stderr
    assert not list(tmp_path.iterdir())
