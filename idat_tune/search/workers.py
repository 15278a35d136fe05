"""What Tune runs trials on: a worker for each, or seats at hosts that train several as one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray import tune

from idat_tune.data import Images
from idat_tune.errors import IdatError
from idat_tune.host import Host
from idat_tune.search.cluster import Room
from idat_tune.seat import CPUS, Seat
from idat_tune.trial import Trial


@dataclass(frozen=True)
class Place:
    """Where a trial is."""

    host: int
    alone: bool  # whether nobody else may be there, as its last host died and it may be why


class Workers:
    """Each trial has a worker of its own."""

    def __init__(self, images: Mapping[str, Images], trials: int, room: Room):
        trainable = tune.with_parameters(Trial, images=images, trials=trials // room.processes)
        self.trainable = tune.with_resources(trainable, {"cpu": 1, "gpu": room.gpus})

    def place(self, taken: Iterable[Place], alone: bool) -> Place | None:
        """Where the next trial goes; None if it has to wait."""
        return Place(0, alone)

    def close(self) -> None:
        """Nothing: Tune ends them."""


class Hosts:
    """Hosts that take several trials each; a trial goes where the fewest are, and to no host before it is there."""

    def __init__(self, images: Mapping[str, Images], trials: int, room: Room):
        self.seats = room.stacked
        actor = ray.remote(Host).options(
            # A host and its seats take a core; twice, as a seat may come while another is ending.
            num_cpus=1 - 2 * room.stacked * CPUS,
            num_gpus=room.gpus,
            max_restarts=-1,
            max_concurrency=2 * room.stacked + 1,  # one waits for each seat, and may be told that its trial is over
        )
        self._images = ray.put(images)  # held, so that a host which starts again finds them
        self.hosts = [actor.remote([self._images], trials // room.processes) for _ in range(room.processes)]
        self._coming = {host.ready.remote(): number for number, host in enumerate(self.hosts)}
        self._there: set[int] = set()
        self.trainable = tune.with_resources(tune.with_parameters(Seat, hosts=self.hosts), {"cpu": CPUS})

    def place(self, taken: Iterable[Place], alone: bool) -> Place | None:
        """As of `Workers`; who is to be alone waits for an empty host."""
        guests, closed = Counter(place.host for place in taken), {place.host for place in taken if place.alone}
        most = 1 if alone else self.seats
        free = [host for host in self._ready() if host not in closed and guests[host] < most]
        return Place(min(free, key=lambda host: guests[host]), alone) if free else None

    def _ready(self) -> set[int]:
        if self._coming:
            there, _ = ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)
            try:
                ray.get(there)
            except ray.exceptions.RayActorError as failure:
                reason = str(failure).strip().splitlines()[-1]  # below the trace of the process
                raise IdatError(f"no process to train in could be started: {reason}") from failure
            self._there |= {self._coming.pop(answer) for answer in there}
        return self._there

    def close(self) -> None:
        """End them."""
        for host in self.hosts:
            with suppress(Exception):  # Ray may have died before
                ray.kill(host)


@contextmanager
def workers(images: Mapping[str, Images], trials: int, room: Room) -> Iterator[Workers | Hosts]:
    """What a search of so many trials runs on."""
    made = (Hosts if room.stacked > 1 else Workers)(images, trials, room)
    try:
        yield made
    finally:
        made.close()
