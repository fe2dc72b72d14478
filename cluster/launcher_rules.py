"""What must hold for a file of `ray up`: Ray's rules, then those of a closed cluster and a small bill."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from cluster.findings import Finding, Path

SMALLEST_DISK_GB = 100
"""PyTorch with CUDA, a data set, checkpoints: images come with less."""
TOKEN_FILE = "~/.ray/auth_token"
LOCAL = "local"


def rules(config: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with a file of `ray up`, Ray's own rules first.

    Args:
        config: the file's one document.
    """
    try:
        prepared = _prepared(config)
    except ValueError as error:
        where = error.args[1] if len(error.args) > 1 else ()
        yield Finding((0, *where), str(error.args[0]))
        return
    try:
        for where, text in _own(prepared):
            yield Finding((0, *where), text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Ray's schema leaves the provider's part open.
        yield Finding((0, "available_node_types"), f"a node_config is not as the provider has them: {error}")


def _prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The file with Ray's defaults.

    Raises:
        ValueError: a sentence, and the path that it is about.
    """
    import click
    import jsonschema
    from ray.autoscaler._private import util

    provider = config.get("provider")
    if not isinstance(provider, dict) or "type" not in provider:
        raise ValueError("provider.type is missing: aws, gcp or local", ("provider",))
    if provider["type"] == LOCAL:
        for key in ("head_ip", "worker_ips"):
            if not provider.get(key):
                raise ValueError(f"provider.{key} is missing", ("provider",))
    config = copy.deepcopy(config)
    # What lies here is not asked: the file may be checked anywhere.
    if isinstance(config.get("file_mounts"), dict):
        config["file_mounts"] = dict.fromkeys(config["file_mounts"], "")
    try:
        prepared: dict[str, Any] = util.prepare_config(config)
        util.validate_config(prepared)
    except jsonschema.ValidationError as error:
        where = tuple(error.absolute_path)
        raise ValueError(_readable(error, where), where) from error
    except (click.ClickException, NotImplementedError, RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(f"Ray refuses the file: {error}") from error
    return prepared


def _readable(error: Any, where: Path) -> str:
    """A sentence for what the schema found, with the nearest key for one that it does not know."""
    from cofi_tune.data.names import closest

    place = ".".join(map(str, where))
    if error.validator == "additionalProperties":
        wrong = [key for key in error.instance if key not in error.schema.get("properties", {})]
        near = closest(str(wrong[0]), error.schema.get("properties", {}))
        hint = f"; did you mean {near}?" if near else ""
        return f"{f'{place}: ' if place else ''}unknown key {wrong[0]}{hint}"
    return f"{f'{place}: ' if place else ''}{error.message}"


def _own(config: dict[str, Any]) -> Iterator[Finding]:
    provider = config["provider"]["type"]
    yield from _commands(config)
    yield from _token(config)
    if provider == LOCAL:
        return
    head = config["head_node_type"]
    yield from _workers(config)
    for name, node_type in config["available_node_types"].items():
        where = ("available_node_types", name)
        node = node_type["node_config"]
        yield from _disks(node, (*where, "node_config"), provider)
        if provider == "aws":
            yield from _aws(node, (*where, "node_config"))
        if provider == "gcp" and not _own_network(node):
            text = "no subnetwork: the default one lets in everybody by ssh; give one of your own"
            yield Finding((*where, "node_config"), text)
    resources = config["available_node_types"][head].get("resources", {})
    at = ("available_node_types", head)
    for name in ("CPU", "GPU"):
        if resources.get(name) != 0:
            yield Finding((*at, "resources"), f"the head could run trials: write {name}: 0 in its resources")
    if _spot(config["available_node_types"][head]["node_config"]):
        yield Finding((*at, "node_config"), "a spot head takes the whole search with it when it goes")


def _commands(config: dict[str, Any]) -> Iterator[Finding]:
    """How Ray is started."""
    local = config["provider"]["type"] == LOCAL
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [(at, line) for at, line in enumerate(config[key]) if re.search(r"\bray start\b", line)]
        if not starts:
            yield Finding((key,), "no command here starts Ray: `ray start ...`")
        for at, line in starts:
            if "RAY_AUTH_MODE=token" not in line:
                yield Finding((key, at), "Ray starts without RAY_AUTH_MODE=token: who reaches it, owns it")
            if key.startswith("worker"):
                continue
            if not re.search(r"--dashboard-host[= ](127\.0\.0\.1|localhost)\b", line):
                yield Finding(
                    (key, at), "the dashboard runs what it is sent: write --dashboard-host=127.0.0.1"
                )
            for flag in ("--num-cpus", "--num-gpus") if local else ():
                if not re.search(rf"{flag}[= ]0\b", line):
                    yield Finding((key, at), f"the head could run trials: write {flag}=0")
    types = config["available_node_types"].values()
    watched = any("spot_watcher" in line for line in config["worker_start_ray_commands"])
    if not watched and any(_spot(node_type["node_config"]) for node_type in types):
        text = "spot nodes without start_spot_watcher.sh: Ray would not know that they go"
        yield Finding(("worker_start_ray_commands",), text)


def _token(config: dict[str, Any]) -> Iterator[Finding]:
    if TOKEN_FILE not in config["file_mounts"]:
        yield Finding(
            ("file_mounts",), f"no token: mount {TOKEN_FILE}, made by `ray get-auth-token --generate`"
        )
    setup = " ".join(config["worker_setup_commands"])
    if "cluster/setup.sh" not in setup and f"chmod 600 {TOKEN_FILE}" not in setup:
        yield Finding(("setup_commands",), f"the token may be readable by others: chmod 600 {TOKEN_FILE}")


def _workers(config: dict[str, Any]) -> Iterator[Finding]:
    most = config["max_workers"]
    if most < 1:
        yield Finding(("max_workers",), "no worker may start: write 1 or more")
    for name, node_type in config["available_node_types"].items():
        where = ("available_node_types", name)
        low, high = node_type["min_workers"], node_type["max_workers"]
        if low < 0 or high < 0:
            yield Finding(where, "min_workers and max_workers are numbers of nodes, from 0 on")
        elif low > high:
            yield Finding(where, f"min_workers is {low}, more than max_workers, {high}")
        if name == config["head_node_type"]:
            if high:
                yield Finding((*where, "max_workers"), "more heads: write max_workers: 0 here")
        elif high > most:
            yield Finding(
                (*where, "max_workers"), f"{high} of a type, where max_workers of the file is {most}"
            )
    if not any(node_type["max_workers"] for node_type in config["available_node_types"].values()):
        yield Finding(("available_node_types",), "max_workers is 0 for every type: no worker may start")
    if config["idle_timeout_minutes"] <= 0:
        yield Finding(("idle_timeout_minutes",), "a node would go between two trials: write 1 or more")


def _disks(node: dict[str, Any], where: Path, provider: str) -> Iterator[Finding]:
    key, size = ("BlockDeviceMappings", _ebs_gb) if provider == "aws" else ("disks", _gcp_gb)
    sizes = [size(disk) for disk in node.get(key) or ()]
    largest = max((found for found in sizes if found is not None), default=None)
    if largest is None:
        yield Finding(
            (*where, key),
            f"no size of the disk, and the default is full at once: {SMALLEST_DISK_GB} GB or more",
        )
    elif largest < SMALLEST_DISK_GB:
        yield Finding((*where, key), f"a disk of {largest} GB is full at once: {SMALLEST_DISK_GB} GB or more")


def _ebs_gb(disk: dict[str, Any]) -> int | None:
    return (disk.get("Ebs") or {}).get("VolumeSize")


def _gcp_gb(disk: dict[str, Any]) -> int | None:
    found = (disk.get("initializeParams") or {}).get("diskSizeGb")
    return None if found is None else int(found)


def _aws(node: dict[str, Any], where: Path) -> Iterator[Finding]:
    options = node.get("MetadataOptions") or {}
    if options.get("HttpTokens") != "required":
        text = (
            "IMDSv1 hands the node's credentials to whoever has it ask: MetadataOptions.HttpTokens: required"
        )
        yield Finding((*where, "MetadataOptions"), text)
    if options.get("HttpPutResponseHopLimit") != 1:
        text = "MetadataOptions.HttpPutResponseHopLimit: 1 keeps credentials on the node"
        yield Finding((*where, "MetadataOptions"), text)
    if not node.get("SecurityGroupIds") and not node.get("NetworkInterfaces"):
        text = "no SecurityGroupIds: Ray would make a group with ssh for everybody; give one of your own"
        yield Finding((*where, "SecurityGroupIds"), text)
    if not node.get("IamInstanceProfile"):
        text = "no IamInstanceProfile: Ray would give all of EC2 and S3 to the head; give one of your own"
        yield Finding((*where, "IamInstanceProfile"), text)


def _own_network(node: dict[str, Any]) -> bool:
    interfaces = node.get("networkInterfaces") or [{}]
    return all(interface.get("subnetwork") for interface in interfaces)


def _spot(node: dict[str, Any]) -> bool:
    market = (node.get("InstanceMarketOptions") or {}).get("MarketType")
    scheduling = node.get("scheduling") or {}
    plans = scheduling if isinstance(scheduling, list) else [scheduling]
    return market == "spot" or any(
        p.get("provisioningModel") == "SPOT" or p.get("preemptible") for p in plans
    )
