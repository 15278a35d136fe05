"""A trial as Ray Tune sees it, whose training is with a worker; light, as there is one beside each trial."""

import logging
import time
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from idat_tune.metrics import WORST

log = logging.getLogger(__name__)

PATIENCE = 2400.0  # seconds that a seat waits for a worker that is starting; the pool gives up sooner
UNHEARD = 60.0  # seconds after which a worker that does not answer is given up
GONE = "gone"  # status: the worker died; `begun` says whether it had the trial by then
LOST = "its machine is gone"  # reason: whatever ran there has no part in it


class Seat(tune.Trainable):
    """Asks the worker that the job names for each result."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self.key = ""  # of the trial that the worker has
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
                self._begin(self.job["key"])
            result: dict[str, Any] = ray.get(self.worker.step.remote(self.key))
        except (RayError, ValueError) as failure:  # the latter where nobody has that name any more
            log.warning("%s: %s", self.job["id"], failure)
            reason = self._settled(failure)
            begun, self.key = bool(self.key), ""
            return {"status": GONE, "begun": begun, "reason": reason, "done": True, "score": WORST}
        if result["done"]:
            self.cleanup()
        return result

    def _begin(self, key: str) -> None:
        """Hand the trial to its worker, which may just be starting."""
        self.worker = ray.get_actor(self.job["worker"])
        ray.get(self.worker.begin.remote(key, self.job), timeout=PATIENCE)
        self.key = key

    def _settled(self, failure: Exception) -> str:
        """What became of the worker, once Ray knows: of a lost machine it first says that it does not answer."""
        deadline = time.monotonic() + UNHEARD
        while isinstance(failure, ActorUnavailableError) and time.monotonic() < deadline:
            time.sleep(1)
            try:
                ray.get(self.worker.where.remote(), timeout=UNHEARD)
                break  # it answers again, but what became of the trial nobody knows
            except RayError as next_one:
                failure = next_one
        return "it did not answer" if isinstance(failure, ActorUnavailableError | GetTimeoutError) else plainly(failure)

    def cleanup(self) -> None:
        """Tell the worker that the trial is over, which it may not know."""
        if self.key:
            self.worker.leave.remote(self.key)
        self.key = ""


def plainly(failure: Exception) -> str:
    """What became of a worker, without Ray's trace."""
    if isinstance(failure, RayTaskError):
        return f"{type(failure.cause).__name__}: {failure.cause}"
    if "node has died" in str(failure) or "node was terminated" in str(failure):
        return LOST
    if isinstance(failure, RayActorError) or not isinstance(failure, RayError):
        return "its process died"
    return f"{type(failure).__name__}: {' '.join(str(failure).strip().splitlines()[:1])}"
