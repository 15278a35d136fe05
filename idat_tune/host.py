"""A process that trains several trials for their seats; light until it starts, as every seat must know what it is."""

import os
import threading
import traceback
from collections.abc import Mapping, Sequence
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
    """The work of a Ray actor; its seats are what Tune takes for trials. See `Rounds` for what it computes."""

    def __init__(self, images: Sequence[Any]):
        """As `Rounds`, whose work is done in a thread of its own; `images` is the reference to them, by itself."""
        from idat_tune.rounds import Rounds  # with torch and all

        (reference,) = images  # in a list: Ray warns of references among what an actor starts from
        self.rounds = Rounds(ray.get(reference))
        self.guests: dict[str, Guest] = {}
        self.changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def ready(self) -> None:
        """Nothing; answers once all imports are through."""

    def begin(self, key: str, job: Mapping[str, Any]) -> None:
        """Take a trial, from its beginning, under a key that no attempt of any other trial has."""
        with self.changed:
            self.guests[key] = Guest(job)

    def step(self, key: str) -> dict[str, Any]:
        """The next result of a trial; waits for it."""
        with self.changed:
            guest = self.guests[key]
            guest.asks = guest.awaited = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: guest.result is not None)
            result, guest.result = guest.result, None
        assert result is not None
        return result

    def leave(self, key: str) -> None:
        """Forget a trial that does not wait for a result."""
        with self.changed:
            self.guests.pop(key, None)
            self.changed.notify_all()

    def _work(self) -> None:
        from idat_tune.trial import settle

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
            self.changed.wait_for(lambda: any(guest.asks for guest in self.guests.values()))
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
