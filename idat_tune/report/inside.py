"""Inside the students, as the paper's Figure 5: maps of what their heads are given, and where they look."""

# N images

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from idat_tune import features, predictions
from idat_tune.features import Features
from idat_tune.journal import CONFIRM
from idat_tune.predictions import Predictions
from idat_tune.report import pictures, scales, words
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, folded, html, paragraph, subsection, tag
from idat_tune.report.shots import image, small, tinted

if TYPE_CHECKING:
    import numpy as np

SHOWN = ("winner", "winner_alone", "winner_with_teacher", "default", "alone")  # the most telling first
MOST = 3  # students beside each other
MARKS = tuple((tone, filled) for filled in (True, False) for tone in ("winner", "default", "alone", "other", "linear"))
IMAGES = 6  # on which attention is shown


def inside(evidence: Evidence) -> Html:
    """Maps by t-SNE and attention of the winner beside its twin without a teacher and the default."""
    if evidence.winner is None:
        return Html()
    found = _found(evidence)
    if not found:
        return folded("Inside the students", paragraph(f"There are no maps and no attention: {_why_none(evidence)}."))
    count = len(next(iter(found.values())).images)
    about = (
        f"Of {words.plural(count, 'image')} of one split, which none of these students was trained on; the test images "
        "have no part in this. As Figure 5 of the paper."
    )
    missing = "" if "winner" in found else " Of the winner itself nothing was kept."
    return folded(
        "Inside the students: t-SNE and attention",
        paragraph(about + missing),
        subsection("What the head is given", _maps(evidence, found)),
        subsection("Where the class token looks", _attention(evidence, found)),
    )


def _why_none(evidence: Evidence) -> str:
    if not evidence.content.get("confirm.folds"):
        return "the search was run with --no-confirm, so no student was asked about images that it had not seen"
    if not (evidence.folder / features.FOLDER).is_dir():
        return f"the folder {features.FOLDER} is not there, which a search keeps since it draws them"
    return f"the folder {features.FOLDER} has nothing of these students that can be read"


def _found(evidence: Evidence) -> dict[str, Features]:
    """By name of those whose insides are known; who has two names is shown once."""
    known = _known(evidence)
    trials: set[str] = set()
    found: dict[str, Features] = {}
    for name in SHOWN:
        trial = known.get(name, {}).get("trial")
        if trial is None or trial in trials or len(found) == MOST:
            continue
        trials.add(trial)
        if one := features.read(evidence.folder, trial):
            found[name] = one
    return found


def _known(evidence: Evidence) -> dict[str, Mapping[str, Any]]:
    """Winner and arms, by name, as the result has them."""
    named = {"winner": evidence.winner, **evidence.result["arms"]}
    return {name: one for name, one in named.items() if one}


def _maps(evidence: Evidence, found: Mapping[str, Features]) -> Html:
    import numpy as np

    labels = np.concatenate([one.labels for one in found.values()])
    names = evidence.class_names(max(int(labels.max()) + 1, evidence.task.classes if evidence.task else 0))
    often = sorted(set(labels.tolist()), key=lambda label: (-int((labels == label).sum()), label))
    marks = dict(zip(sorted(often[: len(MARKS)]), MARKS, strict=False))
    rest = len(often) > len(marks)
    drawn = []
    for name, one in found.items():
        called = words.called(name)
        title = f"{called[:1].upper()}{called[1:]}"
        if not one.is_mapped:
            drawn.append(paragraph(f"{title} has no map: its images are too few, or look all the same to the head."))
            continue
        dots = [
            pictures.Dot(x, y, names[label], *marks.get(label, ("faint", True)))
            for (x, y), label in zip(one.places.tolist(), one.labels.tolist(), strict=True)
        ]
        dots.sort(key=lambda dot: dot.tone != "faint")  # these lie below
        across, up = (_bare(one.places[:, axis].tolist()) for axis in (0, 1))
        alike = f"the nearest image is of the same class for {words.percent(_alike(one), 0)}"
        picture = pictures.scatter(f"Map of what the head is given: {called}", alike, dots, across, up, height=230)
        drawn.append(pictures.figure(picture, f"{title}: {alike}."))
    key = [("dot" if filled else "ring", tone, pictures.cut(names[label])) for label, (tone, filled) in marks.items()]
    key += [("dot", "faint", "other classes")] if rest else []
    how = (
        "A dot is an image, placed by t-SNE so that images lie close which the head can hardly tell apart. Distances "
        "between far groups, and the size of a group, mean nothing."
    )
    return html(paragraph(how), pictures.legend(key), Html('<div class="strips">'), *drawn, Html("</div>"))


