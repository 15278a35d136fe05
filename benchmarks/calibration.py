"""How often the intervals of a search cover the truth, and how often each of its claims is wrong.

`python -m benchmarks.calibration` simulates searches image by image, and judges them by the search's own code.
"""

# C configs, R runs, N images

import argparse
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from scipy.special import ndtri

from idat_tune.differences import Design, Noise, Outcome, Runs, difference, noise_of
from idat_tune.replay.table import SHIPPED, curves_of, read
from idat_tune.search.race import Contender, Race

FOLDS, VAL, SEEDS, TEST, TRIALS = 5, 200, 3, 1000, 32
HARD, OWN, EACH = 0.8, 0.12, 0.08  # variance of what decides a hit: of images, of image and config, of image and run
LEVELS = (0.78, 0.98)  # accuracies
SPREADS = (0.0, 0.006, 0.012, 0.025)  # standard deviation of a config's accuracy from run to run


class Images:
    """Some images, which are harder or easier for all configs, and for each a bit otherwise."""

    def __init__(self, draw: np.random.Generator, configs: int, count: int):
        self.draw = draw
        self.ease_CN = HARD**0.5 * draw.standard_normal(count) + OWN**0.5 * draw.standard_normal((configs, count))

    def run(self, config: int, accuracy: float, spread: float, part: slice = slice(None)) -> Outcome:
        """A run of a config on part of them; `spread` is its luck."""
        lucky = min(max(accuracy + spread * self.draw.standard_normal(), 0.001), 0.999)
        ease_N = self.ease_CN[config, part]
        hits = ndtri(lucky) + ease_N + EACH**0.5 * self.draw.standard_normal(len(ease_N)) > 0
        return Outcome(float(hits.mean()), hits=hits)

    def folds(self, config: int, accuracy: float, spread: float) -> dict[int, Outcome]:
        """A run on each split."""
        return {fold: self.run(config, accuracy, spread, of_fold(fold)) for fold in range(FOLDS)}

    def seeds(self, config: int, accuracy: float, spread: float) -> dict[int, Outcome]:
        """A run per seed, each on all of them."""
        return {seed: self.run(config, accuracy, spread) for seed in range(SEEDS)}


def of_fold(fold: int) -> slice:
    """The images of a split."""
    return slice(VAL * fold, VAL * (fold + 1))


@dataclass
class Coverage:
    """Of 95 % intervals of pairs that differ by a known amount."""

    pairs: int = 0
    covered: int = 0
    claimed: int = 0  # intervals that leave out 0, on the right side of it
    widths: list[float] = field(default_factory=list)

    def add(self, ours: Runs, theirs: Runs, design: Design, noise: Noise, truth: float) -> None:
        """One more pair."""
        found = difference(ours, theirs, design, noise, least=1e-9)
        assert found is not None
        low, high = found.interval
        self.pairs += 1
        self.covered += low <= truth <= high
        self.claimed += low > 0
        self.widths.append(found.half_width)

    def row(self) -> str:
        """Cells of a table."""
        width = f"{100 * statistics.median(self.widths):.1f}"
        return f"{100 * self.covered / self.pairs:.1f} | {width} | {100 * self.claimed / self.pairs:.0f}"


def coverage(
    draw: np.random.Generator, accuracy: float, spreads: Sequence[float], crossed: bool, gain: float, repeats: int
) -> Coverage:
    """Of the last of some configs, which is better by `gain`, against the first; the others are as good as that."""
    found, count = Coverage(), TEST if crossed else FOLDS * VAL
    design = Design(count, crossed)
    for _ in range(repeats):
        images = Images(draw, len(spreads), count)
        runs = images.seeds if crossed else images.folds
        truths = [accuracy] * (len(spreads) - 1) + [min(accuracy + gain, 0.999)]
        configs = [runs(one, truths[one], spread) for one, spread in enumerate(spreads)]
        found.add(configs[-1], configs[0], design, noise_of(configs, design), truths[-1] - truths[0])
    return found


Gates = dict[str, type[Race]]


class OldGate(Race):
    """Whoever beats the default by one standard error is considered, however many there are."""

    def beats_default(self, contender: str) -> bool:
        gain = self.difference(contender, self.default)
        return contender != self.default and gain is not None and gain.beyond_error


@dataclass(frozen=True)
class Found:
    """What a simulated search came to."""

    won: bool  # by another than the default
    lost_best: bool  # racing left out all that are as good as the best of those that entered
    gain: float  # true, of the winner over the default
    shown: float  # on the splits
    reliable: bool  # winner against default, on test
    taught: float  # winner against its twin, on test
    taught_on_splits: float
    helped: bool  # reliably so, either way


