"""The page over several tasks: where tuning and the teacher paid, the paper's table beside ours, what won and where."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from idat_tune import __version__
from idat_tune.report import across, answers, gains, tables, words
from idat_tune.report.formats import NONE, Column, Table
from idat_tune.report.outcomes import Effect, Outcome, in_order
from idat_tune.report.page import (
    Html,
    breakable,
    bullets,
    code,
    folded,
    html,
    page,
    paragraph,
    section,
    subsection,
    table,
    tag,
)
from idat_tune.report.task import FILE
from idat_tune.tasks import GROUPS, VTAB


def write(path: Path, results: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write the page over several searches, all at once; returns where it is.

    Args:
        path: of the page; its folder is made.
        results: as `search --json` prints them, with names.
        out: the folder of the searches, whose own pages it links to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    links = {}
    for name in (str(result["name"]) for result in results):
        if (out / name / FILE).is_file():
            links[name] = quote(os.path.relpath(out / name / FILE, path.parent))
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(of_tasks([Outcome(result) for result in results], links), encoding="utf-8")
    partial.replace(path)
    return path


def of_tasks(outcomes: Sequence[Outcome], links: Mapping[str, str] | None = None) -> str:
    """The page as text; `links` are the searches' own pages, by name."""
    ordered = in_order(outcomes)
    names = _names(ordered)
    tuning, teacher = {one.name: one.tuning for one in ordered}, {one.name: one.teacher for one in ordered}
    compared = tables.of_tasks(ordered)
    return page(
        answers.title(ordered),
        *answers.head(ordered),
        section(
            "Did tuning pay?",
            _chance(tuning.values()),
            gains.forests(ordered, tuning, names, "points on test, the winner minus the default"),
        ),
        section(
            "Did the teacher help?",
            _whose(teacher.values()),
            gains.forests(ordered, teacher, names, "points on test, with a teacher minus without", whose=True),
        ),
        section("Every task", _every(ordered, names, links or {})),
        section(_beside(ordered), *_parts(compared)),
        section("Which settings win where", across.settings(ordered, names)),
        section("What it costs", across.costs(ordered)),
        section("For the record", _record(ordered)),
        kicker=_kicker(ordered),
        footer=f"Made by idat-tune {__version__} from the results of the searches alone.",
    )


def _names(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """What searches are called: by their task, and by what else tells them apart where there are several of it."""
    count = Counter(outcome.task for outcome in outcomes)
    return {one.name: one.title if count[one.task] == 1 else f"{one.title} ({one.stem})" for one in outcomes}


def _kicker(outcomes: Sequence[Outcome]) -> str:
    stems = {outcome.stem for outcome in outcomes}
    named = f" · {stems.pop()}" if len(stems) == 1 else ""
    return f"{answers.counted(outcomes)}{named}"


def _chance(effects: Iterable[Effect]) -> Html:
    """What so many intervals show by chance alone."""
    count = sum(bool(effect.found and effect.found["interval"]) for effect in effects)
    if not count:
        return Html()
    alone = f"Of {count} such intervals about {0.05 * count:.1f} leave out 0 by chance alone. " if count > 4 else ""
    return paragraph(
        "The same test images and seeds for both; whiskers are 95 % intervals, and one that leaves out 0 is beyond the "
        f"noise. {alone}A mean over tasks is of these tasks, not of tasks in general; where the default won the gain "
        "is 0."
    )


def _whose(effects: Iterable[Effect]) -> Html:
    """What the marks of rows mean."""
    of = {effect.of for effect in effects if effect.found}
    if not of:
        return Html()
    said = "Each winner against the very same settings without its teacher, on test."
    if "winner_with_teacher" in of:
        said += f"{gains.WHOSE['winner_with_teacher']} The winner does without: the same settings with one against it."
    if "default" in of:
        said += f"{gains.WHOSE['default']} The default won: its teacher."
    return paragraph(said)


def _every(outcomes: Sequence[Outcome], names: Mapping[str, str], links: Mapping[str, str]) -> Html:
    head = (
        "Task",
        "Winner, %",
        "Default, %",
        "Tuning, points",
        "Teacher, points",
        "Trials",
        "Time",
    )
    rows = []
    for one in outcomes:
        shown = breakable(names[one.name])
        rows.append(
            (
                tag("a", shown, href=links[one.name]) if one.name in links else shown,
                *(words.spread(one.test(name)).removesuffix(" %") for name in ("winner", "default")),
                *(_figures(effect) for effect in (one.tuning, one.teacher)),
                sum(one.result["trials"].values()),
                words.duration(one.result["seconds"]),
            )
        )
    about = "Test accuracy, mean ± standard deviation over seeds; differences with their 95 % intervals" + (
        "; each task leads to its own page." if links else "."
    )
    return html(paragraph(about, soft=True), tag("div", table(head, rows), class_="grid"))


def _figures(effect: Effect) -> str:
    if effect.found is None:
        return effect.kind
    about = words.interval(effect.found) if effect.found["interval"] else words.pairs(effect.found)
    return f"{words.points(effect.found['mean'])} ({about})"


def _beside(outcomes: Sequence[Outcome]) -> str:
    return "The paper's Table 3 beside ours" if any(one.group in VTAB for one in outcomes) else "All methods"


def _parts(compared: Table) -> Iterator[Html]:
    """The table in parts that a page is wide enough for: the means, then what we tested of each group's tasks."""
    ours = compared.records()[: sum(row[0].text.startswith(tables.OURS) for row in compared.rows)]
    tested = {column.keys[0] for column in compared.columns if any(row[column.keys[0]].text != NONE for row in ours)}
    if not ours:
        return
    yield bullets(compared.notes)
    yield subsection("Means", _shown(compared.only(lambda column: column.group in ("", tables.MEANS))))
    for group in GROUPS:
        wanted = {column.keys for column in compared.columns if column.group == group and column.keys[0] in tested}
        if wanted:
            part = compared.only(lambda column, wanted=wanted: not column.group or column.keys in wanted)  # type: ignore[misc]
            yield subsection(f"{group.capitalize()} tasks", _shown(part))


def _shown(part: Table) -> Html:
    align = "".join(_side(column) for column in part.columns)
    rows = [
        [cell.text for cell in row]
        for row in part.rows
        if any(cell.text != NONE for cell, column in zip(row, part.columns, strict=True) if column.number)
    ]
    return tag("div", table([breakable(column.title) for column in part.columns], rows, align), class_="grid")


def _side(column: Column) -> str:
    return "r" if column.number else "l" if column.keys == ("method",) else "n"


def _record(outcomes: Sequence[Outcome]) -> Html:
    stems = {outcome.stem for outcome in outcomes}
    together = len(stems) == 1 and all(outcome.stem != outcome.name for outcome in outcomes)
    named = " ".join(map(shlex.quote, stems if together else [outcome.name for outcome in outcomes]))
    verdicts = [html(f"{one.name}: {one.result['verdict']}") for one in outcomes]
    return html(
        folded("What each search says", bullets(verdicts)),
        paragraph("The same figures for a paper or a spreadsheet:"),
        code(f"idat-tune report {named} --format latex"),
        paragraph("or md, or csv. Protocol, hashes and versions stand on each task's own page.", soft=True),
    )
