"""The pool: which worker takes the next trial, who takes the place of one that died, and how many there are."""

import json
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
import ray
from conftest import command

from idat_tune.errors import IdatError
from idat_tune.worker import pool
from idat_tune.worker.pool import IDLE, NODE, PATIENCE, Place, Pool
from idat_tune.worker.seat import LOST, plainly

ID = {"A": "a" * 56, "B": "b" * 56}  # of machines, as Ray has them


class Answer:
    """What Ray will have of a call, once it is there: a value, or an error."""

    def __init__(self, value=None):
        self.value, self.there = value, False


class Fake:
    """Ray, of whose actors answers come when a test says so."""

    def __init__(self, monkeypatch):
        self.actors, self.asked, self.killed, self.alive, self.said = {}, {}, [], {"A": True, "B": True}, []
        monkeypatch.setattr(pool, "ray", self)

    def put(self, value):
        return value

    def remote(self, of):
        return self

    def options(self, name, **options):
        self.asked[name] = options
        return SimpleNamespace(remote=lambda stacks: self._made(name))

    def _made(self, name):
        where, prepare = Answer(), Answer()
        actor = SimpleNamespace(
            name=name,
            where=SimpleNamespace(remote=lambda: where),
            prepare=SimpleNamespace(remote=lambda images, wanted: prepare),
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
        return [{"NodeID": ID[node], "Alive": alive, "Resources": {"CPU": 2}} for node, alive in self.alive.items()]

    def come(self, name, node="A", failure=None):
        """A worker answers."""
        where, prepare = self.actors[name]
        where.value, prepare.value = {"node": ID[node], "name": f"machine-{node}", "pid": 1}, failure
        where.there = prepare.there = True


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def pool_of(fake, workers=2, seats=1, limit=None):
    return Pool({}, workers, seats=seats, tell=fake.said.append, limit=limit and (lambda: limit))


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


def test_a_seat_that_hears_first_that_a_worker_cannot_be_prepared_blames_the_machine(fake):
    found = pool_of(fake)
    bad = list(found.members)[-1]
    fake.come(bad, "B", failure("no such folder"))
    assert found.replace(bad, "its process died", unfit=False) is True
    assert fake.said == ["a worker on machine-B is replaced: ValueError: no such folder"]


def test_a_machine_that_is_lost_is_made_up_for_though_two_of_its_workers_could_not_train(fake):
    found = pool_of(fake, 3)
    for name in list(found.members):
        fake.come(name, "B")
    found.look()
    first, second, third = found.members
    found.replace(first, "no driver", unfit=True)
    found.replace(second, "no driver", unfit=True)
    fake.alive["B"] = False
    found.replace(third, "its process died", unfit=False)
    assert len(found.members) == 2


def test_workers_that_never_answered_are_counted_in_a_row(fake):
    found = pool_of(fake)
    for _ in range(4):
        silent, good = list(found.members)[:2]
        fake.actors[silent][0].value = ray.exceptions.ActorDiedError()
        fake.actors[silent][0].there = True
        fake.come(good)
        found.look()
        found.look()
        found.members = dict(reversed(found.members.items()))
        found.replace(good, "it died", unfit=False)
    assert len(found.members) == 2


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


def died(words):
    """What Ray raises for an actor that is gone."""
    failure = ray.exceptions.ActorDiedError()
    failure.error_msg = words
    return failure


NODE_DIED = (
    "The actor died unexpectedly before finishing this task.\nThe actor died because its node has died. Node: 3f"
)


def test_who_dies_with_its_machine_is_known_by_what_ray_says_before_ray_knows_the_machine_for_dead(fake):
    found = pool_of(fake)
    first, second = found.members
    fake.come(first, "B", died(NODE_DIED))
    fake.come(second, "B")
    found.look()  # what it was doing was no fault of the machine
    assert fake.said == ["machine machine-B is lost; what ran there begins again elsewhere"]
    assert found.replace(second, LOST, unfit=False) is True
    assert len(found.members) == 2


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (died(NODE_DIED), LOST),
        (died("The actor died because its worker process has died"), "its process died"),
        (ValueError("no such actor"), "its process died"),
        (ray.exceptions.RayTaskError("step", "a trace", OSError("no disk")), "OSError: no disk"),
    ],
)
def test_what_became_of_a_worker_in_plain_words(failure, words):
    assert plainly(failure) == words


@pytest.mark.parametrize(("trials", "there"), [(0, 1), (1, 1), (5, 5), (9, 8), (100, 8)])
def test_there_are_as_many_workers_as_trials_remain_up_to_the_limit(fake, trials, there):
    found = pool_of(fake, 3, limit=8)
    found.follow(trials, [])
    assert len(found.members) == there
    found.follow(trials, [])
    assert len(found.members) == there


def test_workers_that_take_several_trials_are_asked_for_by_their_seats(fake):
    found = pool_of(fake, 1, seats=4, limit=8)
    found.follow(9, [])
    assert len(found.members) == 3


