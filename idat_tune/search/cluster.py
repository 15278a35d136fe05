"""Ray, quietly: connect to a cluster or start one on this machine, and leave it again."""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from idat_tune import cost
from idat_tune.engine import devices
from idat_tune.errors import BadInput, IdatError
from idat_tune.interrupts import Interrupts
from idat_tune.search.address import LOCAL, NONE_NEEDED, unused
from idat_tune.search.config import SearchConfig
from idat_tune.search.machine import (
    check_processes,
    end,
    gpus_of_each,
    need_no_home,
    processes_of_ray,
    ray_folder,
    store,
)
from idat_tune.search.plan import Plan
from idat_tune.search.room import Machine, Room, described, missing, room, shared_gpu, there, to_come

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
TOLD = (0, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)  # how a process of Ray's ends that was told to
ECHO = 3.0  # seconds in which we hear of that too, if we all were: Ray's calls look for signals once a second
CLOSING = 4.0  # seconds that Ray has to end by itself once a signal has come


class Session:
    """Ray for one search after another: started for the first, ended after the last."""

    def __init__(self, config: SearchConfig, sharers: Callable[[], int] | None = None):
        """What `config` says of resources holds for all searches; its address, if any, is one that answers.

        `sharers`: how many drivers share them now, this one included; None where this is the only one.
        """
        self.config = config
        self.sharers = sharers
        self.resources = config.resources
        self.interrupts = Interrupts()  # those of whoever uses it
        self.lost: Callable[[str], None] = lambda process: None  # called when a process of Ray's has died
        self.remarks: list[str] = []  # what is to be known of the Ray that is used
        self._ours = False  # started or connected here, so ended here
        self.joined = False  # whether it was there before

    def prepare(self) -> None:
        """Refuse what cannot work, before anything is written or started; connect where Ray is there.

        Raises:
            BadInput: GPU-hours are to be counted where trials take no GPU, more GPUs are asked for than there are, no
                cluster can be joined at the address, or Ray has no room on this machine.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self.joined = _is_up() or self.resources.address is not None
        if _is_up():
            self.remarks = [_join_session(self.resources.address)]
        elif self.joined:
            self._start({"address": self.resources.address}, self._not_joined)
        if self.joined:
            self._gpus(self._machines())
        else:
            self.remarks = [sentence for sentence in [unused()] if sentence]
            gpus_of_each(devices.gpus(), self.config)
            check_processes(self.resources)
            store(ray_folder())

    def start(self, plan: Plan) -> Room:
        """What there is for the trials of a plan, once Ray is there, which is started on this machine if it is not."""
        import ray

        if not ray.is_initialized():
            self._start(self._on_this_machine(), self._not_started)
            threading.Thread(target=self._watch, daemon=True).start()
        machines = there(ray.nodes())
        found = room(machines, self._gpus_each(plan), self.resources, self.joined, self._sharers())
        if self.joined and self.sharers is None:
            address = ray.get_runtime_context().gcs_address
            self.remarks.append(f"Ray cluster at {address}: {described(machines, missing(to_come(), machines), found)}")
        return found

    def limit(self, found: Room) -> Callable[[], int] | None:
        """How many processes there may be as the cluster grows and others end; None where they stay as many as now."""
        most = found.limit
        if most is None:
            return None
        if self.sharers is None:
            return lambda: most
        return lambda: room(self._machines(), found.gpus, self.resources, True, self._sharers()).processes

    def capacity(self, found: Room) -> int:
        """How many processes fit, those machines included that may come."""
        return room(self._machines(), found.gpus, self.resources, True).processes

    def _sharers(self) -> int:
        return self.sharers() if self.sharers else 1

    def _gpus_each(self, plan: Plan) -> float:
        """What of a GPU each process takes: what the user says, else one, or as little as the memory asks for."""
        machines = self._machines()
        each = self._gpus(machines)
        if each != 1 or self.resources.gpus_per_trial is not None or self.resources.stacked > 1:
            return each
        return shared_gpu(machines, lambda: max(map(cost.memory_gb, plan.pairs())))

    def _machines(self) -> list[Machine]:
        """What there is, and what may come."""
        import ray

        machines = there(ray.nodes())
        return machines + (missing(to_come(), machines) if self.joined else [])

    def _gpus(self, machines: Sequence[Machine]) -> float:
        return gpus_of_each(sum(machine.gpus for machine in machines), self.config)

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
            log_rays_messages()
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
            dead = [(name, process.returncode) for name, process in node.dead_processes()]
            if dead and self._ours:
                name, code = dead[0]
                return None if self._ended_within(ECHO if code in TOLD else WATCH_EVERY) else self.lost(name)
            time.sleep(WATCH_EVERY)
        return None

    def _ended_within(self, seconds: float) -> bool:
        """Whether we are to end in that time too: a signal to all of us may reach Ray's processes before us."""
        deadline = time.monotonic() + seconds
        while self._ours and not self.interrupts.asked and time.monotonic() < deadline:
            time.sleep(WATCH_EVERY / 10)
        return self.interrupts.asked or not self._ours

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


def log_rays_messages() -> None:
    """Have a thread of Ray's log what it tells of workers, which it prints on stdout all the same, amid our JSON."""
    from ray._private import worker

    def logged(data: dict[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger("ray").info("%s", " ".join(map(str, data.get("lines", ()))))

    worker.print_to_stdstream = logged


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
