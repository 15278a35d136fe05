"""Where trials go: how much room there is for them, which worker takes the next one, and who takes its place."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray
from conftest import command

from idat_tune.errors import BadInput, IdatError
from idat_tune.search.cluster import Room, room
from idat_tune.search.config import ResourcesConfig
from idat_tune.worker import pool
from idat_tune.worker.pool import PATIENCE, Place, Pool


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


ID = {"A": "a" * 56, "B": "b" * 56}  # of machines, as Ray has them


class Answer:
    """What Ray will have of a call, once it is there: a value, or an error."""

    def __init__(self, value=None):
        self.value, self.there = value, False


class Fake:
    """Ray, of whose actors answers come when a test says so."""

    def __init__(self, monkeypatch):
        self.actors, self.killed, self.alive, self.said = {}, [], {"A": True, "B": True}, []
        monkeypatch.setattr(pool, "ray", self)

    def put(self, value):
        return value

    def remote(self, of):
        return self

    def options(self, name, **options):
        self.name, self.options_given = name, options
        return SimpleNamespace(remote=lambda stacks: self._made(name))

    def _made(self, name):
        where, prepare = Answer(), Answer()
        actor = SimpleNamespace(
            name=name,
            where=SimpleNamespace(remote=lambda: where),
            prepare=SimpleNamespace(remote=lambda images: prepare),
        )
        self.actors[name] = (where, prepare)
        return actor

    def wait(self, answers, timeout):
        return [answer for answer in answers if answer.there], []

    def get(self, answer):
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def kill(self, actor):
        self.killed.append(actor.name)

    def nodes(self):
        return [{"NodeID": ID[node], "Alive": alive} for node, alive in self.alive.items()]

    def come(self, name, node="A", failure=None):
        """A worker answers."""
        where, prepare = self.actors[name]
        where.value, prepare.value = {"node": ID[node], "name": f"machine-{node}", "pid": 1}, failure
        where.there = prepare.there = True


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def pool_of(fake, workers=2, seats=1):
    return Pool({}, workers, seats=seats, tell=fake.said.append)


def at(*names, alone=False):
    return [Place(name, alone) for name in names]


@pytest.mark.parametrize(
    ("taken", "alone", "wanted"),
    [
        ([], False, 0),
        ([0], False, 1),
        ([0, 1, 1], False, 0),
        ([0, 0, 1, 1], False, None),
        ([0], True, 1),
        ([0, 1], True, None),
    ],
)
def test_a_trial_goes_where_the_fewest_are_and_alone_once_its_workers_died(fake, taken, alone, wanted):
    found = pool_of(fake, seats=2)
    names = list(found.members)
    for name in names:
        fake.come(name)
    place = found.place(at(*(names[number] for number in taken)), alone)
    assert (place and place.worker) == (None if wanted is None else names[wanted])
    assert place is None or place.alone is alone


def test_nobody_comes_to_who_must_be_alone(fake):
    found = pool_of(fake, 1, seats=2)
    (name,) = found.members
    assert found.place(at(name, alone=True), alone=False) is None


def test_before_anybody_is_ready_a_trial_goes_to_one_that_is_coming_and_later_to_one_that_is_ready(fake):
    found = pool_of(fake)
    first, second = found.members
    assert found.place([], alone=False).worker == first
    fake.come(second)
    assert found.place([], alone=False).worker == second
    assert found.place(at(second), alone=False) is None  # rather than wait for a machine that may never come


def failure(text):
    return ray.exceptions.RayTaskError("prepare", "a long trace", ValueError(text))


def test_a_machine_whose_workers_cannot_be_prepared_twice_gets_no_more_of_them(fake):
    found = pool_of(fake)
    for count in range(2):
        bad = list(found.members)[-1]
        fake.come(bad, "B", failure("no such folder"))
        found.place([], alone=False)
        assert bad in fake.killed
        assert len(found.members) == 2 - count
    assert fake.said == [
        "a worker on machine-B is replaced: ValueError: no such folder",
        "machine-B gets no more trials: ValueError: no such folder",
    ]
    (left,) = found.members
    fake.come(left)
    assert found.place([], alone=False).worker == left


def test_a_search_of_which_no_machine_can_train_says_why(fake):
    found = pool_of(fake, 1)
    fake.come(next(iter(found.members)), failure=failure("no such folder"))
    found.place([], alone=False)
    fake.come(next(iter(found.members)), failure=failure("no such folder"))
    with pytest.raises(IdatError, match="no machine is left that can train; machine-A said: ValueError: no such folde"):
        found.place([], alone=False)


def test_a_search_waits_for_a_worker_but_not_for_ever(fake, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    found = pool_of(fake, 1)
    fake.come(next(iter(found.members)))
    now[0] = PATIENCE - 1
    found.place([], alone=False)
    now[0] = 9 * PATIENCE  # after a trial longer than that the only one dies, and another must start
    found.replace(next(iter(found.members)), "it died", unfit=False)
    assert found.place([], alone=False) is not None
    now[0] += PATIENCE + 1
    with pytest.raises(IdatError, match="no process to train in was there for 30 minutes"):
        found.place([], alone=False)


@pytest.mark.parametrize(("unfit", "alive", "spared"), [(False, True, False), (True, True, True), (False, False, True)])
def test_a_trial_is_not_to_blame_for_a_machine_that_is_lost_or_cannot_train(fake, unfit, alive, spared):
    found = pool_of(fake)
    first, second = found.members
    fake.come(first, "B")
    fake.come(second)
    found.place([], alone=False)
    fake.alive["B"] = alive
    assert found.replace(first, "it died", unfit) is spared
    assert found.replace(first, "it died", unfit) is spared  # of another trial that was there
    assert len(found.members) == 2
    assert len(fake.said) == 1
    assert "is lost" in fake.said[0] or "is replaced: it died" in fake.said[0]


def test_all_are_ended_and_one_that_hangs_may_be(fake):
    found = pool_of(fake)
    first, second = found.members
    found.end(first)
    found.end("of before")
    assert fake.killed == [first]
    found.close()
    assert fake.killed == [first, first, second]


LOST = """
import json, sys
from ray.cluster_utils import Cluster
from idat_tune.search import Callback, search

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
other = cluster.add_node(num_cpus=1, object_store_memory=10**8)


