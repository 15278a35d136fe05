"""What Tune runs trials on: a worker for each, or seats at hosts that train several as one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune

from idat_tune.data import Images
from idat_tune.host import Host
from idat_tune.search.cluster import Room
from idat_tune.seat import CPUS, Seat
from idat_tune.trial import Trial


@contextmanager
def workers(images: Mapping[str, Images], trials: int, room: Room) -> Iterator[Any]:
    """A trainable for Tune, with what it takes of the machine; `trials` is how many the search has."""
    if room.stacked == 1:
        trainable = tune.with_parameters(Trial, images=images, trials=trials // room.processes)
        yield tune.with_resources(trainable, {"cpu": 1, "gpu": room.gpus})
        return
    actor = ray.remote(Host).options(
        # So that a host and its seats take a core.
        num_cpus=1 - room.stacked * CPUS,
        num_gpus=room.gpus,
        max_restarts=-1,
        max_concurrency=2 * room.stacked,  # one waits for each seat, and may be told that its trial is over
    )
    shared = ray.put(images)
    hosts = [actor.remote(shared, trials // room.processes) for _ in range(room.processes)]
    try:
        yield tune.with_resources(tune.with_parameters(Seat, hosts=hosts), {"cpu": CPUS})
    finally:
        for host in hosts:
            ray.kill(host)
