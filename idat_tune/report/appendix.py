"""What is folded away: the trained weights beside their initial law, and the protocol."""

import datetime
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from idat_tune.journal import FINAL
from idat_tune.kinds import KINDS
from idat_tune.report import pictures, scales, words
from idat_tune.report.evidence import Evidence
from idat_tune.report.page import Html, code, facts, folded, html, paragraph, subsection

if TYPE_CHECKING:
    import numpy as np

INITIAL = 0.02  # standard deviation of the truncated normal law that adapters and heads begin with
BINS = 48
_BLOCK = re.compile(r"^(?:layers\.(?P<layer>\d+)\.)?blocks\.(?P<block>\d+)\.(?P<part>.+?)(?:\.weight)?$")


def weights(evidence: Evidence) -> Html:
    """The winner's trained weights against the law they began with, and those of its twin without a teacher."""
    config = evidence.winner["config"] if evidence.winner else {}
    if config.get("adapter.kind") in (None, "full"):  # of which all is pretrained
        return Html()
    winner, twin = (_trained(evidence, name) for name in ("winner", "winner_alone"))
    normal = config["adapter.init"] == "trunc_normal" and "adapter.init" in KINDS[config["adapter.kind"]].uses
    pictured = html(_law(winner, twin, normal), _by_block(winner, twin, normal))
    if not pictured:
        return Html()
    law = f"Dotted: the normal law of deviation {INITIAL:g} that they began with. " if normal else ""
    beside = "The dashed line is the same config trained without its teacher." if twin else ""
    about = f"Of the student that is handed over (the first seed's). {law}{beside}"
    return folded("Weights, layer by layer", paragraph(about), pictured)


