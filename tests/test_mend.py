"""A finished search that lost files, or whose folder was moved, is made whole by the same command."""

import shutil

import mlflow
import pytest
from conftest import glyphs, noise
from ray.tune.search import Searcher
from safetensors.torch import save
from test_searcher import a_plan, begin, no_linear_arm, results_of, run_one  # noqa: F401
from test_tracked import Heard

import idat_tune
from idat_tune import tracking
from idat_tune.errors import BadInput
from idat_tune.journal import FAILED, FINAL, TEST, Journal
from idat_tune.journal.state import DONE
from idat_tune.metrics import WORST, read_table
from idat_tune.run import run
from idat_tune.search import finish, searcher
from idat_tune.search import plan as plans
from idat_tune.search.manifest import JOURNAL, NAME, Manifest, check_resumable
from idat_tune.search.mend import whole_again
from idat_tune.search.plan import Plan
from idat_tune.search.trained import trained_file


@pytest.fixture(autouse=True)
def no_object_store(monkeypatch):
    monkeypatch.setattr(searcher.ray, "put", lambda value: value)


@pytest.fixture(scope="module")
def tensors():
    """What a final run brings: those of a real student, that an export can be loaded from."""
    return save(run(glyphs(teacher="none"), noise()).student.trained_state())


def play(conducting, tensors):
    """Run it to its end; every trial fares as in `test_searcher`. The ids of all trials."""
    ids = []
    while (payload := conducting.suggest("t")) != Searcher.FINISHED:
        results = results_of(payload)
        if payload["stage"] == FINAL:
            results[-1]["state"] = tensors
        run_one(conducting, "t", payload, results)
        ids.append(payload["id"])
    return ids


