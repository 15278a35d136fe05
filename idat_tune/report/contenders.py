"""Who took part: every contender held against the default, as a picture and as a table."""

from collections.abc import Mapping
from typing import Any

from idat_tune.report import pictures, words
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, html, table, tag


def contenders(evidence: Evidence) -> Html:
    """The forest plots, of the test and of the splits, and the table of all figures."""
    rows = evidence.result.get("contenders") or []  # which results of older versions lack
    parts = [
        _forest(
            rows,
            "test",
            "On test",
            "The same test images and seeds for both, minus the default. Whiskers are 95 % intervals: "
            "one that leaves out 0 is more than luck. A ring has no interval.",
        ),
        _forest(
            rows,
            "confirm",
            "On the splits",
            "Each split's held-out images, minus the default on the same ones. The winner was chosen by these, so its "
            "own gain is optimistic here. Who fell behind beyond the noise was stopped and has fewer splits.",
        ),
    ]
    return html(*parts, _table(evidence, rows)) if rows else Html()


def name_of(row: Mapping[str, Any]) -> str:
    """What a contender is called: by its part in the search, and as the space calls it; else by its trial."""
    # What trains the very student of another counts for both.
    parts = [words.NAMES[name].removeprefix("the ").removeprefix("a ") for name in row["names"] if name in words.NAMES]
    of_space = [name for name in row["names"] if name not in words.NAMES]
    return " = ".join([*parts[:1], *of_space]) or str(row["trial"])


def tone_of(row: Mapping[str, Any]) -> str:
    """Its colour."""
    return next((words.TONES[name] for name in row["names"] if name in words.TONES), "plain")


def _forest(rows: list[dict[str, Any]], split: str, heading: str, caption: str) -> Html:
    found = [(row, row["minus_default"][split]) for row in rows if row["minus_default"][split]]
    if not found:
        return Html()
    found.sort(key=lambda pair: pair[1]["mean"], reverse=True)
    shown = [
        pictures.Interval(
            name_of(row),
            100 * against["mean"],
            100 * against["interval"][0] if against["interval"] else None,
            100 * against["interval"][1] if against["interval"] else None,
            _figures(against),
            tone_of(row),
        )
        for row, against in found
    ]
    said = "; ".join(f"{name_of(row)} {words.compared(against, chosen=True)}" for row, against in found)
    drawn = pictures.forest(
        f"{heading}: difference to the default", said, shown, "points of accuracy, minus the default"
    )
    return html(tag("h3", heading), pictures.figure(drawn, caption))


def _figures(against: Mapping[str, Any]) -> str:
    shown = words.points(against["mean"])
    return f"{shown} ({words.interval(against)})" if against["interval"] else f"{shown} ({words.pairs(against)})"


def _table(evidence: Evidence, rows: list[dict[str, Any]]) -> Html:
    head = ("", "trial", "validation", "splits", "test", "test, minus the default", "parameters")
    cells = []
    for row in rows:
        against, confirmed = row["minus_default"]["test"], row["confirmed"]
        count = f" ({confirmed['folds']})" if confirmed else ""
        cells.append(
            (
                name_of(row) if row["names"] else "",
                row["trial"],
                words.accuracy(row["val_accuracy"]),
                words.on_splits(confirmed) + count,
                words.spread(row["test_accuracy"]),
                _figures(against) if against else "-",
                "-" if row["trainable_params"] is None else f"{row['trainable_params']:,}",
            )
        )
    many = table(
        head, cells, "lnrrrrr", "Accuracies: mean ± standard error over (so many) splits, ± deviation over seeds"
    )
    configs = tag("ul", *(tag("li", f"{row['trial']}: {words.brief(row['config'])}", _also(row)) for row in rows))
    return html(many, tag("div", configs, class_="configs"))


def _also(row: Mapping[str, Any]) -> str:
    """Whose student is the same, so that its runs are these."""
    others = [words.NAMES[name] for name in row["names"] if name in words.NAMES][1:]
    return f"; trains the student of {' and '.join(others)}, too" if others else ""
