"""Ray, quietly: connect to a cluster or start one on this machine, and leave it again."""

import logging
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idat_tune.engine import devices
from idat_tune.errors import BadInput, IdatError
from idat_tune.interrupts import Interrupts
from idat_tune.search.address import LOCAL, NONE_NEEDED, unused
from idat_tune.search.config import ResourcesConfig, SearchConfig
from idat_tune.search.machine import (
    check_processes,
    end,
    gpus_of_each,
    need_no_home,
    processes_of_ray,
    ray_folder,
    store,
)

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
WATCH_EVERY = 0.5  # seconds
CLOSING = 4.0  # seconds that Ray has to end by itself once a signal has come


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

    def __init__(self, config: SearchConfig):
        """What `config` says of resources holds for all searches; its address, if any, is one that answers."""
        self.config = config
        self.resources = config.resources
        self.interrupts = Interrupts()  # those of whoever uses it
        self.lost: Callable[[str], None] = lambda process: None  # called when a process of Ray's has died
        self.remark: str | None = None  # what is to be known of the Ray that is used
        self._ours = False  # started or connected here, so ended here

    def prepare(self) -> None:
        """Refuse what cannot work, before anything is written or started; connect where Ray is there.

        Raises:
            BadInput: GPU-hours are to be counted where trials take no GPU, more GPUs are asked for than there are, no
                cluster can be joined at the address, or Ray has no room on this machine.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        if _is_up():
            self.remark = _join_session(self.resources.address)
            self._gpus()
        elif self.resources.address:
            self._start({"address": self.resources.address}, self._not_joined)
            self._gpus()
        else:
            self.remark = unused()
            gpus_of_each(devices.gpus(), self.config)
            check_processes(self.resources)
            store(ray_folder())

    def start(self) -> Room:
        """What there is for trials, once Ray is there, which is started on this machine if it is not."""
        import ray

        if not ray.is_initialized():
            self._start(self._on_this_machine(), self._not_started)
            threading.Thread(target=self._watch, daemon=True).start()
        there = ray.cluster_resources()
        return room(there.get("CPU", 1), there.get("GPU", 0), self._gpus(), self.resources)

    def _gpus(self) -> float:
        import ray

        return gpus_of_each(ray.cluster_resources().get("GPU", 0.0), self.config)

    def _on_this_machine(self) -> dict[str, Any]:
        folder, alone = ray_folder(), self.resources.stacked == 1
        folder.mkdir(parents=True, exist_ok=True)
        need_no_home()
        os.environ.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)  # of a job of another Ray, whose files this one has not
        return {
            "address": LOCAL,  # else Ray would take RAY_ADDRESS, or what `ray start` left
            "num_cpus": max(self.resources.max_concurrent or 0 if alone else 0, os.cpu_count() or 1),
            "num_gpus": devices.gpus(),
            "include_dashboard": False,
            "_temp_dir": str(folder),
            **store(folder),
        }

    def _start(self, how: dict[str, Any], failed: Callable[[str], IdatError]) -> None:
        """Have Ray; a signal meanwhile is the KeyboardInterrupt that it is at other times."""
        import ray

        self._ours = True
        try:
            ray.init(**how, logging_level=logging.ERROR, log_to_driver=False)
        except SystemExit:  # Ray puts a handler of its own in the place of ours
            raise KeyboardInterrupt from None
        except Exception as failure:
            self.interrupts.check()
            raise failed(_first_line(failure)) from failure
        finally:
            self.interrupts.renew()
        self.interrupts.check()

    def _not_joined(self, reason: str) -> BadInput:
        return BadInput(
            f"--address {self.resources.address}: this machine could not join the Ray cluster there ({reason}); a "
            f"search is started on a machine of the cluster, and {NONE_NEEDED}"
        )

    def _not_started(self, reason: str) -> IdatError:
        return IdatError(
            f"Ray could not be started on this machine: {reason}; {ray_folder() / 'session_latest' / 'logs'} has its "
            "own logs, and `idat-tune doctor` looks at what it needs"
        )

    def _watch(self) -> None:
        """Tell of a process of Ray's that died: its native part ends this process for it, later and without a word."""
        from ray._private import worker

        node: Any = worker._global_node
        while self._ours and node is not None:
            dead = [name for name, _ in node.dead_processes()]
            if dead and self._ours:
                time.sleep(WATCH_EVERY)  # a signal to all of us reaches Ray's processes too
                return None if self.interrupts.asked else self.lost(dead[0])
            time.sleep(WATCH_EVERY)
        return None

    def close(self) -> None:
        """End what was started here."""
        if not self._ours:
            return
        self._ours = False
        family = {} if self.resources.address else processes_of_ray(ray_folder())
        try:
            self._shut_down()
        finally:
            self.interrupts.renew()
            end(family)

    def _shut_down(self) -> None:
        import ray

        if not self.interrupts.asked:
            return ray.shutdown()
        # Whoever told us to stop may have told Ray's processes too, and without them this waits for half a minute.
        closing = threading.Thread(target=ray.shutdown, daemon=True)
        closing.start()
        return closing.join(CLOSING)


def _is_up() -> bool:
    """Whether this process has a session of Ray, which then is not ours."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _join_session(address: str | None) -> str:
    """What to say of the session of Ray that this process had before.

    Raises:
        BadInput: it is of another cluster than the one asked for, or one that cannot run a search.
    """
    import ray
    from ray.util.client import ray as client

    if client.is_connected():
        raise BadInput(
            "this process is connected by Ray's client (ray://), which cannot run a search; start it on a machine of "
            "the cluster, or call ray.shutdown() before"
        )
    there = ray.get_runtime_context().gcs_address
    if address not in (None, there):
        raise BadInput(
            f"--address {address}: this process has a session of Ray at {there} already; leave the address away to use "
            "it, or call ray.shutdown() before"
        )
    return f"the session of Ray that this process has, at {there}, is used and stays as it is"


def _first_line(failure: Exception) -> str:
    return (str(failure).strip() or type(failure).__name__).splitlines()[0]


def at_once(cpus: float, gpus: float, gpus_per_trial: float) -> int:
    """How many trials fit: one per core, and no more than the GPUs can take; at least one."""
    fit = int(gpus / gpus_per_trial) if gpus_per_trial else int(cpus)
    return max(1, min(int(cpus), fit))


def room(cpus: float, gpus: float, gpus_each: float, resources: ResourcesConfig) -> Room:
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