def a_small_plan(out):
    return a_plan(out, trials=1, seeds=2, folds=0, fixed={"epochs": 2, "teacher": "none"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tensors):
    """The folder of a search with made-up results that went through all its stages, its store included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searcher.ray, "put", lambda value: value)
        patch.setattr(plans, "LINEAR_RATES", ())
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        out = tmp_path_factory.mktemp("finished")
        plan = a_small_plan(out)
        conducting = begin(plan)
        play(conducting, tensors)
        finish.export_winner(plan, conducting.journal, conducting.manifest)
        conducting.journal.write_tables(plan.folder)
        result = finish.result(plan, conducting.journal, "", 1.0)
        finish.write_page(plan, conducting.journal, conducting.manifest, result, pytest.fail)
        conducting.journal.decide(DONE, result=finish.kept(result))
        assert given_again(plan)[0]["winner"]  # which fills the tracking store
        return out


def given_again(plan: Plan):
    """What the same command finds, and what it says; None where something must be trained."""
    heard = Heard()
    return whole_again(plan, Journal(plan.folder / JOURNAL), Manifest(plan, "hash"), heard), heard.said


@pytest.fixture
def copied(finished, tmp_path):
    """The plan of the finished search in a folder of its own, as if it had been moved there."""
    out = tmp_path / "moved here?"
    shutil.copytree(finished, out)
    return a_small_plan(out)


def test_a_search_whose_folder_was_moved_has_its_paths_where_it_is_now(copied, finished):
    found, said = given_again(copied)
    assert said == []
    assert (found["out"], found["best"]) == (str(copied.folder), str(copied.folder / "best"))
    assert found["tracking_uri"] == tracking.uri(copied.out)
    assert str(finished) not in (copied.folder / NAME).read_text()


def test_a_search_whose_folder_was_renamed_goes_by_its_new_name(copied):
    copied.folder.rename(copied.out / "renamed")
    plan = a_plan(copied.out, name="renamed", trials=1, seeds=2, folds=0, fixed={"epochs": 2, "teacher": "none"})
    found, _ = given_again(plan)
    assert (found["name"], found["out"]) == ("renamed", str(copied.out / "renamed"))


def test_lost_tables_are_written_again(copied):
    before = read_table(copied.folder / "trials.parquet")
    (copied.folder / "trials.parquet").unlink()
    _, said = given_again(copied)
    assert said == ["trials.parquet and epochs.parquet"]
    assert read_table(copied.folder / "trials.parquet") == before


def test_a_lost_page_is_written_again_and_says_the_same(copied, monkeypatch):
    page = copied.folder / "report.html"
    _, said = given_again(copied)  # here, where paths are others
    assert said == []
    monkeypatch.chdir(copied.out.parent)
    page.unlink()
    _, said = given_again(copied)
    assert said == ["report.html"]
    first = page.read_text()
    page.unlink()
    given_again(copied)
    assert page.read_text() == first


def test_a_page_that_cannot_be_written_fails_nothing(copied):
    page = copied.folder / "report.html"
    page.unlink()
    page.mkdir()
    heard = Heard()
    heard.on_remark = lambda sentence: heard.said.append(sentence)
    found = whole_again(copied, Journal(copied.folder / JOURNAL), Manifest(copied, "hash"), heard)
    assert found["winner"]
    assert any("report.html could not be written (" in said and "idat-tune report s" in said for said in heard.said)


@pytest.mark.parametrize("lost", ["all of it", "adapter.safetensors", "config.yaml"])
def test_a_lost_export_is_made_again_from_the_tensors_of_the_final_run(copied, lost):
    best = copied.folder / "best"
    before = idat_tune.load(best).metrics
    shutil.rmtree(best) if lost == "all of it" else (best / lost).unlink()
    found, said = given_again(copied)
    assert said == ["best/, from the tensors of the final run"]
    assert idat_tune.load(found["best"]).metrics == before
    assert given_again(copied) == (found, [])


def test_what_somebody_put_in_place_of_the_export_is_not_deleted(copied):
    best = copied.folder / "best"
    shutil.rmtree(best)
    best.mkdir()
    (best / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds something else than an export"):
        given_again(copied)
    assert (best / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_where_the_tensors_are_lost_too_that_run_alone_is_trained_again_and_the_test_stays_closed(
    copied, tensors, damage
):
    shutil.rmtree(copied.folder / "best")
    for kept in (copied.folder / "final").iterdir():
        kept.unlink() if damage == "gone" else kept.write_bytes(kept.read_bytes()[:100])
    nothing, said = given_again(copied)
    assert nothing is None
    assert said == ["best/, for which final-0-default is trained again; the test stays closed"]
    conducting = begin(copied)
    before = conducting.journal.state.result
    assert play(conducting, tensors) == ["final-0-default"]
    assert finish.export_winner(copied, conducting.journal, conducting.manifest)
    assert len(conducting.journal.state.openings) == 1
    metrics = idat_tune.load(copied.folder / "best").metrics
    assert metrics["trained_again"] is True
    assert metrics["test_accuracy"] == pytest.approx(before["winner"]["test_accuracy"]["mean"], abs=0.01)
    found, said = given_again(copied)
    assert said == []
    assert finish.kept(found) == before


def test_a_student_that_cannot_be_trained_again_is_tried_again_each_time(copied, tensors):
    shutil.rmtree(copied.folder / "best")
    shutil.rmtree(copied.folder / "final")
    assert given_again(copied)[0] is None
    conducting = begin(copied)
    payload = conducting.suggest("t")
    failure = {"epoch": 0, "score": WORST, "status": FAILED, "reason": "Diverged: nan", "done": True}
    run_one(conducting, "t", payload, [failure])
    assert conducting.suggest("t") == Searcher.FINISHED
    assert not finish.export_winner(copied, conducting.journal, conducting.manifest)
    assert given_again(copied)[0] is None  # not finished, so trained once more
    again = begin(copied)
    assert play(again, tensors) == ["final-0-default"]
    assert finish.export_winner(copied, again.journal, again.manifest)
    assert given_again(copied)[0] is not None


def test_tensors_that_nothing_is_made_from_are_not_missed(copied):
    shutil.rmtree(copied.folder / "final")
    assert given_again(copied)[1] == []


def test_final_runs_whose_tensors_are_lost_before_the_test_are_trained_again(tmp_path, tensors):
    conducting = begin(a_small_plan(tmp_path))
    while not conducting.journal.state.openings:
        payload = conducting.suggest("t")
        if payload["stage"] != TEST:
            run_one(conducting, "t", payload, None)
    trained_file(conducting.plan, "final-1-default").unlink()
    assert play(begin(conducting.plan), tensors) == ["final-1-default", "test"]


def test_a_lost_tracking_store_is_filled_again(copied):
    tracking.store(copied.out).unlink()
    found, said = given_again(copied)
    assert said == [f"the runs in {tracking.uri(copied.out)}"]
    runs = mlflow.MlflowClient(tracking.uri(copied.out)).search_runs(["1"])
    parents = [run for run in runs if tracking.PARENT not in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert parents[0].data.metrics["winner/test_accuracy"] == found["winner"]["test_accuracy"]["mean"]
    assert len(runs) == 1 + len([r for r in Journal(copied.folder / JOURNAL).records if r.stage != TEST])


def test_a_search_that_lost_its_journal_says_so(copied):
    journal = copied.folder / JOURNAL
    journal.write_text("".join(line for line in journal.open() if '"id": "arm-default"' not in line))
    with pytest.raises(BadInput, match="does not hold arm-default, the winner of search 's'; put the journal back"):
        given_again(copied)
    journal.unlink()
    with pytest.raises(BadInput, match="is gone, which has the trials of search 's' and says whether its test was"):
        check_resumable(copied, "hash")