def _bare(values: list[float]) -> scales.Scale:
    """An axis without ticks, as its values mean nothing."""
    whole = scales.linear(values, room=0.06)
    return scales.Scale(whole.low, whole.high, ())


def _alike(one: Features) -> float:
    """The part of the images whose nearest one on the map is of their class."""
    import numpy as np

    apart = ((one.places[:, None] - one.places[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(apart, np.inf)
    return float((one.labels[apart.argmin(axis=1)] == one.labels).mean())


def _attention(evidence: Evidence, found: Mapping[str, Features]) -> Html:
    looks = {name: one for name, one in found.items() if one.attention is not None}
    if not looks:
        return paragraph("There is none to show: this backbone has no class token that looks at patches.")
    name, first = next(iter(looks.items()))
    chosen, said = _chosen(evidence, name, first)
    pictured, why = small(evidence, [int(first.images[place]) for place in chosen])
    if why:
        return paragraph(why, soft=True)
    rows = []
    for place, what in zip(chosen, said, strict=True):
        row = int(first.images[place])
        if row in pictured:
            shots = [tag("figure", image(pictured[row], f"image {row}"), tag("figcaption", what))]
            rows.append(tag("div", *shots, *_tinted(looks, row, pictured[row]), class_="shots"))
    how = (
        "The more orange, the more the class token of the last block attends to it, in the mean of all heads; each "
        "image by its own most."
    )
    return html(paragraph(how), *rows)


def _tinted(looks: Mapping[str, Features], row: int, encoded: bytes) -> Iterator[Html]:
    """An image as each of them looks at it."""
    for name, one in looks.items():
        at = (one.images == row).nonzero()[0]
        if len(at) and one.attention is not None:
            shown = tinted(encoded, one.attention[at[0]].astype("float32"))
            called = words.called(name)
            yield tag("figure", image(shown, f"attention of {called} on image {row}"), tag("figcaption", called))


def _chosen(evidence: Evidence, name: str, one: Features) -> tuple[list[int], list[str]]:
    """Places of images: its surest mistakes first, and some of several classes that are right; and what each is."""
    import numpy as np

    said = _said(evidence, name)
    logits = {} if said is None else dict(zip(said.images.tolist(), said.student, strict=True))
    if said is None or any(row not in logits for row in one.images.tolist()):
        places = list(range(min(IMAGES, len(one.images))))
        return places, [f"image {one.images[place]}" for place in places]
    of_each = np.array([logits[row] for row in one.images.tolist()])
    answers, names = of_each.argmax(axis=1), evidence.class_names(of_each.shape[1])
    surest = np.argsort(-_softmax(of_each).max(axis=1), kind="stable")
    right = answers == one.labels
    places = [int(place) for place in surest if not right[place]][: IMAGES // 2]
    places += _of_each_class([int(place) for place in surest if right[place]], one.labels)[: IMAGES - len(places)]

    def what(place: int) -> str:
        label = pictures.cut(names[one.labels[place]])
        by = "" if name == "winner" else f" by {words.called(name)}"
        wrongly = "" if right[place] else f", taken for {pictures.cut(names[answers[place]])}{by}"
        return f"{label}{wrongly}, image {one.images[place]}"

    return places, [what(place) for place in places]


def _softmax(logits: "np.ndarray") -> "np.ndarray":
    import numpy as np

    raised: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _said(evidence: Evidence, name: str) -> Predictions | None:
    """What that very student said of the images of the split."""
    trial = _known(evidence)[name]["trial"]
    said = predictions.read(evidence.folder, f"{CONFIRM}-{features.FOLD}-{trial}")  # and what begins like that
    return next((one for one in said if one.run.contender == trial), None)


def _of_each_class(places: Sequence[int], labels: "np.ndarray") -> list[int]:
    """The first of each class, then what is left."""
    seen: dict[int, int] = {}
    for place in places:
        seen.setdefault(int(labels[place]), place)
    first = set(seen.values())
    return [*seen.values(), *(place for place in places if place not in first)]
