"""The actor that trains trials for their seats; light until it is prepared, as the driver must know what it is."""

import os
import platform
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

GRACE = 1.0  # seconds that a round waits for trials whose last result is still with Tune


@dataclass(eq=False)
class Guest:
    """A trial, until it leaves."""

    job: Mapping[str, Any]
    asks: bool = False  # whether its seat waits for a result
    awaited: bool = True  # whether a round waits for it to ask
    result: dict[str, Any] | None = None


class Host:
    """One process of the pool, for one trial or for several at once; see `Rounds` for what it computes."""

    def __init__(self, stacks: bool):
        """`stacks`: whether it takes several trials, of which those of one shape train as one."""
        self.stacks = stacks
        self.guests: dict[str, Guest] = {}
        self.parted: set[str] = set()  # keys that left before they came, as their seats died
        self.refusal: BaseException | None = None  # why it cannot train
        self.changed = threading.Condition()
        self.prepared = threading.Event()

    def where(self) -> dict[str, Any]:
        """The machine that it is on, which Ray knows by an id."""
        return {"node": ray.get_runtime_context().get_node_id(), "name": platform.node(), "pid": os.getpid()}

    def prepare(self, images: Any, wanted: Any = None) -> None:
        """Import all that training takes, fetch what of `wanted` is lacking, and take the splits.

        Raises whatever is wrong with this machine.
        """
        try:
            from idat_tune.worker.supply import supply

            supply(wanted)
            from idat_tune.worker.rounds import Rounds  # with torch and all

            self.rounds = Rounds(images, self.stacks)
        except BaseException as failure:
            self.refusal = failure  # for those who wait already
            raise
        finally:
            self.prepared.set()
        threading.Thread(target=self._work, daemon=True).start()

    def begin(self, key: str, job: Mapping[str, Any]) -> None:
        """Take a trial, from its beginning, under a key that no other attempt of any trial has."""
        self.prepared.wait()
        if self.refusal:
            raise self.refusal
        with self.changed:
            if key not in self.parted:
                self.guests[key] = Guest(job)

    def step(self, key: str) -> dict[str, Any]:
        """The next result of a trial; waits for it.

        Raises:
            KeyError: the trial has left, or leaves meanwhile.
        """
        with self.changed:
            guest = self.guests[key]
            guest.asks = guest.awaited = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: guest.result is not None or key not in self.guests)
            result, guest.result = guest.result, None
        if result is None:
            raise KeyError(key)
        return result

    def leave(self, key: str) -> None:
        """Forget a trial; one that has not come yet is not taken any more."""
        with self.changed:
            if self.guests.pop(key, None) is None:
                self.parted.add(key)
            self.changed.notify_all()

    def _work(self) -> None:
        """Training is all in this one thread."""
        from idat_tune.worker.trial import settle

        try:
            settle()  # here too, as torch counts threads by thread
            while True:
                asking = self._asking()
                self._serve(self.rounds.next({key: guest.job for key, guest in asking.items()}), asking)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # else the seats would wait for ever; so Ray sees it, and their trials run again

    def _asking(self) -> dict[str, Guest]:
        """Who is in the next round: all, but those that were waited for in vain, until they ask again."""
        with self.changed:
            while not any(guest.asks for guest in self.guests.values()):
                self.rounds.keep(self.guests)  # so that one that has left leaves its memory, too
                self.changed.wait()
            self.changed.wait_for(self._complete, timeout=GRACE)
            for guest in self.guests.values():
                guest.awaited = guest.asks
            self.rounds.keep(self.guests)
            return {key: guest for key, guest in self.guests.items() if guest.asks}

    def _complete(self) -> bool:
        return all(guest.asks for guest in self.guests.values() if guest.awaited)

    def _serve(self, results: Mapping[str, dict[str, Any]], asking: Mapping[str, Guest]) -> None:
        with self.changed:
            for key, result in results.items():
                guest = asking[key]
                guest.result, guest.asks, guest.awaited = result, False, not result["done"]
            self.changed.notify_all()
