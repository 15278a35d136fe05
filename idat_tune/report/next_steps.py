"""What to do next, from what a search has shown."""

from collections.abc import Iterator
from typing import Any

from idat_tune.journal import FAILED
from idat_tune.report import words
from idat_tune.report.evidence import Evidence
from idat_tune.report.explored import rises
from idat_tune.report.mistakes import suspicious
from idat_tune.report.page import Html, bullets
from idat_tune.space import Range

EDGE = 0.05  # of a range, as part of its width
MANY_FAILED = 0.1  # of the trials


def next_steps(evidence: Evidence) -> Html:
    """Advice, the most useful first; each with what it rests on."""
    return bullets(_advice(evidence))


def _advice(evidence: Evidence) -> Iterator[str]:
    result, winner = evidence.result, evidence.winner
    failed = [record for record in evidence.explored if record.status == FAILED]
    if failed and len(failed) >= MANY_FAILED * len(evidence.explored):
        yield f"{len(failed)} of {len(evidence.explored)} trials failed; the first reason: {failed[0].reason}"
    if result.get("unfinished"):
        yield f"The same command goes on: idat-tune search --config search.yaml --name {evidence.name}"
    if winner is None:
        return
    if not evidence.content.get("confirm.folds"):
        yield "Search without --no-confirm: then the choice rests on several splits instead of one."
    yield from _teacher(evidence)
    yield from _smallest(result["smallest"], evidence.name)
    yield from _edges(evidence, winner["config"])
    if rises(evidence.explored):
        yield "Trials still got better in their last epochs: give them more, with --epochs."
    test = evidence.comparison("winner", "default", "test")
    if test and not test["reliable"]:
        yield (
            f"The gain on test rests on {words.pairs(test)}; a new search with more --seeds has a narrower interval. "
            "(This one's test is open: going on with it would choose knowing the answer.)"
        )
    said = evidence.out_of_fold
    whole = [
        one for one in said.values() if winner["trial"] in said and (one.known >= said[winner["trial"]].known).all()
    ]
    doubtful = len(suspicious(whole)) if whole else 0
    if doubtful:
        images = words.plural(doubtful, "image")
        yield f"Look at the {images} whose label looks wrong; correct what is, and import the images again."
    if winner["test_accuracy"]:
        best = words.path(evidence.folder / "best")
        yield f'Use the student: idat_tune.load("{best}") in Python, or predict as above.'


def _teacher(evidence: Evidence) -> Iterator[str]:
    found = evidence.comparison("winner", "winner_alone", "test")
    if found and not (found["reliable"] and found["mean"] > 0):
        yield (
            f"The teacher brought nothing beyond the noise ({words.points(found['mean'])} points on test): "
            "without one, --set teacher=none, the next search is faster."
        )


def _smallest(found: Any, name: str) -> Iterator[str]:
    if found:
        params = found["trainable_params"]
        yield (
            f"{found['trial']} is as good within the noise with {params:,} parameters "
            f"({words.points(found['difference']['mean'])} points on the splits): "
            f"idat-tune export {name} --max-params {params} --to DIR"
        )


def _edges(evidence: Evidence, config: dict[str, Any]) -> Iterator[str]:
    """Settings of the winner at the end of what was searched."""
    for param in evidence.params:
        domain, chosen = param.domain, config.get(param.key)
        if not param.active(config) or not isinstance(chosen, int | float) or isinstance(chosen, bool):
            continue
        if isinstance(domain, Range):
            from idat_tune.report.scales import Scale

            place = Scale(domain.low, domain.high, (), domain.log).at(chosen)
            end = domain.low if place < EDGE else domain.high if place > 1 - EDGE else None
        else:
            known = sorted(one for one in domain.values if isinstance(one, int | float))
            end = chosen if len(known) > 2 and chosen in (known[0], known[-1]) else None
        if end is not None:
            what = f"{param.key} of the winner, {words.value(chosen)}"
            yield f"{what}, lies at the end of what was searched ({domain}): search beyond it."
