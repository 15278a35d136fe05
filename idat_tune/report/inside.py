"""Inside the students, as the paper's Figure 5: maps of what their heads are given, and where they look."""

# N images

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from idat_tune import features
from idat_tune.features import Features
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
        why = (
            "the search was run with --no-confirm, so no student was asked about images that it had not seen"
            if not evidence.content.get("confirm.folds")
            else f"the folder {features.FOLDER} is not there, which a search keeps since it draws them"
        )
        return folded("Inside the students", paragraph(f"There are no maps and no attention: {why}."))
    count = len(next(iter(found.values())).images)
    about = (
        f"Of {words.plural(count, 'image')} of one split, which none of these students was trained on; the test images "
        "have no part in this. As Figure 5 of the paper."
    )
    return folded(
        "Inside the students: t-SNE and attention",
        paragraph(about),
        subsection("What the head is given", _maps(evidence, found)),
        subsection("Where the class token looks", _attention(evidence, found)),
    )


def _found(evidence: Evidence) -> dict[str, Features]:
    """By name of those whose insides are known; who has two names is shown once."""
    known = {"winner": evidence.winner, **evidence.result["arms"]}
    trials: set[str] = set()
    found: dict[str, Features] = {}
    for name in SHOWN:
        trial = (known.get(name) or {}).get("trial")
        if trial is None or trial in trials or len(found) == MOST:
            continue
        trials.add(trial)
        if one := features.read(evidence.folder, trial):
            found[name] = one
    return found


def _maps(evidence: Evidence, found: Mapping[str, Features]) -> Html:
    import numpy as np

    labels = np.concatenate([one.labels for one in found.values()])
    names = evidence.class_names(evidence.task.classes if evidence.task else int(labels.max()) + 1)
    often = sorted(set(labels.tolist()), key=lambda label: (-int((labels == label).sum()), label))
    marks = dict(zip(sorted(often[: len(MARKS)]), MARKS, strict=False))
    rest = len(often) > len(marks)
    drawn = []
    for name, one in found.items():
        dots = [
            pictures.Dot(x, y, names[label], *marks.get(label, ("faint", True)))
            for (x, y), label in zip(one.places.tolist(), one.labels.tolist(), strict=True)
        ]
        dots.sort(key=lambda dot: dot.tone != "faint")  # these lie below
        across, up = (_bare(one.places[:, axis].tolist()) for axis in (0, 1))
        alike = f"the nearest image is of the same class for {words.percent(_alike(one), 0)}"
        called = words.called(name)
        picture = pictures.scatter(f"Map of what the head is given: {called}", alike, dots, across, up, height=230)
        drawn.append(pictures.figure(picture, f"{called[:1].upper()}{called[1:]}: {alike}."))
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
    first = next(iter(looks.values()))
    chosen, said = _chosen(evidence, first)
    pictured, why = small(evidence, [int(first.images[place]) for place in chosen])
    if why:
        return paragraph(why, soft=True)
    rows = []
    for place, what in zip(chosen, said, strict=True):
        row = int(first.images[place])
        shots = [tag("figure", image(pictured[row], f"image {row}"), tag("figcaption", what))]
        for name, one in looks.items():
            at = (one.images == row).nonzero()[0]
            if len(at) and one.attention is not None:
                shown = tinted(pictured[row], one.attention[at[0]].astype("float32"))
                alternative = f"attention of {words.called(name)} on image {row}"
                shots.append(tag("figure", image(shown, alternative), tag("figcaption", words.called(name))))
        rows.append(tag("div", *shots, class_="shots"))
    how = (
        "The more orange, the more the class token of the last block attends to it, in the mean of all heads; each "
        "image by its own most. First those that the winner names wrongly."
    )
    return html(paragraph(how), *rows)


def _chosen(evidence: Evidence, one: Features) -> tuple[list[int], list[str]]:
    """Places of images: the surest mistakes, and some of several classes that are right; and what each of them is."""
    import numpy as np

    assert evidence.winner is not None
    said = evidence.out_of_fold.get(evidence.winner["trial"])
    if said is None or len(said.labels) <= one.images.max():
        places = list(range(min(IMAGES, len(one.images))))
        return places, [f"image {one.images[place]}" for place in places]
    names = evidence.class_names(said.probability.shape[1])
    sure, answers = said.probability.max(axis=1)[one.images], said.answers[one.images]
    surest = np.argsort(-sure, kind="stable")
    right = answers == one.labels
    places = [int(place) for place in surest if not right[place]][: IMAGES // 2]
    places += _of_each_class([int(place) for place in surest if right[place]], one.labels)[: IMAGES - len(places)]

    def what(place: int) -> str:
        label = pictures.cut(names[one.labels[place]])
        wrongly = "" if right[place] else f", taken for {pictures.cut(names[answers[place]])}"
        return f"{label}{wrongly}, image {one.images[place]}"

    return places, [what(place) for place in places]


def _of_each_class(places: Sequence[int], labels: "np.ndarray") -> list[int]:
    """The first of each class, then what is left."""
    seen: dict[int, int] = {}
    for place in places:
        seen.setdefault(int(labels[place]), place)
    first = set(seen.values())
    return [*seen.values(), *(place for place in places if place not in first)]
