"""The pool: Ray actors of our own that train, one after the other of them replaced when it dies, until the search ends.

They are not Tune's, which would end those that are still starting, and would make a new one for every trial. In a
cluster there are as many as trials remain: those that wait for a place make an autoscaler start machines.
"""

import itertools
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idat_tune.data import Images
from idat_tune.errors import IdatError
from idat_tune.worker.host import Host
from idat_tune.worker.seat import LOST, plainly

PATIENCE = 1800.0  # seconds for which there may be no worker at all; a cluster may have to start a machine
MOST_FAULTS = 2  # of the workers of a machine; then it gets no more of them
IDLE = 60.0  # seconds after which a worker that nobody needs is given back, and with the last its machine
NODE = "ray.io/node-id"  # Ray's label of a machine


@dataclass(frozen=True)
class Place:
    """Where a trial is."""

    worker: str  # name of the actor
    alone: bool  # whether nobody else may be there, as the workers it had before have died


@dataclass
class Member:
    """A worker of the pool."""

    actor: Any
    where: Any  # Ray's answer to come: the machine
    prepared: Any  # likewise: that it can train
    ready: bool = False
    idle_since: float | None = None  # since when nobody was there and nobody was to come
    node: str | None = None  # Ray's id of the machine, once it is known
    machine: str = "a machine that never answered"  # its name


