"""The score, the results tables and the journal."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.journal import COMPLETE, EXPLORE, FAILED, FINAL, TEST, Journal, TrialRecord
from idat_tune.journal.hits import packed, unpacked
from idat_tune.metrics import WORST, EpochMetrics, read_table, score, write_table


def epoch(number=0, accuracy=0.5, loss=1.0):
    return EpochMetrics(number, 1e-3, 2.0, 1.0, None, None, accuracy, loss, None, 0.5, 100.0, None)


def record(name="trial-000", **changes):
    config = RunConfig.for_task("digits").flat()
    fields = {"stage": EXPLORE, "arms": (), "status": COMPLETE, "epochs": (epoch(0), epoch(1)), "val_images": 200}
    return TrialRecord(id=name, config=config, **{**fields, **changes})


def test_one_more_image_right_always_beats_any_loss():
    assert score(0.505, 1e9, 200) > score(0.5, 0.0, 200)


def test_ties_go_to_the_lower_loss():
    assert score(0.5, 0.3, 200) > score(0.5, 0.4, 200) > score(0.5, float("inf"), 200)


def test_a_trial_without_validation_or_that_failed_is_worse_than_the_worst_real_one():
    assert score(None, None, 200) == WORST < score(0.0, 1e9, 200)
    assert record(status=FAILED).score == WORST
    assert record(epochs=()).score == WORST


def test_a_table_has_every_column_that_any_row_has(tmp_path):
    write_table(tmp_path / "t.parquet", [{"a": 1, "b": "x"}, {"a": 2.5, "c": None}])
    assert read_table(tmp_path / "t.parquet") == [{"a": 1.0, "b": "x", "c": None}, {"a": 2.5, "b": None, "c": None}]


def test_what_is_appended_is_there_after_a_restart(tmp_path):
    journal = Journal(tmp_path / "j")
    records = [
        record("arm-default", arms=("default",), labels={"optim.lr": 0.01}),
        record("trial-000", status=FAILED, reason="Diverged: the loss became nan", epochs=()),
        record("final-0-winner", stage=FINAL),
        record("test", stage=TEST, tested={"final-0-winner": (0.9, 0.3)}, epochs=()),
    ]
    for each in records:
        journal.append(each)
    assert Journal(tmp_path / "j").records == records
    assert Journal(tmp_path / "j").tested() == {"final-0-winner": (0.9, 0.3)}
    assert [each.id for each in Journal(tmp_path / "j").of(EXPLORE)] == ["arm-default", "trial-000"]


def test_a_line_that_a_crash_cut_short_is_dropped_and_the_journal_goes_on(tmp_path):
    path = tmp_path / "j"
    Journal(path).append(record("trial-000"))
    whole = path.read_bytes()
    Journal(path).append(record("trial-001"))
    for cut in range(len(whole) + 1, path.stat().st_size, 97):
        broken = tmp_path / f"cut-{cut}"
        broken.write_bytes(path.read_bytes()[:cut])
        journal = Journal(broken)
        assert [each.id for each in journal.records] == ["trial-000"]
        journal.append(record("trial-002"))
        assert [each.id for each in Journal(broken).records] == ["trial-000", "trial-002"]


def test_a_last_line_that_is_whole_counts_though_it_has_no_newline(tmp_path):
    path = tmp_path / "j"
    for name in ("trial-000", "trial-001"):
        Journal(path).append(record(name))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    journal = Journal(path)
    journal.append(record("trial-002"))
    journal.append(record("trial-003"))
    assert [each.id for each in Journal(path).records] == [f"trial-{number:03d}" for number in range(4)]


def test_a_damaged_trial_may_be_left_out_only_while_nothing_was_decided_on_it(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append(record("trial-000"))
    journal.path.write_bytes(b"nonsense\n" + journal.path.read_bytes())
    with pytest.raises(BadInput, match="line 1 is damaged.*delete that line"):
        Journal(journal.path)
    with journal.path.open("a") as file:
        file.write('{"decision": "winner", "time": 1.0, "trial": "trial-000"}\n')
    with pytest.raises(BadInput, match="line 1 is damaged.*put it back as it was"):
        Journal(journal.path)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 200, 797])
def test_hits_are_the_same_after_they_were_written(count):
    hits = np.random.default_rng(count).random(count) < 0.7
    assert (unpacked(packed(hits)) == hits).all()
    assert len(packed(hits)) < count / 4 + 8


@pytest.mark.parametrize("text", ["", "5", "9:ff", "8:fff", "8:zz", "x:ff", "-1:ff"])
def test_what_are_no_hits_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        unpacked(text)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "j"
    Journal(path).append(record())
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(BadInput, match="line 1 is damaged"):
        Journal(path)


def test_a_second_attempt_replaces_the_first(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append(record("final-0-winner", stage=FINAL, status=FAILED, reason="its worker died"))
    journal.append(record("final-0-winner", stage=FINAL))
    assert [each.status for each in Journal(tmp_path / "j").records] == [COMPLETE]


def test_tables_have_a_row_per_trial_and_per_epoch_with_the_test_beside_its_student(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append(record("trial-000"))
    journal.append(record("final-0-winner", stage=FINAL))
    journal.append(record("test", stage=TEST, tested={"final-0-winner": (0.9, 0.3)}, epochs=()))
    journal.write_tables(tmp_path)
    trials = {row["trial"]: row for row in read_table(tmp_path / "trials.parquet")}
    assert set(trials) == {"trial-000", "final-0-winner"}
    assert trials["final-0-winner"]["test_accuracy"] == 0.9
    assert trials["trial-000"]["test_accuracy"] is None
    assert trials["trial-000"]["optim.lr"] == RunConfig.for_task("digits").optim.lr
    epochs = read_table(tmp_path / "epochs.parquet")
    assert [(row["trial"], row["epoch"]) for row in epochs] == [(t, e) for t in trials for e in (0, 1)]
    assert set(epochs[0]) >= {field.name for field in dataclasses.fields(EpochMetrics)}


def test_a_line_for_which_the_disk_has_no_room_leaves_nothing_behind(tmp_path):
    """The limit on file sizes fails a write in the kernel, halfway, as a full disk does."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(record("trial-000"))
    before = journal.path.read_bytes()
    code = (
        "import pathlib, resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from test_journal import record\n"
        "from idat_tune.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)} + 100,) * 2)\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "try:\n    journal.append(record('trial-001'))\n"
        "except OSError:\n    sys.exit(7)\n"
    )
    tests = str(Path(__file__).parent)
    assert subprocess.run([sys.executable, "-c", code, str(journal.path), tests], timeout=60).returncode == 7
    assert journal.path.read_bytes() == before
    Journal(journal.path).append(record("trial-001"))
    assert [kept.id for kept in Journal(journal.path).records] == ["trial-000", "trial-001"]
