"""What Tune runs trials on: a worker for each, or seats at hosts that train several as one."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import tune

from idat_tune.data import Images
from idat_tune.errors import IdatError
from idat_tune.host import Host
from idat_tune.search.cluster import Room
from idat_tune.search.plan import Place
from idat_tune.seat import CPUS, Seat
from idat_tune.trial import Trial

log = logging.getLogger(__name__)

PATIENCE = 1800.0  # seconds until the first host must be there; a cluster may have to start a machine for it


class Workers:
    """Each trial has a worker of its own."""

    def __init__(self, images: Mapping[str, Images], room: Room):
        trainable = tune.with_parameters(Trial, images=images)
        self.trainable = tune.with_resources(trainable, {"cpu": 1, "gpu": room.gpus})

    def place(self, taken: Iterable[Place], alone: bool) -> Place | None:
        """Where the next trial goes; None if it has to wait."""
        return Place(0, alone)

    def end(self, place: Place) -> None:
        """Nothing: Tune's worker is all there is."""

    def close(self) -> None:
        """Nothing: Tune ends them."""


class Hosts:
    """Hosts that take several trials each; a trial goes where the fewest are, and to no host before it is there."""

    def __init__(self, images: Mapping[str, Images], room: Room):
        self.seats = room.stacked
        actor = ray.remote(Host).options(
            # A host and its seats take a core; twice, as a seat may come while another is ending.
            num_cpus=1 - 2 * room.stacked * CPUS,
            num_gpus=room.gpus,
            max_restarts=-1,
            max_concurrency=2 * room.stacked + 1,  # one waits for each seat, and may be told that its trial is over
        )
        self._images = ray.put(images)  # held, so that a host which starts again finds them
        self.hosts = [actor.remote([self._images]) for _ in range(room.processes)]
        self._coming = {host.ready.remote(): number for number, host in enumerate(self.hosts)}
        self._there: set[int] = set()
        self._deadline = time.monotonic() + PATIENCE
        self.trainable = tune.with_resources(tune.with_parameters(Seat, hosts=self.hosts), {"cpu": CPUS})

    def place(self, taken: Iterable[Place], alone: bool) -> Place | None:
        """As of `Workers`; who is to be alone waits for an empty host."""
        guests, closed = Counter(place.host for place in taken), {place.host for place in taken if place.alone}
        most = 1 if alone else self.seats
        free = [host for host in self._ready() if host not in closed and guests[host] < most]
        return Place(min(free, key=lambda host: guests[host]), alone) if free else None

    def _ready(self) -> set[int]:
        """The hosts that have started. One that cannot is left out, unless there is no other."""
        if self._coming:
            answered, _ = ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)
            for answer in answered:
                self._hear(answer, self._coming.pop(answer))
            if not self._there and time.monotonic() > self._deadline:
                raise IdatError(
                    f"no process to train in was ready within {PATIENCE / 60:g} minutes; see Ray's own logs"
                )
        return self._there

    def _hear(self, answer: Any, host: int) -> None:
        try:
            ray.get(answer)
            self._there.add(host)
        except ray.exceptions.RayActorError as failure:
            reason = str(failure).strip().splitlines()[-1]  # below the trace of the process
            if not self._coming and not self._there:
                raise IdatError(f"no process to train in could be started: {reason}") from failure
            log.warning("a process to train in could not be started: %s", reason)

    def end(self, place: Place) -> None:
        """End a host that hangs; another starts in its place."""
        ray.kill(self.hosts[place.host], no_restart=False)

    def close(self) -> None:
        """End them."""
        for host in self.hosts:
            with suppress(Exception):  # Ray may have died before
                ray.kill(host)


@contextmanager
def workers(images: Mapping[str, Images], room: Room) -> Iterator[Workers | Hosts]:
    """What a search runs on."""
    made = (Hosts if room.stacked > 1 else Workers)(images, room)
    try:
        yield made
    finally:
        made.close()
