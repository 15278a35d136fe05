"""Where the winner goes wrong, by what it said of images that it was not trained on."""

# N images of train and val together, C classes

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from idat_tune.report import pictures, words
from idat_tune.report.evidence import Evidence, OutOfFold
from idat_tune.report.page import Html, bullets, html, paragraph, subsection, table, tag
from idat_tune.report.shots import image, small

if TYPE_CHECKING:
    import numpy as np

MOST_CLASSES = 20  # that a picture shows; of more only the worst
MOST_PAIRS = 12
MOST_IMAGES = 8
MARGIN = 0.5  # by which a class must be more probable than the label before the label is doubted
LONG = 3  # characters of a class name that still fits under a column


def mistakes(evidence: Evidence) -> Html:
    """Recall by class, confusions, the most confident mistakes, images whose label looks wrong."""
    winner = evidence.winner
    if winner is None:
        return Html()
    said = evidence.out_of_fold.get(winner["trial"])
    if said is None:
        return paragraph(
            "Nothing is known of single images: the search was run with --no-confirm, so no image was predicted by a "
            "student that had not seen it, but for those of the one val split and of the test, which stays closed."
            if not evidence.content.get("confirm.folds")
            else "predictions.parquet is not there, which has what was said of every image."
        )
    names = evidence.class_names(said.probability.shape[1])
    known, wrong = said.known, said.known & (said.answers != said.labels)
    first = paragraph(
        f"Each of {words.plural(int(known.sum()), 'image')} was predicted by a student that had not seen it: "
        f"{int(wrong.sum()):,} were named wrongly. The test images have no part in this."
    )
    return html(
        first,
        subsection("Classes", _recall(said, names)),
        subsection("What is taken for what", _confusion(said, names)),
        subsection("Most confident mistakes", _confident(evidence, said, names, wrong)),
        subsection("Labels that look wrong", _labels(evidence, said, names)),
    )


def _recall(said: OutOfFold, names: Sequence[str]) -> Html:
    import numpy as np

    labels, right = said.labels[said.known], said.answers[said.known] == said.labels[said.known]
    count = np.bincount(labels, minlength=len(names))
    hits = np.bincount(labels[right], minlength=len(names))
    order = sorted((int(one) for one in np.flatnonzero(count)), key=lambda one: (hits[one] / count[one], -count[one]))
    shown = order if len(order) <= MOST_CLASSES else order[:MOST_PAIRS]
    rows = []
    for one in shown:
        low, high = _wilson(int(hits[one]), int(count[one]))
        part = f"{words.accuracy(hits[one] / count[one])} ({hits[one]} of {count[one]})"
        rows.append(pictures.Bar(names[one], float(hits[one] / count[one]), part, low, high))
    what = "Every class" if len(shown) == len(order) else f"The worst {len(shown)} of {len(order)} classes"
    caption = f"{what}, the worst first: how many of its images are named rightly, with a 95 % interval."
    about = "; ".join(f"{row.name} {row.shown}" for row in rows)
    return pictures.figure(pictures.bars("Recall by class", about, rows), caption)


def _wilson(hits: int, count: int) -> tuple[float, float]:
    z = 1.96
    middle = (hits + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(hits * (count - hits) / count + z * z / 4)
    return middle - half, middle + half


def _confusion(said: OutOfFold, names: Sequence[str]) -> Html:
    import numpy as np

    labels, answers = said.labels[said.known], said.answers[said.known]
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (labels, answers), 1)
    off = counts - np.diag(counts.diagonal())
    worst = sorted(np.argwhere(off), key=lambda pair: -off[tuple(pair)])[:MOST_PAIRS]
    rows = []
    for one, other in map(tuple, worst):
        often = f"{off[one, other]} of {counts[one].sum()}"
        rows.append((pictures.cut(names[one]), pictures.cut(names[other]), often))
    listed = table(("class", "taken for", "how often"), rows, "llr", "The most frequent confusions")
    if len(names) > MOST_CLASSES:
        return listed or paragraph("None.")
    numbered = max(map(len, names)) > LONG
    short = [str(number + 1) for number in range(len(names))] if numbered else list(names)
    about = "; ".join(f"{one} taken for {other} {often}" for one, other, often in rows) or "none"
    drawn = pictures.matrix("Confusion matrix", about, counts.tolist(), short, short)
    caption = (
        "Down: what an image is; across: what it is taken for. The darker, the more of its row; the diagonal is right."
    )
    key = tag("ol", *(tag("li", name) for name in names), class_="key") if numbered else ""
    return html(pictures.figure(drawn, caption, key), listed)