class PowerLoss(Callback):
    said, begun, lost = [], [], False

    def on_remark(self, sentence):
        self.said.append(sentence)

    def on_trial_start(self, job):
        self.begun.append(job.id)

    def on_epoch_end(self, job, epoch):
        if len(self.begun) > 3 and not self.lost:
            PowerLoss.lost = True
            cluster.remove_node(other, allow_graceful=False)


options = {"trials": 5, "fixed": {"epochs": 8}, "folds": 0, "seeds": 1, "out": sys.argv[1], "name": "n"}
found = search("digits", **options, address=cluster.address, callbacks=[PowerLoss()])
print(json.dumps([found["trials"], PowerLoss.said, PowerLoss.begun]))
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_machine_that_loses_its_power_costs_its_trial_a_new_beginning_and_no_chance(tmp_path):
    done = subprocess.run([sys.executable, "-c", LOST, tmp_path], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    trials, said, begun = json.loads(done.stdout.splitlines()[-1])
    assert sum(trials.values()) == 5
    assert trials["failed"] == 0
    assert [sentence for sentence in said if sentence.startswith("machine ") and "is lost; what ran there" in sentence]
    again = {trial for trial in begun if begun.count(trial) > 1}
    assert (
        1 <= len(again) <= 2
    )  # what ran there; and here, where both machines have one address, a seat may be there too


def test_a_dry_run_says_that_it_foresees_no_stacked_trials(tmp_path):
    done = command("search", "--task", "digits", "--dry-run", "--stacked", "2", "--out", tmp_path)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
    assert "--stacked" in done.stderr
    assert not list(tmp_path.iterdir())
