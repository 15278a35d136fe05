"""Ray, quietly: connect to a cluster or start one on this machine, and leave it again."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
STORE_BYTES = 256_000_000  # of the object store, beside the images


@contextmanager
def connected(resources: Resources, image_bytes: int) -> Iterator[tuple[int, float]]:
    """A Ray session; yields how many trials may run at once, and how much of a GPU each takes.

    Args:
        resources: what was asked for.
        image_bytes: what the object store must hold.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    started = not ray.is_initialized()
    if started and resources.address:
        ray.init(address=resources.address, logging_level=logging.ERROR, log_to_driver=False)
    elif started:
        ray.init(
            num_cpus=max(resources.max_concurrent or 0, os.cpu_count() or 1),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=STORE_BYTES + 2 * image_bytes,
        )
    try:
        there = ray.cluster_resources()
        gpus = resources.gpus_per_trial if resources.gpus_per_trial is not None else min(1.0, there.get("GPU", 0.0))
        yield resources.max_concurrent or at_once(there.get("CPU", 1), there.get("GPU", 0), gpus), gpus
    finally:
        if started:
            ray.shutdown()


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
