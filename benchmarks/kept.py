"""Finished runs in a file, so that a benchmark that was stopped goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Kept:
    """What runs came to, by what they were: a JSON line for each, added as it ends."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.known: dict[str, dict[str, Any]] = {line["key"]: line for line in map(json.loads, lines)}

    def __call__(self, what: Any, measured: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What the run of that key (plain values) came to; measured only if it is not known."""
        key = json.dumps(what, sort_keys=True)
        if key not in self.known:
            self.known[key] = {"key": key, **measured()}
            with self.file.open("a") as file:
                print(json.dumps(self.known[key]), file=file)
        return self.known[key]

    def total(self, name: str) -> float:
        """The sum of what is kept under a name."""
        return sum(line.get(name, 0.0) for line in self.known.values())
