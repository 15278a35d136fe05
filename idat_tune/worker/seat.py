"""A trial as Ray Tune sees it, whose training is with a worker; light, as there is one beside each trial."""

import time
import uuid
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayActorError

CPUS = 0.01  # of a seat, which only waits
PATIENCE = 600.0  # seconds that a seat waits for a worker that is starting; then its trial may go to another
GONE = "gone"  # status: the worker died; `begun` says whether it had the trial by then


class Seat(tune.Trainable):
    """Asks the worker that the job names for each result."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.key = ""  # under which the worker knows the trial, once it does
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leave the worker of the last trial and take the next."""
        self.cleanup()
        self.job = new_config
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial, or that its worker is gone."""
        try:
            if not self.key:
                self._begin(uuid.uuid4().hex)
            result: dict[str, Any] = ray.get(self.worker.step.remote(self.key))
        except (RayActorError, ray.exceptions.GetTimeoutError, ValueError) as failure:  # of an actor without its name
            begun, self.key = bool(self.key), ""
            return {"status": GONE, "begun": begun, "reason": str(failure).strip()[-200:], "done": True, "score": -1.0}
        if result["done"]:
            self.cleanup()
        return result

    def _begin(self, key: str) -> None:
        """Hand the trial to its worker, which may just be starting."""
        self.worker = ray.get_actor(self.job["worker"])
        deadline = time.monotonic() + PATIENCE
        ray.get(self.worker.begin.remote(key, self.job), timeout=deadline - time.monotonic())
        self.key = key

    def cleanup(self) -> None:
        """Tell the worker that the trial is over, which it may not know."""
        if self.key:
            self.worker.leave.remote(self.key)
        self.key = ""
