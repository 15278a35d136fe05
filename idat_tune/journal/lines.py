"""The journal's file: a line of JSON per finished trial and per decision, each on the disk before anything follows."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from idat_tune.errors import BadInput
from idat_tune.journal.records import FINAL, TEST, TrialRecord
from idat_tune.journal.state import Decision, State
from idat_tune.metrics import write_table


class Journal:
    """A line that a crash cut short is dropped, and its trial runs again.

    Where a trial stands twice, because a failure in the final run was tried again, the later line counts.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        """Read what is there; nothing is written before the first line is."""
        self.path = path
        self.clock = clock
        self.state = State()
        self.length = 0  # lines
        self._followed = 0  # bytes that `follow` has been through
        self._records: dict[str, TrialRecord] = {}
        self._cut_short = 0  # bytes of a last line that is none
        self._unended = False  # whether the last line wants its newline, as an editor may leave it
        if path.is_file():
            self._read()

    def _read(self) -> None:
        try:
            *whole, rest = self.path.read_bytes().split(b"\n")
        except OSError as failure:
            raise BadInput(f"{self.path} cannot be read: {failure.strerror}; give this search another --name") from None
        for number, line in enumerate(whole, start=1):
            try:
                self._take(_entry(line))
            except _DAMAGE as failure:
                how = f"{failure} is missing" if isinstance(failure, KeyError) else str(failure)
                decided = any(b'"decision": "winner"' in one for one in whole)  # by what that line said, too
                way_out = (
                    "put it back as it was, or give this search another --name"
                    if decided or b'"decision"' in line
                    else "delete that line: its trial then was not run"
                )
                raise BadInput(f"{self.path}, line {number} is damaged ({how}); {way_out}") from None
        if rest:
            try:
                self._take(_entry(rest))
                self._unended = True
            except _DAMAGE:
                self._cut_short = len(rest)

    def _take(self, entry: TrialRecord | Decision) -> None:
        self.length += 1
        self.state.take(entry)
        if isinstance(entry, TrialRecord):
            self._records[entry.id] = entry

    @classmethod
    def remembered(cls, records: Iterable[TrialRecord]) -> Self:
        """A journal of those records that no file holds."""
        journal = cls(Path())
        for record in records:
            journal._take(record)
        return journal

    @classmethod
    def followed(cls, path: Path) -> Self:
        """The journal that another process writes, of which nothing is known until `follow` is called."""
        journal = cls(Path())
        journal.path = path
        return journal

    def follow(self) -> None:
        """Take in the lines that were added since the last time; one that is not whole yet comes with the next.

        Raises:
            ValueError, TypeError, KeyError: a line is damaged, which whoever writes it was told when it began.
        """
        with self.path.open("rb") as file:
            file.seek(self._followed)
            *whole, _ = file.read().split(b"\n")
        for line in whole:
            if line:
                self._take(_entry(line))
            self._followed += len(line) + 1

    def make(self) -> None:
        """The file, without a line, if there is none."""
        if not self.path.exists():
            self.path.touch()

    def append(self, record: TrialRecord) -> None:
        """Write a finished trial; it is on the disk when this returns.

        Raises:
            OSError: the disk is full, for one; of the line nothing is left then.
        """
        record = replace(record, ended=self.clock())
        self._write(asdict(record))
        self._take(record)

    def decide(self, kind: str, **about: Any) -> None:
        """Write a decision; raises as `append` does."""
        decision = Decision(kind, about, self.clock())
        self._write(decision.as_dict())
        self._take(decision)

    def _write(self, values: Mapping[str, Any]) -> None:
        line = b"\n" * self._unended + json.dumps(values).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            if self._cut_short:
                file.truncate(file.tell() - self._cut_short)
                file.seek(0, os.SEEK_END)
                self._cut_short = 0
            before = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        self._unended = False

    @property
    def records(self) -> list[TrialRecord]:
        """All records, oldest first."""
        return list(self._records.values())

    def tested(self) -> Mapping[str, tuple[float, float]]:
        """Test accuracy and loss by final trial, as last opened; empty while the test split is sealed."""
        return self.state.tested

    def of(self, stage: str) -> list[TrialRecord]:
        """The records of a stage, oldest first."""
        return [record for record in self._records.values() if record.stage == stage]

    def finals(self, config: Mapping[str, Any]) -> list[TrialRecord]:
        """The final runs of a config, those that differ from it in nothing but the seed; by seed."""
        wanted = {**config, "seed": None}
        same = [final for final in self.of(FINAL) if {**final.config, "seed": None} == wanted]
        return sorted(same, key=lambda final: final.config["seed"])

    def write_tables(self, folder: Path) -> None:
        """Write trials.parquet (a row per trial) and epochs.parquet (a row per epoch of each)."""
        trials = [record for record in self.records if record.stage != TEST]
        tested = self.tested()
        rows = []
        for record in trials:
            accuracy, loss = tested.get(record.id, (None, None))
            rows.append({**record.row(), "test_accuracy": accuracy, "test_loss": loss})
        write_table(folder / "trials.parquet", rows)
        epochs = [
            {"trial": record.id, "stage": record.stage, **epoch.as_dict()}
            for record in trials
            for epoch in record.epochs
        ]
        write_table(folder / "epochs.parquet", epochs)


_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)  # what `_entry` raises on what is no line


def _entry(line: bytes) -> TrialRecord | Decision:
    values = json.loads(line)
    return Decision.from_dict(values) if "decision" in values else TrialRecord.from_dict(values)