def test_a_pool_without_a_limit_stays_as_it_is(fake):
    found = pool_of(fake, 3)
    for trials in (0, 100):
        found.follow(trials, [])
        assert len(found.members) == 3


def test_who_is_not_needed_goes_at_once_without_a_machine_and_after_a_while_with_one(fake, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pool.time, "monotonic", lambda: now[0])
    found = pool_of(fake, 5, limit=8)
    busy, idle, other, *waiting = found.members
    for name in (busy, idle, other):
        fake.come(name)
    found.look()
    now[0] = 100.0
    found.follow(2, at(busy))
    assert set(fake.killed) == set(waiting)
    now[0] += IDLE / 2
    found.follow(3, at(busy))  # for a moment there is work for all
    now[0] += 1
    found.follow(1, at(busy))
    now[0] += IDLE - 1
    found.follow(1, at(busy))
    assert set(found.members) == {busy, idle, other}
    now[0] += 2
    found.follow(1, at(busy))
    assert set(found.members) == {busy}
    now[0] += 1000
    found.follow(0, at(busy))
    assert set(found.members) == {busy}


def test_who_has_more_than_its_share_takes_no_more_trials_and_gives_back_at_once(fake):
    most = [3]
    found = Pool({}, 3, tell=fake.said.append, limit=lambda: most[0])
    first, second, third = found.members
    for name in found.members:
        fake.come(name)
    found.look()
    most[0] = 1
    assert found.place(at(first), alone=False) is None
    found.follow(9, at(first, third))
    assert set(found.members) == {first, third}  # a trial runs there
    assert found.place(at(third), alone=False).worker == first
    found.follow(9, at(first))
    assert set(found.members) == {first}
    assert fake.killed == [second, third]


def test_while_machines_may_come_no_trial_goes_to_who_has_none_yet(fake):
    found = pool_of(fake, 2, limit=4)
    first, second = found.members
    assert found.place([], alone=False) is None
    where, _ = fake.actors[second]
    where.value, where.there = {"node": ID["B"], "name": "machine-B", "pid": 1}, True
    assert found.place([], alone=False).worker == second  # which is being prepared there
    fake.come(first)
    assert found.place([], alone=False).worker == first


def test_the_faster_machine_is_taken_first(fake):
    found = pool_of(fake)
    slow, fast = found.members
    fake.come(slow, "A")
    fake.come(fast, "B")
    assert found.place([], alone=False, paces={"machine-A": 3.0}).worker == fast
    assert found.place(at(fast), alone=False, paces={"machine-A": 3.0}).worker == slow
    assert found.machine(slow) == "machine-A"
    assert found.machine("of before") == ""


def coming(fake, found):
    """A worker that has no machine yet."""
    return next(name for name in found.members if not fake.actors[name][0].there)


def test_a_machine_that_cannot_train_is_shunned_by_all_that_are_asked_for_later(fake):
    found = pool_of(fake, 2, limit=6)
    for _ in range(2):
        fake.come(coming(fake, found), "B", failure("no such folder"))
        found.look()
        found.follow(6, [])
    assert fake.said[-1] == "machine-B gets no more trials: ValueError: no such folder"
    assert len(found.members) == 6
    waiting = [name for name in found.members if not fake.actors[name][0].there]
    assert waiting
    assert all(fake.asked[name]["label_selector"] == {NODE: f"!in({ID['B']})"} for name in waiting)
    late = len(fake.said)
    fake.come(waiting[0], "B", failure("no such folder"))  # it was on its way
    found.look()
    assert len(fake.said) == late


def test_a_cluster_of_which_no_machine_can_train_is_not_waited_for(fake):
    found = pool_of(fake, 1, limit=6)
    found.follow(6, [])
    for node in "AAB":
        fake.come(coming(fake, found), node, failure("no such folder"))
        found.look()
        found.follow(6, [])
    fake.come(coming(fake, found), "B", failure("no such folder"))
    with pytest.raises(IdatError, match="no machine is left that can train; machine-B said: ValueError: no such folde"):
        found.look()
    assert len(fake.said) == 4


def test_workers_that_never_answer_are_not_asked_for_without_end(fake):
    found = pool_of(fake, 1, limit=6)
    for _ in range(2):
        for where, _ in list(fake.actors.values()):
            where.value, where.there = died("The actor died because its worker process has died"), True
        with suppress(IdatError):
            found.look()
        found.follow(6, [])
    made = len(fake.actors)
    with pytest.raises(IdatError, match="no machine is left that can train"):
        found.look()
    found.follow(6, [])
    assert len(fake.actors) == made


def test_all_are_ended_and_one_that_hangs_may_be(fake):
    found = pool_of(fake)
    first, second = found.members
    found.end(first)
    found.end("of before")
    assert fake.killed == [first]
    found.close()
    assert fake.killed == [first, first, second]


POWER_LOSS = """
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
    done = subprocess.run([sys.executable, "-c", POWER_LOSS, tmp_path], capture_output=True, text=True, timeout=240)
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
