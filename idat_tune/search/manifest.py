"""A search's manifest: what it is, what it ran on, and every opening of its test split."""

import datetime
import fcntl
import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from idat_tune import __version__
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, TEST, Journal, TrialRecord
from idat_tune.search.confirm import contender
from idat_tune.search.plan import Plan, test_id

NAME = "manifest.json"  # in the search folder
JOURNAL = "journal.jsonl"  # likewise
FORMAT = 1  # of the file; one with a higher number was written by a version that knows more
PACKAGES = ("torch", "timm", "ray", "optuna", "mlflow")


class Manifest:
    """manifest.json of a search folder; every change is on the disk before anything follows from it."""

    def __init__(self, plan: Plan, data_hash: str, weights: Mapping[str, Mapping[str, Any]] | None = None):
        """Begin it or go on with it; `weights` are those of the backbones, as `weights.Identity.as_dict` has them."""
        self.path = plan.folder / NAME
        fresh = {
            "format": FORMAT,
            **plan.identity(),
            "name": plan.name,
            "data_hash": data_hash,
            "weights": dict(weights or {}),
            "left_out": [list(one) for one in plan.left_out],
            "created": _now(),
            "versions": {
                "python": platform.python_version(),
                "idat-tune": __version__,
                **{name: version(name) for name in PACKAGES},
            },
            "search_id": uuid.uuid4().hex,
            "parent_run": "",
            "explored": False,
            "spent": {"seconds": 0.0, "gpu_seconds": 0.0},
            "ended_by": None,
            "precision": None,  # what `auto` came to, for all trials
            "stacked": 1,  # the most trials that trained in one process
            "winner": None,
            "test_openings": [],
            "reopen": False,
            "hints": plan.hints,
            "result": None,
            "trained_again": [],  # final runs whose tensors were lost after their test
        }
        self.content: dict[str, Any] = fresh | (_read(self.path) if self.path.exists() else {})
        _check(plan, self.content, data_hash)
        self._go_on(plan)
        self.content |= {
            "name": plan.name,
            "sampler": plan.config.explore.sampler,
            "stopping": plan.config.explore.stopping,
        }
        self.save()

    def _go_on(self, plan: Plan) -> None:
        """Take back what was decided, as far as more was asked for than it was decided on."""
        more = [option for option, _, _ in _more(plan, self.content)]
        if "trials" in more:
            self.content |= {"explored": False, "winner": None}
        if self.test_openings and plan.config.final.reopen_test and (more or self.content["result"]):
            self.content["reopen"] = True  # kept, so that a restart does it too
        if more or self.content["reopen"]:
            self.content["result"] = None
        for key, value in (("trials", plan.config.explore.trials), ("seeds", plan.config.final.seeds)):
            self.content[key] = max(value, self.content.get(key, value)) if self.content["winner"] else value

    @property
    def test_openings(self) -> list[dict[str, Any]]:
        """When the test split was opened, and for which winner: once, or never yet; more often only on request."""
        return self.content["test_openings"]

    def winner(self, journal: Journal) -> TrialRecord | None:
        """The trial that was chosen; None while the search is exploring or confirming."""
        chosen = self.content["winner"]
        return contender(journal, chosen, self.content["seed"]) if chosen else None

    def open_test(self) -> None:
        """Record that the test split is opened for the winner."""
        by = "--reopen-test" if self.test_openings else "final run"
        opening = {"time": _now(), "winner": self.content["winner"], "by": by}
        self.content["reopen"] = False
        self.set("test_openings", [*self.test_openings, opening])

    @property
    def to_open(self) -> bool:
        """Whether the test split was never opened, or is to be opened once more on request."""
        return not self.test_openings or self.content["reopen"]

    def cut_short(self, journal: Journal) -> bool:
        """Whether the last opening was for this winner and brought no result: going on is the same opening."""
        if not self.test_openings or self.test_openings[-1]["winner"] != self.content["winner"]:
            return False
        finished = [record.id for record in journal.of(TEST) if record.status == COMPLETE]
        return test_id(len(self.test_openings)) not in finished

    def hinted(self, plan: Plan) -> Plan:
        """The plan with the hints that the search began with, so that it goes on with the same trials."""
        hints = json.loads(json.dumps(self.content["hints"]))
        return replace(plan, hints=tuple((name, tuple((key, value) for key, value in point)) for name, point in hints))

    def set(self, key: str, value: Any) -> None:
        """Change one entry and save."""
        self.content[key] = value
        self.save()

    def save(self) -> None:
        """Write the file, replacing it at once."""
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(json.dumps(self.content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file under the final name
        partial.replace(self.path)


def check_resumable(plan: Plan, data_hash: str) -> None:
    """Refuse a plan under the name of a search that was begun otherwise; changes nothing.

    Raises:
        BadInput: naming the difference, or that its manifest is damaged, or that its test was opened for less.
    """
    path = plan.folder / NAME
    if path.exists():
        _check(plan, _read(path), data_hash)
    elif (journal := plan.folder / JOURNAL).exists() and journal.stat().st_size:
        raise BadInput(
            f"{path} is gone, which says what search '{plan.name}' is and whether its test was opened; "
            "put it back, or give this search another --name"
        )


def begun(plan: Plan) -> dict[str, Any]:
    """What the manifest of a search holds that was begun; nothing of one that was not.

    Raises:
        BadInput: it is damaged.
    """
    path = plan.folder / NAME
    return _read(path) if path.exists() else {}


def check_same(plan: Plan, content: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse what differs between a manifest and what is wanted.

    Raises:
        BadInput: naming the difference.
    """
    for key, value in json.loads(json.dumps(wanted)).items():
        if content.get(key) != value:
            if key == "data_hash":
                raise BadInput(
                    f"search '{plan.name}' was begun with other images of {plan.task.name} than are there now; import "
                    "those again, or give this search another --name"
                )
            raise BadInput(
                f"search '{plan.name}' was begun with another {key} ({_difference(content.get(key), value)}); "
                "resume it as it was begun, or give this one another --name"
            )


def _check(plan: Plan, content: Mapping[str, Any], data_hash: str) -> None:
    check_same(plan, content, {**plan.identity(), "data_hash": data_hash})
    for option, was, now in _more(plan, content):
        if content.get("test_openings") and not plan.config.final.reopen_test:
            raise BadInput(
                f"search '{plan.name}' has opened its test split with --{option} {was}, so it cannot go on to "
                f"{now}: that would choose knowing the test; --reopen-test does it all the same and records it, "
                "or give a new search another --name"
            )


def _more(plan: Plan, content: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """What is asked for beyond what was asked before: option, before, now."""
    known = {"trials": plan.config.explore.trials, "seeds": plan.config.final.seeds}
    return [(key, content[key], value) for key, value in known.items() if value > content.get(key, value)]


class _Spent(BaseModel):
    seconds: float
    gpu_seconds: float


class _Opening(BaseModel):
    winner: str


class _Result(BaseModel):
    winner: dict[str, Any]
    arms: dict[str, Any]
    verdict: str
    test_openings: int


class _Entries(BaseModel):
    """What stands in a manifest, as far as code relies on it; identity is compared, not checked."""

    model_config = ConfigDict(strict=True)

    format: int = FORMAT
    data_hash: str = ""
    search_id: str = ""
    parent_run: str = ""
    explored: bool = False
    reopen: bool = False
    spent: _Spent = _Spent(seconds=0.0, gpu_seconds=0.0)
    ended_by: str | None = None
    precision: Literal["bf16", "fp32"] | None = None
    stacked: PositiveInt = 1
    trials: PositiveInt = 1
    seeds: PositiveInt = 1
    winner: str | None = None
    test_openings: list[_Opening] = []
    trained_again: list[str] = []
    hints: list[tuple[str, list[tuple[str, Any]]]] = []
    left_out: list[tuple[str, str]] = []
    weights: dict[str, dict[str, Any]] = {}
    result: _Result | None = None


def _read(path: Path) -> dict[str, Any]:
    """What a manifest holds.

    Raises:
        BadInput: it is damaged, or of a newer version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text)
        if isinstance(content, dict) and _is_newer(content):
            raise BadInput(
                f"{path} was written by a newer idat-tune (format {content['format']}, this one knows {FORMAT}); "
                "update idat-tune, or give this search another --name"
            )
        _Entries.model_validate_json(text)
    except ValidationError as failure:
        wrong = failure.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the whole of it"
        raise _damaged(path, f"{where}: {wrong['msg']}, not {_short(json.dumps(wrong['input']))}") from None
    except (ValueError, RecursionError) as failure:
        raise _damaged(path, str(failure)) from None
    except OSError as failure:
        raise BadInput(f"{path} cannot be read: {failure.strerror}; give this search another --name") from None
    assert isinstance(content, dict)
    return content


def _is_newer(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("format"), int) and content["format"] > FORMAT


def _damaged(path: Path, how: str) -> BadInput:
    return BadInput(f"{path} is damaged ({how}); put that right, or give this search another --name")


def check_writable(out: Path) -> None:
    """Refuse an --out in which no folder can be made; makes none itself.

    Raises:
        BadInput: it, or the nearest folder above it that exists, cannot be written, or its name is not UTF-8.
    """
    try:
        str(out).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(out).decode(errors="replace")
        raise BadInput(f"--out {shown} is not UTF-8, which the tracking store needs; choose another folder") from None
    nearest = next(folder for folder in (out, *out.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise BadInput(f"--out {out} cannot be written: {nearest} is no folder that takes files; choose another")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a search folder and hold it: no second search may use it at the same time.

    Raises:
        BadInput: the folder cannot be written, or a running search holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as failure:
        raise BadInput(f"--out {folder.parent} cannot be written: {failure.strerror}; choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"search '{folder.name}' is running already; wait for it, or give another --name") from None
        yield


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return f"{key}: {_difference(old.get(key), new.get(key))}"
    return f"{_short(old)}, not {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
