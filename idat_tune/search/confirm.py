"""The confirm stage: the arms and the best explored configs, each on the same stratified splits."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from idat_tune.config import RunConfig
from idat_tune.differences import Outcome
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, FINAL, Journal, TrialRecord
from idat_tune.journal.hits import unpacked
from idat_tune.metrics import WORST
from idat_tune.search.plan import ALONE, DEFAULT, LINEAR, NO_DISTILL, Job, Plan
from idat_tune.search.race import Choice, Contender, Race

TWIN = "-alone"  # ends the name of a contender's twin
ORDER = (DEFAULT, ALONE, NO_DISTILL, LINEAR)  # of arms, in whatever order they ended


class Confirmation:
    """Who takes part, which run is next, and who wins; rebuilt from the journal at any time.

    A contender goes by the id of the trial that explored it. The one that wins is joined, late, by its twin without a
    teacher, which stays to the end, so that what the teacher did for it is known, and so that the twin wins where it
    does better.
    """

    def __init__(self, plan: Plan, journal: Journal):
        self.plan = plan
        self.journal = journal
        self.configs: dict[str, RunConfig] = {}
        self.same_student: dict[str, str] = {}  # arm to the contender whose runs are its own
        default = arm_record(journal, DEFAULT)
        images = plan.task.train + plan.task.val
        self.race = Race([], plan.config.confirm.folds, images, default.id if default else "", plan.task.val)
        for record in arms(journal):
            self._enter(record.id, config_of(record), record.trainable_params)
        most = len(self.race.contenders) + plan.config.confirm.top_k
        for record in best_explored(journal):
            if len(self.race.contenders) < most:  # a config that is in already takes no place
                self._enter(record.id, config_of(record), record.trainable_params)
        for record in journal.of(CONFIRM):
            self._enter_late(str(record.contender))
            self.hear(record)

    def _enter(self, name: str, config: RunConfig, trainable_params: int | None) -> None:
        config = config.updated({"seed": self.plan.seed})
        twin = self._untaught_twin(config)
        if twin and name != self.race.default:
            self.same_student[name] = twin
            return
        if name not in self.configs and config not in self.configs.values():
            self.configs[name] = config
            self.race.contenders.append(Contender(name, trainable_params or 0))

    def _untaught_twin(self, config: RunConfig) -> str | None:
        """The contender that trains the very same student without the teacher beside it, if lambda is 0.

        Nothing of the teacher then reaches the student, unless both draw drop-path masks from one stream.
        """
        if config.alone or config.distill.weight or config.model.drop_path:
            return None
        return self._same_alone(config)

    def _same_alone(self, config: RunConfig) -> str | None:
        """The contender that is this config without its teacher, whatever its settings of distillation are."""
        wanted = _but_distill(config.without_teacher())
        return next((name for name, other in self.configs.items() if _but_distill(other) == wanted), None)

    def runs_of(self, name: str) -> str:
        """The contender whose runs count for this one: itself, or the one with the same student."""
        return self.same_student.get(name, name)

    def hear(self, record: TrialRecord) -> None:
        """Take the result of a run in."""
        contender, last = str(record.contender), record.last
        if record.status == FAILED or last is None or last.val_accuracy is None or last.val_loss is None:
            self.race.fail(contender)
        else:
            assert record.fold is not None
            hits = unpacked(record.hits) if record.hits else None
            accuracy = last.val_accuracy if hits is None else float(hits.mean())
            self.race.add(contender, record.fold, Outcome(accuracy, last.val_loss, hits))

    def next_job(self, running: Collection[tuple[str | None, int | None]]) -> Job | None:
        """The next run; None while none is left that does not depend on those that are running."""
        for contender, _ in running:
            self._enter_late(str(contender))
        pair = self.race.next({(contender, fold) for contender, fold in running if contender and fold is not None})
        if pair is None and not running and self._keep_twin():
            return self.next_job(running)
        return None if pair is None else confirm_job(*pair, self.configs[pair[0]])

    def _keep_twin(self) -> bool:
        """Let the chosen contender's twin stay to the end, if it did not so far."""
        choice = self.race.choice()
        if choice is None or self.configs[choice.winner].alone:
            return False
        twin = self.alone_of(choice.winner) or f"{choice.winner}{TWIN}"
        if twin in self.race.kept:
            return False
        self._enter_late(twin)
        self.race.kept.add(twin)
        return True

    def _enter_late(self, twin: str) -> None:
        """Let a contender's twin take part, if that is what has this name."""
        of = twin.removesuffix(TWIN)
        if of == twin or of not in self.configs or twin in self.configs:
            return
        params = next(one.trainable_params for one in self.race.contenders if one.id == of)
        self._enter(twin, self.configs[of].without_teacher(), params)
        self.race.kept.add(twin)

    def alone_of(self, contender: str) -> str | None:
        """The contender that is the same config without its teacher; None if there is none."""
        config = self.configs[contender]
        return None if config.alone else self._same_alone(config)

    def counterpart(self, winner: str) -> tuple[str, RunConfig] | None:
        """A contender's name and config with its teacher taken away; or with it, if it is somebody's twin.

        None where no teacher is in question.
        """
        config = self.configs.get(winner)
        if config is None:
            return None
        if config.alone:
            taught = winner.removesuffix(TWIN)
            # An arm's name may end so as well, above all that of the default without a teacher.
            return (taught, self.configs[taught]) if taught != winner and taught in self.configs else None
        twin = self.alone_of(winner)
        return (twin, self.configs[twin]) if twin else (f"{winner}{TWIN}", config.without_teacher())

    def through(self, name: str) -> bool:
        """Whether a contender got through all splits."""
        return 0 < len(self.race.results.get(name, ())) == self.race.folds and name not in self.race.failed

    def choice(self) -> Choice | None:
        """Who wins, once no run is left; None if no contender got through."""
        return self.race.choice()


