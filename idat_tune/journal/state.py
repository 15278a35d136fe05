"""Where a search stands: what its decisions and its finished trials come to, line after line."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from idat_tune.journal.records import COMPLETE, FINAL, TEST, TrialRecord

BEGUN, STARTED, TRACKED, ENDED, EXPLORED = "begun", "started", "tracked", "ended", "explored"
SPENT, WINNER, OPENED, LOST = "spent", "winner", "opened", "lost"
INTERRUPTED, BROKE, DONE = "interrupted", "broke", "done"
ENDS = (INTERRUPTED, BROKE, DONE)  # of a session

# What each decision says, with the type of it in JSON.
DECISIONS: Mapping[str, Mapping[str, Any]] = {
    BEGUN: {"trials": int, "seeds": int, "reopen_test": bool, "sampler": str, "stopping": str},  # asked for, each time
    STARTED: {"gpus_per_trial": float | int, "stacked": int, "precision": str | None},  # Ray is there; with `at_once`
    TRACKED: {"run": str},  # id of the parent run in the store; with `whole` that store has all that stands above
    SPENT: {"seconds": float | int, "gpu_seconds": float | int},  # on exploring so far, in all sessions
    ENDED: {"by": str},  # nothing is proposed any more, for the reason that `budget.WHY` has
    EXPLORED: {},  # what was proposed has run
    WINNER: {"trial": str},  # is frozen
    OPENED: {"winner": str, "by": str},  # the test split, for that winner
    LOST: {"trials": list},  # final runs whose trained tensors are gone and still wanted
    INTERRUPTED: {},  # told to stop
    BROKE: {"reason": str, "result": dict | None},  # could not go on, or could not hand over what it gave
    DONE: {"result": dict},  # all is exported: what the search gave
}


@dataclass(frozen=True)
class Decision:
    """A turn of a search, between its trials."""

    kind: str
    about: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default=0.0, compare=False)  # Unix time in seconds, set by the journal

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`.

        Raises:
            ValueError, KeyError: that was not given back by it.
        """
        kind, about = values["decision"], {k: v for k, v in values.items() if k not in ("decision", "time")}
        if kind not in DECISIONS:
            raise ValueError(f"decision is {kind!r}, not one of {', '.join(DECISIONS)}")
        for name, wanted in {**DECISIONS[kind], "time": float | int}.items():
            if not isinstance(values[name], wanted):
                raise ValueError(f"{name} is {values[name]!r}")
        return cls(kind, about, values["time"])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a line of JSON."""
        return {"decision": self.kind, "time": self.time, **self.about}


@dataclass
class State:
    """What a journal says so far; everything of it follows from the lines."""

    trials: int = 0  # asked for, arms included
    seeds: int = 0  # of the final run, asked for
    at_once: int = 1  # trials, when the driver began
    gpus_per_trial: float = 0.0  # likewise
    stacked: int = 1  # the most trials that trained in one process
    precision: str | None = None  # what `auto` came to, for all trials
    parent_run: str = ""  # in the tracking store
    whole_at: str | None = None  # the store that has all that stands above, if one has
    first: Decision | None = None  # with which the search was begun
    end: Decision | None = None  # of the session, once it has come to one
    frozen: Decision | None = None  # the winner
    done: Decision | None = None  # with the result, which counts as long as there is one
    last: float = 0.0  # Unix time of the last line
    ended_by: str | None = None  # what ended proposing
    explored: bool = False
    winner: str | None = None
    openings: list[dict[str, Any]] = field(default_factory=list)  # of the test split: time, winner, by
    reopen: bool = False  # whether it is to be opened once more
    tested: dict[str, tuple[float, float]] = field(default_factory=dict)  # by final run: accuracy and loss, as last
    test_hits: dict[str, str] = field(default_factory=dict)  # likewise: which images were named rightly
    lost: set[str] = field(default_factory=set)  # final runs to train again, as their tensors are gone
    trained_again: set[str] = field(default_factory=set)  # final runs whose tensors are not those that were tested
    recorded: set[str] = field(default_factory=set)  # trials that ended since the driver began
    result: dict[str, Any] | None = None
    seconds: float = 0.0  # of exploring
    gpu_seconds: float = 0.0

    def take(self, entry: TrialRecord | Decision) -> None:
        """The next line."""
        if isinstance(entry, Decision) and entry.kind == TRACKED:
            self.parent_run = entry.about["run"]
            self.whole_at = entry.about.get("whole")
            return
        self.whole_at = None
        if isinstance(entry, TrialRecord):
            self.last = entry.ended
            self._take_record(entry)
        else:
            self.last = entry.time
            self._turn(entry)
            self._take_decision(entry.kind, entry.about, entry.time)

    def more(self, trials: int, seeds: int) -> list[tuple[str, int, int]]:
        """What would be asked for beyond what was asked for before: option, before, then."""
        pairs = (("trials", self.trials, trials), ("seeds", self.seeds, seeds))
        begun = self.seeds > 0  # of trials none may be asked for
        return [(option, before, now) for option, before, now in pairs if begun and before < now]

    def finished_for(self, trials: int, seeds: int, reopen_test: bool) -> bool:
        """Whether nothing is left to do for who asks for this."""
        return self.result is not None and not self.more(trials, seeds) and not (reopen_test and self.openings)

    @property
    def undecided(self) -> bool:
        """Whether more may be explored."""
        return not self.explored and self.winner is None

    @property
    def to_open(self) -> bool:
        """Whether the test split was never opened, or is to be opened once more on request."""
        return not self.openings or self.reopen

    def _turn(self, decision: Decision) -> None:
        """Keep the decisions that say when."""
        if decision.kind == BEGUN:
            self.first, self.end = self.first or decision, None
        elif decision.kind in ENDS:
            self.end = decision
            self.done = decision if decision.kind == DONE else self.done
        elif decision.kind == WINNER:
            self.frozen = decision

    def _take_record(self, record: TrialRecord) -> None:
        self.recorded.add(record.id)
        if record.stage == FINAL and record.status == COMPLETE:
            self.lost.discard(record.id)
            if record.id in self.tested:
                self.trained_again.add(record.id)
        if record.stage == TEST:
            self.tested |= record.tested
            self.test_hits |= record.test_hits
            self.trained_again -= set(record.tested)

    def _take_decision(self, kind: str, about: Mapping[str, Any], time: float) -> None:
        if kind == BEGUN:
            self._begin(about["trials"], about["seeds"], about["reopen_test"])
        elif kind == STARTED:
            self.at_once, self.gpus_per_trial = about.get("at_once", 1), about["gpus_per_trial"]
            self.stacked = max(self.stacked, about["stacked"])
            self.precision = self.precision or about["precision"]
        elif kind == SPENT:
            self.seconds, self.gpu_seconds = about["seconds"], about["gpu_seconds"]
        elif kind == ENDED:
            self.ended_by = about["by"]
        elif kind == EXPLORED:
            self.explored = True
        elif kind == WINNER:
            self.winner = about["trial"]
        elif kind == OPENED:
            self.openings.append({"time": time, **about})
            self.reopen = False
        elif kind == LOST:
            self.lost = set(about["trials"])
        elif kind == DONE:
            self.result = dict(about["result"])

    def _begin(self, trials: int, seeds: int, reopen_test: bool) -> None:
        """Take back what was decided, as far as more is asked for than it was decided on."""
        more = [option for option, _, _ in self.more(trials, seeds)]
        if "trials" in more:
            self.explored, self.winner = False, None
        if self.openings and reopen_test and (more or self.result):
            self.reopen = True  # until it is done, so that a restart does it too
        if more or self.reopen:
            self.result = None
        if not self.explored:  # more hours or patience may be asked for
            self.ended_by = None
        self.trials = max(trials, self.trials) if self.explored else trials
        self.seeds = max(seeds, self.seeds) if self.openings else seeds
        self.recorded = set()
