"""The confirm stage: the arms and the best explored configs, each on the same stratified splits."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from idat_tune.config import RunConfig
from idat_tune.journal import COMPLETE, CONFIRM, EXPLORE, FAILED, Journal, TrialRecord
from idat_tune.metrics import WORST
from idat_tune.search.plan import DEFAULT, Job, Plan
from idat_tune.search.race import Choice, Contender, Race


class Confirmation:
    """Who takes part, which run is next, and who wins; rebuilt from the journal at any time.

    A contender goes by the id of the trial that explored it. The one that wins is joined, late, by its twin without a
    teacher, so that what the teacher did for it is known, and so that the twin wins where the teacher did nothing.
    """

    def __init__(self, plan: Plan, journal: Journal):
        self.plan = plan
        self.journal = journal
        self.configs: dict[str, RunConfig] = {}
        self.same_student: dict[str, str] = {}  # arm to the contender whose runs are its own
        default = arm_record(journal, DEFAULT)
        self.race = Race(
            [], plan.config.confirm.folds, plan.val_over_train, default.id if default else "", plan.task.val
        )
        for record in arms(journal):
            self._enter(record.id, config_of(record), record.trainable_params)
        most = len(self.race.contenders) + plan.config.confirm.top_k
        for record in best_explored(journal):
            if len(self.race.contenders) < most:  # a config that is in already takes no place
                self._enter(record.id, config_of(record), record.trainable_params)
        for record in journal.of(CONFIRM):
            self._enter(str(record.contender), config_of(record), record.trainable_params)  # twins, of before a restart
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
            self.race.add(contender, record.fold, last.val_accuracy, last.val_loss)

    def next_job(self, running: Collection[tuple[str | None, int | None]]) -> Job | None:
        """The next run; None while none is left that does not depend on those that are running."""
        pair = self.race.next({(contender, fold) for contender, fold in running if contender and fold is not None})
        if pair is None and not running and self._enter_twin():
            return self.next_job(running)
        return None if pair is None else self._job(*pair)

    def _enter_twin(self) -> bool:
        choice = self.race.choice()
        if choice is None or self.configs[choice.winner].alone or self.alone_of(choice.winner):
            return False
        params = next(c.trainable_params for c in self.race.contenders if c.id == choice.winner)
        self._enter(f"{choice.winner}-alone", self.configs[choice.winner].without_teacher(), params)
        return True

    def _job(self, contender: str, fold: int) -> Job:
        return confirm_job(contender, fold, self.configs[contender])

    def alone_of(self, contender: str) -> str | None:
        """The contender that is the same config without its teacher; None if there is none."""
        config = self.configs[contender]
        return None if config.alone else self._same_alone(config)

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


def arms(journal: Journal) -> list[TrialRecord]:
    """The explored arms that ran to their end, the default first."""
    return [record for record in journal.of(EXPLORE) if record.arms and record.status == COMPLETE]


def best_explored(journal: Journal) -> list[TrialRecord]:
    """The explored trials that ran to their end and are no arms, best last epoch first."""
    complete = [r for r in journal.of(EXPLORE) if r.status == COMPLETE and r.score > WORST and not r.arms]
    return sorted(complete, key=lambda record: record.score, reverse=True)


def contender(journal: Journal, name: str, seed: int) -> TrialRecord | None:
    """The record of a contender: its explored trial, or for a twin its first confirmed run, with the search's seed."""
    for record in journal.of(EXPLORE):
        if record.id == name:
            return record
    for record in journal.of(CONFIRM):
        if record.contender == name:
            return replace(record, id=name, config={**record.config, "seed": seed})
    return None