def _confident(evidence: Evidence, said: OutOfFold, names: Sequence[str], wrong: "np.ndarray") -> Html:
    import numpy as np

    sure = np.where(wrong, said.probability.max(axis=1), 0.0)
    chosen = [int(row) for row in np.argsort(-sure, kind="stable")[:MOST_IMAGES] if wrong[row]]
    return _shots(evidence, said, names, chosen, said.probability) if chosen else paragraph("None.")


def suspicious(found: Sequence[OutOfFold]) -> list[int]:
    """Images of which every config says the same other class, as sure of it as of images that have that label.

    As in confident learning: the threshold of a class is the mean probability that its own images get. It must also
    be ahead of the label by a margin: where a task is hard, all doubt. The surest come first.
    """
    import numpy as np

    labels, known = found[0].labels, np.logical_and.reduce([one.known for one in found])
    answers = [one.answers for one in found]
    agreed = known & np.logical_and.reduce([one == answers[0] for one in answers]) & (answers[0] != labels)
    mean = np.mean([one.probability for one in found], axis=0)
    own = [mean[known & (labels == label), label] for label in range(mean.shape[1])]
    threshold = np.array([one.mean() if len(one) else 1.0 for one in own])
    sure = mean[np.arange(len(labels)), answers[0]]
    ahead = sure - mean[np.arange(len(labels)), labels]
    rows = np.flatnonzero(agreed & (sure >= threshold[answers[0]]) & (ahead >= MARGIN))
    order = sorted(rows, key=lambda row: -ahead[row])
    return [int(row) for row in order]


def _labels(evidence: Evidence, said: OutOfFold, names: Sequence[str]) -> Html:
    whole = [
        one
        for one in evidence.out_of_fold.values()
        if one.known.shape == said.known.shape and (one.known >= said.known).all()
    ]
    found = suspicious([said, *(one for one in whole if one is not said)])
    if not found:
        return paragraph("None: no image of which all configs say the same other class with confidence.")
    configs = words.plural(len(whole), "config")
    text = (
        f"Of {words.plural(len(found), 'image')} all of {configs} say the same other class, as surely as of images "
        "that have its label. A hint to look at, no more: hard images look the same."
    )
    import numpy as np

    mean = np.mean([one.probability for one in whole], axis=0)
    return html(paragraph(text), _shots(evidence, said, names, found[:MOST_IMAGES], mean))


def _shots(
    evidence: Evidence, said: OutOfFold, names: Sequence[str], rows: Sequence[int], probability: "np.ndarray"
) -> Html:
    """Small images with what they are and what they are taken for; without the images where they are gone."""
    pictured, why = small(evidence, rows)
    figures = []
    for row in rows:
        label, answer = names[said.labels[row]], names[said.answers[row]]
        text = html("labelled ", tag("b", pictures.cut(label)), ", taken for ", tag("b", pictures.cut(answer)), " ")
        text = html(text, f"({100 * probability[row, said.answers[row]]:.0f} %), image {row}")
        figures.append((image(pictured[row], f"image {row}") if row in pictured else Html(), text))
    if why:
        return html(paragraph(why, soft=True), bullets(text for _, text in figures))
    return tag("div", *(tag("figure", shown, tag("figcaption", text)) for shown, text in figures), class_="shots")
