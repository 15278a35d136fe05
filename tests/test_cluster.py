"""A cluster of several machines, made by `ray up` as its users make it, whose machines come and go."""

import json
import shutil

import pytest
from machines import Machines, lacking, until
from rayup import HEAD, SMALL, Cluster, bring, ended, searching

NOT_HERE = lacking()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(NOT_HERE is not None, reason=str(NOT_HERE))]
LATE = 4  # a machine that the cluster's YAML does not name
ALL = {"machine-1", "machine-2", "machine-3"}


@pytest.fixture(scope="module")
def machines():
    with Machines(3) as running:
        yield running
    assert running.left() == []


@pytest.fixture(scope="module")
def cluster(machines):
    """Up, with a task and weights on the head alone."""
    found = Cluster(machines, range(2, 4))
    found.up()
    bring(machines.disk(HEAD))
    found.run("idat-tune data import --from pictures --task birds")
    return found


@pytest.fixture(scope="module")
def undisturbed(cluster, machines):
    """The records of a search that nothing happens to, given to the cluster as the README does."""
    machines.hub(f"ray exec cluster.yaml {json.dumps(searching('undisturbed', '--address', 'auto'))}")
    assert cluster.journal("undisturbed")[-2]["decision"] == "done"
    return outcomes(cluster, "undisturbed")


def outcomes(cluster, name):
    """What came of each trial, wherever it ran; each of them once."""
    records = cluster.records(name)
    by_id = {one["id"]: (one["stage"], one["fold"], one["status"], one["config"], figures(one)) for one in records}
    assert len(by_id) == len(records)
    return by_id


def figures(record):
    return [epoch["val_accuracy"] for epoch in record["epochs"]]


def test_machines_share_nothing_but_the_program(machines):
    places = "~/it /tmp/it /dev/shm/it /run/it /var/tmp/it"
    machines.ssh(2, f"touch {places}")
    assert machines.ssh(3, f"ls {places}", check=False).stdout == ""
    assert machines.ssh(2, f"ls {places} | wc -w").stdout == "5\n"
    program = machines.ssh(3, "python -c 'import idat_tune; print(idat_tune.__file__)'").stdout.strip()
    assert "Read-only file system" in machines.ssh(3, f"touch {program}", check=False).stderr


def test_machines_that_have_nothing_train_own_images_on_own_weights(cluster, machines, undisturbed):
    assert {stage for stage, *_ in undisturbed.values()} == {"explore", "confirm", "final", "test"}
    assert {status for _, _, status, *_ in undisturbed.values()} == {"complete"}
    assert cluster.nodes("undisturbed") == ALL
    for i in cluster.workers:
        fetched = {path.name for path in (machines.disk(i) / ".cache/idat-tune/supplied").rglob("*.*")}
        assert {"test.parquet", "test_vit.r160_in1k.safetensors", "test_vit2.r160_in1k.safetensors"} <= fetched
    for i in (HEAD, *cluster.workers):
        until(lambda i=i: not cluster.trains(i), f"machine {i} has no worker any more")


def test_what_a_machine_trained_that_lost_its_power_begins_again_elsewhere(cluster, machines, undisturbed):
    search = cluster.begin(searching("power"))
    until(lambda: "machine-2" in cluster.nodes("power"), "machine 2 trains")
    machines.kill(2)
    before = len([one for one in cluster.records("power") if one["node"] == "machine-2"])
    machines.start(2)
    code, _, said = ended(search)
    assert code == 0, said
    assert "machine machine-2 is lost; what ran there begins again elsewhere" in said
    assert outcomes(cluster, "power") == undisturbed
    assert before < len([one for one in cluster.records("undisturbed") if one["node"] == "machine-2"])


def test_a_detached_search_outlives_ssh_is_shown_killed_stopped_and_gone_on_with(cluster, machines, undisturbed):
    """By the same command each time; on the machine that came back, too."""
    cluster.whole()
    begun = json.loads(cluster.run(searching("away", "--detach", "--json")).stdout)
    assert begun["name"] == "away"
    view = cluster.begin("idat-tune search --name away", terminal=True)
    while "following it" not in (line := view.stdout.readline()):
        assert line, "nothing was shown"
    machines.cut(view)
    until(
        lambda: not any("search --name away" in line for line in machines.running(HEAD)), "the view ends with its line"
    )
    until(lambda: cluster.records("away"), "a trial has ended")
    assert standing(cluster, "away") == "running"
    cluster.run(f"kill -KILL {begun['pid']}")
    assert standing(cluster, "away") == "died"
    before = [record["id"] for record in cluster.records("away")]
    cluster.run(searching("away", "--detach"))
    until(lambda: len(cluster.records("away")) > len(before), "another trial has ended")
    assert "search away is stopped" in cluster.run("idat-tune stop away").stdout
    assert standing(cluster, "away") == "interrupted"
    assert len(cluster.records("away")) < len(undisturbed)
    cluster.run(searching("away"))
    assert standing(cluster, "away") == "finished"
    assert [record["id"] for record in cluster.records("away")][: len(before)] == before
    assert outcomes(cluster, "away") == undisturbed
    assert cluster.nodes("away") == ALL


def standing(cluster, name):
    (found,) = json.loads(cluster.run(f"idat-tune status {name} --json").stdout)
    return found["state"]


def test_a_machine_that_cannot_be_set_up_is_left_out_and_one_that_comes_late_is_used(cluster, machines):
    """On machine 3 nothing can be written where what is fetched would lie; machine 4 is no part of the cluster yet."""
    cluster.whole()
    cluster.run("rm -rf ~/.cache && touch ~/.cache", 3)
    machines.start(LATE)
    shutil.copytree(machines.disk(HEAD) / ".ray", machines.disk(LATE) / ".ray")  # with the token
    search = cluster.begin(searching("changing", "--trials", "16", "--epochs", "30"))
    until(lambda: cluster.records("changing"), "a trial has ended")
    machines.ssh(LATE, f"RAY_AUTH_MODE=token ray start --address={machines.address(HEAD)}:6379 {SMALL}")
    code, _, said = ended(search)
    assert code == 0, said
    reason = "Unfit: what this machine lacks of the search could not be fetched: "
    assert f"a worker on machine-3 is replaced: {reason}" in said
    assert f"machine-3 gets no more trials: {reason}" in said
    assert cluster.nodes("changing") == (ALL - {"machine-3"}) | {f"machine-{LATE}"}
    assert {record["status"] for record in cluster.records("changing")} == {"complete"}
    machines.kill(LATE)
    cluster.run("rm ~/.cache", 3)


def test_what_searches_found_is_brought_home(cluster, machines, undisturbed):
    machines.hub("ray rsync-down cluster.yaml '~/runs/undisturbed/' home")
    home = machines.disk(0) / "home"
    assert json.loads((home / "manifest.json").read_text())["task"] == "birds"
    assert (home / "journal.jsonl").read_text() == (
        machines.disk(HEAD) / "runs" / "undisturbed" / "journal.jsonl"
    ).read_text()
    assert list((home / "best").glob("*.safetensors"))


def test_ray_down_and_ray_stop_leave_nothing_that_runs(cluster, machines):
    """Of machines that it did not hire `ray down` ends Ray on the head alone."""
    machines.hub("ray down -y cluster.yaml")
    for i in cluster.workers:
        cluster.run("ray stop", i)
    for i in (HEAD, *cluster.workers):
        until(lambda i=i: not programs(machines.running(i)), f"machine {i} runs nothing any more")


def programs(lines):
    """What runs on a machine beside its first process and ssh."""
    return [line for line in lines if not line.startswith(("bash /", "sshd"))]