def _trained(evidence: Evidence, name: str) -> dict[str, "np.ndarray"]:
    """The trained matrices of the first final run of what has that name; none where they are gone."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    found = evidence.winner if name == "winner" else evidence.result["arms"].get(name)
    if not found:
        return {}
    wanted = {**found["config"], "seed": None}
    same = [one for one in evidence.journal.of(FINAL) if {**one.config, "seed": None} == wanted]
    for record in sorted(same, key=lambda one: one.config["seed"]):
        try:
            return {
                key: tensor.astype("float32")
                for key, tensor in load_file(evidence.folder / "final" / f"{record.id}.safetensors").items()
                if tensor.ndim >= 2
            }
        except (OSError, SafetensorError):
            continue
    return {}


def _law(winner: Mapping[str, "np.ndarray"], twin: Mapping[str, "np.ndarray"], normal: bool) -> Html:
    """Densities of all adapter weights together."""
    import numpy as np

    ours, theirs = (
        np.concatenate([tensor.ravel() for key, tensor in some.items() if _BLOCK.match(key)] or [np.zeros(0)])
        for some in (winner, twin)
    )
    if not len(ours):
        return Html()
    most = max(float(np.quantile(np.abs(ours), 0.995)), 3 * INITIAL)
    edges = np.linspace(-most, most, BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    law = np.exp(-((middle / INITIAL) ** 2) / 2) / (INITIAL * math.sqrt(2 * math.pi))
    initial = pictures.Curve(list(zip(middle.tolist(), law.tolist(), strict=True)), "initial law", "plain", "2 4")
    lines = [initial] if normal else []
    for some, name, tone, dash in ((theirs, "without teacher", "other", "7 3"), (ours, "winner", "winner", "")):
        if len(some):
            density = np.histogram(some, edges, density=True)[0]
            lines.append(pictures.Curve(list(zip(middle.tolist(), density.tolist(), strict=True)), name, tone, dash))
    up = scales.linear([y for line in lines for _, y in line.points], ends=(0, math.inf))
    up = scales.Scale(0.0, up.high, up.ticks)
    about = f"standard deviation {ours.std():.4f} after training" + (
        f", {theirs.std():.4f} without the teacher" if len(theirs) else ""
    )
    drawn = pictures.lines(
        "Density of the adapters' weights",
        about,
        lines,
        scales.linear(middle.tolist(), room=0),
        up,
        ("weight", "density"),
        180,
    )
    return subsection(
        "All adapter weights",
        pictures.figure(drawn, f"{len(ours):,} weights: {about}.", _key(bool(len(theirs)), normal)),
    )


def _by_block(winner: Mapping[str, "np.ndarray"], twin: Mapping[str, "np.ndarray"], normal: bool) -> Html:
    """Standard deviations of each kind of matrix, block after block."""
    parts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for some, name in ((winner, "winner"), (twin, "twin")):
        for part, points in _deviations(some):
            parts.setdefault(part, {})[name] = points
    drawn = []
    for part, found in parts.items():
        if len(found.get("winner", ())) < 2:
            continue
        lines = [pictures.Curve(found["twin"], "without teacher", "other", "7 3")] if "twin" in found else []
        lines.append(pictures.Curve(found["winner"], "winner", "winner"))
        last = max(x for x, _ in found["winner"])
        if normal:
            lines.insert(0, pictures.Curve([(0, INITIAL), (last, INITIAL)], "initial law", "plain", "2 4"))
        up = scales.linear([y for line in lines for _, y in line.points], room=0.1, ends=(0, math.inf))
        about = ", ".join(f"block {x}: {y:.4f}" for x, y in found["winner"])
        across = scales.linear([0, last], room=0.02)
        across = scales.Scale(across.low, across.high, tuple(tick for tick in across.ticks if tick[0] == int(tick[0])))
        picture = pictures.lines(f"Deviation of {part}", about, lines, across, up, ("block", part), 110)
        drawn.append(pictures.figure(picture))
    return (
        subsection("Standard deviation by block", Html('<div class="strips">'), *drawn, Html("</div>"))
        if drawn
        else Html()
    )


def _deviations(some: Mapping[str, "np.ndarray"]) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    places: dict[str, list[tuple[tuple[int, int], float]]] = {}
    for key, tensor in some.items():
        if match := _BLOCK.match(key):
            place = (int(match["layer"] or 0), int(match["block"]))
            places.setdefault(match["part"], []).append((place, float(tensor.std())))
    for part, found in places.items():
        yield part, [(float(number), deviation) for number, (_, deviation) in enumerate(sorted(found))]


def _key(twin: bool, normal: bool) -> Html:
    entries = [("line", "winner", "the winner")]
    entries += [("7 3", "other", words.NAMES["winner_alone"])] if twin else []
    entries += [("2 4", "plain", "initial law")] if normal else []
    return pictures.legend(entries)


def protocol(evidence: Evidence, again: str) -> Html:
    """What was done, on what, by which versions; `again` is the command that repeats it."""
    content, result, state = evidence.content, evidence.result, evidence.journal.state
    task = evidence.task
    folds, seeds = content.get("confirm.folds"), state.seeds
    splits = f"{task.train:,} train, {task.val:,} val, {task.test:,} test" if task else "-"
    about = [
        ("search", f"{evidence.name} ({content['search_id']})"),
        (
            "task",
            f"{evidence.title} ({content['task']}): {splits} images" + (f", {task.classes} classes" if task else ""),
        ),
        ("explored", _explored(evidence)),
        (
            "confirmed",
            f"the arms and the best {content.get('confirm.top_k')} on {folds} stratified splits"
            if folds
            else "no (--no-confirm)",
        ),
        ("final run", f"trained on train and val together, {words.plural(seeds, 'seed')}, last epoch"),
        ("test openings", _openings(evidence)),
        ("ended", str(result["ended_by"] or "-")),
        ("seed", content["seed"]),
        ("precision", state.precision or "-"),
        ("images", html(f"sha256 {content['data_hash']}")),
        *((f"weights: {name}", f"{one['file']}, sha256 {one['sha256']}") for name, one in content["weights"].items()),
        ("begun", content["created"]),
        ("versions", ", ".join(f"{name} {number}" for name, number in content["versions"].items())),
        ("source", content.get("origin", {}).get("mlflow.source.git.commit", "-")),
    ]
    return folded(
        "Protocol, hashes, versions, and how to repeat it",
        facts(about),
        paragraph("The same search again:"),
        code(again),
    )


def _explored(evidence: Evidence) -> str:
    counts = evidence.result["trials"]
    told = [
        f"{counts[status]} {words_} "
        for status, words_ in (("complete", "to the end,"), ("stopped", "stopped early,"), ("failed", "failed"))
    ]
    return "".join(told).strip()


def _openings(evidence: Evidence) -> str:
    each = [f"{_day(one['time'])} for {one['winner']} ({one['by']})" for one in evidence.journal.state.openings]
    return f"{evidence.result['test_openings']}" + (f": {'; '.join(each)}" if each else "")


def _day(seconds: float) -> str:
    return (
        datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        .isoformat(sep=" ", timespec="minutes")
        .removesuffix("+00:00")
        + " UTC"
    )