class Pool:
    """Workers that take so many trials each."""

    def __init__(
        self,
        images: Mapping[str, Images],
        workers: int,
        gpus: float = 0.0,
        seats: int = 1,
        tell: Callable[[str], None] = lambda sentence: None,
        wanted: Any = None,
        limit: Callable[[], int] | None = None,
    ):
        """Ask Ray for them; they start by themselves.

        Args:
            images: the splits that trials may see.
            workers: how many.
            gpus: of each.
            seats: trials that each takes at most.
            tell: called with what is to be known of a worker or a machine.
            wanted: what their machines may have to fetch, a `supply.Wanted`; nothing where all is on one.
            limit: how many there may be at most, at any moment, where `follow` changes how many there are.
        """
        self.seats = seats
        self.limit = limit
        self.tell = tell
        self._wanted = wanted
        self.members: dict[str, Member] = {}
        self._images = ray.put(images)
        self._names = (f"idat-tune-{uuid.uuid4().hex[:8]}-{number}" for number in itertools.count())
        self._options = {
            "num_cpus": 1,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_concurrency": 3 * seats + 2,  # one waits for each seat, and may be told that its trial is over
        }
        self._takes = {"CPU": 1, "GPU": gpus}  # of its machine
        self._faults: Counter[str] = Counter()  # by machine; of those that never answered, in a row
        self._spared: dict[str, bool] = {}  # of workers that were replaced: what `replace` said
        self._said = ""  # the last that was heard of a worker's end
        self._deadline = time.monotonic() + PATIENCE
        for _ in range(workers):
            self._add()

    def _add(self, node: str | None = None) -> None:
        """One more, on that machine if one is named."""
        name = next(self._names)
        there: dict[str, Any] = {}
        if node:
            there = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)}
        elif unfit := self._unfit():
            there = {"label_selector": {NODE: f"!in({','.join(sorted(unfit))})"}}
        actor = ray.remote(Host).options(name=name, **self._options, **there).remote(self.seats > 1)
        self.members[name] = Member(actor, actor.where.remote(), actor.prepare.remote(self._images, self._wanted))

    def place(self, taken: Iterable[Place], alone: bool, paces: Mapping[str, float] = {}) -> Place | None:
        """Where the next trial goes: to whom is ready and has the fewest; None if it has to wait.

        Of several to the fastest by `paces`, how many times longer each machine takes.

        Where nobody is ready yet it goes to one that has its machine, so that its seat starts meanwhile.

        Raises:
            IdatError: nobody is left, or nobody came.
        """
        self.look()
        taken = list(taken)
        guests, closed = Counter(place.worker for place in taken), {place.worker for place in taken if place.alone}
        most = 1 if alone else self.seats
        ready = [name for name, member in self.members.items() if member.ready]
        coming = [name for name, member in self.members.items() if member.node or self.limit is None]
        open_ones = (ready or coming)[: self.limit() if self.limit else None]  # who has more than its share shrinks
        free = [name for name in open_ones if name not in closed and guests[name] < most]

        def busy(name: str) -> tuple[int, float]:
            return guests[name], paces.get(self.members[name].machine, 1.0)

        return Place(min(free, key=busy), alone) if free else None

    def machine(self, name: str) -> str:
        """The name of the machine that a worker is on; none of one that is gone."""
        return self.members[name].machine if name in self.members else ""

    def look(self) -> None:
        """Hear who has come, or could not; asked now and then even while all seats are taken.

        Raises:
            IdatError: nobody is left, or nobody came.
        """
        for name, member in list(self.members.items()):
            refused = self._hear(member)
            if refused:
                self.replace(name, refused, unfit=True)
        if self._none_is_left():
            raise IdatError(f"no machine is left that can train; {self._said}")
        if any(member.ready for member in self.members.values()):
            self._deadline = time.monotonic() + PATIENCE
        elif time.monotonic() > self._deadline:
            raise IdatError(f"no process to train in was there for {PATIENCE / 60:g} minutes; see Ray's own logs")

    def follow(self, trials: int, taken: Iterable[Place]) -> None:
        """Have as many workers as so many trials take, up to the limit, if there is one.

        More are asked for at once, of which those that find no room make an autoscaler start machines. Of those too
        many who have no machine yet go at once, and who are idle for a while later, so that machines can go.
        """
        if self.limit is None:
            return
        wanted = max(1, min(self.limit(), math.ceil(trials / self.seats)))
        if self._faults[""] < MOST_FAULTS:
            for _ in range(wanted - len(self.members)):
                self._add()
        patience = 0.0 if len(self.members) > self.limit() else IDLE  # others wait for what is beyond its share
        busy, now = {place.worker for place in taken}, time.monotonic()
        spare = len(self.members) - wanted
        for name, member in sorted(self.members.items(), key=lambda one: one[1].node is not None):
            needed = spare <= 0 or name in busy
            member.idle_since = None if needed else member.idle_since or now
            if not needed and (member.node is None or now - (member.idle_since or now) >= patience):
                self._give_back(name)
            spare -= not needed

    def _give_back(self, name: str) -> None:
        with suppress(Exception):  # it has ended
            ray.kill(self.members.pop(name).actor)

    def _unfit(self) -> list[str]:
        """The machines that get no more workers."""
        return [node for node, faults in self._faults.items() if node and faults >= MOST_FAULTS]

    def _none_is_left(self) -> bool:
        """Whether nobody will come: all machines that have what a worker takes are unfit, or none ever answers."""
        if self.limit is None or self._faults[""] >= MOST_FAULTS:
            return not self.members
        if not self._unfit() or any(member.node for member in self.members.values()):
            return False
        fit = [
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and all(node["Resources"].get(what, 0) >= least for what, least in self._takes.items())
        ]
        return bool(fit) and set(fit) <= set(self._unfit())

    def _hear(self, member: Member) -> str | None:
        """Take in what a worker that is coming has to say; why it cannot train, if it cannot."""
        if member.ready:
            return None
        try:
            if member.node is None and _answered(member.where):
                found = ray.get(member.where)
                member.node, member.machine = found["node"], found["name"]
            if _answered(member.prepared):
                ray.get(member.prepared)
                member.ready = True
                self._faults.pop("", None)
        except RayError as failure:
            return plainly(failure)
        return None

    def replace(self, name: str, reason: str, unfit: bool) -> bool:
        """Let another worker take the place of one that is of no more use; whether its trials are not to blame.

        Args:
            name: of the worker; of one that was replaced already the answer is the same as then.
            reason: why.
            unfit: whether it is the machine that cannot train, which gets no more workers after two of them.
        """
        member = self.members.pop(name, None)
        if member is None:
            return self._spared.get(name, True)
        refused = self._hear(member)  # it may be a seat that heard of it first
        if refused:
            reason, unfit = refused, True
        with suppress(Exception):  # it has ended
            ray.kill(member.actor)
        if member.ready:  # only from now on somebody is waited for
            self._deadline = time.monotonic() + PATIENCE
        self._said = f"{member.machine} said: {reason}"
        lost = reason == LOST or (member.node is not None and not _is_alive(member.node))
        self._spared[name] = unfit or lost
        self._faults[member.node or ""] += unfit and not lost
        self._tell(member, reason, lost)
        if lost or self._faults[member.node or ""] < MOST_FAULTS:
            self._add(None if lost or unfit else member.node)
        elif self.limit is not None:  # others may be on their way there; `follow` asks for them anew
            for other in [other for other, member in self.members.items() if member.node is None]:
                self._give_back(other)
        return self._spared[name]

    def _tell(self, member: Member, reason: str, lost: bool) -> None:
        if lost:
            self.tell(f"machine {member.machine} is lost; what ran there begins again elsewhere")
        elif self._faults[member.node or ""] > MOST_FAULTS:
            return  # which was told
        elif self._faults[member.node or ""] == MOST_FAULTS:
            self.tell(f"{member.machine} gets no more trials: {reason}")
        else:
            self.tell(f"a worker on {member.machine} is replaced: {reason}")

    def end(self, name: str) -> None:
        """End a worker that hangs; who waits for it hears of it."""
        if name in self.members:
            with suppress(Exception):  # it has ended by itself
                ray.kill(self.members[name].actor)

    def leave(self, name: str, key: str) -> None:
        """Tell a worker that a trial is over whose seat has died and cannot."""
        if name in self.members:
            self.members[name].actor.leave.remote(key)

    def close(self) -> None:
        """End them."""
        for member in self.members.values():
            with suppress(Exception):  # Ray may have died before
                ray.kill(member.actor)


def _answered(answer: Any) -> bool:
    done, _ = ray.wait([answer], timeout=0)
    return bool(done)


def _is_alive(node: str) -> bool:
    return any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node)
