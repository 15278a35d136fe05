"""The page of one task: the verdict, the evidence for it, where it goes wrong, what to do next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from idat_tune.journal import Journal
from idat_tune.report import appendix, explored, words
from idat_tune.report.contenders import contenders
from idat_tune.report.evidence import Evidence
from idat_tune.report.inside import inside
from idat_tune.report.mistakes import mistakes
from idat_tune.report.next_steps import next_steps
from idat_tune.report.page import Html, Tile, code, page, paragraph, section, tag, tiles

FILE = "report.html"  # in the search folder


def write(folder: Path, content: Mapping[str, Any], journal: Journal, result: Mapping[str, Any] | None = None) -> Path:
    """Write the page of a search into its folder, all at once; returns where it is.

    Args:
        folder: of the search.
        content: of its manifest.
        journal: of the search.
        result: what came out, where the journal does not have it yet.
    """
    path = folder / FILE
    text = of_task(Evidence.of(folder, content, journal, result))
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def of_task(evidence: Evidence) -> str:
    """The page as text."""
    from idat_tune.report.importance import importance  # which imports Optuna

    result = evidence.result
    return page(
        title(result),
        *_head(evidence),
        section("Against the default", contenders(evidence)),
        section("Where it goes wrong", mistakes(evidence)),
        section("What was searched", explored.strips(evidence)),
        section("Learning curves", explored.curves(evidence)),
        section("What mattered", importance(evidence) if any(one.epochs for one in evidence.explored) else ""),
        section("What to do next", next_steps(evidence)),
        section(
            "For the record",
            appendix.weights(evidence),
            inside(evidence),
            appendix.protocol(evidence, _again(evidence)),
        ),
        kicker=f"{evidence.title} · search {evidence.name} · {str(evidence.content['created'])[:10]}",
        footer=f"Made by idat-tune {evidence.content['versions'].get('idat-tune', '')} from the search's files alone.",
    )


def title(result: Mapping[str, Any]) -> str:
    """The verdict in a line."""
    winner = result["winner"]
    if winner is None:
        return "The search has not ended yet." if result.get("unfinished") else "There is no student to hand over."
    if "default" in _names(result, winner["trial"]):
        return "Keep the default settings."
    test = _against_default(result, "test")
    if test is None:
        confirm = _against_default(result, "confirm")
        if confirm is None:
            return "A winner, with nothing to compare it with."
        return f"Not tested yet: {words.points(confirm['mean'])} points on the splits."
    gain = f"{words.points(test['mean'])} points on test"
    if test["interval"] is None:
        return f"Tuning: {gain}, too few seeds to be sure."
    if not test["reliable"]:
        return f"No reliable gain from tuning: {gain}, within the noise."
    return f"Tuning paid: {gain}." if test["mean"] > 0 else f"Tuning did not pay: {gain}."


def _names(result: Mapping[str, Any], trial: str) -> list[str]:
    return [name for name, arm in result["arms"].items() if arm and arm["trial"] == trial]


def _against_default(result: Mapping[str, Any], split: str) -> Mapping[str, Any] | None:
    wanted = ("winner", "default", split)
    return next((one for one in result["comparisons"] if (one["ours"], one["theirs"], one["split"]) == wanted), None)


def _head(evidence: Evidence) -> Iterator[Html]:
    result, winner = evidence.result, evidence.winner
    if winner is None:
        yield paragraph(f"{result['verdict'][:1].upper()}{result['verdict'][1:].rstrip('.')}.")
        yield tiles([_cost(evidence)])
        return
    what = "The default" if "default" in _names(result, winner["trial"]) else "The winner"
    yield paragraph(
        f"{what}, {winner['trial']}: ",
        tag("code", words.brief(winner["config"])),
        f" on {winner['config']['student']}.",
    )
    for sentence in (_teacher(evidence), _unconfirmed(evidence)):
        if sentence:
            yield paragraph(sentence)
    yield tiles([_test(evidence), _paid(evidence), _home(evidence), _cost(evidence)])
    if winner["test_accuracy"]:
        yield code(f"idat-tune predict {words.typed(evidence.folder / 'best')} IMAGE...")


def _teacher(evidence: Evidence) -> str:
    """Whether the teacher helped, with its price."""
    for ours, theirs, subject in (
        ("winner", "winner_alone", "Its teacher brought"),
        ("winner_with_teacher", "winner", "It has no teacher; with one it came to"),
        ("default", "alone", "The default's teacher brought"),
    ):
        found = evidence.comparison(ours, theirs, "test") or evidence.comparison(ours, theirs, "confirm")
        if found:
            where = "on test" if found["split"] == "test" else "on the splits"
            said = f"{subject} {words.compared(found)} {where}, against the same config alone."
            return said + _price(evidence.result)
    return ""


def _price(result: Mapping[str, Any]) -> str:
    price = result["teacher_cost"]
    if not price or price["time"] is None:
        return ""
    memory = f"{price['memory']:.1f} times the memory{'' if price['memory_measured'] else ' (predicted)'}"
    return f" Training with it takes {price['time']:.1f} times the time and {memory}."


def _unconfirmed(evidence: Evidence) -> str:
    if evidence.content.get("confirm.folds"):
        return ""
    return "Unconfirmed: it was chosen on one val split alone, by whose luck it is partly there."


def _test(evidence: Evidence) -> Tile:
    assert evidence.winner is not None
    found, default = evidence.winner["test_accuracy"], evidence.result["arms"].get("default") or {}
    if found is None:
        return Tile("Test accuracy", "not opened", "the test split is sealed until the winner is trained")
    against = default.get("test_accuracy")
    spread = "" if found["std"] is None else f"± {100 * found['std']:.2f} over "
    same = "default" in _names(evidence.result, evidence.winner["trial"])
    beside = f"; the default {words.accuracy(against['mean'])}" if against and not same else ""
    return Tile(
        "Test accuracy", words.accuracy(found["mean"]), f"{spread}{words.plural(found['seeds'], 'seed')}{beside}"
    )


def _paid(evidence: Evidence) -> Tile:
    asked = "Did tuning pay?"
    assert evidence.winner is not None
    if "default" in _names(evidence.result, evidence.winner["trial"]):
        return Tile(asked, "No", "nothing beat the default beyond the noise")
    test, confirm = (_against_default(evidence.result, split) for split in ("test", "confirm"))
    found = test or confirm
    if found is None:
        return Tile(asked, "Unknown", "the default was not measured")
    where = "test" if test else "the splits"
    noise = "" if found["reliable"] or found["interval"] is None else ", within the noise"
    return Tile(asked, f"{words.points(found['mean'])} points", f"95 %: {words.interval(found)}, on {where}{noise}")


def _home(evidence: Evidence) -> Tile:
    assert evidence.winner is not None
    params, config = evidence.winner["trainable_params"], evidence.winner["config"]
    count = "-" if params is None else f"{params:,}"
    held = evidence.folder / "best" / "adapter.safetensors"
    size = f", {held.stat().st_size / 1e3:,.0f} kB" if held.is_file() else ""
    return Tile("What you take home", count, f"trained parameters{size}, on a frozen {config['student']}")


def _cost(evidence: Evidence) -> Tile:
    result = evidence.result
    counts, openings = result["trials"], result["test_openings"]
    opened = {0: "test not opened", 1: "test opened once"}.get(openings, f"test opened {openings} times")
    return Tile("Cost", words.duration(result["seconds"]), f"{words.plural(sum(counts.values()), 'trial')}; {opened}")


def _again(evidence: Evidence) -> str:
    folder = evidence.folder
    return f"idat-tune search --config {words.typed(folder / 'search.yaml')} --name {folder.name}-again"
