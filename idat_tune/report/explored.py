"""What exploring showed: a strip for each searched setting, and the learning curves."""

import statistics
from collections.abc import Sequence

from idat_tune.journal import COMPLETE, FAILED, STOPPED, TrialRecord
from idat_tune.report import pictures, scales, words
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, html, paragraph, tag
from idat_tune.space import Choice

MOST_CURVES = 40  # grey ones; the best
MOST_EPOCHS = 60  # points of a curve
DASHES = {"default": "7 3", "alone": "2 4", "no_distill": "7 3 2 3"}


def strips(evidence: Evidence) -> Html:
    """Validation accuracy over each setting, of the trials that use it."""
    measured = [record for record in evidence.explored if record.val_accuracy is not None]
    if not measured:
        return paragraph("No trial got through an epoch.")
    accuracy = scales.linear([100 * float(record.val_accuracy or 0) for record in measured], least=2.0, ends=(0, 100))
    keys = dict.fromkeys(param.key for param in evidence.params)
    drawn = [_strip(evidence, key, measured, accuracy) for key in keys]
    named = dict.fromkeys(name for record in measured if (name := evidence.arm_of(record)))
    tones = {words.TONES[name]: [other for other in named if words.TONES[other] == words.TONES[name]] for name in named}
    marks = [("dot", "plain", "trained to the end"), ("ring", "plain", "stopped early, at its last epoch")]
    marks += [("dot", tone, "; ".join(words.NAMES[name] for name in names)) for tone, names in tones.items()]
    key = pictures.legend(marks)
    failed = sum(record.status == FAILED for record in evidence.explored)
    note = f" {words.plural(failed, 'trial')} failed and {'are' if failed > 1 else 'is'} not shown." if failed else ""
    about = (
        f"Validation accuracy, on one val split, of the {words.plural(len(measured), 'trial')} that got through an "
        f"epoch. Only those that use a setting stand in its strip.{note}"
    )
    return html(paragraph(about), key, tag("div", *drawn, class_="strips"))


def _strip(evidence: Evidence, key: str, records: Sequence[TrialRecord], accuracy: scales.Scale) -> Html:
    params = [param for param in evidence.params if param.key == key]
    active = [record for record in records if key in record.config and any(p.active(record.config) for p in params)]
    if not active:
        return Html()
    dots = [_dot(evidence, key, record) for record in active]
    about = f"{words.plural(len(active), 'trial')}, from {_extremes(active)}"
    if all(isinstance(param.domain, Choice) for param in params):
        names = dict.fromkeys(words.value(one) for param in params for one in param.domain.values)  # type: ignore[union-attr]
        names |= dict.fromkeys(str(dot.x) for dot in dots)
        turned = [pictures.Dot(dot.y, dot.x, dot.name, dot.tone, dot.filled, dot.large) for dot in dots]
        drawn = pictures.rows_of_dots(key, about, turned, accuracy, scales.choice(list(names)), "val accuracy, %")
    else:
        values = [float(dot.x) for dot in dots]
        log = all(getattr(param.domain, "log", False) for param in params)
        across = scales.logarithmic(values) if log else scales.linear(values)
        drawn = pictures.scatter(key, about, dots, across, accuracy, ("", ""), 104)
    return tag("figure", tag("figcaption", tag("b", key)), drawn)


def _dot(evidence: Evidence, key: str, record: TrialRecord) -> pictures.Dot:
    name = evidence.arm_of(record)
    setting = record.config[key]
    shown = f"{record.id}: {words.value(setting)}, {words.accuracy(record.val_accuracy)}"
    choice = not isinstance(setting, float | int) or any(
        isinstance(param.domain, Choice) for param in evidence.params if param.key == key
    )
    return pictures.Dot(
        words.value(setting) if choice else setting,
        100 * float(record.val_accuracy or 0),
        shown + ("; stopped early" if record.status == STOPPED else ""),
        words.TONES.get(name, "plain"),
        record.status == COMPLETE,
        name in ("winner", "winner_with_teacher", "default"),
    )


def _extremes(records: Sequence[TrialRecord]) -> str:
    found = [float(record.val_accuracy or 0) for record in records]
    return f"{words.accuracy(min(found))} to {words.accuracy(max(found))}"


def curves(evidence: Evidence) -> Html:
    """Validation accuracy by epoch: the winner and the arms in colour, the others grey."""
    names = {record.id: evidence.arm_of(record) for record in evidence.explored}
    found = [
        (record, names[record.id] if names[record.id] in words.NAMES else "")  # a space may name many arms
        for record in evidence.explored
        if record.val_accuracy is not None
    ]
    plain = sorted((record for record, name in found if not name), key=lambda record: record.score)[-MOST_CURVES:]
    named = sorted(((r, n) for r, n in found if n), key=lambda pair: pair[1] == "winner")
    lines = [_curve(record, "") for record in plain] + [_curve(record, name) for record, name in named]
    if not lines:
        return Html()
    across = scales.linear([x for line in lines for x, _ in line.points], least=1.0, room=0.01)
    across = scales.Scale(
        across.low, across.high, tuple((at, text) for at, text in across.ticks if at == int(at) and at >= 1)
    )
    up = scales.linear([y for line in lines for _, y in line.points], least=2.0, ends=(0, 100))
    about = "; ".join(f"{words.NAMES[name]} ends at {words.accuracy(record.val_accuracy)}" for record, name in named)
    drawn = pictures.lines("Learning curves", about or "all trials", lines, across, up, ("epoch", "val accuracy, %"))
    marks = [(DASHES.get(name, "line"), words.TONES[name], words.NAMES[name]) for _, name in reversed(named)]
    others = f"the best {MOST_CURVES} of the others" if len(plain) == MOST_CURVES else "the others"
    marks += [("line", "faint", others)] if plain else []
    return pictures.figure(drawn, "", pictures.legend(marks))


def _curve(record: TrialRecord, name: str) -> pictures.Curve:
    points = [(epoch.epoch + 1, 100 * epoch.val_accuracy) for epoch in record.epochs if epoch.val_accuracy is not None]
    step = -(-len(points) // MOST_EPOCHS)
    kept = points[::-1][:: max(step, 1)][::-1]  # the last one always
    return pictures.Curve(kept, record.id, words.TONES.get(name, "faint"), DASHES.get(name, ""))


def rises(records: Sequence[TrialRecord]) -> bool:
    """Whether trials that ran to their end still got better over their last tenth."""
    gains = []
    for record in records:
        accuracies = [epoch.val_accuracy for epoch in record.epochs if epoch.val_accuracy is not None]
        tail = max(len(accuracies) // 10, 1)
        if record.status == COMPLETE and len(accuracies) > 2 * tail:
            gains.append(statistics.fmean(accuracies[-tail:]) - statistics.fmean(accuracies[-2 * tail : -tail]))
    return len(gains) >= 3 and statistics.fmean(gains) > 0.01
