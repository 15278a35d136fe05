"""Files for `ray up`: their keys, how they start Ray, machines of one's own; clouds stand beside."""

import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from idat_tune.clusters.findings import ERROR, NOTE, WARNING, Finding, listed, mapping, taken_out
from idat_tune.clusters.jobs import LOOPBACK
from idat_tune.clusters.machines import aws, google, kinds
from idat_tune.clusters.mounts import TOKEN, mounted
from idat_tune.errors import shown

_ANY = {"type", "use_internal_ips", "disable_node_updaters", "disable_launch_config_check", "foreground_node_launch",
        "worker_liveness_check"}  # fmt: skip
PROVIDER = {  # what Ray's code reads; its schema takes anything
    "aws": _ANY | {"region", "availability_zone", "cache_stopped_nodes", "key_pair", "security_group", "cloudwatch",
                   "aws_credentials"},
    "gcp": _ANY | {"region", "availability_zone", "project_id", "cache_stopped_nodes", "gcp_credentials"},
    "local": _ANY | {"head_ip", "worker_ips", "external_head_ip", "coordinator_address"},
}  # fmt: skip
STARTS = {"head": "head_start_ray_commands", "worker": "worker_start_ray_commands"}
COMMANDS = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")


def ray_up(content: dict[str, Any]) -> Iterator[Finding]:
    """Everything about a file for `ray up`."""
    kind = str(mapping(content.get("provider")).get("type"))
    yield from _keys(content, kind)
    yield from _validated(content)
    yield from _starts(content, kind)
    yield from _token(content)
    yield from mounted(mapping(content.get("file_mounts")))
    types, head = mapping(content.get("available_node_types")), str(content.get("head_node_type"))
    if kind == "local":
        yield from _local(content)
    else:
        yield from kinds(types, head)
    if kind == "aws":
        yield from aws(content, types, head)
    elif kind == "gcp":
        yield from google(types)


def _keys(content: dict[str, Any], kind: str) -> Iterator[Finding]:
    """Keys that nothing reads; taken out, as Ray would name the first of them and say nothing of the rest."""
    schema = _schema()["properties"]
    of_a_type = next(iter(schema["available_node_types"]["patternProperties"].values()))["properties"]
    yield from taken_out("", content, schema)
    yield from taken_out("auth", content.get("auth"), schema["auth"]["properties"])
    if kind in PROVIDER:
        yield from taken_out("provider", content.get("provider"), PROVIDER[kind])
    for name, one in mapping(content.get("available_node_types")).items():
        yield from taken_out(f"available_node_types.{name}", one, of_a_type)


def _schema() -> dict[str, Any]:
    import ray.autoscaler

    found: dict[str, Any] = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    found["properties"]["min_workers"] = {}  # which Ray takes of a file, and out of it before it asks the schema
    return found


def _validated(content: dict[str, Any]) -> Iterator[Finding]:
    """What Ray says of it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)  # which tells of what it fills in
    try:
        prepared = prepare_config(copy.deepcopy(content))
        validate_config({"cluster_synced_files": [], **prepared})
    except Exception as failure:  # of a schema, a missing key, a library of a cloud
        said = (str(failure).strip() or "no more is said").splitlines()[0]
        yield Finding(ERROR, "Ray", f"{type(failure).__name__}: {shown(said, 300)}")


def _starts(content: Mapping[str, Any], kind: str) -> Iterator[Finding]:
    """How Ray is started."""
    for role, which in STARTS.items():
        line = next((str(line) for line in listed(content.get(which)) if "ray start" in str(line)), None)
        if line is None:
            yield Finding(
                WARNING, which, "Ray's own defaults start it: without a token, with its dashboard for everyone"
            )
        else:
            yield from _start(line, which)
            if role == "head":
                yield from _start_of_head(line, which, kind)


def _start(line: str, which: str) -> Iterator[Finding]:
    if "RAY_AUTH_MODE=token" not in line:
        open_to_all = "without RAY_AUTH_MODE=token whoever reaches the machine's ports runs code on it"
        yield Finding(ERROR, which, f"{open_to_all}; set it, and put one ~/.ray/auth_token on all machines")
    host = re.search(r"--dashboard-host[= ](\S+)", line)
    if host and host[1] not in LOOPBACK:
        yield Finding(
            ERROR, which, f"--dashboard-host={host[1]} shows the dashboard, which runs code, to others; 127.0.0.1"
        )
    if "--include-dashboard=true" in line.lower() and not host:
        yield Finding(NOTE, which, "the dashboard is on; it stays on 127.0.0.1 unless --dashboard-host says otherwise")
    if "--num-gpus" in line:
        yield Finding(
            WARNING, which, "--num-gpus claims GPUs, be there any or not, and trials fail there; Ray counts by itself"
        )
    if "ulimit -n" not in line:
        yield Finding(NOTE, which, "`ulimit -n 65536` before it lets one machine hold some hundred workers")


def _start_of_head(line: str, which: str, kind: str) -> Iterator[Finding]:
    if "--head" not in line:
        yield Finding(ERROR, which, "`ray start` without --head starts no head")
    if kind != "local" and "--autoscaling-config" not in line:
        yield Finding(ERROR, which, "without --autoscaling-config=~/ray_bootstrap_config.yaml no machine is ever added")


def _token(content: Mapping[str, Any]) -> Iterator[Finding]:
    """A token that is asked for and brought by nothing, which would let no machine in."""
    starts = " ".join(str(line) for which in STARTS.values() for line in listed(content.get(which)))
    set_up = " ".join(str(line) for which in COMMANDS for line in listed(content.get(which)))
    brought = TOKEN in set_up or any(TOKEN in str(there) for there in mapping(content.get("file_mounts")))
    if "RAY_AUTH_MODE=token" in starts and "RAY_AUTH_TOKEN" not in starts and not brought:
        yield Finding(
            ERROR,
            "setup_commands",
            "nothing puts ~/.ray/auth_token on the machines, so they turn each other away; "
            "install -D -m 600 ~/idat-tune/auth_token ~/.ray/auth_token",
        )


def _local(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Machines of one's own."""
    provider = mapping(content.get("provider"))
    if "available_node_types" in content:
        yield Finding(ERROR, "available_node_types", "provider local takes none: Ray counts cores and GPUs by itself")
    count = len(listed(provider.get("worker_ips")))
    if not provider.get("head_ip") and not provider.get("coordinator_address"):
        yield Finding(ERROR, "provider.head_ip", "it is missing: the address of the machine where searches are started")
    for name in ("min_workers", "max_workers"):
        if content.get(name, count) != count:
            yield Finding(
                WARNING, name, f"it is {content.get(name)} and there are {count} worker_ips, so not all are used"
            )
    key = mapping(content.get("auth")).get("ssh_private_key")
    if key and not Path(str(key)).expanduser().exists():
        yield Finding(WARNING, "auth.ssh_private_key", f"there is no {key} here")
    yield Finding(
        NOTE, "provider", "start it as `RAY_UP_enable_autoscaler_v2=0 ray up ...`, else one machine of two joins"
    )
