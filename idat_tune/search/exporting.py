"""Exports of a finished search: the best confirmed student within limits, alone or as one model with its teacher."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from idat_tune import data, export, model, tasks
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.export.latency import milliseconds
from idat_tune.journal import COMPLETE, EXPLORE, STOPPED, Journal, TrialRecord
from idat_tune.journal.hits import BESIDE_TEACHER
from idat_tune.metrics import EpochMetrics
from idat_tune.run import run
from idat_tune.search import plan_search
from idat_tune.search.checks import check_weights
from idat_tune.search.comparison import mean_and_spread
from idat_tune.search.config import FILE, SearchConfig, read
from idat_tune.search.confirm import config_of, contender
from idat_tune.search.handover import figures, protocol
from idat_tune.search.manifest import JOURNAL, Manifest, check_resumable
from idat_tune.search.plan import Plan
from idat_tune.search.stages import winner
from idat_tune.search.trained import is_kept, trained_file
from idat_tune.search.verdict import Findings

Each = Callable[[EpochMetrics, int], None]


@dataclass(frozen=True)
class Wanted:
    """Which student of a search is asked for, that of a trial or the best within limits, and as what."""

    trial: str | None = None
    most_params: float | None = None  # trainable numbers
    most_milliseconds: float | None = None  # of one image on this device
    with_teacher: bool = False  # as one model whose probabilities are the mean of both
    form: str = export.FOLDER

    @property
    def limited(self) -> bool:
        """Whether the winner may be beyond a limit."""
        return self.most_params is not None or self.most_milliseconds is not None


def export_student(
    folder: Path, to: Path, wanted: Wanted = Wanted(), each: Each = lambda epoch, total: None
) -> dict[str, Any]:
    """Export a student of a finished search.

    The winner, or where it is beyond a limit the one within with the best mean over the splits of the confirm stage. If
    that one had no final run, or its tensors are gone, it is trained as the final run would have been, on all 1,000
    images with the first of the final seeds; the test stays closed, so it has no figure of the test.

    Args:
        folder: of the search.
        to: where to; an earlier export there is replaced.
        wanted: which.
        each: called after every epoch of a training, with how many there are.

    Returns:
        `out`, `search`, `trial`, `config`, `trainable_params`, `test_accuracy` (mean, std, seeds; None if it was not
        tested), `confirmed` (mean, standard_error, folds; None if it was not), `with_teacher`, `format` (see
        `export.convert`), `milliseconds` (of one image; None unless limited), `trained` (whether it had to be).

    Raises:
        BadInput: there is no finished search, no student is within the limits, or it has no teacher; or `to` or the
            format cannot be written.
    """
    export.check_format(wanted.form)
    export.check_replaceable(to)
    plan, journal, manifest = _opened(folder)
    found = Findings(plan, journal, winner(plan, journal), journal.state.stacked == 1)
    chosen, why, time = _chosen(found, wanted)
    if wanted.with_teacher and config_of(chosen).alone:
        raise BadInput(
            f"no teacher goes with the student of search '{plan.name}' that was chosen, {chosen.id}; leave "
            "--with-teacher away"
        )
    how = BESIDE_TEACHER * wanted.with_teacher
    tested = [final for final in found.finals(chosen) if final.id + how in journal.tested()]
    kept = tested[:1] if tested and _is_kept(plan, tested[0], wanted.with_teacher) else []
    if kept:
        config, states = config_of(kept[0]), _kept(plan, kept[0], wanted.with_teacher)
    else:
        config, states = _trained(found, chosen, manifest, each)
    metrics = figures(found, chosen, tested, wanted.with_teacher)
    metrics |= {} if kept else {"trained_again" if tested else "trained_for_export": True}
    teacher = states[1] if wanted.with_teacher else None
    known = manifest.content["weights"]

    def write(place: Path) -> None:
        export.save(place, config, states[0], metrics, known, teacher, protocol(found, chosen, why))

    about = export.write_as(wanted.form, to, write)
    accuracies = [journal.tested()[final.id + how][0] for final in tested]
    return {
        "out": str(to.absolute()),
        "search": plan.name,
        "trial": chosen.id,
        "config": config.flat(),
        "trainable_params": chosen.trainable_params,
        "test_accuracy": mean_and_spread(accuracies) if accuracies else None,
        "confirmed": found.confirmed(chosen),
        "with_teacher": wanted.with_teacher,
        "format": about,
        "milliseconds": time,
        "trained": not kept,
    }


def finished_last(out: Path, task: str) -> Path:
    """The folder of the search of a task, of those in `out`, that was finished last.

    Raises:
        BadInput: there is none.
    """
    name = tasks.get(task).name
    found: dict[Path, float] = {}
    for path in out.glob(f"*/{JOURNAL}"):
        with suppress(BadInput):  # of a search that is damaged, or of another version
            if tasks.get(read(path.with_name(FILE))["task"]).name == name:
                done = Journal(path).state.done
                found |= {path.parent: done.time} if done else {}
    if not found:
        raise BadInput(f"no finished search of task {name} in {out}; `idat-tune search --task {name}` makes one")
    return max(found, key=lambda folder: found[folder])


def _opened(folder: Path) -> tuple[Plan, Journal, Manifest]:
    """A finished search from its files, wherever its folder is now."""
    folder = folder.absolute()
    if not (folder / FILE).is_file() or not (folder / JOURNAL).is_file():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{JOURNAL}"))
        there = f"; there are {', '.join(known)}" if known else ""
        raise BadInput(f"no search at {folder}{there}; --out names the folder that holds searches")
    plan = plan_search(SearchConfig.from_flat({**read(folder / FILE), "name": folder.name, "out": str(folder.parent)}))
    held = data.content_hash(plan.task.name)
    check_resumable(plan, held)
    journal = Journal(folder / JOURNAL)
    if not journal.tested():
        raise BadInput(
            f"search '{plan.name}' is not finished, so none of its students was tested; `idat-tune search --config "
            f"{folder / FILE} --name {plan.name}` goes on"
        )
    manifest = Manifest(plan, held)
    seeds = max(plan.config.final.seeds, journal.state.seeds)
    plan = replace(manifest.hinted(plan), config=plan.config.updated({"final.seeds": seeds}))
    return plan, journal, manifest


def _chosen(found: Findings, wanted: Wanted) -> tuple[TrialRecord, str, float | None]:
    """Whose student to hand over, why unless it is the winner's, and its ms per image if they are limited."""
    assert found.winner is not None
    if wanted.trial is not None:
        record = _named(found, wanted.trial)
        return record, "" if record.id == found.winner.id else "which was asked for by name", None
    candidates = _candidates(found, pair=wanted.with_teacher and wanted.limited)
    few = [r for r in candidates if wanted.most_params is None or (r.trainable_params or 0) <= wanted.most_params]
    times: dict[str, float] = {}
    for record in few:
        if wanted.most_milliseconds is not None:
            merged = wanted.form != export.FOLDER
            times[record.id] = milliseconds(config_of(record), merged, wanted.with_teacher)
            if times[record.id] > wanted.most_milliseconds:
                continue
        why = "" if record.id == found.winner.id else f"the best one {_limits(wanted)}"
        return record, why, times.get(record.id)
    raise _none_within(found, candidates, wanted, times)


