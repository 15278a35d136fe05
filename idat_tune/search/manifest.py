"""A search's manifest: what the search is, which a resume must have in common with its beginning."""

import datetime
import getpass
import glob
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from idat_tune import __version__, tracking
from idat_tune.errors import BadInput
from idat_tune.journal import Journal
from idat_tune.search.plan import Plan

NAME = "manifest.json"  # in the search folder
JOURNAL = "journal.jsonl"  # likewise
FORMAT = 3  # of both files; a manifest with a higher number was written by a version that knows more
OLDEST = 2  # that can be gone on with; its runs have no hits
PACKAGES = ("torch", "timm", "ray", "optuna", "mlflow")


class Manifest:
    """manifest.json of a search folder, written once."""

    def __init__(self, plan: Plan, data_hash: str, weights: Mapping[str, Mapping[str, Any]] | None = None):
        """Begin it or read it; `weights` are those of the backbones, as `weights.Identity.as_dict` has them.

        Raises:
            BadInput: it is damaged, or the search was begun otherwise.
        """
        self.path = plan.folder / NAME
        there = self.path.exists()
        fresh = {
            "format": FORMAT,
            **plan.identity(),
            "data_hash": data_hash,
            "weights": dict(weights or {}),
            "left_out": [list(one) for one in plan.left_out],
            "hints": [[name, dict(point)] for name, point in plan.hints],
            "search_id": uuid.uuid4().hex,
            "origin": _origin(),
            "place": tracking.place(plan.out),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {
                "python": platform.python_version(),
                "idat-tune": __version__,
                **{name: version(name) for name in PACKAGES},
            },
        }
        self.content: dict[str, Any] = _read(self.path) if there else fresh
        check_same(plan, self.content, {**plan.identity(), "data_hash": data_hash})
        if not there:
            self._save()

    def hinted(self, plan: Plan) -> Plan:
        """The plan with the hints that the search began with, so that it goes on with the same trials."""
        return replace(plan, hints=tuple((name, tuple(point.items())) for name, point in self.content["hints"]))

    def _save(self) -> None:
        """Write the file, all at once."""
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            file.write(json.dumps(self.content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file under the final name
        partial.replace(self.path)


def _origin() -> dict[str, str]:
    """Who begins a search, by what, and in which state of the code that they stand in, as MLflow's tags."""
    found = {"mlflow.source.name": "idat-tune search", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError):  # a user without a name
        found["mlflow.user"] = getpass.getuser()
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=2)
        found["mlflow.source.git.commit"] = asked.stdout.strip()
    return found


def check_resumable(plan: Plan, data_hash: str) -> None:
    """Refuse a plan under the name of a search that was begun otherwise; changes nothing.

    Raises:
        BadInput: naming the difference, or that one of its files is damaged, or that its test was opened for less.
    """
    path, journal = plan.folder / NAME, plan.folder / JOURNAL
    begun_before = path.exists(), journal.exists()
    if begun_before == (True, False):
        raise BadInput(
            f"{journal} is gone, which has the trials of search '{plan.name}' and says whether its test was opened; "
            "put it back, or give this search another --name"
        )
    if begun_before == (False, True) and journal.stat().st_size:
        raise BadInput(
            f"{path} is gone, which says what search '{plan.name}' is; put it back, or give this search another --name"
        )
    if all(begun_before):
        check_same(plan, _read(path), {**plan.identity(), "data_hash": data_hash})
        check_openings(plan, Journal(journal))


def check_openings(plan: Plan, journal: Journal) -> None:
    """Refuse to ask for more of a search that has opened its test, unless that is wished.

    Raises:
        BadInput: naming the option.
    """
    asked = plan.config
    for option, was, now in journal.state.more(asked.explore.trials, asked.final.seeds):
        if journal.state.openings and not asked.final.reopen_test:
            raise BadInput(
                f"search '{plan.name}' has opened its test split with --{option} {was}, so it cannot go on to "
                f"{now}: that would choose knowing the test; --reopen-test does it all the same and records it, "
                "or give a new search another --name"
            )


def begun(plan: Plan) -> dict[str, Any]:
    """What the manifest of a search holds that was begun; nothing of one that was not.

    Raises:
        BadInput: it is damaged.
    """
    path = plan.folder / NAME
    return _read(path) if path.exists() else {}


def of_folder(folder: Path) -> dict[str, Any]:
    """What the manifest of a search holds that was begun in that folder.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    if not (folder / NAME).is_file() or not (folder / JOURNAL).is_file():
        known = sorted(path.parent.name for path in folder.parent.glob(f"*/{JOURNAL}"))
        there = f"; there are {', '.join(known)}" if known else ""
        raise BadInput(f"no search at {folder}{there}; --out names the folder that holds searches")
    return _read(folder / NAME)


def searches_of(out: Path, name: str) -> dict[Path, dict[str, Any]]:
    """Folder and manifest of the search of that name, or of those that were begun together under it, a task each.

    Raises:
        BadInput: there is none, or a manifest is damaged.
    """
    folder = out / name
    if not (folder / NAME).is_file():
        folders = [path.parent for path in sorted(out.glob(f"{glob.escape(name)}-*/{NAME}"))]
        parts = {one: of_folder(one) for one in folders}
        parts = {one: content for one, content in parts.items() if one.name == f"{name}-{content['task']}"}
        if parts:
            return parts
    return {folder: of_folder(folder)}


def is_finished(plan: Plan) -> bool:
    """Whether nothing of a search is left to do but to read it.

    Raises:
        BadInput: its journal is damaged.
    """
    asked = plan.config
    state = Journal(plan.folder / JOURNAL).state
    return state.finished_for(asked.explore.trials, asked.final.seeds, asked.final.reopen_test)


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


class _Entries(BaseModel):
    """What stands in a manifest, as far as code relies on it; identity is compared, not checked."""

    model_config = ConfigDict(strict=True)

    format: int
    data_hash: str
    search_id: str
    hints: list[tuple[str, dict[str, Any]]]
    left_out: list[tuple[str, str]]
    weights: dict[str, dict[str, Any]]


def _read(path: Path) -> dict[str, Any]:
    """What a manifest holds.

    Raises:
        BadInput: it is damaged, or of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text)
        if isinstance(content, dict):
            _check_format(path, content)
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


def _check_format(path: Path, content: Mapping[str, Any]) -> None:
    written = content.get("format", 1)
    if isinstance(written, int) and written > FORMAT:
        raise BadInput(
            f"{path} was written by a newer idat-tune (format {written}, this one knows {FORMAT}); "
            "update idat-tune, or give this search another --name"
        )
    if isinstance(written, int) and written < OLDEST:
        raise BadInput(
            f"{path} was written by an older idat-tune (format {written}, this one writes {FORMAT}); its tables and "
            "its student can be used as they are; to go on with it take that version, or give this one another --name"
        )


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


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
        return f"{key}: {_difference(old.get(key), new.get(key))}"
    return f"{_short(old)}, not {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
