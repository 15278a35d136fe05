"""Several searches side by side: a process of its own drives each, and all train in one Ray."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partialmethod
from multiprocessing.connection import Connection, wait
from threading import Lock
from typing import Any

import ray

from idat_tune import tracking
from idat_tune.errors import IdatError, Interrupted
from idat_tune.interrupts import interruptible
from idat_tune.search.callback import LOG, Callback, Callbacks
from idat_tune.search.cluster import Session
from idat_tune.search.config import SearchConfig
from idat_tune.search.driver import checked, drive
from idat_tune.search.plan import Plan
from idat_tune.tasks import Task

Winners = dict[Task, Mapping[str, Any]]  # configs, newest first

FAREWELL = 120.0  # seconds that a driver has to end by itself once it was told to
SPAWN = multiprocessing.get_context("spawn")  # Ray's threads do not survive a fork
TELL, RESULT, FAILURE = "tell", "result", "failure"


class Relay(Callback):
    """Tells the process that started this one of every event."""

    def __init__(self, messages: Connection):
        self.messages = messages
        self.one_by_one = Lock()  # of what threads tell

    def on_search_open(self, plan: Plan) -> None:
        """Print into the log of the search from now on."""
        log = os.open(plan.folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(log, stream)
        self.tell("on_search_open", plan)

    def on_ray_lost(self, process: str) -> None:
        """Leave, as Ray would end this process in a while."""
        self.send(FAILURE, IdatError(f"Ray's {process} process died; what was finished is kept"))
        os._exit(1)

    def tell(self, event: str, *about: Any) -> None:
        """Send it."""
        self.send(TELL, event, about)

    def send(self, *message: Any) -> None:
        """Whatever is to be said; where nobody hears it any more, end as by a signal."""
        try:
            with self.one_by_one:
                self.messages.send(message)
        except OSError:
            signal.raise_signal(signal.SIGTERM)


for _event in [name for name in vars(Callback) if name.startswith("on_") and name not in vars(Relay)]:
    setattr(Relay, _event, partialmethod(Relay.tell, _event))


class Driven:
    """A search that a process of its own drives."""

    def __init__(self, plan: Plan, shared: SearchConfig, callbacks: Iterable[Callback], known: Winners, running: Any):
        """Get it ready; `running` is how many there are, as a value that their processes share."""
        self.plan = plan
        self.callback = Callbacks(callbacks)
        self.messages, self._theirs = SPAWN.Pipe(duplex=False)
        about = (plan, shared, known, running, tracking.run_of_caller(plan.out), self._theirs)
        self.process = SPAWN.Process(target=_drive, args=about, name=plan.name)
        self.result: dict[str, Any] | None = None
        self.failure: Exception | None = None

    def start(self) -> None:
        """Start its process."""
        self.process.start()
        self._theirs.close()  # so that its end is heard

    def hear(self) -> bool:
        """Take a message in; whether there may be more."""
        try:
            kind, *about = self.messages.recv()
        except Exception:  # its end, or half of a message
            self.process.join()
            if self.result is None and self.failure is None:
                self.failure = IdatError(
                    f"the process that drove search '{self.plan.name}' died; the same command goes on"
                )
            return False
        if kind == TELL:
            event, arguments = about
            self.callback.tell(event, *arguments)
        elif kind == RESULT:
            (self.result,) = about
        else:
            (self.failure,) = about
        return True


def drive_beside(
    plans: Sequence[Plan], shared: SearchConfig, callbacks: Callable[[Plan], Iterable[Callback]]
) -> Iterator[dict[str, Any]]:
    """Carry out plans, so many at once as `resources.parallel_tasks` says; yields their results as they come.

    Each gets its part of the cores and GPUs, and more as others end. What won on one task is tried early on those that
    begin later. If one fails the others go on, and its failure is raised in the end.

    Raises:
        Interrupted: by Ctrl-C, SIGTERM or SIGHUP; all of them have ended by then.
    """
    left, known = list(plans), Winners()
    failures: list[Exception] = []
    with closing(Session(shared)) as session, interruptible() as session.interrupts:
        checked(plans, session)
        most = min(shared.resources.parallel_tasks, session.capacity(session.start(plans[0])))
        there = shared.updated({"resources.address": ray.get_runtime_context().gcs_address})
        running, count = dict[Connection, Driven](), SPAWN.Value("i", 0)
        try:
            while left or running:
                while left and len(running) < most:
                    plan = left.pop(0)
                    count.value += 1
                    driven = Driven(plan, there, callbacks(plan), known, count)
                    running[driven.messages] = driven  # before it starts, so that nothing is left of it
                    driven.start()
                    while session.remarks:  # of what all of them share
                        driven.callback.on_remark(session.remarks.pop(0))
                for messages in wait(list(running)):
                    driven = running[messages]  # type: ignore[index]
                    if driven.hear():
                        continue
                    del running[driven.messages]
                    count.value -= 1
                    if driven.failure:
                        failures.append(driven.failure)
                        driven.callback.on_remark(f"{driven.failure}; the others go on")
                    elif driven.result:
                        if driven.result["winner"]:
                            known = {driven.plan.task: driven.result["winner"]["config"], **known}
                        yield driven.result
        except KeyboardInterrupt:
            names = ", ".join(f"'{driven.plan.name}'" for driven in running.values())
            raise Interrupted(f"searches {names} were interrupted; what was finished is kept") from None
        finally:
            _end(running)
    if failures:
        raise failures[0]


def _end(running: Mapping[Connection, Driven]) -> None:
    """Tell those that run to end, and wait for that; the terminal may have told them already."""
    begun = [driven for driven in running.values() if driven.process.pid is not None]
    for driven in begun:
        driven.process.terminate()
    for driven in begun:
        while driven.messages.poll(FAREWELL) and driven.hear():
            pass
        driven.process.kill()
        driven.process.join()


def _drive(
    plan: Plan, shared: SearchConfig, known: Winners, running: Any, run_of_caller: str | None, messages: Connection
) -> None:
    """What each process does."""
    if run_of_caller:
        os.environ[tracking.RUN_ID] = run_of_caller
    relay = Relay(messages)
    with interruptible() as interrupts, suppress(KeyboardInterrupt):
        try:
            (found,) = drive([plan], shared, lambda plan: [relay], known, lambda: running.value)
            relay.send(RESULT, found)
        except IdatError as failure:
            relay.send(FAILURE, failure)
        except Exception as failure:
            why = f"search '{plan.name}' failed ({type(failure).__name__}: {failure})"
            relay.send(FAILURE, IdatError(f"{why}; {plan.folder / LOG} may say more"))
            raise
    if interrupts.asked:
        os._exit(130)  # what Ray does at the end of a process may wait for its own, which are gone