def _named(found: Findings, name: str) -> TrialRecord:
    """The trial of that name: one that was explored, a contender of the confirm stage, or of the final run."""
    finals = [record.contender or _contender_of(found, record) for record in found.journal.records if record.id == name]
    of = finals[0] if finals and finals[0] else name
    record = contender(found.journal, of, found.plan.seed)
    if record is None or (record.stage == EXPLORE and record.status not in (COMPLETE, STOPPED)):
        known = ", ".join(one.id for one in _candidates(found, pair=False))
        raise BadInput(f"search '{found.plan.name}' has no trial '{name}' that trained; confirmed are {known}")
    return record


def _contender_of(found: Findings, final: TrialRecord) -> str | None:
    """The contender that a record has the config of, whatever the seed."""
    wanted = {**final.config, "seed": found.plan.seed}
    return next((r.id for r in found.journal.of(EXPLORE) if {**r.config, "seed": found.plan.seed} == wanted), None)


def _candidates(found: Findings, pair: bool) -> list[TrialRecord]:
    """Who got through the confirm stage or was tested: the winner first, then the best, of equals the smallest."""
    confirmation = found.confirmation
    through = [contender(found.journal, name, found.plan.seed) for name in confirmation.configs]
    known = {record.id: record for record in (*found.named.values(), *through) if record is not None}
    fit = [
        record
        for record in known.values()
        if (confirmation.through(record.id) or found.tests(record)) and not (pair and config_of(record).alone)
    ]

    def rank(record: TrialRecord) -> tuple[bool, float, int]:
        confirmed, won = found.confirmed(record), found.winner is not None and record.id == found.winner.id
        return not won, -(confirmed["mean"] if confirmed else 0.0), record.trainable_params or 0

    return sorted(fit, key=rank)


def _limits(wanted: Wanted) -> str:
    limits = []
    if wanted.most_params is not None:
        limits.append(f"with at most {wanted.most_params:,.0f} trainable parameters")
    if wanted.most_milliseconds is not None:
        limits.append(f"of at most {wanted.most_milliseconds:g} ms per image on this device")
    return " and ".join(limits)


def _none_within(found: Findings, all_of: list[TrialRecord], wanted: Wanted, times: Mapping[str, float]) -> BadInput:
    name = found.plan.name
    if not all_of:
        return BadInput(f"no student of search '{name}' has a teacher; leave --with-teacher away")
    smallest = min(record.trainable_params or 0 for record in all_of)
    fastest = f", the fastest of those that are takes {min(times.values()):.3g} ms" if times else ""
    return BadInput(
        f"search '{name}' has no confirmed student {_limits(wanted)}; the smallest has {smallest:,}{fastest}"
    )


def _is_kept(plan: Plan, final: TrialRecord, with_teacher: bool) -> bool:
    names = [final.id, f"{final.id}.teacher"] if with_teacher else [final.id]
    return all(is_kept(trained_file(plan, name)) for name in names)


States = tuple[Mapping[str, Any], Mapping[str, Any] | None]  # what trained of the student, of its teacher


def _kept(plan: Plan, final: TrialRecord, with_teacher: bool) -> States:
    teacher = load_file(trained_file(plan, f"{final.id}.teacher")) if with_teacher else None
    return load_file(trained_file(plan, final.id)), teacher


def _trained(found: Findings, chosen: TrialRecord, manifest: Manifest, each: Each) -> tuple[RunConfig, States]:
    """A final run as the search would have had it, of the first seed; here and now."""
    check_weights(found.plan, manifest.content["weights"])
    config = found.plan.finals(chosen.id, config_of(chosen))[0].config
    model.check(config)
    spec = model.input_spec(config.student, config.image_size)
    training = run(config, data.load(config.task, "trainval", spec.size, spec.channels, spec.interpolation))
    for epoch in training:
        each(epoch, config.total_epochs)
    teacher = training.teacher.trained_state() if training.teacher else None
    return training.config, (training.student.trained_state(), teacher)
