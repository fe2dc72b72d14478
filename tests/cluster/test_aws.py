"""gpu.yaml on an AWS of its own, on loopback: set up, nodes made and ended by Ray's own provider."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

REGION = "us-east-1"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Path]:
    """moto's server, and an environment that knows no other AWS; the home directory in it."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true",
                "HOME": str(home),
            }.items():
                patch.setenv(name, value)
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"):
                patch.delenv(name, raising=False)
            deadline = time.monotonic() + 300
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield home
    finally:
        process.terminate()
        process.wait(300)


@pytest.fixture(scope="module")
def ec2(aws: Path) -> Any:
    import boto3

    return boto3.resource("ec2", REGION)


@pytest.fixture(scope="module")
def group(ec2: Any) -> Any:
    """The security group of a careful user: ssh from one address, everything among its members."""
    [vpc] = ec2.vpcs.filter(Filters=[{"Name": "is-default", "Values": ["true"]}])
    made = ec2.create_security_group(GroupName="cofi", Description="cofi", VpcId=vpc.id)
    made.authorize_ingress(IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="192.0.2.7/32")
    return made


@pytest.fixture(scope="module")
def bootstrapped(aws: Path, ec2: Any, group: Any) -> Any:
    """The file as `ray up` makes it ready, with what AWS knows."""
    import boto3
    import yaml
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.util import prepare_config

    iam = boto3.client("iam")
    for name in ("cofi-head", "cofi-worker"):
        iam.create_instance_profile(InstanceProfileName=name)
    image = next(iter(ec2.images.limit(1))).id
    text = (Path(__file__).parents[2] / "cluster" / "gpu.yaml").read_text(encoding="utf-8")
    for placeholder, value in {"ami-CHANGEME": image, "sg-CHANGEME": group.id, "CHANGEME": "cofi"}.items():
        text = text.replace(placeholder, value)
    return _bootstrap_config(prepare_config(yaml.safe_load(text)), no_config_cache=True)


def test_bootstrap(bootstrapped: Any, aws: Path) -> None:
    types = bootstrapped["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0, "driver": 1000, "latency_bench": 1}
    for name in ("gpu_spot", "gpu_on_demand"):
        # AWS's own word on the instance agrees with the file's.
        assert types[name]["resources"].items() >= {"CPU": 4, "GPU": 1, "accelerator_type:A10G": 1}.items()
    assert all(len(node_type["node_config"]["SubnetIds"]) == 4 for node_type in types.values())
    [key] = (aws / ".ssh").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_ray_opens_nothing(bootstrapped: Any, ec2: Any, group: Any) -> None:
    assert bootstrapped
    ranges = [
        allowed
        for one in ec2.security_groups.all()
        for rule in one.ip_permissions
        for allowed in (*rule["IpRanges"], *rule.get("Ipv6Ranges", ()))
    ]
    assert ranges == [{"CidrIp": "192.0.2.7/32"}]


def test_nodes_come_and_go(bootstrapped: Any, ec2: Any, group: Any) -> None:
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import (
        TAG_RAY_LAUNCH_CONFIG,
        TAG_RAY_NODE_KIND,
        TAG_RAY_NODE_NAME,
        TAG_RAY_USER_NODE_TYPE,
    )

    provider = _get_node_provider(bootstrapped["provider"], bootstrapped["cluster_name"])
    for name, node_type in bootstrapped["available_node_types"].items():
        kind = "head" if name == "head" else "worker"
        tags = {TAG_RAY_NODE_KIND: kind, TAG_RAY_NODE_NAME: name, TAG_RAY_LAUNCH_CONFIG: "1"}
        provider.create_node(node_type["node_config"], tags | {TAG_RAY_USER_NODE_TYPE: name}, 1)
    nodes = provider.non_terminated_nodes({})
    assert len(nodes) == 3

    made = {tag["Value"]: node for node in ec2.instances.all() for tag in node.tags if tag["Key"] == "Name"}
    assert sorted(made) == ["gpu_on_demand", "gpu_spot", "head"]
    assert {name: node.instance_lifecycle for name, node in made.items()} == {
        "head": None,
        "gpu_spot": "spot",
        "gpu_on_demand": None,
    }
    for name, node in made.items():
        assert node.metadata_options["HttpTokens"] == "required"
        assert node.metadata_options["HttpPutResponseHopLimit"] == 1
        assert [one["GroupId"] for one in node.security_groups] == [group.id]
        assert node.iam_instance_profile["Arn"].endswith("cofi-head" if name == "head" else "cofi-worker")
        [volume] = node.volumes.all()
        assert (volume.size, volume.encrypted) == (200, True)

    provider.terminate_nodes(nodes)
    assert provider.non_terminated_nodes({}) == []
    # Ended, not stopped: a stopped node would still cost its disk.
    assert {node.state["Name"] for node in ec2.instances.all()} == {"terminated"}
