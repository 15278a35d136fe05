"""What a search found out, as paired differences and in words: whether tuning paid, and whether the teacher helped."""

import statistics
from functools import cached_property
from typing import Any

from idat_tune import cost
from idat_tune.differences import Design, Noise, Outcome, Runs, difference, noise_of
from idat_tune.journal import CONFIRM, EXPLORE, FINAL, Journal, TrialRecord
from idat_tune.journal.hits import BESIDE_TEACHER, TWO_SEEDS, unpacked
from idat_tune.report import words
from idat_tune.search.comparison import Comparison, mean_and_spread
from idat_tune.search.confirm import Confirmation, arm_record, config_of, contender, explored_as
from idat_tune.search.plan import ALONE, DEFAULT, LINEAR, NO_DISTILL, WINNER, Plan

WINNER_ALONE = "winner_alone"  # the winner's config without its teacher
WINNER_TAUGHT = "winner_with_teacher"  # the same of a winner that is somebody's twin


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
        found = {arm: arm_record(self.journal, arm) for arm in (DEFAULT, ALONE, NO_DISTILL, LINEAR)}
        found |= {arm: explored_as(self.journal, arm) for arm in self.plan.named_arms}
        found = {WINNER: self.winner, **found, **self._counterpart()}
        return {name: record for name, record in found.items() if record is not None}

    def _counterpart(self) -> dict[str, TrialRecord | None]:
        """The winner without its teacher, or with it; that of the default has a name already."""
        pair = self.confirmation.counterpart(self.winner.id) if self.winner else None
        if self.winner is None or pair is None or DEFAULT in self.winner.arms:
            return {}
        name = WINNER_TAUGHT if config_of(self.winner).alone else WINNER_ALONE
        return {name: contender(self.journal, pair[0], self.plan.seed)}

    def confirmed(self, record: TrialRecord) -> dict[str, Any] | None:
        """Mean accuracy over the splits of the confirm stage, with its standard error; None if it had no part."""
        race, name = self.confirmation.race, self.confirmation.runs_of(record.id)
        if name not in race.results:
            return None
        mean, error = race.spread(name)
        return {"mean": mean, "standard_error": error, "folds": len(race.results[name])}

    def tests(self, record: TrialRecord) -> dict[int, float]:
        """Test accuracies of a config's final runs, by seed; a run that failed is not among them."""
        tested = self.journal.tested()
        return {r.config["seed"]: tested[r.id][0] for r in self.finals(record) if r.id in tested}

    def finals(self, record: TrialRecord) -> list[TrialRecord]:
        """The final runs of a config: those that differ from it in nothing but the seed."""
        return self.journal.finals(record.config)

    def exported(self) -> TrialRecord | None:
        """The final run whose student is handed over: of those of the winner that were tested, the first seed's."""
        tested = self.journal.tested()
        finals = self.finals(self.winner) if self.winner else []
        return next((record for record in finals if record.id in tested), None)

    def comparisons(self) -> list[Comparison]:
        """Every comparison that answers a question, as far as it was measured."""
        pairs = [
            *((WINNER, DEFAULT), (WINNER, WINNER_ALONE), (WINNER_TAUGHT, WINNER), (WINNER, LINEAR)),
            *((DEFAULT, ALONE), (DEFAULT, NO_DISTILL)),
            *((arm, DEFAULT) for arm in self.plan.named_arms),
        ]
        found = [self.compare(ours, theirs, split) for ours, theirs in pairs for split in (CONFIRM, FINAL)]
        return [comparison for comparison in found if comparison is not None]

    def compare(self, ours: str, theirs: str, split: str) -> Comparison | None:
        """Two of `named`; None if they are the same or were not both measured."""
        us, them = self.named.get(ours), self.named.get(theirs)
        if us is None or them is None or us.id == them.id:
            return None
        return self._compare(us, them, split, (ours, theirs))

    def _compare(self, us: TrialRecord, them: TrialRecord, split: str, names: tuple[str, str]) -> Comparison | None:
        if split == CONFIRM:
            found = self.confirmation.race.difference(us.id, self.confirmation.runs_of(them.id))
        else:
            outcomes = [self._outcomes(record) for record in (us, them)]
            # Accuracies move in steps of an image, so seeds that agree by chance leave an error of one.
            found = difference(outcomes[0], outcomes[1], self._design, self._noise, least=self.plan.task.test**-2)
        named = "confirm" if split == CONFIRM else "test"
        return Comparison(*names, named, found) if found else None

    def contenders(self) -> list[dict[str, Any]]:
        """Everybody who took part in the confirm stage or the test, held against the default, best mean first."""
        default = self.named.get(DEFAULT)
        ids = [one.id for one in self.confirmation.race.contenders] + [one.id for one in self.named.values()]
        own = dict.fromkeys(self.confirmation.runs_of(one) for one in ids)  # whose runs are not another's
        records = [contender(self.journal, one, self.plan.seed) for one in own]
        rows = []
        for record in [record for record in records if record is not None]:
            against = {}
            for split, named in ((CONFIRM, "confirm"), (FINAL, "test")):
                pair = (record.id, DEFAULT)
                found = self._compare(record, default, split, pair) if default and default.id != record.id else None
                against[named] = found.as_dict() if found else None
            names = [name for name, one in self.named.items() if self.confirmation.runs_of(one.id) == record.id]
            rows.append({**self.summary(record), "names": names, "minus_default": against})
        measured = [row for row in rows if row["confirmed"] or row["test_accuracy"]]
        return sorted(measured, key=_standing, reverse=True)

    def summary(self, record: TrialRecord) -> dict[str, Any]:
        """A config with what validation, the confirm stage and, where it went through the final run, the test say.

        The validation accuracy of a winner's twin, which was not explored, is that of its first split.
        """
        tested = self.tests(record)
        return {
            "trial": record.id,
            "config": dict(record.config),
            "status": record.status,
            "reason": record.reason,
            "val_accuracy": record.val_accuracy,
            "confirmed": self.confirmed(record),
            "test_accuracy": mean_and_spread(list(tested.values())) if tested else None,
            "trainable_params": record.trainable_params,
            "training_seconds": self._training_seconds(record),
        }

    @property
    def _design(self) -> Design:
        """All students pass over the same test images."""
        return Design(self.plan.task.test, crossed=True)

    @cached_property
    def _noise(self) -> Noise:
        """What all tested configs show of the noise between seeds."""
        return noise_of([self._outcomes(record) for record in self._distinct()], self._design)

    def _distinct(self) -> list[TrialRecord]:
        return list({tuple(sorted(map(str, record.config.items()))): record for record in self.named.values()}.values())

    def _outcomes(self, record: TrialRecord, how: str = "") -> dict[int, Outcome]:
        """Its final runs on the test, by seed; or with `how` what two models were at once."""
        hits = self.journal.state.test_hits
        names = {final.config["seed"]: final.id + how for final in self.finals(record)}
        tested = {seed: name for seed, name in names.items() if name in self.journal.tested()}
        return {
            seed: Outcome(*self.journal.tested()[name], unpacked(hits[name]) if name in hits else None)
            for seed, name in tested.items()
        }

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

    def together(self) -> dict[str, Any] | None:
        """What student and teacher are at once, as the mean of their softmaxes, against the student alone.

        Two models know more than one, whatever the second is: the control is two students of other seeds. None where
        no pair was tested. `forward` is how many times the computation of the student the pair takes.
        """
        name = self._asked()[0]
        record = self.named.get(name)
        pair = self._outcomes(record, BESIDE_TEACHER) if record else {}
        if record is None or not pair:
            return None
        config, single, control = config_of(record), self._outcomes(record), self._outcomes(record, TWO_SEEDS)
        flops = [cost.describe(one)["gflop_per_image"]["forward"] for one in (config, config.without_teacher())]
        return {
            "of": name,
            "test_accuracy": mean_and_spread([one.accuracy for one in pair.values()]),
            "difference": self._against(pair, single, "student and teacher"),
            "two_students": self._against(control, single, "two students"),
            "forward": flops[0] / flops[1],
        }

    def _against(self, ours: Runs, theirs: Runs, named: str) -> dict[str, Any] | None:
        found = difference(ours, theirs, self._design, self._noise, least=self.plan.task.test**-2)
        return Comparison(named, "student", "test", found).as_dict() if found else None

    def _asked(self) -> tuple[str, str]:
        """Whose teacher is asked about, and what it is compared with."""
        if WINNER_TAUGHT in self.named:
            return WINNER_TAUGHT, WINNER
        return (WINNER, WINNER_ALONE) if WINNER_ALONE in self.named else (DEFAULT, ALONE)

    def _runs(self, record: TrialRecord) -> list[TrialRecord]:
        return [r for r in self.journal.records if r.stage in (EXPLORE, CONFIRM) and record.id in (r.id, r.contender)]

    def _epoch_seconds(self, record: TrialRecord) -> float | None:
        seconds = [epoch.seconds for run in self._runs(record) for epoch in run.epochs]
        return statistics.median(seconds) if seconds else None

    def _training_seconds(self, record: TrialRecord) -> float | None:
        """Mean wall time that a final run of a config trains for; None where trials shared their process."""
        each = [sum(epoch.seconds for epoch in run.epochs) for run in self.finals(record) if run.epochs]
        return statistics.fmean(each) if each and self.timed else None

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
            by = f"beyond the noise of {folds} splits" if folds else "on validation"
            nearest = self._nearest()
            return (
                f"{unconfirmed}No reliable gain: nothing beat the default {by}, so the default is the winner{nearest}."
            )
        if folds and not self.confirmation.through(self.named[DEFAULT].id):
            unconfirmed = "The default did not get through all splits, so the winner was chosen without it. "
        return f"{unconfirmed}The winner against the default: {self._both(WINNER, DEFAULT)}.{self._smallest()}"

    def _nearest(self) -> str:
        """Who came nearest to beating the default."""
        race = self.confirmation.race
        others = [one.id for one in race.contenders if one.id != race.default and self.confirmation.through(one.id)]
        best = max(others, key=race.mean, default=None)
        gain = race.difference(best, race.default) if best else None
        if best is None or gain is None:
            return ""
        shown = Comparison(best, DEFAULT, "confirm", gain).shown(chosen=True)
        return f"; the nearest was {best}, on the splits {shown}"

    def smallest(self) -> dict[str, Any] | None:
        """The config that trains least of those that are as good as the winner within the noise; None if none is."""
        choice, race = self.confirmation.choice(), self.confirmation.race
        if choice is None or self.winner is None or choice.smallest in (choice.winner, self.winner.id):
            return None
        record = contender(self.journal, choice.smallest, self.plan.seed)
        price = race.difference(choice.smallest, self.winner.id)
        if record is None or price is None:
            return None
        return {
            "trial": record.id,
            "config": dict(record.config),
            "trainable_params": record.trainable_params,
            "difference": Comparison(record.id, WINNER, "confirm", price).as_dict(),
            "test_accuracy": mean_and_spread(list(tested.values())) if (tested := self.tests(record)) else None,
        }

    def _smallest(self) -> str:
        found = self.smallest()
        if found is None or self.winner is None:
            return ""
        few, many = found["trainable_params"], self.winner.trainable_params
        points = words.points(found["difference"]["mean"])
        fewer = f"with {few:,} parameters instead of {many:,}, at {points} points on the splits"
        return f" As good within the noise is {found['trial']}, {fewer}."

    def _both(self, ours: str, theirs: str) -> str:
        """The test first; figures of splits that the winner was chosen on are too good for it."""
        confirm, test = (self.compare(ours, theirs, split) for split in (CONFIRM, FINAL))
        chosen = WINNER in (ours, theirs) and self.named[WINNER].id != self.named.get(DEFAULT, self.named[WINNER]).id
        optimistic = " (chosen on these, so optimistic)" if chosen else ""
        said = [f"on test {test}"] if test else []
        said += [f"on the splits{optimistic} {confirm.shown(chosen)}"] if confirm else []
        return "; ".join(said) or "not measured"

    def _teacher(self) -> str:
        ours, theirs = self._asked()
        if self.named[ours].config["teacher"] == self.named.get(theirs, self.named[ours]).config["teacher"]:
            return ""  # no teacher anywhere
        subject = "The default's teacher" if ours == DEFAULT else "The winner's teacher"
        if ours == WINNER_TAUGHT:
            subject = "The winner does without a teacher; with it"
        sentence = f"{subject} against the same config alone: {self._both(ours, theirs)}"
        if ours == DEFAULT and NO_DISTILL in self.named:
            sentence += f"; against training beside it without distillation: {self._both(ours, NO_DISTILL)}"
        return f"{sentence}.{self._price()}{self._at_once()}"

    def _at_once(self) -> str:
        """What both models at inference bring, in words."""
        found = self.together()
        if found is None or found["difference"] is None:
            return ""
        gain, control = found["difference"]["mean"], found["two_students"]
        other = f", as two students of other seeds {words.points(control['mean'])}" if control else ""
        reached = f"{words.accuracy(found['test_accuracy']['mean'])} on test, {words.points(gain)} points"
        return f" Student and teacher at once reach {reached} for {found['forward']:.1f} times the computation{other}."

    def _price(self) -> str:
        price = self.teacher_cost()
        if price is None or price["time"] is None:
            return ""
        predicted = "" if price["memory_measured"] else " (predicted)"
        return f" It takes {price['time']:.1f} times the time and {price['memory']:.1f} times the memory{predicted}."


def _standing(row: dict[str, Any]) -> tuple[float, float]:
    """By the splits, which all have, then by the test."""
    return tuple(row[key]["mean"] if row[key] else 0.0 for key in ("confirmed", "test_accuracy"))  # type: ignore[return-value]
