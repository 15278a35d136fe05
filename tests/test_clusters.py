"""Files that clusters are started from: those that come along are sound, and what is wrong with others is said."""

import copy
import itertools
import json
import os
import re
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from conftest import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idat_tune.clusters import ERROR, NOTE, WARNING, check
from idat_tune.clusters.ray_up import PROVIDER
from idat_tune.errors import BadInput

ROOT = Path(__file__).parent.parent
SHIPPED = ["cluster.yaml", "clusters/local.yaml", "clusters/gcp.yaml", "clusters/rayjob.yaml", "clusters/sky.yaml"]


def make_wheel(folder):
    """The files of `make wheel`, all of them empty."""
    made = folder / "dist" / "cluster"
    made.mkdir(parents=True)
    for name in ("idat_tune-0.1.0-py3-none-any.whl", "constraints.txt", "auth_token"):
        (made / name).touch(0o600)
    return made


@pytest.fixture
def wheel(monkeypatch, tmp_path_factory):
    """A folder where `make wheel` was given, and this process in it; what travels."""
    folder = tmp_path_factory.mktemp("clone")
    monkeypatch.chdir(folder)
    return make_wheel(folder)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_along_has_no_fault_but_what_is_to_be_edited(wheel, name):
    found = check(ROOT / name)
    assert [one for one in found if one.severity == ERROR] == []
    said = {one.sentence for one in found if one.severity == WARNING}
    assert said <= {"it is the example's; put yours in its place", "there is no ~/.ssh/id_ed25519 here"}


@pytest.mark.parametrize("name", [*SHIPPED, "clusters/slurm.sbatch"])
def test_each_opens_with_what_it_is_for_what_was_tried_and_what_was_not(name):
    opening = " ".join(itertools.takewhile(lambda line: line.startswith("#"), (ROOT / name).read_text().splitlines()))
    assert "Tried:" in opening
    assert "Not tried:" in opening


def content_of(name):
    return yaml.safe_load((ROOT / name).read_text())


def changed(tmp_path, name, change):
    """What is found in one that comes along, once something of it is changed."""
    content = copy.deepcopy(content_of(name))
    change(content)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return check(path)


def worker(content):
    return content["available_node_types"]["worker"]["node_config"]


def head(content):
    return content["available_node_types"]["head"]["node_config"]


def start(content, which, words):
    lines = content[f"{which}_start_ray_commands"]
    lines[-1] = lines[-1].replace(*words)


def mount(content, what):
    content["file_mounts"]["~/x"] = what


