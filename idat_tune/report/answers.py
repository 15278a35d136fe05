"""The first lines of the page over several tasks: its title, the means, four tiles."""

import statistics
from collections.abc import Iterator, Sequence

from idat_tune.report import gains, published, words
from idat_tune.report.formats import NONE
from idat_tune.report.outcomes import (
    BETTER,
    KEPT,
    MISSING,
    NOISE,
    UNSURE,
    UNTESTED,
    WORSE,
    Effect,
    Outcome,
    by_group,
    dealt,
)
from idat_tune.report.page import Html, Tile, paragraph, tiles


def counted(outcomes: Sequence[Outcome]) -> str:
    """How many tasks, or searches where a task has several."""
    count = len(outcomes)
    if len({outcome.task for outcome in outcomes}) == count:
        return words.plural(count, "task")
    return f"{count} searches"


def title(outcomes: Sequence[Outcome]) -> str:
    """The counts in a line."""
    tested = [one for one in outcomes if one.tuning.kind not in (MISSING, UNTESTED)]
    if not tested:
        return "No task has been tested yet."
    asked = sum(one.teacher.found is not None for one in outcomes)
    effects = ([one.tuning for one in tested], [one.teacher for one in tested])
    kinds = {effect.kind for some in effects for effect in some if effect.found}
    if kinds == {UNSURE}:
        return f"Too few seeds to say on how many of {counted(tested)} tuning or the teacher paid."
    paid, helped = (str(_count(some, BETTER) or "none") for some in effects)
    last = f", the teacher on {helped}{'' if asked == len(tested) else f' of {asked}'}" if asked else ""
    unsure = _count(effects[0], UNSURE)
    rest = f" ({unsure} with too few seeds to say)" if unsure else ""
    return f"Beyond the noise, tuning paid on {paid} of {counted(tested)}{rest}{last}."


def _count(effects: Sequence[Effect], *kinds: str) -> int:
    return sum(effect.kind in kinds for effect in effects)


def head(outcomes: Sequence[Outcome]) -> Iterator[Html]:
    """The means in sentences, and the tiles."""
    tuning, teacher = ({one.name: one.tuning for one in outcomes}, {one.name: one.teacher for one in outcomes})
    yield from (paragraph(_reached(one, label)) for label, one in dealt(outcomes).items())
    brought = [("Tuning", gains.over(outcomes, tuning)), ("a teacher", gains.over(outcomes, teacher))]
    said = [f"{subject} brings {gains.whole(found)}" for subject, found in brought if found]
    if said:
        told = ", ".join(said)
        yield paragraph(f"{told[:1].upper()}{told[1:]}, on test, as a mean over those where it was asked.")
    yield tiles([*_tested(outcomes), _paid([*tuning.values()]), _helped([*teacher.values()]), _cost(outcomes)])


def _reached(outcomes: Sequence[Outcome], label: str) -> str:
    """The means of the winners and of the default, over the tasks on which both were tested."""
    both = [one for one in outcomes if one.test("winner") and one.test("default")]
    if not both:
        return ""
    winner, default = (_means(both, name) for name in ("winner", "default"))
    said = [
        f"{what} {ours} % with the winners, {default[what]} % with the default settings"
        for what, ours in winner.items()
    ]
    return f"On test{f' ({label})' if label else ''}: {'; '.join(said)}."


def _means(outcomes: Sequence[Outcome], name: str) -> dict[str, str]:
    """The mean accuracy of a contender over tasks and, of the whole benchmark, that of the groups' means, percent."""
    each = {one.name: 100 * found["mean"] for one in outcomes if (found := one.test(name))}
    means = {f"mean of {words.plural(len(each), 'task')}": statistics.fmean(each.values())}
    if sorted(one.task for one in outcomes) == sorted(published.ORDER):
        groups = [statistics.fmean(each[one.name] for one in some) for some in by_group(outcomes).values()]
        means["mean of the three groups' means"] = statistics.fmean(groups)
    return {what: f"{mean:.2f}" for what, mean in means.items()}


def _tested(outcomes: Sequence[Outcome]) -> list[Tile]:
    """The winners' accuracy, of each set of searches."""
    found = []
    for label, some in dealt(outcomes).items():
        tested = [one for one in some if one.test("winner")]
        if tested:
            (what, mean), *others = _means(tested, "winner").items()
            beside = "".join(f"; {other} {value} %" for other, value in others)
            whose = f" of {label}" if label else ""
            found.append(Tile("Test accuracy", f"{mean} %", f"the winners{whose}, {what}{beside}"))
    return found


def _paid(effects: Sequence[Effect]) -> Tile:
    tested = sum(effect.kind not in (MISSING, UNTESTED) for effect in effects)
    return Tile("Did tuning pay?", _of(effects, tested), _told(effects, "gained"))


def _helped(effects: Sequence[Effect]) -> Tile:
    asked = sum(effect.found is not None for effect in effects)
    return Tile("Did the teacher help?", _of(effects, asked), _told(effects, "helped"))


def _of(effects: Sequence[Effect], asked: int) -> str:
    return f"{_count(effects, BETTER)} of {asked}" if asked else NONE


def _told(effects: Sequence[Effect], verb: str) -> str:
    """How many of each kind there are."""
    found = [
        (f"{verb} beyond the noise", _count(effects, BETTER)),
        ("within it", _count(effects, NOISE)),
        ("worse", _count(effects, WORSE)),
        ("the default kept", _count(effects, KEPT)),
        ("too few seeds", _count(effects, UNSURE)),
        ("not tested", _count(effects, UNTESTED, MISSING)),
    ]
    return ", ".join(f"{count} {what}" for what, count in found if count)


def _cost(outcomes: Sequence[Outcome]) -> Tile:
    results = [outcome.result for outcome in outcomes]
    trials = sum(sum(result["trials"].values()) for result in results)
    most = max(result["test_openings"] for result in results)
    opened = {0: "no test opened", 1: "each test opened once at most"}.get(most, f"a test opened {most} times")
    return Tile(
        "Cost",
        words.duration(sum(result["seconds"] for result in results)),
        f"{words.plural(trials, 'trial')}; {opened}",
    )
