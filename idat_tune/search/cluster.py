"""Ray, quietly: connect to a cluster or start one on this machine, and leave it again."""

import logging
import os
import shutil
from pathlib import Path

from idat_tune.errors import BadInput
from idat_tune.search.plan import Resources

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of one machine listens on 127.0.0.1 only
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
STORE_BYTES = 1_000_000_000  # of the object store on this machine; a task's images at 224 pixels take 150 MB


class Session:
    """Ray for one search after another: started for the first, ended after the last."""

    def __init__(self, resources: Resources):
        self.resources = resources
        self._ours = False  # started here, so ended here

    def start(self) -> tuple[int, float]:
        """Connect, or start Ray on this machine; how many trials may run at once, and how much of a GPU each takes.

        Raises:
            BadInput: GPU-hours are to be counted where trials take no GPU.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        if not ray.is_initialized():
            self._ours = True
            quietly = {"logging_level": logging.ERROR, "log_to_driver": False}
            if self.resources.address:
                ray.init(address=self.resources.address, **quietly)
            else:
                cpus = max(self.resources.max_concurrent or 0, os.cpu_count() or 1)
                ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE_BYTES, **quietly)
        there, asked = ray.cluster_resources(), self.resources.gpus_per_trial
        gpus = asked if asked is not None else min(1.0, there.get("GPU", 0.0))
        if self.resources.gpu_hours is not None and not gpus:
            raise BadInput("--gpu-hours cannot be counted: trials take no GPU here; use --hours")
        return self.resources.max_concurrent or at_once(there.get("CPU", 1), there.get("GPU", 0), gpus), gpus

    def close(self) -> None:
        """End what was started here."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False


def at_once(cpus: float, gpus: float, gpus_per_trial: float) -> int:
    """How many trials fit: one per core, and no more than the GPUs can take; at least one."""
    fit = int(gpus / gpus_per_trial) if gpus_per_trial else int(cpus)
    return max(1, min(int(cpus), fit))


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
