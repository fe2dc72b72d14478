"""What must hold for the nodes of a cloud: closed, with a place for what they write, and ended when idle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster import node_fields
from cluster.findings import Found, Path
from cluster.shapes import differences

SMALLEST_DISK_GB = 100
"""PyTorch with CUDA, a data set, checkpoints: images come with less."""


def rules(config: dict[str, Any]) -> Iterator[Found]:
    """What is wrong with a file's node types.

    Args:
        config: the file with Ray's defaults.
    """
    aws = config["provider"]["type"] == "aws"
    types, head = config["available_node_types"], config["head_node_type"]
    yield from _numbers(config)
    try:
        fields = node_fields.aws() if aws else node_fields.GCP
    except ImportError:
        yield ("available_node_types",), "AWS's package knows what a node_config has: pip install -e '.[aws]'"
        return
    wrong: list[Found] = []
    for name, node_type in types.items():
        where: Path = ("available_node_types", name, "node_config")
        wrong += differences(node_type["node_config"], fields, where)
    yield from wrong
    if wrong:
        return
    account = _profile if aws else _account
    for name, node_type in types.items():
        where = ("available_node_types", name, "node_config")
        node = node_type["node_config"]
        yield from _disks(node, where, aws)
        yield from _aws(node, where) if aws else _gcp(node, where)
        if name != head and account(node) and account(node) == account(types[head]["node_config"]):
            yield (
                where,
                "this worker has the head's account, which may start and end nodes; give it one of its own",
            )
    resources = types[head].get("resources", {})
    for name in ("CPU", "GPU"):
        if resources.get(name) != 0:
            text = f"the head could run trials: write {name}: 0 in its resources"
            yield ("available_node_types", head, "resources"), text
    watched = any("cluster/start_spot_watcher.sh" in line for line in config["worker_start_ray_commands"])
    if not watched and any(_spot(node_type["node_config"]) for node_type in types.values()):
        text = "spot nodes without start_spot_watcher.sh: Ray would not know that they go"
        yield ("worker_start_ray_commands",), text
    if _spot(types[head]["node_config"]):
        text = "a spot head takes the whole search with it when it goes"
        yield ("available_node_types", head, "node_config"), text


def _numbers(config: dict[str, Any]) -> Iterator[Found]:
    """How many nodes there are."""
    most = config["max_workers"]
    if most < 1:
        yield ("max_workers",), "no worker may start: write 1 or more"
    for name, node_type in config["available_node_types"].items():
        where = ("available_node_types", name)
        low, high = node_type["min_workers"], node_type["max_workers"]
        if low < 0 or high < 0:
            yield where, "min_workers and max_workers are numbers of nodes, from 0 on"
        elif low > high:
            yield where, f"min_workers is {low}, more than max_workers, {high}"
        elif low:
            text = f"{low} of these cost when nothing waits: write min_workers: 0"
            yield (*where, "min_workers"), text
        if name == config["head_node_type"]:
            if high:
                yield (*where, "max_workers"), "more heads: write max_workers: 0 here"
        elif high > most:
            yield (*where, "max_workers"), f"{high} of a type, where max_workers of the file is {most}"
    if not any(node_type["max_workers"] for node_type in config["available_node_types"].values()):
        yield ("available_node_types",), "max_workers is 0 for every type: no worker may start"
    if config["idle_timeout_minutes"] <= 0:
        yield ("idle_timeout_minutes",), "a node would go between two trials: write 1 or more"


def _disks(node: dict[str, Any], where: Path, aws: bool) -> Iterator[Found]:
    key, part, size = (
        ("BlockDeviceMappings", "Ebs", "VolumeSize") if aws else ("disks", "initializeParams", "diskSizeGb")
    )
    sizes_gb = [disk[part][size] for disk in node.get(key, ()) if size in disk.get(part, {})]
    if not sizes_gb:
        text = f"no size of the disk, and the default is full at once: {SMALLEST_DISK_GB} GB or more"
        yield (*where, key), text
    elif max(sizes_gb) < SMALLEST_DISK_GB:
        yield (*where, key), f"a disk of {max(sizes_gb)} GB is full at once: {SMALLEST_DISK_GB} GB or more"


def _aws(node: dict[str, Any], where: Path) -> Iterator[Found]:
    options = node.get("MetadataOptions", {})
    if options.get("HttpTokens") != "required":
        text = (
            "IMDSv1 hands the node's credentials to whoever has it ask: MetadataOptions.HttpTokens: required"
        )
        yield (*where, "MetadataOptions"), text
    if options.get("HttpPutResponseHopLimit") != 1:
        text = "MetadataOptions.HttpPutResponseHopLimit: 1 keeps credentials on the node"
        yield (*where, "MetadataOptions"), text
    interfaces = node.get("NetworkInterfaces") or [{}]
    if not node.get("SecurityGroupIds") and not all(one.get("Groups") for one in interfaces):
        text = "no SecurityGroupIds: Ray would make a group with ssh for everybody; give one of your own"
        yield (*where, "SecurityGroupIds"), text
    if not _profile(node):
        text = "no IamInstanceProfile: Ray would give all of EC2 and S3 to the head; give one of your own"
        yield (*where, "IamInstanceProfile"), text


def _gcp(node: dict[str, Any], where: Path) -> Iterator[Found]:
    if not all(one.get("subnetwork") for one in node.get("networkInterfaces") or [{}]):
        yield where, "no subnetwork: the default one lets in everybody by ssh; give one of your own"
    if not _account(node):
        text = (
            "no serviceAccounts: Ray would make one for the head that may do nearly all; give one of your own"
        )
        yield (*where, "serviceAccounts"), text


def _profile(node: dict[str, Any]) -> str:
    """Name of an AWS node's instance profile, also of one that is given by its address."""
    profile = node.get("IamInstanceProfile", {})
    name: str = profile.get("Name") or profile.get("Arn", "").rpartition("/")[2]
    return name


def _account(node: dict[str, Any]) -> str:
    return ",".join(sorted(account.get("email", "") for account in node.get("serviceAccounts", ())))


def _spot(node: dict[str, Any]) -> bool:
    market = node.get("InstanceMarketOptions", {}).get("MarketType")
    return market == "spot" or any(
        plan.get("provisioningModel") == "SPOT" or plan.get("preemptible")
        for plan in node.get("scheduling", ())
    )
