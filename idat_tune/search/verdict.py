"""What a search found out, as paired differences and in words: whether tuning paid, and whether the teacher helped."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from idat_tune import cost
from idat_tune.journal import CONFIRM, EXPLORE, FINAL, Journal, TrialRecord
from idat_tune.search.confirm import Confirmation, arm_record, config_of, contender
from idat_tune.search.plan import ALONE, DEFAULT, NO_DISTILL, WINNER, Plan
from idat_tune.search.race import Difference, paired

WINNER_ALONE = "winner_alone"  # the winner's config without its teacher


@dataclass(frozen=True)
class Comparison:
    """Two configs on the same splits or with the same seeds."""

    ours: str  # winner, default, ...
    theirs: str
    split: str  # confirm: val images of several splits; test: the test split, over seeds
    difference: Difference

    def as_dict(self) -> dict[str, Any]:
        """For JSON; differences are fractions, and what is not known is None."""
        found = self.difference
        low, high = found.interval
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "split": self.split,
            "mean": found.mean,
            "standard_error": _finite(found.standard_error),
            "interval": None if math.isinf(low) else [low, high],
            "pairs": found.pairs,
            "reliable": found.reliable,
        }

    def __str__(self) -> str:
        found = self.difference
        unit = "split" if self.split == CONFIRM else "seed"
        pairs = f"{found.pairs} {unit}{'s' * (found.pairs != 1)}"
        if math.isinf(found.half_width):
            return f"{100 * found.mean:+.2f} points ({pairs}: too few {unit}s for an interval)"
        low, high = (100 * bound for bound in found.interval)
        reliable = "" if found.reliable else "; within the noise"
        return f"{100 * found.mean:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, {pairs}{reliable})"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Findings:
    """The winner and the arms of a search, and how they compare."""

    def __init__(self, plan: Plan, journal: Journal, winner: TrialRecord | None, timed: bool = True):
        """`timed`: whether each trial had its process to itself, so that its times are its own."""
        self.plan = plan
        self.timed = timed
        self.journal = journal
        self.winner = winner
        self.confirmation = Confirmation(plan, journal)
        self.named = self._named()

    def _named(self) -> dict[str, TrialRecord]:
        found = {arm: arm_record(self.journal, arm) for arm in (DEFAULT, ALONE, NO_DISTILL)}
        found = {WINNER: self.winner, **found, WINNER_ALONE: self._twin()}
        return {name: record for name, record in found.items() if record is not None}

    def _twin(self) -> TrialRecord | None:
        """The winner's twin without a teacher; that of the default has a name already."""
        there = self.winner is not None and self.winner.id in self.confirmation.configs
        name = self.confirmation.alone_of(self.winner.id) if self.winner and there else None
        twin = contender(self.journal, name, self.plan.seed) if name else None
        return None if self.winner is None or DEFAULT in self.winner.arms else twin

    def confirmed(self, record: TrialRecord) -> dict[str, Any] | None:
        """Mean accuracy over the splits of the confirm stage, with its standard error; None if it had no part."""
        race, name = self.confirmation.race, self.confirmation.runs_of(record.id)
        if name not in race.results:
            return None
        mean, error = race.spread(name)
        return {"mean": mean, "standard_error": _finite(error), "folds": len(race.results[name])}

    def tests(self, record: TrialRecord) -> dict[int, float]:
        """Test accuracies of a config's final runs, by seed; a run that failed is not among them."""
        tested = self.journal.tested()
        return {r.config["seed"]: tested[r.id][0] for r in self.finals(record) if r.id in tested}

    def finals(self, record: TrialRecord) -> list[TrialRecord]:
        """The final runs of a config: those that differ from it in nothing but the seed."""
        wanted = {**record.config, "seed": None}
        same = [final for final in self.journal.of(FINAL) if {**final.config, "seed": None} == wanted]
        return sorted(same, key=lambda final: final.config["seed"])

    def exported(self) -> TrialRecord | None:
        """The final run whose student is handed over: of those of the winner that were tested, the first seed's."""
        tested = self.journal.tested()
        finals = self.finals(self.winner) if self.winner else []
        return next((record for record in finals if record.id in tested), None)

    def comparisons(self) -> list[Comparison]:
        """Every comparison that answers a question, as far as it was measured."""
        pairs = [(WINNER, DEFAULT), (WINNER, WINNER_ALONE), (DEFAULT, ALONE), (DEFAULT, NO_DISTILL)]
        found = [self.compare(ours, theirs, split) for ours, theirs in pairs for split in (CONFIRM, FINAL)]
        return [comparison for comparison in found if comparison is not None]

    def compare(self, ours: str, theirs: str, split: str) -> Comparison | None:
        """Two of `named`; None if they are the same or were not both measured."""
        us, them = self.named.get(ours), self.named.get(theirs)
        if us is None or them is None or us.id == them.id:
            return None
        if split == CONFIRM:
            difference = self.confirmation.race.difference(us.id, self.confirmation.runs_of(them.id))
        else:
            # Accuracies move in steps of an image, so seeds that agree by chance leave an error of one.
            difference = paired(self.tests(us), self.tests(them), least=self.plan.task.test**-2)
        named = "confirm" if split == CONFIRM else "test"
        return Comparison(ours, theirs, named, difference) if difference else None

    def teacher_cost(self) -> dict[str, Any] | None:
        """How many times the time per epoch and the memory of the adapter alone joint training takes.

        Of the winner, or of the default where the winner has no teacher. Memory is the measured peak on a GPU, and
        predicted elsewhere.
        """
        with_teacher, alone = (self.named.get(name) for name in self._asked())
        if not self.timed or with_teacher is None or alone is None or config_of(with_teacher).alone:
            return None
        joint, single = self._epoch_seconds(with_teacher), self._epoch_seconds(alone)
        memory = [self._memory(record) for record in (with_teacher, alone)]
        return {
            "time": joint / single if joint and single else None,
            "memory": memory[0][0] / memory[1][0],
            "memory_measured": memory[0][1] and memory[1][1],
        }

    def _asked(self) -> tuple[str, str]:
        """Whose teacher is asked about, and what it is compared with."""
        return (WINNER, WINNER_ALONE) if WINNER_ALONE in self.named else (DEFAULT, ALONE)

    def _runs(self, record: TrialRecord) -> list[TrialRecord]:
        return [r for r in self.journal.records if r.stage in (EXPLORE, CONFIRM) and record.id in (r.id, r.contender)]

    def _epoch_seconds(self, record: TrialRecord) -> float | None:
        seconds = [epoch.seconds for run in self._runs(record) for epoch in run.epochs]
        return statistics.median(seconds) if seconds else None

    def _memory(self, record: TrialRecord) -> tuple[float, bool]:
        """GB, and whether they were measured."""
        peaks = [epoch.gpu_memory_gb for run in self._runs(record) for epoch in run.epochs if epoch.gpu_memory_gb]
        return (max(peaks), True) if peaks else (cost.describe(config_of(record))["memory_gb"], False)

    def verdict(self) -> str:
        """One paragraph on whether tuning and the teacher paid."""
        if self.winner is None:
            reason = next((record.reason for record in self.journal.records if record.reason), "none was finished")
            what = (
                "config got through the confirm stage" if arm_record(self.journal, DEFAULT) else "trial was completed"
            )
            way_out = "; a lower optim.lr is the usual remedy" if reason.startswith("Diverged") else ""
            return f"no {what}; the first reason: {reason}{way_out}"
        if DEFAULT not in self.named:
            return "The default was not explored to its end, so there is nothing to compare the winner with."
        return " ".join(filter(None, [self._tuning(), self._teacher()]))

    def _tuning(self) -> str:
        folds = self.plan.config.confirm.folds
        unconfirmed = "" if folds else "Unconfirmed, chosen on one val split alone. "
        if self.named[WINNER].id == self.named[DEFAULT].id:
            by = f"by more than one standard error over {folds} splits" if folds else "on validation"
            return f"{unconfirmed}No reliable gain: nothing beat the default {by}, so the default is the winner."
        return f"{unconfirmed}The winner against the default: {self._both(WINNER, DEFAULT)}."

    def _both(self, ours: str, theirs: str) -> str:
        on = {"confirm": "on the splits", "test": "on test"}
        found = [self.compare(ours, theirs, split) for split in (CONFIRM, FINAL)]
        return "; ".join(f"{on[one.split]} {one}" for one in found if one) or "not measured"

    def _teacher(self) -> str:
        ours, theirs = self._asked()
        if self.named[ours].config["teacher"] == self.named.get(theirs, self.named[ours]).config["teacher"]:
            return ""  # no teacher anywhere
        subject = "The winner's teacher" if ours == WINNER else "The default's teacher"
        sentence = f"{subject} against the same config alone: {self._both(ours, theirs)}"
        if ours == DEFAULT and NO_DISTILL in self.named:
            sentence += f"; against training beside it without distillation: {self._both(ours, NO_DISTILL)}"
        return f"{sentence}.{self._price()}"

    def _price(self) -> str:
        price = self.teacher_cost()
        if price is None or price["time"] is None:
            return ""
        predicted = "" if price["memory_measured"] else " (predicted)"
        return f" It takes {price['time']:.1f} times the time and {price['memory']:.1f} times the memory{predicted}."
