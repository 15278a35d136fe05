"""The pool: Ray actors of our own that train, one after the other of them replaced when it dies, until the search ends.

They are not Tune's, which would end those that are still starting, and would make a new one for every trial.
"""

import itertools
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from idat_tune.data import Images
from idat_tune.errors import IdatError
from idat_tune.worker.host import Host
from idat_tune.worker.seat import CPUS

PATIENCE = 1800.0  # seconds for which there may be no worker at all; a cluster may have to start a machine
MOST_FAULTS = 2  # of the workers of a machine; then it gets no more of them


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
    ):
        """Ask Ray for them; they start by themselves.

        Args:
            images: the splits that trials may see.
            workers: how many.
            gpus: of each.
            seats: trials that each takes at most.
            tell: called with what is to be known of a worker or a machine.
        """
        self.seats = seats
        self.tell = tell
        self.members: dict[str, Member] = {}
        self._images = ray.put(images)
        self._names = (f"idat-tune-{uuid.uuid4().hex[:8]}-{number}" for number in itertools.count())
        self._options = {
            # A worker and its seats take a core; twice, as a seat may come while another is ending.
            "num_cpus": 1 - 2 * seats * CPUS,
            "num_gpus": gpus,
            "max_restarts": 0,
            "max_concurrency": 3 * seats + 2,  # one waits for each seat, and may be told that its trial is over
        }
        self._faults: Counter[str] = Counter()  # by machine, those that never answered together
        self._spared: dict[str, bool] = {}  # of workers that were replaced: what `replace` said
        self._said = ""  # the last that was heard of a worker's end
        self._deadline = time.monotonic() + PATIENCE
        for _ in range(workers):
            self._add()

    def _add(self, node: str | None = None) -> None:
        """One more, on that machine if one is named."""
        name = next(self._names)
        there = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
        actor = ray.remote(Host).options(name=name, **self._options, **there).remote(self.seats > 1)
        self.members[name] = Member(actor, actor.where.remote(), actor.prepare.remote(self._images))

    def place(self, taken: Iterable[Place], alone: bool) -> Place | None:
        """Where the next trial goes: to whom is ready and has the fewest; None if it has to wait.

        Where nobody is ready yet it goes to one that is coming, so that its seat starts meanwhile.

        Raises:
            IdatError: nobody is left, or nobody came.
        """
        self._look()
        taken = list(taken)
        guests, closed = Counter(place.worker for place in taken), {place.worker for place in taken if place.alone}
        most = 1 if alone else self.seats
        ready = [name for name, member in self.members.items() if member.ready]
        free = [name for name in ready or self.members if name not in closed and guests[name] < most]
        return Place(min(free, key=lambda name: guests[name]), alone) if free else None

    def _look(self) -> None:
        """Hear who has come, or could not."""
        for name, member in list(self.members.items()):
            if not member.ready:
                self._hear(name, member)
        if not self.members:
            raise IdatError(f"no machine is left that can train; {self._said}")
        if any(member.ready for member in self.members.values()):
            self._deadline = time.monotonic() + PATIENCE
        elif time.monotonic() > self._deadline:
            raise IdatError(f"no process to train in was there for {PATIENCE / 60:g} minutes; see Ray's own logs")

    def _hear(self, name: str, member: Member) -> None:
        try:
            if member.node is None and _answered(member.where):
                found = ray.get(member.where)
                member.node, member.machine = found["node"], found["name"]
            if _answered(member.prepared):
                ray.get(member.prepared)
                member.ready = True
        except RayError as failure:
            self.replace(name, _plainly(failure), unfit=True)

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
        with suppress(Exception):  # it has ended
            ray.kill(member.actor)
        if member.ready:  # only from now on somebody is waited for
            self._deadline = time.monotonic() + PATIENCE
        self._said = f"{member.machine} said: {reason}"
        lost = member.node is not None and not _is_alive(member.node)
        self._spared[name] = unfit or lost
        self._faults[member.node or ""] += unfit
        self._tell(member, reason, lost)
        if self._faults[member.node or ""] < MOST_FAULTS:
            self._add(None if lost or unfit else member.node)
        return self._spared[name]

    def _tell(self, member: Member, reason: str, lost: bool) -> None:
        if lost:
            self.tell(f"machine {member.machine} is lost; what ran there begins again elsewhere")
        elif self._faults[member.node or ""] >= MOST_FAULTS:
            self.tell(f"{member.machine} gets no more trials: {reason}")
        else:
            self.tell(f"a worker on {member.machine} is replaced: {reason}")

    def end(self, name: str) -> None:
        """End a worker that hangs; who waits for it hears of it."""
        if name in self.members:
            ray.kill(self.members[name].actor)

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


def _plainly(failure: RayError) -> str:
    """What went wrong, without Ray's trace."""
    if isinstance(failure, RayTaskError) and failure.cause is not None:
        return f"{type(failure.cause).__name__}: {failure.cause}"
    kind = "its process died" if isinstance(failure, RayActorError) else type(failure).__name__
    return f"{kind}: {str(failure).strip().splitlines()[-1]}"
