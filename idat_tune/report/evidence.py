"""What a page rests on: all that a search has stored, read from its folder."""

# N images of train and val together, C classes

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune import predictions, space, tasks
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, STOPPED, Journal, TrialRecord
from idat_tune.report import words

if TYPE_CHECKING:
    import numpy as np

LINEAR = "linear"  # the arm whose trials are none of the search's: a head on frozen features


@dataclass(frozen=True)
class OutOfFold:
    """What a config said of every image while it was not trained on it."""

    labels: "np.ndarray"  # (N,) -1 where it said nothing
    probability: "np.ndarray"  # (N, C) means, where it was asked several times

    @property
    def answers(self) -> "np.ndarray":
        """(N,) the class that it found most probable."""
        found: np.ndarray = self.probability.argmax(axis=1)
        return found

    @property
    def known(self) -> "np.ndarray":
        """(N,) whether it said anything."""
        found: np.ndarray = self.labels >= 0
        return found


@dataclass(frozen=True)
class Evidence:
    """A search, whoever drives it, at whatever stage it is."""

    folder: Path
    content: Mapping[str, Any]  # of its manifest
    journal: Journal
    result: Mapping[str, Any]  # as `search --json` prints it, without what hangs on where the folder is

    @classmethod
    def of(
        cls, folder: Path, content: Mapping[str, Any], journal: Journal, result: Mapping[str, Any] | None = None
    ) -> "Evidence":
        """What is known by now: the result of a search that has one, else what the journal says."""
        state = journal.state
        known = result or state.result or (state.end.about.get("result") if state.end else None)
        return cls(folder, content, journal, known or unfinished(content, journal))

    @property
    def name(self) -> str:
        """Of the search."""
        return self.folder.name

    @cached_property
    def task(self) -> tasks.Task | None:
        """None where it is not known here any more."""
        return tasks.seek(str(self.content["task"]))

    @property
    def title(self) -> str:
        """Of the task."""
        return self.task.title if self.task else str(self.content["task"])

    def class_names(self, count: int) -> list[str]:
        """A name for each class; its number where none is known."""
        names = self.task.class_names if self.task else ()
        return list(names) if len(names) == count else [str(label) for label in range(count)]

    @cached_property
    def params(self) -> tuple[space.Param, ...]:
        """What was searched."""
        return space.written_params(self.content["space"])

    @cached_property
    def explored(self) -> list[TrialRecord]:
        """The trials, arms included, oldest first."""
        return [record for record in self.journal.of(EXPLORE) if LINEAR not in record.arms]

    def arm_of(self, record: TrialRecord) -> str:
        """The name that an explored trial has in every result: winner, default, ...; none for most.

        Arms that the space names have no tone of their own in pictures, and count as trials there.
        """
        found = {"winner": self.result["winner"], **self.result["arms"]}
        known = {name: one for name, one in found.items() if one and name in words.NAMES}
        return next((name for name, one in known.items() if one["trial"] == record.id), "")

    @property
    def winner(self) -> Mapping[str, Any] | None:
        """The winner as the result has it."""
        found: Mapping[str, Any] | None = self.result["winner"]
        return found

    def comparison(self, ours: str, theirs: str, split: str) -> Mapping[str, Any] | None:
        """One of the result's comparisons, if it was made."""
        wanted = (ours, theirs, split)
        found = self.result["comparisons"]
        return next((one for one in found if (one["ours"], one["theirs"], one["split"]) == wanted), None)

    @cached_property
    def out_of_fold(self) -> dict[str, OutOfFold]:
        """By contender of the confirm stage."""
        import numpy as np

        sums: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        count = self.task.train + self.task.val if self.task else 0
        for found in predictions.read(self.folder, "confirm"):
            most, classes = max(count, int(found.images.max()) + 1), found.student.shape[1]
            name = str(found.run.contender)
            if name not in sums or len(sums[name][0]) < most:
                grown = (np.full(most, -1), np.zeros((most, classes)), np.zeros(most))
                for old, new in zip(sums.get(name, ()), grown, strict=False):
                    new[: len(old)] = old
                sums[name] = grown
            labels, total, times = sums[name]
            logits = found.student - found.student.max(axis=1, keepdims=True)
            raised = np.exp(logits)
            labels[found.images] = found.labels
            total[found.images] += raised / raised.sum(axis=1, keepdims=True)
            times[found.images] += 1
        return {
            name: OutOfFold(labels, total / np.maximum(times, 1)[:, None])
            for name, (labels, total, times) in sums.items()
        }


def unfinished(content: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """A result that says as much as a journal does before the search has one."""
    explored = [record for record in journal.of(EXPLORE) if LINEAR not in record.arms]
    counts = {status: sum(record.status == status for record in explored) for status in (COMPLETE, STOPPED, FAILED)}
    return {
        "task": content["task"],
        "trials": counts,
        "ended_by": journal.state.ended_by,
        "winner": None,
        "arms": {},
        "contenders": [],
        "comparisons": [],
        "smallest": None,
        "teacher_cost": None,
        "together": None,
        "verdict": "The search has not ended: there is no winner yet, and the test split is "
        + ("opened." if journal.state.openings else "sealed."),
        "test_openings": len(journal.state.openings),
        "seconds": journal.state.seconds,
        "unfinished": True,
    }