def _but_distill(config: RunConfig) -> dict[str, Any]:
    return {key: value for key, value in config.flat().items() if not key.startswith("distill.")}


def confirm_job(contender: str, fold: int, config: RunConfig) -> Job:
    """A contender's run on a split; its seed goes with the split, so that luck in initial values averages out."""
    seeded = config.updated({"seed": config.seed + fold})
    return Job(f"confirm-{fold}-{contender}", CONFIRM, (), seeded, contender, fold)


def config_of(record: TrialRecord) -> RunConfig:
    """The run of a record."""
    return RunConfig.from_flat(record.config)


def arm_record(journal: Journal, arm: str) -> TrialRecord | None:
    """The explored trial that stands for an arm, if it ran to its end."""
    return next((record for record in arms(journal) if arm in record.arms), None)


def explored_as(journal: Journal, arm: str) -> TrialRecord | None:
    """The explored trial that stands for an arm, whatever came of it."""
    return next((record for record in journal.of(EXPLORE) if arm in record.arms), None)


def arms(journal: Journal) -> list[TrialRecord]:
    """The explored arms that ran to their end, the default first; of the linear one the best of its learning rates."""
    found = [record for record in journal.of(EXPLORE) if record.arms and record.status == COMPLETE]
    found.sort(key=_place)
    linear = [record for record in found if LINEAR in record.arms]
    best = max(linear, key=lambda record: record.score, default=None)
    return [record for record in found if record not in linear or record is best]


def _place(record: TrialRecord) -> tuple[int, str]:
    """Of an arm: those of every search in their order, then by name those of the space."""
    name = record.arms[0]
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def best_explored(journal: Journal) -> list[TrialRecord]:
    """The explored trials that ran to their end and are no arms, best last epoch first."""
    complete = [r for r in journal.of(EXPLORE) if r.status == COMPLETE and r.score > WORST and not r.arms]
    return sorted(complete, key=lambda record: record.score, reverse=True)


def contender(journal: Journal, name: str, seed: int) -> TrialRecord | None:
    """The record of a contender: its explored trial, or for a twin its first run, with the search's seed."""
    for record in journal.of(EXPLORE):
        if record.id == name:
            return record
    for record in (*journal.of(CONFIRM), *journal.of(FINAL)):
        if record.contender == name:
            return replace(record, id=name, config={**record.config, "seed": seed})
    return None