def search(
    draw: np.random.Generator, accuracy: float, spread: float, top_k: int, better: float, gate: type[Race]
) -> Found:
    """One search: 32 trials on one split, a race of three arms and the best, a twin, final runs, the test.

    A tenth of the trials are better by `better`; every twin is as good as what it is the twin of.
    """
    arms = ["default", "alone", "linear"]
    truths = {**dict.fromkeys(arms, accuracy), **{f"trial-{number}": accuracy for number in range(TRIALS)}}
    for number in range(TRIALS // 10):
        truths[f"trial-{number}"] += better
    names = [*truths, "twin"]
    images = Images(draw, len(names), FOLDS * VAL)
    explored = {name: images.run(names.index(name), truths[name], spread, of_fold(0)) for name in truths}
    trials = sorted(list(truths)[3:], key=lambda name: explored[name].accuracy, reverse=True)
    race = gate([Contender(name, 1) for name in [*arms, *trials[:top_k]]], FOLDS, FOLDS * VAL, "default", VAL)

    def confirm() -> None:
        while (pair := race.next()) is not None:
            name, fold = pair
            race.add(name, fold, images.run(names.index(name), truths[name], spread, of_fold(fold)))

    confirm()
    lost = max(truths[one.id] for one in race.contenders) > max(truths[name] for name in race.alive())
    choice = race.choice()
    assert choice is not None
    first, twin = choice.winner, "alone" if choice.winner == "default" else "twin"
    race.kept.add(twin)
    if twin == "twin":
        truths["twin"] = truths[first]
        race.contenders.append(Contender("twin", 1))
    confirm()
    choice = race.choice()
    assert choice is not None
    winner = choice.winner
    finals = dict.fromkeys([winner, first, twin, *arms])
    seen = Images(draw, len(names), TEST)
    tested = {name: seen.seeds(names.index(name), truths[name], spread) for name in finals}
    design = Design(TEST, crossed=True)
    noise = noise_of(tested.values(), design)
    gain = difference(tested[winner], tested["default"], design, noise, least=TEST**-2)
    taught = difference(tested[first], tested[twin], design, noise, least=TEST**-2)
    on_splits = race.difference(first, twin)
    assert gain is not None
    assert taught is not None
    assert on_splits is not None
    shown = race.difference(winner, "default")
    return Found(
        winner != "default",
        lost,
        truths[winner] - accuracy,
        shown.mean if shown else 0.0,
        winner != "default" and gain.reliable,
        taught.mean,
        on_splits.mean,
        taught.reliable,
    )


def spread_out(
    draw: np.random.Generator, accuracy: float, spread: float, mean: float, deviation: float, top_k: int, gates: Gates
) -> list[tuple[float, bool, bool]]:
    """One search of trials whose true effects are normal: of each gate the true gain, whether another than the default
    won, and whether it is worse than that by more than half a point.
    """
    truths = {"default": accuracy, "alone": accuracy - 0.003, "linear": accuracy - 0.03}
    truths |= {f"trial-{number}": accuracy + mean + deviation * draw.standard_normal() for number in range(TRIALS)}
    names = list(truths)
    images = Images(draw, len(names), FOLDS * VAL)
    explored = {name: images.run(names.index(name), truths[name], spread, of_fold(0)) for name in names[3:]}
    best = sorted(explored, key=lambda name: explored[name].accuracy, reverse=True)[:top_k]
    race = Race([Contender(name, 1) for name in [*names[:3], *best]], FOLDS, FOLDS * VAL, "default", VAL)
    while (pair := race.next()) is not None:
        name, fold = pair
        race.add(name, fold, images.run(names.index(name), truths[name], spread, of_fold(fold)))
    found = []
    for gate in gates.values():
        choice = gate(**{one.name: getattr(race, one.name) for one in fields(race)}).choice()
        assert choice is not None
        gain = truths[choice.winner] - accuracy
        found.append((gain, choice.winner != "default", gain < -0.005))
    return found


def gated(part: float) -> type[Race]:
    """A race whose gate lets luck pass in that part of the searches at most."""

    class Gated(Race):
        def beats_default(self, contender: str) -> bool:
            gain, rivals = self.difference(contender, self.default), len(self.contenders) - 1
            return contender != self.default and gain is not None and gain.mean > gain.bound(1 - part / rivals)

    return Gated


GATES: Gates = {**{f"{100 * part:.0f} %": gated(part) for part in (0.05, 0.1, 0.2, 0.3)}, "one error": OldGate}


def recorded(task: str) -> tuple[int, int]:
    """Pairs of recorded configs, and how many intervals over folds cover their difference on test.

    That difference is itself a mean over five runs only, and on other images, so that fewer are covered than should be.
    """
    curves = list(curves_of(read(SHIPPED), task).values())[::4]
    runs = [{fold: Outcome(run.val_accuracy[-1]) for fold, run in one.runs.items()} for one in curves]
    design, covered, pairs = Design(FOLDS * VAL, crossed=False), 0, 0
    for start in range(0, len(curves) - 5, 5):
        group = range(start, start + 6)
        noise = noise_of([runs[one] for one in group], design)
        for one, other in itertools.combinations(group, 2):
            found = difference(runs[one], runs[other], design, noise, least=VAL**-2)
            assert found is not None
            low, high = found.interval
            covered += low <= curves[one].truth - curves[other].truth <= high
            pairs += 1
    return pairs, covered


def tables(repeats: int, searches: int) -> Iterator[str]:
    """The report, line by line."""
    draw = np.random.default_rng(0)
    yield "| on | accuracy | run to run | covered, % | half width, points | claimed, % | power at +3 points, % |"
    yield "|---|---|---|---|---|---|---|"
    for crossed, accuracy, spread in itertools.product((False, True), LEVELS, (*SPREADS, None)):
        spreads = [0.006] * 4 + [0.025] if spread is None else [spread] * 5
        same = coverage(draw, accuracy, spreads, crossed, 0.0, repeats)
        gains = coverage(draw, accuracy, spreads, crossed, 0.03 if accuracy < 0.9 else 0.01, repeats // 2)
        named = "one of 2.5, others 0.6" if spread is None else f"{100 * spread:.1f}"
        power = f"{100 * gains.claimed / gains.pairs:.0f}" + ("" if accuracy < 0.9 else " (+1)")
        yield f"| {'test' if crossed else 'splits'} | {accuracy} | {named} | {same.row()} | {power} |"
    yield ""
    yield (
        "| accuracy | run to run | top-k | better by | winner is not the default, % | true gain | at one error: not "
        "the default, % | its true gain | shown when won | reliable on test, % | best raced out, % | teacher on test: "
        "mean, reliable % | teacher on splits: mean |"
    )
    yield "|" + "---|" * 13
    cases = [(a, s, k, 0.0) for a in LEVELS for s in (0.006, 0.025) for k in (2, 5)]
    cases += [(0.78, 0.006, k, better) for k in (2, 5) for better in (0.02, 0.04, 0.06)]
    for accuracy, spread, top_k, better in cases:
        found = [search(draw, accuracy, spread, top_k, better, Race) for _ in range(searches)]
        old = [search(draw, accuracy, spread, top_k, better, OldGate) for _ in range(searches // 2)]
        shown = [one.shown for one in found if one.won]
        cells = [
            f"{accuracy} | {100 * spread:.1f} | {top_k} | {100 * better:.0f}",
            f"{_percent([one.won for one in found])} | {_points([one.gain for one in found])}",
            f"{_percent([one.won for one in old])} | {_points([one.gain for one in old])}",
            f"{_points(shown) if shown else '-'} | {_percent([one.reliable for one in found])}",
            f"{_percent([one.lost_best for one in found])}",
            f"{_points([one.taught for one in found])}, {_percent([one.helped for one in found])}",
            f"{_points([one.taught_on_splits for one in found])}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"| accuracy | run to run | top-k | effects | {' | '.join(GATES)} |"
    yield "|" + "---|" * (4 + len(GATES))
    effects = ((-0.02, 0.01), (-0.01, 0.015), (0.0, 0.02))
    for accuracy, spread, top_k, (mean, deviation) in itertools.product((0.78,), (0.006, 0.02), (2, 5), effects):
        all_of_them = [spread_out(draw, accuracy, spread, mean, deviation, top_k, GATES) for _ in range(searches)]
        cells = []
        for of_gate in zip(*all_of_them, strict=True):
            gains, won, worse = zip(*of_gate, strict=True)
            cells.append(f"{_points(gains)}, {100 * statistics.fmean(won):.0f}, {100 * statistics.fmean(worse):.1f}")
        about = f"{100 * mean:+.1f} ± {100 * deviation:.1f}"
        yield f"| {accuracy} | {100 * spread:.1f} | {top_k} | {about} | {' | '.join(cells)} |"
    yield ""
    for task in ("digits", "sprites_loc"):
        pairs, covered = recorded(task)
        yield f"Recorded curves of {task}: {100 * covered / pairs:.1f} % of {pairs} pairs covered."


def _percent(flags: Sequence[bool]) -> str:
    part = statistics.fmean(flags)
    return f"{100 * part:.1f} ± {100 * math.sqrt(part * (1 - part) / len(flags)):.1f}"


def _points(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):+.2f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000, help="pairs per row of the first table")
    parser.add_argument("--searches", type=int, default=500, help="searches per row of the second")
    asked = parser.parse_args()
    for line in tables(asked.repeats, asked.searches):
        print(line, flush=True)


if __name__ == "__main__":
    main()
