"""A trial as Ray Tune sees it, whose training is with a host; light, as there are several beside each host."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

CPUS = 0.01  # of a seat, which only waits
PATIENCE = 600.0  # seconds that a seat waits for a host that starts again; then its trial may go to another


class Seat(tune.Trainable):
    """Asks the host that the job names for each result."""

    def setup(self, config: dict[str, Any], hosts: Sequence[Any]) -> None:
        """Take the handles of all hosts, and the first trial."""
        self.hosts = hosts
        self.key = ""  # under which the host knows the trial, once it does
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the host of the last trial and take the next."""
        self.cleanup()
        self.job = new_config
        self.host = self.hosts[new_config["host"]]
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial. Where the host died Ray's error goes on to Tune, and the trial runs again."""
        if not self.key:
            self._begin(uuid.uuid4().hex)
        return ray.get(self.host.step.remote(self.key))

    def _begin(self, key: str) -> None:
        """Hand the trial to its host, which may just be starting again. Not by Ray's retries, which it prints."""
        deadline = time.monotonic() + PATIENCE
        while not self.key:
            try:
                ray.get(self.host.begin.remote(key, self.job))
                self.key = key
            except ray.exceptions.ActorUnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def cleanup(self) -> None:
        """Tell the host that the trial is over, which it may not know."""
        if self.key:
            self.host.leave.remote(self.key)
        self.key = ""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is short, and one that dies runs again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as nothing was saved."""
