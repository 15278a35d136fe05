"""What a search says of its task: whether tuning and the teacher paid there, beyond the noise or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idat_tune import tasks
from idat_tune.backbones import NO_TEACHER

# Of an effect: what an interval of its difference says, and why there is none.
BETTER, WORSE, NOISE, UNSURE = "better", "worse", "within the noise", "too few seeds to say"
KEPT, UNTESTED, MISSING = "the default won", "not tested", "no winner"


@dataclass(frozen=True)
class Effect:
    """A difference on test, ours minus theirs, and what it means."""

    kind: str  # of the words above
    found: Mapping[str, Any] | None = None  # the comparison as the result has it
    of: str = ""  # whose it is: winner, winner_with_teacher, default


@dataclass(frozen=True)
class Outcome:
    """A result of `search --json`, of whatever version, with its task."""

    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the search."""
        return str(self.result["name"])

    @property
    def stem(self) -> str:
        """The name that searches of several tasks share: that of `tasks-2-dtd` is `tasks-2`."""
        return self.name.removesuffix(f"-{self.task}")

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.result["task"])

    @property
    def title(self) -> str:
        """As papers print it; the name, where the task is not known here any more."""
        known = tasks.seek(self.task)
        return known.title if known else self.task

    @property
    def group(self) -> str:
        """One of `tasks.GROUPS`."""
        known = tasks.seek(self.task)
        return known.group if known else "own"

    @property
    def winner(self) -> Mapping[str, Any] | None:
        """The winner as the result has it."""
        found: Mapping[str, Any] | None = self.result["winner"]
        return found

    @property
    def default_won(self) -> bool:
        """Whether the default settings are the winner."""
        default = self.result["arms"].get("default")
        return bool(self.winner and default and self.winner["trial"] == default["trial"])

    def contender(self, name: str) -> Mapping[str, Any] | None:
        """The winner, an arm, or the winner without or with a teacher, whoever that is; None if nobody was."""
        arms: Mapping[str, Any] = self.result["arms"]
        if self.winner is None or name not in ("winner", "winner_alone", "winner_with_teacher"):
            return arms.get(name)
        alone = self.winner["config"]["teacher"] == NO_TEACHER
        if name == "winner" or alone == (name == "winner_alone"):
            return self.winner
        return arms.get("alone" if self.default_won else name)  # whose twin has a name already

    def test(self, name: str) -> Mapping[str, Any] | None:
        """Test accuracy of a contender: mean, std, seeds, as fractions."""
        found = self.contender(name)
        return found["test_accuracy"] if found else None

    def comparison(self, ours: str, theirs: str, split: str = "test") -> Mapping[str, Any] | None:
        """One of the result's comparisons, if it was made."""
        wanted = (ours, theirs, split)
        found = self.result["comparisons"]
        return next((one for one in found if (one["ours"], one["theirs"], one["split"]) == wanted), None)

    @property
    def tuning(self) -> Effect:
        """The winner against the default."""
        if self.winner is None:
            return Effect(MISSING)
        if self.default_won:
            return Effect(KEPT)
        return _effect(self.comparison("winner", "default"), "winner")

    @property
    def teacher(self) -> Effect:
        """The winner's teacher, or one that the winner does without, or the default's where that is the winner."""
        if self.winner is None:
            return Effect(MISSING)
        pairs = (("winner", "winner_alone"), ("winner_with_teacher", "winner"), ("default", "alone"))
        found = [(ours, self.comparison(ours, theirs)) for ours, theirs in pairs]
        ours, first = next(((ours, one) for ours, one in found if one), ("", None))
        return _effect(first, ours)


def _effect(found: Mapping[str, Any] | None, of: str) -> Effect:
    if found is None:
        return Effect(UNTESTED)
    if found["interval"] is None:
        return Effect(UNSURE, found, of)
    if not found["reliable"]:
        return Effect(NOISE, found, of)
    return Effect(BETTER if found["mean"] > 0 else WORSE, found, of)


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """By group, and within VTAB-1K in the paper's order; others as they came."""
    places = {name: place for place, name in enumerate(tasks.TASKS)}

    def place(outcome: Outcome) -> tuple[int, int]:
        return tasks.GROUPS.index(outcome.group), 0 if outcome.group == "own" else places[outcome.task]

    return sorted(outcomes, key=place)


def by_group(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The groups that have any, in the order of `in_order`."""
    found: dict[str, list[Outcome]] = {}
    for outcome in in_order(outcomes):
        found.setdefault(outcome.group, []).append(outcome)
    return found


def dealt(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Sets in which a task comes once, by what tells them apart; where there is one only it has no name."""
    if len({outcome.task for outcome in outcomes}) == len(outcomes):
        return {"": list(outcomes)}
    named: dict[str, list[Outcome]] = {}
    loose: list[list[Outcome]] = []
    for outcome in outcomes:
        if outcome.stem != outcome.name:
            named.setdefault(outcome.stem, []).append(outcome)
            continue
        free = next((one for one in loose if all(other.task != outcome.task for other in one)), None)
        if free is None:
            loose.append(free := [])
        free.append(outcome)
    return {**named, **{", ".join(outcome.name for outcome in one): one for one in loose}}
