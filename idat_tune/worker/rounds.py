"""Rounds of the trials of one process: an epoch of each, computed as one wherever they stack."""

import time
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from idat_tune.data import Images
from idat_tune.errors import Diverged, OutOfMemory
from idat_tune.journal import TEST
from idat_tune.metrics import EpochMetrics
from idat_tune.run import advance
from idat_tune.worker.opening import tested
from idat_tune.worker.trial import Trial, Worker, failed, twice

Job = Mapping[str, Any]


class Rounds:
    """Trials by key. Those that stack (`Training.stacks_with`) have an epoch as one, in companies of 1, 2, 4, ...

    The others have it one after the other. Those that fail in company go on in less of it, so that only who fails
    alone has failed.
    """

    def __init__(self, images: Mapping[str, Images], stacks: bool):
        """As `Worker`; `stacks`: whether there are several at once."""
        self.worker = Worker(images, recorded=True if stacks else None)
        self.stacks = stacks
        self._trials: dict[str, Trial] = {}
        self._room: dict[Hashable, int] = {}  # the most runs that found room, by `stacks_with`

    def keep(self, keys: Collection[str]) -> None:
        """Forget all trials but these."""
        self._trials = {key: run for key, run in self._trials.items() if key in keys}

    def next(self, jobs: Mapping[str, Job]) -> dict[str, dict[str, Any]]:
        """A result of each; to trials that stack, an epoch took as long as the round."""
        began = time.perf_counter()
        found: dict[str, Any] = {key: self._first(key, job) for key, job in jobs.items()}
        alike: dict[Hashable, list[str]] = defaultdict(list)
        for key in [key for key, result in found.items() if result is None]:
            alike[self._trials[key].training.stacks_with or key].append(key)
        for kind, keys in alike.items():
            for company in in_powers_of_two(keys, self._room.get(kind, len(keys))):
                found |= self._advance(company)
        seconds = time.perf_counter() - began
        return {key: self._result(key, one, seconds) for key, one in found.items()}

    def _first(self, key: str, job: Job) -> dict[str, Any] | None:
        """What a trial has to say before it trains: a test, a failure, or nothing."""
        try:
            if job["stage"] == TEST:
                return twice(lambda: tested(self.worker, job))
            if key not in self._trials:
                self._trials[key] = twice(lambda: Trial(self.worker, job))
        except Exception as failure:  # whatever it is, the seat hears of it
            return failed(0, failure)
        return None

    def _advance(self, company: Sequence[str]) -> dict[str, Any]:
        """The next epoch of each, or the result that it failed."""
        if len(company) == 1:
            return {company[0]: self._advance_alone(self._trials[company[0]])}
        trainings = [self._trials[key].training for key in company]
        try:
            found = advance(trainings)
        except Exception as failure:
            half = len(company) // 2
            if isinstance(failure, OutOfMemory):
                self._room[trainings[0].stacks_with] = half
        else:
            for key, one in zip(company, found, strict=True):
                self._trials[key].reached += isinstance(one, EpochMetrics)
            return dict(zip(company, found, strict=True))
        return self._advance(company[:half]) | self._advance(company[half:])

    def _advance_alone(self, run: Trial) -> Any:
        try:
            return run.advanced()
        except Exception as failure:
            return failed(run.reached, failure)

    def _result(self, key: str, found: Any, seconds: float) -> dict[str, Any]:
        if isinstance(found, dict):
            return found
        run = self._trials[key]
        if isinstance(found, Diverged):
            return failed(run.reached, found)
        assert isinstance(found, EpochMetrics)
        try:
            if not self.stacks:
                return run.result(found)
            speed = found.images_per_second * found.seconds / seconds
            # What the process takes of the GPU's memory is that of all its trials.
            return run.result(replace(found, seconds=seconds, images_per_second=speed, gpu_memory_gb=None))
        except Exception as failure:
            return failed(found.epoch, failure)


def in_powers_of_two(keys: Sequence[str], most: int) -> list[list[str]]:
    """Companies of 1, 2, 4, ... and no more than `most`: few sizes, as every size is recorded by itself."""
    companies, rest = [], list(keys)
    while rest:
        size = 2 ** (min(len(rest), most).bit_length() - 1)
        companies.append(rest[:size])
        rest = rest[size:]
    return companies
