"""Which machines a cluster file for `ray up` asks a cloud for."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from idat_tune.clusters.findings import ERROR, NOTE, WARNING, Finding, listed, mapping
from idat_tune.errors import shown

GPU_FAMILIES = ("g4dn", "g5", "g6", "g6e", "gr6", "p2", "p3", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en", "p6")
GPU_MACHINES = ("g2-", "a2-", "a3-", "a4-")  # of Google Cloud
EVERYWHERE = ("0.0.0.0/0", "::/0")
SSH = 22


def kinds(types: Mapping[str, Any], head: str) -> Iterator[Finding]:
    """Of any cloud: whether there are workers, with GPUs, and a head without."""
    workers = {name: mapping(one) for name, one in types.items() if name != head}
    if head not in types:
        known = ", ".join(map(str, types)) or "none"
        yield Finding(ERROR, "head_node_type", f"there is no type {shown(head)}; known: {known}")
    if not any(one.get("max_workers", 1) for one in workers.values()):
        yield Finding(WARNING, "available_node_types", "no machine may join the head, so it is a cluster of one")
    if workers and not any(_has_gpu(one) for one in workers.values()):
        yield Finding(WARNING, "available_node_types", "no worker has a GPU, so trials train on CPUs")
    if head in types and _has_gpu(mapping(types[head])):
        yield Finding(
            NOTE, f"available_node_types.{head}", "the head has a GPU, which is paid for as long as the cluster is up"
        )
    for name, one in types.items():
        yield from _pretended(f"available_node_types.{name}.resources", mapping(one))


def _pretended(where: str, kind: Mapping[str, Any]) -> Iterator[Finding]:
    """GPUs that a machine of EC2 does not have, on which trials would wait for ever or fail."""
    named = str(mapping(kind.get("node_config")).get("InstanceType", ""))
    if named and not _gpu_family(named) and mapping(kind.get("resources")).get("GPU"):
        yield Finding(ERROR, where, f"{named} has no GPU; take another InstanceType, or leave GPU out")


def _gpu_family(instance: str) -> bool:
    return instance.partition(".")[0] in GPU_FAMILIES


def _has_gpu(kind: Mapping[str, Any]) -> bool:
    config = mapping(kind.get("node_config"))
    if "InstanceType" in config:
        return _gpu_family(str(config["InstanceType"]))
    named = str(config.get("machineType", "")).startswith(GPU_MACHINES) or "guestAccelerators" in config
    return named or bool(mapping(kind.get("resources")).get("GPU"))


def aws(content: Mapping[str, Any], types: Mapping[str, Any], head: str) -> Iterator[Finding]:
    """Machines of EC2, and who may reach them."""
    yield from _rules(mapping(mapping(content.get("provider")).get("security_group")))
    for name, one in types.items():
        where = f"available_node_types.{name}.node_config"
        config = mapping(mapping(one).get("node_config"))
        yield from _parameters(where, config)
        yield from _protection(where, config)
        yield from _price(where, config)
        if name == head:
            yield from _head(where, config)


def _rules(group: Mapping[str, Any]) -> Iterator[Finding]:
    """What a group that Ray makes lets in beside what it always does."""
    for rule in map(mapping, listed(group.get("IpPermissions"))):
        ranges = [*listed(rule.get("IpRanges")), *listed(rule.get("Ipv6Ranges"))]
        open_to_all = any({mapping(one).get("CidrIp"), mapping(one).get("CidrIpv6")} & {*EVERYWHERE} for one in ranges)
        if open_to_all and not rule.get("FromPort") == rule.get("ToPort") == SSH:
            ports = f"{rule.get('FromPort', 'all')}-{rule.get('ToPort', 'all')}"
            yield Finding(
                ERROR,
                "provider.security_group.IpPermissions",
                f"ports {ports} are open to the world, and Ray runs what it is sent there; name your own network",
            )


def _protection(where: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    if mapping(config.get("MetadataOptions")).get("HttpTokens") != "required":
        yield Finding(
            WARNING, f"{where}.MetadataOptions", "without HttpTokens: required any program there can ask for its role"
        )
    disks = [mapping(mapping(disk).get("Ebs")) for disk in listed(config.get("BlockDeviceMappings"))]
    if not disks or not all(disk.get("Encrypted") for disk in disks):
        yield Finding(WARNING, f"{where}.BlockDeviceMappings", "the disk is not encrypted; Ebs: {Encrypted: true}")
    if not config.get("SecurityGroupIds"):
        yield Finding(
            WARNING, f"{where}.SecurityGroupIds", "without any Ray makes a group that takes ssh from everywhere"
        )


def _price(where: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    market = mapping(config.get("InstanceMarketOptions"))
    if market.get("MarketType") != "spot":
        if _has_gpu({"node_config": config}):
            yield Finding(NOTE, where, "on demand; InstanceMarketOptions: {MarketType: spot} is cheaper")
        return
    most = mapping(market.get("SpotOptions")).get("MaxPrice")
    if most is None:
        yield Finding(
            WARNING, f"{where}.InstanceMarketOptions", 'no ceiling for its price; SpotOptions: {MaxPrice: "0.60"}'
        )
    elif not isinstance(most, str):
        yield Finding(
            ERROR,
            f"{where}.InstanceMarketOptions.SpotOptions.MaxPrice",
            f'EC2 takes a text, not a number: MaxPrice: "{shown(most)}"',
        )


def _head(where: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    if "IamInstanceProfile" not in config:
        yield Finding(
            WARNING, f"{where}.IamInstanceProfile", "without one Ray makes one with full access to EC2 and S3"
        )
    if "InstanceMarketOptions" in config:
        yield Finding(
            ERROR, f"{where}.InstanceMarketOptions", "a head on spot is lost with all of the cluster; on demand"
        )


def _parameters(where: str, config: Mapping[str, Any]) -> Iterator[Finding]:
    """What EC2 says of the parameters of a machine, as far as its library knows."""
    try:
        from botocore.validate import ParamValidator
    except ImportError:
        yield Finding(NOTE, where, "not checked against EC2's parameters, as boto3 is not here; pip install boto3")
        return
    ours = {"SubnetIds"}  # Ray's own, which it takes out
    asked = {**{key: value for key, value in config.items() if key not in ours}, "MinCount": 1, "MaxCount": 1}
    for line in ParamValidator().validate(asked, _run_instances()).generate_report().splitlines():
        if "MaxPrice" not in line:  # of which we say more
            yield Finding(ERROR, where, shown(line.strip().rstrip("."), 300))


@cache
def _run_instances() -> Any:
    """The parameters that EC2 takes for machines; reading them takes most of a second."""
    import botocore.session

    service = botocore.session.get_session().get_service_model("ec2")
    return service.operation_model("RunInstances").input_shape


def google(types: Mapping[str, Any]) -> Iterator[Finding]:
    """Machines of Google Cloud, of which Ray finds out only TPUs by itself."""
    for name, one in types.items():
        if not mapping(mapping(one).get("resources")):
            yield Finding(
                WARNING,
                f"available_node_types.{name}.resources",
                "empty, and Ray does not ask Google, so none is started for a trial; such as {CPU: 4, GPU: 1}",
            )
    yield Finding(
        NOTE, "provider", "its default network takes ssh from everywhere; a firewall rule of yours restricts it"
    )