AWS = {
    "a typo in provider": (
        lambda c: c["provider"].update(regoin="x"),
        ERROR,
        "provider.regoin",
        "did you mean region?",
    ),
    "a network open to all": (
        lambda c: c["provider"].update(
            security_group={
                "IpPermissions": [{"FromPort": 6379, "ToPort": 6379, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
            }
        ),
        ERROR,
        "provider.security_group.IpPermissions",
        "ports 6379-6379 are open to the world",
    ),
    "another open to all": (
        lambda c: c["provider"].update(security_group={"IpPermissions": [{"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]}),
        ERROR,
        "provider.security_group.IpPermissions",
        "ports all-all are open to the world",
    ),
    "a typo in auth": (lambda c: c["auth"].update(ssh_usr="x"), ERROR, "auth.ssh_usr", "did you mean ssh_user?"),
    "a typo at the top": (lambda c: c.update(max_worker=3), ERROR, "max_worker", "did you mean max_workers?"),
    "a typo in a type": (
        lambda c: c["available_node_types"]["worker"].update(min_worker=1),
        ERROR,
        "available_node_types.worker.min_worker",
        "did you mean min_workers?",
    ),
    "a wrong kind of value": (lambda c: c.update(max_workers="many"), ERROR, "Ray", "'many' is not of type 'integer'"),
    "no token anywhere": (
        lambda c: c.update(setup_commands=[line for line in c["setup_commands"] if "auth_token" not in line]),
        ERROR,
        "setup_commands",
        "nothing puts ~/.ray/auth_token on the machines",
    ),
    "pretended GPUs": (
        lambda c: start(c, "worker", ("ray start", "ray start --num-gpus=1")),
        WARNING,
        "worker_start_ray_commands",
        "--num-gpus claims GPUs",
    ),
    "GPUs that a machine has not": (
        lambda c: c["available_node_types"]["head"].update(resources={"GPU": 1}),
        ERROR,
        "available_node_types.head.resources",
        "m6i.xlarge has no GPU",
    ),
    "a head that is no type": (
        lambda c: c.update(head_node_type="hed"),
        ERROR,
        "head_node_type",
        "no type hed; known: head",
    ),
    "no token on the head": (
        lambda c: start(c, "head", ("RAY_AUTH_MODE=token ", "")),
        ERROR,
        "head_start_ray_commands",
        "runs code on it",
    ),
    "no token on workers": (
        lambda c: start(c, "worker", ("RAY_AUTH_MODE=token ", "")),
        ERROR,
        "worker_start_ray_commands",
        "runs code on it",
    ),
    "a dashboard for all": (
        lambda c: start(c, "head", ("--dashboard-host=127.0.0.1", "--dashboard-host 0.0.0.0")),
        ERROR,
        "head_start_ray_commands",
        "--dashboard-host=0.0.0.0",
    ),
    "no autoscaler": (
        lambda c: start(c, "head", ("--autoscaling-config=~/ray_bootstrap_config.yaml", "")),
        ERROR,
        "head_start_ray_commands",
        "no machine is ever added",
    ),
    "no head": (lambda c: start(c, "head", ("--head ", "")), ERROR, "head_start_ray_commands", "starts no head"),
    "Ray's own start": (
        lambda c: c.pop("head_start_ray_commands"),
        WARNING,
        "head_start_ray_commands",
        "Ray's own defaults",
    ),
    "few files": (
        lambda c: start(c, "worker", ("ulimit -n 65536; ", "")),
        NOTE,
        "worker_start_ray_commands",
        "ulimit -n",
    ),
    "the folder one stands in": (
        lambda c: c["file_mounts"].update({"~/x": "."}),
        ERROR,
        "file_mounts.~/x",
        "is the whole of",
    ),
    "more than that": (lambda c: mount(c, ".."), ERROR, "file_mounts.~/x", "is the whole of"),
    "the home folder": (lambda c: mount(c, "~"), ERROR, "file_mounts.~/x", "is the whole of"),
    "the disk": (lambda c: mount(c, "/"), ERROR, "file_mounts.~/x", "is the whole of"),
    "what is not there": (
        lambda c: c["file_mounts"].update({"~/x": "/none"}),
        ERROR,
        "file_mounts.~/x",
        "there is no /none",
    ),
    "a number for a price": (
        lambda c: worker(c)["InstanceMarketOptions"]["SpotOptions"].update(MaxPrice=0.6),
        ERROR,
        "available_node_types.worker.node_config.InstanceMarketOptions.SpotOptions.MaxPrice",
        'EC2 takes a text, not a number: MaxPrice: "0.6"',
    ),
    "a typo in a machine": (
        lambda c: worker(c).update(InstanceTyp="g5.xlarge"),
        ERROR,
        "available_node_types.worker.node_config",
        "InstanceTyp",
    ),
    "any price": (
        lambda c: worker(c)["InstanceMarketOptions"].pop("SpotOptions"),
        WARNING,
        "available_node_types.worker.node_config.InstanceMarketOptions",
        "no ceiling",
    ),
    "on demand": (
        lambda c: worker(c).pop("InstanceMarketOptions"),
        NOTE,
        "available_node_types.worker.node_config",
        "on demand",
    ),
    "a head on spot": (
        lambda c: head(c).update(InstanceMarketOptions={"MarketType": "spot"}),
        ERROR,
        "available_node_types.head.node_config.InstanceMarketOptions",
        "is lost with all of the cluster",
    ),
    "an open disk": (
        lambda c: worker(c)["BlockDeviceMappings"][0]["Ebs"].pop("Encrypted"),
        WARNING,
        "available_node_types.worker.node_config.BlockDeviceMappings",
        "not encrypted",
    ),
    "open metadata": (
        lambda c: worker(c)["MetadataOptions"].update(HttpTokens="optional"),
        WARNING,
        "available_node_types.worker.node_config.MetadataOptions",
        "HttpTokens",
    ),
    "ssh from everywhere": (
        lambda c: worker(c).pop("SecurityGroupIds"),
        WARNING,
        "available_node_types.worker.node_config.SecurityGroupIds",
        "takes ssh from everywhere",
    ),
    "a mighty head": (
        lambda c: head(c).pop("IamInstanceProfile"),
        WARNING,
        "available_node_types.head.node_config.IamInstanceProfile",
        "full access to EC2 and S3",
    ),
    "a head with a GPU": (
        lambda c: head(c).update(InstanceType="g5.xlarge"),
        NOTE,
        "available_node_types.head",
        "paid for",
    ),
    "no GPU at all": (
        lambda c: worker(c).update(InstanceType="m6i.xlarge"),
        WARNING,
        "available_node_types",
        "trials train on CPUs",
    ),
    "a cluster of one": (
        lambda c: c["available_node_types"]["worker"].update(max_workers=0),
        WARNING,
        "available_node_types",
        "a cluster of one",
    ),
}
LOCAL = {
    "types of machines": (
        lambda c: c.update(available_node_types={"a": {"node_config": {}, "resources": {}}}),
        ERROR,
        "available_node_types",
        "provider local takes none",
    ),
    "no head": (lambda c: c["provider"].pop("head_ip"), ERROR, "provider.head_ip", "it is missing"),
    "fewer than there are": (lambda c: c.update(min_workers=1), WARNING, "min_workers", "there are 2 worker_ips"),
    "a typo": (lambda c: c["provider"].update(worker_ip=[]), ERROR, "provider.worker_ip", "did you mean worker_ips?"),
}
RAY_JOB = {
    "no token": (
        lambda c: c["spec"]["rayClusterSpec"].pop("authOptions"),
        ERROR,
        "spec.rayClusterSpec.authOptions",
        "runs code on it",
    ),
    "machines that stay": (
        lambda c: c["spec"].pop("shutdownAfterJobFinishes"),
        WARNING,
        "spec.shutdownAfterJobFinishes",
        "stay when the search is over",
    ),
    "a dashboard for its pod alone": (
        lambda c: c["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update(
            {"dashboard-host": "127.0.0.1"}
        ),
        ERROR,
        "spec.rayClusterSpec.headGroupSpec.rayStartParams.dashboard-host",
        "hears its own pod alone",
    ),
    "no search": (lambda c: c["spec"].update(entrypoint="sleep 1"), ERROR, "spec.entrypoint", "it starts no search"),
    "no name": (
        lambda c: c["spec"].update(entrypoint="idat-tune search --task dtd"),
        WARNING,
        "spec.entrypoint",
        "begins a new search",
    ),
    "no disk": (
        lambda c: c["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].pop("volumes"),
        WARNING,
        "spec.rayClusterSpec.headGroupSpec",
        "lost with their pod",
    ),
}
SKY = {
    "the end of SkyPilot's Ray": (
        lambda c: c.update(run=c["run"] + "ray stop\n"),
        ERROR,
        "run",
        "end the Ray by which SkyPilot itself works",
    ),
    "spot and no storage": (
        lambda c: c.update(run=c["run"].replace("--storage", "")),
        WARNING,
        "run",
        "lost with the first of them",
    ),
    "all that one stands in": (lambda c: c.update(workdir="."), ERROR, "workdir", "it sends the whole of ."),
    "no search": (lambda c: c.update(run="sleep 1"), ERROR, "run", "it starts no search"),
    "no token": (
        lambda c: c.update(run=c["run"].replace("RAY_AUTH_MODE=token", "")),
        ERROR,
        "run",
        "runs code on them",
    ),
}
GOOGLE = {
    "a typo": (lambda c: c["provider"].update(project="x"), ERROR, "provider.project", "did you mean project_id?"),
    "machines that have nothing": (
        lambda c: c["available_node_types"]["worker"].update(resources={}),
        WARNING,
        "available_node_types.worker.resources",
        "does not ask Google",
    ),
    "no GPU": (
        lambda c: c["available_node_types"]["worker"].update(
            node_config={"machineType": "n2-standard-4"}, resources={"CPU": 4}
        ),
        WARNING,
        "available_node_types",
        "trials train on CPUs",
    ),
}
CHANGED = {
    "cluster.yaml": AWS,
    "clusters/local.yaml": LOCAL,
    "clusters/gcp.yaml": GOOGLE,
    "clusters/rayjob.yaml": RAY_JOB,
    "clusters/sky.yaml": SKY,
}
CASES = [(name, what, case) for name, cases in CHANGED.items() for what, case in cases.items()]


@pytest.mark.parametrize(("name", "what", "case"), CASES, ids=[f"{name}: {what}" for name, what, _ in CASES])
def test_what_is_wrong_is_said_with_its_place_and_the_way_out(tmp_path, wheel, name, what, case):
    change, severity, where, words = case
    found = changed(tmp_path, name, change)
    assert [one for one in found if (one.severity, one.where) == (severity, where) and words in one.sentence], found
    before = {(one.severity, one.where) for one in changed(tmp_path, name, lambda content: None)}
    others = {(one.severity, one.where) for one in found} - before - {(severity, where)}
    assert {place for severity, place in others if severity == ERROR} <= {"Ray", "head_node_type"}


def mounting(tmp_path, what):
    """What is found where that is sent besides."""
    return changed(tmp_path, "cluster.yaml", lambda c: mount(c, str(what)))


@pytest.mark.parametrize("name", [".env", ".env.local", ".git", "key.pem", "id_rsa"])
def test_something_private_does_not_travel(tmp_path, wheel, name):
    deep = tmp_path / "mounted" / "deep"
    deep.mkdir(parents=True)
    (deep / name).write_text("secret")
    found = mounting(tmp_path, tmp_path / "mounted")
    assert [one for one in found if one.severity == ERROR and f"holds {name}, which would travel" in one.sentence]
    found = mounting(tmp_path, deep / name)
    assert [one for one in found if one.severity == ERROR and f"{name} is private" in one.sentence]


def test_pictures_and_a_token_that_others_can_read_are_named(tmp_path, wheel):
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "patient.PNG").touch()
    (tmp_path / "mounted" / "scan.dcm").touch()
    found = mounting(tmp_path, tmp_path / "mounted")
    assert [one.sentence for one in found if one.severity == WARNING and "holds 2 pictures" in one.sentence]
    (wheel / "auth_token").chmod(0o644)
    found = check(ROOT / "cluster.yaml")
    assert [one for one in found if one.severity == ERROR and "can be read by other users" in one.sentence]
    (wheel / "auth_token").unlink()
    (wheel / "auth_token").symlink_to("nowhere")
    assert not [one for one in check(ROOT / "cluster.yaml") if one.severity == ERROR]


def test_what_make_wheel_makes_is_missed_until_it_was_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    missing = [one for one in check(ROOT / "cluster.yaml") if one.severity == ERROR]
    assert [one.where for one in missing] == ["file_mounts.~/idat-tune"]
    assert missing[0].sentence.endswith("`make wheel` makes it")


@st.composite
def misspelt(draw):
    """A room of cluster.yaml, one of its keys, and that key with a letter more, less or exchanged."""
    rooms = {
        (): ["max_workers", "file_mounts", "setup_commands", "head_node_type", "idle_timeout_minutes"],
        ("provider",): [key for key in PROVIDER["aws"] if len(key) > 6],
        ("auth",): ["ssh_user", "ssh_private_key", "ssh_proxy_command"],
        ("available_node_types", "worker"): ["min_workers", "max_workers", "resources", "node_config"],
    }
    room = draw(st.sampled_from(sorted(rooms)))
    key = draw(st.sampled_from(sorted(rooms[room])))
    place = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from("qxz"))
    wrong = draw(st.sampled_from([key[:place] + letter + key[place:], key[:place] + letter + key[place + 1 :]]))
    return room, key, wrong


@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=misspelt())
def test_a_key_with_a_letter_too_many_or_a_wrong_one_is_told_the_right_one(tmp_path, wheel, case):
    room, key, wrong = case

    def misspell(content):
        for name in room:
            content = content[name]
        content[wrong] = content.pop(key, "x")

    found = [one for one in changed(tmp_path, "cluster.yaml", misspell) if one.where == ".".join((*room, wrong))]
    assert [(one.severity, f"did you mean {key}?" in one.sentence) for one in found] == [(ERROR, True)], found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it holds a mapping"),
        ("- a", "it holds a mapping"),
        ("a: [", "cluster file"),
        ("a: 1", "it is none for `ray up`"),
        ("#!/bin/bash\n#SBATCH --nodes=2\n", "is a batch script of Slurm"),
        ("provider: 3", None),
        ("provider: {type: nowhere}\ncluster_name: x", None),
        ("provider: {type: aws}\navailable_node_types: [1]\nfile_mounts: 3\nauth: x", None),
        ("kind: RayJob\nspec: []", None),
    ],
)
def test_a_file_of_any_other_kind_gets_a_sentence(tmp_path, text, words):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    if words:
        with pytest.raises(BadInput, match=words):
            check(path)
    else:
        assert check(path)[0].severity == ERROR


def test_the_command_says_it_line_by_line_and_ends_with_2_where_something_is_wrong(tmp_path):
    make_wheel(tmp_path)
    done = command("cluster", "check", ROOT / "cluster.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith("cluster.yaml: no errors")
    path = tmp_path / "x.yaml"
    path.write_text("provider: {type: aws}")
    done = command("cluster", "check", path, "--json")
    assert done.returncode == 2
    assert '"ok": false' in done.stdout
    done = command("cluster", "check", tmp_path / "none.yaml")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.slow
def test_what_goes_to_the_machines_is_the_package_and_nothing_else(tmp_path):
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    done = subprocess.run(words, capture_output=True, text=True)
    if "hatchling" in done.stderr:  # which only an isolated build has
        words.remove("--no-build-isolation")
        done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"idat_tune"}
    assert not [name for name in names if Path(name).name.startswith(".")]
    assert {"idat_tune/search_spaces/idat.yaml", "idat_tune/embedded/weights/glyph_base.safetensors"} <= set(names)


def ray_ups(ec2):
    """Ray's bootstrap of our file; then a head, and what the head does: it starts workers, looks at them, ends them."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    config = prepare_config(content_of("cluster.yaml"))
    network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=network)["GroupId"]
    for one in config["available_node_types"].values():
        one["node_config"]["SecurityGroupIds"] = [group]
    ready = bootstrap_aws(config)
    types = AWSNodeProvider.fillout_available_node_types_resources(ready)["available_node_types"]
    provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
    provider.create_node(dict(types["head"]["node_config"]), {"ray-node-type": "head"}, 1)
    yield types, group
    provider.create_node(dict(types["worker"]["node_config"]), {"ray-node-type": "worker"}, 2)
    workers = provider.non_terminated_nodes({"ray-node-type": "worker"})
    provider.set_node_tags(workers[0], {"ray-node-status": "up-to-date"})
    assert provider.internal_ip(workers[0])
    provider.terminate_nodes(workers)
    assert provider.non_terminated_nodes({"ray-node-type": "worker"}) == []


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What AWS is asked, by operation and parameters, with a stand-in answering that knows our head's profile."""
    import boto3
    import botocore.client
    import moto

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("HOME", str(tmp_path))  # for the key that Ray makes
    (tmp_path / ".ssh").mkdir()
    call, asked = botocore.client.BaseClient._make_api_call, []

    def heard(client, operation, parameters):
        asked.append((operation, copy.deepcopy(parameters)))
        return call(client, operation, parameters)

    with moto.mock_aws():
        boto3.client("iam").create_instance_profile(InstanceProfileName="idat-tune-head")
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", heard)
        yield asked


def allowed_to_the_head():
    """Patterns of the operations that the policy in our docs allows, as AWS writes them."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    policies = [json.loads(found) for found in re.findall(r"'(\{\"Version\".*?\})'\n", text, re.DOTALL)]
    (actions,) = [policy["Statement"][0]["Action"] for policy in policies if "Resource" in policy["Statement"][0]]
    return actions


def test_on_aws_ray_asks_for_what_our_file_says(calls):
    import boto3

    up = ray_ups(boto3.client("ec2"))
    types, group = next(up)
    before = len(calls)
    assert next(up, None) is None
    head, worker = [parameters for operation, parameters in calls if operation == "RunInstances"]
    assert (head["InstanceType"], worker["InstanceType"]) == ("m6i.xlarge", "g5.xlarge")
    assert (head["MaxCount"], worker["MaxCount"]) == (1, 2)
    assert head["IamInstanceProfile"] == {"Name": "idat-tune-head"}
    assert "IamInstanceProfile" not in worker  # so the head needs no iam:PassRole
    assert "InstanceMarketOptions" not in head
    assert worker["InstanceMarketOptions"] == {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.60"}}
    for run in (head, worker):
        assert run["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/")
        assert run["MetadataOptions"]["HttpTokens"] == "required"
        assert run["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
        assert group in str(run.get("SecurityGroupIds") or run.get("NetworkInterfaces"))
    assert not {operation for operation, _ in calls} & {
        "CreateRole",
        "AttachRolePolicy",
        "CreateInstanceProfile",
        "AuthorizeSecurityGroupIngress",
    }
    assert types["worker"]["resources"]["GPU"] == 1
    assert (types["worker"]["max_workers"], types["head"]["max_workers"]) == (8, 0)
    assert "GPU" not in types["head"]["resources"]
    done_by_the_head = {operation for operation, _ in calls[before:]}
    assert {"RunInstances", "CreateTags", "TerminateInstances"} <= done_by_the_head
    allowed = allowed_to_the_head()
    for operation in done_by_the_head:
        assert any(fnmatch(f"ec2:{operation}", pattern) for pattern in allowed), operation
    assert "ssm:GetParameters" in allowed  # for resolve:ssm:


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/local.yaml", "clusters/gcp.yaml", "clusters/sky.yaml"])
def test_the_newest_build_is_installed_though_its_version_is_known(tmp_path, name):
    content = content_of(name)
    lines = content["setup"].splitlines() if "setup" in content else content["setup_commands"]
    script = "\n".join(line for line in lines if "apt-get" not in line)
    (tmp_path / "idat-tune").mkdir()
    (tmp_path / "idat-tune" / "constraints.txt").touch()
    (tmp_path / "idat-tune" / "auth_token").write_text("secret")
    environment = {**os.environ, "HOME": str(tmp_path), "PIP_NO_INDEX": "1"}
    environment.pop("PYTHONPATH", None)
    for when, (version, said) in enumerate([("2.0", "first"), ("2.0", "second"), ("1.0", "third")]):
        build(tmp_path / "idat-tune", version, said, when)
        done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        program = "import shipped; print(shipped.SAID)"
        done = subprocess.run([tmp_path / "venv/bin/python", "-c", program], capture_output=True, text=True, cwd="/")
        assert done.stdout.strip() == said, done.stderr
    token = tmp_path / ".ray" / "auth_token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("secret", 0o600)


def build(folder, version, said, when):
    """A wheel of one module."""
    wheel, about = folder / f"shipped-{version}-py3-none-any.whl", f"shipped-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("shipped.py", f"SAID = {said!r}\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: shipped\nVersion: {version}\n")
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", f"shipped.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    os.utime(wheel, (10**9 + when, 10**9 + when))
