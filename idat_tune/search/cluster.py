"""Ray, quietly: connect to a cluster or start one on this machine, and leave it again."""

import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_tune.errors import BadInput, IdatError
from idat_tune.search.plan import Resources

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would wait for the running trials, which are run again anyway
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of one machine listens on 127.0.0.1 only
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
STORE_BYTES = 1_000_000_000  # of the object store on this machine; a task's images at 224 pixels take 150 MB
WATCH_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Room:
    """What there is for trials."""

    trials: int  # at once
    processes: int  # that train them
    gpus: float  # of each process
    stacked: int = 1  # trials that each takes at most

    @property
    def gpus_per_trial(self) -> float:
        """How much of a GPU each takes when they are that many."""
        return self.gpus * self.processes / self.trials


class Session:
    """Ray for one search after another: started for the first, ended after the last."""

    def __init__(self, resources: Resources):
        self.resources = resources
        self.lost: Callable[[str], None] = lambda process: None  # called when a process of Ray's has died
        self._ours = False  # started here, so ended here

    def start(self) -> Room:
        """Connect, or start Ray on this machine.

        Raises:
            BadInput: GPU-hours are to be counted where trials take no GPU.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        if not ray.is_initialized():
            self._ours = True
            before = signal.getsignal(signal.SIGTERM)
            self._init()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has put its own in its place
        there, asked = ray.cluster_resources(), self.resources.gpus_per_trial
        gpus = asked if asked is not None else min(1.0, there.get("GPU", 0.0))
        if gpus > there.get("GPU", 0.0) and not self.resources.address:  # a cluster may yet grow
            raise BadInput(
                f"--gpus-per-trial cannot be {gpus:g}: this machine has {there.get('GPU', 0.0):g} GPUs; "
                "give a part of one for several trials on it, or leave the option away"
            )
        if self.resources.gpu_hours is not None and not gpus:
            raise BadInput("--gpu-hours cannot be counted: trials take no GPU here; use --hours")
        return room(there.get("CPU", 1), there.get("GPU", 0), gpus, self.resources)

    def _init(self) -> None:
        import ray

        quietly = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self.resources.address
        alone = self.resources.stacked == 1
        cpus = max(self.resources.max_concurrent or 0 if alone else 0, os.cpu_count() or 1)
        local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        try:
            ray.init(**({"address": address} if address else local), **quietly)
        except ConnectionError as failure:
            raise BadInput(
                f"--address {address}: no Ray cluster answers there ({failure}); `ray up cluster.yaml` starts one, "
                "and without --address one is started on this machine"
            ) from None
        except Exception as failure:
            raise IdatError(f"Ray could not be started: {failure}; give the same command again") from failure
        if not address:
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Tell of a process of Ray's that died: its native part ends this process for it, later and without a word."""
        from ray._private import worker

        node: Any = worker._global_node
        while self._ours and node is not None:
            dead = [name for name, _ in node.dead_processes()]
            if dead and self._ours:
                return self.lost(dead[0])
            time.sleep(WATCH_EVERY)
        return None

    def close(self) -> None:
        """End what was started here."""
        if self._ours:
            import ray

            self._ours = False
            ray.shutdown()


def at_once(cpus: float, gpus: float, gpus_per_trial: float) -> int:
    """How many trials fit: one per core, and no more than the GPUs can take; at least one."""
    fit = int(gpus / gpus_per_trial) if gpus_per_trial else int(cpus)
    return max(1, min(int(cpus), fit))


def room(cpus: float, gpus: float, gpus_each: float, resources: Resources) -> Room:
    """What there is for trials on so many cores and GPUs, of which each process takes a part."""
    fit, stacked, most = at_once(cpus, gpus, gpus_each), resources.stacked, resources.max_concurrent
    if stacked == 1:  # as many as the user wants, be there cores or not
        return Room(most or fit, most or fit, gpus_each)
    processes = min(fit, math.ceil(most / stacked)) if most else fit
    seats = processes * stacked
    return Room(min(most, seats) if most else seats, processes, gpus_each, stacked)


def log_to(path: Path) -> None:
    """Send what Ray, Tune, Optuna and MLflow log to a file, and nowhere else."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    for name in ("ray", "mlflow", "optuna", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False


def remove_tune_files(folder: Path) -> None:
    """Delete what Tune wrote for itself; the journal has all that is needed."""
    shutil.rmtree(folder, ignore_errors=True)
