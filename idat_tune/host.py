"""Several trials at once in one process, whose next epochs are computed as one wherever they stack."""

import os
import threading
import traceback
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from idat_tune.data import Images
from idat_tune.errors import Diverged, OutOfMemory
from idat_tune.journal import TEST
from idat_tune.run import advance
from idat_tune.trial import Run, Worker, failed, tested

GRACE = 1.0  # seconds that a round waits for trials whose last result is still with Tune


@dataclass(eq=False)
class Guest:
    """A trial, from the first time that its seat asks until it leaves."""

    job: Mapping[str, Any]
    run: Run | None = None  # once it was its turn
    asks: bool = False  # whether its seat waits for a result
    awaited: bool = True  # whether a round waits for it to ask
    result: dict[str, Any] | None = None

    @property
    def reached(self) -> int:
        """Epochs that are done."""
        return self.run.training.reached if self.run else 0


class Host:
    """The work of a Ray actor; its seats are what Tune takes for trials.

    Trials go round by round, an epoch of each in a round. Those that stack (`Training.stacks_with`) have it as one,
    in companies of 1, 2, 4, ..., the others one after the other. One that finds no room in company goes on in less.
    """

    def __init__(self, images: Mapping[str, Images], trials: int):
        """As `Worker`; computes in a thread of its own."""
        self.guests: dict[str, Guest] = {}
        self.changed = threading.Condition()
        self._room: dict[Hashable, int] = defaultdict(lambda: 2**31)  # most runs that found room, by `stacks_with`
        threading.Thread(target=self._work, args=(images, trials), daemon=True).start()

    @ray.method(max_task_retries=-1)  # where the host has died, once there is another
    def begin(self, job: Mapping[str, Any]) -> None:
        """Take a trial, from its beginning."""
        with self.changed:
            self.guests[job["id"]] = Guest(job)

    def step(self, id: str) -> dict[str, Any]:
        """The next result of a trial; waits for it."""
        with self.changed:
            guest = self.guests[id]
            guest.asks = guest.awaited = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: guest.result is not None)
            result, guest.result = guest.result, None
        assert result is not None
        return result

    def leave(self, id: str) -> None:
        """Forget a trial."""
        with self.changed:
            self.guests.pop(id, None)
            self.changed.notify_all()

    def _work(self, images: Mapping[str, Images], trials: int) -> None:
        try:
            worker = Worker(images, trials, staged=True)  # in this thread, as torch has its settings by thread
            while True:
                for company in self._companies(worker, self._asking()):
                    self._advance(company)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # else the seats would wait for ever; so Ray sees it, and their trials run again

    def _asking(self) -> list[Guest]:
        """Who has the next epoch: all trials, but those that were waited for in vain, until they ask again."""
        with self.changed:
            self.changed.wait_for(lambda: any(guest.asks for guest in self.guests.values()))
            self.changed.wait_for(self._complete, timeout=GRACE)
            for guest in self.guests.values():
                guest.awaited = guest.asks
            return [guest for guest in self.guests.values() if guest.asks]

    def _complete(self) -> bool:
        return all(guest.asks for guest in self.guests.values() if guest.awaited)

    def _companies(self, worker: Worker, guests: Sequence[Guest]) -> list[list[Guest]]:
        """Guests that may have their next epoch as one; who tests or fails is served at once."""
        alike: dict[Hashable, list[Guest]] = defaultdict(list)
        for guest in guests:
            try:
                if guest.job["stage"] == TEST:
                    self._serve(guest, tested(guest.job))
                    continue
                guest.run = guest.run or Run(worker, guest.job)
                alike[guest.run.training.stacks_with or guest.job["id"]].append(guest)
            except Exception as failure:  # whatever it is, it is a result
                self._serve(guest, failed(0, failure))
        return [company for key, group in alike.items() for company in in_powers_of_two(group, self._room[key])]

    def _advance(self, company: list[Guest]) -> None:
        runs = [guest.run for guest in company if guest.run is not None]
        try:
            found = advance([run.training for run in runs])
        except OutOfMemory as failure:
            if len(company) == 1:
                return self._serve(company[0], failed(company[0].reached, failure))
            half = len(company) // 2
            self._room[runs[0].training.stacks_with] = half
            for part in company[:half], company[half:]:
                self._advance(part)
        except Exception as failure:
            for guest in company:
                self._serve(guest, failed(guest.reached, failure))
        else:
            for guest, run, epoch in zip(company, runs, found, strict=True):
                result = failed(guest.reached - 1, epoch) if isinstance(epoch, Diverged) else run.result(epoch)
                self._serve(guest, result)
        return None

    def _serve(self, guest: Guest, result: dict[str, Any]) -> None:
        with self.changed:
            guest.result, guest.asks = result, False
            guest.awaited = not result["done"]
            if result["done"]:
                guest.run = None
            self.changed.notify_all()


def in_powers_of_two(guests: Sequence[Guest], most: int) -> list[list[Guest]]:
    """Companies of 1, 2, 4, ... and no more than `most`: few sizes, as every size is recorded by itself."""
    companies, rest = [], list(guests)
    while rest:
        size = 2 ** (min(len(rest), most).bit_length() - 1)
        companies.append(rest[:size])
        rest = rest[size:]
    return companies
